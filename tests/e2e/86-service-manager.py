#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon that a service manager starts (this story is the manager): the manager has opened the socket, and hears
when the daemon is ready and when it stops. Nothing of systemd is needed."""

import os
import select
import socket
import stat
import subprocess

from rpc import Client, outcome
from story import Story

# What systemd does between fork and exec; the socket comes as standard input.
HAND_OVER = 'LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec 3<&0 </dev/null "$@"'


class Manager:
    def __init__(self, story):
        self.story = story
        self.path = os.path.join(story.dir, "notify")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.path)
        self.notify.settimeout(120)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(story.socket)
        os.chmod(story.socket, 0o640)
        self.listener.listen(16)

    def start(self, *options, handed=None):
        environment = dict(os.environ, NOTIFY_SOCKET=self.path)
        command = ["sh", "-c", HAND_OVER, "sh", "dircached", "--store", self.story.store, *options]
        with open(self.story.log, "a") as log:
            self.story.daemon = subprocess.Popen(command, stdin=handed or self.listener, stdout=log, stderr=log,
                                                 env=environment)

    def hears(self):
        return self.notify.recv(4096).decode()

    def has_heard(self):
        return bool(select.select([self.notify], [], [], 0)[0])


def put(client, text):
    fd = os.memfd_create("file")
    os.write(fd, text)
    number = client.call("put", {"step": "begin"})["put"]
    client.call("put", {"step": "entries", "put": number, "entries": [{"type": "file", "name": b"f", "fd": 0}]}, [fd])
    os.close(fd)
    return client.call("put", {"step": "commit", "put": number})["digest"]


def serves_at_the_socket_of_another(story, manager):
    early = Client(story.socket)  # nobody answers yet
    early_id = early.request("ping")
    manager.start("--socket", os.path.join(story.dir, "unused"))
    story.check_is("the manager hears that the daemon is ready", manager.hears(), "READY=1")
    story.check("and so it is, for a client that was there before the daemon", early.wait(early_id) is not None)
    story.check("ready", early.call("ping")["ready"])
    story.check_is("neither a socket of its own is made nor a lock", [name for name in os.listdir(story.dir)
                                                                    if name.startswith(("unused", "s."))], [])
    story.check_is("the mode is the manager's", stat.S_IMODE(os.stat(story.socket).st_mode), 0o640)
    folder = os.open(story.dir, os.O_PATH | os.O_DIRECTORY)
    digest = put(early, b"hello")
    story.check_is("it makes links", early.call("materialize", {"digest": digest, "name": b"one"},
                                                [folder])["files_linked"], 1)
    if os.getuid() == 0:
        # Root's daemon serves several users, and cannot know whom another's socket lets in.
        story.check_is("it takes no paths, whatever its own option of a mode says",
                       outcome(early.call, "materialize", {"digest": digest, "path": story.dir.encode() + b"/two"}),
                       "invalid_argument")
    os.close(folder)
    early.close()


def stops_and_starts_again(story, manager):
    daemon = story.daemon
    with open("/proc/%d/status" % daemon.pid) as status:
        story.check("it can gain no privileges", "NoNewPrivs:\t1\n" in status.read())
    daemon.terminate()
    story.check_is("the manager hears that it stops", manager.hears(), "STOPPING=1")
    story.check_is("it does, cleanly", daemon.wait(120), 0)
    story.check("the socket stays", stat.S_ISSOCK(os.stat(story.socket).st_mode))
    waiting = Client(story.socket)
    waiting_id = waiting.request("stats")
    story.check("nothing more was said", not manager.has_heard())
    manager.start()
    story.check("a client that came meanwhile is served by the next one", "blobs" in waiting.wait(waiting_id))
    story.check_is("which says that it is ready", manager.hears(), "READY=1")
    waiting.call("stop")
    story.check_is("a stop that a client asked for is told, too", manager.hears(), "STOPPING=1")
    story.check_is("and clean", story.daemon.wait(120), 0)
    waiting.close()


def fails_to_start(story, manager):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        manager.start(handed=datagrams)
        story.check_is("what is no listening socket is refused", story.daemon.wait(120), 1)
    with open(story.log) as log:
        story.check("in words", "no Unix stream socket that listens" in log.read())
    story.check("a daemon that did not start never was ready", not manager.has_heard())
    manager.start()
    story.check_is("the next one is", manager.hears(), "READY=1")


with Story() as story:
    manager = Manager(story)
    serves_at_the_socket_of_another(story, manager)
    stops_and_starts_again(story, manager)
    fails_to_start(story, manager)
