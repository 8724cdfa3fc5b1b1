#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The programs are built so that a mistake in memory is hard to use: what readelf sees of the flags in
m4/dircache.m4, in the programs that are installed."""

import os
import platform
import re
import shutil
import subprocess
import sys

X86 = platform.machine() in ("x86_64", "i686")


def readelf(path, *options):
    return subprocess.run(["readelf", "-W", *options, path], capture_output=True, check=True, text=True,
                          env=dict(os.environ, LC_ALL="C")).stdout


class Tap:
    """Claims, as story.py has them; there is no daemon here."""

    def __init__(self):
        self.n = self.n_failed = 0

    def check(self, claim, true, seen=""):
        self.n += 1
        print("%s %d - %s" % ("ok" if true else "not ok", self.n, claim))
        if not true:
            self.n_failed += 1
            print("#", seen[:2000].replace("\n", "\n# "))

    def skip(self, claim, reason):
        self.n += 1
        print("ok %d - %s # SKIP %s" % (self.n, claim, reason))


def segments(path):
    """Of each segment: its type and its flags, such as R E."""
    found = re.findall(r"^  ([A-Z_]+) +(?:0x[0-9a-f]+ +){5}([RWE ]{3})", readelf(path, "-l"), re.MULTILINE)
    return {(name, flags.replace(" ", "")) for name, flags in found}


def flags_of_the_compiler():
    """What configure chose, and whether the compiler optimizes."""
    with open(os.path.join(os.environ["top_builddir"], "Makefile")) as makefile:
        text = makefile.read()
    ours, users = (re.search(r"^%s = (.*)$" % name, text, re.MULTILINE).group(1) for name in ("DIRCACHE_CFLAGS", "CFLAGS"))
    return ours.split(), bool(re.findall(r"-O[123s]", users)) and "-O0" not in users


def program(tap, name):
    path = shutil.which(name)
    ours, optimized = flags_of_the_compiler()
    dynamic, symbols, parts = readelf(path, "-d"), readelf(path, "--dyn-syms"), segments(path)
    tap.check("%s lies at another address each time (PIE)" % name, "Flags: NOW PIE" in dynamic, dynamic)
    tap.check("%s: its tables of functions are read-only (full RELRO)" % name,
              ("GNU_RELRO", "R") in parts and "BIND_NOW" in dynamic, dynamic)
    tap.check("%s: its stack is not executable" % name, ("GNU_STACK", "RW") in parts, str(parts))
    tap.check("%s: nothing is both writable and executable" % name,
              not [part for part in parts if {"W", "E"} <= set(part[1])], str(parts))
    tap.check("%s: no text is relocated, no library is looked for beside the system's" % name,
              not re.search("TEXTREL|RPATH|RUNPATH", dynamic), dynamic)
    tap.check("%s: overwritten stack frames are found (stack protector)" % name, "__stack_chk_fail" in symbols, symbols)
    if optimized:
        tap.check("%s: calls of libc know the room that they have (fortified)" % name,
                  re.search(r"__\w+_chk@", symbols.replace("__stack_chk", "")), symbols)
    else:
        tap.skip("%s: calls of libc know the room that they have (fortified)" % name, "the compiler does not optimize")
    jumps(tap, name, path, ours)
    big_stack_frames(tap, name, path, ours)


def jumps(tap, name, path, ours):
    """The linker says it of a program only if every object in it does, and those of Debian's libc do not."""
    claim = "%s: jumps lead where jumps may lead, as far as it is up to us (IBT, SHSTK)" % name
    if X86 and "-fcf-protection" in ours:
        notes = readelf(os.path.join(os.path.dirname(path), "main.o"), "-n")
        tap.check(claim, "IBT" in notes and "SHSTK" in notes, notes)
    else:
        tap.skip(claim, "not with this processor or compiler")


def big_stack_frames(tap, name, path, ours):
    """ELF does not tell of it, but gcc writes its flags into what debuggers read."""
    claim = "%s: the stack cannot jump over its guard (stack clash)" % name
    producers = re.findall(r"DW_AT_producer.*(GNU C.*)", readelf(path, "--debug-dump=info")) if name == "dircached" else []
    if producers:
        lacking = [line for line in producers if "-fstack-clash-protection" not in line]
        tap.check(claim, not lacking, "\n".join(lacking))
    else:
        tap.check(claim + ", as the compiler was told", "-fstack-clash-protection" in ours, " ".join(ours))


def main():
    builddir = os.environ.get("builddir")
    if builddir:
        os.environ["top_builddir"] = builddir
        os.environ["PATH"] = "%s/client:%s/daemon:%s" % (builddir, builddir, os.environ["PATH"])
    if not shutil.which("readelf"):
        print("1..0 # SKIP there is no readelf")
        return 0
    if os.environ.get("DIRCACHE_SANITIZED"):
        print("1..0 # SKIP sanitizers are built with other flags")
        return 0
    tap = Tap()
    for name in "dircache", "dircached":
        program(tap, name)
    print("1..%d" % tap.n)
    return 1 if tap.n_failed else 0


sys.exit(main())
