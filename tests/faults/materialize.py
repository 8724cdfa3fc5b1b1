#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""materialize under faults."""

import sweep
from sweep import reapi


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

    yield "materialize of a cached tree", cached_tree, lambda tree: s.materialize(*tree)
    yield "materialize of a tree that is not cached", fresh_tree, lambda tree: s.materialize(*tree)
    yield "materialize of copies", cached_tree, lambda tree: s.materialize(*tree, mode="copy", writable=True)


sweep.main(sweeps)
