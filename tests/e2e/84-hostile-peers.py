#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Peers that come in crowds, never end what they say, never listen, or do nothing at all."""

import json
import os
import resource
import socket

import msgpack

from rpc import Client, Closed, RpcError, ready_client
from story import Story
from users import User, can_run_programs

ALICE = User("alice", 12001)
BOB = User("bob", 12002)
OPTIONS = ("--socket-mode", "0666", "--max-connections", "20", "--max-user-connections", "20", "--message-timeout", "1")


def stats(client):
    return client.call("stats")


def said(client):
    """What a connection was told before it was closed: the code and the words, or None."""
    told = client.until_closed()
    return (told[0][1]["code"], told[0][1]["message"]) if told else None


def is_refusal(told, code, words):
    return told is not None and told[0] == code and words in told[1]


def raw(story):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(60)
    peer.connect(story.socket)
    return peer


# ---- crowds ----


def crowd(story):
    """All connections that there may be, of one who is no administrator or, where there is no other user, is."""
    clients = []
    while len(clients) < 100:
        client = Client(story.socket)
        try:
            client.call("ping")
        except OSError:
            return clients, client.until_closed()
        except Closed:
            return clients, client.notifications
        clients.append(client)
    return clients, []


def start_crowd(story, user, go_reader, go):
    """A process whose connections last until go is closed; how many it got, and what the next was told."""
    reader, writer = os.pipe()

    def run():
        clients, told = crowd(story)
        os.write(writer, json.dumps((len(clients), told)).encode())
        os.read(go_reader, 1)
    pid = os.fork()
    if pid == 0:
        os.close(go)
        try:
            user.does(run)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        return pid, *json.loads(os.read(answer.fileno(), 4096))


def connections(story):
    first = ready_client(story.socket)
    go_reader, go = os.pipe()
    crowds = [start_crowd(story, user, go_reader, go) for user in (ALICE, BOB)]
    os.close(go_reader)
    story.check_is("of others there are as many as may be, half of all of each", [n for _, n, _ in crowds], [10, 9])
    told = [words[0][1] for _, _, words in crowds]
    story.check("one more is told which limit that is",
                all(words["code"] == "resource_exhausted" for words in told) and
                "max-user-connections" in told[0]["message"] and "max-connections" in told[1]["message"], told)
    with Client(story.socket) as admin:
        story.check("an administrator is let in all the same", stats(admin)["connections"] == 21)
        try:
            admin.call("tags")
            code = "answered"
        except RpcError as error:
            code = error.code
        story.check_is("for administration, and nothing else", code, "resource_exhausted")
        many = [Client(story.socket) for _ in range(7)]
        for client in many:
            client.call("ping")
        story.check("of which there are eight", is_refusal(said(Client(story.socket)), "resource_exhausted", "max-connections"))
        for client in many:
            client.close()
        story.check("what was refused is counted", stats(admin)["connections_refused"] >= 2)
    with open(story.log) as log:
        story.check_is("the log says once that it has come to that", log.read().count("max-connections"), 1)
    os.close(go)
    for pid, _, _ in crowds:
        os.waitpid(pid, 0)
    story.check("when they are gone, others are served",
                story.eventually(5, lambda: stats(first)["connections"] == 1) and first.call("tags")["tags"] == [])
    first.close()


def out_of_descriptors(story):
    """The daemon has none left to accept with: whoever comes waits, and is served later."""
    first = ready_client(story.socket)
    limits = resource.prlimit(story.daemon.pid, resource.RLIMIT_NOFILE)
    n_open = max(int(fd) for fd in os.listdir("/proc/%d/fd" % story.daemon.pid)) + 1
    resource.prlimit(story.daemon.pid, resource.RLIMIT_NOFILE, (n_open, limits[1]))
    late = [Client(story.socket) for _ in range(200)]
    ids = [client.request("ping") for client in late]
    story.check("who is connected is served while there are no descriptors", stats(first)["connections"] >= 1)
    resource.prlimit(story.daemon.pid, resource.RLIMIT_NOFILE, limits)
    served = told = 0
    for client, id_ in zip(late, ids):
        try:
            client.wait(id_)
            served += 1
        except (OSError, Closed):
            told += is_refusal(said(client), "resource_exhausted", "connections")
    story.check("and the others when there are some again, as many as may be", served >= 17 and served + told == 200,
                "%d, %d" % (served, told))
    for client in late:
        client.close()
    first.close()


# ---- slow ones ----


def slow_writers(story):
    with ready_client(story.socket) as witness:
        before = stats(witness)
        half = msgpack.packb([0, 1, "ping", [{"x-a": b"x" * 1000}]])[:-1]
        halves = [Client(story.socket) for _ in range(3)]
        halves[0].send_bytes(half[:1])
        halves[1].send_bytes(half)
        halves[2].send_bytes(msgpack.packb([0, 1, "ping", [{}]]) + half[:20])
        told = [said(client) for client in halves]
        story.check("who does not end a message is told so, and closed",
                    all(is_refusal(words, "resource_exhausted", "message-timeout") for words in told), told)
        story.check_is("which counts", stats(witness)["slow_writers"] - before["slow_writers"], 3)
        story.check("what was whole was answered before", 1 in halves[2].answers)


def slow_readers(story):
    with ready_client(story.socket) as witness:
        before = stats(witness)["slow_readers"]
        peer = raw(story)
        peer.setblocking(False)
        request = msgpack.packb([0, 1, "stats", [{}]])
        try:
            while True:
                peer.send(request * 100)
        except BlockingIOError:
            pass
        story.check("who takes no answers is closed in the end",
                    story.eventually(20, lambda: stats(witness)["slow_readers"] == before + 1))
        peer.close()


def patience(story):
    """None of this ends what only takes its time."""
    with ready_client(story.socket) as client, ready_client(story.socket) as witness:
        closed = stats(witness)["slow_writers"] + stats(witness)["slow_readers"]
        number = client.call("put", {"step": "begin"})["put"]
        other = Client(story.socket)
        other.send_bytes(b"\x94")
        said(other)  # by then all others were looked at for longer, too
        story.check_is("a put that has begun is no reason", client.call("put", {"step": "abort", "put": number}), {})
        now = stats(witness)
        story.check_is("nobody else was closed", now["slow_writers"] + now["slow_readers"], closed + 1)


def idle(story):
    story.start_daemon("--connection-timeout", "1")
    with ready_client(story.socket) as busy:
        idle = ready_client(story.socket)
        number = busy.call("put", {"step": "begin"})["put"]
        story.check("who asks nothing for so long is told so, and closed",
                    is_refusal(said(idle), "unavailable", "connection-timeout"))
        story.check_is("but not who has begun a put", busy.call("put", {"step": "commit", "put": number})["tree"], True)
        story.check_is("which counts", stats(busy)["idle_connections"], 1)
    story.check_is("the daemon stops cleanly", story.stop_daemon(), 0)


# ---- the end of a conversation, wherever it comes ----


def conversation(story):
    """A put and a materialize: bytes, and the descriptors that go with each part."""
    file = os.memfd_create("file")
    os.write(file, b"a file of a conversation")
    folder = os.open(story.dir, os.O_PATH)

    def request(id_, method, params):
        return msgpack.packb([0, id_, method, [params]])
    entries = [{"type": "directory", "name": b"d"}, {"type": "file", "name": b"f", "fd": 0, "parent": 1},
               {"type": "symlink", "name": b"l", "target": b"d/f"}]
    return [
        (request(1, "put", {"step": "begin"}), []),
        (request(2, "put", {"step": "entries", "put": 0, "fds": 1, "entries": entries}), [file]),
        (request(3, "put", {"step": "commit", "put": 0, "tag": "cut"}), []),
        (request(4, "materialize", {"tag": "cut", "fds": 1, "name": b"cut", "lease_connection": True}), [folder]),
        (request(5, "remove", {"fds": 1, "name": b"cut"}), [folder]),
    ]


def hold_it(story, parts, n_bytes, end):
    """Say so many bytes of it, waiting for the answer of each request that is whole; then end."""
    client = Client(story.socket)
    for id_, (data, fds) in enumerate(parts, 1):
        if not n_bytes:
            break
        client.send_bytes(data[:n_bytes], fds)
        if n_bytes < len(data):
            break
        n_bytes -= len(data)
        client.wait(id_)
    end(client)
    client.close()


def close(client):
    del client


def half_close(client):
    """Say that nothing more comes, and listen to the end."""
    client.socket.shutdown(socket.SHUT_WR)
    client.until_closed()


def leave_unread(client):
    """The last answer is never read."""
    client.send_bytes(msgpack.packb([0, 99, "stats", [{}]])[:-1])


def cut_everywhere(story):
    parts = conversation(story)
    n_bytes = sum(len(data) for data, _ in parts)
    witness = ready_client(story.socket)
    hold_it(story, parts, n_bytes, close)  # so that what stays is there
    witness.call("tag", {"name": "cut", "delete": True})

    def levels():
        now = stats(witness)
        return {key: now[key] for key in ("connections", "requests_active", "leases", "trees", "tags", "constructions_active",
                                          "blobs", "nodes")}

    def n_fds():
        return len(os.listdir("/proc/%d/fd" % story.daemon.pid))

    def at_rest():
        now = levels()
        return now["connections"] == 1 and now["requests_active"] == 1 and now["leases"] == 0
    story.eventually(10, at_rest)
    before, fds_before = levels(), n_fds()
    for end in close, half_close, leave_unread:
        for i in range(n_bytes):
            hold_it(story, parts, i, end)
            if os.path.lexists(os.path.join(story.dir, "cut")):
                witness.call("remove", {"name": b"cut"}, [parts[4][1][0]])
    story.check("a conversation that ends at any of its %d bytes harms nobody" % n_bytes, witness.call("ping")["ready"])
    story.check("no connection, request or lease is left", story.eventually(20, at_rest), levels())
    now = levels()
    now["tags"] = before["tags"]  # the tag of a commit that came through stays
    story.check_is("and nothing else that was not there", now, before)
    story.check("no descriptor", story.eventually(20, lambda: n_fds() <= fds_before), "%d, %d" % (n_fds(), fds_before))
    story.check("and nothing half made", story.eventually(20, lambda: not story.litter(story.dir)), story.litter(story.dir))
    witness.close()


def main():
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if os.geteuid() == 0 and can_run_programs(ALICE):
            story.start_daemon(*OPTIONS)
            connections(story)
        else:
            story.start_daemon(*OPTIONS)
            story.skip("of others there are as many as may be in all", "only root has other users")
        out_of_descriptors(story)
        slow_writers(story)
        slow_readers(story)
        patience(story)
        story.check_is("the daemon stops cleanly", story.stop_daemon(), 0)
        idle(story)
        story.start_daemon()
        cut_everywhere(story)


main()
