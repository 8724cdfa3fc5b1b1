# SPDX-License-Identifier: Apache-2.0
"""The sandbox of a systemd unit, as far as it can be had without systemd as process 1: user, capabilities, no new
privileges, and the filters of system calls that the unit asks for, by setpriv and libseccomp.

A call outside of the unit's filter kills here instead of failing with EPERM: so a test that goes through says that
none was made.

Run by words(), as text, since the sandbox's user may not be able to read this file:

    python3 -c TEXT CALL,CALL... COMMAND...        load the filters and become the command
"""

import ctypes
import errno
import os
import shutil
import subprocess
import sys

LIBRARY = "libseccomp.so.2"
ALLOW, KILL = 0x7FFF0000, 0x80000000
NAMESPACES = 0x7E020080  # CLONE_NEW...
NOT_EQUAL, MASKED_EQUAL = 1, 7  # enum scmp_compare
AF_UNIX, PROT_WRITE, PROT_EXEC, SHM_EXEC = 1, 2, 4, 0o100000


def read_unit(path):
    """The options of a unit, each with all of its values."""
    options = {}
    with open(path) as unit:
        for line in unit:
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                options.setdefault(name, []).append(value)
    return options


def lacking():
    """What is missing to have such a sandbox here; nothing: an empty text."""
    for program in "systemd-analyze", "setpriv":
        if not shutil.which(program):
            return "there is no %s" % program
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return "there is no %s" % LIBRARY
    return "" if os.getuid() == 0 else "only root can take another user's number"


def expand(words):
    """The system calls that words of a filter stand for."""
    calls = set()
    for word in words:
        if not word.startswith("@"):
            calls.add(word)
            continue
        text = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", word], capture_output=True,
                              check=True, text=True).stdout
        calls |= expand(line.strip() for line in text.splitlines()[1:] if line.strip() and "#" not in line)
    return calls


def allowed_calls(unit):
    """SystemCallFilter=, line by line (systemd.exec(5)): the first one is a list of what is allowed."""
    calls = expand(["@default"])
    for value in unit["SystemCallFilter"]:
        if value.startswith("~"):
            calls -= expand(value[1:].split()) - expand(["@default"])
        else:
            calls |= expand(value.split())
    return calls


def words(unit, uid):
    """What to put in front of a command, so that it runs as the unit's would, by the number of a user."""
    caps = ["+" + cap[4:].lower() for cap in unit.get("CapabilityBoundingSet", [""])[0].split()]
    ambient = ["+" + cap[4:].lower() for cap in unit.get("AmbientCapabilities", [""])[0].split()]
    with open(__file__) as file:
        text = file.read()
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups",
            "--inh-caps", ",".join(["-all", *ambient]), "--bounding-set", ",".join(["-all", *caps]),
            "--ambient-caps", ",".join(["-all", *ambient]), "--no-new-privs",
            sys.executable, "-B", "-c", text, ",".join(sorted(allowed_calls(unit)))]


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    def __init__(self, otherwise):
        self.library = ctypes.CDLL(LIBRARY)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(otherwise)))

    def rule(self, action, call, *comparisons):
        number = self.library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # else of another architecture, or newer than the library
            array = (Comparison * len(comparisons))(*comparisons)
            r = self.library.seccomp_rule_add_array(self.context, ctypes.c_uint32(action), number, len(comparisons),
                                                    array)
            assert r == 0, (call, r)

    def load(self):
        r = self.library.seccomp_load(self.context)
        assert r == 0, r


def fail(error):
    return 0x00050000 | error


def load(calls):
    """SystemCallFilter=, RestrictAddressFamilies=AF_UNIX, RestrictNamespaces=, MemoryDenyWriteExecute=."""
    restrict = Filter(ALLOW)
    restrict.rule(fail(errno.EAFNOSUPPORT), "socket", Comparison(0, NOT_EQUAL, AF_UNIX))
    for call, argument in ("unshare", 0), ("clone", 0), ("setns", 1):
        for bit in range(32):
            if NAMESPACES >> bit & 1:
                restrict.rule(fail(errno.EPERM), call, Comparison(argument, MASKED_EQUAL, 1 << bit, 1 << bit))
    restrict.rule(fail(errno.ENOSYS), "clone3")
    both = PROT_WRITE | PROT_EXEC
    restrict.rule(fail(errno.EPERM), "mmap", Comparison(2, MASKED_EQUAL, both, both))
    restrict.rule(fail(errno.EPERM), "mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    restrict.rule(fail(errno.EPERM), "pkey_mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    restrict.rule(fail(errno.EPERM), "shmat", Comparison(2, MASKED_EQUAL, SHM_EXEC, SHM_EXEC))
    allow = Filter(KILL)
    for call in calls:
        allow.rule(ALLOW, call)
    allow.rule(ALLOW, "seccomp")  # for the other one, which is loaded after this
    allow.load()
    restrict.load()


if __name__ == "__main__":
    load(sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])
