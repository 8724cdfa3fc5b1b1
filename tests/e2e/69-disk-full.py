#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that is filled to the last block, or to the last inode, at any point: whatever is asked works or is
no_space, nothing is there in part, and with room again all is well. And a floor of free disk."""

import os
import random
import re
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import forest as forests  # noqa: E402
import image  # noqa: E402
import reapi  # noqa: E402
from rpc import RpcError, ready_client  # noqa: E402

SEED = int(os.environ.get("STORM_SEED") or time.time_ns() % 1000000)
MIB = 1 << 20
N_TAGGED = 6


class Ballast:
    """A file that takes what is free on a disk, but for so much."""

    def __init__(self, room):
        self.path = os.path.join(room, "ballast")

    def fill(self, leave=0):
        """Nothing but `leave` bytes stays free."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            size = os.fstat(fd).st_size
            piece = MIB
            while piece >= 1024:
                try:
                    os.posix_fallocate(fd, size, piece)
                    size += piece
                except OSError:
                    piece //= 2
            os.ftruncate(fd, max(0, size - leave))
            os.fsync(fd)
        finally:
            os.close(fd)

    def drop(self):
        if os.path.exists(self.path):
            os.unlink(self.path)


class InodeBallast:
    """Empty files that take what inodes are free, but for so many."""

    def __init__(self, room):
        self.folder = os.path.join(room, "inodes")
        os.mkdir(self.folder)
        self.n = 0

    def fill(self, leave=0):
        try:
            while True:
                os.close(os.open(os.path.join(self.folder, "%d" % self.n), os.O_CREAT | os.O_WRONLY))
                self.n += 1
        except OSError:
            pass
        self.give_back(leave)

    def give_back(self, n):
        for _ in range(n):
            self.n -= 1
            os.unlink(os.path.join(self.folder, "%d" % self.n))

    def drop(self):
        self.give_back(500)  # of thousands: more than anything here asks for


class Scene:
    """A store and a folder for targets on a disk of their own, with trees that tags pin."""

    def __init__(self, story, name, size, *mkfs_options, options=()):
        self.story = story
        self.options = options
        self.room = image.mount_ext4(story, name, size, *mkfs_options)
        if not self.room:
            skip_story("no file system can be mounted here")
        story.store = os.path.join(self.room, "store")
        self.out = os.path.join(self.room, "out")
        os.mkdir(self.out)
        story.start_daemon(*options)
        self.client = ready_client(story.socket)
        self.n_targets = 0
        self.tagged = []
        self.words = set()

    def restart(self, kill=False):
        """Does the daemon end in order, and come again?"""
        self.client.close()
        if kill:
            self.story.kill_daemon()
            status = 0
        else:
            status = self.story.stop_daemon()
        self.story.start_daemon(*self.options)
        self.client = ready_client(self.story.socket)
        return status == 0

    def end(self):
        self.client.close()
        self.story.check_is("the daemon ends in order", self.story.stop_daemon(), 0)

    def outcome(self, function, *args):
        """`done`, or the code of an error, whose words are looked at later."""
        try:
            function(*args)
        except RpcError as error:
            if error.code == "no_space":
                self.words.add(error.message)
            return error.code
        return "done"

    def tag_trees(self, trees):
        for i, tree in enumerate(trees):
            forests.put_tree(self.client, tree, tag="pinned-%d" % i)
        self.tagged = trees

    def request_materialize(self, tree):
        self.n_targets += 1
        target = os.path.join(self.out, "%d" % self.n_targets)
        params = {"digest": reapi.text(tree.digest), "path": target.encode()}
        return tree, target, self.client.request("materialize", params)

    def end_materialize(self, tree, target, id_):
        """`done`, the code of an error, or what is wrong with what is there."""
        answer = self.outcome(self.client.wait, id_)
        if answer != "done":
            return "%s, and yet it is there" % answer if os.path.lexists(target) else answer
        wrong = forests.difference(target, tree)
        shutil.rmtree(target)
        return wrong or "done"

    def materialize(self, tree):
        return self.end_materialize(*self.request_materialize(tree))

    def put(self, tree, **commit):
        return self.outcome(lambda: forests.put_tree(self.client, tree, **commit))

    def tag(self, name, tree):
        return self.outcome(self.client.call, "tag", {"name": name, "digest": reapi.text(tree.digest)})

    # ---- claims ----

    def check_outcomes(self, claim, outcomes):
        print("# %s: %s" % (claim, ", ".join("%s %d" % (word, outcomes.count(word)) for word in sorted(set(outcomes)))))
        self.story.check(claim, set(outcomes) <= {"done", "no_space"}, (outcomes, self.words))

    def check_sound(self, when):
        story = self.story
        story.check("no litter stays " + when, story.eventually(10, lambda: not story.litter(self.out)), story.litter(self.out))
        story.check_is("every name is that of its bytes " + when, forests.misnamed(story.store), [])

    def check_well(self):
        """With room again: what is pinned is whole, and what comes is taken in."""
        story = self.story
        story.check_is("with room again all tagged trees are whole",
                       [self.materialize(tree) for tree in self.tagged], ["done"] * len(self.tagged))
        tree = new_trees("well %d" % self.n_targets, 1)[0]
        story.check_is("a new one is stored", self.put(tree), "done")
        story.check_is("and materialized", self.materialize(tree), "done")
        story.check("a restart is in order", self.restart())
        story.check_is("and keeps it", self.materialize(tree), "done")
        agreed = story.eventually(10, self.accounts_agree)
        story.check("the accounts equal the disk", agreed,
                    (self.client.call("stats")["allocated_bytes"], image.disk_usage(story.store)))

    def accounts_agree(self):
        return self.client.call("stats")["allocated_bytes"] == image.disk_usage(self.story.store)


def new_trees(seed, n):
    return forests.Forest("%d %s" % (SEED, seed), n, size_max=30 << 10).trees


def branchy(n):
    """A tree of many folders, each a block."""
    tree = forests.Tree()
    content = forests.Content("leaf", 100)
    for i in range(n):
        child = forests.Tree()
        child.files[b"f%d" % i] = (content, False)
        child.symlinks[b"l"] = b"x" * 200
        tree.directories[b"d%d" % i] = child.seal()
    return tree.seal()


# ---- to the last block ----


def fill_and_try(scene, ballast, points, act):
    """Do something with so much room left, at one point after another; what came of each."""
    outcomes = []
    for point in points:
        ballast.fill(leave=point)
        outcomes.append(act(point))
        ballast.drop()
    return outcomes


def puts_and_materializes(scene, ballast, points):
    trees = iter(new_trees("new", 2 * len(points)))
    wide = branchy(30)
    scene.tag_trees(scene.tagged + [wide])
    scene.check_outcomes("a put works or is no_space",
                         fill_and_try(scene, ballast, points, lambda _: scene.put(next(trees))))
    scene.check_outcomes("so does a put with a tag",
                         fill_and_try(scene, ballast, points, lambda _: scene.put(next(trees), tag="moving")))
    scene.check_outcomes("so does a materialize",
                         fill_and_try(scene, ballast, points, lambda _: scene.materialize(wide)))
    scene.check_outcomes("so does a tag",
                         fill_and_try(scene, ballast, points, lambda i: scene.tag("tag-%d" % i, wide)))
    for i in points:
        scene.outcome(scene.client.call, "tag", {"name": "tag-%d" % i, "delete": True})
    scene.check_sound("afterwards")


def works_while_full(scene, ballast):
    """No room at all, for a while."""
    story = scene.story
    loose = new_trees("loose", 12)
    for tree in loose:
        scene.put(tree)
    ballast.fill()
    story.check("a restart on a full disk is in order", scene.restart())
    scene.check_outcomes("trees that are there work or are no_space",
                         [scene.materialize(tree) for tree in scene.tagged])
    story.check("a restart after a kill is, too", scene.restart(kill=True))
    before = image.disk_free(scene.room)
    story.check_is("a collection works on a full disk", scene.outcome(scene.client.call, "gc", {"to": 0}), "done")
    story.check("and makes room", story.eventually(10, lambda: image.disk_free(scene.room) >= before + 100000),
                "%d, %d before" % (image.disk_free(scene.room), before))
    story.check_is("for what was evicted", scene.put(loose[0]), "done")
    story.check_is("which is whole then", scene.materialize(loose[0]), "done")
    scene.check_sound("on a full disk")
    ballast.drop()


def filled_meanwhile(scene, ballast):
    """Somebody else fills the disk, and frees it, while files are on their way into the store."""
    random_ = random.Random(SEED)
    outcomes = []
    for tree in new_trees("meanwhile", 30):
        put = scene.client.call("put", {"step": "begin"})["put"]
        ids = [forests.send_batch(scene.client, put, *batch) for batch in forests.batches_of(tree)]
        target = scene.request_materialize(scene.tagged[-1])
        ballast.fill(leave=random_.choice((0, 1024, 10000, 100000)))
        outcomes += [scene.end_materialize(*target)]
        answers = [scene.outcome(scene.client.wait, id_) for id_ in ids]
        if set(answers) == {"done"}:
            answers.append(scene.outcome(scene.client.call, "put", {"step": "commit", "put": put}))
        outcomes += answers
        if random_.random() < 0.5:
            ballast.drop()
    scene.check_outcomes("what is under way while the disk fills up works or is no_space", outcomes)
    scene.check_sound("after that")
    ballast.drop()
    vague = [words for words in scene.words if not re.match("(making|storing|tagging|writing) .+: .+", words)]
    scene.story.check("errors say what it was that had no room", not vague, vague)


def last_block(story):
    scene = Scene(story, "blocks", 64 * MIB)
    scene.tag_trees(new_trees("pinned", N_TAGGED))
    ballast = Ballast(scene.room)
    points = [i * 1024 for i in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)]
    puts_and_materializes(scene, ballast, points)
    works_while_full(scene, ballast)
    filled_meanwhile(scene, ballast)
    scene.check_well()
    scene.end()


def last_inode(story):
    scene = Scene(story, "inodes", 64 * MIB, "-N", "3000")
    scene.tag_trees(new_trees("pinned", N_TAGGED))
    puts_and_materializes(scene, InodeBallast(scene.room), [0, 1, 2, 3, 5, 8, 12, 20, 40, 80])
    scene.check_well()
    scene.end()


# ---- a floor of free disk ----

FLOOR = 40 * MIB


class Floor(Scene):
    """A store that leaves so much of its disk free, and somebody else who takes of it."""

    def __init__(self, story):
        super().__init__(story, "floor", 96 * MIB, "-b", "4096", options=("--min-free", "%d" % FLOOR))
        self.ballast = Ballast(self.room)

    def is_kept(self):
        """With the tenth above it, down to which eviction goes on."""
        return image.disk_free(self.room) >= FLOOR + FLOOR // 10

    def evicted(self):
        stats = self.client.call("stats")
        return [stats["evicted_trees"], stats["evicted_blobs"]]

    def link_all_cached(self):
        """Materialize every tree that is there and does not just go; their digests."""
        linked = []
        for row in self.client.call("trees")["trees"]:
            self.n_targets += 1
            target = os.path.join(self.out, "%d" % self.n_targets)
            params = {"digest": row["digest"], "path": target.encode()}
            if self.outcome(self.client.call, "materialize", params) == "done":
                linked.append(row["digest"])
        return linked

    def n_runs(self):
        """How often it was evicted until there was room; the log has a line for each time."""
        with open(self.story.log, errors="replace") as log:
            return log.read().count("evicted ")

    def log_says(self, words):
        with open(self.story.log, errors="replace") as log:
            return words in log.read()


def not_whole(client, digests):
    """Which of these trees are not whole."""
    return client.call("has", {"digests": digests, "tree": True})["missing"]


def floor_of_free_disk(story):
    scene = Floor(story)
    trees = [forests.simple_tree("%d floor %d" % (SEED, i), 10, 20000) for i in range(240)]
    lowest = image.disk_free(scene.room)
    outcomes = []
    for tree in trees:
        outcomes.append(scene.put(tree))
        lowest = min(lowest, image.disk_free(scene.room))
    scene.check_outcomes("puts work or are no_space", outcomes)
    story.check("and leave the floor free", lowest >= FLOOR, "%d bytes were free" % lowest)
    story.check("since what was not used for long went for them", scene.evicted()[0] > 0, scene.evicted())

    n_runs = scene.n_runs()
    scene.ballast.fill(leave=FLOOR - 4 * MIB)
    story.check("when others take of it, more goes", story.eventually(10, scene.is_kept),
                "%d bytes are free" % image.disk_free(scene.room))

    scene.ballast.drop()
    story.check("until there is room", story.eventually(10, lambda: scene.n_runs() > n_runs))
    linked = scene.link_all_cached()
    story.check("many trees stay", len(linked) > 20, len(linked))
    scene.ballast.fill(leave=FLOOR - 4 * MIB)
    story.check("when all that is there is linked elsewhere too, the log says that eviction would free nothing",
                story.eventually(10, lambda: scene.log_says("min-free")))
    story.check_is("a put is no_space then", scene.put(new_trees("late", 1)[0]), "no_space")
    story.check_is("and of those trees none was evicted", not_whole(scene.client, linked), [])
    before = scene.evicted()
    for target in os.listdir(scene.out):
        shutil.rmtree(os.path.join(scene.out, target))
    story.check_is("when those links are gone, a put has room", scene.put(new_trees("later", 1)[0]), "done")
    story.check("by eviction", scene.evicted()[0] > before[0], scene.evicted())
    free = image.disk_free(scene.room)
    story.check("and the floor is kept", free >= FLOOR, "%d bytes are free" % free)
    scene.ballast.drop()
    scene.check_well()
    scene.end()


def main():
    image.own_mounts()
    print("# STORM_SEED=%d" % SEED)
    with Story(seconds=600) as story:
        last_block(story)
        last_inode(story)
        floor_of_free_disk(story)


main()
