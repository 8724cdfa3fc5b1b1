#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Stopping under faults."""

import sweep


def busy(s):
    """Something to write, and something to forget."""
    s.put_anew()
    s.materialize(s.tree, s.files)


def sweeps(s):
    yield "stop", lambda: busy(s), lambda _: s.stop()


sweep.main(sweeps)
