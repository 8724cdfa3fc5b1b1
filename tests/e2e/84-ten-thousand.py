#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand connections, each of which asked something: what they take, and that others are served meanwhile."""

import json
import os
import resource
import socket

import msgpack

from rpc import Client, ready_client
from story import Story, skip_story
from users import User, can_run_programs

N = 10000
ROOM = 32 << 10  # bytes of memory for each; a third is needed
ALICE, BOB = User("alice", 12001), User("bob", 12002)
PING = msgpack.packb([0, 1, "ping", [{}]])


def crowd(story, n, answer, go):
    """So many connections, kept until nobody holds the other end of go."""
    peers = []
    for _ in range(n):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(story.socket)  # waits where too many come at once, which it does not with a timeout
        peer.settimeout(120)
        peer.sendall(PING)
        peers.append(peer)
    served = sum(peer.recv(1 << 16)[:1] == b"\x94" for peer in peers)
    os.write(answer, json.dumps(served).encode())
    os.read(go, 1)


def start_crowd(story, user, n, go_reader, go):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        try:
            if user:
                user.become()
            crowd(story, n, writer, go_reader)
        except BaseException as error:
            print("#", repr(error), flush=True)
        finally:
            os._exit(0)
    os.close(writer)
    return pid, reader


def resident(story):
    with open("/proc/%d/status" % story.daemon.pid, encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))


def put_and_materialize(story, client, name):
    fd = os.memfd_create("file")
    os.write(fd, b"while ten thousand look on")
    number = client.call("put", {"step": "begin"})["put"]
    client.call("put", {"step": "entries", "put": number, "entries": [{"type": "file", "name": b"f", "fd": 0}]}, [fd])
    digest = client.call("put", {"step": "commit", "put": number})["digest"]
    folder = os.open(story.dir, os.O_PATH)
    client.call("materialize", {"digest": digest, "name": name.encode()}, [folder])
    with open(os.path.join(story.dir, name, "f"), "rb") as file:
        return file.read()


def tell(story, users):
    client = ready_client(story.socket)
    put_and_materialize(story, client, "first")  # what is opened for good is open then
    before, fds_before = resident(story), len(os.listdir("/proc/%d/fd" % story.daemon.pid))
    go_reader, go = os.pipe()
    crowds = [start_crowd(story, user, N // len(users), go_reader, go) for user in users]
    os.close(go_reader)
    served = [json.loads(os.read(reader, 100) or b"0") for _, reader in crowds]
    story.check_is("ten thousand connections are served", sum(served), N)
    each = (resident(story) - before) / N
    print("# %d bytes of memory for each" % each)
    if not os.environ.get("DIRCACHE_SANITIZED"):  # sanitizers keep what was freed
        story.check("in little memory", each < ROOM, each)
    story.check_is("and others are served meanwhile", put_and_materialize(story, client, "out"), b"while ten thousand look on")
    with Client(story.socket) as late:
        story.check_is("who comes late, too", late.call("stats")["connections"], N + 2)
    os.close(go)
    for pid, _ in crowds:
        os.waitpid(pid, 0)
    story.check("when they are gone, so are their connections",
                story.eventually(20, lambda: client.call("stats")["connections"] == 1))
    story.check("and their descriptors",
                story.eventually(20, lambda: len(os.listdir("/proc/%d/fd" % story.daemon.pid)) <= fds_before))
    client.close()


def main():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < 14000:
        skip_story("the limit of descriptors is %d" % most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Story() as story:
        os.chmod(story.dir, 0o711)
        users = [ALICE, BOB] if os.geteuid() == 0 and can_run_programs(ALICE) else [None]
        story.start_daemon("--socket-mode", "0666", "--max-connections", str(N + 10), "--max-user-connections", str(N + 10))
        tell(story, users)


main()
