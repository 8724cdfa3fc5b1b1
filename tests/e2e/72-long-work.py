#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Long work tells how far it is, and ends early when nobody wants it any more; a daemon whom nobody wants ends."""

import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from rpc import outcome, ready_client  # noqa: E402

N_DIRECTORIES = 1000
N_FILES = 100  # names of one blob in each
N_COMMITTED = 3000  # Directories of a put that is given up
N_BLOBS_MAX = 64000
TRIES = 40


class Tale:
    def __init__(self, story):
        self.story = story
        self.client = ready_client(story.socket)
        self.folder = os.open(story.dir, os.O_PATH | os.O_DIRECTORY)

    def put_blob(self, data):
        put = self.client.call("put", {"step": "begin"})["put"]
        fd = os.memfd_create("input")
        os.write(fd, data)
        entry = {"type": "file", "fd": 0, "executable": False}
        self.client.call("put", {"step": "entries", "put": put, "entries": [entry]}, [fd])
        os.close(fd)
        return self.client.call("put", {"step": "commit", "put": put})["digest"]

    def put_many(self, n):
        """So many blobs, below one directory."""
        source = os.path.join(self.story.dir, "source")
        os.mkdir(source)
        for i in range(n):
            with open("%s/%d" % (source, i), "w") as file:
                file.write("%d of %d" % (i, n))
        subprocess.run(["dircache", "--socket", self.story.socket, "put", source], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(source)

    def progress_of(self, id_, method):
        """What was told of a request until its end, and its result."""
        begin = len(self.client.notifications)
        result = self.client.wait(id_)
        told = [note[1] for note in self.client.notifications[begin:] if note[0] == "progress"]
        self.story.check("%s: progress is of the request that asked" % method, all(note["id"] == id_ for note in told), told)
        return told, result

    def cancelled(self, method, params, fds=()):
        """Cancel a request as soon as it is sent. What it said."""
        id_ = self.client.request(method, params, fds)
        self.client.call("cancel", {"id": id_})
        return outcome(self.client.wait, id_)


def materialize_tells(tale):
    blob = reapi.parse(tale.put_blob(b"contents"))
    leaf = reapi.parse(tale.put_blob(reapi.encode_directory([(b"%d" % i, blob, False) for i in range(N_FILES)], [], [])))
    names = sorted(b"%d" % i for i in range(N_DIRECTORIES))
    tree = tale.put_blob(reapi.encode_directory([], [(name, leaf) for name in names], []))
    for i in range(TRIES):  # a machine may be so fast, or a notification so late, that there is none
        told, result = tale.progress_of(tale.client.request(
            "materialize", {"digest": tree, "name": b"t%d" % i, "progress": True}, [tale.folder]), "materialize")
        if told:
            break
    n = N_DIRECTORIES * N_FILES
    tale.story.check("materialize: progress comes", told, result)
    tale.story.check("it goes on, to the whole and no further", all(
        first["files"] <= second["files"] <= n == second["files_total"] for first, second in zip(told, told[1:] or told)), told)
    tale.story.check_is("and is no less done for that", result["files_linked"], n)
    quiet = len(tale.client.notifications)
    tale.client.call("materialize", {"digest": tree, "name": b"quiet"}, [tale.folder])
    tale.story.check_is("who does not ask is told nothing", tale.client.notifications[quiet:], [])


def gc_tells_and_is_cancelled(tale):
    n = 4000
    while n <= N_BLOBS_MAX:
        tale.put_many(n)
        told, result = tale.progress_of(tale.client.request("gc", {"to": 0, "progress": True}), "gc")
        if told:
            break
        n *= 2
    tale.story.check("gc: progress comes", told, result)
    tale.story.check("and tells what is gone so far", all(
        0 <= note["files"] <= result["evicted_blobs"] and note["bytes"] <= result["evicted_bytes"] for note in told), told)
    said = set()
    for _ in range(TRIES):
        tale.put_many(4000)
        answer = tale.cancelled("gc", {"to": 0})
        said.add(answer if isinstance(answer, str) else "done")
        if "cancelled" in said:
            break
    tale.story.check_is("a gc that nobody wants any more ends before all is gone",
                        ("cancelled" in said, said <= {"cancelled", "done"}), (True, True))
    tale.story.check("and the next one takes the rest", outcome(tale.client.call, "gc", {"to": 0})["evicted_blobs"] > 0)


def commit_is_cancelled(tale):
    said = set()
    for i in range(TRIES):
        put = tale.client.call("put", {"step": "begin"})["put"]
        for first in range(0, N_COMMITTED, 500):
            entries = [{"type": "directory", "name": b"%d of put %d" % (j, i), "parent": 0} for j in range(first, first + 500)]
            tale.client.call("put", {"step": "entries", "put": put, "entries": entries})
        links = [{"type": "symlink", "name": b"%d" % j, "target": b"%d" % i, "parent": j + 1} for j in range(N_COMMITTED)]
        tale.client.call("put", {"step": "entries", "put": put, "entries": links})
        answer = tale.cancelled("put", {"step": "commit", "put": put, "tag": "given-up"})
        said.add(answer if isinstance(answer, str) else "done")
        if "cancelled" in said:
            break
        tale.client.call("tag", {"name": "given-up", "delete": True})
    tale.story.check_is("a put that nobody wants any more ends in its commit",
                        ("cancelled" in said, said <= {"cancelled", "done"}), (True, True))
    tale.story.check_is("and names nothing", tale.client.call("tags")["tags"], [])
    tale.story.check_is("it is over", outcome(tale.client.call, "put", {"step": "commit", "put": put}), "failed_precondition")


def nothing_is_wrong(tale):
    done = subprocess.run(["dircache", "--socket", tale.story.socket, "verify"], capture_output=True, text=True, check=False)
    tale.story.check("nothing is wrong after all that", done.returncode == 0, done.stdout)


def nobody_comes(story):
    """--idle-timeout: it ends when nobody was connected for so long; and not before."""
    story.start_daemon("--idle-timeout", "1")
    story.check("a daemon to whom nobody comes ends", story.eventually(30, lambda: story.daemon.poll() is not None))
    story.check_is("in order", story.daemon.returncode, 0)
    story.start_daemon("--idle-timeout", "1")
    client = ready_client(story.socket)
    time.sleep(2)  # twice its time
    story.check("while somebody is connected it stays", story.daemon.poll() is None)
    story.check_is("and serves", sorted(client.call("ping"))[:1], ["features"])
    client.close()
    story.check("when the last has gone it ends", story.eventually(30, lambda: story.daemon.poll() is not None))
    story.check_is("in order, too", story.daemon.returncode, 0)
    story.daemon = None


def main():
    with Story(400) as story:
        story.start_daemon()
        tale = Tale(story)
        materialize_tells(tale)
        gc_tells_and_is_cancelled(tale)
        commit_is_cancelled(tale)
        nothing_is_wrong(tale)
        tale.client.close()
        story.check_is("the daemon ends", story.stop_daemon(), 0)
        nobody_comes(story)


main()
