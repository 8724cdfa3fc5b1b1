#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon that is stopped early, asked too much, robbed of its files, and left without room."""

import hashlib
import os
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from image import own_mounts  # noqa: E402
from rpc import Client, RpcError, outcome, ready_client  # noqa: E402

N_ROWS = 200000
N_MISSING = 100000


def digest_of(data):
    return reapi.text(reapi.digest_of(data))


def directory_of(names):
    """A Directory message of files: digests by name."""
    return reapi.encode_directory([(name, digest, False) for name, digest in names.items()], [], [])


def descriptor_of(data):
    fd = os.memfd_create("input")
    os.write(fd, data)
    return fd


def put_entries(client, contents, **more):
    """Begin a put of files; its number once all are stored."""
    put = client.call("put", {"step": "begin"})["put"]
    fds = [descriptor_of(data) for data in contents]
    entries = [
        {"type": "file", "fd": i, "executable": False, **({"name": b"f%d" % i} if more.get("names") else {})}
        for i in range(len(fds))
    ]
    try:
        client.call("put", {"step": "entries", "put": put, "entries": entries}, fds)
    finally:
        for fd in fds:
            os.close(fd)
    return put


def put_blob(client, data):
    return client.call("put", {"step": "commit", "put": put_entries(client, [data])})["digest"]


def put_tree(client, contents):
    return client.call("put", {"step": "commit", "put": put_entries(client, contents, names=True)})["digest"]


def materialize(story, client, tree, name):
    return outcome(client.call, "materialize", {"digest": tree, "path": os.fsencode(story.dir + "/" + name)})


def file_of(story, digest, kind="blobs"):
    hash_ = digest.split("/")[0]
    return os.path.join(story.store, kind, hash_[:2], hash_)


# ---- stopped while the index is being read ----


def fill_index(story):
    """Rows that take a while to be read."""
    database = sqlite3.connect(story.store + "/index.sqlite")
    with database:
        database.executemany(
            "INSERT INTO blobs VALUES (NULL, ?, 1, 1, 4096, 0, ?, 0, 0)",
            ((hashlib.sha256(b"%d" % i).digest(), i) for i in range(N_ROWS)),
        )
        database.executemany(
            "INSERT INTO tags VALUES (?, ?, 1, 0)",
            (("t%d" % i, hashlib.sha256(b"%d" % i).digest()) for i in range(100)),
        )
    database.close()


def is_marked_clean(story):
    database = sqlite3.connect(story.store + "/index.sqlite")
    (clean,) = database.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
    database.close()
    return clean == 1


def stopped_while_starting(story):
    story.start_daemon()
    ready_client(story.socket).close()
    story.stop_daemon()
    fill_index(story)
    story.start_daemon()
    story.check_is("a daemon that is stopped while it reads its index ends in order", story.stop_daemon(), 0)
    story.check("and its store counts as cleanly stopped", is_marked_clean(story))

    story.start_daemon()
    with Client(story.socket) as client, Client(story.socket) as other:
        waiting = [client.request("has", {"digests": []}) for _ in range(64)]
        cancels = [client.request("cancel", {"id": id_}) for id_ in waiting[1:]]
        while other.call("stats")["requests_active"] <= len(waiting) and not other.call("ping")["ready"]:
            time.sleep(0.005)
        story.daemon.terminate()
        answers = [outcome(client.wait, id_) for id_ in waiting]
        cancelled = [outcome(client.wait, id_) for id_ in cancels]
    if all(isinstance(answer, str) for answer in answers):
        story.check_is("64 requests that wait for it are cancelled", answers, ["cancelled"] * 64)
    else:
        print("# the index was read too fast to claim anything of requests that wait for it")
    story.check_is("and those behind them, which cancel them, are answered", cancelled, [{}] * 63)
    story.check_is("and the daemon ends in order", story.stop_daemon(), 0)
    shutil.rmtree(story.store)


# ---- asked too much ----


def status_of(story, name):
    with open("/proc/%d/status" % story.daemon.pid) as status:
        return int(next(line for line in status if line.startswith(name + ":")).split()[1])


def peak_kib(story):
    return status_of(story, "VmHWM")


def much_is_missing(story, client):
    names = {b"f%06d" % i: reapi.digest_of(b"missing %d" % i) for i in range(N_MISSING)}
    root = put_blob(client, directory_of(names))
    story.check(
        "the table of descriptors is large before any client asks (or the limit is small)",
        status_of(story, "FDSize") > min(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) // 2,
    )
    before = peak_kib(story)
    try:
        client.call("materialize", {"digest": root, "path": os.fsencode(story.dir + "/much")})
        story.check("a tree without its files is not_found", False, "answered")
    except RpcError as error:
        story.check_is("a tree without its files is not_found", error.code, "not_found")
        story.check_is("100 of which are named", len(error.missing), 100)
    grown = peak_kib(story) - before
    story.check("memory does not grow with what is missing", grown < 256 << 10, "%d KiB" % grown)


def put_while_others_ask(story, client):
    """Whoever puts a tree is not told that it is missing, though others hear so at that moment."""
    codes = set()
    askers = [Client(story.socket) for _ in range(3)]
    for i in range(40):
        content = b"content %d" % i
        root = digest_of(directory_of({b"f0": reapi.digest_of(content)}))
        put = put_entries(client, [content], names=True)
        stop = threading.Event()

        def ask(asker):
            while not stop.is_set():
                for id_ in [asker.request("has", {"digests": [root], "tree": True}) for _ in range(8)]:
                    asker.wait(id_)

        threads = [threading.Thread(target=ask, args=(asker,)) for asker in askers]
        for thread in threads:
            thread.start()
        time.sleep(0.003)
        result = outcome(client.call, "put", {"step": "commit", "put": put})
        codes.add(result if isinstance(result, str) else "stored" if result["digest"] == root else "another")
        stop.set()
        for thread in threads:
            thread.join()
    for asker in askers:
        asker.close()
    story.check_is("a put succeeds while others are told that its tree is missing", codes, {"stored"})


# ---- robbed ----


def files_changed(story):
    client = ready_client(story.socket)
    tree = put_tree(client, [b"hello", b"world"])
    hello = file_of(story, digest_of(b"hello"))
    client.close()
    os.utime(file_of(story, tree))
    story.stop_daemon()
    story.start_daemon()
    client = ready_client(story.socket)
    story.check("a Directory whose file was touched is read all the same",
                isinstance(materialize(story, client, tree, "touched"), dict))
    counters = client.call("stats")
    counts = [counters["tampered_blobs"], counters["healed_blobs"]]
    story.check_is("after it was made anew, and counted", counts, [1, 1])
    for what, make in (
        ("a symlink", lambda path: os.symlink("/etc/passwd", path)),
        ("a FIFO", os.mkfifo),
        ("a directory", os.mkdir),
    ):
        os.unlink(hello)
        make(hello)
        result = materialize(story, client, tree, "robbed")
        story.check_is("with %s in a blob's place the tree is not_found" % what, result, "not_found")
        story.check("and nothing is there", not os.path.lexists(story.dir + "/robbed"))
        story.check_is("a put makes it good again", put_tree(client, [b"hello", b"world"]), tree)
        story.check("and the tree is there again", isinstance(materialize(story, client, tree, "good"), dict))
        shutil.rmtree(story.dir + "/good")
    client.close()


# ---- without room ----


def rows_of(story, digest):
    """How often the index of a killed daemon has a blob."""
    copy = story.dir + "/copy"
    os.mkdir(copy)
    for name in os.listdir(story.store):
        if name.startswith("index.sqlite"):
            shutil.copy(os.path.join(story.store, name), copy)
    database = sqlite3.connect(copy + "/index.sqlite")
    query = "SELECT count(*) FROM blobs WHERE hash = ?"
    (n,) = database.execute(query, (bytes.fromhex(digest.split("/")[0]),)).fetchone()
    database.close()
    shutil.rmtree(copy)
    return n


def fill_up(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def full_disk(story):
    room = story.dir + "/room"
    os.mkdir(room)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", room]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        print("# nothing is claimed of full disks: no tmpfs can be mounted here")
        return
    story.store = room + "/store"
    story.start_daemon()
    client = ready_client(story.socket)
    known = put_blob(client, b"known")
    put = put_entries(client, [b"the last that fits"])
    fill_up(room + "/filler")
    result = outcome(client.call, "put", {"step": "commit", "put": put})
    story.check_is("a put that the index has no room for is no_space", result, "no_space")
    result = outcome(client.call, "tag", {"name": "full", "digest": known})
    story.check_is("so is a tag", result, "no_space")
    story.check_is("which is not there then", client.call("tags")["tags"], [])
    result = outcome(put_blob, client, os.urandom(1 << 20))
    story.check_is("so is a blob that does not fit", result, "no_space")
    story.check_is("and leaves nothing behind", os.listdir(story.store + "/tmp"), [])
    os.unlink(room + "/filler")
    last = put_blob(client, b"the last that fits")
    story.check_is("with room again it is stored", last, digest_of(b"the last that fits"))
    client.close()
    story.kill_daemon()
    story.check_is("and in the index, though its file had been there", rows_of(story, last), 1)
    subprocess.run(["umount", room], check=True)


# ---- folders with opinions ----


def posix_acl(entries):
    rows = [struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in entries]
    return struct.pack("<I", 2) + b"".join(rows)


def masked_modes(story, client):
    """A folder whose default ACL takes bits away from whatever is made in it."""
    folder = story.dir + "/masked"
    os.mkdir(folder)
    owner, group, other = 0x01, 0x04, 0x20
    try:
        os.setxattr(folder, "system.posix_acl_default", posix_acl([(owner, 6), (group, 0), (other, 0)]))
    except OSError:
        print("# nothing is claimed of default ACLs: this file system has none")
        return
    tree = put_tree(client, [b"", b"hello"])
    materialize(story, client, tree, "masked/tree")
    client.call("materialize", {"digest": digest_of(b""), "file": True, "executable": True,
                                "path": os.fsencode(folder + "/empty")})
    names = ["tree", "tree/f0", "tree/f1", "empty"]
    modes = [os.stat(os.path.join(folder, name)).st_mode & 0o7777 for name in names]
    story.check_is("modes are what they should be below a default ACL", modes, [0o755, 0o444, 0o444, 0o555])


def read_only_folder(story, client):
    folder = story.dir + "/read-only"
    os.mkdir(folder)
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", folder]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        print("# nothing is claimed of read-only folders: no tmpfs can be mounted here")
        return
    tree = put_tree(client, [b"hello"])
    result = materialize(story, client, tree, "read-only/tree")
    story.check_is("a read-only folder is failed_precondition", result, "failed_precondition")
    story.check_is("and the store keeps no record of it", story.litter(), [])
    subprocess.run(["umount", folder], check=True)


# ---- started with nothing ----


def without_descriptors(story):
    command = 'exec dircached --store "$0" --socket "$1" <&- >&- 2>&-'
    story.daemon = subprocess.Popen(["sh", "-c", command, story.dir + "/store2", story.socket])
    story.eventually(20, story.is_listening)
    ready_client(story.socket).close()
    names = {os.readlink("/proc/%d/fd/%d" % (story.daemon.pid, fd)) for fd in range(3)}
    story.check_is("a daemon started without 0, 1 and 2 writes its log nowhere", names, {"/dev/null"})


def main():
    own_mounts()
    with Story() as story:
        stopped_while_starting(story)
        story.start_daemon()
        with ready_client(story.socket) as client:
            much_is_missing(story, client)
            put_while_others_ask(story, client)
            masked_modes(story, client)
            read_only_folder(story, client)
        files_changed(story)
        story.check_is("the daemon stops cleanly", story.stop_daemon(), 0)
        without_descriptors(story)
        story.check_is("and stops cleanly", story.stop_daemon(), 0)
        full_disk(story)


main()
