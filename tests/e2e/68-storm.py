#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""16 clients put, materialize, remove and collect at random over a cap far below what they work on; the daemon
is killed in the middle, too. Each tree that appears is right to the byte, the cap is never exceeded, and in the end
the accounts equal the disk.

STORM_SECONDS=N for another length than 10, STORM_SEED=N for a storm once more (as far as a storm has a course).
"""

import collections
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import forest as forests  # noqa: E402
import image  # noqa: E402
import reapi  # noqa: E402
from rpc import Client, Closed, RpcError, ready_client  # noqa: E402

SECONDS = float(os.environ.get("STORM_SECONDS") or 10)
SEED = int(os.environ.get("STORM_SEED") or time.time_ns() % 1000000)
N_CLIENTS = 16
N_TREES = 300
CAP = 32 << 20
MEMORY_MAX = 200 << 20
TARGETS_MAX = 6  # of one client, at a time
GONE = (Closed, ConnectionError)


class Stormer:
    """One client: a process of its own, with a folder and a tag of its own."""

    def __init__(self, number, scene, round_):
        self.random = random.Random("%d %d %d" % (SEED, round_, number))
        self.scene = scene
        self.folder = os.path.join(scene.out, "%d-%d" % (round_, number))
        self.tag = "round-%d/client-%d" % (round_, number)
        self.tagged = None
        self.leased = None
        self.targets = []
        self.n_targets = 0
        self.counts = collections.Counter()
        self.failures = []
        self.client = None

    def run(self, seconds, may_die):
        end = time.monotonic() + seconds
        os.mkdir(self.folder)
        self.folder_fd = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.client = Client(self.scene.socket)
            while time.monotonic() < end or not self.has_done_enough():
                self.random.choices(self.ACTIONS, self.WEIGHTS)[0](self)
        except GONE as error:
            if not may_die:
                self.fail("the connection is gone: %r" % error)
        except Exception:
            self.fail(traceback.format_exc())
        return self.counts, self.failures[:5]

    def has_done_enough(self):
        """However slow all is, a storm is more than a few drops."""
        return self.counts["put"] and self.counts["materialize"]

    def fail(self, words):
        self.failures.append(words)

    def some_tree(self):
        """Some are asked for more often than others."""
        trees = self.scene.forest.trees
        return trees[int(len(trees) * self.random.random() ** 4)]

    def tried(self, what, tolerated, function, *args):
        """A call that may fail in these ways; its result, or None."""
        try:
            result = function(*args)
        except RpcError as error:
            self.counts["%s %s" % (what, error.code)] += 1
            if error.code not in tolerated:
                self.fail("%s: %s" % (what, error))
            return None
        self.counts[what] += 1
        return result

    # ---- what a client does ----

    def put(self):
        tree = self.some_tree()
        commit = {}
        if self.random.random() < 0.2:
            self.tagged = None
            commit["tag"] = self.tag
        result = self.tried("put", ("no_space",), lambda: forests.put_tree(self.client, tree, **commit))
        if not result:
            return
        if result["digest"] != reapi.text(tree.digest):
            self.fail("a put has the digest %s, not %s" % (result["digest"], reapi.text(tree.digest)))
        if commit:
            self.tagged = tree

    def put_in_part(self):
        """A put that comes to no end: aborted, or left by a client that goes away."""
        tree = self.some_tree()
        put = self.client.call("put", {"step": "begin"})["put"]
        entries, contents = next(forests.batches_of(tree))
        id_ = forests.send_batch(self.client, put, entries, contents)
        if self.random.random() < 0.5:
            self.reconnect()
        elif self.tried("batch", ("no_space",), self.client.wait, id_) is not None:
            self.client.call("put", {"step": "abort", "put": put})

    def put_too_much(self):
        """What can never fit is refused."""
        fd = os.memfd_create("much")
        os.truncate(fd, CAP)
        os.write(fd, self.tag.encode())
        put = self.client.call("put", {"step": "begin"})["put"]
        entry = {"type": "file", "fd": 0, "name": b"much"}
        try:
            id_ = self.client.request("put", {"step": "entries", "put": put, "entries": [entry]}, [fd])
        finally:
            os.close(fd)
        if self.tried("put of too much", ("no_space",), self.client.wait, id_) is not None:
            self.fail("a file as large as the cap was stored")

    def request_materialize(self, tree, **more):
        """Ask for a tree at a new target, whose name tells the tree: the request's number and the target."""
        name = "%d.%s" % (self.n_targets, tree.digest[0])
        self.n_targets += 1
        what = {} if "tag" in more else {"digest": reapi.text(tree.digest)}
        id_ = self.client.request("materialize", {**what, **more, "name": name.encode()}, [self.folder_fd])
        return id_, os.path.join(self.folder, name)

    def expect_tree(self, tree, id_, target, tolerated=("not_found", "no_space")):
        result = self.tried("materialize", tolerated, self.client.wait, id_)
        if result is None:
            if os.path.lexists(target):
                self.fail("%s is there though its request failed" % target)
            return False
        self.targets.append(target)
        wrong = forests.difference(target, tree)
        if wrong:
            self.fail(wrong)
        return True

    def materialize(self):
        tree = self.some_tree()
        if self.random.random() < 0.2:
            tree = self.random.choice(list(tree.walk()))
        self.expect_tree(tree, *self.request_materialize(tree))
        self.remove_some()

    def materialize_tagged(self):
        """What a tag pins is there."""
        if self.tagged:
            request = self.request_materialize(self.tagged, tag=self.tag)
            self.expect_tree(self.tagged, *request, tolerated=("no_space",))
            self.remove_some()

    def materialize_leased(self):
        """What a lease holds is there, until the connection ends."""
        if self.leased:
            self.expect_tree(self.leased, *self.request_materialize(self.leased), tolerated=("no_space",))
        else:
            tree = self.some_tree()
            if self.expect_tree(tree, *self.request_materialize(tree, lease_connection=True)):
                self.leased = tree
        self.remove_some()

    def materialize_many(self):
        """Several at once, some of them the same."""
        trees = [self.some_tree() for _ in range(3)]
        trees.append(trees[0])
        requests = [self.request_materialize(tree) for tree in trees]
        for tree, request in zip(trees, requests):
            self.expect_tree(tree, *request)
        self.remove_some()

    def materialize_and_cancel(self):
        tree = self.some_tree()
        id_, target = self.request_materialize(tree)
        self.client.call("cancel", {"id": id_})
        self.expect_tree(tree, id_, target, ("not_found", "no_space", "cancelled"))

    def materialize_and_leave(self):
        tree = self.some_tree()
        self.request_materialize(tree)
        self.reconnect()

    def remove_some(self):
        while len(self.targets) > TARGETS_MAX:
            target = self.targets.pop(self.random.randrange(len(self.targets)))
            name = os.path.basename(target).encode()
            self.tried("remove", (), lambda: self.client.call("remove", {"name": name}, [self.folder_fd]))
            if os.path.lexists(target):
                self.fail("%s is there though it was removed" % target)

    def untag(self):
        if self.tagged:
            self.tagged = None
            self.tried("untag", (), self.client.call, "tag", {"name": self.tag, "delete": True})

    def collect(self):
        params = {"to": self.random.randint(CAP // 4, CAP)}
        if self.random.random() < 0.3:
            params["dry_run"] = True
        self.tried("gc", (), self.client.call, "gc", params)

    def look(self):
        method = self.random.choice(["stats", "trees", "tags", "has"])
        params = {}
        if method == "has":
            params = {"digests": [reapi.text(self.some_tree().digest) for _ in range(5)], "tree": True}
        self.tried("look", (), self.client.call, method, params)

    def reconnect(self):
        self.leased = None
        self.client.close()
        self.client = Client(self.scene.socket)

    ACTIONS, WEIGHTS = zip(
        (put, 30),
        (put_in_part, 2),
        (put_too_much, 0.3),
        (materialize, 30),
        (materialize_tagged, 5),
        (materialize_leased, 5),
        (materialize_many, 5),
        (materialize_and_cancel, 3),
        (materialize_and_leave, 1),
        (untag, 2),
        (collect, 0.5),
        (look, 2),
    )


# ---- the daemon, halted for a look ----


def thread_states(pid):
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/stat" % (pid, task)) as stat:
            yield stat.read().rpartition(")")[2].split()[0]


def unnamed_files(pid, device):
    """What the daemon holds open on that device and has no name for."""
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            status = os.stat("/proc/%d/fd/%s" % (pid, fd))
        except OSError:
            continue  # a socket of nobody
        if status.st_dev == device and status.st_nlink == 0:
            yield status.st_ino, status.st_blocks * 512


def halted_usage(story):
    """What the store takes at one moment, files without a name included."""
    pid = story.daemon.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        while set(thread_states(pid)) - set("Tt"):
            time.sleep(0.001)
        unnamed = dict(unnamed_files(pid, os.stat(story.store).st_dev))
        return image.disk_usage(story.store) + sum(unnamed.values())
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- a round ----


def start_clients(story, round_, seconds, may_die):
    def run(number, pipe):
        pipe.send(Stormer(number, story, round_).run(seconds, may_die))

    clients = []
    context = multiprocessing.get_context("fork")
    for number in range(N_CLIENTS):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(number, theirs), daemon=True)
        process.start()
        theirs.close()
        clients.append((process, ours))
    return clients


def end_clients(clients):
    """What they counted, and what they have to complain of."""
    counts, failures = collections.Counter(), []
    for process, pipe in clients:
        try:
            more_counts, more_failures = pipe.recv()
            counts += more_counts
            failures += more_failures
        except EOFError:
            failures.append("a client died")
        process.join()
    return counts, failures


def storm(story, round_, seconds, kill):
    """Let them loose, and look at the disk meanwhile."""
    clients = start_clients(story, round_, seconds + (60 if kill else 0), kill)
    highest = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        highest = max(highest, halted_usage(story))
        time.sleep(0.2)
    if kill:
        story.kill_daemon()
    counts, failures = end_clients(clients)
    print("#", ", ".join("%s: %d" % pair for pair in sorted(counts.items())))
    story.check("round %d: nothing fails but for want of space or what was evicted" % round_, not failures,
                "\n".join(failures))
    story.check("the cap is kept at every moment", highest <= CAP, "%d bytes, of %d" % (highest, CAP))
    print("# at most %.1f MiB of %.1f" % (highest / 2**20, CAP / 2**20))


# ---- afterwards ----


def litter(story):
    return story.litter(*[os.path.join(story.out, folder) for folder in os.listdir(story.out)])


def wrong_targets(story):
    """What is in the clients' folders and is not the tree that its name tells."""
    by_hash = {tree.digest[0]: tree for tree in story.forest.by_digest.values()}
    for folder in os.listdir(story.out):
        for name in os.listdir(os.path.join(story.out, folder)):
            wrong = forests.difference(os.path.join(story.out, folder, name), by_hash[name.split(".")[1]])
            if wrong:
                yield wrong


def cached_trees(client):
    offset, more = 0, True
    while more:
        answer = client.call("trees", {"offset": offset})
        yield from answer["trees"]
        offset += len(answer["trees"])
        more = answer["more"]


def try_cached(story, client):
    """Materialize all cached trees: those that come out as something else, or by a miss, and those that fail."""
    target = os.path.join(story.out, "cached")
    wrong, failed = [], {}
    for row in list(cached_trees(client)):
        try:
            answer = client.call("materialize", {"digest": row["digest"], "path": target.encode()})
            difference = forests.difference(target, story.forest.by_digest[row["digest"]])
            if difference or answer["cache"] != "hit":
                wrong.append((row["digest"], answer["cache"], difference))
        except RpcError as error:
            failed[row["digest"]] = str(error)
        shutil.rmtree(target, ignore_errors=True)
    return wrong, failed


def files_of_store(story):
    """The sizes of all blobs, each once."""
    sizes = {}
    for kind in "blobs", "exec":
        for top, _, names in os.walk(os.path.join(story.store, kind)):
            sizes.update((name, os.lstat(os.path.join(top, name)).st_size) for name in names)
    return sizes


def accounts(story, client):
    """What the daemon says and what the disk has, of the same things."""
    stats = client.call("stats")
    sizes = files_of_store(story)
    seen = {
        "allocated_bytes": image.disk_usage(story.store),
        "blobs": len(sizes),
        "blob_bytes": sum(sizes.values()),
        "requests_active": 1,
        "connections": 1,
        "constructions_active": 0,
        "fetches_active": 0,
        "leases": 0,
    }
    return {name: stats[name] for name in seen}, seen


def agree(pair):
    return pair[0] == pair[1]


def memory(story):
    with open("/proc/%d/status" % story.daemon.pid) as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) << 10


def afterwards(story):
    with ready_client(story.socket) as client:
        story.check("no litter stays", story.eventually(10, lambda: not litter(story)), litter(story))
        story.check_is("the targets that are left are right to the byte", list(wrong_targets(story)), [])
        agreed = story.eventually(10, lambda: agree(accounts(story, client)))
        story.check("the accounts equal the disk, and nothing is under way", agreed, accounts(story, client))
        wrong, failed = try_cached(story, client)
        story.check_is("all cached trees are whole, and hits", wrong, [])
        still_cached = {row["digest"] for row in cached_trees(client)}
        lost = {digest: why for digest, why in failed.items() if digest in still_cached}
        story.check_is("but for those that went meanwhile, since the cache was nearly full", lost, {})
        story.check_is("every name of the store is that of its bytes", forests.misnamed(story.store), [])
        if not os.environ.get("DIRCACHE_SANITIZED"):
            used = memory(story)
            story.check("memory is bounded", used <= MEMORY_MAX, "%d MiB" % (used >> 20))
        for tag in client.call("tags")["tags"]:
            client.call("tag", {"name": tag["name"], "delete": True})


def start(story):
    story.start_daemon("--max-size", "%d" % CAP)


def rounds():
    yield 0.5 * SECONDS, False
    for _ in range(max(1, int(SECONDS / 20))):
        yield 2, True
    yield 0.3 * SECONDS, False


def main():
    image.own_mounts()
    print("# STORM_SEED=%d" % SEED)
    with Story(seconds=300 + int(4 * SECONDS)) as story:
        room = image.mount_ext4(story, "room", 1 << 30)
        if not room:
            print("# no file system can be mounted here: the storm is on the folder's own")
            room = story.dir
        story.store = os.path.join(room, "store")
        story.out = os.path.join(room, "out")
        os.mkdir(story.out)
        story.forest = forests.Forest(SEED, N_TREES)
        start(story)
        for number, (seconds, kill) in enumerate(rounds()):
            storm(story, number, seconds, kill)
            if kill:
                start(story)
            afterwards(story)
            shutil.rmtree(story.out)
            os.mkdir(story.out)


main()
