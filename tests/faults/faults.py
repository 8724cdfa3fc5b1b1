# SPDX-License-Identifier: Apache-2.0
"""Orders to tests/faults/dircached: which of its system calls fails, and as what (tests/faults/fault.h)."""

import mmap
import os
import struct
import time

SIZE = 128
KILL = 0  # instead of an errno


class Faults:
    def __init__(self, path):
        with open(path, "wb") as file:
            file.truncate(SIZE)
        with open(path, "r+b") as file:
            self.orders = mmap.mmap(file.fileno(), SIZE)
        os.environ["DIRCACHE_FAULTS"] = path

    def arm(self, n, errnum):
        """Let the n-th call from now on fail, or kill the daemon."""
        self.orders[8:SIZE] = struct.pack("=ii112s", errnum, 0, b"")
        self.orders[:8] = struct.pack("=q", n)

    def left(self):
        """How many calls are still to be made until one fails; 0: that was."""
        return struct.unpack("=q", self.orders[:8])[0]

    def wait_for_hit(self, seconds):
        """Wait until a call has failed, or until none was made for so long."""
        left, end = self.left(), time.monotonic() + seconds
        while left and time.monotonic() < end:
            time.sleep(seconds / 10)
            if self.left() != left:
                left, end = self.left(), time.monotonic() + seconds

    def disarm(self):
        """Let nothing fail any more. The call that failed, or None."""
        self.orders[:8] = bytes(8)
        return self.orders[16:SIZE].split(b"\0")[0].decode() or None
