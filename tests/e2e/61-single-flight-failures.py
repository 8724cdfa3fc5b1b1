#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who shares a piece of work shares its end and nothing else: not another's cancel, not another's death; and when
nothing runs, nothing is left of it."""

import collections
import hashlib
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from rpc import Client, RpcError  # noqa: E402

N = 16
N_FOLDERS = 100


class Tale:
    def __init__(self, story):
        self.story = story
        self.control = Client(story.socket)
        self.n = 0
        self.noted = {}
        while not self.control.call("ping")["ready"]:
            pass

    def fresh(self):
        self.n += 1
        return "%s/%d" % (self.story.dir, self.n)

    def put(self, *contents):
        """Blobs, and no tree: their digests."""
        digests = []
        entry = {"type": "file", "fd": 0, "executable": False}
        for data in contents:
            put = self.control.call("put", {"step": "begin"})["put"]
            fd = os.memfd_create("input")
            os.write(fd, data)
            self.control.call("put", {"step": "entries", "put": put, "entries": [entry]}, [fd])
            os.close(fd)
            digests.append(self.control.call("put", {"step": "commit", "put": put})["digest"])
        return digests

    def put_many(self, contents):
        """The same for many, as files of a tree that is not looked at: they are blobs like any others."""
        for at in range(0, len(contents), 200):
            put = self.control.call("put", {"step": "begin"})["put"]
            fds = []
            for data in contents[at:at + 200]:
                fds.append(os.memfd_create("input"))
                os.write(fds[-1], data)
            entries = [{"type": "file", "name": b"%d" % i, "fd": i, "executable": False} for i in range(len(fds))]
            self.control.call("put", {"step": "entries", "put": put, "entries": entries}, fds)
            for fd in fds:
                os.close(fd)
            self.control.call("put", {"step": "commit", "put": put})

    def large_tree(self, word, missing=()):
        """Many Directories that nobody has read, all stored as blobs; but for missing ones."""
        leaves = [b"%s %d" % (word, i) for i in range(N_FOLDERS)]
        messages = [reapi.encode_directory([(b"f", reapi.digest_of(leaf), False)], [], []) for leaf in leaves]
        root = reapi.encode_directory([], [(b"%05d" % i, reapi.digest_of(message))
                                           for i, message in enumerate(messages)], [])
        stored = [leaf for i, leaf in enumerate(leaves) if i not in missing]
        self.put_many(stored + messages)
        return self.put(root)[0]

    def note(self):
        self.noted = self.control.call("stats")

    def added(self, *names):
        now = self.control.call("stats")
        return tuple(now[name] - self.noted[name] for name in names)

    def at_once(self, clients, params, then=lambda ids: None):
        """A request from each, and what follows, before the daemon sees one."""
        os.kill(self.story.daemon.pid, signal.SIGSTOP)
        try:
            ids = [client.request("materialize", {"path": os.fsencode(self.fresh()), **params}) for client in clients]
            then(ids)
            return ids
        finally:
            os.kill(self.story.daemon.pid, signal.SIGCONT)

    def is_quiet(self):
        stats = self.control.call("stats")
        return stats["constructions_active"] == stats["fetches_active"] == 0 and stats["requests_active"] == 1

    def check_quiet(self):
        self.story.check("when all is over no table has anything of it", self.story.eventually(60, self.is_quiet),
                         self.control.call("stats"))
        left = [name for name in os.listdir(self.story.dir) if name.startswith(".dircache-")]
        self.story.check_is("and no target is half made", left, [])


def outcome(client, id_):
    try:
        return client.wait(id_).get("cache", "file")
    except RpcError as error:
        return error.code, tuple(error.missing)


def clients_of(story, n=N):
    return [Client(story.socket) for _ in range(n)]


def failure_is_shared(tale):
    story = tale.story
    tree = tale.large_tree(b"failing", missing=[N_FOLDERS - 1])
    missing = reapi.text(reapi.digest_of(b"failing %d" % (N_FOLDERS - 1)))
    clients = clients_of(story)
    tale.note()
    ids = tale.at_once(clients, {"digest": tree})
    said = {outcome(client, id_) for client, id_ in zip(clients, ids)}
    story.check_is("a blob is missing: all sixteen hear which", said, {("not_found", (missing,))})
    story.check_is("of one construction, which fifteen joined",
                   tale.added("tree_misses", "tree_constructions", "tree_joins", "tree_hits"), (1, 1, N - 1, 0))
    tale.check_quiet()
    tale.put(b"failing %d" % (N_FOLDERS - 1))
    tale.note()
    ids = tale.at_once(clients, {"digest": tree})
    said = collections.Counter(outcome(client, id_) for client, id_ in zip(clients, ids))
    story.check_is("once it is there, the next begin anew, together", dict(said), {"miss": 1, "join": N - 1})
    story.check_is("by one construction", tale.added("tree_constructions"), (1,))
    for client in clients:
        client.close()
    tale.check_quiet()


def first_goes(tale, how, go):
    """The caller whose request began the construction goes away; so does one that joined."""
    story = tale.story
    tree = tale.large_tree(b"first " + how.encode())
    clients = clients_of(story)
    gone = clients[0], clients[5]
    tale.note()
    ids = tale.at_once(clients, {"digest": tree}, lambda ids: [go(clients[i], ids[i]) for i in (0, 5)])
    said = collections.Counter(outcome(client, id_) for client, id_ in zip(clients, ids) if client not in gone)
    story.check_is("the first of sixteen %s, and a second: all others have their tree" % how,
                   (said["miss"] <= 1, said["miss"] + said["join"] + said["hit"]), (True, N - 2))
    story.check_is("by one construction", tale.added("tree_misses", "tree_constructions"), (1, 1))
    for client in clients:
        client.close()
    tale.check_quiet()


def cancel(client, id_):
    client.request("cancel", {"id": id_})


def die(client, _):
    client.socket.close()


def all_go(tale):
    story = tale.story
    tree = tale.large_tree(b"all go")
    clients = clients_of(story)
    tale.at_once(clients, {"digest": tree})
    for client in clients:
        client.close()
    tale.check_quiet()
    client = Client(story.socket)
    id_ = client.request("materialize", {"digest": tree, "path": os.fsencode(tale.fresh())})
    said = outcome(client, id_)
    story.check("when all sixteen are gone the tree can be had all the same", said in ("miss", "hit"), said)
    client.close()


def newcomers(tale):
    """Failures, and newcomers at any moment between them, until somebody puts what is missing."""
    story = tale.story
    leaf = b"comes in the end"
    message = reapi.encode_directory([(b"f", reapi.digest_of(leaf), False)], [], [])
    tree = tale.put(reapi.encode_directory([], [(b"d", reapi.digest_of(message))], []), message)[0]
    missing = ("not_found", (reapi.text(reapi.digest_of(leaf)),))
    said = collections.Counter()
    wrong = []
    is_stored = threading.Event()
    lock = threading.Lock()

    def ask(number):
        with Client(story.socket) as client:
            turn = 0
            while True:
                must_be_there = is_stored.is_set()
                turn += 1
                path = "%s/newcomer-%d-%d" % (story.dir, number, turn)
                ids = [client.request("materialize", {"digest": tree, "path": os.fsencode("%s-%d" % (path, i))})
                       for i in range(4)]
                got = [outcome(client, id_) for id_ in ids]
                with lock:
                    said.update(got)
                    wrong.extend(word for word in got if must_be_there and word == missing)
                if must_be_there:
                    return

    tale.note()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    story.eventually(60, lambda: tale.added("errors")[0] > 200)
    tale.put(leaf)
    is_stored.set()
    for thread in threads:
        thread.join()
    story.check("of newcomers while others fail each hears of the missing blob, or has the tree",
                set(said) <= {missing, "hit", "miss", "join"}, said)
    story.check_is("and none hears so once it was put", wrong, [])
    counts = tale.added("tree_misses", "tree_joins", "tree_hits")
    story.check_is("every request was one hit, miss or join", sum(counts), sum(said.values()))
    story.check_is("and every miss one construction", tale.added("tree_constructions")[0], counts[0])
    tale.check_quiet()


def one_blob(tale):
    """The executable inode of a large blob, asked for by all at once."""
    story = tale.story
    data = os.urandom(1 << 20) * 48
    params = {"digest": tale.put(data)[0], "file": True, "executable": True}
    hash_ = hashlib.sha256(data).hexdigest()
    paths = {kind: os.path.join(story.store, kind, hash_[:2], hash_) for kind in ("blobs", "exec")}
    clients = clients_of(story)

    tale.note()
    ids = tale.at_once(clients, params)
    said = {outcome(client, id_) for client, id_ in zip(clients, ids)}
    story.check_is("sixteen want another kind of a blob: all have it", said, {"file"})
    story.check_is("it was made once", tale.added("blob_fetches"), (1,))
    tale.check_quiet()

    os.unlink(paths["exec"])
    tale.note()
    ids = tale.at_once(clients, params, lambda ids: [cancel(clients[0], ids[0]), die(clients[1], ids[1])])
    said = {outcome(client, id_) for client, id_ in zip(clients[2:], ids[2:])}
    story.check_is("lost, and one cancels and one dies: all others have it", said, {"file"})
    story.check_is("made once again, and healed", tale.added("blob_fetches", "healed_blobs"), (1, 1))
    tale.check_quiet()

    clients[1] = Client(story.socket)
    for path in paths.values():
        os.unlink(path)
    tale.note()
    ids = tale.at_once(clients, params)
    said = {outcome(client, id_) for client, id_ in zip(clients, ids)}
    story.check_is("lost in both kinds, all sixteen hear so", said, {("not_found", (params["digest"],))})
    tale.check_quiet()
    tale.put(data)
    ids = tale.at_once(clients, params)
    said = {outcome(client, id_) for client, id_ in zip(clients, ids)}
    story.check_is("put again, all have it", said, {"file"})
    for client in clients:
        client.close()
    tale.check_quiet()


def main():
    with Story(300) as story:
        story.start_daemon()
        tale = Tale(story)
        failure_is_shared(tale)
        first_goes(tale, "cancels", cancel)
        first_goes(tale, "dies", die)
        all_go(tale)
        newcomers(tale)
        one_blob(tale)
        tale.control.close()


main()
