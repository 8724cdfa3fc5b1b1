#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""put under faults."""

import sweep


def sweeps(s):
    yield "put", s.fresh, s.put


sweep.main(sweeps)
