#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the operating system can refuse while a tree is made, link by link: the right word for it, and nothing left.

Trees are Directory messages written by hand, so that thousands of names cost no files."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import image  # noqa: E402
import reapi  # noqa: E402
from rpc import Client, RpcError  # noqa: E402

MEGABYTE = 1 << 20
NOBODY = 65534


def put(story, data):
    """Store a blob by the command line; the digest, which is computed here."""
    path = story.dir + "/blob"
    with open(path, "wb") as file:
        file.write(data)
    subprocess.run(["dircache", "--socket", story.socket, "put", path], check=True, stdout=subprocess.DEVNULL)
    return reapi.digest_of(data)


def directory(story, files=(), directories=()):
    return put(story, reapi.encode_directory([(*file, False) for file in files], directories, []))


def materialize(story, digest, folder, name, **params):
    """The answer; raises RpcError."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with Client(story.socket) as client:
            return client.call("materialize", {"digest": reapi.text(digest), "name": name, **params}, [fd])
    finally:
        os.close(fd)


def refused(story, claim, code, words, digest, folder, **params):
    """A request fails with this code and these words, and leaves nothing in the folder."""
    before = os.listdir(folder)
    try:
        materialize(story, digest, folder, b"target", **params)
        story.check(claim, False, "it was done")
    except RpcError as error:
        story.check(claim, error.code == code and words in error.message,
                    "%s: %s" % (error.code, error.message))
    left = [] if os.listdir(folder) == before else os.listdir(folder)
    story.check_is(claim + ", and leaves nothing", left, [])


def made(story, claim, digest, folder, **params):
    result = materialize(story, digest, folder, b"made", **params)
    story.check_is(claim, result["files"], result["files_linked"] + result["files_copied"])


def counters(story):
    with Client(story.socket) as client:
        return client.call("stats")


# ---- link(2) ----


def start_on_ext4(story, claim, size, *mkfs_options):
    """A daemon whose store, and a folder `out`, are on an ext4 of their own: where that is; None, and the claim
    skipped, where there can be none."""
    disk = image.mount_ext4(story, "ext4-%d" % size, size, *mkfs_options)
    if not disk:
        story.skip(claim, "no ext4 can be mounted here")
        return None
    story.store = disk + "/store"
    story.start_daemon()
    os.mkdir(disk + "/out")
    return disk


def full_index(story):
    """Without the feature large_dir, ext4 runs out of places for names long before it runs out of blocks."""
    claim = "a directory that takes no further name is no_space"
    disk = start_on_ext4(story, claim, 96 * MEGABYTE, "-b", "1024", "-O", "^large_dir", "-N", "4000")
    if not disk:
        return
    hello = put(story, b"hello")
    names = [b"%0250d" % i for i in range(48000)]
    tree = directory(story, [(name, hello) for name in names])
    refused(story, claim, "no_space", "No space left on device", tree, disk + "/out")
    story.check("which is not the disk's fault", image.disk_free(disk) > 20 * MEGABYTE)
    some = directory(story, [(name, hello) for name in names[:5000]])
    made(story, "a smaller one is made there afterwards", some, disk + "/out", require_link=True)
    story.check_is("no fallback was tried", counters(story)["fallback_copies"], 0)
    story.check_is("the daemon on a small ext4 stops", story.stop_daemon(), 0)


def link_attributes(story):
    """EPERM from link(2) falls back: here by an inode that takes no links, as root alone may make them."""
    claim = "an inode that takes no links is copied, and the reason told"
    disk = start_on_ext4(story, claim, 32 * MEGABYTE)
    if not disk:
        return
    hello = put(story, b"hello")
    path = "%s/blobs/%s/%s" % (story.store, hello[0][:2], hello[0])
    if image.run("chattr", "+i", path):
        tree = directory(story, [(b"a", hello), (b"b", hello)])
        result = materialize(story, tree, disk + "/out", b"immutable")
        story.check_is(claim, (result["files_copied"], result["fallback_copies"], result["fallback"]),
                       (2, 2, "Operation not permitted"))
        refused(story, "with require_link it fails", "failed_precondition", "Operation not permitted", tree,
                disk + "/out", require_link=True)
        image.run("chattr", "-i", path)
    story.check_is("the daemon stops after that", story.stop_daemon(), 0)


# ---- the room for copies ----


def full_disk(story):
    """The target's file system is another one and too small, for bytes or for inodes."""
    claim = "a copy that does not fit is no_space"
    disk = story.dir + "/small"
    os.mkdir(disk)
    if not image.run("mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "none", disk):
        story.skip(claim, "no tmpfs can be mounted here")
        return
    story.at_end.append(lambda: image.run("umount", disk))
    big = put(story, os.urandom(3 * MEGABYTE))
    hello = put(story, b"hello")
    refused(story, claim, "no_space", "No space left on device",
            directory(story, [(b"a", hello), (b"big", big)]), disk)
    refused(story, "a single file too", "no_space", "No space left on device", big, disk, file=True)
    refused(story, "a writable one too", "no_space", "No space left on device", big, disk, file=True,
            writable=True)
    empty = directory(story)
    refused(story, "a directory for which there is no inode is no_space", "no_space",
            "No space left on device", directory(story, [], [(b"%d" % i, empty) for i in range(500)]), disk)
    refused(story, "an empty file for which there is no inode is no_space", "no_space",
            "No space left on device", directory(story, [(b"%d" % i, (empty[0], 0)) for i in range(500)]), disk)
    made(story, "what fits is made afterwards", directory(story, [(b"a", hello)]), disk)


def quota(story):
    """A quota is told from a full disk by its words, and by nothing else."""
    claim = "a copy beyond a quota is no_space"
    disk = image.mount_image(story, "btrfs", 160 * MEGABYTE, "btrfs")
    if not disk:
        story.skip(claim, "no btrfs can be mounted here")
        return
    small = disk + "/small"
    if not (image.run("btrfs", "quota", "enable", disk) and image.run("btrfs", "subvolume", "create", small)
            and image.run("btrfs", "qgroup", "limit", "2M", small)):
        story.skip(claim, "btrfs takes no quota here")
        return
    big = put(story, os.urandom(8 * MEGABYTE))
    refused(story, claim, "no_space", "Disk quota exceeded", directory(story, [(b"big", big)]), small)
    refused(story, "of a single file too", "no_space", "Disk quota exceeded", big, small, file=True)


# ---- rights and descriptors ----


def no_descriptors(story):
    """A tree in which each level keeps a directory waiting needs a descriptor a level: the last is made first."""
    leaf = directory(story)
    tree = leaf
    for _ in range(300):
        tree = directory(story, [], [(b"a", leaf), (b"b", tree)])
    story.stop_daemon()
    story.start_daemon("--workers", "1", under=("prlimit", "--nofile=120:120"))
    folder = story.dir + "/out"
    refused(story, "a lack of descriptors is resource_exhausted", "resource_exhausted", "Too many open files",
            tree, folder)
    story.check_is("the daemon with few of them stops", story.stop_daemon(), 0)
    story.start_daemon()
    result = materialize(story, tree, folder, b"deep")
    story.check_is("with more of them the tree is made", result["directories"], 601)
    story.check_is("the daemon with many stops", story.stop_daemon(), 0)


def no_right(story):
    """What the daemon's user may not write. Root may, so this daemon is nobody's."""
    claim = "a folder that is closed is permission_denied"
    own = story.dir + "/own"
    folder = story.dir + "/closed"
    under = ()
    os.mkdir(own)
    os.mkdir(folder, 0o555)
    if os.getuid() == 0:
        under = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
        os.chown(own, NOBODY, NOBODY)
        os.chmod(story.dir, 0o711)
        if not image.run(*under, "dircached", "--version"):
            story.skip(claim, "nobody cannot run the programs")
            return
    story.store, story.socket = own + "/store", own + "/s"
    story.start_daemon(under=under)
    hello = put(story, b"hello")
    refused(story, claim, "permission_denied", "beside the target 'target': Permission denied",
            directory(story, [(b"a", hello)]), folder)
    refused(story, "for a single file too", "permission_denied", "Permission denied", hello, folder, file=True)
    story.check_is("the daemon without rights stops", story.stop_daemon(), 0)


def vanished(story):
    """The folder is gone by the time that something is made in it."""
    folder = story.dir + "/gone"
    hello = put(story, b"hello")
    for params, digest in (({}, directory(story, [(b"a", hello)])), ({"file": True}, hello)):
        os.mkdir(folder)
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        os.rmdir(folder)
        with Client(story.socket) as client:
            try:
                client.call("materialize", {"digest": reapi.text(digest), "name": b"t", **params}, [fd])
                story.check("a folder that is gone is refused", False)
            except RpcError as error:
                story.check_is("a folder that is gone is failed_precondition", error.code, "failed_precondition")
        os.close(fd)


def main():
    image.own_mounts()
    with Story(300) as story:
        store = story.store
        full_index(story)
        link_attributes(story)
        story.store = store
        story.start_daemon()
        os.mkdir(story.dir + "/out")
        full_disk(story)
        quota(story)
        vanished(story)
        no_descriptors(story)
        with os.scandir(store + "/staging") as records:
            story.check("no record of a hidden name is left",
                        all(not record.stat().st_size or not any(open(record.path, "rb").read(1))
                            for record in records))
        no_right(story)


main()
