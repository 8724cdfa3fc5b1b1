# SPDX-License-Identifier: Apache-2.0
"""A published inode never changes: what can change one is called only where tests/lint/changes says."""

import re

from lint import bare, claims, files, functions, read, table

ROWS = [words for _, words in table("changes")]
DOES = {word for kind, *words in ROWS if kind == "does" for word in words}
HARMLESS = {word for kind, *words in ROWS if kind == "harmless" for word in words}
PLACES = {(path, function, call) for kind, path, function, calls, _ in (row for row in ROWS if row[0] == "at")
          for call in calls.split(",")}
REASONS = {row[4] for row in ROWS if row[0] == "at"}

CALL = re.compile(r"(?<![\w.>])(%s)\s*\(|\bO_(?:WRONLY|RDWR|APPEND|TRUNC|CREAT|TMPFILE)\b" % "|".join(sorted(DOES)))
DISK = "daemon/disk*.[ch]"  # the door itself


def found_in(path, text):
    """What changes inodes in a source: (path, enclosing function, call) and its line."""
    text = bare(text)
    spans = []
    for start, n, head in functions(text):
        name = re.match(r"[^(]*?(\w+) ?\(", head)
        spans.append((start, start + n, name.group(1) if name else head))
    for number, line in enumerate(text.split("\n"), 1):
        for match in CALL.finditer(line):
            inside = [name for start, end, name in spans if start <= number < end]
            yield (path, inside[-1] if inside else "-", match.group(1) or "open"), number


def all_found():
    door = set(files(DISK))
    for path in files("daemon/*.[ch]"):
        if path not in door and not path.endswith(".pb-c.c"):
            yield from found_in(path, read(path))


def named_places():
    """What can change an inode is called only where the table says why it is no published one"""
    for place, number in all_found():
        if place not in PLACES:
            yield "%s:%d: %s() in %s()" % (place[0], number, place[2], place[1])


def true_table():
    """Every place in the table is there, for a reason that the table knows"""
    there = {place for place, _ in all_found()}
    for place in sorted(PLACES - there):
        yield "%s has no %s() in %s()" % (place[0], place[2], place[1])
    for reason in sorted(REASONS - {"draft", "private", "own", "folder", "none"}):
        yield "'%s' is no reason" % reason


def known_functions():
    """Every function of disk.h is known as one that changes inodes, or one that does not"""
    declared = {match for path in files("daemon/disk*.h")
                for match in re.findall(r"\b(disk_\w+)\(", bare(read(path)))}
    for name in sorted(declared - DOES - HARMLESS):
        yield "%s is in neither list" % name
    for name in sorted({name for name in DOES | HARMLESS if name.startswith("disk_")} - declared):
        yield "%s is not in disk.h" % name


def can_fail():
    """A chmod, a write or a writable open where blobs are linked, read or looked at would be seen"""
    for path, function in (("daemon/blob.c", "blob_look"), ("daemon/blob_link.c", "blob_link"),
                           ("daemon/blob.c", "open_kind"), ("daemon/blob.c", "scan_entry")):
        text = read(path)
        head = re.search(r"(?m)^(?:static )?\w[^;{}]*\b%s\([^;{}]*\)\n\{\n" % function, text)
        for change in "disk_fchmod(fd, 0644);", "disk_openat(0, name, O_RDWR, 0);", "write(fd, name, 1);":
            changed = text[:head.end()] + "\t" + change + "\n" + text[head.end():]
            new = {place for place, _ in found_in(path, changed)} - PLACES
            if [place[1] for place in new] != [function]:
                yield "%s in %s() is not seen" % (change, function)


claims(named_places, true_table, known_functions, can_fail)
