#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the seeds of the fuzz targets into corpus/: one small file for each thing that a parser meets.

What the fuzzer found lies there too, under names that begin with `found-`, and is left alone.
"""

import hashlib
import os

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
