# SPDX-License-Identifier: Apache-2.0
"""One door for each dependency, as tests/lint/doors has it."""

from fnmatch import fnmatch

from lint import bare, claims, files, lines_matching, read, table

SOURCES = files("common/*.[ch]", "daemon/*.[ch]", "client/*.[ch]")
ROWS = [words for _, words in table("doors")]
HEADERS = [words[1:] for words in ROWS if words[0] == "include"]
CALLS = [words[1:] for words in ROWS if words[0] == "call"]


def headers():
    """A library's header is included only at its door"""
    for path in SOURCES:
        for number, match in lines_matching(bare(read(path), strings=True), r'^#\s*include\s+[<"]([^">]+)[">]'):
            included = match.group(1)
            doors = [door for header, *doors in HEADERS if fnmatch(included, header) for door in doors]
            if doors and not any(fnmatch(path, door) for door in doors):
                yield "%s:%d: %s belongs to %s" % (path, number, included, " ".join(doors))


def calls():
    """System calls are made only at their door"""
    for where, door, *functions in CALLS:
        pattern = r"(?<![\w.>])(?<!struct )(%s)\s*\(" % "|".join(functions)
        for path in SOURCES:
            if fnmatch(path, where) and not fnmatch(path, door):
                for number, match in lines_matching(bare(read(path)), pattern):
                    yield "%s:%d: %s() belongs to %s" % (path, number, match.group(1), door)


claims(headers, calls)
