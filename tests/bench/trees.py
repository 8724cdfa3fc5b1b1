# SPDX-License-Identifier: Apache-2.0
"""The trees of the benchmark: made up, written to disk, encoded as Directory messages, and told to floor(1).

A directory is a dict: name -> File, dict (a directory), or str (a symlink's target).
"""

import hashlib
import os
import random


class File:
    def __init__(self, data, executable=False):
        self.data = data
        self.executable = executable
        self.hash = hashlib.sha256(data).hexdigest()
        self.digest = "%s/%d" % (self.hash, len(data))


def many_small(seed, tops=10, subs=99, files=10):
    """10,000 files of 200 to 4,096 bytes in 1,000 directories below the root, every tenth executable."""
    rng = random.Random(seed)

    def some_files():
        return {"file-%d.o" % i: File(rng.randbytes(rng.randint(200, 4096)), i == 0) for i in range(files)}

    def top():
        return some_files() | {"sub-%02d" % i: some_files() for i in range(subs)}

    return {"top-%02d" % i: top() for i in range(tops)}


def few_large(seed, files=8, size=16 << 20):
    rng = random.Random(seed)
    return {"large-%d" % i: File(rng.randbytes(size)) for i in range(files)}


def small(seed, files=10):
    rng = random.Random(seed)
    return {"file-%d.o" % i: File(rng.randbytes(rng.randint(200, 4096)), i == 0) for i in range(files)}


def variant(tree, mark):
    """The same files, but no Directory in common with any other mark's."""
    return {name: variant(entry, mark) if isinstance(entry, dict) else entry
            for name, entry in tree.items()} | {"variant": mark}


def with_change(tree, path, data):
    """The same tree with other bytes in one file; what is not on the path is shared."""
    name, rest = path[0], path[1:]
    changed = with_change(tree[name], rest, data) if rest else File(data, tree[name].executable)
    return tree | {name: changed}


def write(tree, path):
    os.mkdir(path)
    for name, entry in tree.items():
        where = os.path.join(path, name)
        if isinstance(entry, dict):
            write(entry, where)
        elif isinstance(entry, str):
            os.symlink(entry, where)
        else:
            with open(where, "wb") as file:
                file.write(entry.data)
                os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)


def count_files(tree):
    return sum(count_files(entry) if isinstance(entry, dict) else isinstance(entry, File) for entry in tree.values())


def varint(value):
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """A protobuf field: bytes as they are, an integer as varint."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def digest_message(digest):
    hash_, size = digest.split("/")
    return field(1, hash_.encode()) + (field(2, int(size)) if size != "0" else b"")


def encode(tree):
    """The Directory messages of a tree in canonical form, children first, the root last: [(digest, bytes)]."""
    files, directories, symlinks, messages = [], [], [], []
    for name, entry in sorted(tree.items(), key=lambda pair: pair[0].encode()):
        head = field(1, name.encode())
        if isinstance(entry, dict):
            messages += encode(entry)
            directories.append(field(2, head + field(2, digest_message(messages[-1][0]))))
        elif isinstance(entry, str):
            symlinks.append(field(3, head + field(2, entry.encode())))
        else:
            executable = field(4, 1) if entry.executable else b""
            files.append(field(1, head + field(2, digest_message(entry.digest)) + executable))
    message = b"".join(files + directories + symlinks)
    return messages + [("%s/%d" % (hashlib.sha256(message).hexdigest(), len(message)), message)]


def digest_of(tree):
    return encode(tree)[-1][0]


def plan(tree):
    """The tree as tests/bench/plan.h wants it."""
    lines, queue, numbered = [], [tree], 1
    for directory in queue:
        lines.append("D")
        for name, entry in directory.items():
            if isinstance(entry, dict):
                queue.append(entry)
                lines.append("d %d %s" % (numbered, name))
                numbered += 1
            elif isinstance(entry, str):
                lines.append("l %s %s" % (entry, name))
            else:
                lines.append("%s %s/%s %s" % ("x" if entry.executable else "p", entry.hash[:2], entry.hash, name))
    return "\n".join(lines) + "\n"
