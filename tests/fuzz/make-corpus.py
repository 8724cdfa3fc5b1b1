#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the seeds of the fuzz targets into corpus/: one small file for each thing that a parser meets.

What the fuzzer found lies there too, under names that begin with `found-`, and is left alone.
"""

import hashlib
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))


def write(target, seeds):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)


# ---- protobuf, written by hand so that it may be wrong

def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def number(field, n):
    return varint(field << 3) + varint(n % 2**64)


def blob(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def digest(data):
    encoded = blob(1, hashlib.sha256(data).hexdigest().encode())
    return encoded + number(2, len(data)) if data else encoded


def file(name, data=b"x", rest=b""):
    return blob(1, blob(1, name) + blob(2, digest(data)) + rest)


def directory(name, data=b""):
    return blob(2, blob(1, name) + blob(2, digest(data)))


def symlink(name, target, rest=b""):
    return blob(3, blob(1, name) + blob(2, target) + rest)


def time(seconds, nanos):
    return blob(2, number(1, seconds) + number(2, nanos))


def properties(*names):
    return b"".join(blob(1, blob(1, name) + blob(2, b"value")) for name in names)


MODE = blob(3, number(1, 0o755))

write("directory", {
    "empty": b"",
    "file": file(b"a"),
    "empty-file": file(b"a", b""),
    "executable": file(b"a", rest=number(4, 1)),
    "everything": file(b"a") + file(b"b", rest=number(4, 1) + blob(6, properties(b"p", b"q") + time(1, 2) + MODE))
                  + directory(b"d") + symlink(b"s", b"../x") + blob(5, MODE),
    "symlink-properties": symlink(b"s", b"t", blob(4, time(-1, 999999999))),
    "unsorted": file(b"b") + file(b"a"),
    "twice": file(b"a") + file(b"a"),
    "twice-across-lists": file(b"a") + symlink(b"a", b"t"),
    "lists-mixed": symlink(b"s", b"t") + directory(b"d") + file(b"a") + file(b"b"),
    "name-slash": file(b"a/b"),
    "name-dotdot": directory(b".."),
    "name-nul": file(b"a\0b"),
    "name-long": file(b"n" * 256),
    "name-no-utf8": file(b"\xff\xfe"),
    "target-empty": symlink(b"s", b""),
    "target-nul": symlink(b"s", b"a\0b"),
    "hash-upper-case": blob(1, blob(1, b"a") + blob(2, blob(1, b"A" * 64) + number(2, 1))),
    "hash-short": blob(1, blob(1, b"a") + blob(2, blob(1, b"a" * 63))),
    "size-negative": blob(1, blob(1, b"a") + blob(2, blob(1, b"a" * 64) + number(2, -1))),
    "size-of-empty": blob(1, blob(1, b"a") + blob(2, digest(b"") + number(2, 5))),
    "no-digest": blob(1, blob(1, b"a")),
    "digest-in-two-parts": blob(1, blob(1, b"a") + blob(2, number(2, 1)) + blob(2, blob(1, b"a" * 64))),
    "mtime-range": file(b"a", rest=blob(6, time(2**62, 0))),
    "properties-unsorted": file(b"a", rest=blob(6, properties(b"q", b"p"))),
    "properties-many": file(b"a", rest=blob(6, properties(*(b"%02d" % i for i in range(40))))),
    "properties-empty-many": file(b"a", rest=blob(6, blob(1, b"") * 100)),
    "unknown-fields": number(15, 1) + blob(16, b"later") + varint(17 << 3 | 1) + b"8 bytes!" + file(b"a"),
    "tiny-nodes": blob(3, b"") * 64,
    "group": b"\x0b\x0c",
    "length-huge": b"\x0a\xff\xff\xff\xff\x0f",
    "varint-long": b"\x78" + b"\xff" * 10 + b"\x01",
    "cut": file(b"a")[:-1],
})


# ---- MessagePack

def text(data):
    return bytes([0xA0 | len(data)]) + data if len(data) < 32 else b"\xd9" + bytes([len(data)]) + data


def pairs(**values):
    return bytes([0x80 | len(values)]) + b"".join(text(key.encode()) + value for key, value in values.items())


def request(params, id=b"\x01"):
    return b"\x94\x00" + id + text(b"ping") + b"\x91" + params


write("wire", {
    "empty": b"",
    "request": request(pairs(u=b"\x01")),
    "request-two": request(pairs(u=b"\x01")) * 2,
    "response": b"\x94\x01\x01\xc0" + pairs(version=text(b"1")),
    "response-nil": b"\x94\x01\x01\xc0\xc0",
    "notification": b"\x93\x02" + text(b"progress") + b"\x91" + pairs(id=b"\x01"),
    "error": b"\x94\x01\x01" + pairs(code=text(b"not_found"), message=text(b"no"), missing=b"\x90") + b"\xc0",
    "error-no-code": b"\x94\x01\x01" + pairs(message=text(b"no")) + b"\xc0",
    "every-type": request(pairs(
        b=b"\xc3", u=b"\xcf" + b"\xff" * 8, i=b"\xd3\x80" + b"\0" * 7, text=text(b"hello"),
        bytes=b"\xc4\x03a\0b", digest=text(hashlib.sha256(b"x").hexdigest().encode() + b"/1"),
        array=b"\x93\xca\x3f\x80\0\0\xcb\x3f\xe0" + b"\0" * 6 + b"\xe0", map=b"\x81\xc0\xc2", any=b"\xc0")),
    "text-as-binary": request(pairs(u=b"\x01", text=b"\xc4\x01x", bytes=text(b"x"))),
    "key-twice": request(b"\x82" + text(b"u") + b"\x01" + text(b"u") + b"\x01"),
    "key-unknown": request(pairs(u=b"\x01", v=b"\x01")),
    "key-passed-over": request(b"\x82" + text(b"x-y") + b"\x01" + text(b"u") + b"\x01"),
    "key-number": request(b"\x82\x01\x01" + text(b"u") + b"\x01"),
    "key-missing": request(b"\x80"),
    "text-nul": request(pairs(u=b"\x01", text=text(b"a\0b"))),
    "id-wide": request(b"\x80", b"\xce\xff\xff\xff\xff"),
    "id-too-wide": request(b"\x80", b"\xcf\0\0\0\1\0\0\0\0"),
    "params-two": b"\x94\x00\x01" + text(b"m") + b"\x92\x80\x80",
    "heads-wide": b"\xdd\0\0\0\4\xcc\0\xcd\0\1\xdb\0\0\0\1m\xdc\0\1\xdf\0\0\0\1\xda\0\1u\xce\0\0\0\1",
    "array-huge": b"\xdd\xff\xff\xff\xff",
    "map-huge": b"\xdf\x80\0\0\0",
    "binary-huge": b"\xc6\xc0\0\0\0",
    "nesting-16": b"\x91" * 16 + b"\x01",
    "nesting-17": b"\x91" * 17 + b"\x01",
    "extension": b"\x91\xd4\x01\x01",
    "unused-byte": b"\x91\xc1",
    "cut": request(pairs(u=b"\x01", text=text(b"hello")))[:-2],
})


# ---- sequences of requests, as input.c reads them

CALLS = {
    "put": "step put fds entries tag bytes",
    "materialize": "digest fds name tag file executable mode writable require_link progress lease lease_connection path",
    "remove": "fds name path",
    "cat": "digest",
    "ls": "digest tag path offset limit",
    "has": "digests tree",
    "tag": "name digest delete",
    "tags": "",
    "trees": "offset limit sizes",
    "gc": "to dry_run progress",
    "verify": "repair rate progress",
    "stats": "",
    "ping": "",
    "cancel": "id",
    "stop": "",
    "nothing": "digest",
}
ENTRY = "type name parent fd target executable"
FILE, DIRECTORY, SYMLINK = 0, 1, 2
BEGIN, ENTRIES, COMMIT, ABORT = 0, 1, 2, 3
FOLDER, ANY, WAIT = bytes([1, 0]), 0xF0, bytes([7])


def chosen(keys, values):
    """The mask of the keys that are there, and what each value takes: a number, or bytes."""
    mask, out = 0, b""
    for i, key in enumerate(keys.split()):
        if key in values:
            mask |= 1 << i
            value = values.pop(key)
            out += value if isinstance(value, bytes) else bytes([value])
    assert not values, values
    return mask, out


def call(method, client=0, odd=0, action=b"\3", **values):
    mask, out = chosen(CALLS[method], values)
    return (bytes([client << 4 | action[0]]) + action[1:] +
            bytes([list(CALLS).index(method), mask & 0xFF, mask >> 8, odd]) + out)


def entry(**values):
    mask, out = chosen(ENTRY, values)
    return bytes([mask]) + out


def opened(*fds):
    return bytes([len(fds)]) + b"".join(fds)


def with_bytes(data, executable=False):
    return bytes([2 if executable else 1, len(data)]) + data


def put(entries, *fds, number=0, tag=None, client=0):
    wait = bytes([client << 4 | 7])
    named = {} if tag is None else {"tag": tag}
    return (call("put", client, step=BEGIN) + wait +
            call("put", client, step=ENTRIES, put=number, fds=opened(*fds), entries=bytes([len(entries)]) + b"".join(entries)) +
            wait + call("put", client, step=COMMIT, put=number, **named) + wait)


def put_file(data, number=0):
    return put([entry(type=FILE, fd=0)], with_bytes(data), number=number)


TREE = [entry(type=DIRECTORY, name=3), entry(type=FILE, name=0, fd=0), entry(type=FILE, name=1, fd=1, parent=1),
        entry(type=SYMLINK, name=2, target=0), entry(type=FILE, name=2, parent=1, fd=2, executable=1)]
put_tree = put(TREE, with_bytes(b"plain"), with_bytes(b"deep", True), with_bytes(b""))
put_again = put(TREE, with_bytes(b"plain"), with_bytes(b"other", True), with_bytes(b""), number=1)
tagged_tree = put(TREE, with_bytes(b"plain"), with_bytes(b"deep", True), bytes([3, 1, 7]), tag=0)


def materialize(**values):
    return call("materialize", fds=FOLDER, **values) + WAIT


def remove(name=0):
    return call("remove", fds=FOLDER, name=name) + WAIT


write("requests", {name: b"\0" + data for name, data in {
    "nothing": b"",
    "ping": call("ping") + WAIT,
    "each-method": b"".join(call(method) for method in CALLS if method != "stop"),
    "stop": call("stop") + call("ping") + call("tags"),
    "put-file": put_file(b"hello") + call("cat", digest=0) + call("cat", digest=1) + WAIT,
    "put-tree": put_tree + b"".join(call("ls", digest=i) for i in range(8)),
    "put-twice": put_tree + put_again,
    "put-of-two-clients": put(TREE, *[with_bytes(b"x")] * 3, client=0) + put(TREE, *[with_bytes(b"x")] * 3, client=1),
    "put-aborted": call("put", step=BEGIN) + call("put", step=ENTRIES, put=0, fds=opened(with_bytes(b"a")),
                   entries=b"\1" + entry(type=FILE, name=0, fd=0)) + call("put", step=ABORT, put=0),
    "put-left": call("put", step=BEGIN) + call("put", step=ENTRIES, put=0, fds=opened(bytes([3, 4, 9])),
                entries=b"\1" + entry(type=FILE, name=0, fd=0)) + bytes([1]),
    "put-large": b"".join(put([entry(type=FILE, fd=0)], bytes([3, 4, i]), number=i) for i in range(12)),
    "put-says-bytes": call("put", step=BEGIN, bytes=6) + WAIT + call("put", step=BEGIN, bytes=10) + WAIT,
    "put-of-what-is-no-file": b"".join(
        call("put", step=BEGIN) + call("put", step=ENTRIES, put=i, fds=opened(bytes([sort, 0, 0])),
                                       entries=b"\1" + entry(type=FILE, name=0, fd=0)) + WAIT
        for i, sort in enumerate((0, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17))),
    "put-bad-names": b"".join(put([entry(type=FILE, name=i, fd=0)], with_bytes(b"x"), number=i - 4) for i in range(4, 11)),
    "put-same-names": put([entry(type=FILE, name=0, fd=0), entry(type=DIRECTORY, name=0)], with_bytes(b"x")),
    "materialize": tagged_tree + materialize(tag=0, name=0) + materialize(tag=0, name=1, mode=1) +
                   materialize(tag=0, name=2, mode=2, writable=1) + materialize(tag=0, name=0) + remove(0) + remove(1),
    "materialize-by-digest": put_tree + b"".join(materialize(digest=i, name=i % 4) + remove(i % 4) for i in range(8)),
    "materialize-file": put_file(b"hello") + b"".join(
        materialize(digest=i, name=i % 4, file=1, executable=i & 1) for i in range(8)),
    "materialize-bad-names": tagged_tree + b"".join(materialize(tag=0, name=i) for i in range(4, 12)),
    "materialize-into-what-is-no-folder": tagged_tree + b"".join(
        call("materialize", tag=0, name=0, fds=opened(bytes([sort, 0, 0]))) for sort in range(1, 18)),
    "materialize-path": tagged_tree + call("materialize", tag=0, path=0) + call("remove", path=1),
    "materialize-cancelled": tagged_tree + call("materialize", tag=0, fds=FOLDER, name=0) + call("cancel", id=4),
    "materialize-left": tagged_tree + call("materialize", tag=0, fds=FOLDER, name=0) + bytes([1]),
    "materialize-by-another": tagged_tree + b"\x90" + call("materialize", client=1, tag=0, fds=FOLDER, name=3)[1:] +
                              call("remove", client=1, fds=FOLDER, name=3),
    "leases": tagged_tree + materialize(tag=0, name=0, lease=0) + materialize(tag=0, name=1, lease_connection=1) +
              materialize(tag=0, name=2, lease=2) + call("gc", to=0),
    "directory-known": put_file(directory(b"d") + symlink(b"s", b"t")) + b"".join(
        materialize(digest=i, name=0) + remove() for i in range(8)),
    "directory-malformed": b"".join(put_file(bad, i) for i, bad in enumerate((
        file(b".."), file(b"b") + file(b"a"), file(b"a") * 2, b"\x0a\xff", symlink(b"a/b", b"t")))) + b"".join(
            materialize(digest=i, name=i % 4) + call("has", digests=bytes([1, i]), tree=1) for i in range(8)),
    "tags": tagged_tree + call("tag", name=1, digest=1) + call("tags") + call("tag", name=1, delete=1) +
            call("tag", name=3, digest=1) + call("tag", name=8, digest=1) + call("tag", client=1, name=0, delete=1),
    "has": tagged_tree + call("has", digests=bytes([5, 0, 1, 2, 0x18, 0x20]), tree=1) + call("has", digests=0xE0),
    "lists": tagged_tree + call("trees", sizes=1) + call("trees", offset=1, limit=1) + call("stats") +
             call("ls", tag=0, path=3) + call("ls", tag=0, path=5) + call("ls", tag=0, offset=1, limit=1),
    "gc": put_tree + call("gc", to=0, dry_run=1) + call("gc", to=0, progress=1) + call("gc"),
    "verify": put_tree + call("verify", progress=1) + call("verify", repair=1) + call("cancel", id=5),
    "odd": b"".join(call("cat", odd=odd, digest=0) for odd in range(16)),
    "any-values": b"".join(call("ls", digest=bytes([ANY + i]) + (b"\2xy" if i > 12 else b"")) for i in range(16)),
    "many-descriptors": call("put", step=ENTRIES, put=0, fds=0xE0) + call("materialize", fds=0xE0) + WAIT,
    "wrong-number-of-descriptors": call("cat", digest=0) + call("materialize", fds=bytes([29, 0]), name=0),
    "cut": put_tree + call("ls", action=b"\4\x80", digest=0) + call("ping") + bytes([1]) + call("ping"),
    "half-closed": call("ping") + bytes([2, 1]) + call("stats") + bytes([0x12, 0]),
    "bytes": bytes([5, 12]) + request(b"\x80")[:12] + bytes([1, 0, 5, 1, 0xC1, 0]),
    "not-read": b"".join(call("stats") for _ in range(60)) + bytes([6]),
}.items()})



# ---- an index: what is done to it

def raw(database, wal=b""):
    return b"\0" + len(database).to_bytes(2, "big") + database + wal


def damaged(*changes, wal=(), running=False):
    """Each change: where, how, and what that takes."""
    return b"".join([bytes([2 if running else 1])] + [
        bytes([len(part)]) + b"".join(at.to_bytes(3, "big") + bytes([how]) + rest for at, how, rest in part)
        for part in (changes, wal)])


def flip(at, bit=0):
    return at, 6 * bit, b""


def overwrite(at, data):
    return at, 2, bytes([len(data)]) + data


def cut(at):
    return at, 3, b""


def move(to, page):
    return to * 4096, 4, (page * 4096).to_bytes(3, "big")


GONE = (0, 5, b"")
STATEMENTS, VALUES = 41, 23
HEADER = b"SQLite format 3\0\x10\0\2\2\0\x40\x20\x20"

write("index", {
    "none": damaged(GONE),
    "empty": raw(b""),
    "no-database": raw(b"hello"),
    "header": raw(HEADER + b"\0" * 80),
    "header-newer": raw(HEADER + b"\0" * 39 + b"\2" + b"\0" * 40),
    "header-cut": raw(HEADER + b"\0" * 39 + b"\2" + b"\0" * 20),
    "wal-alone": raw(b"", b"\x37\x7f\6\x82\0\x2d\xe2\x18\0\0\x10\0" + b"\0" * 52),
    "whole": damaged(),
    "whole-with-wal": damaged(running=True),
    "without-wal": damaged(running=True, wal=[GONE]),
    "wal-without-database": damaged(GONE, running=True),
    "cut": damaged(cut(5000)),
    "cut-page": damaged(cut(8192)),
    "wal-cut": damaged(running=True, wal=[cut(20000)]),
    "wal-header": damaged(running=True, wal=[flip(3)]),
    "wal-frame": damaged(running=True, wal=[flip(5000)]),
    "version": damaged(overwrite(60, b"\0\0\0\2")),
    "application": damaged(overwrite(68, b"abcd")),
    "page-size": damaged(overwrite(16, b"\2\0")),
    "format": damaged(overwrite(18, b"\3\3")),
    "read-only-format": damaged(overwrite(18, b"\3")),
    "freelist": damaged(overwrite(32, b"\0\0\0\2\0\0\0\1")),
    "schema-page": damaged(flip(101), flip(4000)),
    "root-zero": damaged(overwrite(4096, bytes(200))),
    "pages-alike": damaged(move(2, 1), move(3, 1)),
    "cell": damaged(flip(16383), flip(20479, 7)),
    **{"rows-%02d" % i: b"\3" + bytes([i, i % VALUES]) for i in range(STATEMENTS)},
    **{"values-%02d" % i: b"\3" + bytes([3, i, 12, i, 0, i]) for i in range(VALUES)},
})

# ---- dictionaries: the names of methods and of their keys, as they stand in a message and in text

def words():
    """What the daemon's tables call its methods and their keys."""
    found = set()
    folder = os.path.join(HERE, "..", "..", "daemon")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".c"):
            with open(os.path.join(folder, name), encoding="utf-8") as source:
                text_of = source.read()
            found.update(re.findall(r"WIRE_(?:FIELD|OPTIONAL)\(struct \w+, (\w+),", text_of))
            table = re.search(r"struct method server_methods\[\] = \{(.*?)^\};", text_of, re.DOTALL | re.MULTILINE)
            if table:
                found.update(re.findall(r'\{ "(\w+)"', table.group(1)))
    return sorted(found | {"begin", "entries", "commit", "abort", "link", "reflink", "copy", "file", "directory", "symlink"})


with open(os.path.join(HERE, "wire.dict"), "w", encoding="ascii") as dictionary:
    dictionary.write("# SPDX-License-%s: Apache-2.0\n# Written by make-corpus.py.\n" % "Identifier")
    for word in words():
        dictionary.write('"\\x%02x%s"\n' % (0xA0 | len(word), word))
