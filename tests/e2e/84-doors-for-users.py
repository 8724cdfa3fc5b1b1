#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who gets in at all, as whom, and with what in hand: the socket's mode and group, user namespaces, groups that
change, descriptors of the store's own files, and folders in which somebody else moves things while they are filled."""

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import threading

from rpc import Client, Closed, RpcError, ready_client
from story import Story, skip_story
from users import User, can_run_programs

PROJECT = 13000  # a group
DAEMON = User("daemon", 12000, PROJECT)
ALICE = User("alice", 12001, PROJECT)
BOB = User("bob", 12002)
ROOT = User("root", 0)
CAPS = "+setuid,+setgid,+fowner"


def start(story, *options, under=()):
    story.start_daemon(*options, under=under)
    ROOT.does(lambda: ready_client(story.socket).close())


def start_as_daemon(story, *options):
    start(story, *options, under=(
        "setpriv", "--reuid", str(DAEMON.uid), "--regid", str(DAEMON.gid), "--groups", str(PROJECT), "--inh-caps",
        "-all," + CAPS, "--bounding-set", "-all," + CAPS, "--ambient-caps", CAPS))


def stop(story):
    story.check_is("the daemon stops cleanly", story.stop_daemon(), 0)


def answer_of(client, method, params=None, fds=()):
    """A result, or the code and the words of an error."""
    try:
        return client.call(method, params, fds)
    except RpcError as error:
        return error.code, error.message


def code(answer):
    return answer[0] if isinstance(answer, tuple) else "done"


def call(story, user, method, params=None, folder=None, fds=()):
    def ask():
        opened = list(fds)
        if folder is not None:
            opened.append(os.open(folder, os.O_PATH | os.O_DIRECTORY))
        with Client(story.socket) as client:
            return answer_of(client, method, params, opened)
    return user.does(ask)


def tree_of(client, fds, tag=None, **entry):
    """Store a flat tree: of each descriptor a file."""
    number = client.call("put", {"step": "begin"})["put"]
    entries = [dict(entry, type="file", name=b"%d" % i, fd=i) for i in range(len(fds))]
    client.call("put", {"step": "entries", "put": number, "entries": entries}, fds)
    return client.call("put", {"step": "commit", "put": number})["digest"]


def memfd(data, flags=0):
    fd = os.memfd_create("file", flags)
    os.write(fd, data)
    return fd


def put(story, user, *files):
    def store():
        with Client(story.socket) as client:
            return tree_of(client, [memfd(data) for data in files], executable=False)
    return user.does(store)


def digest_of(data):
    return "%s/%d" % (hashlib.sha256(data).hexdigest(), len(data))


# ---- the socket ----


def knock(story, user):
    """What comes of it when a user connects: served, or the name of an error."""
    def ask():
        try:
            with Client(story.socket) as client:
                client.call("ping")
                return "served"
        except OSError as error:
            return errno.errorcode[error.errno]
        except Closed:
            return "turned away"
    return user.does(ask)


def socket_for(story, claim, options, mode, group, served):
    start_as_daemon(story, *options)
    st = os.stat(story.socket)
    story.check_is(claim, (oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid), (oct(mode), DAEMON.uid, group))
    for user in ROOT, DAEMON, ALICE, BOB:
        story.check_is("%s: %s" % (claim, user.name), knock(story, user), "served" if user in served else "EACCES")
    stop(story)


def sockets(story):
    socket_for(story, "by default the socket of a privileged daemon is its user's", [], 0o600, DAEMON.gid, {ROOT, DAEMON})
    socket_for(story, "with a group it is open to who is in it", ["--socket-mode", "0660", "--socket-group", str(PROJECT)],
               0o660, PROJECT, {ROOT, DAEMON, ALICE})
    socket_for(story, "with 0666 to all", ["--socket-mode", "0666"], 0o666, DAEMON.gid, {ROOT, DAEMON, ALICE, BOB})
    for group, words in (("nosuchgroup", "there is no group"), ("14000", "to group 14000")):
        refused = subprocess.run(
            ["setpriv", "--reuid", str(DAEMON.uid), "--regid", str(DAEMON.gid), "--clear-groups", "dircached", "--store",
             story.store, "--socket", story.socket, "--socket-group", group], capture_output=True, text=True, timeout=60)
        story.check("a group that is not there or not the daemon's (%s) ends the start" % group,
                    refused.returncode != 0 and words in refused.stderr, refused.stderr)
        story.check("and leaves no socket", not os.path.exists(story.socket))


# ---- who is who ----


def user_namespaces(story, tree):
    """To a client of a user namespace of its own it may look as if it were root."""
    place = ALICE.folder(story.homes, "namespace", mode=0o700)

    def unshared(*words):
        done = subprocess.run(["setpriv", "--reuid", str(ALICE.uid), "--regid", str(ALICE.gid), "--clear-groups", "unshare",
                               "--user", "--map-root-user", "dircache", "--socket", story.socket, *words],
                              capture_output=True, text=True, cwd=place)
        return done.returncode, done.stdout + done.stderr
    if unshared("ping")[0]:
        story.skip("root of a user namespace is who he is outside", "no user namespaces for users")
        return
    done = unshared("materialize", tree, place + "/t")
    st = os.stat(place + "/t") if not done[0] else None
    story.check("root of a user namespace is who he is outside", st and st.st_uid == ALICE.uid, done)
    for words in ["gc"], ["stop"], ["verify"]:
        done = unshared(*words)
        story.check("and may not " + words[0], done[0] and "root" in done[1], done)
    closed = ROOT.folder(story.homes, "roots", mode=0o755)
    done = unshared("materialize", tree, closed + "/t")
    story.check("nor write where root may", done[0] and not os.listdir(closed), done)


def daemon_in_a_user_namespace(story):
    """Where only its own user has a number, all others have that of the overflow uid."""
    base = ROOT.folder(story.dir, "inside")
    story.store, story.socket = base + "/store", base + "/s"
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], stderr=subprocess.DEVNULL).returncode:
        story.skip("who has no number in the daemon's namespace is refused", "no user namespaces")
        return
    story.start_daemon("--socket-mode", "0666", under=("unshare", "--user", "--map-root-user"))

    def first_word():
        with Client(story.socket) as client:
            return client.until_closed()
    for user in ALICE, User("nobody", 65534):
        seen = user.does(first_word)
        story.check("who has no number in the daemon's namespace is refused: " + user.name,
                    seen and seen[0][1]["code"] == "permission_denied", seen)
    story.check_is("its own user is served", knock(story, ROOT), "served")
    stop(story)


def groups_that_change(story, tree):
    """What counts is who connected: neither more nor less."""
    shared = BOB.folder(story.homes, "groups", mode=0o2770, group=PROJECT)

    def become(groups):
        os.seteuid(0)
        os.setgroups(groups)
        os.seteuid(ALICE.uid)

    def try_both():
        os.setgroups([])
        os.setegid(ALICE.gid)
        os.seteuid(ALICE.uid)
        without = Client(story.socket)
        without.call("ping")
        become([PROJECT])
        folder = os.open(shared, os.O_PATH | os.O_DIRECTORY)
        answers = [answer_of(without, "materialize", {"digest": tree, "name": b"a"}, [folder])]
        with_group = Client(story.socket)
        with_group.call("ping")
        become([])
        answers.append(answer_of(with_group, "materialize", {"digest": tree, "name": b"b"}, [folder]))
        answers.append(answer_of(Client(story.socket), "materialize", {"digest": tree, "name": b"c"}, [folder]))
        return [code(answer) for answer in answers]
    story.check_is("a connection has the groups with which it was made", ROOT.does(try_both),
                   ["permission_denied", "done", "permission_denied"])
    story.check_is("and what was made is the client's, in the folder's group", [
        (name, os.stat(os.path.join(shared, name)).st_uid, os.stat(os.path.join(shared, name)).st_gid)
        for name in os.listdir(shared)], [("b", ALICE.uid, PROJECT)])
    st = os.stat(os.path.join(shared, "b"))
    story.check_is("without the folder's set-group-id bit", oct(stat.S_IMODE(st.st_mode)), oct(0o755))


# ---- descriptors ----


def store_files(story):
    """Paths of all blobs, and what each is: bytes, inode, mode, times."""
    seen = {}
    for kind in "blobs", "exec":
        for folder, _, names in os.walk(os.path.join(story.store, kind)):
            for name in names:
                path = os.path.join(folder, name)
                st = os.stat(path)
                with open(path, "rb") as file:
                    seen[path] = (st.st_ino, st.st_mode, st.st_uid, st.st_mtime_ns, file.read())
    return seen


def refused_as(story, claim, answer, words):
    story.check(claim, code(answer) == "invalid_argument" and words in answer[1], answer)


def attempt(story, fd):
    """Store what a descriptor stands for, as root; it is closed here."""
    try:
        with Client(story.socket) as client:
            try:
                return tree_of(client, [fd], executable=False)
            except RpcError as error:
                return error.code, error.message
    finally:
        os.close(fd)


def descriptors_of_the_store(story):
    """Root and the daemon's user can open the store's files for writing, and do."""
    data = b"bytes of the store, of some length"
    tree = put(story, DAEMON, data)
    blob = digest_of(data)
    path = os.path.join(story.store, "blobs", blob[:2], blob.split("/")[0])
    roots = ROOT.folder(story.homes, "hand", mode=0o700)
    story.check_is("a tree for root is made of links", call(story, ROOT, "materialize", {"digest": tree, "name": b"t"},
                   roots).get("files_linked"), 1)
    linked = os.path.join(roots, "t", "0")
    story.check("its file is the store's", os.path.samefile(linked, path))
    before = store_files(story)
    for where, name in ("in the store", path), ("by a link to it", linked):
        refused_as(story, "a file of the store that is open for writing is refused, %s" % where,
                   attempt(story, os.open(name, os.O_RDWR)), "open for writing")
        refused_as(story, "open for writing alone, %s" % where, attempt(story, os.open(name, os.O_WRONLY)), "for reading")
        refused_as(story, "and as a path alone, %s" % where, attempt(story, os.open(name, os.O_PATH)), "for reading")
        by_path = os.open(name, os.O_PATH)
        refused_as(story, "and what was opened for writing by a path alone, %s" % where,
                   attempt(story, os.open("/proc/self/fd/%d" % by_path, os.O_RDWR)), "open for writing")
        os.close(by_path)
        story.check_is("open for reading it is stored, as itself, %s" % where, attempt(story, os.open(name, os.O_RDONLY)), tree)
    story.check("no file of the store was made, changed or replaced by all that", store_files(story) == before)
    story.check_is("none is called so either", call(story, ROOT, "stats")["tampered_blobs"], 0)

    # What was opened before is written to afterwards: the store's own file then, which shows at its next use.
    held = os.open(path, os.O_RDWR)
    os.pwrite(held, b"other", 0)
    answer = call(story, ROOT, "materialize", {"digest": tree, "name": b"u"}, roots)
    story.check("what root wrote into the store's file is not linked again", code(answer) == "not_found", answer)
    tree_again = put(story, ALICE, data)
    os.pwrite(held, b"still", 0)
    os.close(held)
    story.check_is("stored again it is a new file, which nobody has open", (tree_again, open(path, "rb").read()), (tree, data))
    shutil.rmtree(roots)


def inodes_of_clients(story):
    """Whatever a client keeps open for writing, the store has bytes of its own."""
    place = ALICE.folder(story.homes, "inodes", mode=0o700)

    def sealed(fd):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return fd

    def reopened(data):
        fd = memfd(data)
        return fd, os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)

    def nameless(data):
        fd = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(fd, data)
        return fd

    def named(data, mode):
        path = os.path.join(place, hashlib.sha256(data).hexdigest())
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        return os.open(path, os.O_RDWR) if mode & 0o200 else os.open(path, os.O_RDONLY)

    def like_published(data, st):
        """With the mode and the time of the store's own files, but not their owner."""
        fd = nameless(data)
        os.fchmod(fd, 0o444)
        os.utime(fd, ns=(st.st_mtime_ns, st.st_mtime_ns))
        return fd

    def attack(st):
        results = []
        for i, make in enumerate((memfd, lambda data: sealed(memfd(data, os.MFD_ALLOW_SEALING)), nameless,
                                  lambda data: named(data, 0o644), lambda data: named(data, 0o444),
                                  lambda data: like_published(data, st))):
            data = b"of a client, number %d, %s" % (i, b"x" * (i % 2 * 300000))
            fd = make(data)
            with Client(story.socket) as client:
                digest = tree_of(client, [fd], executable=False)
            for way in (lambda: os.pwrite(fd, b"WRONG", 0), lambda: os.truncate(fd, 3)):
                try:
                    way()
                except OSError:
                    pass
            results.append((digest, data))
        writer, reader = reopened(b"reopened")
        with Client(story.socket) as client:
            results.append((tree_of(client, [reader], executable=False), b"reopened"))
        os.pwrite(writer, b"WRONG", 0)
        return results
    published = next(iter(store_files(story)))
    stored = ALICE.does(attack, os.stat(published))
    for digest, data in stored:
        path = os.path.join(story.store, "blobs", digest_of(data)[:2], digest_of(data).split("/")[0])
        answer = call(story, BOB, "materialize", {"digest": digest, "name": digest[:8].encode()}, story.bob)
        got = os.path.join(story.bob, digest[:8], "0")
        story.check("what is written to a client's file after it was stored is nowhere in the store",
                    code(answer) == "done" and open(got, "rb").read() == data and os.stat(path).st_uid == DAEMON.uid, answer)

    def kinds():
        left, right = socket.socketpair()
        os.mkfifo(os.path.join(place, "fifo"))
        read_end, write_end = os.pipe()
        fds = {
            "a folder": os.open(place, os.O_RDONLY), "a fifo": os.open(os.path.join(place, "fifo"), os.O_RDWR),
            "a pipe": read_end, "the end of a pipe": write_end, "a device": os.open("/dev/zero", os.O_RDONLY),
            "a terminal's device": os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY), "a socket": left.detach(),
            "a file of proc that is none": os.open("/proc/self/ns/user", os.O_RDONLY), "an event": os.eventfd(0),
            "a path": os.open(os.path.join(place), os.O_PATH),
            "a symlink": os.open("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW),
        }
        answers = {}
        for what, fd in fds.items():
            with Client(story.socket) as client:
                try:
                    answers[what] = ("stored", tree_of(client, [fd]))
                except RpcError as error:
                    answers[what] = (error.code, error.message)
        right.close()
        return answers
    for what, answer in ALICE.does(kinds).items():
        story.check("%s is no file" % what, answer[0] in ("invalid_argument", "stored") and
                    (answer[0] != "stored" or what.endswith("none")), answer)


# ---- somebody else moves things ----


def moves(folder, victim, precious, begun, ended):
    """Bob owns the folder in which alice's trees are made, and puts other things in the place of what is hidden there."""
    n = 0
    while not os.path.exists(ended):
        for name in os.listdir(folder):
            if not name.startswith(".dircache-"):
                continue
            hidden = os.path.join(folder, name)
            away = os.path.join(folder, "away.%d" % n)
            try:
                os.rename(hidden, away)
                n += 1
                if n % 2:
                    os.symlink(victim if n % 4 == 1 else precious, hidden)
                else:
                    os.mkdir(hidden, 0o777)
                os.close(os.open(begun, os.O_CREAT, 0o644))
            except OSError:
                pass
    return n


def others_in_the_folder(story):
    """Where two may write, one swaps the hidden name itself while the other's tree is made under it."""
    shared = BOB.folder(story.homes, "moving", mode=0o2775, group=PROJECT)
    victim = BOB.folder(story.bob, "victim")
    precious = ALICE.folder(story.homes, "precious")
    ALICE.does(lambda: open(os.path.join(precious, "kept"), "w").close())
    begun, ended = os.path.join(story.bob, "begun"), os.path.join(story.dir, "ended")
    tree = put(story, ALICE, *[b"moving %d" % i for i in range(60)])
    moved, answers = [], set()
    attacker = threading.Thread(target=lambda: moved.append(BOB.does(moves, shared, victim, precious, begun, ended)))
    attacker.start()
    try:
        for i in range(2000):
            if i >= 100 and os.path.exists(begun):
                break
            answers.add(code(call(story, ALICE, "materialize", {"digest": tree, "name": b"%d" % i}, shared)))
    finally:
        os.close(os.open(ended, os.O_CREAT, 0o644))
        attacker.join()
        os.unlink(ended)
    story.check("hidden folders were moved away while they were filled", moved[0] > 0, moved)
    story.check("each tree was made or refused", answers <= {"done", "failed_precondition", "internal", "permission_denied",
                                                             "invalid_argument"}, answers)
    story.check_is("nothing was made or deleted where the symlinks led", (os.listdir(victim), os.listdir(precious)), ([], ["kept"]))
    for folder, _, names in os.walk(shared):
        links = [name for name in names if os.stat(os.path.join(folder, name), follow_symlinks=False).st_uid == DAEMON.uid]
        if not all(stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o444 for name in links):
            story.check("shared files are as published", False, folder)
    story.check_is("no shared inode was changed by it", call(story, ROOT, "stats")["tampered_blobs"], story.tampered)
    answer = call(story, ROOT, "verify")
    story.check("and nothing is wrong with the store", isinstance(answer, dict) and answer["faults_total"] == 0, answer)


def main():
    if os.geteuid() != 0:
        skip_story("only root has other users")
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if not can_run_programs(ALICE):
            skip_story("other users cannot run the programs")
        base = DAEMON.folder(story.dir, "daemon")
        story.store, story.socket = base + "/store", base + "/s"
        story.homes = ROOT.folder(base, "home")
        story.bob = BOB.folder(story.homes, "bob")
        sockets(story)
        start_as_daemon(story, "--socket-mode", "0666")
        tree = put(story, ALICE, b"hello", b"others")
        user_namespaces(story, tree)
        groups_that_change(story, tree)
        descriptors_of_the_store(story)
        inodes_of_clients(story)
        story.tampered = call(story, ROOT, "stats")["tampered_blobs"]
        others_in_the_folder(story)
        stop(story)
        daemon_in_a_user_namespace(story)


main()
