#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""remove under faults."""

import os

import sweep


def made(s):
    path = s.target()
    s.call("materialize", {"digest": s.tree, "path": path})
    return path


def remove(s, path):
    """Is all of it gone, or nothing?"""
    try:
        s.call("remove", {"path": path})
        assert not os.path.lexists(path), "a target that was removed is there"
    finally:
        assert not os.path.lexists(path) or s.files_at(path) == s.files, "half a target is there"


def sweeps(s):
    yield "remove", lambda: made(s), lambda path: remove(s, path)


sweep.main(sweeps)
