# SPDX-License-Identifier: Apache-2.0
"""Includes go downward, in the order of tests/lint/layers."""

import os
import re

from lint import bare, claims, files, lines_matching, read, table

INCLUDE = r'^#\s*include\s+"([^"]+)"'
ANY_INCLUDE = r'^#\s*include\s+[<"]([^">]+)[">]'
MAY_USE = {"common": ["common"], "daemon": ["daemon", "common"], "client": ["client", "common"]}
SOURCES = files("common/*.[ch]", "daemon/*.[ch]", "client/*.[ch]")

LAYERS = {}
for depth, words in table("layers"):
    for module in words[1:]:
        LAYERS[words[0] + "/" + module] = depth


def module_of(path):
    """common/wire_read.c belongs to common/wire, unless it has a line of its own; None when it has neither."""
    name = os.path.splitext(path)[0]
    while name not in LAYERS:
        name, separator, _ = name.rpartition("_")
        if not separator:
            return None
    return name


def is_generated(path):
    return path.endswith(".pb-c.h")


def includes(path):
    for number, match in lines_matching(bare(read(path), strings=True), INCLUDE):
        yield number, match.group(1)


def known():
    """Every module has its place in the layers"""
    for path in SOURCES:
        if module_of(path) is None:
            yield "%s: in no line of tests/lint/layers" % path


def folders():
    """common/ knows neither daemon/ nor client/, and these two not each other"""
    for path in SOURCES:
        for number, included in includes(path):
            if os.path.dirname(included).split("/")[0] not in MAY_USE[path.split("/")[0]] and not is_generated(included):
                yield "%s:%d: includes %s" % (path, number, included)


def downward():
    """Includes go downward"""
    for path in SOURCES:
        own = module_of(path)
        for number, included in includes(path):
            other = module_of(included)
            if None in (own, other) or own == other or is_generated(included):
                continue
            if own.split("/")[0] == other.split("/")[0] and LAYERS[other] <= LAYERS[own]:
                yield "%s:%d: includes %s, which is not below" % (path, number, included)


def own_first():
    """A file includes its own module's header first"""
    for path in files("common/*.c", "daemon/*.c", "client/*.c"):
        first = [match.group(1) for _, match in lines_matching(bare(read(path), strings=True), ANY_INCLUDE)][:1]
        own = [header for header in SOURCES if header.endswith(".h") and module_of(header) == module_of(path)]
        if own and first and first[0] not in own:
            yield "%s: the first include is %s" % (path, first[0])


def from_root():
    """Includes of ours name the path from the root"""
    for path in files("*.c", "*.h"):
        for number, included in includes(path):
            if "/" not in included:
                yield "%s:%d: \"%s\"" % (path, number, included)


def guards():
    """Header guards are named after the path"""
    for path in files("common/*.h", "daemon/*.h", "client/*.h"):
        guard = "DIRCACHE_" + re.sub(r"[^A-Z0-9]", "_", path[:-2].upper()) + "_H"
        found = re.search(r"^#ifndef (\w+)\n#define (\w+)$", read(path), re.MULTILINE)
        if not found or found.groups() != (guard, guard):
            if path != "client/dircache.h":
                yield "%s: the guard is not %s" % (path, guard)


claims(known, folders, downward, own_first, from_root, guards)
