#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No symlink is followed in the store, nor at a target: whoever got one in there gains nothing by it. The daemon is
root, which could read and write all that they lead to; who asks is another user."""

import hashlib
import os
import shutil

from rpc import Client, Closed, outcome, ready_client
from story import Story, skip_story
from users import User, can_run_programs

ALICE = User("alice", 12001)
ROOT = User("root", 0)
DATA = b"bytes that are stored, forty of them ...", b"others, of another length"
SECRET = b"what root alone may read, forty bytes .."
NAMES = "plain", "exec"


def memfd(data):
    fd = os.memfd_create("file")
    os.write(fd, data)
    return fd


def put(story):
    """A tree of a plain file and an executable one. Return: its digest."""
    def store():
        with Client(story.socket) as client:
            number = client.call("put", {"step": "begin"})["put"]
            entries = [{"type": "file", "name": name.encode(), "executable": name == "exec", "fd": i}
                       for i, name in enumerate(NAMES)]
            client.call("put", {"step": "entries", "put": number, "entries": entries}, [memfd(data) for data in DATA])
            return client.call("put", {"step": "commit", "put": number})["digest"]
    return ALICE.does(store)


def materialize(story, name, mode="link"):
    """As alice. Return: how many files were linked and so on, or the code of an error."""
    def ask():
        with Client(story.socket) as client:
            return outcome(client.call, "materialize", {"digest": story.tree, "name": name.encode(), "mode": mode},
                           [os.open(story.home, os.O_PATH | os.O_DIRECTORY)])
    return ALICE.does(ask)


def cat(story):
    """As alice. Return: the plain file's bytes, or the code of an error."""
    def ask():
        with Client(story.socket) as client:
            digest = "%s/%d" % (hashlib.sha256(DATA[0]).hexdigest(), len(DATA[0]))
            said = outcome(client.call, "cat", {"digest": digest})
            return said if isinstance(said, str) else os.read(client.fds[0], 1000)
    return ALICE.does(ask)


def verify(story):
    """Return: how much is wrong."""
    with Client(story.socket) as client:
        return client.call("verify", {})["faults_total"]


def blob_path(story):
    """Of the plain file."""
    for folder, _, names in os.walk(os.path.join(story.store, "blobs")):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                if file.read() == DATA[0]:
                    return path
    raise FileNotFoundError


def restart(story, claim):
    story.kill_daemon()
    story.start_daemon("--socket-mode", "0666")
    ready_client(story.socket).close()
    story.check("%s: the daemon starts" % claim, story.daemon.poll() is None)


def state(path):
    """Of a file or a folder outside of the store: nothing in it may change."""
    if os.path.isdir(path):
        return sorted((name, state(os.path.join(path, name))) for name in os.listdir(path))
    st = os.stat(path)
    with open(path, "rb") as file:
        return st.st_ino, st.st_mode, st.st_uid, st.st_nlink, st.st_mtime_ns, file.read()


def ck_safe(story, claim, link, outside, before, modes):
    story.check_is("%s: what it leads to is as it was" % claim, state(outside), before)
    for mode in modes:
        for again in range(2):
            name = "%s.%d" % (mode, again)
            said = materialize(story, name, mode)
            path = os.path.join(story.home, name)
            if isinstance(said, str):
                story.check("%s: refused (%s)" % (claim, said), not os.path.exists(path))
                continue
            got = os.stat(path + "/plain", follow_symlinks=False)
            with open(path + "/plain", "rb") as file:
                story.check("%s: the tree has the bytes that were asked for" % claim, file.read() == DATA[0])
            story.check("%s: in an inode that is not what it leads to" % claim, got.st_ino not in inodes(outside) and
                        not os.path.islink(path + "/plain"))
            shutil.rmtree(path)
    said = cat(story)
    story.check("%s: its bytes are given, or none (%s)" % (claim, said), isinstance(said, str) or said == DATA[0])
    said = ROOT.does(verify, story)
    story.check("%s: it is not there any more, or verify tells of it" % claim, said or not os.path.islink(link), said)
    said = outcome(put, story)
    story.check("%s: what is stored again is the same, or refused (%s)" % (claim, said),
                said == story.tree or "/" not in said)
    story.check_is("%s: nothing hidden is left" % claim, [name for name in os.listdir(story.home) if name[0] == "."], [])
    story.check_is("%s: and still what it leads to is as it was" % claim, state(outside), before)


def inodes(path):
    if os.path.isdir(path):
        return {inode for name in os.listdir(path) for inode in inodes(os.path.join(path, name))}
    return {os.stat(path).st_ino}


def in_the_store(story):
    """A blob's file, its folder, and the folder of all of them, by links to what would pass for them."""
    every = ("link", "copy", "reflink")
    for claim, of, make, modes in (
            ("a blob that is a symlink to a secret", lambda path: path, secret, every),
            ("a blob that is a symlink to its very bytes", lambda path: path, twin, every),
            ("a folder of blobs that is a symlink", os.path.dirname, copied, every),
            ("the folder of all blobs that is one", lambda path: os.path.dirname(os.path.dirname(path)), copied, every)):
        for is_running in True, False:
            what = claim + ("" if is_running else ", at the start")
            path = of(blob_path(story))
            outside = make(story, path)
            before = state(outside)
            os.symlink(outside, path)
            if is_running or claim.startswith("a "):
                if not is_running:
                    restart(story, what)
                ck_safe(story, what, path, outside, before, modes)
            else:
                story.kill_daemon()
                story.check("%s: the daemon does not start" % what, not starts(story))
                story.check_is("%s: what it leads to is as it was" % what, state(outside), before)
            story.kill_daemon()
            clear(story)
            fresh(story)


def starts(story):
    """Does the daemon become ready? The index is opened when it already listens."""
    try:
        story.start_daemon("--socket-mode", "0666")
        ready_client(story.socket).close()
        return True
    except (RuntimeError, OSError, Closed):
        story.daemon.wait(60)
        return False


def outside_of(story):
    return ROOT.folder(story.dir, "outside", mode=0o711)


def secret(story, path):
    os.unlink(path)
    target = outside_of(story) + "/secret"
    with open(target, "wb") as file:
        file.write(SECRET)
    os.chmod(target, 0o400)
    return target


def twin(story, path):
    target = outside_of(story) + "/twin"
    os.rename(path, target)
    return target


def copied(story, path):
    """A copy with all modes and times, in other inodes: what the daemon may still have open is not it. What was stored
    as a plain file has other bytes there, so that reading it shows, too."""
    target = outside_of(story) + "/copied"
    changed = os.path.join(target, os.path.relpath(blob_path(story), path))
    shutil.copytree(path, target)
    st = os.stat(changed)
    with open(changed, "r+b") as file:
        file.write(SECRET[:len(DATA[0])])
    os.utime(changed, ns=(st.st_atime_ns, st.st_mtime_ns))
    shutil.rmtree(path)
    return target


def clear(story):
    for path in story.store, story.dir + "/outside":
        shutil.rmtree(path, ignore_errors=True)


def fresh(story):
    """A new store with the tree in it."""
    story.start_daemon("--socket-mode", "0666")
    ready_client(story.socket).close()
    story.tree = put(story)
    story.check_is("a tree is made of links", materialize(story, "first").get("files_linked"), 2)
    shutil.rmtree(story.home + "/first")


def folders_of_the_daemon(story):
    """What it keeps for itself."""
    for name in "staging", "tmp", "index.sqlite", "tags", "reserve", "lock":
        story.kill_daemon()
        clear(story)
        fresh(story)
        story.stop_daemon()
        path = os.path.join(story.store, name)
        outside = outside_of(story) + "/" + name
        if name in ("staging", "tmp"):
            os.mkdir(outside)
        else:
            with open(outside, "wb") as file:
                file.write(SECRET * 1000)
        for leaf in ("00000000", "file") if os.path.isdir(outside) else ():
            with open(os.path.join(outside, leaf), "wb") as file:
                file.write(SECRET)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)
        os.symlink(outside, path)
        before = state(outside)
        if starts(story):
            materialize(story, "t")
            story.stop_daemon()
            shutil.rmtree(story.home + "/t", ignore_errors=True)
        story.check_is("'%s' that is a symlink: what it leads to is as it was" % name, state(outside), before)
    clear(story)
    fresh(story)


def records(story):
    """A file of records that is a symlink, to records that look right."""
    precious = ALICE.folder(story.home, ".dircache-0123456700000001234567ab")
    ALICE.does(lambda: open(precious + "/kept", "w").close())
    st = os.stat(story.home)
    outside = outside_of(story) + "/records"
    with open(outside, "w") as file:
        file.write("dircache-staging 3\n0 0\n%d %d\n%s\n%s\0" % (st.st_dev, st.st_ino, os.path.basename(precious), story.home))
    before = state(outside)
    os.symlink(outside, story.store + "/staging/01234567")
    restart(story, "records that are a symlink")
    story.check("it says that it does not read them", story.eventually(10, lambda: "'01234567'" in open(story.log).read()))
    story.check_is("records that are a symlink: they are as they were", state(outside), before)
    story.check_is("and what they tell of is there", os.listdir(precious), ["kept"])
    shutil.rmtree(precious)


def targets(story):
    outside = story.dir + "/outside"
    alices = ALICE.folder(story.home, "alices")
    for what, path in ("root's folder", outside), ("her own empty folder", alices), ("nothing", story.home + "/nothing"):
        ALICE.does(os.symlink, path, story.home + "/link")
        story.check_is("a target that is a symlink to %s is refused" % what, materialize(story, "link"), "failed_precondition")
        story.check("and stays", os.path.islink(story.home + "/link"))
        os.unlink(story.home + "/link")
    story.check_is("nothing is in them", (os.listdir(alices), os.path.lexists(story.home + "/nothing")), ([], False))


def main():
    if os.geteuid() != 0:
        skip_story("only root has other users")
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if not can_run_programs(ALICE):
            skip_story("other users cannot run the programs")
        story.home = ALICE.folder(story.dir, "home")
        fresh(story)
        in_the_store(story)
        records(story)
        targets(story)
        folders_of_the_daemon(story)


main()
