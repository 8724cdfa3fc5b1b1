# SPDX-License-Identifier: Apache-2.0
"""An operation with its first system call failing, its second, ... until one run of it meets no fault.

A call of the disk or of the index fails as one of ERRNOS, or the daemon is killed at it. Whatever comes of it: the
operation is done, or it says in a clear error what was being done to what and why it failed; no descriptor is
lost; nothing half made is left; `verify` finds that index and files agree, also after a restart; and the next
requests are served. FAULTS=all tries every errno and a kill, each at every call, FAULTS=ENOSPC,KILL only these; else EIO
at every call and every KILL_STEP-th kill, and behind DENSE calls every FAR_STEP-th of both."""

import collections
import errno
import functools
import itertools
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from faults import KILL, Faults  # noqa: E402
from rpc import Client, Closed, RpcError, ready_client  # noqa: E402

FAULTS = os.environ.get("FAULTS", "")
ALL = bool(FAULTS)  # the calls, and more to look at after each
KINDS = ["EIO", "ENOSPC", "EMFILE", "ENOMEM", "EINTR", "KILL"]
CHOSEN = KINDS if FAULTS == "all" else FAULTS.split(",") if ALL else ["EIO", "KILL"]
ERRNOS = [name for name in KINDS[:-1] if name in CHOSEN]
KILL_STEP = 1 if ALL else 7  # of the calls at which the daemon is killed
RESTART_STEP = 4 if ALL else 10  # of the faults after which a restart has to find all as it should be
CODES = {"EIO": "internal", "ENOSPC": "no_space", "EMFILE": "resource_exhausted", "ENOMEM": "resource_exhausted"}
# SQLite tries for reading what it could not open for writing, and forgets why.
OPENED_FOR_READING = ["for reading alone", "readonly database", "unable to open database file"]
# What a start could not look at it tells of, and leaves to the next one; until then `verify` finds it, too.
LEFT_TO_NEXT_START = re.compile(" warning: comparing (files with their digests|the index with the files)")
FEWEST_CALLS, MOST_CALLS = 5, 5000
DENSE = 200  # behind so many calls come folders, one like the other:
FAR_STEP = 1 if ALL else 7  # of the calls that are tried there
RUNS_WITHOUT = 2  # one after the other meet no fault once all calls were tried: one run makes more than another
SETTLE = 0.05  # seconds for what comes behind an answer


class Died(Exception):
    """The daemon is gone while a client waits."""


class Ended(Exception):
    """The daemon ended where it should not have, and says why in the last error of its log."""

    def __init__(self, text):
        super().__init__(text)
        self.message = text


class Sweep:
    def __init__(self, story):
        self.story = story
        self.faults = Faults(story.dir + "/faults")
        self.out = story.dir + "/out"
        self.shared = story.dir + "/shared"
        os.chmod(story.dir, 0o711)
        os.mkdir(self.out)
        os.mkdir(self.shared)
        self.serial = 0
        self.options = []
        self.baseline = collections.Counter()
        self.start()
        self.files = self.fresh()
        self.tree = self.put(self.files)
        self.call("tag", {"name": "tree", "digest": self.tree})

    # ---- what is done ----

    def start(self):
        """Start the daemon and wait until it is ready. Raises Ended."""
        begin = os.path.getsize(self.story.log) if os.path.exists(self.story.log) else 0
        try:
            self.story.start_daemon("--verbose", "--workers", "1", *self.options)
            ready_client(self.story.socket).close()
        except (RuntimeError, Closed, OSError):
            self.end(begin)
            raise

    def end(self, begin=None):
        """Wait for the daemon's end. Raises Ended when its status tells of a failure."""
        daemon, self.story.daemon = self.story.daemon, None
        if daemon.wait(60) != 0:
            with open(self.story.log, errors="replace") as log:
                log.seek(begin)
                errors = [line.strip() for line in log if " error: " in line]
            raise Ended(errors[-1] if errors else "no error in the log; status %d" % daemon.returncode)

    def stop(self):
        """Ask the daemon to stop. Raises Ended."""
        begin = os.path.getsize(self.story.log)
        self.call("stop", {})
        self.end(begin)

    def call(self, method, params, fds=()):
        try:
            with Client(self.story.socket) as client:
                return client.call(method, params, fds)
        except (Closed, ConnectionError):
            raise Died from None

    def call_at(self, path, method, params):
        """One about a target: by its path, or, of a daemon that serves several users, by a descriptor."""
        if not self.options:
            return self.call(method, {"path": path, **params})
        folder, name = os.path.split(path)
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            return self.call(method, {"name": name, **params}, [fd])
        finally:
            os.close(fd)

    def serve_users(self):
        """Serve other users from now on, too."""
        self.options = ["--socket-mode", "0666"]
        self.stop()
        self.start()

    def put(self, files):
        """Store files, by name their bytes and whether they are executable, as a tree; its digest."""
        fds = []
        try:
            with Client(self.story.socket) as client:
                put = client.call("put", {"step": "begin"})["put"]
                entries = [{"type": "directory", "name": b"below"}]
                for name, (data, executable) in files.items():
                    fds.append(os.memfd_create("input"))
                    os.write(fds[-1], data)
                    entries.append({"type": "file", "name": name, "parent": len(fds) % 2,
                                    "fd": len(fds) - 1, "executable": executable})
                client.call("put", {"step": "entries", "put": put, "entries": entries}, fds)
                return client.call("put", {"step": "commit", "put": put})["digest"]
        except (Closed, ConnectionError):
            raise Died from None
        finally:
            for fd in fds:
                os.close(fd)

    def fresh(self):
        """Files that were never stored."""
        self.serial += 1
        return files(self.serial)

    def put_anew(self):
        """Store what no tag needs, once more: so folders of the store do not become more and more."""
        self.call("gc", {"to": 0})
        return self.put(files(0))

    def target(self, folder=None):
        self.serial += 1
        return os.fsencode("%s/t%d" % (folder or self.out, self.serial))

    def files_at(self, path):
        found = {}
        for folder, _, names in os.walk(path):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    found[name] = file.read(), bool(os.fstat(file.fileno()).st_mode & 0o100)
        return found

    def materialize(self, tree, files, **how):
        """Is all of it there, or nothing?"""
        self.materialize_at(self.target(), self.call_at, tree, files, **how)

    def materialize_shared(self, user, tree, files):
        """The same by another user, in the folder that is shared."""
        self.materialize_at(self.target(self.shared), functools.partial(user.does, self.call_at), tree, files)

    def materialize_at(self, path, call, tree, files, **how):
        try:
            call(path, "materialize", {"digest": tree, **how})
            assert os.path.lexists(path), "there is no target"
        except (RpcError, Ended):
            assert not os.path.lexists(path), "there is a target of a materialize that failed"
            raise
        finally:
            assert not os.path.lexists(path) or self.files_at(path) == files, "the target is not what it should be"

    # ---- what came of it ----

    def is_settled(self):
        return not self.story.litter(self.out, self.shared)

    def descriptors(self):
        """What the daemon has open. A fan-out folder stays open once it was used, and counts only if it is
        open twice."""
        open_ = collections.Counter()
        folder = "/proc/%d/fd" % self.story.daemon.pid
        for fd in os.listdir(folder):
            try:
                open_[re.sub(r"(pipe|socket|/staging/).*", r"\1", os.readlink(os.path.join(folder, fd)))] += 1
            except FileNotFoundError:
                continue
        fan_out = re.compile(re.escape(self.story.store) + "/(blobs|exec)/..")
        return open_ - collections.Counter(path for path in open_ if fan_out.fullmatch(path))

    def verify(self):
        return ["verify: %s %s: %s, not %s" % (fault["kind"], fault.get("name", fault.get("digest")), fault["found"],
                                               fault["expected"]) for fault in self.call("verify", {})["faults"]]

    def look(self):
        """What is not as it should be, once the daemon has come to rest."""
        wrong = []
        try:
            wrong += self.verify()
            self.materialize(self.tree, self.files)
            self.put(files(0))
            if not self.story.eventually(2, self.is_settled):
                wrong.append("left: %s" % self.story.litter(self.out, self.shared))
        except (RpcError, AssertionError) as error:
            wrong.append("afterwards: %s" % error)
        for folder in self.out, self.shared:
            for name in os.listdir(folder):
                shutil.rmtree(os.path.join(folder, name))
        return wrong

    def look_at_descriptors(self):
        if self.story.eventually(1, lambda: not self.descriptors() - self.baseline):
            return []
        return ["open: %s" % dict(self.descriptors() - self.baseline)]

    def look_after_restart(self):
        if self.story.stop_daemon() != 0:
            return ["the daemon does not stop cleanly"]
        self.start()
        return ["after a restart: " + line for line in self.look()]

    def leaves_work_since(self, begin):
        with open(self.story.log, errors="replace") as log:
            log.seek(begin)
            return bool(LEFT_TO_NEXT_START.search(log.read()))

    def judge(self, error, name):
        """What is not clear about an error?"""
        if name == "EINTR":
            return ["interrupted: %s" % error]
        if any(words in error.message for words in OPENED_FOR_READING):
            return []
        if isinstance(error, RpcError) and error.code != CODES[name]:
            return ["code %s: %s" % (error.code, error.message)]
        if not re.search(r"\w+ .*: .*" + re.escape(os.strerror(getattr(errno, name))), error.message):
            return ["not clear: %s" % error.message]
        return []

    # ---- the sweeps ----

    def under_fault(self, n, errnum, prepare, do):
        """Do it once. Return: what it raised or None, and the call that was hit or None."""
        raised = None
        prepared = prepare()
        self.faults.arm(n, errnum)
        try:
            do(prepared)
        except (RpcError, Died, Ended, AssertionError) as error:
            raised = error
        if self.story.daemon and self.story.daemon.poll() is None:
            self.faults.wait_for_hit(SETTLE)
        return raised, self.faults.disarm()

    def fail_one(self, n, name, prepare, do):
        """Return: what was wrong, and the call that failed or None."""
        begin = os.path.getsize(self.story.log)
        raised, call = self.under_fault(n, getattr(errno, name), prepare, do)
        wrong = []
        if isinstance(raised, (RpcError, Ended)):
            wrong += self.judge(raised, name)
        elif isinstance(raised, AssertionError):
            wrong.append(str(raised))
        if self.story.daemon and (isinstance(raised, Died) or self.story.daemon.poll() is not None):
            wrong.append("the daemon died with status %d" % self.story.daemon.wait())
            self.story.daemon = None
        if not self.story.daemon:
            self.start()
        seen = self.look()
        is_left = bool(seen) and self.leaves_work_since(begin)
        wrong += [line for line in seen if not (is_left and line.startswith("verify: "))]
        wrong += self.look_at_descriptors()
        if is_left or wrong or not call or n % RESTART_STEP == 0:
            wrong += self.look_after_restart()
        return wrong, call

    def kill_one(self, n, _, prepare, do):
        """Return: what was wrong, and the call at which the daemon was killed or None."""
        raised, call = self.under_fault(n, KILL, prepare, do)
        wrong = ["without a fault: %r" % raised] if raised and not call else []
        if call and self.story.daemon:
            self.story.daemon.wait()
            self.story.daemon = None
        if not self.story.daemon:
            self.start()
        return wrong + self.look(), call

    def each(self, one, step, name, prepare, do):
        """Return: how many calls were hit, and what was wrong."""
        wrong = []
        n_hit = n_without = 0
        far = DENSE + KINDS.index(name or "KILL") % FAR_STEP
        for n in itertools.chain(range(1, DENSE, step), range(far, MOST_CALLS, FAR_STEP)):
            bad, call = one(n, name, prepare, do)
            wrong += ["call %d, %s: %s" % (n, call, line) for line in bad]
            n_hit += call is not None
            n_without = 0 if call else n_without + 1
            if n_without == RUNS_WITHOUT:
                return n_hit, wrong
        return n_hit, wrong + ["no end"]

    def claim(self, claim, fewest, n_and_wrong):
        n, wrong = n_and_wrong
        if n < fewest:
            wrong.append("only %d calls" % n)
        self.story.check("%s (%d calls)" % (claim, n), not wrong, "\n".join(wrong))

    def sweep(self, operation, prepare, do):
        """The claims of an operation: what prepares for it, without faults, and what is done with that."""
        do(prepare())
        if not self.story.daemon:
            self.start()
        wrong = self.look()
        self.baseline = self.descriptors()
        self.story.check("%s is done" % operation, not wrong, wrong)
        for name in ERRNOS:
            self.claim("%s is done or says why, and harms nothing, whichever call is %s" % (operation, name),
                       FEWEST_CALLS, self.each(self.fail_one, 1, name, prepare, do))
        if "KILL" in CHOSEN:
            self.claim("%s is made up for by the next daemon, whichever call is its last" % operation,
                       FEWEST_CALLS // KILL_STEP, self.each(self.kill_one, KILL_STEP, None, prepare, do))


def files(serial):
    """Some that are to be executable and some that are not, one of them empty."""
    return {b"f%d" % i: (b"%d of %d" % (i, serial) * 2000 * i, i % 2 == 0) for i in range(4)}


def main(sweeps):
    """Sweep through what sweeps(sweep) yields: a name, what prepares for it, and what is done with that."""
    in_memory = os.access("/dev/shm", os.W_OK)  # thousands of starts and commits need not wait for a disk
    with Story(3600 if ALL else 400, "/dev/shm" if in_memory else "/tmp") as story:
        os.environ["PATH"] = os.path.abspath(os.environ.get("top_builddir") or os.environ["builddir"]) + "/tests/faults:" + os.environ["PATH"]
        sweep = Sweep(story)
        for operation, prepare, do in sweeps(sweep):
            sweep.sweep(operation, prepare, do)
