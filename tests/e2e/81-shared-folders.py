#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A folder in which two users may rename things: one puts the other's own directory under the hidden name of what is
made or taken away there, and waits for the daemon to delete that. The daemon is halted while he does."""

import os
import shutil
import signal
import time

from rpc import Client, ready_client
from story import Story, skip_story
from users import User, can_run_programs

PROJECT = 13000  # a group
DAEMON = User("daemon", 12000)
ALICE = User("alice", 12001, PROJECT)
BOB = User("bob", 12002)
CAROL = User("carol", 12003, *range(20000, 20300))  # more groups than a record has
ROOT = User("root", 0)
CAPS = "+setuid,+setgid,+fowner"
N_FILES = 4000


def start(story):
    story.start_daemon("--socket-mode", "0666", under=(
        "setpriv", "--reuid", str(DAEMON.uid), "--regid", str(DAEMON.gid), "--clear-groups", "--inh-caps",
        "-all," + CAPS, "--bounding-set", "-all," + CAPS, "--ambient-caps", CAPS))
    ROOT.does(lambda: ready_client(story.socket).close())


def halt(story):
    """The daemon halts in the middle of whatever it does, and does nothing from when this returns."""
    story.daemon.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, story.daemon.pid, os.WSTOPPED | os.WNOWAIT)


def go_on(story):
    story.daemon.send_signal(signal.SIGCONT)


def memfd(data):
    fd = os.memfd_create("file")
    os.write(fd, data)
    return fd


def put_tree(story):
    """A tree that takes a while."""
    def put():
        with Client(story.socket) as client:
            number = client.call("put", {"step": "begin"})["put"]
            for first in range(0, N_FILES, 200):
                fds = [memfd(b"file %d" % (i % 50)) for i in range(200)]
                entries = [{"type": "file", "name": b"%d" % (first + i), "executable": False, "fd": i} for i in range(200)]
                client.call("put", {"step": "entries", "put": number, "entries": entries}, fds)
                for fd in fds:
                    os.close(fd)
            return client.call("put", {"step": "commit", "put": number})["digest"]
    return ALICE.does(put)


def call(story, method, params):
    def calls():
        with Client(story.socket) as client:
            client.call(method, params, [os.open(story.shared, os.O_PATH | os.O_DIRECTORY)])
    story.client.does(calls)


def ask(story, method, params):
    """A request of the client's whose answer nobody awaits; its process's end cancels it."""
    pid = os.fork()
    if pid == 0:
        story.client.become()
        client = Client(story.socket)
        client.request(method, params, [os.open(story.shared, os.O_PATH | os.O_DIRECTORY)])
        signal.pause()
    return pid


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def hidden_in(folder):
    return [name for name in os.listdir(folder) if name.startswith(".dircache-")]


def swap(story, hidden):
    """Bob's part: it takes nothing but the right to write the folder."""
    def moves():
        os.chdir(story.shared)
        os.rename(hidden, "away")
        os.rename("work", hidden)
    BOB.does(moves)


def is_filled(story, name):
    return len(os.listdir(os.path.join(story.shared, name))) > 0


def catch(story, method, params):
    """Have the daemon halted while there is a hidden name with something in it. Return: that name, and who asked."""
    end_at = time.monotonic() + 240
    while time.monotonic() < end_at:
        if method == "remove":
            call(story, "materialize", {"digest": story.tree, "name": b"t"})
        was_there = os.path.exists(story.shared + "/t")
        pid = ask(story, method, params)
        while not hidden_in(story.shared) and os.path.exists(story.shared + "/t") == was_there:
            if time.monotonic() > end_at:
                break
        halt(story)
        names = hidden_in(story.shared)
        if names and is_filled(story, names[0]):
            return names[0], pid
        go_on(story)
        end(pid)
        story.eventually(10, lambda: not hidden_in(story.shared))
        if os.path.exists(story.shared + "/t"):
            call(story, "remove", {"name": b"t"})
            story.eventually(10, lambda: not hidden_in(story.shared))
    raise RuntimeError("the daemon was never caught")


def new_work(story):
    """A directory of alice's, closed to all but her."""
    def make():
        work = os.path.join(story.shared, "work")
        os.mkdir(work)
        with open(os.path.join(work, "kept"), "w") as file:
            file.write("alice's")
        os.chmod(work, 0o500)
    ALICE.does(make)


def kept(story):
    """What alice's own directory is now, whatever its name."""
    for name in os.listdir(story.shared):
        folder = os.path.join(story.shared, name)
        if os.path.exists(folder + "/kept"):
            return os.listdir(folder), oct(os.stat(folder).st_mode & 0o7777)
    return None


def clear_up(story):
    for name in os.listdir(story.shared):
        shutil.rmtree(os.path.join(story.shared, name))


def has_no_record(story):
    return not [found for found in story.litter() if found.startswith("record")]


def attack(story, claim, method, params, is_killed):
    new_work(story)
    hidden, pid = catch(story, method, params)
    swap(story, hidden)
    end(pid)
    if is_killed:
        story.kill_daemon()
        start(story)
    else:
        go_on(story)
    story.check("%s: it comes to its end" % claim, story.eventually(20, lambda: has_no_record(story)), story.litter())
    story.check_is("%s: another directory under the hidden name is as it was" % claim, kept(story), (["kept"], oct(0o500)))
    if os.path.exists(story.shared + "/t/kept"):
        story.n_renamed += 1  # the cancel came too late
    clear_up(story)


def many_groups(story):
    """The folder is open to the last of them alone: to make the tree it is enough, not to sweep what a kill left."""
    story.client = CAROL
    story.shared = BOB.folder(os.path.dirname(story.store), "groups", mode=0o2770, group=CAROL.groups[-1])
    materialize = {"digest": story.tree, "name": b"t"}
    call(story, "materialize", materialize)
    story.check_is("a client acts with all groups that it has", os.stat(story.shared + "/t").st_uid, CAROL.uid)
    call(story, "remove", {"name": b"t"})
    story.check("and removes with them", story.eventually(20, lambda: not os.listdir(story.shared)))
    hidden, pid = catch(story, "materialize", materialize)
    end(pid)
    story.kill_daemon()
    start(story)
    story.check("what needs a group that is not recorded is left by a sweep, and told",
                story.eventually(20, lambda: "opening '%s': Permission denied" % story.shared in logged(story)), logged(story))
    story.check("it is there", is_filled(story, hidden))
    os.chmod(story.shared, 0o2777)
    story.stop_daemon()
    start(story)
    story.check("a later start deletes it when it may", story.eventually(20, lambda: not os.listdir(story.shared)))


def logged(story):
    with open(story.log, errors="replace") as log:
        return log.read()


def main():
    if os.geteuid() != 0:
        skip_story("only root has other users")
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if not can_run_programs(ALICE):
            skip_story("other users cannot run the programs")
        base = DAEMON.folder(story.dir, "daemon")
        story.store, story.socket = base + "/store", base + "/s"
        story.shared = BOB.folder(base, "shared", mode=0o2775, group=PROJECT)
        story.client = ALICE
        story.n_renamed = 0
        start(story)
        story.tree = put_tree(story)
        materialize = {"digest": story.tree, "name": b"t"}
        attack(story, "a tree that is cancelled", "materialize", materialize, False)
        attack(story, "a tree that is cut off by a kill", "materialize", materialize, True)
        attack(story, "a removal", "remove", {"name": b"t"}, False)
        attack(story, "a removal that is cut off by a kill", "remove", {"name": b"t"}, True)
        story.check_is("what is left is told in the log", logged(story).count("another directory"), 4 - story.n_renamed)
        many_groups(story)


main()
