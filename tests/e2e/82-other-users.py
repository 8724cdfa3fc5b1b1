#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon with privileges acts on every target as its client: told with real users, once with a daemon of root and
once with one of an own user that has CAP_SETUID, CAP_SETGID and CAP_FOWNER and nothing else."""

import errno
import os
import shutil
import stat
import threading

from rpc import Client, RpcError, outcome, ready_client
from story import Story, skip_story
from users import User, can_run_programs

PROJECT = 13000  # a group
DAEMON = User("daemon", 12000)
ALICE = User("alice", 12001, PROJECT)
BOB = User("bob", 12002)
ROOT = User("root", 0)
CAPS = "+setuid,+setgid,+fowner"


class Scene:
    """A daemon, and the folders of two users on its file system."""

    def __init__(self, story, name, uid):
        self.story, self.name, self.uid = story, name, uid
        base = os.path.join(story.dir, name)
        os.mkdir(base)
        os.chmod(base, 0o755)
        os.chown(base, uid, uid)
        self.base = base
        story.store = os.path.join(base, "store")
        story.socket = os.path.join(base, "s")
        self.homes = ROOT.folder(base, "home")
        self.alice = ALICE.folder(self.homes, "alice", mode=0o700)
        self.bob = BOB.folder(self.homes, "bob")

    def start(self, *options):
        under = ()
        if self.uid:
            under = ("setpriv", "--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups",
                     "--inh-caps", "-all," + CAPS, "--bounding-set", "-all," + CAPS, "--ambient-caps", CAPS)
        self.story.start_daemon("--socket-mode", "0666", *options, under=under)
        ROOT.does(lambda: ready_client(self.story.socket).close())

    def kill(self):
        """What ran before is not the kill's: a measure of coverage would lose it."""
        assert self.story.stop_daemon() == 0
        self.start()
        self.story.kill_daemon()

    def check(self, claim, true, seen=""):
        self.story.check("%s: %s" % (self.name, claim), true, seen)

    def check_is(self, claim, got, want):
        self.check(claim, got == want, "got %r, not %r" % (got, want))


def call(scene, user, method, params=None, folder=None, fds=()):
    """What the daemon answers this user: a result, or the code of an error. The folder is opened by the user."""
    def ask():
        opened = list(fds)
        if folder is not None:
            opened.append(os.open(folder, os.O_PATH | os.O_DIRECTORY))
        with Client(scene.story.socket) as client:
            try:
                return client.call(method, params, opened)
            except RpcError as error:
                return error.code, error.message
    return user.does(ask)


def code(answer):
    return answer[0] if isinstance(answer, tuple) else "done"


def put(scene, user, files, tag=None):
    """Have a user store a flat tree of files: name, bytes, executable."""
    def store():
        with Client(scene.story.socket) as client:
            number = client.call("put", {"step": "begin"})["put"]
            entries, fds = [], []
            for i, (name, data, executable) in enumerate(files):
                fds.append(os.memfd_create("file"))
                os.write(fds[-1], data)
                entries.append({"type": "file", "name": name, "fd": i, "executable": executable})
            entries.append({"type": "directory", "name": b"below"})
            entries.append({"type": "symlink", "name": b"link", "target": b"a", "parent": 1})
            client.call("put", {"step": "entries", "put": number, "entries": entries}, fds)
            params = {"step": "commit", "put": number}
            if tag:
                params["tag"] = tag
            return client.call("put", params)["digest"]
    return user.does(store)


def owners(path):
    """Who owns what in a tree: kind of entry and user."""
    seen = set()
    for folder, _, names in os.walk(path):
        seen.add(("directory", os.lstat(folder).st_uid, os.lstat(folder).st_gid))
        for name in names:
            st = os.lstat(os.path.join(folder, name))
            kind = "symlink" if stat.S_ISLNK(st.st_mode) else "file" if st.st_size else "empty"
            seen.add((kind, st.st_uid, stat.S_IMODE(st.st_mode) if kind == "file" else None))
    return seen


def tries(action, *args):
    """The errno with which a system call is refused, or 0."""
    try:
        action(*args)
    except OSError as error:
        return error.errno
    return 0


def who_owns_what(scene, tree, blob):
    answer = call(scene, ALICE, "materialize", {"digest": tree, "name": b"t"}, scene.alice)
    target = os.path.join(scene.alice, "t")
    scene.check_is("a tree in a closed home is made of links", (code(answer), answer.get("files_linked"),
                   answer.get("fallback")) if isinstance(answer, dict) else answer, ("done", 2, None))
    scene.check_is("directories, symlinks and private files are the client's, shared files the daemon's", owners(target), {
        ("directory", ALICE.uid, ALICE.gid), ("symlink", ALICE.uid, None), ("empty", ALICE.uid, None),
        ("file", scene.uid, 0o444), ("file", scene.uid, 0o555)})
    shared = os.path.join(target, "a")
    for what, action, *args in (
            ("write", os.open, shared, os.O_WRONLY), ("truncate", os.truncate, shared, 0),
            ("chmod", os.chmod, shared, 0o666), ("chown", os.chown, shared, ALICE.uid, -1),
            ("give another time to", os.utime, shared, (1, 1))):
        refused = ALICE.does(tries, action, *args)
        scene.check("the client cannot %s a shared file" % what, refused in (errno.EACCES, errno.EPERM), refused)
    call(scene, ALICE, "materialize", {"digest": tree, "name": b"w", "writable": True}, scene.alice)
    writable = os.path.join(scene.alice, "w", "a")
    scene.check_is("a writable copy is the client's", (os.stat(writable).st_uid,
                   ALICE.does(tries, os.truncate, writable, 0)), (ALICE.uid, 0))
    answer = call(scene, ALICE, "materialize", {"digest": blob, "name": b"f", "file": True}, scene.alice)
    scene.check("a single file is a link", os.path.samefile(os.path.join(scene.alice, "f"), shared), answer)


def where_a_client_may(scene, tree):
    bobs = BOB.folder(scene.bob, "own")
    answer = call(scene, ALICE, "materialize", {"digest": tree, "name": b"t"}, bobs)
    scene.check_is("a folder that the client may not write is refused", code(answer), "permission_denied")
    answer = call(scene, ALICE, "materialize", {"digest": tree, "name": b"t"}, scene.store_folder())
    scene.check_is("and so is the inside of the store", code(answer), "failed_precondition")
    scene.check_is("nothing is made there", os.listdir(bobs), [])
    closed = BOB.folder(scene.bob, "closed", mode=0o700)
    os.mkdir(os.path.join(closed, "deep"))
    os.chmod(os.path.join(closed, "deep"), 0o777)
    fd = os.open(closed, os.O_PATH)  # by root, who hands it to alice
    answer = call(scene, ALICE, "materialize", {"digest": tree, "name": b"t"}, fds=[fd])
    scene.check_is("a closed home is not entered, by whatever descriptor", code(answer), "permission_denied")
    answer = call(scene, ALICE, "remove", {"name": b"deep"}, fds=[fd])
    scene.check_is("nor is anything removed from it", (code(answer), os.listdir(closed)), ("permission_denied", ["deep"]))
    os.close(fd)
    answer = call(scene, ALICE, "materialize", {"digest": tree, "path": os.path.join(scene.alice, "p").encode()})
    scene.check_is("a path is refused where several users are served", code(answer), "invalid_argument")

    shared = BOB.folder(scene.homes, "project", mode=0o2775, group=PROJECT)
    answer = call(scene, ALICE, "materialize", {"digest": tree, "name": b"t"}, shared)
    scene.check_is("a folder that a supplementary group may write is written", code(answer), "done")
    scene.check_is("and the tree in it is the client's", os.stat(os.path.join(shared, "t")).st_uid, ALICE.uid)
    answer = call(scene, BOB, "remove", {"name": b"t"}, shared)  # his folder, but he could not empty what is in it
    scene.check_is("a tree of another user is not removed", (code(answer), os.listdir(shared)), ("permission_denied", ["t"]))
    scene.check_is("its owner may", code(call(scene, ALICE, "remove", {"name": b"t"}, shared)), "done")
    stranger = User("stranger", 12003)
    answer = call(scene, stranger, "materialize", {"digest": tree, "name": b"s"}, shared)
    scene.check_is("who is not in the group is refused", code(answer), "permission_denied")

    empty = ALICE.folder(bobs, "empty")
    answer = call(scene, ALICE, "materialize", {"digest": tree, "name": b"empty"}, bobs)
    scene.check_is("an empty target in a folder that the client may not write is a precondition that fails", code(answer),
                   "failed_precondition")
    scene.check_is("and stays empty", os.listdir(empty), [])


def sticky_folders(scene, tree, blob):
    sticky = ROOT.folder(scene.homes, "tmp", mode=0o1777)
    target = os.path.join(sticky, "f")
    scene.check_is("a tree in a sticky folder is done", code(call(scene, ALICE, "materialize",
                   {"digest": tree, "name": b"t"}, sticky)), "done")
    answer = call(scene, ALICE, "materialize", {"digest": blob, "name": b"g", "file": True, "require_link": True}, sticky)
    scene.check("a link to a single file is refused there, for a reason that is told",
                code(answer) == "failed_precondition" and "sticky" in answer[1], answer)
    answer = call(scene, ALICE, "materialize", {"digest": blob, "name": b"f", "file": True}, sticky)
    scene.check("a single file is a private copy there", isinstance(answer, dict) and "sticky" in answer.get("fallback", "")
                and os.stat(target).st_uid == ALICE.uid, answer)
    scene.check_is("nobody else has it removed", code(call(scene, BOB, "remove", {"name": b"f"}, sticky)), "permission_denied")
    scene.check_is("nor the tree", code(call(scene, BOB, "remove", {"name": b"t"}, sticky)), "permission_denied")
    scene.check_is("its owner has", code(call(scene, ALICE, "remove", {"name": b"f"}, sticky)), "done")
    scene.check_is("and the tree", code(call(scene, ALICE, "remove", {"name": b"t"}, sticky)), "done")
    scene.check("all of it goes", scene.story.eventually(20, lambda: not os.listdir(sticky)), os.listdir(sticky))


def administration(scene, tree, other):
    for method in "gc", "verify", "stop":
        answer = call(scene, ALICE, method)
        scene.check("%s is refused, and it is said who may" % method,
                    code(answer) == "permission_denied" and "daemon's user (%d) and root" % scene.uid in answer[1], answer)
    call(scene, ALICE, "tag", {"name": "alice", "digest": tree})
    call(scene, BOB, "tag", {"name": "bob", "digest": other})
    for claim, params in (("deleted", {"name": "alice", "delete": True}), ("moved", {"name": "alice", "digest": other})):
        scene.check_is("a tag is not %s by another user" % claim, code(call(scene, BOB, "tag", params)), "permission_denied")
    with_tag = outcome(put, scene, BOB, [(b"x", b"tagged", False)], "alice")
    scene.check_is("nor by a put", with_tag, "permission_denied")
    scene.check_is("tags of others are not listed", [tag["name"] for tag in call(scene, ALICE, "tags")["tags"]], ["alice"])
    scene.check_is("but may be used", code(call(scene, BOB, "ls", {"tag": "alice"})), "done")
    scene.check_is("trees are listed by one's tags", [row["digest"] for row in call(scene, BOB, "trees")["trees"]], [other])
    scene.check_is("with their sizes", len(call(scene, BOB, "trees", {"sizes": True})["trees"]), 1)
    scene.check_is("and by pages", call(scene, BOB, "trees", {"offset": 1}), {"trees": [], "more": False})
    for i in range(200):
        call(scene, BOB, "tag", {"name": "many/%d" % i, "digest": (tree, other)[i % 2]})
    scene.check_is("each once, however many tags it has",
                   [row["digest"] for row in call(scene, BOB, "trees")["trees"]],
                   [row["digest"] for row in call(scene, ROOT, "trees")["trees"] if row["digest"] in (tree, other)])
    scene.check_is("a page of them too", [row["digest"] for row in call(scene, BOB, "trees", {"offset": 1})["trees"]],
                   [row["digest"] for row in call(scene, BOB, "trees")["trees"]][1:])
    for i in range(200):
        call(scene, BOB, "tag", {"name": "many/%d" % i, "delete": True})
    stranger = call(scene, User("stranger", 12003), "trees")
    scene.check_is("who has no tags sees none", stranger, {"trees": [], "more": False})
    for admin in {ROOT.uid: ROOT, scene.uid: User("daemon", scene.uid)}.values():
        tags = {tag["name"]: tag["uid"] for tag in call(scene, admin, "tags")["tags"]}
        scene.check_is("user %d sees all tags" % admin.uid, tags, {"alice": ALICE.uid, "bob": BOB.uid})
        scene.check("and all trees", len(call(scene, admin, "trees")["trees"]) >= 2)
        scene.check_is("may evict", code(call(scene, admin, "gc", {"dry_run": True})), "done")
        call(scene, admin, "tag", {"name": "alice", "digest": other})
        scene.check_is("moves others' tags, which stay theirs", {tag["name"]: tag["digest"] for tag in
                       call(scene, ALICE, "tags")["tags"]}, {"alice": other})
    scene.kill()
    scene.start()
    scene.check_is("after a restart a tag is still its owner's", (code(call(scene, BOB, "tag", {"name": "alice", "delete": True})),
                   code(call(scene, ALICE, "tag", {"name": "alice", "delete": True}))), ("permission_denied", "done"))
    call(scene, ROOT, "tag", {"name": "bob", "delete": True})


def who_is_served(scene, tree):
    def turned_away():
        with Client(scene.story.socket) as client:
            return client.until_closed()
    seen = User("nobody", 65534).does(turned_away)
    scene.check("the overflow uid is refused", seen and seen[0][1]["code"] == "permission_denied", seen)
    roots = ROOT.folder(scene.homes, "root", mode=0o700)
    scene.check_is("root is served as root", (code(call(scene, ROOT, "materialize", {"digest": tree, "name": b"t"}, roots)),
                   os.stat(os.path.join(roots, "t")).st_uid), ("done", 0))
    if scene.uid:
        own = User("daemon", scene.uid)
        place = own.folder(scene.homes, "daemon", mode=0o700)
        scene.check_is("and the daemon's user as that", (code(call(scene, own, "materialize", {"digest": tree, "name": b"t"},
                       place)), os.stat(os.path.join(place, "t")).st_uid), ("done", scene.uid))


def swaps(folder, elsewhere, victim, begun, ended):
    """Replace directories that are being filled by symlinks, as fast as can be. How many."""
    n = 0
    while not os.path.exists(ended):
        for name in os.listdir(folder):
            hidden = os.path.join(folder, name)
            for sub, goal in (("below", elsewhere), ("below2", victim)):
                try:
                    os.rename(os.path.join(hidden, sub), os.path.join(hidden, sub + ".away"))
                    os.symlink(goal, os.path.join(hidden, sub))
                    n += 1
                    os.close(os.open(begun, os.O_CREAT, 0o644))
                except OSError:
                    pass
    return n


def symlinks_swapped_in(scene):
    folder = ALICE.folder(scene.alice, "race")
    elsewhere = ALICE.folder(scene.alice, "elsewhere")
    victim = BOB.folder(scene.bob, "victim")
    begun, ended = elsewhere + ".begun", os.path.join(scene.base, "ended")

    def store():
        with Client(scene.story.socket) as client:
            number = client.call("put", {"step": "begin"})["put"]
            fds = [os.memfd_create("file")]
            os.write(fds[0], b"for the race")
            entries = [{"type": "directory", "name": b"below"}, {"type": "directory", "name": b"below2"}]
            entries += [{"type": "directory", "name": b"%d" % i, "parent": 1 + i % 2} for i in range(40)]
            entries += [{"type": "file", "name": b"file", "parent": i, "fd": 0} for i in (1,)]
            client.call("put", {"step": "entries", "put": number, "entries": entries}, fds)
            return client.call("put", {"step": "commit", "put": number})["digest"]
    tree = ALICE.does(store)
    swapped = []
    attacker = threading.Thread(target=lambda: swapped.append(ALICE.does(swaps, folder, elsewhere, victim, begun, ended)))
    attacker.start()
    answers = set()
    try:
        for i in range(2000):
            if i >= 100 and os.path.exists(begun):
                break
            answers.add(code(call(scene, ALICE, "materialize", {"digest": tree, "name": b"%d" % i}, folder)))
    finally:
        os.close(os.open(ended, os.O_CREAT, 0o644))
        attacker.join()
        os.unlink(ended)
    scene.check("trees were attacked while they were made", swapped[0] > 0, swapped)
    scene.check_is("nothing was made where the symlinks led", (os.listdir(elsewhere), os.listdir(victim)), ([], []))
    scene.check("each was made or refused", answers <= {"done", "failed_precondition", "internal", "permission_denied",
                                                        "invalid_argument"}, answers)
    scene.check_is("the daemon is as it was", code(call(scene, BOB, "ping")), "done")

    # The folder itself: what counts is the descriptor, not where its path leads by then.
    place = ALICE.folder(scene.alice, "place")
    fd = os.open(place, os.O_PATH)
    os.rename(place, place + ".away")
    os.symlink(victim, place)
    scene.check_is("a folder that was replaced by a symlink is still the folder", (code(call(scene, ALICE, "materialize",
                   {"digest": tree, "name": b"t"}, fds=[fd])), os.listdir(place + ".away"), os.listdir(victim)),
                   ("done", ["t"], []))
    os.close(fd)


def litter_of_a_kill(scene):
    """What a killed daemon left is taken away as the client, be it by a supplementary group."""
    shared = BOB.folder(scene.homes, "shared", mode=0o770, group=PROJECT)
    places = [ALICE.folder(scene.alice, "killed", mode=0o700), shared]
    files = [(b"%d" % i, b"file %d" % i, False) for i in range(200)]
    tree = put(scene, ALICE, files)

    def litter_in(place):
        return [name for name in os.listdir(place) if name.startswith(".dircache-")]

    def litter():
        return sum(map(litter_in, places), [])

    def everywhere():
        return all(map(litter_in, places))

    def all_made():
        return not litter() and all(len(os.listdir(place)) == 20 for place in places)

    def ask():
        fds = [os.open(place, os.O_PATH) for place in places]
        with Client(scene.story.socket) as client:
            for i in range(20):
                for fd in fds:
                    client.request("materialize", {"digest": tree, "name": b"%d" % i, "mode": "copy"}, [fd])
            client.until_closed()

    for _ in range(20):  # perhaps it was done with all when it was killed
        asking = threading.Thread(target=ALICE.does, args=(ask,))
        asking.start()
        scene.story.eventually(20, lambda: everywhere() or all_made())
        scene.story.kill_daemon()
        asking.join()
        if everywhere():
            break
        ALICE.does(lambda: [shutil.rmtree(os.path.join(place, name)) for place in places for name in os.listdir(place)])
        scene.start()
    found = everywhere()
    scene.start()
    scene.check("a killed daemon left something in each of two folders", found)
    scene.check("which the next one takes away as the client", scene.story.eventually(20, lambda: not litter()), litter())


def story_of(story, name, uid):
    scene = Scene(story, name, uid)
    scene.store_folder = lambda: os.path.join(story.store, "blobs")
    scene.start()
    if uid:
        with open("/proc/%d/status" % story.daemon.pid) as status:
            caps = [line.split()[1] for line in status if line.startswith(("CapPrm", "CapEff"))]
        scene.check_is("the daemon has three capabilities", caps, ["%016x" % (1 << 3 | 1 << 6 | 1 << 7)] * 2)
    tree = put(scene, ALICE, [(b"a", b"hello", False), (b"run", b"#!/bin/sh", True), (b"empty", b"", False)])
    other = put(scene, BOB, [(b"b", b"bob's", False)])
    blob = [entry["digest"] for entry in call(scene, ALICE, "ls", {"digest": tree})["entries"] if entry["name"] == b"a"][0]
    who_owns_what(scene, tree, blob)
    where_a_client_may(scene, tree)
    sticky_folders(scene, tree, blob)
    administration(scene, tree, other)
    who_is_served(scene, tree)
    symlinks_swapped_in(scene)
    litter_of_a_kill(scene)
    stats = call(scene, ROOT, "stats")
    scene.check_is("no shared inode was changed by all this", stats["tampered_blobs"], 0)
    scene.check_is("it stops cleanly", story.stop_daemon(), 0)


def without_privileges(story):
    """An ordinary user's daemon serves its user and root, whatever its socket's mode."""
    base = DAEMON.folder(story.dir, "ordinary")
    story.store, story.socket = os.path.join(base, "store"), os.path.join(base, "s")
    story.start_daemon("--socket-mode", "0666", under=("setpriv", "--reuid", "12000", "--regid", "12000", "--clear-groups"))

    def first_word():
        with Client(story.socket) as client:
            return client.until_closed()
    seen = ALICE.does(first_word)
    story.check("an ordinary user's daemon turns others away", seen and seen[0][1]["code"] == "permission_denied" and
                "serves user 12000 only" in seen[0][1]["message"], seen)
    for user in DAEMON, ROOT:
        story.check("but not " + user.name, user.does(lambda: ready_client(story.socket).call("ping")["uid"]) == 12000)
    story.check_is("and stops cleanly", story.stop_daemon(), 0)


def main():
    if os.geteuid() != 0:
        skip_story("only root has other users")
    with Story() as story:
        os.chmod(story.dir, 0o711)
        if not can_run_programs(ALICE):
            skip_story("other users cannot run the programs")
        story_of(story, "root", 0)
        story_of(story, "own user", DAEMON.uid)
        without_privileges(story)


main()
