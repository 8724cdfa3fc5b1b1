#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The protocol, spoken by a client written from docs/PROTOCOL.md: what is right, and what is wrong."""

import array
import hashlib
import os
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
from rpc import Client, Closed, RpcError  # noqa: E402


def digest_of(data):
    return "%s/%d" % (hashlib.sha256(data).hexdigest(), len(data))


def file_of(story, data):
    """A descriptor of a new file with these bytes, open for reading."""
    path = os.path.join(story.dir, "input")
    with open(path, "wb") as file:
        file.write(data)
    fd = os.open(path, os.O_RDONLY)
    os.unlink(path)
    return fd


def no_litter(story):
    return not [name for name in os.listdir(story.dir) if name.startswith(".dircache")]


def refused(client, code, method, params=None, fds=()):
    """Is the request refused with this code? Else what happened, for the claim."""
    try:
        return "answered " + repr(client.call(method, params, fds))
    except RpcError as error:
        return "" if error.code == code else str(error)


def put_file(client, story, data, **commit):
    fd = file_of(story, data)
    put = client.call("put", {"step": "begin"})["put"]
    client.call("put", {"step": "entries", "put": put, "entries": [{"type": "file", "fd": 0}]}, [fd])
    os.close(fd)
    return client.call("put", {"step": "commit", "put": put, **commit})


# ---- what is right ----


def ping(story, client):
    result = client.call("ping")
    story.check_is("ping tells protocol 1", result["protocol"], 1)
    story.check("and the version", isinstance(result["version"], str) and result["version"])
    story.check_is("and the daemon's pid", result["pid"], story.daemon.pid)
    story.check_is("and its uid", result["uid"], os.getuid())
    story.check("and features", isinstance(result["features"], list), result)
    while not client.call("ping")["ready"]:
        time.sleep(0.01)
    result = client.call("ping", {"x-trace": [1, {"a": None}]})
    story.check_is("an x- key is passed over", result["protocol"], 1)


def put_in_steps(story, client):
    """A tree in several batches, all in flight at once, of descriptors each."""
    put = client.call("put", {"step": "begin"})["put"]
    ids = []
    batches = [
        [{"type": "directory", "name": b"sub"}, {"type": "directory", "name": b"deep", "parent": 1}],
        [{"type": "file", "name": b"f%d" % i, "fd": i} for i in range(100)],
        [
            {"type": "file", "name": b"g%d" % i, "fd": i, "parent": 2, "executable": i % 2 == 1}
            for i in range(100)
        ],
        [
            {"type": "symlink", "name": b"link", "target": b"\xff/nowhere", "parent": 1},
            {"type": "directory", "name": b"empty"},
            {"type": "file", "name": b"\xfe\xff", "fd": 0, "parent": 1},
        ],
    ]
    for n, entries in enumerate(batches):
        n_fds = sum(entry["type"] == "file" for entry in entries)
        fds = [file_of(story, b"batch %d file %d" % (n, i)) for i in range(n_fds)]
        ids.append(client.request("put", {"step": "entries", "put": put, "entries": entries}, fds))
        for fd in fds:
            os.close(fd)
    for id_ in ids:
        story.check_is("a batch is answered with an empty map", client.wait(id_), {})
    result = client.call("put", {"step": "commit", "put": put, "tag": "a/tag-1.0"})
    story.check("the put is committed as a tree", result["tree"] is True, result)
    counts = [result[key] for key in ("files", "directories", "symlinks")]
    story.check_is("of so many files, directories and symlinks", counts, [201, 4, 1])
    story.check("with new blobs", result["new_blobs"] >= 201 and result["new_bytes"] > 0, result)
    tags = client.call("tags")["tags"]
    story.check_is("the tag names it", tags,
                   [{"name": "a/tag-1.0", "digest": result["digest"], "uid": os.geteuid()}])
    why = refused(client, "failed_precondition", "put", {"step": "abort", "put": put})
    story.check("the put is over: its number means nothing", not why, why)
    return result


def put_one_file(story, client):
    fd = file_of(story, b"single")
    os.lseek(fd, 3, os.SEEK_SET)
    put = client.call("put", {"step": "begin"})["put"]
    client.call("put", {"step": "entries", "put": put, "entries": [{"type": "file", "fd": 0}]}, [fd])
    offset = os.lseek(fd, 0, os.SEEK_CUR)
    story.check_is("a descriptor is read from the beginning, its offset kept", offset, 3)
    os.close(fd)
    result = client.call("put", {"step": "commit", "put": put})
    story.check_is("a single file gives its blob's digest", result["digest"], digest_of(b"single"))
    story.check("and is no tree", result["tree"] is False, result)
    put = client.call("put", {"step": "begin"})["put"]
    story.check_is("a put can be aborted", client.call("put", {"step": "abort", "put": put}), {})
    return result["digest"]


def materialize(story, client, tree):
    folder = os.open(story.dir, os.O_PATH | os.O_DIRECTORY)
    result = client.call("materialize", {"digest": tree, "name": b"out"}, [folder])
    story.check_is("a tree is materialized by folder descriptor and name: a hit", result["cache"], "hit")
    counts = [result[key] for key in ("files_linked", "files_copied", "files_reflinked", "files_created")]
    story.check_is("by links", counts, [201, 0, 0, 0])
    out = os.path.join(story.dir, "out")
    names = sorted(os.listdir(os.fsencode(out)))
    story.check_is("all of it", [len(names), names[-1]], [102, b"sub"])
    with open(os.path.join(out, "sub/deep/g7"), "rb") as file:
        story.check_is("with its bytes", file.read(), b"batch 2 file 7")
    story.check("and x bits", os.access(os.path.join(out, "sub/deep/g7"), os.X_OK))
    story.check_is("and targets", os.readlink(os.fsencode(out) + b"/sub/link"), b"\xff/nowhere")
    result = client.call("materialize", {"tag": "a/tag-1.0", "path": os.fsencode(out) + b"2"})
    story.check_is("by tag and absolute path too", result["digest"], tree)
    result = client.call("materialize", {"digest": tree, "name": b"out3", "progress": True}, [folder])
    mine = [n for n in client.notifications if n[0] == "progress"]
    right = all(n[1]["id"] == client.last_id for n in mine)
    story.check("progress, where it came, belongs to the request", right, mine)
    result = client.call("materialize", {"digest": tree, "name": b"out5", "mode": "copy", "writable": True}, [folder])
    story.check_is("by copies, where that is asked for", result["files_copied"], 201)
    story.check("which is no fallback", "fallback" not in result and "fallback_copies" not in result, result)
    story.check_is("and writable", os.stat(out + "5/sub/deep/g7").st_mode & 0o7777, 0o755)
    result = client.call("materialize", {"digest": tree, "name": b"out6", "mode": "reflink"}, [folder])
    story.check_is("by reflinks, or copies that are counted and explained", result["files_reflinked"],
                   201 - result.get("fallback_copies", 0))
    story.check_is("explained only where there are such", bool(result.get("fallback")), result["files_copied"] > 0)
    missing = digest_of(b"never put")
    try:
        client.call("materialize", {"digest": missing, "name": b"out4"}, [folder])
        story.check("an absent tree is not_found", False)
    except RpcError as error:
        said = error.code, error.missing
        story.check_is("an absent tree is not_found, by digest", said, ("not_found", [missing]))
    claims = {
        "a target that is there is failed_precondition": (
            "failed_precondition", {"digest": tree, "name": b"out"}),
        "a name with a slash is invalid_argument": ("invalid_argument", {"digest": tree, "name": b"a/b"}),
        "'..' is invalid_argument": ("invalid_argument", {"digest": tree, "name": b".."}),
        "an empty name is invalid_argument": ("invalid_argument", {"digest": tree, "name": b""}),
        "a name with NUL is invalid_argument": ("invalid_argument", {"digest": tree, "name": b"a\0b"}),
        "digest and tag together are invalid_argument": (
            "invalid_argument", {"digest": tree, "tag": "a/tag-1.0", "name": b"x"}),
        "neither digest nor tag is invalid_argument": ("invalid_argument", {"name": b"x"}),
        "a digest in capitals is invalid_argument": (
            "invalid_argument", {"digest": tree.upper(), "name": b"x"}),
        "a mode that is none is invalid_argument": (
            "invalid_argument", {"digest": tree, "name": b"x", "mode": "hard"}),
        "require_link with another mode is invalid_argument": (
            "invalid_argument", {"digest": tree, "name": b"x", "mode": "copy", "require_link": True}),
        "require_link with writable is invalid_argument": (
            "invalid_argument", {"digest": tree, "name": b"x", "writable": True, "require_link": True}),
        "name and path together are invalid_argument": (
            "invalid_argument", {"digest": tree, "name": b"x", "path": b"/tmp/x"}),
    }
    for claim, (code, params) in claims.items():
        why = refused(client, code, "materialize", params, [folder])
        story.check(claim, not why, why)
    for claim, params in {
        "no target at all is invalid_argument": {"digest": tree},
        "a relative path is invalid_argument": {"digest": tree, "path": b"out7"},
        "a name without a folder is invalid_argument": {"digest": tree, "name": b"out7"},
    }.items():
        why = refused(client, "invalid_argument", "materialize", params)
        story.check(claim, not why, why)
    not_a_folder = file_of(story, b"x")
    try:
        client.call("materialize", {"digest": tree, "name": b"x"}, [not_a_folder])
        story.check("a descriptor of no folder is refused", False)
    except RpcError:
        story.check("a descriptor of no folder is refused", True)
    os.close(not_a_folder)
    story.check_is("remove takes it away", client.call("remove", {"name": b"out3"}, [folder]), {})
    story.check("at once", not os.path.exists(out + "3"))
    os.close(folder)


def look(story, client, tree, blob):
    result = client.call("ls", {"digest": tree})
    entries = result["entries"]
    story.check_is("ls lists files, directories, symlinks", len(entries), 102)
    story.check_is("in order", [e["name"] for e in entries[:2]] + [e["name"] for e in entries[-2:]],
                   [b"f0", b"f1", b"empty", b"sub"])
    story.check_is("a file's size is its bytes'", entries[0]["size"], len(b"batch 1 file 0"))
    story.check_is("its digest theirs", entries[0]["digest"], digest_of(b"batch 1 file 0"))
    modes = [entries[i]["mode"] & 0o777 for i in (0, -1)]
    story.check_is("modes are those to come", modes, [0o444, 0o755])
    story.check("all at once", result["more"] is False, result["more"])
    pages, offset = [], 0
    while True:
        page = client.call("ls", {"digest": tree, "offset": offset, "limit": 7})
        pages += page["entries"]
        offset += len(page["entries"])
        if not page["more"]:
            break
    story.check("pages of seven make the same list", pages == entries)
    sub = client.call("ls", {"tag": "a/tag-1.0", "path": b"sub"})
    story.check_is("ls of a path", [(e["name"], e["type"]) for e in sub["entries"]],
                   [(b"\xfe\xff", "file"), (b"deep", "directory"), (b"link", "symlink")])
    story.check_is("a symlink tells its target", sub["entries"][2]["target"], b"\xff/nowhere")
    one = client.call("ls", {"digest": tree, "path": b"sub/deep/g3"})
    listed = [(e["name"], e["mode"] & 0o777) for e in one["entries"]]
    story.check_is("ls of a file is one entry", listed, [(b"g3", 0o555)])
    story.check_is("and no directory", one["directory"], False)
    story.check_is("but the file's digest", one["digest"], digest_of(b"batch 2 file 3"))
    why = refused(client, "not_found", "ls", {"digest": tree, "path": b"sub/nothing"})
    story.check("ls of a path that is not there is not_found", not why, why)

    result = client.call("cat", {"digest": blob})
    fd = client.take_fd()
    story.check_is("cat answers with a descriptor", (os.read(fd, 100), result["size"]), (b"single", 6))
    try:
        os.write(fd, b"x")
        story.check("open for reading only", False)
    except OSError:
        story.check("open for reading only", True)
    os.close(fd)
    result = client.call("cat", {"digest": digest_of(b"")})
    story.check_is("of the empty blob too", (os.read(client.fds[0], 100), result["size"]), (b"", 0))
    os.close(client.take_fd())
    missing = [digest_of(b"missing %d" % i) for i in range(3)]
    result = client.call("has", {"digests": [missing[0], blob, missing[1], tree, missing[2]]})
    story.check_is("has tells what is missing", sorted(result["missing"]), sorted(missing))
    story.check_is("has of whole trees", client.call("has", {"digests": [tree], "tree": True})["missing"], [])
    story.check_is("has of nothing", client.call("has", {"digests": []})["missing"], [])


def tag_stats_trees(story, client, tree, blob):
    story.check_is("a tag is set", client.call("tag", {"name": "second", "digest": tree}), {})
    tags = [(tag["name"], tag["digest"]) for tag in client.call("tags")["tags"]]
    story.check_is("tags are in order of name", tags, [("a/tag-1.0", tree), ("second", tree)])
    story.check_is("a tag is deleted", client.call("tag", {"name": "second", "delete": True}), {})
    story.check_is("and gone", len(client.call("tags")["tags"]), 1)
    for name in "", "-x", "a b", "x" * 256, "é", blob:
        why = refused(client, "invalid_argument", "tag", {"name": name, "digest": tree})
        story.check("%r is no name for a tag" % name[:20], not why, why)
    why = refused(client, "not_found", "tag", {"name": "t", "digest": digest_of(b"nothing like it")})
    story.check("what is not here cannot be tagged", not why, why)
    stats = client.call("stats")
    right = all(type(value) is int and value >= 0 for value in stats.values())
    story.check("stats is one flat map of numbers", right, stats)
    story.check("with this connection and this request",
                stats["connections"] >= 1 and stats["requests"] > 10 and stats["requests_active"] >= 1, stats)
    result = client.call("trees")
    trees = result["trees"]
    story.check_is("trees lists the tree", [t["digest"] for t in trees], [tree])
    totals = [trees[0][key] for key in ("files", "directories", "symlinks")]
    story.check_is("with its totals", totals, [201, 4, 1])
    story.check("and its last use", abs(trees[0]["last_used"] / 1e6 - time.time()) < 600, trees)
    story.check("and its hits", trees[0]["hits"] >= 2, trees)


# ---- what is wrong, but only with a request ----


def wrong_requests(story, client, tree):
    for claim, method, params in (
        ("an unknown method", "frobnicate", {}),
        ("an unknown key", "ping", {"colour": "red"}),
        ("a key of another type", "materialize", {"digest": 5, "name": b"x"}),
        ("a negative number", "ls", {"digest": tree, "offset": -1}),
        ("a missing key", "tag", {"name": "x"}),
        ("a text for a bool", "has", {"digests": [], "tree": "yes"}),
        ("an array of numbers for digests", "has", {"digests": [1, 2]}),
        ("over 4,096 digests", "has", {"digests": [digest_of(b"")] * 4097}),
        ("an unknown step", "put", {"step": "jump"}),
        ("fds where none came", "materialize", {"digest": tree, "name": b"x", "fds": 1}),
        ("cancel of no request", "cancel", {}),
    ):
        why = refused(client, "invalid_argument", method, params)
        story.check(claim + " is invalid_argument", not why, why)
    for step in "entries", "commit", "abort":
        why = refused(client, "failed_precondition", "put", {"step": step, "put": 99})
        story.check(step + " of a put that never began is failed_precondition", not why, why)
    folder = os.open(story.dir, os.O_PATH)
    target = {"digest": tree, "name": b"x"}
    for claim, method, params, fds in (
        ("one descriptor where two are said", "materialize", {"fds": 2, **target}, [folder]),
        ("two descriptors where one is said", "materialize", {"fds": 1, **target}, [folder] * 2),
        ("a descriptor with ping", "ping", {"fds": 1}, [folder]),
        ("a descriptor that is not mentioned", "ping", {"x-note": 1, "fds": 0}, [folder]),
    ):
        why = refused(client, "invalid_argument", method, params, fds)
        story.check(claim + " is invalid_argument", not why, why)
    os.close(folder)
    story.check_is("after all that the connection works", client.call("ping")["protocol"], 1)


def wrong_entries(story, client):
    def attempt(claim, entries, n_fds=0, code="invalid_argument", fd=None):
        put = client.call("put", {"step": "begin"})["put"]
        fds = [fd] if fd is not None else [file_of(story, b"entry %d" % i) for i in range(n_fds)]
        try:
            client.call("put", {"step": "entries", "put": put, "entries": entries}, fds)
            client.call("put", {"step": "commit", "put": put})
            story.check(claim + " is refused", False, "committed")
        except RpcError as error:
            story.check_is(claim + " is refused", error.code, code)
        for each in fds:
            os.close(each)
        why = refused(client, "failed_precondition", "put", {"step": "commit", "put": put})
        story.check("and the put is over", not why, why)

    attempt("a name with a slash", [{"type": "file", "name": b"a/b", "fd": 0}], 1)
    attempt("the name ..", [{"type": "directory", "name": b".."}])
    attempt("a name of 256 bytes", [{"type": "directory", "name": b"x" * 256}])
    attempt("a name with NUL", [{"type": "symlink", "name": b"a\0b", "target": b"x"}])
    attempt("a name used twice", [{"type": "directory", "name": b"a"},
                                  {"type": "symlink", "name": b"a", "target": b"x"}])
    attempt("a parent that is not there", [{"type": "directory", "name": b"a", "parent": 1}])
    attempt("a parent behind its entry", [{"type": "symlink", "name": b"a", "parent": 1, "target": b"x"},
                                          {"type": "directory", "name": b"b"}])
    attempt("an unknown type", [{"type": "socket", "name": b"a"}])
    attempt("a symlink without a target", [{"type": "symlink", "name": b"a"}])
    attempt("an empty target", [{"type": "symlink", "name": b"a", "target": b""}])
    attempt("a target of 4,096 bytes", [{"type": "symlink", "name": b"a", "target": b"t" * 4096}])
    attempt("an fd that did not come", [{"type": "file", "name": b"a", "fd": 1}], 1)
    attempt("an fd used twice", [{"type": "file", "name": b"a", "fd": 0},
                                 {"type": "file", "name": b"b", "fd": 0}], 1)
    attempt("a file without fd", [{"type": "file", "name": b"a"}])
    attempt("an unknown key", [{"type": "directory", "name": b"a", "owner": 0}])
    attempt("a single file beside others", [{"type": "file", "fd": 0},
                                            {"type": "directory", "name": b"a"}], 1)
    file = [{"type": "file", "name": b"a", "fd": 0}]
    read_end, write_end = os.pipe()
    attempt("a pipe for a file", file, fd=read_end)
    os.close(write_end)
    attempt("a folder for a file", file, fd=os.open(story.dir, os.O_RDONLY))
    attempt("a path only for a file", file, fd=os.open(story.log, os.O_PATH))
    write_only = os.open(os.path.join(story.dir, "w"), os.O_WRONLY | os.O_CREAT)
    attempt("a file open for writing only", file, fd=write_only)
    attempt("a device for a file", file, fd=os.open("/dev/zero", os.O_RDONLY))


# ---- what is wrong with the connection ----


def wrong_frames(story):
    with Client(story.socket) as other:
        for claim, data in (
            ("garbage", b"GET / HTTP/1.1\r\n\r\n"),
            ("a byte that MessagePack never uses", b"\xc1"),
            ("an array of four billion", b"\xdd\xff\xff\xff\xff"),
            ("a map of four billion inside", b"\x94\x00\x01\xa4ping\xdf\xff\xff\xff\xff"),
            ("a bin of three gigabytes", b"\x94\x00\x01\xa4ping\x91\x81\xa1x\xc6\xc0\x00\x00\x00"),
            ("seventeen levels of nesting", b"\x94\x00\x01\xa4ping" + b"\x91" * 40),
            ("an array of three for a request", msgpack.packb([0, 1, "ping"])),
            ("a type of message that there is not", msgpack.packb([7, 1, "ping", [{}]])),
            ("a text for an id", msgpack.packb([0, "one", "ping", [{}]])),
            ("an id of 64 bits", msgpack.packb([0, 1 << 40, "ping", [{}]])),
            ("a response that nobody asked for", msgpack.packb([1, 5, None, {}])),
            ("a number", b"\x2a"),
        ):
            with Client(story.socket) as client:
                client.send_bytes(data)
                notifications = client.until_closed()
                story.check_is(
                    claim + " closes the connection, with an error", [n[0] for n in notifications], ["error"])
                for _, error in notifications:
                    story.check("which has a code and a message", error["code"] and error["message"], error)
        story.check_is("another connection went on all the time", other.call("ping")["protocol"], 1)

        for claim, params in (
            ("two maps of params", [{}, {}]), ("no params map", []), ("params that are no map", [5])
        ):
            with Client(story.socket) as client:
                client.send_bytes(msgpack.packb([0, 1, "ping", params]))
                try:
                    client.wait(1)
                    story.check(claim + " is an error", False)
                except RpcError as error:
                    story.check_is(claim + " is an error", error.code, "invalid_argument")
                except Closed:
                    story.check_is(claim + " is an error", [n[0] for n in client.notifications], ["error"])

        with Client(story.socket) as client:
            head = b"\x94\x00\x01\xa4ping\x91\x81\xa3x-a\xc6" + struct.pack(">I", 17 << 20)
            try:
                client.send_bytes(head + bytes(17 << 20))
            except OSError:
                pass
            story.check("a message over 16 MiB closes the connection", client.until_closed() is not None)
        with Client(story.socket) as client:
            params = {"x-a": bytes(15 << 20)}
            story.check_is("one of 15 MiB does not", client.call("ping", params)["protocol"], 1)
        with Client(story.socket) as client:
            client.send_bytes(b"\x94\x00\x01\xa4pi")
        with Client(story.socket) as client:
            for byte in msgpack.packb([0, 1, "ping", [{}]]):
                client.send_bytes(bytes([byte]))
                time.sleep(0.002)
            story.check_is("a message byte by byte is a message", client.wait(1)["protocol"], 1)
        story.check_is("half a message and a disconnect harm nobody", other.call("ping")["protocol"], 1)


def lost_descriptors(story):
    """A control message that the kernel had to cut: more descriptors than the daemon may hold at once."""
    with Client(story.socket) as client:
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(253)]
        put = client.call("put", {"step": "begin"})["put"]
        why = refused(client, "invalid_argument", "put",
                      {"step": "entries", "put": put,
                       "entries": [{"type": "file", "name": b"%d" % i, "fd": i} for i in range(253)]}, fds)
        story.check("253 devices for files are refused, descriptors and all", not why, why)
        story.check_is("the connection works", client.call("ping")["protocol"], 1)
        for fd in fds:
            os.close(fd)
    with Client(story.socket) as client:
        fd = os.open("/dev/null", os.O_RDONLY)
        one, two = msgpack.packb([0, 1, "ping", [{}]]), msgpack.packb([0, 2, "ping", [{}]])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        client.socket.sendmsg([one[:3]], ancillary)
        client.send_bytes(one[3:] + two)
        os.close(fd)
        claim = "a descriptor that the request does not count fails it"
        try:
            client.wait(1)
            story.check(claim, False)
        except RpcError as error:
            story.check_is(claim, error.code, "invalid_argument")
        story.check_is("and it alone", client.wait(2)["protocol"], 1)


def many_requests(story):
    with Client(story.socket) as client:
        ids = [client.request("ping", {"x-i": i}) for i in range(500)]
        story.check("500 pings in a row are answered", all(client.wait(id_)["protocol"] == 1 for id_ in ids))
    with Client(story.socket) as client:
        frame = b"".join(msgpack.packb([0, i, "stats", [{}]]) for i in range(1, 201))
        sender = threading.Thread(target=client.send_bytes, args=(frame,))
        sender.start()
        story.check("200 requests in one write too", all(client.wait(i) for i in range(1, 201)))
        sender.join()
    with Client(story.socket) as client:
        client.send_bytes(msgpack.packb([0, 4294967295, "ping", [{}]]))
        story.check_is("the largest id is an id", client.wait(4294967295)["protocol"], 1)
    clients = [Client(story.socket) for _ in range(200)]
    story.check("200 connections are served", all(client.call("ping") for client in clients))
    for client in clients:
        client.close()


def deaths(story, tree, watcher):
    """Connections that end with requests open, or with an answer unread."""
    folder = os.open(story.dir, os.O_PATH)
    for i in range(20):
        client = Client(story.socket)
        for j in range(5):
            client.request("materialize", {"digest": tree, "name": b"dead-%d-%d" % (i, j)}, [folder])
        client.close()
    for _ in range(5):
        client = Client(story.socket)
        put = client.call("put", {"step": "begin"})["put"]
        fds = [file_of(story, b"lost %d" % i) for i in range(50)]
        client.request("put", {"step": "entries", "put": put, "entries": [
            {"type": "file", "name": b"%d" % i, "fd": i} for i in range(50)]}, fds)
        for fd in fds:
            os.close(fd)
        client.close()
    for _ in range(5):
        client = Client(story.socket)
        client.request("cat", {"digest": digest_of(b"single")})
        client.request("stats")
        client.close()
    os.close(folder)

    def idle():
        stats = watcher.call("stats")
        return stats["connections"] == 1 and stats["requests_active"] <= 1

    story.check("connections that died are forgotten", story.eventually(10, idle), watcher.call("stats"))

    def whole(name):
        return len(os.listdir(os.path.join(story.dir, name))) == 102

    names = os.listdir(story.dir)
    story.check("their targets are whole or absent", all(whole(n) for n in names if n.startswith("dead-")))
    clean = story.eventually(5, lambda: no_litter(story))
    story.check("nothing is beside them", clean, os.listdir(story.dir))
    story.check_is("their puts left no tree", len(watcher.call("trees")["trees"]), 1)

    # Nor do their descriptors stay open.
    def open_fds():
        return len(os.listdir("/proc/%d/fd" % story.daemon.pid))

    before = open_fds()
    for _ in range(50):
        client = Client(story.socket)
        client.call("ping")
        client.request("ping", {"fds": 3}, [0, 1, 2])
        client.close()
    level = story.eventually(5, lambda: open_fds() <= before)
    story.check("descriptors do not pile up", level, (before, open_fds()))


def cancel(story, client, tree):
    folder = os.open(story.dir, os.O_PATH)
    outcomes = set()
    for i in range(20):
        id_ = client.request("materialize", {"digest": tree, "name": b"cancel-%d" % i}, [folder])
        story_id = client.request("cancel", {"id": id_})
        try:
            client.wait(id_)
            outcomes.add("done")
            there = True
        except RpcError as error:
            outcomes.add(error.code)
            there = False
        try:
            client.wait(story_id)
        except RpcError as error:
            outcomes.add("cancel: " + error.code)
        if os.path.exists(os.path.join(story.dir, "cancel-%d" % i)) != there:
            outcomes.add("the answer does not fit the disk")
    os.close(folder)
    story.check("a cancelled request is done or cancelled, and the disk says the same",
                outcomes <= {"done", "cancelled", "cancel: not_found"}, outcomes)
    clean = story.eventually(5, lambda: no_litter(story))
    story.check("nothing is left beside the targets", clean, os.listdir(story.dir))


def stop(story, client):
    story.check_is("stop is answered", client.call("stop"), {})
    client.until_closed()
    status, story.daemon = story.daemon.wait(10), None
    story.check_is("and the daemon ends cleanly", status, 0)


def main():
    with Story() as story:
        story.start_daemon()
        with Client(story.socket) as client:
            ping(story, client)
            tree = put_in_steps(story, client)["digest"]
            blob = put_one_file(story, client)
            materialize(story, client, tree)
            look(story, client, tree, blob)
            tag_stats_trees(story, client, tree, blob)
            wrong_requests(story, client, tree)
            wrong_entries(story, client)
            wrong_frames(story)
            lost_descriptors(story)
            many_requests(story)
            cancel(story, client, tree)
            deaths(story, tree, client)
            stop(story, client)


main()
