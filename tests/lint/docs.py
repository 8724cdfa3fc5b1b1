# SPDX-License-Identifier: Apache-2.0
"""The documentation names what there is, and nothing else."""

import os
import re

from lint import ROOT, claims, files, lines_matching, read


def read_or_nothing(path):
    return read(path) if os.path.exists(os.path.join(ROOT, path)) else ""


def in_table(path, macro):
    """The names in a .def file."""
    return re.findall(r"^%s\(\"?([\w-]+)" % macro, read(path), re.MULTILINE)


def compare(there, described, what, where):
    there, described = set(there), set(described)
    for name in sorted(there - described):
        yield "%s %s: not in %s" % (what, name, where)
    for name in sorted(described - there):
        yield "%s: there is no %s %s" % (where, what, name)


def section(title):
    """The text below a heading of the protocol's page, up to the next one."""
    found = re.search(r"^#+ %s$(.*?)(?=^#|\Z)" % title, read("docs/PROTOCOL.md"), re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


def commands():
    """dircache.1 describes every command"""
    described = re.findall(r"^\.It Ic ([\w-]+)", read_or_nothing("client/dircache.1"), re.MULTILINE)
    yield from compare(in_table("client/commands.def", "COMMAND"), described, "command", "client/dircache.1")


def options():
    """dircached.8 describes every option"""
    described = re.findall(r"^\.It Fl (?:\w , )?-([\w-]+)", read_or_nothing("daemon/dircached.8"), re.MULTILINE)
    there = in_table("daemon/options.def", "OPTION") + ["config", "help", "version"]
    yield from compare(there, described, "option", "daemon/dircached.8")


def methods():
    """docs/PROTOCOL.md describes every method"""
    table = re.search(r"struct method server_methods\[\] = \{(.*?)^\};", read("daemon/server.c"), re.DOTALL | re.MULTILINE)
    there = re.findall(r'\{ "(\w+)"', table.group(1)) if table else []
    text = read("docs/PROTOCOL.md").split("\n## Methods\n")[1].split("\n## ")[0]
    described = [name for line in re.findall(r"^### (.*)$", text, re.MULTILINE) for name in line.split(", ")]
    yield from compare(there, described, "method", "docs/PROTOCOL.md")


def counters():
    """docs/PROTOCOL.md describes every counter, in the words of counters.def"""
    there = re.findall(r"^COUNTER\((\w+), \"(.*)\"\)$", read("daemon/counters.def"), re.MULTILINE)
    described = re.findall(r"^\| `(\w+)` \| (.*) \|$", section("stats"), re.MULTILINE)
    yield from compare(map(": ".join, there), map(": ".join, described), "counter", "docs/PROTOCOL.md")


def links():
    """What a page links to is there"""
    for path in files("*.md"):
        for number, match in lines_matching(read(path), r"\]\(([^)#]+)"):
            target = os.path.join(ROOT, os.path.dirname(path), match.group(1))
            if "://" not in match.group(1) and not os.path.exists(target):
                yield "%s:%d: %s" % (path, number, match.group(1))


def tests_named():
    """docs/SECURITY.md names tests that there are"""
    claimed = {name for path in files("tests/unit/*.c")
               for name in re.findall(r"^START_TEST\((\w+)\)", read(path), re.MULTILINE)}
    page = "docs/SECURITY.md"
    for number, match in lines_matching(read(page), r"`(tests/[^`]+)`"):
        if not os.path.exists(os.path.join(ROOT, match.group(1))):
            yield "%s:%d: there is no %s" % (page, number, match.group(1))
    for number, match in lines_matching(read(page), r"`([a-z0-9]+(?:_[a-z0-9]+){4,})`"):
        if match.group(1) not in claimed:
            yield "%s:%d: there is no test %s" % (page, number, match.group(1))


claims(commands, options, methods, counters, links, tests_named)
