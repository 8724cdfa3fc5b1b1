#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The client's side with a daemon that says what ours says seldom, or never: what is shown of progress on a terminal,
and what is said of words that are not understood."""

import os
import pty
import select
import socket
import subprocess
import threading

from story import Story, skip_story

try:
    import msgpack
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")

DEADLINE = 60  # seconds for a client to say or do what it has to
SHOWN = b"7 of 9 files, 1.0K of 4.0K"
THREE_EVICTED = {"evicted_trees": 3, "evicted_blobs": 0, "evicted_bytes": 0, "allocated_before": 0, "trees": []}


class Daemon:
    """Serves one client with what conversation(daemon, id) says after its first request."""

    def __init__(self, path, conversation):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(DEADLINE)
        self.listener.bind(path)
        self.listener.listen()
        self.conversation = conversation
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        with self.listener:
            self.client = self.listener.accept()[0]
        with self.client:
            self.client.settimeout(DEADLINE)
            unpacker = msgpack.Unpacker(strict_map_key=False)
            for data in iter(lambda: self.client.recv(65536), b""):
                unpacker.feed(data)
                for message in unpacker:
                    self.conversation(self, message[1])
                    return

    def say(self, *message):
        self.client.sendall(msgpack.packb(message))

    def answer(self, number, result):
        self.say(1, number, None, result)


def dircache(story, conversation, *args, stderr=subprocess.PIPE):
    """Return: what a command says, and its status; the daemon that it talks to has that conversation."""
    path = story.dir + "/odd"
    if os.path.exists(path):
        os.unlink(path)
    daemon = Daemon(path, conversation)
    done = subprocess.run(["dircache", "--socket", path, *args], stdout=subprocess.PIPE, stderr=stderr,
                          timeout=DEADLINE)
    daemon.thread.join()
    return done


def progress(story):
    """A terminal shows how far it is, and nothing is left of that when it is done."""
    master, terminal = pty.openpty()
    shown = b""

    def until_shown(daemon, number):
        nonlocal shown
        daemon.say(2, "unheard of", [{}])
        daemon.say(2, "progress", [{"id": number + 1, "files": 99}])  # another request's
        daemon.say(2, "progress", [{"id": number}])  # that has no files
        for _ in range(DEADLINE * 10):
            done = {"files": 7, "files_total": 9, "bytes": 1024, "bytes_total": 4096}
            daemon.say(2, "progress", [{"id": number, **done}])
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 4096)
            if SHOWN in shown:
                break
        daemon.answer(number, THREE_EVICTED)

    done = dircache(story, until_shown, "gc", "--to", "1K", stderr=terminal)
    os.close(terminal)
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:  # nobody has the terminal any more
            break
    os.close(master)
    story.check_is("a command with progress is done", done.returncode, 0)
    story.check("it tells of trees that the answer does not list", b"and 3 trees more\n" in done.stdout, done.stdout)
    story.check("a terminal shows how many of how many", SHOWN in shown, shown)
    story.check("and of this request alone", b"99" not in shown, shown)
    story.check("the line is cleared in the end", shown.endswith(b"\r\x1b[K"), shown)


# What the daemon does, by a claim; and what the client then says.
ODD = {
    "an answer that is no map": (lambda d, n: d.answer(n, 5), "is no map"),
    "an answer without what it must have": (lambda d, n: d.answer(n, {}), "the daemon's answer is not understood: "),
    "a notification that gives the connection up":
        (lambda d, n: d.say(2, "error", [{"code": "too_large", "message": "much too much"}]), "much too much"),
    "bytes that are no message": (lambda d, n: d.client.sendall(b"\xc1" * 10), "0xc1 at byte 0 begins no value"),
    "an end without a word": (lambda d, n: None, "the daemon closed the connection"),
}


def main():
    with Story() as story:
        progress(story)
        for claim, (conversation, words) in ODD.items():
            for command in "gc", "ping", "tags":
                done = dircache(story, conversation, command)
                said = done.stderr.decode()
                story.check("%s: %s says so and fails" % (claim, command),
                            done.returncode == 1 and said.startswith("dircache: ") and words in said,
                            "%d: %s" % (done.returncode, said))


main()
