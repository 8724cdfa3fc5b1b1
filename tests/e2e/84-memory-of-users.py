#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What one user can make the daemon hold, by asking and never listening: memory and descriptors, each attack on a daemon of its own."""

import os
import selectors
import socket
import sys
import time

import msgpack

from rpc import ready_client
from story import Story, skip_story
from users import User, can_run_programs

ALICE, BOB = User("alice", 12001), User("bob", 12002)
MIB = 1 << 20
QUIET = 1  # seconds in which the daemon takes nothing more: then it holds what it is going to hold
LONG = 5   # or so long: what is answered at once goes on for long
ENTRIES = 2048


def packed(method, params):
    return msgpack.packb([0, 1, method, [params]])


# ---- what is asked: how many connections, and what each sends again and again ----


def unread_stats(_):
    return 200, packed("stats", {})


def unread_pages(tree):
    """Half a megabyte each."""
    return 200, packed("ls", {"digest": tree})


def unread_files(tree):
    """A descriptor each."""
    return 200, packed("cat", {"digest": tree})


def open_lookups(_):
    """Requests as large as are parsed at once."""
    return 40, packed("has", {"digests": ["%064x/1" % i for i in range(1700)], "tree": True})


def open_values(_):
    """Small messages of very many values."""
    return 40, packed("stats", {"x-a": [0] * 120000})


def large_messages(_):
    """Never ended."""
    return 40, packed("ping", {"x-a": bytes(15 << 20)})[:-1]


def slow_messages(_):
    """As many as there may be connections, each short of the size that is counted."""
    return 900, packed("ping", {"x-a": bytes(120000)})[:-1]


# The most that the daemon may have in memory, in MiB: what docs/PROTOCOL.md lets a user have, and as much again for the memory around it.
ATTACKS = [(unread_stats, 256), (unread_pages, 256), (unread_files, 256), (open_lookups, 256), (open_values, 256),
           (large_messages, 320), (slow_messages, 320)]
ENDLESS = {unread_stats, unread_pages, unread_files, open_lookups, open_values}


def flood(path, n, data, again):
    """Send on all connections what they take, until they take nothing more. How many bytes they took."""
    selector = selectors.DefaultSelector()
    left = {}
    for _ in range(n):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        peer.setblocking(False)
        left[peer] = data
        selector.register(peer, selectors.EVENT_WRITE)
    total, begin = 0, time.monotonic()
    end = begin + QUIET
    while time.monotonic() < min(end, begin + LONG):
        for key, _ in selector.select(0.05):
            try:
                sent = key.fileobj.send(left[key.fileobj])
            except BlockingIOError:
                continue
            except OSError:  # it took no answer for so long that it is closed
                selector.unregister(key.fileobj)
                continue
            total += sent
            end = time.monotonic() + QUIET
            left[key.fileobj] = left[key.fileobj][sent:] or (data if again else b"")
            if not left[key.fileobj]:
                selector.unregister(key.fileobj)
    return total


def start_flood(story, attack, tree, go_reader, go):
    """A process of alice's that floods, and keeps its connections until go is closed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        try:
            ALICE.become()
            n, data = attack(tree)
            os.write(writer, b"%d" % flood(story.socket, n, data, attack in ENDLESS))
            os.read(go_reader, 1)
        except BaseException as error:
            print("#", repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(0)
    os.close(writer)
    return pid, reader


# ---- the daemon ----


def peak(story):
    with open("/proc/%d/status" % story.daemon.pid, encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


def n_fds(story):
    return len(os.listdir("/proc/%d/fd" % story.daemon.pid))


def put_tree(story):
    """A Directory whose page is as long as a page may be. Its digest."""
    with ready_client(story.socket) as client:
        number = client.call("put", {"step": "begin"})["put"]
        for i in range(0, ENTRIES, 256):
            client.call("put", {"step": "entries", "put": number, "entries": [
                {"type": "symlink", "name": b"%d" % n, "target": b"x" * 200} for n in range(i, i + 256)]})
        return client.call("put", {"step": "commit", "put": number})["digest"]


def bob_is_served(story):
    with ready_client(story.socket) as client:
        client.call("put", {"step": "begin"})
        return client.call("ping")["ready"]


def tell(story, attack, most):
    name = attack.__name__.replace("_", " ")
    story.start_daemon("--socket-mode", "0666", "--max-user-descriptors", "500")
    tree = put_tree(story)
    before = n_fds(story)
    go_reader, go = os.pipe()
    pid, reader = start_flood(story, attack, tree, go_reader, go)
    os.close(go_reader)
    took = int(os.read(reader, 100) or b"0")
    n, _ = attack(tree)
    print("# %s: took %.1f MiB; %.0f MiB resident at the most, %d descriptors" % (
        name, took / MIB, peak(story) / MIB, n_fds(story)), flush=True)
    story.check("%s: all that is taken of it is bounded" % name, took > 0)
    if not os.environ.get("DIRCACHE_SANITIZED"):  # sanitizers keep what was freed
        story.check("%s: so is the daemon's memory" % name, peak(story) < most * MIB, peak(story) / MIB)
    story.check("%s: and the descriptors" % name, n_fds(story) < before + n + 700, n_fds(story))
    story.check_is("%s: another user is served" % name, BOB.does(bob_is_served, story), True)
    os.close(go)
    os.waitpid(pid, 0)
    with ready_client(story.socket) as client:
        story.check("%s: all of it ends with its connections" % name, story.eventually(
            60, lambda: client.call("stats")["connections"] == 1 and client.call("stats")["requests_active"] == 1))
    story.check("%s: no descriptor is left" % name, story.eventually(20, lambda: n_fds(story) <= before + 20), n_fds(story))
    story.check_is("%s: the daemon stops cleanly" % name, story.stop_daemon(), 0)


def main():
    if os.geteuid() != 0:
        skip_story("only root has other users")
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if not can_run_programs(ALICE):
            skip_story("other users cannot run the programs")
        for attack, most in ATTACKS:
            tell(story, attack, most)


main()
