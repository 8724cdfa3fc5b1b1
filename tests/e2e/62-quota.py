#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What does not fit is refused, and harms nothing that is there; what goes takes nothing with it that
another tree needs."""

import os
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import forest as forests  # noqa: E402
import image  # noqa: E402
import reapi  # noqa: E402
from rpc import outcome, ready_client  # noqa: E402

CAP = 24 << 20
MIB = 1 << 20


def digest(tree):
    return reapi.text(tree.digest)


def materialize(story, client, tree):
    """How it is asked for and given: `hit`, `miss`, what is wrong with it, or the code of an error."""
    target = os.path.join(os.path.dirname(story.store), "target")
    answer = outcome(client.call, "materialize", {"digest": digest(tree), "path": target.encode()})
    if isinstance(answer, str):
        return answer
    wrong = forests.difference(target, tree)
    shutil.rmtree(target)
    return wrong or answer["cache"]


def put_in_steps(client, tree, **begin):
    """A put whose files are sent one by one: the digest, or the code of the first error."""
    put = outcome(client.call, "put", {"step": "begin", **begin})
    if isinstance(put, str):
        return put
    for entry, content in forests.entries_of(tree):
        if content:
            entry["fd"] = 0
        id_ = forests.send_batch(client, put["put"], [entry], [content] if content else [])
        answer = outcome(client.wait, id_)
        if isinstance(answer, str):
            return answer
    answer = outcome(client.call, "put", {"step": "commit", "put": put["put"]})
    return answer if isinstance(answer, str) else answer["digest"]


def is_here(story, content, kind="blobs"):
    hash_ = content.digest[0]
    return os.path.exists(os.path.join(story.store, kind, hash_[:2], hash_))


def check_hits(story, client, claim, trees):
    story.check_is(claim, {materialize(story, client, tree) for tree in trees}, {"hit"})


# ---- what cannot fit ----


def write_folder(path, tree):
    os.mkdir(path)
    for name, (content, _) in tree.files.items():
        with open(os.path.join(os.fsencode(path), name), "wb") as file:
            file.write(content.data())


def cannot_fit(story, client):
    kept = [forests.simple_tree("kept %d" % i, 8, 128 << 10) for i in range(8)]
    for tree in kept:
        forests.put_tree(client, tree)
    large = forests.simple_tree("large", 30, MIB)
    story.check_is("a put that announces more than the cap is no_space",
                   put_in_steps(client, large, bytes=large.bytes()), "no_space")
    check_hits(story, client, "and everything that was there hits", kept)
    before = client.call("stats")
    blob = forests.grove(forests.Content("one large file", CAP + 1))
    story.check_is("so is a file as large as the cap, though nobody announced it", put_in_steps(client, blob),
                   "no_space")
    check_hits(story, client, "and everything that was there hits", kept)
    after = client.call("stats")
    names = "evicted_trees", "evicted_blobs", "blobs", "trees"
    story.check_is("nothing was evicted for them", [after[name] for name in names], [before[name] for name in names])

    write_folder(story.dir + "/large", large)
    command = subprocess.run(["dircache", "--socket", story.socket, "put", story.dir + "/large"],
                             capture_output=True, text=True)
    story.check_is("so says the command", (command.returncode, command.stdout), (1, ""))
    story.check("in words", "space" in command.stderr or "fit" in command.stderr, command.stderr)
    check_hits(story, client, "and everything that was there hits", kept)
    shutil.rmtree(story.dir + "/large")

    story.check_is("a tree beyond the cap that nobody announced is refused before it is called stored",
                   put_in_steps(client, large), "no_space")
    story.check_is("and is not cached", materialize(story, client, large), "not_found")
    small = forests.simple_tree("small", 8, 64 << 10)
    put_in_steps(client, small)
    story.check_is("what fits is stored again", materialize(story, client, small), "hit")


def same_bytes_often(story, client):
    """What a tree takes is each of its contents once."""
    client.call("gc", {"to": 0})
    one = forests.Content("one", MIB)
    tree = forests.grove(*[one] * 100)
    story.check_is("a tree of 100 times the same fits", put_in_steps(client, tree, bytes=tree.bytes()),
                   digest(tree))
    story.check_is("and is there", materialize(story, client, tree), "hit")


def tagged_stay(story, client):
    client.call("gc", {"to": 0})
    pinned = [forests.simple_tree("pinned %d" % i, 4, MIB) for i in range(4)]
    for i, tree in enumerate(pinned):
        forests.put_tree(client, tree, tag="pinned-%d" % i)
    refused = forests.simple_tree("refused", 12, MIB)
    story.check_is("where tags hold the room a put is no_space", put_in_steps(client, refused), "no_space")
    check_hits(story, client, "and what they name hits", pinned)
    client.call("gc", {"to": 0})
    check_hits(story, client, "after a collection of all there is, too", pinned)
    for i in range(len(pinned)):
        client.call("tag", {"name": "pinned-%d" % i, "delete": True})
    story.check_is("without the tags it fits", put_in_steps(client, refused), digest(refused))
    story.check_is("and is there", materialize(story, client, refused), "hit")
    story.check("those went for it", "not_found" in [materialize(story, client, tree) for tree in pinned])


# ---- what is shared ----


def shared_stays(story, client):
    """The older of two trees goes; what the newer has of it stays."""
    client.call("gc", {"to": 0})
    shared = [forests.Content("shared %d" % i, 50000) for i in range(5)]
    own = [forests.Content("own %d" % i, 50000) for i in range(5)]
    folder = forests.grove(*shared[:2])
    old = forests.grove(*shared[2:], *own, folder=folder, same=folder)
    new = forests.grove(*shared, deep=forests.grove(elsewhere=folder))
    forests.put_tree(client, old)
    forests.put_tree(client, new)
    check_hits(story, client, "both hit", [old, new])
    pinned = forests.grove(own[0], executable=True)
    forests.put_tree(client, pinned, tag="pinned")
    story.check_is("the newer is used last", materialize(story, client, new), "hit")
    before = client.call("stats")
    to = before["allocated_bytes"] - 4 * 53248  # four files of its own
    client.call("gc", {"to": to})
    after = client.call("stats")
    story.check_is("a collection takes the older", after["evicted_trees"] - before["evicted_trees"], 1)
    story.check("and what only it had", not any(is_here(story, content) for content in own[1:]))
    story.check("not the file that another has as an executable", is_here(story, own[0], "exec"))
    story.check("nor what the newer shares with it", all(is_here(story, content) for content in shared))
    check_hits(story, client, "which hits", [new, pinned, folder])
    story.check_is("the older is not_found, its Directory being gone", materialize(story, client, old), "not_found")
    story.check_is("until it is put again", put_in_steps(client, old), digest(old))
    check_hits(story, client, "and both hit", [old, new])


def parts_are_pinned(story, client):
    """A tag of what is below a tree keeps all below that."""
    client.call("gc", {"to": 0})
    below = forests.simple_tree("below", 5, 10000, deeper=forests.simple_tree("deeper", 5, 10000))
    whole = forests.simple_tree("whole", 5, 10000, below=below)
    forests.put_tree(client, whole)
    client.call("tag", {"name": "part", "digest": digest(below)})
    client.call("gc", {"to": 0})
    story.check_is("a tagged part of a tree stays", materialize(story, client, below), "hit")
    story.check_is("though the tree is gone", materialize(story, client, whole), "not_found")


def named_is_there(story, client):
    """A put with a tag, while somebody else collects all that can be collected, again and again."""
    is_over = threading.Event()

    def collect():
        with ready_client(story.socket) as other:
            while not is_over.is_set():
                other.call("gc", {"to": 0})

    thread = threading.Thread(target=collect)
    thread.start()
    lost = []
    for i in range(40):
        tree = forests.simple_tree("named %d" % i, 3, 1000, sub=forests.simple_tree("sub %d" % i, 2, 1000))
        forests.put_tree(client, tree, tag="named")
        if materialize(story, client, tree) != "hit":
            lost.append(i)
    is_over.set()
    thread.join()
    story.check_is("what was stored with a tag is there when that is answered, whatever is collected meanwhile", lost, [])


def main():
    image.own_mounts()
    with Story() as story:
        room = image.mount_ext4(story, "room", 512 << 20)
        story.store = os.path.join(room or story.dir, "store")
        story.start_daemon("--max-size", "%d" % CAP)
        with ready_client(story.socket) as client:
            cannot_fit(story, client)
            same_bytes_often(story, client)
            tagged_stay(story, client)
            shared_stays(story, client)
            parts_are_pinned(story, client)
            named_is_there(story, client)


main()
