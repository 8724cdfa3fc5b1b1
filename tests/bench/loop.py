# SPDX-License-Identifier: Apache-2.0
"""The loop's longest callback, and beside it the longest of bare ones on the same machine."""

import contextlib
import json
import subprocess

from rows import CLIENTS, Row
from scene import COMMAND_SECONDS, Daemon, Failed

MOST_ROUNDS = 5


@contextlib.contextmanager
def bare_callbacks(bench):
    """A thread beside what goes on that does what a callback may do. Gives a function that ends it and tells of it."""
    process = subprocess.Popen([bench.parts, "bare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end():
        return json.loads(process.communicate(timeout=COMMAND_SECONDS)[0])

    try:
        yield end
    finally:
        process.kill()
        process.wait()


def work(bench, daemon):
    """Every request that grows with a tree or with the store, the larger ones sixteen at once."""
    def ask(*arguments):
        return [*daemon.client, *arguments]

    targets = [bench.path("target") for _ in range(CLIENTS)]
    for command in ask("put", bench.source), ask("materialize", bench.digest, targets[0]), ask("remove", targets[0]):
        bench.runner.time(*command)
    bench.runner.time_together([ask("materialize", bench.digest, target) for target in targets])
    for command in ask("ls", "-R", bench.digest), ask("trees"), ask("--json", "verify"):
        bench.runner.time(*command)
    bench.runner.time_together([ask("remove", target) for target in targets])
    bench.runner.time(*ask("gc", "--to", "0"))


def loop(bench):
    with Daemon(bench.options.daemon, bench.options.client, bench.folder, "loop",
                bench.options.daemon_options) as daemon, bare_callbacks(bench) as end:
        for _ in range(min(bench.options.repeat, MOST_ROUNDS)):
            work(bench, daemon)
        bare, counters = end(), daemon.counters()
    if not counters:
        raise Failed("no counters")
    longest, earlier = counters["loop_longest_cpu_us"], bench.counters()
    yield Row("the loop's longest callback", longest, bare["longest"], unit="µs",
              goal="at most 1 ms, or a bare one", met=longest <= max(1000, bare["longest"]), samples=bare,
              note="of processor time; the floor is the longest of %d bare callbacks at the same time; by the clock, with what "
                   "others had of its processor, ours took %.1f ms; of the daemon that served the rows before: %.1f ms" % (
                       bare["calls"], counters["loop_longest_us"] / 1000, earlier["loop_longest_cpu_us"] / 1000))
