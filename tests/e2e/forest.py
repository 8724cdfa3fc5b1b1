# SPDX-License-Identifier: Apache-2.0
"""Trees made from numbers: any process that knows a tree's number knows all of it, and so can put it and
tell whether what the daemon made of it is right."""

import hashlib
import os
import random
import stat

import reapi

FDS_AT_ONCE = 200


class Content:
    """The bytes of a file, made when they are asked for."""

    def __init__(self, seed, size):
        self.seed = seed
        self.size = size
        self.digest = reapi.digest_of(self.data())

    def data(self):
        return random.Random(self.seed).randbytes(self.size)

    def open(self):
        fd = os.memfd_create("content")
        os.write(fd, self.data())
        return fd


class Tree:
    """A Directory and all below it."""

    def __init__(self):
        self.files = {}  # name: (Content, executable)
        self.directories = {}  # name: Tree
        self.symlinks = {}  # name: target

    def seal(self):
        """Nothing is added from now on: know the digest."""
        files = [(name, content.digest, executable) for name, (content, executable) in self.files.items()]
        directories = [(name, child.digest) for name, child in self.directories.items()]
        self.message = reapi.encode_directory(files, directories, list(self.symlinks.items()))
        self.digest = reapi.digest_of(self.message)
        return self

    def walk(self):
        """Each Directory, parents first, children that occur twice twice."""
        todo = [self]
        for tree in todo:
            yield tree
            todo.extend(tree.directories.values())

    def bytes(self):
        return sum(content.size for tree in self.walk() for content, _ in tree.files.values())


class Forest:
    """So many trees, which share files and folders; the working set is a few times what one might think."""

    def __init__(self, seed, n_trees, size_max=300 << 10):
        self.random = random.Random(seed)
        self.size_max = size_max
        self.commons = [self.new_content() for _ in range(4 * n_trees)]
        self.folders = [self.grow(1) for _ in range(n_trees // 4 + 1)]
        self.trees = [self.grow(3) for _ in range(n_trees)]
        self.by_digest = {
            reapi.text(tree.digest): tree for root in self.trees for tree in root.walk()
        }

    def new_content(self):
        draw = self.random.random()
        most = 0 if draw < 0.02 else 3000 if draw < 0.6 else 30000 if draw < 0.9 else self.size_max
        return Content(self.random.getrandbits(64), self.random.randint(most // 50, most))

    def grow(self, levels):
        """A tree with files of its own and common ones, some of them executable, some both."""
        tree = Tree()
        for i in range(self.random.randint(1, 12)):
            own = self.random.random() < 0.6
            content = self.new_content() if own else self.random.choice(self.commons)
            tree.files[b"f%d" % i] = (content, self.random.random() < 0.4)
            if self.random.random() < 0.1:
                tree.files[b"both%d" % i] = (content, not tree.files[b"f%d" % i][1])
        for i in range(self.random.randint(0, 2)):
            tree.symlinks[b"l%d" % i] = b"../\xff%d" % self.random.randint(0, 9)
        if levels > 1:
            for i in range(self.random.randint(0, 3)):
                shared = self.random.random() < 0.3
                tree.directories[b"d%d" % i] = self.random.choice(self.folders) if shared else self.grow(levels - 1)
        return tree.seal()


def grove(*contents, executable=False, **children):
    """A tree of files f0, f1, … with these contents, and of folders."""
    tree = Tree()
    for i, content in enumerate(contents):
        tree.files[b"f%d" % i] = (content, executable)
    tree.directories.update((name.encode(), child) for name, child in children.items())
    return tree.seal()


def simple_tree(seed, n_files, size, **children):
    """A tree of files that nothing else has."""
    return grove(*[Content("%s %d" % (seed, i), size) for i in range(n_files)], **children)


def entries_of(root):
    """A tree as the entries of a put, and the contents that go with them."""
    entries, numbers = [], 0
    todo = [(root, 0)]
    for tree, number in todo:
        for name, (content, executable) in tree.files.items():
            entries.append(({"type": "file", "parent": number, "name": name, "executable": executable}, content))
        for name, target in tree.symlinks.items():
            entries.append(({"type": "symlink", "parent": number, "name": name, "target": target}, None))
        for name, child in tree.directories.items():
            numbers += 1
            entries.append(({"type": "directory", "parent": number, "name": name}, None))
            todo.append((child, numbers))
    return entries


def batches_of(root):
    """The entries, in pieces that have not too many descriptors."""
    batch, contents = [], []
    for entry, content in entries_of(root):
        if content:
            entry["fd"] = len(contents)
            contents.append(content)
        batch.append(entry)
        if len(contents) == FDS_AT_ONCE:
            yield batch, contents
            batch, contents = [], []
    yield batch, contents


def send_batch(client, put, entries, contents):
    """Send a piece of a put; the request's number."""
    fds = []
    try:
        for content in contents:
            fds.append(content.open())
        return client.request("put", {"step": "entries", "put": put, "entries": entries}, fds)
    finally:
        for fd in fds:
            os.close(fd)


def put_tree(client, root, **commit):
    """Put a tree; the answer to its commit."""
    put = client.call("put", {"step": "begin"})["put"]
    for entries, contents in batches_of(root):
        client.wait(send_batch(client, put, entries, contents))
    return client.call("put", {"step": "commit", "put": put, **commit})


def difference(path, tree):
    """How a folder differs from a tree, in words; "" where it does not."""
    todo = [(os.fsencode(path), tree)]
    for folder, want in todo:
        names = set(os.listdir(folder))
        if names != set(want.files) | set(want.directories) | set(want.symlinks):
            return "%r has the names %r" % (folder, sorted(names))
        if stat.S_IMODE(os.lstat(folder).st_mode) != 0o755:
            return "%r has another mode" % folder
        for name, (content, executable) in want.files.items():
            wrong = file_difference(os.path.join(folder, name), content, executable)
            if wrong:
                return wrong
        for name, target in want.symlinks.items():
            if os.readlink(os.path.join(folder, name)) != target:
                return "%r/%r points elsewhere" % (folder, name)
        todo.extend((os.path.join(folder, name), child) for name, child in want.directories.items())
    return ""


def file_difference(path, content, executable):
    status = os.lstat(path)
    if status.st_mode != stat.S_IFREG | (0o555 if executable else 0o444):
        return "%r has the mode %o" % (path, status.st_mode)
    if status.st_size != content.size:
        return "%r has %d bytes, not %d" % (path, status.st_size, content.size)
    with open(path, "rb") as file:
        if file.read() != content.data():
            return "%r has other bytes" % path
    return ""


def misnamed(store):
    """The files of a store whose bytes, size or mode are not what their name says."""
    wrong = []
    for kind, mode in ("blobs", 0o444), ("exec", 0o555):
        for top, _, names in os.walk(os.path.join(store, kind)):
            for name in names:
                path = os.path.join(top, name)
                with open(path, "rb") as file:
                    right = hashlib.sha256(file.read()).hexdigest() == name
                if not right or stat.S_IMODE(os.lstat(path).st_mode) != mode:
                    wrong.append(path)
    return wrong
