# SPDX-License-Identifier: Apache-2.0
"""The rows of the table: each a function from the bench to one or more Row."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

import trees
from scene import Daemon, Failed

CLIENTS = 16
OFTENER = 3  # the rows with the closest goals are measured so much oftener than the others
WARM_GOAL_US, WARM_BARE_US = 250, 63  # of ten files on a warm connection, and of the bare calls where that was set
AT_REST_SECONDS = 2.5  # a file that changed a moment ago is read twice, for a write may be going on


@dataclasses.dataclass
class Row:
    what: str
    ours: float = None   # dircache, in unit
    floor: float = None  # the same by bare system calls
    cp: float = None     # cp -al
    ostree: float = None
    unit: str = "ms"
    floor_ratio: float = None  # where contenders took turns: of each turn; else of the columns
    cp_ratio: float = None
    goal: str = ""
    met: bool = None
    note: str = ""       # for people: what else was seen; or why the row is empty
    samples: dict = dataclasses.field(default_factory=dict)


def median(samples):
    return statistics.median(samples) if samples else None


def ratio(samples, ours, other):
    """The median of the ratios of each repetition: what slows a machine down for seconds is in both of its samples."""
    return median([x / y for x, y in zip(samples[ours], samples[other])])


def fastest(samples, *names):
    """On a busy machine the fastest sample says more than the median."""
    return "fastest of each: " + ", ".join("%s %.1f" % (name, min(samples[name])) for name in names)


class Bench:
    """What all rows share: programs, trees, the running daemon."""

    def __init__(self, options, folder, runner, daemon):
        self.options, self.folder, self.runner, self.daemon = options, folder, runner, daemon
        self.numbers = itertools.count()
        self.floor = os.path.join(options.build, "tests", "bench", "floor")
        self.warm = os.path.join(options.build, "tests", "bench", "warm")
        self.parts = os.path.join(options.build, "tests", "bench", "parts")
        self.ostree = self.casync = None

    def path(self, name):
        return os.path.join(self.folder, "%s-%d" % (name, next(self.numbers)))

    def prepare(self):
        """The tree that most rows are about: on disk, in the store, and in an ostree repository."""
        self.tree = trees.many_small("the tree")
        self.n_files = trees.count_files(self.tree)
        self.source = self.path("source")
        trees.write(self.tree, self.source)
        self.plan = self.write_plan(self.tree)
        self.digest = self.put(self.source)
        if self.digest != trees.digest_of(self.tree):
            raise Failed("dircache put says %s, and the benchmark's own encoder %s" %
                         (self.digest, trees.digest_of(self.tree)))
        if shutil.which("ostree"):
            self.prepare_ostree()
        if shutil.which("casync"):
            self.prepare_casync()

    def prepare_ostree(self):
        repo = self.path("ostree")
        self.runner.time("ostree", "init", "--repo=" + repo, "--mode=bare-user")
        self.runner.time("ostree", "commit", "--repo=" + repo, "--branch=bench", "--tree=dir=" + self.source)
        self.ostree = lambda target: ["ostree", "checkout", "--repo=" + repo, "-U", "-H", "bench", target]

    def prepare_casync(self):
        """Its chunk store, and links from the source as a seed: the way to a tree that copies least."""
        store, index = self.path("casync"), self.path("casync") + ".caidx"
        self.runner.time("casync", "make", "--store=" + store, index, self.source)
        self.casync = lambda target: ["casync", "extract", "--store=" + store, "--seed=" + self.source,
                                      "--hardlink=yes", index, target]

    def write_plan(self, tree):
        path = self.path("plan")
        with open(path, "w", encoding="ascii") as file:
            file.write(trees.plan(tree))
        return path

    def dircache(self, *arguments):
        return [*self.daemon.client, *arguments]

    def put(self, *paths):
        """The digest of the last one."""
        return self.runner.run(*self.dircache("put", *paths)).split()[-1]

    def put_messages(self, tree, known=frozenset()):
        """Store a tree's Directory messages as plain blobs, so that the tree is there and was never resolved."""
        messages = [(digest, message) for digest, message in trees.encode(tree) if digest not in known]
        folder = self.path("messages")
        os.mkdir(folder)
        paths = []
        for number, (_, message) in enumerate(messages):
            paths.append(os.path.join(folder, str(number)))
            with open(paths[-1], "wb") as file:
                file.write(message)
        if self.put(*paths) != messages[-1][0]:
            raise Failed("dircache put and the benchmark do not agree on a Directory's digest")
        self.runner.remove(folder)
        return messages[-1][0]

    def materialize(self, digest):
        return lambda target: self.dircache("materialize", digest, target)

    def floor_tree(self, plan, *options):
        return lambda target: [self.floor, "tree", *options, plan, self.daemon.store, target]

    def timed(self, command, check=None):
        """Milliseconds that it takes to make one target, which is removed again outside the clock."""
        target = self.path("target")
        self.runner.settle()
        argv = command(target)
        took = self.runner.time(*argv)
        if argv[0] == self.floor:
            took = float(self.runner.output())
        if check:
            self.runner.time("diff", "-r", "--no-dereference", check, target)
        self.runner.remove(target)
        return took

    def compare(self, contenders, repeat, check=None):
        """Run all contenders in turn, again and again, each time another one first; once before it counts.
        A contender is a function of the repetition's number (the warm-up's is 0)."""
        samples = {name: [] for name in contenders}
        names = list(contenders)
        for repetition in range(repeat + 1):
            first = repetition % len(names)
            for name in names[first:] + names[:first]:
                took = self.timed(contenders[name](repetition), check if repetition == 0 else None)
                if repetition:
                    samples[name].append(took)
        return samples

    def counters(self):
        try:
            return self.daemon.counters()
        except (subprocess.CalledProcessError, ValueError):
            return None


def always(command):
    return lambda repetition: command


def counted(before, after, name):
    """How far a counter went; None where there are no counters."""
    return after[name] - before[name] if before and after and name in before else None


def hit(bench):
    """A tree that is cached, by all who can make one."""
    threads = str(bench.options.threads)
    contenders = {"dircache": bench.materialize(bench.digest),
                  "floor 1": bench.floor_tree(bench.plan),
                  "floor": bench.floor_tree(bench.plan, "--threads", threads),
                  "floor stat": bench.floor_tree(bench.plan, "--threads", threads, "--stat"),
                  "cp": lambda target: ["cp", "-al", bench.source, target]}
    if bench.ostree:
        contenders["ostree"] = bench.ostree
    before, repeat = bench.counters(), OFTENER * bench.options.repeat
    samples = bench.compare({name: always(command) for name, command in contenders.items()}, repeat, bench.source)
    hits = counted(before, bench.counters(), "tree_hits")
    if hits not in (None, repeat + 1):
        raise Failed("%d requests were %d hits" % (repeat + 1, hits))
    ours, floor, cp = median(samples["dircache"]), median(samples["floor"]), median(samples["cp"])
    of_floor, of_cp = ratio(samples, "dircache", "floor"), ratio(samples, "dircache", "cp")
    note = "floor: %s threads, no stat; with a stat before each link %.1f (ratio %.2f), with one thread %.1f; %s" % (
        threads, median(samples["floor stat"]), ratio(samples, "dircache", "floor stat"), median(samples["floor 1"]),
        fastest(samples, "dircache", "floor", "cp"))
    if bench.casync:
        note += "; casync extract with links from a seed, once: %.0f" % bench.timed(bench.casync)
    row = Row("hit, 10,000 files in 1,000 directories", ours, floor, cp, median(samples.get("ostree")),
              floor_ratio=of_floor, cp_ratio=of_cp, goal="at most 1.15 of the floor", met=of_floor <= 1.15, note=note,
              samples=samples)
    yield row
    yield dataclasses.replace(row, what="hit, against cp -al", goal="at most 0.5 of cp -al", met=of_cp <= 0.5, note="",
                              samples={})


def miss(bench):
    """Trees that were never resolved, their Directories and blobs in the store."""
    repeat = OFTENER * bench.options.repeat
    variants = [trees.variant(bench.tree, "variant-%d" % i) for i in range(repeat + 2)]
    digests = [bench.put_messages(variant) for variant in variants]
    plan = bench.write_plan(variants[0])
    threads = str(bench.options.threads)
    bench.timed(bench.materialize(digests[0]))
    before = bench.counters()
    samples = bench.compare({
        "dircache": lambda repetition: bench.materialize(digests[repetition + 1]),
        "hit": lambda repetition: bench.materialize(digests[repetition]),
        "floor": always(bench.floor_tree(plan, "--threads", threads))}, repeat)
    misses = counted(before, bench.counters(), "tree_misses")
    if misses not in (None, repeat + 1):
        raise Failed("%d requests were %d misses" % (repeat + 1, misses))
    of_hit = ratio(samples, "dircache", "hit")
    yield Row("miss, all blobs in the store", median(samples["dircache"]), median(samples["floor"]),
              floor_ratio=ratio(samples, "dircache", "floor"), goal="at most 1.25 of a hit", met=of_hit <= 1.25,
              samples=samples, note="a hit of the same tree %.1f: ratio %.2f; %s" % (
                  median(samples["hit"]), of_hit, fastest(samples, "dircache", "hit")))


def one_changed(bench):
    """One file of a cached tree is another: the path to it is new, all else known."""
    known = {digest for digest, _ in trees.encode(bench.tree)}
    digests = []
    for number in range(bench.options.repeat + 1):
        data = b"changed %d" % number
        path = bench.path("blob")
        with open(path, "wb") as file:
            file.write(data)
        bench.put(path)
        changed = trees.with_change(bench.tree, ["top-05", "sub-50", "file-5.o"], data)
        digests.append(bench.put_messages(changed, known))
    bench.timed(bench.materialize(bench.digest))
    before = bench.counters()
    samples = bench.compare({"dircache": lambda repetition: bench.materialize(digests[repetition]),
                             "hit": always(bench.materialize(bench.digest))}, bench.options.repeat)
    read = counted(before, bench.counters(), "directory_misses")
    ours, of_hit = median(samples["dircache"]), median(samples["hit"])
    note = "a hit %.1f: %+.1f ms" % (of_hit, ours - of_hit)
    met = ours <= 1.1 * of_hit  # by time only where nothing is counted: the difference drowns in the noise
    if read is not None:
        each = read / (bench.options.repeat + 1)
        note += "; %g Directories read for each" % each
        met = each <= 3
    yield Row("one file of 10,000 changed", ours, goal="the changed path only", met=met, note=note, samples=samples)


def timed_all(bench, command, timer):
    """Time CLIENTS commands that make a target each; the targets are removed outside the clock."""
    targets = [bench.path("target") for _ in range(CLIENTS)]
    bench.runner.settle()
    took = timer([command(target) for target in targets])
    for target in targets:
        bench.runner.remove(target)
    return took


def together(bench):
    """Sixteen clients at once, each to a target of its own, against one that makes as many trees alone."""
    def one_after_the_other(commands):
        return sum(bench.runner.time(*argv) for argv in commands)

    ours, floor_of = bench.materialize(bench.digest), bench.floor_tree(bench.plan)
    turns = [
        ("one", lambda: bench.timed(ours)),
        ("alone", lambda: timed_all(bench, ours, one_after_the_other)),
        ("ends", lambda: timed_all(bench, ours, bench.runner.time_together)),
        ("floor", lambda: timed_all(bench, floor_of, bench.runner.time_together)[-1]),
    ]
    samples = {name: [] for name, _ in turns}
    for repetition in range(bench.options.repeat + 1):
        first = repetition % len(turns)
        for name, turn in turns[first:] + turns[:first]:
            took = turn()
            if repetition:
                samples[name].append(took)
    one, alone, floor = (median(samples[name]) for name in ("one", "alone", "floor"))
    last = median([ends[-1] for ends in samples["ends"]])
    spread = median([ends[-1] / ends[0] for ends in samples["ends"]])
    n_files = CLIENTS * bench.n_files
    yield Row("%d clients at once, the last one's end" % CLIENTS, last, floor, samples=samples,
              goal="as many files/s as one, slowest ≤ 2 fastest", met=last <= alone and spread <= 2,
              note="%.0f files/ms together, %.0f by one client that makes %d trees one after the other, %.0f by one "
                   "that makes one; slowest/fastest %.2f; the floor is %d processes of one thread at once" % (
                       n_files / last, n_files / alone, CLIENTS, bench.n_files / one, spread, CLIENTS))


def count_system_calls(daemon, run):
    """System calls that a daemon makes while run() runs; None where it cannot be traced."""
    if not shutil.which("strace"):
        return None
    tasks = "/proc/%d/task" % daemon.process.pid

    def is_traced():
        return all("TracerPid:\t0\n" not in open("%s/%s/status" % (tasks, task)).read() for task in os.listdir(tasks))

    with tempfile.NamedTemporaryFile("r") as counts:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", counts.name, "-p", str(daemon.process.pid)],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while tracer.poll() is None and not is_traced():
            time.sleep(0.01)
        if tracer.poll() is None:
            run()
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        totals = [line.split() for line in counts if line.rstrip().endswith(" total")]
    return int(totals[0][3]) if totals else None


def small_warm(bench):
    """Ten files on a connection that is open, call after call."""
    tree = trees.small("small")
    source, folder = bench.path("small"), bench.path("warm")
    trees.write(tree, source)
    os.mkdir(folder)
    plan = bench.write_plan(tree)

    def put(daemon):
        return bench.runner.run(*daemon.client, "put", source).strip()

    def calls(daemon, digest, n):
        output = bench.runner.run(bench.warm, "--socket", daemon.socket, "--digest", digest, "--plan", plan,
                                  "--store", daemon.store, "--folder", folder, "--calls", str(n))
        return json.loads(output)

    result = calls(bench.daemon, put(bench.daemon), bench.options.calls)
    ours, bare = result["dircache"], result["bare"]
    slower = max(1, bare["p50"] / WARM_BARE_US)  # than the machine on which the goal was set
    yield Row("10 files, warm connection: p50", ours["p50"], bare["p50"], unit="µs",
              goal="under %d µs where the bare calls take %d" % (WARM_GOAL_US, WARM_BARE_US),
              met=ours["p50"] < WARM_GOAL_US * slower,
              note="of %d calls; the goal is %.0f µs here" % (result["calls"], WARM_GOAL_US * slower), samples=result)
    yield Row("10 files, warm connection: p99", ours["p99"], bare["p99"], unit="µs")
    with Daemon(bench.options.daemon, bench.options.client, bench.folder, "traced",
                bench.options.daemon_options) as traced:  # one of its own: the loop's laps would count strace's, too
        digest = put(traced)
        few, many = (count_system_calls(traced, lambda n=n: calls(traced, digest, n)) for n in (100, 600))
    if few and many:
        yield Row("10 files, warm connection: system calls of the daemon", (many - few) / 500, unit="calls",
                  note="of all its threads, by strace -f -c, from 600 calls less 100")


def copy_and_hash(bench, source):
    """What storing cannot do without: cp -r, and SHA-256 as fast as libcrypto has it. Milliseconds of each."""
    copied = bench.timed(lambda target: ["cp", "-r", source, target])
    return copied, float(bench.runner.run(bench.floor, "hash", source))


def put(bench, source):
    bench.runner.settle()
    return bench.runner.time(*bench.dircache("put", source))


def put_just_written(bench, tree):
    source = bench.path("fresh")
    trees.write(tree, source)
    took = put(bench, source)
    bench.runner.remove(source)
    return took


def put_at_rest(bench, tree, copy_first):
    """Milliseconds of storing it new, of storing it again, of cp -r, and of hashing."""
    source = bench.path("fresh")
    trees.write(tree, source)
    time.sleep(AT_REST_SECONDS)
    if copy_first:
        (copied, hashed), new = copy_and_hash(bench, source), put(bench, source)
    else:
        new, (copied, hashed) = put(bench, source), copy_and_hash(bench, source)
    known = put(bench, source)
    bench.runner.remove(source)
    return new, known, copied, hashed


def put_rows(bench, make, what, goal_for_known):
    """Trees that are new, and known. goal_for_known: from the medians to a goal and whether it is met."""
    samples = {"new": [], "known": [], "copy": [], "hash": [], "just written": []}
    for repetition in range(bench.options.repeat + 1):
        took = put_at_rest(bench, make("at rest %d" % repetition), repetition % 2)
        fresh = put_just_written(bench, make("just written %d" % repetition))
        if repetition:
            for name, value in zip(samples, (*took, fresh)):
                samples[name].append(value)
    middle = {name: median(values) for name, values in samples.items()}
    bare = middle["copy"] + middle["hash"]
    rate = bare / middle["new"]
    yield Row("put, new: " + what, middle["new"], bare, goal="0.7 of the rate of cp -r + SHA-256", met=rate >= 0.7,
              note="cp -r %.1f, SHA-256 %.1f: rate %.2f; written within the last seconds, and so read twice: %.1f" % (
                  middle["copy"], middle["hash"], rate, middle["just written"]), samples=samples)
    goal, met = goal_for_known(middle)
    yield Row("put, known: " + what, middle["known"], middle["hash"], goal=goal, met=met,
              note="%.1f times faster than new" % (middle["new"] / middle["known"]))


def put_small(bench):
    return put_rows(bench, trees.many_small, "10,000 files of 2 KiB",
                    lambda middle: ("2 times faster than new", middle["known"] <= middle["new"] / 2))


def put_large(bench):
    return put_rows(bench, trees.few_large, "8 files of 16 MiB",
                    lambda middle: ("at most 1.2 of SHA-256 alone", middle["known"] <= 1.2 * middle["hash"]))


def time_until_gone(begin, parent):
    """The target is renamed within its folder and then deleted."""
    deadline = begin + 60e9
    while os.listdir(parent):
        if time.monotonic_ns() > deadline:
            raise Failed("a removed tree was still there after 60 s: %s" % os.listdir(parent))
        time.sleep(0.0005)
    return (time.monotonic_ns() - begin) / 1e6


def removal(bench):
    samples = {"answer": [], "gone": [], "rm": []}
    for repetition in range(bench.options.repeat + 1):
        parent = bench.path("parent")
        os.mkdir(parent)
        target = os.path.join(parent, "target")
        took = []
        for by_rm in sorted([False, True], reverse=repetition % 2 == 1):
            bench.runner.time(*bench.materialize(bench.digest)(target))
            bench.runner.settle()
            begin = time.monotonic_ns()
            answered = bench.runner.time(*(["rm", "-rf", target] if by_rm else bench.dircache("remove", target)))
            took.append((by_rm, answered, time_until_gone(begin, parent)))
        (_, answer, gone), (_, rm, _) = sorted(took)
        os.rmdir(parent)
        if repetition:
            for name, value in zip(samples, (answer, gone, rm)):
                samples[name].append(value)
    answer, gone, rm = (median(values) for values in samples.values())
    yield Row("remove, until the answer", answer, samples=samples)
    yield Row("remove, until all is gone", gone, note="rm -rf %.1f: ratio %.2f" % (rm, gone / rm))


def restart(bench):
    """A daemon of its own with an index of many blobs, as a clean stop leaves it."""
    import index_rows

    n = bench.options.blobs
    daemon = Daemon(bench.options.daemon, bench.options.client, bench.folder, "restart", bench.options.daemon_options)
    with daemon:
        empty = daemon.resident()
    index_rows.fill(os.path.join(daemon.store, "index.sqlite"), n)
    samples = {"first": [], "ready": [], "resident": []}
    for repetition in range(min(bench.options.repeat, 5) + 1):
        first, ready = daemon.start()
        try:
            resident = daemon.resident()
            found = json.loads(subprocess.run([*daemon.client, "--json", "stats"], capture_output=True).stdout or "{}")
        finally:
            daemon.stop()
        if found.get("blobs", n) != n:
            raise Failed("%d of %d blobs were in the index after the start" % (found["blobs"], n))
        if repetition:
            for name, value in zip(samples, (first, ready, resident)):
                samples[name].append(value)
    first, ready, resident = (median(values) for values in samples.values())
    yield Row("restart, {:,} blobs: first answer".format(n), first, goal="within 50 ms", met=first <= 50,
              samples=samples)
    yield Row("restart, {:,} blobs: ready".format(n), ready, goal="within 1 s", met=ready <= 1000)
    yield Row("memory for a blob", (resident - empty) / n, unit="bytes", goal="under 160 bytes",
              met=(resident - empty) / n < 160,
              note="%.1f MiB with all blobs, %.1f MiB with none" % (resident / 2**20, empty / 2**20))


def parts(bench):
    """What the wakings of a request cost on this machine, and that a map grows without a pause."""
    def run(*arguments):
        return json.loads(bench.runner.run(bench.parts, *arguments))

    wake, growing = run("wake", "20000"), run("map", "2000000")
    yield Row("two threads wake each other: both ways", wake["p50"], unit="µs", samples=wake,
              note="p99 %.0f; a request on a warm connection has four wakings, two such" % wake["p99"])
    yield Row("the longest of 2,000,000 additions to a map", growing["add_longest"], unit="µs",
              goal="at most 1 ms", met=growing["add_longest"] <= 1000, samples=growing,
              note="of processor time, the shortest of %d maps for each addition; p50 %.2f; to find one at random %.2f" % (
                  growing["maps"], growing["add_p50"], growing["find"]))


ALL = {function.__name__: function for function in
       (hit, miss, one_changed, together, small_warm, put_small, put_large, removal, restart, parts)}
