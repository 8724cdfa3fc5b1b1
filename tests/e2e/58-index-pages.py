#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each page of the index is damaged in turn, as a whole and by a bit: the daemon sets it aside and makes it anew,
settles it against the files, or refuses to touch it, and says so. No blob, no tree and no tag is lost by it; a tag whose
name is another by a bit is told of.
INDEX_SEED: the numbers of a run, to have it once more; INDEX_ROUNDS: how many bits in each page."""

import hashlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
from rpc import RpcError, ready_client  # noqa: E402

N_TREES, N_FILES = 40, 10


class Tale:
    def __init__(self, story):
        self.story = story
        self.index = os.path.join(story.store, "index.sqlite")
        seed = os.environ.get("INDEX_SEED") or str(random.randrange(1 << 32))
        print("# INDEX_SEED=" + seed)
        self.draw = random.Random(seed)
        self.n_set_aside = self.n_refused = self.n_settled = self.n_unharmed = 0

    def must(self, *words):
        done = subprocess.run(["dircache", "--socket", self.story.socket, *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((words, done.stderr))
        return done.stdout.strip()

    def fill(self):
        """Trees that are tagged, on several pages of each table."""
        story = self.story
        story.start_daemon()
        source = os.path.join(story.dir, "source")
        for i in range(N_TREES):
            folder = os.path.join(source, str(i))
            os.makedirs(folder + "/below")
            for j in range(N_FILES):
                path = os.path.join(folder, "below" if j % 2 else ".", str(j))
                with open(path, "w") as file:
                    file.write("%d of %d" % (j, i))
                os.chmod(path, 0o755 if j % 3 == 0 else 0o644)
            self.must("put", "--tag", "a/tag/with/a/long/name/%03d" % i, folder)
        self.tags = self.must("tags")
        assert story.stop_daemon() == 0
        with open(self.index, "rb") as file:
            self.pristine = file.read()
        db = sqlite3.connect(self.index)
        self.page = db.execute("PRAGMA page_size").fetchone()[0]
        db.close()
        self.tags_file = open(os.path.join(story.store, "tags"), "rb").read()
        self.blobs = self.files()

    def files(self):
        """All blobs, by kind and name, with their bytes."""
        seen = {}
        for kind in "blobs", "exec":
            for folder, _, names in os.walk(os.path.join(self.story.store, kind)):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        seen[kind, name] = hashlib.sha256(file.read()).hexdigest()
        return seen

    def damage(self, data):
        """An index of these bytes, and nothing that a run before has left."""
        for name in os.listdir(self.story.store):
            if name.startswith("index.sqlite"):
                os.unlink(os.path.join(self.story.store, name))
        with open(self.index, "wb") as file:
            file.write(data)
        os.chmod(self.index, 0o600)
        with open(os.path.join(self.story.store, "tags"), "wb") as file:
            file.write(self.tags_file)
        with open(self.story.log, "wb"):
            pass

    def log(self):
        with open(self.story.log) as log:
            return log.read()

    def refused(self, data):
        """It did not start: not before it said why, and left the index as it was."""
        said = self.log()
        with open(self.index, "rb") as file:
            same = file.read() == data
        self.n_refused += 1
        return "" if same and re.search("newer|no index of dircache|another program", said) else "refused: " + said

    def wrong(self, data):
        """What is wrong after a start on this index, or nothing."""
        story = self.story
        self.damage(data)
        try:
            story.start_daemon()
        except RuntimeError:
            story.kill_daemon()
            return self.refused(data)
        with ready_client(story.socket) as client:
            set_aside = "set aside as 'index.sqlite.damaged-1'" in self.log()
            if set_aside and not ("damaged" in self.log() and "the store has no index" in self.log()):
                return "set aside without words: " + self.log()
            found = client.call("verify")
            mended = client.call("verify", {"repair": True})
            again = client.call("verify", {"repair": True})
            still = "set aside as 'index.sqlite.damaged-1'" in self.log()
            self.n_set_aside += still
            self.n_settled += not still and found["faults_total"] > 0
            self.n_unharmed += not still and not found["faults_total"]
            if set_aside and found["faults_total"]:
                return "faults after it was made anew: %r" % found["faults"][:3]
            if mended["repaired_total"] != mended["faults_total"] or again["faults_total"]:
                return "not repaired: %r; %r" % (mended["faults"][:3], again["faults"][:3])
        problem = self.lost()
        if problem:
            return "%s; found before: %r" % (problem, found["faults"][:3])
        if story.stop_daemon() != 0:
            return "no clean stop"
        # What it is now must do for a start, too.
        story.start_daemon()
        problem = self.lost()
        if story.stop_daemon() != 0:
            return "no second clean stop"
        return problem and "after another start: " + problem

    def lost(self):
        """What is not as it was of what the store is for."""
        try:
            with ready_client(self.story.socket) as client:
                if client.call("verify")["faults_total"]:
                    return "faults"
                for tag in client.call("tags")["tags"]:
                    client.call("ls", {"tag": tag["name"]})
        except RpcError as error:
            return str(error)
        tags = set(self.must("tags").splitlines()) ^ set(self.tags.splitlines())
        if tags:
            return "tags: %r" % tags
        if self.files() != self.blobs:
            return "blobs: %r" % (set(self.files().items()) ^ set(self.blobs.items()))
        target = os.path.join(self.story.dir, "target")
        number = self.draw.randrange(N_TREES)
        self.must("materialize", "a/tag/with/a/long/name/%03d" % number, target)
        same = subprocess.run(["diff", "-r", target, os.path.join(self.story.dir, "source", str(number))]).returncode == 0
        shutil.rmtree(target)
        return "" if same else "tree %d is another one" % number

    def check(self, claim, data):
        problem = self.wrong(data)
        self.story.kill_daemon()
        self.story.check(claim, not problem, problem)


def varint(data, at):
    """A number as SQLite's file format has it (section 1.6), and where it ends."""
    value = 0
    for i in range(9):
        byte = data[at + i]
        value = value << 7 | byte & 0x7f
        if byte < 0x80:
            break
    return value, at + i + 1


def numbers_of_rows(data, page_size, page):
    """Where the numbers of a table's rows lie, in their order: of its leaves (0x0d), below inner pages (0x05)."""
    begin = (page - 1) * page_size
    header = begin + (100 if page == 1 else 0)
    kind, n = data[header], int.from_bytes(data[header + 3:header + 5], "big")
    cells = header + (12 if kind == 5 else 8)
    for i in range(n):
        at = begin + int.from_bytes(data[cells + 2 * i:cells + 2 * i + 2], "big")
        if kind == 5:
            yield from numbers_of_rows(data, page_size, int.from_bytes(data[at:at + 4], "big"))
        else:
            yield varint(data, at)[1]
    if kind == 5:
        yield from numbers_of_rows(data, page_size, int.from_bytes(data[header + 8:header + 12], "big"))


def led_back(tale):
    """The rows of blobs in an order that leads back: who reads 128 on from the last one comes there again and again."""
    db = sqlite3.connect("file:%s?mode=ro&immutable=1" % tale.index, uri=True)
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'blobs'").fetchone()[0]
    db.close()
    data = bytearray(tale.pristine)
    places = list(numbers_of_rows(data, tale.page, root))
    first = varint(data, places[0])[0]
    for place in places[127:129]:
        assert varint(data, place)[1] == place + 2 and first < 128
        data[place:place + 2] = 0x80, first
    return bytes(data)


def main():
    with Story(1500) as story:
        tale = Tale(story)
        tale.fill()
        n_pages = len(tale.pristine) // tale.page
        story.check("the index has some pages", n_pages >= 10, n_pages)
        tale.check("the index as it was", tale.pristine)
        for page in range(n_pages):
            begin, end = page * tale.page, (page + 1) * tale.page
            garbage = tale.draw.randbytes(tale.page)
            tale.check("page %d is garbage" % page, tale.pristine[:begin] + garbage + tale.pristine[end:])
            for _ in range(int(os.environ.get("INDEX_ROUNDS", 1))):
                used = [at for at in range(begin, end) if tale.pristine[at]]
                at, bit = tale.draw.choice(used), 1 << tale.draw.randrange(8)
                flipped = bytearray(tale.pristine)
                flipped[at] ^= bit
                tale.check("page %d has another bit at %d" % (page, at - begin), bytes(flipped))
        tale.check("rows lead back", led_back(tale))
        tale.check("nothing is left of it", b"")
        tale.check("its first page is all", tale.pristine[:tale.page])
        print("# set aside %d, settled %d, refused %d, unharmed %d" % (
            tale.n_set_aside, tale.n_settled, tale.n_refused, tale.n_unharmed))
        story.check("all that can come of it came: set aside", tale.n_set_aside > 0)


main()
