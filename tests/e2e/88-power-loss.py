#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The machine loses its power while clients put, materialize, tag, remove and collect. Nothing corrupt is ever served,
what was synced is there, tags are kept, and what is lost is put in order by the daemon itself.

The store is on an ext4 in an image that lies on an XFS. A clone of the image (FICLONE, which stops all writing for
that moment) is what a disk would hold: what the ext4 has not written yet is lost. The clone is mounted, which replays
its journal, and a daemon started on it that sees another boot id, by a file that is mounted over the kernel's.

CRASH_POINTS=N for so many clones instead of 5, CRASH_SEED=N for the same choices once more. The choices of each
point follow from the seed and its number; what the disk holds then depends on the moment, too. Of many points those
of one session have nothing synced but by the daemon, every two minutes: before, while and after it does so.
"""

import contextlib
import copy
import fcntl
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

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

POINTS = int(os.environ.get("CRASH_POINTS") or 5)
SEED = int(os.environ.get("CRASH_SEED") or time.time_ns() % 1000000)
FICLONE = 0x40049409
BOOT_ID = "/proc/sys/kernel/random/boot_id"
N_CLIENTS = 4
N_TREES = 60
FILE_MAX = 100 << 10
CAP = 28 << 20
IMAGE_SIZE = 192 << 20
TARGETS_MAX = 4  # of one client
TAGS_MAX = 9     # of one client
HAS_MAX = 4000   # digests in one question
SESSION = 20     # points, then the daemon starts anew on a file system with other options
QUIET = 2        # the session in which the daemon alone syncs, if there are more than that
QUIET_S = 90     # before its first point: some of the others come after two minutes

# A commit each second; without delayed allocation, or with data that may come after its metadata, what the journal
# keeps of a file says nothing of its bytes.
MOUNTS = ("commit=1", "commit=1,data=writeback", "commit=1,nodelalloc,data=writeback", "commit=1,nodelalloc",
          "commit=5,data=journal")


# ---- what works until the power is lost ----


class Worker(threading.Thread):
    """One client. What of its tags is answered for, and not being changed, is in `kept`: each answer as a list of its
    own (tree, when), so that a tag that comes back to its tree is seen to have changed. Some tags change seldom."""

    def __init__(self, number, tale):
        super().__init__(daemon=True)
        self.random = random.Random("%d %d %d" % (SEED, tale.session, number))
        self.tale = tale
        self.number = number
        self.kept = {}
        self.targets = []
        self.n_targets = 0
        self.failure = None
        self.ending = threading.Event()

    def run(self):
        self.folder = os.path.join(self.tale.out, "%d-%d" % (self.tale.session, self.number))
        os.makedirs(self.folder, exist_ok=True)
        while not self.ending.is_set() and not self.failure:
            try:
                with ready_client(self.tale.story.socket) as client:
                    while not self.ending.is_set():
                        self.random.choices(*self.ACTIONS)[0](self, client)
            except (Closed, ConnectionError, FileNotFoundError):
                self.ending.wait(0.05)  # the daemon was killed: another comes
            except RpcError as error:
                if error.code not in ("not_found", "no_space", "cancelled", "unavailable"):
                    self.failure = str(error)
            except Exception as error:  # pylint: disable=broad-except
                self.failure = repr(error)

    def some_tree(self):
        trees = self.tale.forest.trees
        return trees[int(len(trees) * self.random.random() ** 2)]

    def put(self, client):
        forests.put_tree(client, self.some_tree())

    def put_tagged(self, client):
        tag, tree = "client-%d/%d" % (self.number, TAGS_MAX * self.random.random() ** 3), self.some_tree()
        self.kept.pop(tag, None)
        forests.put_tree(client, tree, tag=tag)
        self.kept[tag] = [tree, time.time_ns() // 1000]

    def untag(self, client):
        if self.kept:
            tag = min(self.random.choices(sorted(self.kept), k=3))
            del self.kept[tag]
            client.call("tag", {"name": tag, "delete": True})

    def materialize(self, client):
        tree = self.some_tree()
        target = os.path.join(self.folder, "%d" % self.n_targets)
        self.n_targets += 1
        client.call("materialize", {"digest": reapi.text(tree.digest), "path": target.encode()})
        self.targets.append(target)
        if len(self.targets) > TARGETS_MAX:
            client.call("remove", {"path": self.targets.pop(0).encode()})

    def collect(self, client):
        client.call("gc", {"to": self.random.randint(CAP // 4, CAP)})

    ACTIONS = (put, put_tagged, untag, materialize, collect), (10, 5, 0.5, 10, 0.5)


def kept_of(workers):
    return {tag: answer for worker in workers for tag, answer in worker.kept.copy().items()}


class Tale:
    """The machine before the crash, and the clones of its disk."""

    def __init__(self, story):
        self.story = story
        self.session = 0
        self.n_boots = 0
        self.workers = []
        self.synced = {}
        self.forest = forests.Forest(SEED, N_TREES, FILE_MAX)
        self.known = {}  # all bytes that there can be, by digest
        for tree in self.forest.by_digest.values():
            self.known[reapi.text(tree.digest)] = lambda tree=tree: tree.message
            for content, _ in tree.files.values():
                self.known[reapi.text(content.digest)] = content.data

    def boot(self, boot):
        """From now on daemons that start see this boot id."""
        with open(self.boot_file, "w") as file:
            file.write("%s\n" % boot)

    def claim(self, what, true, seen=""):
        self.story.check(what, true, seen)

    # ---- the disk ----

    def prepare(self):
        """Return: can this machine do it?"""
        self.boot_file = os.path.join(self.story.dir, "boot_id")
        self.boot("first")
        self.xfs = image.mount_image(self.story, "xfs", 4 << 30, "xfs", "-m", "reflink=1")
        if not self.xfs or not image.run("mount", "--bind", self.boot_file, BOOT_ID):
            return False
        self.story.at_end.append(lambda: image.run("umount", BOOT_ID))
        return True

    def mount(self, file, folder, options):
        """Mount an image that lies on the XFS."""
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "-t", "ext4", "-o", "loop," + options, file, folder], check=True)

    def clone(self, file, name):
        """What the disk holds at this moment, in a file of its own."""
        path = os.path.join(self.xfs, name)
        with open(file, "rb") as source, open(path, "wb") as target:
            fcntl.ioctl(target, FICLONE, source.fileno())
        return path

    # ---- the machine that works ----

    def begin_session(self, rng):
        self.session += 1
        self.boot("session-%d" % self.session)
        self.is_quiet = self.session == QUIET and POINTS > QUIET * SESSION
        self.n_by_daemon = 0
        self.options = MOUNTS[(self.session + SEED) % len(MOUNTS)]
        self.image = os.path.join(self.xfs, "disk-%d" % self.session)
        self.folder = os.path.join(self.story.dir, "disk-%d" % self.session)
        with open(self.image, "wb") as file:
            file.truncate(IMAGE_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        self.mount(self.image, self.folder, self.options)
        self.story.at_end.append(self.leave_disk)
        self.story.store = os.path.join(self.folder, "store")
        self.out = os.path.join(self.folder, "out")
        self.synced = {}
        print("# session %d: ext4 with %s" % (self.session, self.options))
        self.story.start_daemon("--max-size", "%d" % CAP)
        self.workers = [Worker(number, self) for number in range(N_CLIENTS)]
        for worker in self.workers:
            worker.start()
        if self.is_quiet:
            time.sleep(QUIET_S)

    def end_session(self):
        for worker in self.workers:
            worker.ending.set()
        for worker in self.workers:
            worker.join()
        failures = [worker.failure for worker in self.workers if worker.failure]
        self.claim("session %d: no client had to complain" % self.session, not failures, failures)
        if self.is_quiet:
            self.claim("what the daemon has synced by itself was there: %d tags" % self.n_by_daemon, self.n_by_daemon)
        self.workers = []
        self.claim("and its daemon stops cleanly", self.story.stop_daemon() == 0)
        self.story.at_end.remove(self.leave_disk)
        self.leave_disk()

    def leave_disk(self):
        image.run("umount", self.folder)
        os.unlink(self.image)

    def restart(self, kill):
        """A stop or kill of the daemon alone: the machine goes on."""
        self.boot("session-%d" % self.session)
        before = kept_of(self.workers)
        if kill:
            self.story.kill_daemon()
        else:
            self.story.stop_daemon()
            self.note_synced(before)  # a clean stop syncs
        self.story.start_daemon("--max-size", "%d" % CAP)

    def sync(self):
        before = kept_of(self.workers)
        subprocess.run(["sync", "-f", self.folder], check=True)
        self.note_synced(before)

    def note_synced(self, before):
        self.synced = before

    # ---- a point ----

    def point(self, number):
        rng = random.Random("%d point %d" % (SEED, number))
        time.sleep(rng.random() * rng.choice((0.2, 2)))
        what = rng.choices(("nothing", "sync", "kill", "stop"), (1, 0, 0, 0) if self.is_quiet else (3, 3, 1, 3))[0]
        if what == "sync":
            self.sync()
        elif what != "nothing":
            self.restart(what == "kill")
        time.sleep(rng.random() * rng.choice((0.5, 3)))
        clone = self.clone(self.image, "clone")
        now = kept_of(self.workers)
        want = {tag: answer[0] for tag, answer in self.synced.items() if now.get(tag) is answer}
        want.update(self.synced_by_daemon(clone, now))
        crashes = 2 if rng.random() < 0.25 else 1
        begun = time.monotonic()
        after = self.revive(clone, crashes, rng, want)
        self.claim("point %d (%s, %d crashes): nothing corrupt, nothing synced lost, all in order"
                   % (number, what, crashes), not after.wrong, "\n".join(after.wrong))
        print("# %d of %d points, seed %d; %.1f s, %d trees and %d blobs there, %d tags, %d synced, %d empty; %s"
              % (number, POINTS, SEED, time.monotonic() - begun, after.n_trees, after.n_blobs, after.n_tags,
                 len(want), after.n_lost, after.summary()), flush=True)
        if after.wrong:
            print("#   " + "\n#   ".join(after.log_lines()))

    def synced_by_daemon(self, file, now):
        """What was answered for before the daemon's last sync point that is on this disk, and is as it was."""
        folder = os.path.join(self.story.dir, "look")
        self.mount(file, folder, "commit=1")
        try:
            for name in "index.sqlite", "index.sqlite-wal":
                shutil.copy(os.path.join(folder, "store", name), self.story.dir)
        finally:
            image.run("umount", folder)
        with contextlib.closing(sqlite3.connect(os.path.join(self.story.dir, "index.sqlite"))) as index:
            row = index.execute("SELECT value FROM meta WHERE key = 'synced'").fetchone()
        synced = {tag: answer[0] for tag, answer in now.items() if row and answer[1] < row[0]}
        self.n_by_daemon += len(synced)
        return synced

    def revive(self, file, crashes, rng, want):
        """Start a machine with this disk, and look; crash again in the middle of that, if so told."""
        self.n_boots += 1
        folder = os.path.join(self.story.dir, "clone-%d" % self.n_boots)
        self.mount(file, folder, rng.choice(MOUNTS))
        after = Revived(self, folder, rng, want)
        self.story.at_end.append(after.leave)
        try:
            after.start("boot-%d" % self.n_boots)
            if crashes > 1:
                time.sleep(rng.random() * 0.3)
                again = self.clone(file, "clone-again")
            else:
                after.look()
        finally:
            self.story.at_end.remove(after.leave)
            after.leave()
            os.unlink(file)
        return self.revive(again, crashes - 1, rng, want) if crashes > 1 else after


# ---- what comes after ----


class Revived:
    """The machine after the crash."""

    def __init__(self, tale, folder, rng, want):
        self.tale = tale
        self.folder = folder
        self.rng = rng
        self.want = want
        self.wrong = []
        self.n_targets = self.n_trees = self.n_blobs = self.n_tags = self.n_lost = self.n_told = 0
        self.story = copy.copy(tale.story)
        self.story.daemon = None
        self.story.store = os.path.join(folder, "store")
        self.story.socket = os.path.join(tale.story.dir, "after")
        self.story.log = os.path.join(tale.story.dir, "after.log")
        self.out = os.path.join(folder, "after")

    def start(self, boot):
        self.tale.boot(boot)
        if os.path.exists(self.story.log):
            os.unlink(self.story.log)
        os.makedirs(self.out, exist_ok=True)
        self.story.start_daemon("--max-size", "%d" % CAP)

    def leave(self):
        self.story.kill_daemon()
        image.run("umount", self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_lines(self):
        with open(self.story.log, errors="replace") as log:
            return log.read().splitlines()

    def summary(self):
        lines = [line for line in self.log_lines() if "hashed" in line]
        return lines[-1].partition("hashed ")[2].partition(",")[0] if lines else "nothing hashed"

    def fail(self, words):
        self.wrong.append(words)

    # ---- trying ----

    def try_tree(self, client, tree, what):
        """Materialize a tree: it is right, or it is not there and the daemon says so. Return: is it there?"""
        target = os.path.join(self.out, "%d" % self.n_targets)
        self.n_targets += 1
        try:
            client.call("materialize", {**what, "path": target.encode()})
        except RpcError as error:
            if error.code != "not_found":
                self.fail("%s: %s" % (what, error))
            if os.path.lexists(target):
                self.fail("%s failed, and something is at the target" % what)
            return False
        wrong = forests.difference(target, tree)
        if wrong:
            self.fail("%s: %s" % (what, wrong))
        client.call("remove", {"path": target.encode()})
        return True

    def cached(self, client):
        return [row["digest"] for row in client.call("trees")["trees"]]

    def try_trees(self, client, is_settled):
        digests = self.cached(client)
        self.n_trees = len(digests)
        self.rng.shuffle(digests)
        for digest in digests:
            is_there = self.try_tree(client, self.tale.forest.by_digest[digest], {"digest": digest})
            if is_settled and not is_there:
                self.fail("the cached tree %s is not whole" % digest)

    def try_tags(self, client):
        tags = {tag["name"]: tag["digest"] for tag in client.call("tags")["tags"]}
        self.n_tags = len(tags)
        for name, tree in self.want.items():
            if tags.get(name) != reapi.text(tree.digest):
                self.fail("the tag %s was synced, and names %s now" % (name, tags.get(name)))
            elif not self.try_tree(client, tree, {"tag": name}):
                self.fail("the tree of tag %s was synced, and is not there" % name)
        for name in tags.keys() - self.want.keys():
            self.try_tree(client, self.tale.forest.by_digest[tags[name]], {"tag": name})

    def try_blobs(self, client, is_settled):
        """All that it claims to have, byte for byte."""
        digests = list(self.tale.known)
        missing = set()
        for i in range(0, len(digests), HAS_MAX):
            missing.update(client.call("has", {"digests": digests[i:i + HAS_MAX]})["missing"])
        there = [digest for digest in digests if digest not in missing]
        self.rng.shuffle(there)
        self.n_blobs = len(there)
        for digest in there:
            self.try_blob(client, digest, is_settled)

    def try_blob(self, client, digest, is_settled):
        try:
            client.call("cat", {"digest": digest})
        except RpcError as error:
            if is_settled or error.code != "not_found":
                self.fail("cat %s: %s" % (digest, error))
            return
        with os.fdopen(client.take_fd(), "rb") as file:
            if file.read() != self.tale.known[digest]():
                self.fail("the blob %s has other bytes" % digest)

    def verify(self):
        """What `verify` says once the start is over, which it waits for: tags that lost what they name are kept, and
        told; all else is in order."""
        done = subprocess.run(["dircache", "--socket", self.story.socket, "--json", "verify"], capture_output=True,
                              text=True, timeout=300)
        try:
            faults = json.loads(done.stdout)["faults"]
        except ValueError:
            faults = [done.stderr]
        lost = [fault for fault in faults if fault["kind"] == "tag" and fault["name"] not in self.want]
        if not self.n_told:
            self.compare_with_log([fault["name"] for fault in lost])
        self.n_lost = len(lost)
        if len(lost) < len(faults) or done.returncode != (1 if lost else 0):
            self.fail("verify ends with %d: %s" % (done.returncode, faults[:5]))

    def compare_with_log(self, lost):
        """What is lost is told in the log, once: so many tags, and some of them by name."""
        lines = [line for line in self.log_lines() if "tags name what is not in the store any more" in line]
        told = [re.search(r"(\d+) tags name .* any more: ([^;]*);", line).groups() for line in lines]
        self.n_told += 1
        if [int(n) for n, _ in told] != ([len(lost)] if lost else []):
            self.fail("tags %s are empty, the log says %s" % (lost, lines))
        for _, names in told:
            if not set(names.split(", ")) <= set(lost) | {"..."}:
                self.fail("the log names %s, empty are %s" % (names, lost))

    def try_healing(self, client):
        """What is lost can be put again."""
        tree = self.rng.choice(self.tale.forest.trees)
        forests.put_tree(client, tree)
        if not self.try_tree(client, tree, {"digest": reapi.text(tree.digest)}):
            self.fail("%s was put again, and is not there" % reapi.text(tree.digest))

    def look(self):
        with ready_client(self.story.socket) as client:
            early = [lambda: self.try_trees(client, False), lambda: self.try_blobs(client, False),
                     lambda: self.try_tags(client)]
            self.rng.shuffle(early)
            for trial in early[:self.rng.randrange(4)]:
                trial()
            self.verify()
            self.try_trees(client, True)
            self.try_blobs(client, True)
            self.try_tags(client)
            self.wrong += ["%s has other bytes than its name says" % path
                           for path in forests.misnamed(self.story.store)]
            self.try_healing(client)
        self.verify()
        if self.story.stop_daemon() != 0:
            self.fail("the daemon did not stop cleanly")


def main():
    image.own_mounts()
    if os.getuid() != 0 or not os.environ.get("DIRCACHE_OWN_MOUNTS"):
        skip_story("no file systems of its own without root and a mount namespace")
    print("# CRASH_SEED=%d" % SEED)
    with Story(seconds=400 + 30 * POINTS) as story:
        tale = Tale(story)
        if not tale.prepare():
            story.skip("a crash of the machine", "no XFS can be mounted here")
            return
        for number in range(1, POINTS + 1):
            if (number - 1) % min(SESSION, (POINTS + 1) // 2) == 0:
                if tale.workers:
                    tale.end_session()
                tale.begin_session(random.Random("%d session %d" % (SEED, number)))
            tale.point(number)
        tale.end_session()


main()
