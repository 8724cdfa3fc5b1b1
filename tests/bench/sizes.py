# SPDX-License-Identifier: Apache-2.0
"""What a hit costs against the size of its tree: rows for the table, and a plot."""

import plot
import trees
from rows import Row, always, median, ratio

SIZES = 100, 1000, 10000, 100000  # files, ten in a directory
MOST_SAMPLES = 200000             # files made by one contender for one size: large trees are measured less often


def tree_of(n):
    """n files in n / 10 directories, as even as can be."""
    directories = n // 10
    tops = max(1, directories // 100)
    subs = directories // tops - 1
    return trees.many_small("size %d" % n, tops, subs)


def repetitions(bench, n):
    return max(3, min(bench.options.repeat, MOST_SAMPLES // n))


def measure(bench, n):
    """Samples by contender."""
    tree = tree_of(n)
    source = bench.path("size")
    trees.write(tree, source)
    digest, threads = bench.put(source), str(bench.options.threads)
    samples = bench.compare({"dircache": always(bench.materialize(digest)),
                             "floor": always(bench.floor_tree(bench.write_plan(tree), "--threads", threads)),
                             "cp -al": always(lambda target: ["cp", "-al", source, target])},
                            repetitions(bench, n))
    bench.runner.remove(source)
    return trees.count_files(tree), samples


def sizes(bench):
    lines = {}
    for size in SIZES:
        n, samples = measure(bench, size)
        ours, floor, cp = (median(samples[name]) for name in ("dircache", "floor", "cp -al"))
        for name, ms in ("dircache", ours), ("floor", floor), ("cp -al", cp):
            lines.setdefault(name, []).append((n, ms))
        yield Row("hit, {:,} files in {:,} directories".format(n, n // 10), ours, floor, cp, samples=samples,
                  floor_ratio=ratio(samples, "dircache", "floor"), cp_ratio=ratio(samples, "dircache", "cp -al"),
                  note="%.2f µs a file, median of %d" % (ours * 1000 / n, len(samples["dircache"])))
    if bench.options.plot:
        plot.write(bench.options.plot, "What a hit costs, by the size of its tree", "files", "milliseconds", lines)
