#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What one user may have of connections, requests, descriptors, tags and leases; at the end of it others have theirs."""

import os
import socket
import threading

import msgpack

from rpc import Client, RpcError, ready_client
from story import Story, skip_story
from users import User, can_run_programs

ALICE = User("alice", 12001)
BOB = User("bob", 12002)
MOST_FILES = 100


def refusal(client, method, params=None, fds=()):
    """The code and words of an error."""
    try:
        return "answered", repr(client.call(method, params, fds))
    except RpcError as error:
        return error.code, error.message


def is_limit(refused, option):
    return refused[0] == "resource_exhausted" and option in refused[1]


def store(client, data, tag=None):
    fd = os.memfd_create("file")
    os.write(fd, data)
    number = client.call("put", {"step": "begin"})["put"]
    client.call("put", {"step": "entries", "put": number, "entries": [{"type": "file", "name": b"f", "fd": 0}]}, [fd])
    os.close(fd)
    params = {"step": "commit", "put": number}
    if tag:
        params["tag"] = tag
    return client.call("put", params)["digest"]


def connections(story):
    """Alice's, as seen by her."""
    clients = [Client(story.socket) for _ in range(5)]
    for client in clients:
        client.call("ping")
    one_more = Client(story.socket).until_closed()
    clients.pop().close()
    end = []
    while not end or (end[-1] and len(end) < 1000):  # the daemon hears of it soon
        client = Client(story.socket)
        try:
            client.call("ping")
            end.append(None)
        except Exception:
            end.append("refused")
    return one_more, end[-1]


def tags(story):
    with Client(story.socket) as client:
        digests = [store(client, b"tag %d" % i, "alice%d" % i) for i in range(3)]
        return (refusal(client, "tag", {"name": "alice3", "digest": digests[0]}),
                refusal(client, "tag", {"name": "alice0", "digest": digests[1]}))


def leases(story):
    with Client(story.socket) as client:
        folder = os.open(os.path.join(story.dir, "alice"), os.O_PATH)
        seen = []
        for i in range(3):
            digest = store(client, b"lease %d" % i)
            seen.append(refusal(client, "materialize", {"digest": digest, "name": b"%d" % i, "lease": 3600}, [folder]))
        return seen


def puts(story):
    """One more than may have begun, and entries in all of them."""
    with Client(story.socket) as client:
        for _ in range(1000):
            client.call("put", {"step": "begin"})
        one_more = refusal(client, "put", {"step": "begin"})
        client.call("put", {"step": "abort", "put": 999})
        again = story.eventually(10, lambda: refusal(client, "put", {"step": "begin"})[0] == "answered")
        entries = [{"type": "symlink", "name": b"%d" % i, "target": b"t"} for i in range(MOST_FILES)]
        filled = [refusal(client, "put", {"step": "entries", "put": i, "entries": entries}) for i in range(3)]
        return one_more, again, filled


def requests(story):
    """More open ones than may be; answers are taken while others are sent."""
    clients = [Client(story.socket) for _ in range(2)]
    digests = ["%064x/1" % i for i in range(800)]

    def send(client):
        for _ in range(60):
            client.request("has", {"digests": digests, "tree": True})
    senders = [threading.Thread(target=send, args=(client,)) for client in clients]
    for sender in senders:
        sender.start()
    codes = set()
    for client in clients:
        for id_ in range(1, 61):
            try:
                client.wait(id_)
                codes.add("answered")
            except RpcError as error:
                codes.add((error.code, "max-user-requests" in error.message))
    for sender in senders:
        sender.join()
    return codes


def hoard(story):
    """Descriptors with messages that never become whole. The connections, and what one more request meets."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    half = msgpack.packb([0, 1, "put", [{"fds": 200, "step": "entries"}]])[:-5]
    clients = [Client(story.socket) for _ in range(4)]
    for client in clients:
        socket.send_fds(client.socket, [half], fds)
    last = Client(story.socket)
    last.socket.settimeout(1)
    try:
        last.call("ping")
        return clients, last, "answered"
    except TimeoutError:
        return clients, last, "kept waiting"


def descriptors(story):
    """While alice hoards, what bob meets; and whether alice is served again when she lets go."""
    asking, go = os.pipe()
    told, tell = os.pipe()

    def alice():
        clients, last, seen = hoard(story)
        os.write(tell, seen.encode())
        os.read(asking, 1)
        for client in clients:
            client.close()
        last.socket.settimeout(60)
        last.receive()
        return bool(last.answers)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ALICE.does(alice) else 1)
    seen = os.read(told, 100).decode()

    def bob():
        with Client(story.socket) as client:
            return [store(client, b"bob %d" % i) for i in range(20)]
    n_stored = len(BOB.does(bob))
    os.write(go, b"x")
    return seen, n_stored, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def tell(story):
    seen, again = ALICE.does(connections, story)
    story.check("a connection too many is turned away, by a word that names the limit",
                seen and seen[0][1]["code"] == "resource_exhausted" and "max-user-connections" in seen[0][1]["message"], seen)
    story.check_is("when one is closed there is room for another", again, None)
    new, old = ALICE.does(tags, story)
    story.check("a tag too many is refused", is_limit(new, "max-user-tags"), new)
    story.check_is("but those that are there move", old[0], "answered")
    seen = ALICE.does(leases, story)
    story.check_is("as many leases as may be are given", [word for word, _ in seen[:2]], ["answered"] * 2)
    story.check("and one more is refused", is_limit(seen[2], "max-user-leases"), seen)
    story.check("before anything is made", not os.path.exists(os.path.join(story.dir, "alice", "2")))

    def bob():
        with Client(story.socket) as client:
            return refusal(client, "tag", {"name": "bob", "digest": store(client, b"bob's", "bob0")})[0]
    story.check_is("another user has tags of his own", BOB.does(bob), "answered")
    one_more, again, filled = ALICE.does(puts, story)
    story.check("a put too many does not begin", one_more[0] == "resource_exhausted" and "1000" in one_more[1], one_more)
    story.check("but when another has ended", again)
    story.check_is("two puts may be as large as a put may be", [word for word, _ in filled[:2]], ["answered"] * 2)
    story.check("and then there are entries enough", filled[2][0] == "resource_exhausted" and "puts that have begun" in filled[2][1],
                filled[2])
    story.check_is("which bounds nobody else", BOB.does(bob), "answered")
    codes = ALICE.does(requests, story)
    story.check("requests beyond the limit are refused, by its name", ("resource_exhausted", True) in codes, codes)
    story.check("and the others answered", "answered" in codes, codes)

    seen, n_stored, status = descriptors(story)
    story.check_is("who hoards descriptors is read no more", seen, "kept waiting")
    story.check_is("while another stores as ever", n_stored, 20)
    story.check_is("and is read again when they are closed", status, 0)


def main():
    if os.geteuid() != 0:
        skip_story("only root has other users")
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if not can_run_programs(ALICE):
            skip_story("other users cannot run the programs")
        ALICE.folder(story.dir, "alice")
        story.start_daemon("--socket-mode", "0666", "--max-user-connections", "5", "--max-user-requests", "40",
                           "--max-user-descriptors", "500", "--max-user-tags", "3", "--max-user-leases", "2", "--max-tree-files", str(MOST_FILES))
        ready_client(story.socket).close()
        tell(story)


main()
