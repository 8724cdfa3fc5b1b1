#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The units for systemd: they ask for nothing that would turn links into copies, and a daemon in their sandbox does
all of its work. systemd itself does not run here: sandbox.py imitates what it would do."""

import os
import re
import shutil
import subprocess

import image
import sandbox
from rpc import Client, outcome, ready_client
from story import Story
from users import User, can_run_programs

DAEMON = User("daemon", 12000)
ALICE = User("alice", 12001)

# What makes systemd create a mount namespace, from its exec_needs_mount_namespace() and systemd.exec(5).
MOUNTS = """BindPaths BindReadOnlyPaths DynamicUser ExecPaths ExtensionDirectories ExtensionImages InaccessiblePaths
IPCNamespacePath LoadCredential LogNamespace MountAPIVFS MountFlags MountImages NetworkNamespacePath NoExecPaths PrivateDevices
PrivateIPC PrivateMounts PrivateNetwork PrivatePIDs PrivateTmp PrivateUsers ProcSubset ProtectControlGroups ProtectHome
ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyPaths
ReadWritePaths RootDirectory RootHash RootImage RootVerity SetCredential TemporaryFileSystem""".split()
CAPABILITIES = {"system": (3, 6, 7), "user": ()}  # CAP_FOWNER, CAP_SETGID, CAP_SETUID
WORST = 35  # tenths: of systemd 252's score, for the machine's unit


def unit_path(*path):
    top = os.environ.get("builddir") or os.environ.get("top_builddir") or "."
    return os.path.join(top, "contrib", "systemd", *path)


def options_of_the_units(story):
    for kind in "system", "user":
        unit = sandbox.read_unit(unit_path(kind, "dircached.service"))
        story.check_is("%s: nothing asks for a mount namespace" % kind, sorted(set(unit) & set(MOUNTS)), [])
        story.check("%s: nothing takes openat2 away" % kind, "RestrictSUIDSGID" not in unit)
        story.check_is("%s: no new privileges" % kind, unit.get("NoNewPrivileges"), ["yes"])


def what_systemd_says(story):
    claims = "systemd knows every option", "its score is not worse than it was"
    if not shutil.which("systemd-analyze"):
        for claim in claims:
            story.skip(claim, "there is no systemd-analyze")
        return
    folder = os.path.join(story.dir, "units")
    os.mkdir(folder)
    top = os.environ.get("top_srcdir") or os.path.join(os.path.dirname(__file__), "..", "..")
    shutil.copy(os.path.join(top, "contrib/systemd/system/dircached.socket"), folder)
    path = os.path.join(folder, "dircached.service")
    with open(unit_path("system", "dircached.service")) as unit, open(path, "w") as copy:
        # What is not installed here is not to be missed.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=" + shutil.which("dircached"), unit.read(), flags=re.MULTILINE)
        copy.write(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    os.chmod(path, 0o644)  # whatever our umask is: systemd minds
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
    said = [line for line in ran.stderr.splitlines() if "dircached" in line]
    story.check(claims[0], not said and ran.returncode == 0, ran.stderr)
    ran = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=%d" % WORST, path],
                         capture_output=True, text=True)
    print("#", ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ran.stderr)
    story.check(claims[1], ran.returncode == 0, ran.stdout + ran.stderr)


def status_of(pid):
    with open("/proc/%d/status" % pid) as status:
        return dict(line.rstrip("\n").split(":\t", 1) for line in status)


def start(story, kind, top=None):
    base = os.path.join(top or story.dir, kind)
    os.mkdir(base)
    os.chown(base, DAEMON.uid, DAEMON.gid)
    story.store = os.path.join(base, "store")
    story.socket = os.path.join(base, "s")
    unit = sandbox.read_unit(unit_path(kind, "dircached.service"))
    story.start_daemon("--socket-mode", "0666", under=sandbox.words(unit, DAEMON.uid))
    ready_client(story.socket).close()
    status = status_of(story.daemon.pid)
    bits = sum(1 << bit for bit in CAPABILITIES[kind])
    story.check_is("%s: the capabilities are what the unit says" % kind,
                   [int(status[name], 16) for name in ("CapBnd", "CapPrm", "CapAmb")], [bits] * 3)
    story.check_is("%s: the filters are in force, and no new privileges" % kind,
                   (status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
    story.check_is("%s: no mount namespace is its own" % kind, os.readlink("/proc/%d/ns/mnt" % story.daemon.pid),
                   os.readlink("/proc/self/ns/mnt"))


def put(client, texts):
    fds = []
    for text in texts:
        fds.append(os.memfd_create("file"))
        os.write(fds[-1], text)
    number = client.call("put", {"step": "begin"})["put"]
    entries = [{"type": "file", "name": b"f%d" % i, "executable": i % 2 == 1, "fd": i} for i in range(len(fds))]
    client.call("put", {"step": "entries", "put": number, "entries": entries}, fds)
    for fd in fds:
        os.close(fd)
    return client.call("put", {"step": "commit", "put": number})["digest"]


def all_the_work(path, target):
    """Of a client: what the daemon answers to each method."""
    with Client(path) as client:
        folder = [os.open(target, os.O_PATH | os.O_DIRECTORY)]
        digest = put(client, [b"one", b"two", b"three"])
        said = {"linked": client.call("materialize", {"digest": digest, "name": b"linked"}, folder)["files_linked"]}
        for mode in "reflink", "copy":
            params = {"digest": digest, "name": mode.encode(), "mode": mode}
            said[mode] = outcome(client.call, "materialize", params, folder)
        said["writable"] = outcome(client.call, "materialize", {"digest": digest, "name": b"w", "writable": True}, folder)
        said["tag"] = outcome(client.call, "tag", {"name": "mine", "digest": digest})
        said["ls"] = outcome(client.call, "ls", {"digest": digest})
        said["remove"] = outcome(client.call, "remove", {"name": b"copy"}, folder)
        os.close(folder[0])
        return said


def administration(path):
    with Client(path) as client:
        calls = ("verify", {}), ("verify", {"repair": True}), ("tag", {"name": "mine", "delete": True}), ("gc", {"to": 0}), ("trees", {})
        said = [outcome(client.call, method, params) for method, params in calls]
        return [*said, client.call("stats")]


def works_in_the_sandbox(story, kind, client):
    def check(claim, true, seen=""):
        story.check("%s: %s" % (kind, claim), true, seen)

    start(story, kind)
    target = client.folder(story.dir, kind + ".target")
    said = client.does(all_the_work, story.socket, target)
    check("a client's tree is made of links", said["linked"] == 3, said)
    inodes = {os.stat(os.path.join(target, "linked", name)).st_ino for name in os.listdir(os.path.join(target, "linked"))}
    stored = {os.stat(os.path.join(at, name)).st_ino for folder in ("blobs", "exec")
              for at, _, names in os.walk(os.path.join(story.store, folder)) for name in names}
    check("which are the store's inodes", inodes <= stored and len(inodes) == 3, (inodes, stored))
    check("its folder belongs to the client", os.stat(os.path.join(target, "linked")).st_uid == client.uid)
    check("all that a client asks for is done", all(not isinstance(value, str) for key, value in said.items()
                                                    if key != "reflink"), said)  # which some file systems cannot
    said = DAEMON.does(administration, story.socket)
    check("and what an administrator asks for", all(not isinstance(value, str) for value in said), said)
    check("eviction, too", said[-1]["evicted_blobs"] > 0, said)
    check("no call was outside of the filter", story.daemon.poll() is None)
    check("not when it stops either", story.stop_daemon() == 0)
    unit = sandbox.read_unit(unit_path(kind, "dircached.service"))
    story.start_daemon("--socket-mode", "0666", under=sandbox.words(unit, DAEMON.uid))
    with ready_client(story.socket) as again:
        check("nor with a store that is there already", again.call("stats")["uptime_seconds"] >= 0)
    check("nor at that end", story.stop_daemon() == 0)


def reflinks_in_the_sandbox(story):
    """FICLONE is an ioctl: the filter could take it away, and the daemon would copy without a word."""
    xfs = image.mount_image(story, "xfs", 400 << 20, "xfs", "-m", "reflink=1")
    if not xfs:
        story.skip("files are reflinked in the sandbox", "no XFS can be made and mounted here")
        return
    os.chmod(xfs, 0o755)
    start(story, "system", xfs)
    said = ALICE.does(all_the_work, story.socket, ALICE.folder(xfs, "target"))
    reflinked = said["reflink"]
    story.check("files are reflinked in the sandbox", not isinstance(reflinked, str) and
                (reflinked["files_reflinked"], reflinked["files_copied"]) == (3, 0), said)
    story.check("by no call that is outside of the filter", story.stop_daemon() == 0)


def fails_in_the_sandbox(story, unit):
    """The sandbox of the test is one: else the daemon's work in it would say nothing."""
    def run(code):
        command = [*sandbox.words(unit, DAEMON.uid), "/usr/bin/python3", "-c", code]
        return subprocess.run(command, capture_output=True, text=True)
    ran = run("import socket; socket.socket(socket.AF_INET)")
    story.check("a socket of the internet is refused", "Address family not supported" in ran.stderr, ran)
    ran = run("import ctypes; print(ctypes.CDLL(None).unshare(0x20000))")
    story.check("so is a namespace", ran.returncode == -31 or ran.stdout == "-1\n", ran)
    story.check_is("a call that the filter does not have ends the process", run("import os; os.chown('/', -1, -1)").returncode, -31)


image.own_mounts()
with Story() as story:
    options_of_the_units(story)
    what_systemd_says(story)
    reason = sandbox.lacking()
    if not reason and os.environ.get("DIRCACHE_SANITIZED"):
        reason = "sanitizers make calls of their own"
    if not reason and not can_run_programs(DAEMON):
        reason = "the programs are where only root can run them"
    if reason:
        story.skip("a daemon in the sandbox of the unit does all of its work", reason)
    else:
        os.chmod(story.dir, 0o755)
        fails_in_the_sandbox(story, sandbox.read_unit(unit_path("system", "dircached.service")))
        works_in_the_sandbox(story, "system", ALICE)
        works_in_the_sandbox(story, "user", DAEMON)
        reflinks_in_the_sandbox(story)
