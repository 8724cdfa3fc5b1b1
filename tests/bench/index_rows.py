# SPDX-License-Identifier: Apache-2.0
"""Rows for an index, as the daemon would have written them (daemon/index_db.c), for blobs that are not there."""

import hashlib
import sqlite3


def blob(number):
    """A blob of 2 KiB, a plain one but for every tenth."""
    digest = hashlib.sha256(b"row %d" % number).digest()
    inode = int.from_bytes(digest[:8], "little", signed=True)
    if number % 10:
        return digest, 2048, 1, 4096, 0, number + 1, inode, 0
    return digest, 2048, 2, 0, 4096, number + 1, 0, inode


def fill(path, n):
    """Add n blobs to the index of a daemon that was stopped cleanly."""
    connection = sqlite3.connect(path)
    with connection:
        connection.executemany("INSERT INTO blobs (hash, size, kinds, plain_allocated, exec_allocated, used,"
                               " plain_inode, exec_inode) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                               (blob(number) for number in range(n)))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
