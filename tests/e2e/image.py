# SPDX-License-Identifier: Apache-2.0
"""File systems of a story's own, on images in memory; and what a folder takes on its disk."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile


def own_mounts():
    """As root the story runs in a mount namespace of its own, so that no mount can stay behind."""
    if os.getuid() == 0 and "DIRCACHE_OWN_MOUNTS" not in os.environ:
        os.environ["DIRCACHE_OWN_MOUNTS"] = "1"
        if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0:
            os.execvp("unshare", ["unshare", "--mount", sys.executable, "-B", *sys.argv])
        os.environ["DIRCACHE_OWN_MOUNTS"] = ""


def run(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def mount_ext4(story, name, size, *options):
    """A new ext4 of so many bytes, mounted in the story's folder: its path, or None where that cannot be."""
    path = mount_image(story, name, size, "ext4", "-F", "-m", "0", *options)
    if path:
        shutil.rmtree(os.path.join(path, "lost+found"))
    return path


def mount_image(story, name, size, kind, *options):
    """The same for any kind of file system, with options for its mkfs.

    The image loses its name at once and its loop device goes with the mount, so nothing is left but the
    mount, which the story takes away.
    """
    if os.getuid() != 0:
        return None
    path = os.path.join(story.dir, name)
    os.mkdir(path)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else story.dir
    with tempfile.NamedTemporaryFile(prefix="dc.", dir=memory) as image:
        image.truncate(size)
        made = run("mkfs." + kind, "-q", *options, image.name)
        if not made or not run("mount", "-t", kind, "-o", "loop", image.name, path):
            return None
    story.at_end.append(lambda: run("umount", path))
    return path


def inodes_below(folder):
    """What stat says of everything in a folder and of itself, once an inode."""
    found = {}
    folders = [folder]
    while folders:
        top = folders.pop()
        try:
            status = os.lstat(top)
            found[status.st_ino] = status
            with os.scandir(top) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    found[status.st_ino] = status
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
        except FileNotFoundError:
            pass  # taken away meanwhile
    return found


def disk_usage(folder):
    """As du counts: allocated bytes, each inode once."""
    return sum(status.st_blocks * 512 for status in inodes_below(folder).values())


def disk_free(path):
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize
