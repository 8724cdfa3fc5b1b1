#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Starting under faults: after a stop, and after a kill that left something to be put right."""

import os

import sweep
from sweep import ALL, KILL, Died, reapi


def killed(s):
    """A blob whose row the index does not have, and half a tree beside a target."""
    s.put_anew()
    data = b"without a row"
    hash_, _ = reapi.digest_of(data)
    s.faults.arm(15, KILL)
    try:
        s.materialize(s.tree, s.files, mode="copy")
    except Died:
        pass
    s.faults.disarm()
    s.story.kill_daemon()
    folder = os.path.join(s.story.store, "blobs", hash_[:2])
    os.makedirs(folder, 0o711, exist_ok=True)
    with open(os.path.join(folder, hash_), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o444)


def sweeps(s):
    yield "a start after a stop", s.stop, lambda _: s.start()
    if ALL:  # it reads every folder of the store, so it takes minutes
        yield "a start after a kill", lambda: killed(s), lambda _: s.start()


sweep.main(sweeps)
