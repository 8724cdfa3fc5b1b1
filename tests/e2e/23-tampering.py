#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whoever may write to a materialized file changes the inode that all trees share: none that is made afterwards has
the change. What can be had again is, and counted; what cannot is named, and never left out."""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from rpc import Client  # noqa: E402

IS_ROOT = os.getuid() == 0
ABSENT = 3  # the exit status


def write_through(path, change):
    """Root needs no more than to open it; its owner gives himself the right for a moment."""
    mode = os.stat(path).st_mode & 0o7777
    if not IS_ROOT:
        os.chmod(path, mode | 0o200)
    with open(path, "r+b") as file:
        change(file)
    if not IS_ROOT:
        os.chmod(path, mode)


def append(file):
    file.seek(0, os.SEEK_END)
    file.write(b" and more")


# What somebody does to a path, and whether the bytes are right afterwards.
CHANGES = [
    ("its bytes", lambda path: write_through(path, lambda file: file.write(b"C")), False),
    ("its end, where something is added", lambda path: write_through(path, append), False),
    ("its length, to nothing", lambda path: write_through(path, lambda file: file.truncate(0)), False),
    ("its length, by a byte", lambda path: write_through(path, lambda file: file.truncate(5)), False),
    ("its mode", lambda path: os.chmod(path, 0o644), True),
    ("its mode, to nothing", lambda path: os.chmod(path, 0), True),
    ("its mode, by the set-user-id bit", lambda path: os.chmod(path, os.stat(path).st_mode & 0o777 | 0o4000), True),
    ("its time", os.utime, True),
    ("its time, by a nanosecond",
     lambda path: os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1)), True),
]
if IS_ROOT:
    CHANGES.append(("its owner", lambda path: os.chown(path, 65534, 65534), True))


class Tale:
    def __init__(self, story):
        self.story = story
        self.n = 0
        self.noted = {}

    def run(self, *words, status=0):
        command = ["dircache", "--socket", self.story.socket, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        self.said = done.stdout + done.stderr
        return done.returncode == status

    def put(self, path):
        if not self.run("put", path):
            raise RuntimeError(self.said)
        return self.said.strip()

    def fresh(self):
        self.n += 1
        return "%s/%d" % (self.story.dir, self.n)

    def source(self, files):
        """A folder with these files; those whose names end in `*` are executable."""
        folder = self.fresh()
        for name, data in files.items():
            path = os.path.join(folder, name.rstrip("*"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, 0o755 if name.endswith("*") else 0o644)
        return folder

    def stored(self, data, kind="blobs"):
        hash_ = reapi.digest_of(data)[0]
        return os.path.join(self.story.store, kind, hash_[:2], hash_)

    def note(self):
        with Client(self.story.socket) as client:
            self.noted = client.call("stats")

    def added(self, *names):
        with Client(self.story.socket) as client:
            now = client.call("stats")
        return tuple(now[name] - self.noted[name] for name in names)

    def restart(self):
        assert self.story.stop_daemon() == 0
        self.start()

    def start(self):
        self.story.start_daemon()
        assert self.run("ping", "--wait", "20"), self.said

    def same(self, source, target):
        """The same names, bytes and x bits, and no mode but those of a materialized tree."""
        if subprocess.run(["diff", "-r", source, target], capture_output=True).returncode != 0:
            return False
        for folder, _, names in os.walk(source):
            for name in names:
                path = os.path.join(folder, name)
                made = os.path.join(target, os.path.relpath(path, source))
                want = 0o555 if os.stat(path).st_mode & 0o100 else 0o444
                if os.stat(made).st_mode & 0o7777 != want:
                    return False
        return True

    # ---- claims ----

    def heals(self, claim, tree, source, n=1):
        """The tree appears whole, after n inodes were made anew, and that once."""
        target = self.fresh()
        self.note()
        self.story.check(claim, self.run("materialize", tree, target) and self.same(source, target), self.said)
        counts = self.added("tampered_blobs", "healed_blobs", "errors")
        self.story.check_is("and that was noticed, and counted", counts, (n, n, 0))
        self.note()
        self.story.check("the next is whole at once", self.run("materialize", tree, self.fresh()), self.said)
        self.story.check_is("and none had to be made anew", self.added("tampered_blobs", "healed_blobs"), (0, 0))
        return target

    def fails(self, claim, tree, data, n_tampered):
        """The tree does not appear, and what it lacks is named."""
        target = self.fresh()
        digest = reapi.text(reapi.digest_of(data))
        self.note()
        is_named = self.run("materialize", tree, target, status=ABSENT) and digest in self.said
        self.story.check(claim, is_named, self.said)
        self.story.check("nothing appears", not os.path.lexists(target))
        counts = self.added("tampered_blobs", "healed_blobs")
        self.story.check_is("the inode was taken out, and counted", counts, (n_tampered, 0))
        with open(self.story.log) as log:
            self.story.check_is("and the log says so", "blob %s had changed" % digest in log.read(), n_tampered > 0)
        self.note()
        self.story.check("the same the next time", self.run("materialize", tree, target, status=ABSENT), self.said)
        self.story.check_is("but for the counting", self.added("tampered_blobs", "healed_blobs"), (0, 0))

    def comes_back(self, tree, source):
        self.story.check_is("put again it has the same digest", self.put(source), tree)
        target = self.fresh()
        self.story.check("and appears whole", self.run("materialize", tree, target) and self.same(source, target))


def with_a_twin(tale, what, change):
    """The bytes are there executable and plain: one inode heals the other."""
    story = tale.story
    for kind, name in ("blobs", "plain"), ("exec", "run"):
        data = b"contents %d" % tale.n
        source = tale.source(dict.fromkeys(["plain", "run*", "below/plain", "below/run*"], data))
        tree = tale.put(source)
        first = tale.fresh()
        assert tale.run("materialize", tree, first), tale.said
        change(first + "/" + name)
        changed = os.stat(first + "/" + name).st_ino
        claim = "of a tree with %s changed, of a file %s, the next has nothing" % (what, name)
        target = tale.heals(claim, tree, source)
        inos = {os.stat(path).st_ino for path in
                (target + "/" + name, target + "/below/" + name, tale.stored(data, kind))}
        story.check("its places share a fresh inode", len(inos) == 1 and changed not in inos, inos)


def alone(tale, what, change, is_right):
    """There is one inode with these bytes."""
    data = b"contents %d" % tale.n
    source = tale.source({"plain": data, "below/again": data, "other": b"other"})
    tree = tale.put(source)
    first = tale.fresh()
    assert tale.run("materialize", tree, first), tale.said
    change(first + "/plain")
    if is_right:
        tale.heals("with %s changed it is made anew from its own bytes" % what, tree, source)
        return
    tale.fails("with %s changed and no other inode the tree is refused by name" % what, tree, data, 1)
    tale.story.check("the store has it no more", not os.path.lexists(tale.stored(data)))
    tale.comes_back(tree, source)


def what_was_changed_is_put(tale):
    """A changed copy is another tree, and does not replace what it was a copy of."""
    data = b"as it was"
    source = tale.source({"plain": data, "run*": data})
    tree = tale.put(source)
    first, second = tale.fresh(), tale.fresh()
    assert tale.run("materialize", tree, first), tale.said
    write_through(first + "/plain", lambda file: file.write(b"AS"))
    other = tale.put(first)
    tale.story.check("a changed copy that is put is another tree", other != tree)
    tale.story.check("which has the change", tale.run("materialize", other, second) and tale.same(first, second) or
                     open(second + "/plain", "rb").read() == b"AS it was")
    tale.heals("the tree that it was a copy of has not", tree, source)


def after_a_restart(tale):
    data = b"changed while nobody ran"
    source = tale.source({"plain": data, "run*": data})
    tree = tale.put(source)
    first = tale.fresh()
    assert tale.run("materialize", tree, first), tale.said
    assert tale.story.stop_daemon() == 0
    write_through(first + "/run", append)
    tale.start()
    tale.heals("a change made while no daemon ran is noticed", tree, source)


def single_files(tale):
    data = b"a file by itself"
    digest = tale.put(tale.source({"f": data}) + "/f")
    first, second = tale.fresh(), tale.fresh()
    assert tale.run("materialize", "--file", digest, first), tale.said
    assert tale.run("materialize", "--file", "--executable", digest, second), tale.said
    write_through(first, append)
    tale.note()
    target = tale.fresh()
    made = tale.run("materialize", "--file", digest, target)
    claim = "a single file is not linked to a changed inode"
    tale.story.check(claim, made and open(target, "rb").read() == data, tale.said)
    tale.story.check_is("but to a fresh one", tale.added("tampered_blobs", "healed_blobs"), (1, 1))
    for path in target, second:
        write_through(path, append)
    tale.note()
    gone = tale.fresh()
    refused = tale.run("materialize", "--file", digest, gone, status=ABSENT)
    claim = "with both of its inodes changed it is refused by name"
    tale.story.check(claim, refused and digest in tale.said, tale.said)
    tale.story.check("nothing appears", not os.path.lexists(gone))
    tale.story.check_is("and both were taken out", tale.added("tampered_blobs", "healed_blobs"), (2, 0))


def printed(tale):
    """What cat prints is what the digest says, or nothing."""
    data = b"to be printed"
    digest = tale.put(tale.source({"f": data}) + "/f")
    os.utime(tale.stored(data))
    tale.note()
    tale.story.check("cat prints a blob whose file was touched", tale.run("cat", digest) and
                     tale.said == data.decode(), tale.said)
    tale.story.check_is("and has it made anew", tale.added("tampered_blobs", "healed_blobs"), (1, 1))
    write_through(tale.stored(data), append)
    tale.note()
    tale.story.check("it refuses one whose bytes were changed, by name",
                     tale.run("cat", digest, status=ABSENT) and digest in tale.said, tale.said)
    tale.story.check_is("and has it taken out", tale.added("tampered_blobs", "healed_blobs"), (1, 0))
    tale.story.check("as one that is gone", tale.run("cat", digest, status=ABSENT) and digest in tale.said, tale.said)


def directories(tale):
    """What a restart reads again may have been changed too."""
    source = tale.source({"below/f": b"below a Directory"})
    tree = tale.put(source)
    path = os.path.join(tale.story.store, "blobs", tree[:2], tree.split("/")[0])
    os.utime(path)
    tale.restart()  # counters are those of the new process
    target = tale.fresh()
    tale.noted = dict.fromkeys(tale.noted, 0)
    tale.story.check("a Directory that was touched is made anew from its own bytes",
                     tale.run("materialize", tree, target) and tale.same(source, target), tale.said)
    counts = tale.added("tampered_blobs", "healed_blobs", "tree_hits", "errors")
    tale.story.check_is("and that was noticed, and counted", counts, (1, 1, 1, 0))
    write_through(path, lambda file: file.write(b"\xff"))
    tale.restart()
    target = tale.fresh()
    tale.story.check("with its bytes changed the tree is refused by name",
                     tale.run("materialize", tree, target, status=ABSENT) and tree in tale.said, tale.said)
    tale.story.check("nothing appears", not os.path.lexists(target))
    tale.comes_back(tree, source)


# ---- missing ----


def missing(tale):
    story = tale.story
    for kind, other in ("blobs", "exec"), ("exec", "blobs"):
        data = b"lost from " + kind.encode()
        source = tale.source({"plain": data, "run*": data, "below/plain": data, "rest": b"the rest"})
        tree = tale.put(source)
        os.unlink(tale.stored(data, kind))
        tale.note()
        target = tale.fresh()
        story.check("a file missing in %s of a cached tree comes from %s" % (kind, other),
                    tale.run("materialize", tree, target) and tale.same(source, target), tale.said)
        counts = tale.added("healed_blobs", "tampered_blobs", "tree_hits", "tree_misses")
        story.check_is("which is healing, and no tampering", counts, (1, 0, 1, 0))
        os.unlink(tale.stored(data, "blobs"))
        os.unlink(tale.stored(data, "exec"))
        tale.fails("missing in both it is named, and the tree refused", tree, data, 0)
        tale.comes_back(tree, source)


def all_missing(tale):
    """A whole folder of the store, and then all of them."""
    story = tale.story
    source = tale.source({"%d/%d" % (i % 7, i): b"number %d" % i for i in range(300)})
    tree = tale.put(source)
    folders = [os.path.dirname(tale.stored(b"number %d" % i)) for i in range(300)]
    alone_in_it = next(i for i in range(300) if folders.count(folders[i]) == 1)  # else another one may be named
    shutil.rmtree(folders[alone_in_it])
    tale.fails("with a folder of the store missing the blob in it is named", tree, b"number %d" % alone_in_it, 0)
    target = tale.fresh()
    for kind in "blobs", "exec":
        for name in os.listdir(os.path.join(story.store, kind)):
            shutil.rmtree(os.path.join(story.store, kind, name))
    story.check("with all files missing no tree appears",
                tale.run("materialize", tree, target, status=ABSENT) and not os.path.lexists(target), tale.said)
    tale.comes_back(tree, source)


# ---- empty files ----


def empty_files(tale):
    story = tale.story
    names = ["a", "b", "run*", "below/a"]
    source = tale.source({name: b"" for name in names})
    tree = tale.put(source)
    first, second, third = tale.fresh(), tale.fresh(), tale.fresh()
    for target in first, second:
        assert tale.run("materialize", tree, target), tale.said
    os.chmod(first + "/a", 0o644)
    with open(first + "/a", "wb") as file:
        file.write(b"23 bytes by a root user")
    tale.note()
    assert tale.run("materialize", tree, third), tale.said
    sizes = {os.path.join(target, name.rstrip("*")): os.stat(os.path.join(target, name.rstrip("*"))).st_size
             for target in (first, second, third) for name in names}
    del sizes[first + "/a"]
    story.check_is("an empty file that was written to leaves all others empty", set(sizes.values()), {0})
    story.check_is("which is no tampering", tale.added("tampered_blobs"), (0,))
    single = tale.fresh()
    story.check("a single empty file is empty too",
                tale.run("materialize", "--file", reapi.text(reapi.digest_of(b"")), single) and
                os.stat(single).st_size == 0)
    story.check_is("the tree has the same digest", tale.put(third), tree)


# ---- modes ----


def wrapper_stays(tale):
    """A live executable, while everything is done that cleans up."""
    story = tale.story
    data = b"#!/bin/sh\necho alive\n"
    source = tale.source({"run*": data, "below/run*": data, "below/plain": data})
    tree = tale.put(source)
    live, second, third = tale.fresh(), tale.fresh(), tale.fresh()
    for target in live, second, third:
        assert tale.run("materialize", tree, target), tale.said
    before = [os.stat(live + name) for name in ("/run", "/below/plain")]
    assert tale.run("remove", second), tale.said
    story.at_end.append(lambda: subprocess.run(["chattr", "-f", "-R", "-i", story.dir]))
    chattr = ["chattr", "-f", "+i", third + "/below"]
    if IS_ROOT and subprocess.run(chattr).returncode == 0:
        tale.run("remove", third)
        left = [name for name in os.listdir(story.dir) if name.startswith(".dircache-")] or [os.path.basename(third)]
        story.eventually(5, lambda: not os.path.lexists("%s/%s/run" % (story.dir, left[0])))
        folder = "%s/%s/below" % (story.dir, left[0])
        modes = {name: os.stat(os.path.join(folder, name)).st_mode & 0o7777 for name in ("run", "plain")}
        claim = "a removal that is not permitted changes no file's mode"
        story.check_is(claim, modes, {"run": 0o555, "plain": 0o444})
        subprocess.run(["chattr", "-i", folder], check=True)
    if "gc" in subprocess.run(["dircache", "--help"], capture_output=True, text=True).stdout.split():
        tale.run("gc", "--to", "0")
    story.kill_daemon()
    tale.start()
    after = [os.stat(live + name) for name in ("/run", "/below/plain")]
    seen = [(st.st_mode, st.st_ino, st.st_mtime_ns, st.st_uid) for st in before]
    story.check_is("a live wrapper keeps mode, inode, time and owner through removals, evictions and a kill",
                   [(st.st_mode, st.st_ino, st.st_mtime_ns, st.st_uid) for st in after], seen)
    said = subprocess.run([live + "/run"], capture_output=True).stdout
    story.check_is("and runs", said, b"alive\n")


def main():
    with Story(240) as story:
        os.umask(0o077)
        tale = Tale(story)
        tale.start()
        for what, change, is_right in CHANGES:
            with_a_twin(tale, what, change)
            alone(tale, what, change, is_right)
        what_was_changed_is_put(tale)
        after_a_restart(tale)
        single_files(tale)
        printed(tale)
        directories(tale)
        missing(tale)
        empty_files(tale)
        wrapper_stays(tale)
        all_missing(tale)


main()
