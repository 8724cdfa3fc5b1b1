#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Trees that should not be: each is refused, in words that name the Directory and the entry, before anything is made;
asked for by itself and when it lies in a tree that is fine otherwise."""

import hashlib
import os

from reapi import bytes_field, digest_of, encode_digest, encode_directory, number_field, text, varint
from rpc import RpcError, ready_client
from story import Story

GOOD = b"a file that is there"
FILE, DIRECTORY, SYMLINK, PROPERTIES, NEGATIVE = 1, 2, 3, 5, (1 << 64) - 1
HASH = digest_of(GOOD)[0]
EMPTY = hashlib.sha256(b"").hexdigest()


def node(field, name, hash_=HASH, size=len(GOOD), more=b""):
    digest = bytes_field(1, hash_.encode()) + number_field(2, size)
    return bytes_field(field, bytes_field(1, name) + bytes_field(2, digest) + more)


def file(name, **digest):
    return node(FILE, name, **digest)


def folder(name, **digest):
    return node(DIRECTORY, name, **digest)


def link(name, target=b"x", more=b""):
    return bytes_field(SYMLINK, bytes_field(1, name) + bytes_field(2, target) + more)


def time(seconds, nanos=0):
    return bytes_field(2, number_field(1, seconds) + number_field(2, nanos))


def prop(name):
    return bytes_field(1, bytes_field(1, name) + bytes_field(2, b"value"))


def of_file(*properties):
    """A file with node properties."""
    return file(b"f", more=bytes_field(6, b"".join(properties)))


def bad_names():
    kinds = (("file", file), ("directory", folder), ("symlink", link))
    for kind, make in kinds:
        for name in b"", b".", b"..", b"a/b", b"/", b"/etc/passwd", b"../up", b"x" * 256:
            yield "%s %r" % (kind, name[:12]), make(name), "%s '%s': a name is 1 to 255" % (kind, name.decode())
        for name, shown in (b"a\0b", "a"), (b"\0", ""):
            yield "%s %r" % (kind, name), make(name), "%s '%s': a NUL is in its name" % (kind, shown)
        yield "%s: not sorted" % kind, make(b"b") + make(b"a"), "%s 'a': the names are not in ascending order" % kind
        yield "%s: sorted as numbers, not as bytes" % kind, make(b"f9") + make(b"f10"), \
            "%s 'f10': the names are not in ascending order" % kind
        yield "%s: twice" % kind, make(b"a") + make(b"a"), "%s 'a': the name is used twice" % kind
        yield "%s: twice, and not UTF-8" % kind, make(b"\xff\xfe") + make(b"\xff\xfe"), \
            r"%s '\xff\xfe': the name is used twice" % kind
    for (kind, make), (other, also) in (kinds[:2], kinds[::2], kinds[1:]):
        yield "a name of a %s and a %s" % (kind, other), make(b"x") + also(b"x"), \
            "'x': the name is used twice, for a %s and a %s" % (kind, other)


def bad_digests():
    for kind, make in ("file", file), ("directory", folder):
        for hash_ in "", HASH[1:], HASH + "0", HASH.upper(), "g" + HASH[1:], "../" + HASH[3:], HASH[:-1] + "\n":
            yield "%s: hash %r" % (kind, hash_[:6]), make(b"n", hash_=hash_), "%s 'n'" % kind
        for size in NEGATIVE, 1 << 63:
            yield "%s: size %d" % (kind, size), make(b"n", size=size), "%s 'n': its size is negative" % kind
        yield "%s: the empty blob with a size" % kind, make(b"n", hash_=EMPTY, size=1), "%s 'n': its digest has" % kind
        yield "%s: another blob without one" % kind, make(b"n", size=0), "%s 'n': its digest has" % kind
    for field, kind in (FILE, "file"), (DIRECTORY, "directory"):
        yield "%s: no digest" % kind, bytes_field(field, bytes_field(1, b"n")), "%s 'n': its digest is missing" % kind


def bad_links():
    for target in b"", b"x" * 4096:
        yield "a target of %d bytes" % len(target), link(b"s", target), "symlink 's': a target is 1 to 4095 bytes"
    yield "a target with a NUL", link(b"s", b"a\0b"), "symlink 's': a NUL is in its name, target or properties"


def bad_properties():
    for what in time(1 << 62), time(NEGATIVE << 40 & NEGATIVE), time(0, 1000000000), time(0, NEGATIVE):
        yield "a time out of range", of_file(what), "file 'f': its mtime is out of range"
        yield "a Directory's own", bytes_field(PROPERTIES, what), "directory '.': its mtime is out of range"
    yield "properties not sorted", of_file(prop(b"b"), prop(b"a")), "file 'f': its properties are not in ascending order"
    yield "a property twice", of_file(prop(b"a"), prop(b"a")), "file 'f': its properties are not in ascending order"
    yield "one without a name", of_file(prop(b"")), "file 'f': one of its properties has no name"
    yield "a Directory's own twice", bytes_field(PROPERTIES, prop(b"a")) * 2, "its properties come twice"
    yield "a symlink's", link(b"s", more=bytes_field(4, prop(b"b") + prop(b"a"))), "symlink 's': its properties are not in"


def no_messages():
    for what, message in (
            ("no message at all", b"this is no Directory"), ("cut off in a length", b"\x0a"), ("cut off in a file", file(b"n")[:-1]),
            ("a byte too many", file(b"n") + b"\x00"), ("a length of 2^64 - 1", b"\x0a" + varint(NEGATIVE)),
            ("a group", b"\x0b\x0c"), ("field 0", b"\x02\x00"), ("an endless number", b"\x80" * 20)):
        yield what, message, "malformed"
    yield "a number for a file", b"\x08\x01", "field 1: it is no message"
    yield "a file of 100 KB", file(b"n" * 100000), "field 1: it is too large"
    yield "a file that is no message", bytes_field(FILE, b"\x0a"), "file 0: malformed"


def lies_about_sizes():
    yield "a file's size", file(b"f", size=len(GOOD) + 1), "'f'"


def accepted():
    """What is allowed, though it may look odd."""
    yield "names that are no UTF-8", file(b"\xff\xfe") + link(b"\xff")
    yield "targets that lead out", link(b"a", b"/etc/passwd") + link(b"b", b"../../..") + link(b"c", b"c")
    yield "names with blanks, quotes and line ends", file(b"\n") + file(b" '\"\\") + file(b"-rf") + file(b"...")
    yield "unknown fields", file(b"f") + bytes_field(100, b"whatever") + number_field(101, 7)


class Cache:
    def __init__(self, story):
        self.story = story
        self.client = ready_client(story.socket)
        self.out = os.path.join(story.dir, "out")
        os.mkdir(self.out)

    def store(self, *blobs):
        """As plain files: nobody has looked at what is in them."""
        fds = []
        for i, blob in enumerate(blobs):
            fds.append(os.memfd_create("blob"))
            os.write(fds[-1], blob)
        number = self.client.call("put", {"step": "begin"})["put"]
        entries = [{"type": "file", "name": b"%d" % i, "executable": False, "fd": i} for i in range(len(fds))]
        self.client.call("put", {"step": "entries", "put": number, "entries": entries}, fds)
        self.client.call("put", {"step": "commit", "put": number})
        for fd in fds:
            os.close(fd)

    def materialize(self, message):
        """Return: what is refused of it, as code and words, or None."""
        at = os.open(self.out, os.O_PATH | os.O_DIRECTORY)
        try:
            self.client.call("materialize", {"digest": text(digest_of(message)), "name": b"t"}, [at])
            return None
        except RpcError as error:
            return error.code, error.message
        finally:
            os.close(at)


def around(message):
    """A tree that is fine but for a Directory three levels down."""
    middle = encode_directory([(b"g", digest_of(GOOD), False)], [(b"bad", digest_of(message))], [])
    return middle, encode_directory([(b"g", digest_of(GOOD), True)], [(b"m", digest_of(middle))], [(b"s", b"m")])


def refused(story, cache, what, message, words):
    middle, root = around(message)
    cache.store(GOOD, message, middle, root)
    answers = cache.materialize(message), cache.materialize(root), cache.materialize(root)
    story.check("refused by name: %s" % what, all(
        answer and answer[0] == "invalid_argument" and "Directory %s" % text(digest_of(message)) in answer[1] and words in answer[1]
        for answer in answers), answers)


def main():
    with Story() as story:
        story.start_daemon()
        cache = Cache(story)
        before = cache.client.call("stats")
        for table in bad_names, bad_digests, bad_links, bad_properties, no_messages, lies_about_sizes:
            for what, message, words in table():
                refused(story, cache, what, message, words)
            story.check("nothing was made: %s" % table.__name__, not os.listdir(cache.out) and not story.litter(cache.out),
                        os.listdir(cache.out))
        after = cache.client.call("stats")
        story.check_is("no file, directory or symlink was begun", [
            after[name] - before[name] for name in ("directories_created", "symlinks_created", "files_linked", "files_created")], [0] * 4)
        for what, message in accepted():
            cache.store(GOOD, message)
            story.check_is("made: %s" % what, cache.materialize(message), None)
            os.rename(cache.out + "/t", cache.out + "/" + what)
        story.check_is("a symlink is what the tree says", os.readlink(cache.out + "/targets that lead out/a"), "/etc/passwd")
        cache.client.close()


main()
