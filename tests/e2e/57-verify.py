#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`verify` names each thing that is wrong in a store, and nothing else; `verify --repair` puts it right, whatever is
done meanwhile to the store, to the client or to the daemon."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import forest as forests  # noqa: E402
from rpc import Client, outcome  # noqa: E402

CLEAN, WRONG, NO_DAEMON = 0, 1, 4  # exit statuses


def hash_of(data):
    return hashlib.sha256(data).hexdigest()


class Tale:
    def __init__(self, story):
        self.story = story
        self.n = 0

    # ---- commands ----

    def run(self, *words, status=0):
        done = subprocess.run(["dircache", "--socket", self.story.socket, *words], capture_output=True, text=True)
        self.said, self.status = done.stdout + done.stderr, done.returncode
        return done.returncode == status

    def must(self, *words):
        if not self.run(*words):
            raise RuntimeError(self.said)
        return self.said.strip()

    def verify(self, *words):
        """The answer; self.status is the exit status."""
        self.run("--json", "verify", *words)
        return json.loads(self.said) if self.said.startswith("{") else {}

    def counters(self):
        return json.loads(self.must("--json", "stats"))

    def start(self, *options):
        self.story.start_daemon(*options)
        self.must("ping", "--wait", "20")

    # ---- what is stored ----

    def fresh(self):
        self.n += 1
        return "%s/%d" % (self.story.dir, self.n)

    def put_tree(self, files, *words):
        """A tree of these files; those whose names end in `*` are executable."""
        folder = self.fresh()
        for name, data in files.items():
            path = os.path.join(folder, name.rstrip("*"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, 0o755 if name.endswith("*") else 0o644)
        return self.must("put", *words, folder)

    def put_file(self, data):
        path = self.fresh()
        with open(path, "wb") as file:
            file.write(data)
        return self.must("put", path)

    def path(self, data, kind="blobs"):
        return os.path.join(self.story.store, self.name(data, kind))

    def name(self, data, kind="blobs"):
        digest = hash_of(data)
        return "%s/%s/%s" % (kind, digest[:2], digest)

    def sql(self, *statement):
        with contextlib.closing(sqlite3.connect(os.path.join(self.story.store, "index.sqlite"))) as db, db:
            return db.execute(*statement).fetchall()

    # ---- claims ----

    def is_clean(self, claim):
        answer = self.verify()
        is_clean = self.status == CLEAN and answer["faults_total"] == 0
        self.story.check(claim, is_clean, self.said)

    def finds(self, claim, expected, also=()):
        """It finds these faults, as (kind, name or digest), and no others but perhaps `also`."""
        answer = self.verify()
        found = {(fault["kind"], fault.get("name") or fault.get("digest")) for fault in answer["faults"]}
        self.story.check(claim, set(expected) <= found <= set(expected) | set(also) and self.status == WRONG and
                         answer["faults_total"] == len(answer["faults"]) and answer["repaired_total"] == 0,
                         (found, expected))
        return answer

    def repairs(self, claim, n=None):
        answer = self.verify("--repair")
        faults = answer["faults"]
        is_done = (self.status == CLEAN and faults and answer["repaired_total"] == answer["faults_total"] and
                   all(fault["repaired"] and fault["repair"] for fault in faults))
        self.story.check(claim, is_done and (n is None or len(faults) == n), self.said)
        self.is_clean("and then nothing is wrong")
        return answer


# ---- what is done to files while the daemon runs ----


def write_at(path, offset, data):
    mode = os.stat(path).st_mode & 0o7777
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
    os.chmod(path, mode)


def flip(path):
    """Another byte, and all that stat(1) tells is as it was."""
    st = os.stat(path)
    write_at(path, 3, b"\0")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def replace_by_symlink(path):
    os.rename(path, path + ".away")
    os.symlink("/etc/passwd", path)
    os.unlink(path + ".away")


def replace_by_folder(path):
    os.unlink(path)
    os.makedirs(path + "/with/something")
    with open(path + "/with/it", "w") as file:
        file.write("in it")


CHANGES = [
    ("a byte flipped", flip, "bytes"),
    ("its end cut off", lambda path: os.truncate(path, 5), "bytes"),
    ("another mode", lambda path: os.chmod(path, 0o644), "mode"),
    ("the set-user-id bit", lambda path: os.chmod(path, 0o4555), "mode"),
    ("another time", os.utime, "time"),
    ("no file", os.unlink, "no_file"),
    ("a symlink for it", replace_by_symlink, "type"),
    ("a folder for it", replace_by_folder, "type"),
    ("a pipe for it", lambda path: (os.unlink(path), os.mkfifo(path)), "type"),
]
if os.getuid() == 0:
    CHANGES.append(("another owner", lambda path: os.chown(path, 65534, 65534), "owner"))


def links_are_counted(tale):
    """Links that were handed out are told; names in the store are none of them, nor are copies."""
    story = tale.story
    tree = tale.put_tree({"one": b"counted", "two": b"counted", "run*": b"counted"})
    targets = [tale.fresh() for _ in range(2)]
    for target in targets:
        tale.must("materialize", tree, target)
    tale.must("materialize", "--mode", "copy", tree, tale.fresh())
    story.check_is("links that lead to files of the store are counted", tale.verify()["links"], 6)
    shutil.rmtree(targets[0])
    os.unlink(targets[1] + "/run")
    story.check_is("those that are there still", tale.verify()["links"], 2)
    shutil.rmtree(targets[1])
    story.check_is("and none is left when the trees are gone", tale.verify()["links"], 0)


def put_that_was_given_up(tale):
    """What a put brought in that came to nothing is of no use to anybody, and no fault."""
    (entry, content), = forests.entries_of(forests.grove(forests.Content("given up", 5000)))
    with Client(tale.story.socket) as client:
        put = client.call("put", {"step": "begin"})["put"]
        client.wait(forests.send_batch(client, put, [{**entry, "fd": 0}], [content]))
        client.call("put", {"step": "abort", "put": put})
        tale.story.eventually(20, lambda: client.call("stats")["requests_active"] == 1)
    tale.is_clean("what a put brought that was given up is no fault")


def one_kind_is_wrong(tale):
    """The bytes are there in both kinds: one heals the other."""
    story = tale.story
    for what, change, kind_of_fault in CHANGES:
        for kind in "blobs", "exec":
            data = b"of both kinds, %d" % tale.n
            tree = tale.put_tree({"plain": data, "run*": data})
            os_path = tale.path(data, kind)
            change(os_path)
            answer = tale.finds("of %s, %s is found" % (kind, what), [(kind_of_fault, tale.name(data, kind))])
            before = tale.counters()
            answer = tale.repairs("and made anew", 1)
            after = tale.counters()
            n = after["tampered_blobs"] - before["tampered_blobs"], after["healed_blobs"] - before["healed_blobs"]
            story.check_is("which is counted", n, (kind_of_fault != "no_file", 1))
            story.check_is("the right bytes are there again", open(os_path, "rb").read(), data)
            story.check_is("the blob is named by its digest", answer["faults"][0]["digest"],
                           "%s/%d" % (hash_of(data), len(data)))
            target = tale.fresh()
            tale.must("materialize", tree, target)
            story.check_is("and are what a tree gets", open(target + "/run", "rb").read(), data)


def all_is_wrong(tale):
    """Nothing else has the bytes: they go, and so does the tree."""
    story = tale.story
    for what, change, kind_of_fault in CHANGES:
        data = b"of one kind, %d" % tale.n
        tree = tale.put_tree({"below/plain": data, "other": b"other %d" % tale.n}, "--tag", "kept")
        change(tale.path(data))
        is_lost = kind_of_fault in ("bytes", "type", "no_file")
        expected = [(kind_of_fault, tale.name(data))]
        tale.finds("of a file by itself, %s is found" % what, expected)
        answer = tale.repairs("and dealt with", 2 if is_lost else 1)
        kinds = [fault["kind"] for fault in answer["faults"]]
        story.check_is("as is the tree that lacks it now", kinds, [kind_of_fault] + ["tree"] * is_lost)
        if not is_lost:
            continue
        story.check("the store has it no more", not os.path.lexists(tale.path(data)))
        cached = [item["digest"] for item in json.loads(tale.must("--json", "trees"))["trees"]]
        story.check("the tree is not cached", tree not in cached, cached)
        target = tale.fresh()
        story.check("a request for it fails, by the name of what is absent",
                    tale.run("materialize", tree, target, status=3) and hash_of(data) in tale.said, tale.said)
        story.check("nothing appears", not os.path.lexists(target))


def a_directory_is_wrong(tale):
    story = tale.story
    tree = tale.put_tree({"below/a": b"in a directory %d" % tale.n})
    path = os.path.join(story.store, "blobs", tree[:2], tree.split("/")[0])
    flip(path)
    tale.finds("a Directory that was changed is found, and the tree with it",
               [("bytes", os.path.relpath(path, story.store)), ("tree", tree)])
    tale.repairs("both are put right", 2)
    story.check("the tree is a miss that names it",
                tale.run("materialize", tree, tale.fresh(), status=3) and tree in tale.said, tale.said)


def names_and_folders(tale):
    story = tale.story
    data = b"in a folder %d" % tale.n
    tale.put_file(data)
    fanout = hash_of(data)[:2]
    stray = b"nobody stored this %d" % tale.n

    def make(name, text=b"", mode=0o644):
        path = os.path.join(story.store, name)
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        with open(path, "wb") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    names = ["blobs/README", "blobs/%s/core" % fanout, "exec/zz", "blobs/%s/%s" % (fanout, "0" * 64), "tmp/x.y",
             "tmp/%016x.1" % 7, "staging/note", "staging/01234567"]
    if fanout == "00":
        names.pop(3)
    for name in names:
        make(name)
    wrong = "0" * 63 + "1"
    os.makedirs(os.path.join(story.store, "blobs/00"), mode=0o711, exist_ok=True)
    make("blobs/00/" + wrong, b"not these bytes", 0o444)
    make(tale.name(stray), stray, 0o444)
    os.utime(tale.path(stray), ns=(0, os.stat(tale.path(data)).st_mtime_ns))
    os.makedirs(os.path.join(story.store, "exec", "..x", "deep"))
    os.symlink("/", os.path.join(story.store, "exec/link"))
    os.chmod(os.path.join(story.store, "blobs", fanout), 0o777)
    expected = [("stranger" if not name.startswith(("tmp", "staging")) else "litter", name) for name in names]
    expected += [("bytes", "blobs/00/" + wrong), ("no_row", tale.name(stray)), ("stranger", "exec/..x"),
                 ("stranger", "exec/link"), ("mode", "blobs/" + fanout)]
    tale.finds("strange names, litter, files that nobody stored and an open folder are found", expected)
    tale.repairs("and dealt with", len(expected))
    left = [name for kind, name in expected if os.path.lexists(os.path.join(story.store, name))]
    story.check_is("but for the folder and the right bytes nothing of them is left", sorted(left),
                   sorted([tale.name(stray), "blobs/" + fanout]))
    story.check("the right bytes are a blob like others",
                tale.run("cat", "%s/%d" % (hash_of(stray), len(stray))) and tale.said == stray.decode(), tale.said)
    story.check("the root of the file system is still there", os.path.isdir("/etc"))


def fanout_is_no_folder(tale):
    story = tale.story
    data = b"a folder of it goes %d" % tale.n
    tale.put_file(data)
    folder = os.path.dirname(tale.path(data))
    shutil.rmtree(folder)
    os.symlink(story.dir, folder)
    answer = tale.verify()
    found = [(fault["kind"], fault["name"]) for fault in answer["faults"]]
    story.check("a symlink for a folder of blobs is found, and what is gone with it",
                ("stranger", os.path.relpath(folder, story.store)) in found and ("no_file", tale.name(data)) in found,
                found)
    tale.repairs("and dealt with")
    story.check("it is gone", not os.path.islink(folder))


# ---- what is done to the index while no daemon runs ----


def rows_are_wrong(tale):
    story = tale.story
    blobs = {name: b"row of %s %d" % (name.encode(), tale.n) for name in
             ("dropped", "size", "allocated", "kinds", "exec", "invented")}
    for name, data in blobs.items():
        if name != "invented":
            tale.put_file(data)
    tree = tale.put_tree({"f": b"of a tree"}, "--tag", "left")
    assert story.stop_daemon() == 0
    key = {name: bytes.fromhex(hash_of(data)) for name, data in blobs.items()}
    tale.sql("DELETE FROM blobs WHERE hash = ?", (key["dropped"],))
    tale.sql("UPDATE blobs SET size = size + 1 WHERE hash = ?", (key["size"],))
    tale.sql("UPDATE blobs SET plain_allocated = 10485760 WHERE hash = ?", (key["allocated"],))
    tale.sql("UPDATE blobs SET kinds = 3 WHERE hash = ?", (key["kinds"],))
    tale.sql("UPDATE blobs SET kinds = 2 WHERE hash = ?", (key["exec"],))
    tale.sql("INSERT INTO blobs VALUES (NULL, ?, 9, 1, 4096, 0, 1, 0, 0)", (key["invented"],))
    tale.sql("INSERT INTO trees VALUES (?, 9, 1, 1, 0, 1, 1, 0)", (key["allocated"],))
    tale.sql("INSERT INTO tags VALUES ('dangling', ?, 9, ?)", (b"\x01" * 32, os.getuid()))
    tale.start()
    words = "tag 'dangling': the index says %s/9 of user %d" % ("01" * 32, os.getuid())
    story.check("a tag that the file does not have, whose sum is right, is told and goes at the start",
                words in open(story.log).read() and "dangling" not in tale.must("tags"))
    tale.finds("rows that disagree with files are found, each by its kind",
               [("no_row", tale.name(blobs["dropped"])), ("size", tale.name(blobs["size"])),
                ("allocated", tale.name(blobs["allocated"])), ("no_file", tale.name(blobs["kinds"], "exec")),
                ("no_row", tale.name(blobs["exec"])), ("no_file", tale.name(blobs["exec"], "exec")),
                ("no_file", tale.name(blobs["invented"])),
                ("row", "%s/%d" % (hash_of(blobs["exec"]), len(blobs["exec"])))])  # room for a kind that it has not
    tale.repairs("and put right")
    assert story.stop_daemon() == 0
    rows = {name: tale.sql("SELECT size, kinds, plain_allocated FROM blobs WHERE hash = ?", (key[name],))
            for name in blobs}
    story.check_is("the row that was dropped is there", len(rows["dropped"]), 1)
    story.check_is("the size is right", rows["size"][0][0], len(blobs["size"]))
    story.check("so is what it takes", rows["allocated"][0][2] < 1 << 20, rows["allocated"])
    story.check("what was invented is gone", not rows["invented"])
    story.check_is("the tag, too", tale.sql("SELECT name FROM tags WHERE name = 'dangling'"), [])
    tale.start()
    tale.is_clean("after a restart nothing is wrong either")
    story.check("the tree is there", tale.run("materialize", "left", tale.fresh()) and tree, tale.said)


def a_row_changes_under_the_daemon(tale):
    """By a flipped bit on the disk: a row that still makes sense, and is not what the daemon has in memory."""
    story = tale.story
    data = b"the size of its row %d" % tale.n
    digest = tale.put_file(data)
    assert story.stop_daemon() == 0  # all rows are in the database then, and none in the WAL
    tale.start()
    index = os.path.join(story.store, "index.sqlite")
    with open(index, "rb") as file:
        at = file.read().index(bytes.fromhex(hash_of(data))) + 32
    with open(index, "r+b") as file:
        file.seek(at)
        file.write(bytes([len(data) ^ 1]))
    answer = tale.finds("a row of the index with another bit is found", [("row", digest)])
    story.check("what memory has, and the row", answer["faults"][0]["expected"].startswith("size %d," % len(data)) and
                answer["faults"][0]["found"].startswith("size %d," % (len(data) ^ 1)), answer)
    tale.repairs("it is written from memory", 1)
    assert story.stop_daemon() == 0
    tale.start()
    tale.is_clean("and right for the next start")


def tags_file_is_wrong(tale):
    story = tale.story
    path = os.path.join(story.store, "tags")
    good = open(path).read()
    for what, change in (("nonsense in", lambda: open(path, "a").write("nonsense\n")),
                         ("the loss of", lambda: os.unlink(path)),
                         ("a pipe for", lambda: (os.unlink(path), os.mkfifo(path)))):
        change()
        tale.finds("%s the file of tags is found" % what, [("tags_file", "tags")])
        tale.repairs("and it is written anew", 1)
        story.check_is("as it was", open(path).read(), good)


def index_is_damaged(tale):
    story = tale.story
    assert story.stop_daemon() == 0
    tale.start()
    tags = tale.must("tags")
    with open(os.path.join(story.store, "index.sqlite"), "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(3 * 4096))
    tale.finds("pages of the index that change under the daemon are found", [("index", "index.sqlite")])
    answer = tale.repairs("and it is set aside", 1)
    story.check("which is said", "index.sqlite.damaged-1" in answer["faults"][0]["repair"] and
                "set aside as 'index.sqlite.damaged-1'" in open(story.log).read(), answer)
    assert story.stop_daemon() == 0
    tale.start()
    tale.is_clean("the next start finds in the store what was in it")
    story.check_is("tags, too", tale.must("tags"), tags)


# ---- while others do things ----


def listens(tale):
    """The rate holds, progress comes, one is enough, and who cancels is heard."""
    story = tale.story
    size = 3 << 20
    tale.put_file(os.urandom(size))
    began = time.monotonic()
    answer = tale.verify("--rate", "1M")
    took = time.monotonic() - began
    story.check("a rate of 1M keeps it below that", tale.status == CLEAN and answer["bytes"] > size and
                took > (answer["bytes"] - (1 << 20)) / (1 << 20) * 0.9, (took, answer))
    with Client(story.socket) as client:
        first = client.request("verify", {"rate": 1 << 16, "progress": True})
        story.check("progress tells how far it is",
                    story.eventually(20, lambda: client.call("ping") and any(
                        note[0] == "progress" and note[1]["id"] == first and note[1]["bytes"] > 0 and
                        note[1]["bytes_total"] > size for note in client.notifications)), client.notifications[-1:])
        story.check("another one is refused meanwhile",
                    tale.run("verify", status=1) and "under way" in tale.said, tale.said)
        client.call("cancel", {"id": first})
        story.check_is("who cancels is heard", outcome(client.wait, first), "cancelled")
        client.request("verify", {"rate": 1 << 16})
        client.call("ping")
    story.check("when a client is gone, so is what it asked for", story.eventually(20, lambda: tale.run("verify")),
                tale.said)


class Load:
    """Puts, materializations, removals, tags and evictions, all the time; what fails for want of room is no matter."""

    def __init__(self, tale, n=3):
        self.tale = tale
        self.stop = threading.Event()
        self.n_done = 0
        self.unexpected = []
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(n)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def command(self, *words):
        done = subprocess.run(["dircache", "--socket", self.tale.story.socket, *words], capture_output=True, text=True)
        if done.returncode not in (0, 3) and "do not fit" not in done.stderr:
            self.unexpected.append((words, done.stderr))
        return done.stdout.strip()

    def work(self, number):
        draw = random.Random(number)
        base = tempfile.mkdtemp(dir=self.tale.story.dir)
        while not self.stop.is_set():
            source, target = base + "/src", base + "/out"
            os.makedirs(source + "/sub")
            for i in range(30):
                data = b"%d" % draw.randrange(300) * draw.choice([1, 1000, 40000])
                path = source + draw.choice(["/", "/sub/"]) + str(i)
                with open(path, "wb") as file:
                    file.write(data)
                os.chmod(path, draw.choice([0o644, 0o755]))
            tree = self.command("put", *draw.choice([[], ["--tag", "load/%d" % number]]), source)
            if tree:
                self.command("materialize", tree, target)
            if os.path.exists(target):
                self.command("remove", target)
            if draw.random() < 0.2:
                self.command("gc", "--to", draw.choice(["0", "1M", "8M"]))
            shutil.rmtree(source)
            shutil.rmtree(target, ignore_errors=True)
            self.n_done += 1


def under_load(tale, seconds):
    story = tale.story
    with Load(tale) as load:
        end, n, wrong = time.monotonic() + seconds, 0, []
        while time.monotonic() < end or n < 3 or load.n_done < 3:
            answer = tale.verify(*(["--repair"] if n % 2 else []))
            n += 1
            if tale.status != CLEAN or answer["faults_total"]:
                wrong.append(tale.said)
    story.check("while files come and go, nothing is found wrong that is not", not wrong, wrong[:1])
    story.check("and nobody is refused", not load.unexpected, load.unexpected[:1])
    tale.is_clean("afterwards neither")


# ---- the end in the middle ----


def restart(tale, *options):
    """What ran before is not the kill's: a measure of coverage would lose it."""
    assert tale.story.stop_daemon() == 0
    tale.start(*options)


def damage_many(tale):
    tree = {"%d/%d" % (i % 10, i): b"%d of many, %d" % (i, tale.n) for i in range(200)}
    tree.update({"x%d*" % i: data for i, data in enumerate(list(tree.values())[:100])})
    tale.put_tree(tree)
    for i, data in enumerate(list(tree.values())[:200]):
        CHANGES[i % 6][1](tale.path(data))


def killed_in_the_middle(tale):
    story = tale.story
    restart(tale)
    for n in range(4):
        damage_many(tale)
        before = tale.counters()["tampered_blobs"]
        client = subprocess.Popen(["dircache", "--socket", story.socket, "verify", "--repair"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with Client(story.socket) as other:
            begun = story.eventually(
                30, lambda: other.call("stats")["tampered_blobs"] > before + 20 * n or client.poll() is not None)
        if n < 3:
            story.kill_daemon()
        else:
            story.check("a stop in the middle of a repair is clean", story.stop_daemon() == 0)
        client.communicate()
        story.check("a repair is ended in the middle", begun and client.returncode in (WRONG, NO_DAEMON, CLEAN),
                    client.returncode)
        tale.start()
        if tale.verify("--repair")["faults_total"]:
            story.check("the next one repairs what is left", tale.status == CLEAN, tale.said)
        tale.is_clean("and then nothing is wrong")


def killed_while_storing(tale):
    """What a killed daemon leaves is put right by the start, without a repair."""
    story = tale.story
    restart(tale, "--max-size", "24M")
    for _ in range(3):
        with Load(tale) as load:
            story.eventually(20, lambda: load.n_done >= 2)
            story.kill_daemon()
            load.stop.set()
        tale.start("--max-size", "24M")
        tale.is_clean("after a kill in the middle of all that, nothing is wrong")


def main():
    with Story(400) as story:
        tale = Tale(story)
        story.check("without a daemon there is nobody to ask", tale.run("verify", status=NO_DAEMON), tale.said)
        tale.start()
        tale.is_clean("an empty store is clean")
        links_are_counted(tale)
        put_that_was_given_up(tale)
        one_kind_is_wrong(tale)
        all_is_wrong(tale)
        a_directory_is_wrong(tale)
        names_and_folders(tale)
        fanout_is_no_folder(tale)
        rows_are_wrong(tale)
        a_row_changes_under_the_daemon(tale)
        tags_file_is_wrong(tale)
        index_is_damaged(tale)
        listens(tale)
        killed_in_the_middle(tale)
        restart(tale, "--max-size", "24M")
        under_load(tale, 4)
        killed_while_storing(tale)


main()
