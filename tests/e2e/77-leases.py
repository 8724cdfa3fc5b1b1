#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A leased tree is not evicted: for some seconds, whatever becomes of the client; or as long as a connection lasts."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
import reapi  # noqa: E402
from rpc import Client, RpcError  # noqa: E402

WEEK = 7 * 24 * 60 * 60


class Tale:
    def __init__(self, story):
        self.story = story
        self.n = 0

    def run(self, *words, status=0):
        command = ["dircache", "--socket", self.story.socket, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        self.said = done.stdout + done.stderr
        return done.returncode == status

    def fresh(self):
        self.n += 1
        return "%s/%d" % (self.story.dir, self.n)

    def put_tree(self, text):
        """A tree with a folder in it; digests of both."""
        folder = self.fresh()
        os.makedirs(folder + "/below")
        for name in "file", "below/file":
            with open(os.path.join(folder, name), "w") as file:
                file.write(name + text)
        assert self.run("put", folder), self.said
        return self.said.strip(), reapi.text(reapi.tree(folder + "/below"))

    def call(self, method, **params):
        with Client(self.story.socket) as client:
            return client.call(method, params)

    def counter(self, name):
        return self.call("stats")[name]

    def trees(self):
        return {tree["digest"] for tree in self.call("trees")["trees"]}

    def evict_all(self):
        """What is cached after all that can be evicted was."""
        self.call("gc", to=0)
        return self.trees()

    def is_whole(self, tree, text):
        """It is there, without anything being put again."""
        target = self.fresh()
        before = self.counter("tree_misses")
        return (self.run("materialize", tree, target) and open(target + "/file").read() == "file" + text
                and open(target + "/below/file").read() == "below/file" + text
                and self.counter("tree_misses") == before)


def by_seconds(tale):
    story = tale.story
    leased, _ = tale.put_tree("leased")
    other, _ = tale.put_tree("other")
    story.check("a tree is leased", tale.run("materialize", "--lease", str(WEEK), leased, tale.fresh()), tale.said)
    assert tale.run("materialize", other, tale.fresh()), tale.said
    story.check_is("which is counted", tale.counter("leases"), 1)
    story.check_is("all but it are evicted", tale.evict_all(), {leased})
    story.check_is("and counted", tale.counter("evicted_trees"), 1)
    story.check("it is whole", tale.is_whole(leased, "leased"))
    assert tale.run("materialize", "--lease", "1", leased, tale.fresh()), tale.said
    story.check_is("leased again for less it is one lease", tale.counter("leases"), 1)

    short, _ = tale.put_tree("short")
    story.check("another is leased for a second", tale.run("materialize", "--lease", "1", short, tale.fresh()))
    story.check("which ends", story.eventually(60, lambda: tale.counter("leases") == 1))
    story.check_is("and then it is evicted, and the first is not", tale.evict_all(), {leased})
    story.check("whose lease goes on", tale.is_whole(leased, "leased"))

    story.check_is("the daemon stops", story.stop_daemon(), 0)
    story.start_daemon()
    assert tale.run("ping", "--wait", "60"), tale.said
    story.check_is("after a restart there is no lease", tale.counter("leases"), 0)
    story.check("and in time nothing is left", story.eventually(60, lambda: tale.evict_all() == set()))


def by_connection(tale):
    story = tale.story
    tree, _ = tale.put_tree("connected")
    clients = [Client(story.socket) for _ in range(2)]
    for client in clients:
        for _ in range(2):
            client.call("materialize", {"digest": tree, "path": os.fsencode(tale.fresh()), "lease_connection": True})
    story.check_is("two connections have a lease each, however often they asked", tale.counter("leases"), 2)
    story.check_is("the tree is not evicted", tale.evict_all(), {tree})
    clients[0].close()
    story.check("one lease ends with its connection", story.eventually(60, lambda: tale.counter("leases") == 1))
    story.check_is("the other is enough", tale.evict_all(), {tree})
    story.check("and the tree is whole", tale.is_whole(tree, "connected"))
    clients[1].close()
    story.check("when both have ended there is none", story.eventually(60, lambda: tale.counter("leases") == 0))
    story.check_is("and the tree goes", tale.evict_all(), set())


def of_a_part(tale):
    story = tale.story
    tree, below = tale.put_tree("parted")
    assert tale.run("materialize", "--lease", "60", below, tale.fresh()), tale.said
    story.check_is("a lease on what is below a tree keeps that", tale.evict_all(), {below})
    target = tale.fresh()
    story.check("and it is whole", tale.run("materialize", below, target) and
                open(target + "/file").read() == "below/fileparted", tale.said)
    target = tale.fresh()
    story.check("what was above it is not there", tale.run("materialize", tree, target, status=3), tale.said)


def refused(tale):
    story = tale.story
    tree, _ = tale.put_tree("refused")
    before = tale.counter("leases")
    blob = reapi.text(reapi.digest_of(b"filerefused"))
    for claim, params in (("of no second", {"lease": 0}), ("of more than a week", {"lease": WEEK + 1}),
                          ("of both kinds", {"lease": 1, "lease_connection": True}),
                          ("on a file", {"lease": 1, "file": True, "digest": blob}),
                          ("on a file by a connection", {"lease_connection": True, "file": True, "digest": blob})):
        target = tale.fresh()
        try:
            tale.call("materialize", **{"digest": tree, "path": os.fsencode(target), **params})
            code = "answered"
        except RpcError as error:
            code = error.code
        story.check_is("a lease %s is refused" % claim, code, "invalid_argument")
        story.check("and nothing appears", not os.path.lexists(target))
    for words in ["0"], [str(WEEK + 1)], ["1h"], [""], ["-1"], ["1", "--file"]:
        wrong = tale.run("materialize", "--lease", *words, tree, tale.fresh(), status=2)
        story.check("--lease %s is a usage error" % " ".join(words), wrong, tale.said)
    os.mkdir(tale.fresh())
    target = "%s/%d/there" % (story.dir, tale.n)
    os.mkdir(target)
    with open(target + "/kept", "w"):
        pass
    story.check("a materialize that fails", tale.run("materialize", "--lease", "60", tree, target, status=1), tale.said)
    with Client(story.socket) as client:
        params = {"digest": tree, "path": os.fsencode(target), "lease_connection": True}
        try:
            client.call("materialize", params)
        except RpcError:
            pass
        story.check_is("takes no lease", tale.counter("leases"), before)


def main():
    with Story(180) as story:
        tale = Tale(story)
        story.start_daemon()
        assert tale.run("ping", "--wait", "60"), tale.said
        by_seconds(tale)
        by_connection(tale)
        of_a_part(tale)
        refused(tale)


main()
