#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ext4 gives an inode 65,000 links. More files than that, all equal: they are made all the same, and share inodes as
far as that goes."""

import collections
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from image import mount_ext4, own_mounts  # noqa: E402
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from rpc import Client  # noqa: E402

# What one inode has for others; the 65,000th link is its name in the store, and becomes another's when a worker
# that had found it there links it after it was replaced.
LINKS = 64999
N = 70000


class Tale:
    def __init__(self, story, folder):
        self.story = story
        self.dir = folder
        self.n_targets = 0
        self.n_files = collections.Counter()

    def run(self, *words):
        command = ["dircache", "--socket", self.story.socket, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def put(self, data):
        with open(self.dir + "/input", "wb") as file:
            file.write(data)
        return self.run("put", self.dir + "/input")

    def put_directory(self, files=(), directories=()):
        return self.put(reapi.encode_directory(files, directories, []))

    def fresh(self):
        self.n_targets += 1
        return "%s/%d" % (self.dir, self.n_targets)

    def counters(self):
        with Client(self.story.socket) as client:
            return client.call("stats")

    def check_inodes(self, claim, name, kind, data, n):
        """So many files of that name are there, in as few inodes as they can be, with the bytes that they should have."""
        links = collections.Counter()
        for target in range(1, self.n_targets + 1):
            for folder, _, names in os.walk("%s/%d" % (self.dir, target)):
                for entry in os.scandir(folder):
                    if entry.name.startswith(name):
                        links[entry.inode()] += 1
                        path = entry.path
        counts = sorted(links.values(), reverse=True)
        full = all(count in (LINKS, LINKS + 1) for count in counts[:-1])
        self.story.check(claim, sum(counts) == n and len(counts) == n // LINKS + 1 and full, counts)
        st = os.stat(path)
        self.story.check_is("the last like the first", (oct(st.st_mode & 0o7777), open(path, "rb").read()), (kind, data))


def one_tree(tale, data, digest):
    """In one folder, and in many."""
    story = tale.story
    flat = tale.put_directory([(b"f%05d" % i, digest, False) for i in range(N)])
    tale.run("materialize", flat, tale.fresh())
    tale.check_inodes("70,000 equal files in one folder are two inodes", "f", "0o444", data, N)
    counters = tale.counters()
    story.check_is("for which one inode was replaced", counters["inode_rotations"], 1)
    story.check_is("nothing was copied", (counters["files_linked"], counters["files_copied"],
                                          counters["fallback_copies"], counters["errors"]), (N, 0, 0, 0))
    story.check_is("and nothing called changed", (counters["tampered_blobs"], counters["healed_blobs"]), (0, 0))

    thousand = tale.put_directory([(b"f%03d" % i, digest, False) for i in range(1000)])
    many = tale.put_directory(directories=[(b"%d" % i, reapi.parse(thousand)) for i in range(70)])
    tale.run("materialize", many, tale.fresh())
    tale.check_inodes("as many in 70 folders of another tree go on with the second", "f", "0o444", data, 2 * N)
    story.check_is("until it is replaced too", tale.counters()["inode_rotations"], 2)
    return thousand


def many_trees(tale, data, thousand):
    """By eight clients at once, so that many meet the limit at the same time."""
    def work(targets):
        with Client(tale.story.socket) as client:
            for target in targets:
                client.call("materialize", {"digest": thousand, "path": os.fsencode(target)})

    before = tale.counters()
    targets = [tale.fresh() for _ in range(70)]
    threads = [threading.Thread(target=work, args=(targets[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = sum(len(os.listdir(target)) for target in targets if os.path.isdir(target))
    tale.story.check_is("70 trees of 1,000 files by eight clients at once are whole", made, N)
    tale.check_inodes("and share inodes as far as that goes", "f", "0o444", data, 3 * N)
    after = tale.counters()
    tale.story.check_is("one inode was replaced for them, once", after["inode_rotations"] - before["inode_rotations"], 1)
    tale.story.check_is("and nothing copied", after["files_copied"], 0)


def executables(tale, data, digest):
    before = tale.counters()
    tree = tale.put_directory([(b"x%05d" % i, digest, True) for i in range(N)])
    tale.run("materialize", tree, tale.fresh())
    tale.check_inodes("70,000 equal executables are two inodes of their own", "x", "0o555", data, N)
    after = tale.counters()
    tale.story.check_is("of which one was replaced", after["inode_rotations"] - before["inode_rotations"], 1)


def after_all(tale, data, digest):
    """The store goes on, also when it is started again on an inode that is used up."""
    story = tale.story
    story.check_is("the daemon stops", story.stop_daemon(), 0)
    story.start_daemon()
    tale.run("ping", "--wait", "60")
    tree = tale.put_directory([(b"f%05d" % i, digest, False) for i in range(N - 1)])
    tale.run("materialize", tree, tale.fresh())
    tale.check_inodes("after a restart it goes on as before", "f", "0o444", data, 4 * N - 1)
    story.check_is("the store keeps one inode of each kind",
                   [len(os.listdir(os.path.join(story.store, kind, digest[0][:2]))) for kind in ("blobs", "exec")], [1, 1])
    story.check_is("and nothing in between", os.listdir(story.store + "/tmp"), [])


def main():
    own_mounts()
    with Story(240) as story:
        folder = mount_ext4(story, "ext4", 512 << 20)
        if folder is None:
            skip_story("no ext4 image can be mounted here")
        story.store = folder + "/store"
        story.start_daemon()
        tale = Tale(story, folder)
        tale.run("ping", "--wait", "60")
        data = b"the same in all of them"
        digest = reapi.parse(tale.put(data))
        thousand = one_tree(tale, data, digest)
        many_trees(tale, data, thousand)
        executables(tale, data, digest)
        after_all(tale, data, digest)


main()
