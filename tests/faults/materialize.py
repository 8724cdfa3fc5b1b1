#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""materialize under faults."""

import os

import sweep
from sweep import reapi
from users import User

OWNER = User("owner", 12002)
CLIENT = User("client", 12001)


def sweeps(s):
    def fresh_tree():
        """A Directory, stored as a blob, of files that are stored, but as plain ones: making it is a miss."""
        files = s.fresh()
        s.put({name: (data, False) for name, (data, _) in files.items()})
        nodes = [(name, reapi.digest_of(data), executable) for name, (data, executable) in files.items()]
        message = reapi.encode_directory(nodes, [], [])
        s.put({b"directory": (message, False)})
        return reapi.text(reapi.digest_of(message)), files

    def cached_tree():
        return s.tree, s.files

    def in_folder_of_mode(mode):
        def prepare():
            os.chown(s.shared, OWNER.uid, OWNER.gid)
            os.chmod(s.shared, mode)
            return cached_tree()
        return prepare

    def by_client(tree):
        s.materialize_shared(CLIENT, *tree)

    yield "materialize of a cached tree", cached_tree, lambda tree: s.materialize(*tree)
    yield "materialize of a tree that is not cached", fresh_tree, lambda tree: s.materialize(*tree)
    yield "materialize of copies", cached_tree, lambda tree: s.materialize(*tree, mode="copy", writable=True)
    if os.geteuid() == 0:
        s.serve_users()
        yield "materialize in another user's folder", in_folder_of_mode(0o777), by_client
        yield "materialize in another user's sticky folder", in_folder_of_mode(0o1777), by_client


sweep.main(sweeps)
