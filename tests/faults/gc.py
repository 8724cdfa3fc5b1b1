#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""gc under faults."""

import sweep


def sweeps(s):
    yield "gc", s.put_anew, lambda _: s.call("gc", {"to": 0})


sweep.main(sweeps)
