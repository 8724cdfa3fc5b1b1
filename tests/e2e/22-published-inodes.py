#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever clients make the daemon do: an inode that has its name in the store never changes."""

import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import inodes  # noqa: E402
import reapi  # noqa: E402
from rpc import Client, RpcError  # noqa: E402


class Actor:
    """Does what clients do, by the command line where that has it."""

    def __init__(self, story, dir_, under=()):
        self.story = story
        self.dir = dir_
        self.source = dir_ + "/source"
        self.under = under
        self.n_targets = 0
        self.trees = {}

    def run(self, *words, status=0):
        command = ["dircache", "--socket", self.story.socket, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != status:
            raise RuntimeError("%s: status %d, %s" % (" ".join(words), done.returncode, done.stderr))
        return done.stdout.strip()

    def target(self):
        self.n_targets += 1
        return "%s/out/%d" % (self.dir, self.n_targets)

    def client(self):
        return Client(self.story.socket)

    # ---- storing ----

    def put(self):
        os.makedirs(self.source + "/below/deep")
        os.mkdir(self.dir + "/out")
        texts = {"plain": "hello", "below/again": "hello", "below/deep/other": "x" * 300000, "empty": ""}
        for name, text in texts.items():
            with open(self.source + "/" + name, "w") as file:
                file.write(text)
        for i in range(200):
            with open("%s/below/%d" % (self.source, i), "w") as file:
                file.write("number %d" % i)
        shutil.copy(self.source + "/plain", self.source + "/run")
        os.chmod(self.source + "/run", 0o755)
        os.symlink("plain", self.source + "/link")
        self.trees["usual"] = self.run("put", self.source)

    def put_again(self):
        self.run("put", self.source)
        self.run("put", "--tag", "usual", self.source)

    def put_what_was_materialized(self):
        self.run("materialize", self.trees["usual"], self.target())
        self.run("put", "%s/out/%d" % (self.dir, self.n_targets))

    def put_the_other_kind(self):
        os.chmod(self.source + "/plain", 0o755)
        os.chmod(self.source + "/run", 0o644)
        self.trees["other"] = self.run("put", self.source)

    def put_that_dies(self):
        with self.client() as client:
            put = client.call("put", {"step": "begin"})["put"]
            fd = os.memfd_create("input")
            os.write(fd, b"never committed")
            entry = {"type": "file", "name": b"f", "fd": 0}
            client.call("put", {"step": "entries", "put": put, "entries": [entry]}, [fd])
            os.close(fd)

    # ---- materializing ----

    def materialize(self):
        for tree in self.trees.values():
            self.run("materialize", tree, self.target())

    def materialize_as_file(self):
        hello = reapi.text(reapi.digest_of(b"hello"))
        for options in [], ["--executable"]:
            self.run("materialize", "--file", *options, hello, self.target())

    def materialize_elsewhere(self):
        with tempfile.TemporaryDirectory(prefix="dc.", dir="/dev/shm") as elsewhere:
            self.run("materialize", self.trees["usual"], elsewhere + "/tree")

    def materialize_private_files(self):
        """FileNodes with properties: mode 0600, and a time."""
        mtime, unix_mode = reapi.number_field(1, 1234567890), reapi.number_field(1, 0o600)
        node = (reapi.bytes_field(1, b"private")
                + reapi.bytes_field(2, reapi.encode_digest(reapi.digest_of(b"hello")))
                + reapi.bytes_field(6, reapi.bytes_field(2, mtime) + reapi.bytes_field(3, unix_mode)))
        with open(self.dir + "/message", "wb") as file:
            file.write(reapi.bytes_field(1, node))
        target = self.target()
        self.run("materialize", self.run("put", self.dir + "/message"), target)
        st = os.stat(target + "/private")
        self.story.check_is("a file with properties has them, in an inode of its own",
                            (st.st_mode & 0o777, int(st.st_mtime), st.st_nlink), (0o600, 1234567890, 1))

    def materialize_what_is_missing(self):
        with open(self.dir + "/message", "wb") as file:
            file.write(reapi.encode_directory([(b"a", reapi.digest_of(b"hello"), False),
                                               (b"b", reapi.digest_of(b"nobody has this"), False)], [], []))
        self.run("materialize", self.run("put", self.dir + "/message"), self.target(), status=3)

    def materialize_over_something(self):
        self.run("materialize", self.trees["usual"], self.dir + "/out/1", status=1)

    def ask(self, client):
        params = {"digest": self.trees["usual"], "path": os.fsencode(self.target())}
        return client.request("materialize", params)

    def materialize_and_cancel(self):
        with self.client() as client:
            ids = [self.ask(client) for _ in range(20)]
            for id_ in ids:
                client.request("cancel", {"id": id_})
            for id_ in ids:
                try:
                    client.wait(id_)
                except RpcError as error:
                    assert error.code == "cancelled", error
        with self.client() as client:
            for _ in range(20):
                self.ask(client)

    def materialize_in_modes(self):
        """Only where the program knows them."""
        usage = self.run("materialize", "--help")
        options = [["--mode", mode] for mode in ("link", "reflink", "copy") if "--mode" in usage]
        for words in options + [["--writable"]] * ("--writable" in usage):
            command = ["dircache", "--socket", self.story.socket, "materialize", *words]
            done = subprocess.run([*command, self.trees["usual"], self.target()], capture_output=True)
            assert done.returncode == 0 or "reflink" in words, done.stderr

    # ---- all else ----

    def look(self):
        self.run("ls", "-R", self.trees["usual"])
        self.run("cat", reapi.text(reapi.digest_of(b"hello")))
        self.run("has", "--tree", self.trees["usual"])

    def tag(self):
        self.run("tag", "moved", self.trees["usual"])
        self.run("tag", "moved", self.trees["other"])
        self.run("tag", "-d", "moved")

    def remove(self):
        """Also trees whose folders are closed, and with what others put there."""
        for i in 2, 3, 4:
            target = "%s/out/%d" % (self.dir, i)
            if os.path.isdir(target + "/below"):
                os.mkdir(target + "/mine")
                os.chmod(target + "/below/deep", 0)
                os.chmod(target + "/below", 0o500)
            self.run("remove", target)
        out = self.dir + "/out"
        self.story.eventually(20, lambda: not any(name.startswith(".") for name in os.listdir(out)))

    def evict(self):
        if "gc" in self.run("--help").split():
            self.run("gc", "--to", "0")

    def start(self):
        self.story.start_daemon(under=self.under)
        self.run("ping", "--wait", "20")

    def restart(self):
        self.story.stop_daemon()
        self.start()

    def restart_after_a_kill(self):
        self.story.kill_daemon()
        self.start()

    def all(self):
        return [self.put, self.put_again, self.materialize, self.put_what_was_materialized, self.put_the_other_kind,
                self.put_that_dies, self.materialize, self.materialize_as_file, self.materialize_elsewhere,
                self.materialize_private_files, self.materialize_what_is_missing, self.materialize_over_something,
                self.materialize_and_cancel, self.materialize_in_modes, self.look, self.tag, self.remove,
                self.restart, self.materialize, self.restart_after_a_kill, self.materialize, self.evict]


def nothing_changes(story):
    """Size, mode, owner, time, bytes, and no descriptor that could write, seen from outside."""
    actor = Actor(story, story.dir)
    actor.start()
    watch = inodes.Watch(story.store)
    for act in actor.all():
        act()
        story.check_is("no published inode is changed by: " + act.__name__.replace("_", " "), watch.changes(), [])
    story.check("and there were some", len(watch.inodes) > 200, len(watch.inodes))

    # That was worth something only if changes are seen.
    actor.trees["usual"] = actor.run("put", actor.source)
    watch.changes()
    path = next(inodes.store_files(story.store))
    os.chmod(path, 0o644)
    with open(path, "r+") as file:
        file.write("?")
    seen = " ".join(watch.changes())
    story.check("a change made here is seen", "was written to, or could be" in seen and "-rw-r--r--" in seen, seen)
    watch.close()
    story.stop_daemon()


def nobody_asks_to(story):
    """The same by the daemon's system calls: once linked, an inode is the object of none that changes."""
    if not shutil.which("strace"):
        print("# nothing is claimed of system calls: no strace")
        return
    folder = story.dir + "/traced"
    os.mkdir(folder)
    story.store = folder + "/store"
    trace = folder + "/trace"
    under = ("strace", "-D", "-A", "-f", "-qq", "-y", "-s", "16", "-o", trace, "-e", "trace=" + inodes.TRACED)
    actor = Actor(story, folder, under)
    try:
        actor.start()
    except RuntimeError:
        print("# nothing is claimed of system calls: strace cannot trace here")
        story.kill_daemon()
        return
    for act in actor.all():
        act()
    story.stop_daemon()
    with open(trace, errors="surrogateescape") as file:
        seen = inodes.Trace(story.store).read(file)
    story.check_is("no system call is asked to change a published inode", seen.wrong, [])
    story.check("of many that change others, and many inodes", seen.n_seen > 200 and seen.n_published > 200,
                "%d calls, %d inodes" % (seen.n_seen, seen.n_published))
    blobs = story.store + "/blobs"
    blind = inodes.Trace(story.store).read([
        '1 linkat(5<%s/#77>(deleted), "", 3<%s>, "ab/cd", AT_EMPTY_PATH) = 0' % (blobs, blobs),
        "1 fchmod(5<%s/#77>(deleted), 0444) = 0" % blobs,
        '1 linkat(3<%s>, "ab/cd", 6</out>, "name", 0) = 0' % blobs,
        '1 utimensat(6</out>, "name", [UTIME_OMIT, UTIME_NOW], AT_SYMLINK_NOFOLLOW) = 0',
        '1 openat(6</out>, "name", O_WRONLY|O_CLOEXEC) = 7</out/name>'])
    story.check_is("calls that do are seen", len(blind.wrong), 3)


def main():
    with Story(240) as story:
        nothing_changes(story)
        nobody_asks_to(story)


main()
