#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Somebody moves things about while a tree is made: it appears where its folder is, whole, or it does not appear; and
nothing else is touched."""

import collections
import os
import shutil
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from rpc import Client, RpcError  # noqa: E402

N_FOLDERS = 150  # of ten files: long enough to be met in the middle, most times
ROUNDS = 40
N_QUARRELLERS = 6
QUARRELS = 300  # of each; a removal that met another tree than it had looked at came once in some hundreds


class Tale:
    def __init__(self, story):
        self.story = story
        self.client = Client(story.socket)
        while not self.client.call("ping")["ready"]:
            time.sleep(0.01)
        self.file = self.put(b"contents")
        self.leaf = self.put(reapi.encode_directory([(b"f%d" % i, self.file, False) for i in range(10)], [], []))
        self.tree = self.put(reapi.encode_directory([], [(b"d%03d" % i, self.leaf) for i in range(N_FOLDERS)], []))

    def put(self, data):
        number = self.client.call("put", {"step": "begin"})["put"]
        fd = os.memfd_create("input")
        os.write(fd, data)
        entry = {"type": "file", "fd": 0, "executable": False}
        self.client.call("put", {"step": "entries", "put": number, "entries": [entry]}, [fd])
        os.close(fd)
        return reapi.parse(self.client.call("put", {"step": "commit", "put": number})["digest"])

    def folder(self, name):
        path = os.path.join(self.story.dir, name)
        os.mkdir(path)
        return path

    def request(self, fd, digest=None, **more):
        params = {"digest": reapi.text(digest or self.tree), "name": b"target", **more}
        return self.client.request("materialize", params, [fd])

    def outcome(self, id_):
        try:
            self.client.wait(id_)
            return "done"
        except RpcError as error:
            return error.code

    def is_whole(self, target):
        return (len(os.listdir(target)) == N_FOLDERS and
                all(len(os.listdir(os.path.join(target, name))) == 10 for name in os.listdir(target)))

    def wait_for_hidden(self, folder):
        """Until something is being made there, or is there already."""
        self.story.eventually(60, lambda: os.listdir(folder))


def litter(folder):
    return [name for name in os.listdir(folder) if name.startswith(".dircache-")]


def swapped(tale):
    """The folder is what was opened, whatever has its name now."""
    story = tale.story
    victim = tale.folder("victim")
    for digest, more in ((tale.tree, {}), (tale.file, {"file": True})):
        for when in "before the request", "while it is answered":
            parent, away = tale.folder("parent"), story.dir + "/away"
            fd = os.open(parent, os.O_PATH | os.O_DIRECTORY)
            id_ = tale.request(fd, digest, **more) if when.startswith("while") else None
            os.rename(parent, away)
            os.symlink(victim, parent)
            said = tale.outcome(id_ or tale.request(fd, digest, **more))
            story.check_is("a parent is swapped for a symlink %s: the target is made" % when, said, "done")
            story.check_is("in the folder that it was", os.listdir(away), ["target"])
            story.check_is("and not where the symlink leads", os.listdir(victim), [])
            os.close(fd)
            os.unlink(parent)
            shutil.rmtree(away)


def something_appears(tale):
    """At the target, while the tree is made."""
    story = tale.story

    def make_file(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))

    def make_full(path):
        os.mkdir(path + ".new")
        make_file(path + ".new/kept")
        os.rename(path + ".new", path)

    for what, make, is_same in (("a file", make_file, os.path.isfile),
                                ("a folder with something in it", make_full,
                                 lambda path: os.listdir(path) == ["kept"]),
                                ("a symlink", lambda path: os.symlink("/nowhere", path), os.path.islink),
                                ("a FIFO", os.mkfifo, lambda path: not os.path.isdir(path))):
        n_met, wrong = 0, []
        for number in range(ROUNDS):
            folder = tale.folder("appears")
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            id_ = tale.request(fd)
            tale.wait_for_hidden(folder)
            try:
                make(folder + "/target")
                is_made = True
            except OSError:  # the tree was faster
                is_made = False
            said = tale.outcome(id_)
            if is_made and not (said == "failed_precondition" and is_same(folder + "/target")):
                wrong.append(said)
            if not is_made and not (said == "done" and tale.is_whole(folder + "/target")):
                wrong.append(said)
            if litter(folder):
                wrong.append(litter(folder))
            os.close(fd)
            shutil.rmtree(folder)
            n_met += is_made
            if n_met == 3:
                break
        story.check_is("%s that appears at the target stays, and the tree does not" % what, wrong, [])
        if not n_met:
            print("# the tree was always faster: nothing was claimed of %s" % what)


def folder_vanishes(tale):
    """With all that is in it: as rm -rf does, while the daemon fills it."""
    story = tale.story
    said, left = set(), []
    for number in range(10):
        folder = tale.folder("vanishes")
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        id_ = tale.request(fd)
        tale.wait_for_hidden(folder)
        end = time.monotonic() + 60
        while os.path.isdir(folder) and time.monotonic() < end:
            shutil.rmtree(folder, ignore_errors=True)
        said.add(tale.outcome(id_))
        os.close(fd)
        left += os.listdir(folder) if os.path.isdir(folder) else []
    story.check("a folder that vanishes in the middle is failed_precondition, if it was not done before",
                said <= {"failed_precondition", "done"}, said)
    story.check_is("nothing comes back", left, [])
    with Client(story.socket) as client:
        fd = os.open(story.dir, os.O_PATH | os.O_DIRECTORY)
        client.call("materialize", {"digest": reapi.text(tale.tree), "name": b"afterwards"}, [fd])
        os.close(fd)
    story.check("and the daemon goes on", tale.is_whole(story.dir + "/afterwards"))


def quarrel(tale, whose, mode):
    """Many make and remove the same target: every tree that appeared is removed once, whoever does it."""
    story = tale.story
    folder = tale.folder("quarrel " + whose)
    os.chmod(folder, mode)
    said = collections.Counter()
    lock = threading.Lock()

    def work():
        with Client(story.socket) as client:
            for _ in range(QUARRELS):
                for method, params in (("materialize", {"digest": reapi.text(tale.leaf)}), ("remove", {})):
                    try:
                        client.call(method, {"path": os.fsencode(folder + "/target"), **params})
                        answer = "done"
                    except RpcError as error:
                        answer = error.code
                    with lock:
                        said[method, answer] += 1

    threads = [threading.Thread(target=work) for _ in range(N_QUARRELLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    story.check_is("%s: who makes or removes what others do too succeeds, or is told failed_precondition" % whose,
                   sorted(set(said) - {("materialize", "done"), ("remove", "done")}),
                   [("materialize", "failed_precondition"), ("remove", "failed_precondition")])
    story.check_is("%s: of many that make and remove a target, each tree is removed by one" % whose,
                   said["remove", "done"], said["materialize", "done"])
    story.check("%s: and nothing of it stays" % whose, story.eventually(20, lambda: not os.listdir(folder)))


def main():
    with Story(240) as story:
        story.start_daemon()
        tale = Tale(story)
        swapped(tale)
        something_appears(tale)
        folder_vanishes(tale)
        quarrel(tale, "a folder of one's own", 0o755)
        quarrel(tale, "a folder of all", 0o777)
        story.check_is("nothing half made is left", litter(story.dir), [])
        tale.client.close()


main()
