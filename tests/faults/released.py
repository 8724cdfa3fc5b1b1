#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Nothing of the fault layer is in what is released: no symbol, and no text."""

import os
import sys

BUILT = os.environ.get("top_builddir") or os.environ["builddir"]
OF_THE_LAYER = [b"fault_is_due", b"DIRCACHE_FAULTS", b"disk: fdopendir", b"index: pwrite64", b"try_pwrite64"]


def found_in(path):
    with open(os.path.join(BUILT, path), "rb") as file:
        data = file.read()
    return [word.decode() for word in OF_THE_LAYER if word in data]


def main():
    claims = [
        ("the daemon with faults has all of the layer", "tests/faults/dircached", [w.decode() for w in OF_THE_LAYER]),
        ("the daemon has nothing of it", "daemon/dircached", []),
        ("nor has its library", "daemon/libdircached.a", []),
    ]
    failed = 0
    print("1..%d" % len(claims))
    for n, (claim, path, wanted) in enumerate(claims, 1):
        found = found_in(path)
        failed += found != wanted
        print("%s %d - %s" % ("ok" if found == wanted else "not ok", n, claim))
        if found != wanted:
            print("# %s: found %s" % (path, found))
    sys.exit(1 if failed else 0)


main()
