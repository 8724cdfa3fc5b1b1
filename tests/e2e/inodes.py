# SPDX-License-Identifier: Apache-2.0
"""Watching the inodes of a store: nothing but their number of links may change once they have their name."""

import collections
import ctypes
import hashlib
import os
import re
import stat
import struct

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
LIBC = ctypes.CDLL(None, use_errno=True)


def store_files(store):
    """The paths of all that is published."""
    for kind in "blobs", "exec":
        for folder, _, names in os.walk(os.path.join(store, kind)):
            for name in names:
                yield os.path.join(folder, name)


def looks(fd):
    """Everything about an inode that must stay."""
    st = os.fstat(fd)
    return stat.filemode(st.st_mode), st.st_size, st.st_uid, st.st_gid, st.st_mtime_ns


def content(fd):
    with open("/proc/self/fd/%d" % fd, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Watch:
    """Inodes from when they are first seen to the end, also those that the store has no more."""

    Inode = collections.namedtuple("Inode", "path fd looks")

    def __init__(self, store):
        self.store = store
        self.inotify = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.inodes = {}
        self.watched = {}

    def close(self):
        for inode in self.inodes.values():
            os.close(inode.fd)
        os.close(self.inotify)

    def look(self):
        """Take in what is new. Its bytes are those of its name, or it would have no name."""
        wrong = []
        for path in store_files(self.store):
            try:
                fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            key = os.fstat(fd).st_ino
            if key in self.inodes:  # held open, so its number is nobody else's
                os.close(fd)
                continue
            watch = LIBC.inotify_add_watch(self.inotify, b"/proc/self/fd/%d" % fd, IN_MODIFY | IN_CLOSE_WRITE)
            self.inodes[key] = self.Inode(path, fd, looks(fd))
            self.watched[watch] = key
            if content(fd) != os.path.basename(path):
                wrong.append("%s has other bytes" % path)
        return wrong

    def events(self):
        """Who was written to, or was open for writing."""
        found = []
        try:
            data = os.read(self.inotify, 1 << 16)
        except BlockingIOError:
            return found
        while data:
            watch, mask, _, length = struct.unpack_from("iIII", data)
            data = data[16 + length:]
            if mask & (IN_MODIFY | IN_CLOSE_WRITE) and watch in self.watched:
                found.append("%s was written to, or could be" % self.inodes[self.watched[watch]].path)
        return found

    def changes(self):
        """What changed that must not, since the last time."""
        wrong = self.events()
        for inode in self.inodes.values():
            now = looks(inode.fd)
            if now != inode.looks:
                wrong.append("%s is %s, was %s" % (inode.path, now, inode.looks))
            elif content(inode.fd) != os.path.basename(inode.path):
                wrong.append("%s has other bytes" % inode.path)
        return wrong + self.look()


# ---- what the daemon asked of the kernel ----

TRACED = ("openat,linkat,renameat2,write,pwrite64,ftruncate,fallocate,sendfile,copy_file_range,ioctl,"
          "fchmod,fchmodat,?fchmodat2,chmod,utimensat,fsetxattr,setxattr")
CHANGES = ("write", "pwrite64", "ftruncate", "fallocate", "sendfile", "copy_file_range", "ioctl", "fchmod",
           "utimensat", "fsetxattr")
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
FD = re.compile(r"-?\w+<((?:[^<>\\]|\\.)*)>")
NAMED = re.compile(r'(?:\w+<((?:[^<>\\]|\\.)*)>), "((?:[^"\\]|\\.)*)"')
UNNAMED = re.compile(r"/#(\d+)$")


def calls(trace):
    """Calls with all behind their names, in the order in which they began; those that give names or descriptors, of
    which the result is needed, in the order of their ends."""
    begun = {}
    ends = "openat", "linkat"
    for line in trace:
        line = line.rstrip("\n")
        match = CALL.match(line)
        if match:
            pid, name, rest = match.groups()
            if rest.endswith("<unfinished ...>"):
                begun[pid] = rest[:-len("<unfinished ...>")]
                if name not in ends:
                    yield name, begun[pid]
            else:
                yield name, rest
        else:
            match = RESUMED.match(line)
            if match and match.group(2) in ends:
                yield match.group(2), begun.get(match.group(1), "") + match.group(3)


class Trace:
    """Follows which inodes have been published, and finds calls that change one."""

    def __init__(self, store):
        self.folders = tuple(os.path.join(store, kind) for kind in ("blobs", "exec"))
        self.published = set()  # numbers of inodes that had no name when they were written
        self.names = set()      # (folder, name) that are links to published inodes
        self.n_published = self.n_seen = 0
        self.wrong = []

    def is_published(self, path):
        unnamed = UNNAMED.search(path)
        if unnamed:
            return unnamed.group(1) in self.published
        return path.startswith(self.folders) and re.search(r"/[0-9a-f]{64}$", path) is not None

    def open(self, rest):
        writable = re.search(r"\bO_(WRONLY|RDWR|TRUNC|APPEND)\b", rest)
        if "O_TMPFILE" in rest:
            unnamed = UNNAMED.search((FD.findall(rest) or [""])[-1])
            if unnamed:
                self.published.discard(unnamed.group(1))  # the number is used again
            return
        named = NAMED.search(rest)
        if writable and named and (named.groups() in self.names or
                                   self.is_published("/".join(named.groups()))):
            self.wrong.append("openat(" + rest)

    def link(self, rest):
        if not rest.endswith(" = 0"):
            return
        fds = FD.findall(rest)
        unnamed = UNNAMED.search(fds[0]) if fds else None
        to = NAMED.findall(rest)[-1:]
        if unnamed:
            self.published.add(unnamed.group(1))
            self.n_published += 1
        if to and not to[0][0].startswith(self.folders) and (unnamed or fds[0].startswith(self.folders)):
            self.names.add(to[0])

    def change(self, name, rest):
        self.n_seen += 1
        target = FD.match(rest)
        named = NAMED.match(rest)
        if named and name in ("utimensat", "fchmodat", "fchmodat2"):
            if named.groups() in self.names or self.is_published("/".join(named.groups())):
                self.wrong.append("%s(%s" % (name, rest))
        elif target and self.is_published(target.group(1)):
            self.wrong.append("%s(%s" % (name, rest))

    def read(self, trace):
        for name, rest in calls(trace):
            if name == "openat":
                self.open(rest)
            elif name == "linkat":
                self.link(rest)
            elif name in CHANGES or name in ("fchmodat", "fchmodat2"):
                self.change(name, rest)
        return self
