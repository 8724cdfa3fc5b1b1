#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Nothing of the fault layer is in what is released: no symbol, and no text. And the layer knows the calls."""

import os
import re
import sys

BUILT = os.environ.get("top_builddir") or os.environ["builddir"]
OF_THE_LAYER = [b"fault_is_due", b"DIRCACHE_FAULTS", b"disk: fdopendir", b"index: pwrite64", b"try_pwrite64"]


def found_in(path):
    with open(os.path.join(BUILT, path), "rb") as file:
        data = file.read()
    return [word.decode() for word in OF_THE_LAYER if word in data]


def never_made():
    """Of the calls that may be interrupted, by the table in fault.c, those that the daemon with faults does not make."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fault.c")) as file:
        calls = re.findall(r'"(disk|index): ([^"]*)"', file.read())
    with open(os.path.join(BUILT, "tests/faults/dircached"), "rb") as file:
        data = file.read()
    # Of the disk's a report has the whole call; of the index's there is a function that stands in.
    return [name for of, name in calls if not re.search(
        (b"disk: %s[^\\0]" % re.escape(name.encode())) if of == "disk" else b"try_" + name.encode(), data)]


def main():
    claims = [
        ("the daemon with faults has all of the layer", "tests/faults/dircached", [w.decode() for w in OF_THE_LAYER]),
        ("the daemon has nothing of it", "daemon/dircached", []),
        ("nor has its library", "daemon/libdircached.a", []),
    ]
    results = [(claim, found_in(path), wanted) for claim, path, wanted in claims]
    results.append(("each call that can be interrupted is made", never_made(), []))
    print("1..%d" % len(results))
    for n, (claim, found, wanted) in enumerate(results, 1):
        print("%s %d - %s" % ("ok" if found == wanted else "not ok", n, claim))
        if found != wanted:
            print("# found %s" % found)
    sys.exit(1 if any(found != wanted for _, found, wanted in results) else 0)


main()
