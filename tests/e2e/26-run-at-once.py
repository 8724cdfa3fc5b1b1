#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A program can be run as soon as it is materialized, whatever is being stored meanwhile: nobody has it open for
writing, so that execve(2) never says ETXTBSY."""

import collections
import os
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from story import Story, skip_story  # noqa: E402

try:
    import msgpack  # noqa: F401
except ImportError:
    skip_story("no msgpack for Python (Debian: python3-msgpack)")
from rpc import Client  # noqa: E402

N_THREADS = 8
ROUNDS = 25


def run(path):
    try:
        return subprocess.run([path]).returncode
    except OSError as error:
        return error.strerror


def store(client, data, executable):
    put = client.call("put", {"step": "begin"})["put"]
    fd = os.memfd_create("input")
    os.write(fd, data)
    entry = {"type": "file", "fd": 0, "executable": executable}
    client.call("put", {"step": "entries", "put": put, "entries": [entry]}, [fd])
    os.close(fd)
    return client.call("put", {"step": "commit", "put": put})["digest"]


def main():
    true = shutil.which("true")
    if not true:
        skip_story("there is no program `true`")
    with open(true, "rb") as file:
        program = file.read()
    if not program.startswith(b"\x7fELF"):
        skip_story("`true` is no program of its own")
    with Story(240) as story:
        story.start_daemon()
        said = collections.Counter()
        lock = threading.Lock()

        def work(number):
            """Programs that differ in what stands behind them, half of them known as plain files first."""
            with Client(story.socket) as client:
                for turn in range(ROUNDS):
                    data = program + b"%d %d" % (number, turn // 2) + bytes(100000)
                    digest = store(client, data, bool(turn % 2))
                    path = "%s/%d-%d" % (story.dir, number, turn)
                    client.call("materialize", {"digest": digest, "file": True, "executable": True,
                                                "path": os.fsencode(path)})
                    status = run(path)
                    with lock:
                        said[status] += 1
                    os.unlink(path)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(N_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        story.check_is("every program ran at once", dict(said), {0: N_THREADS * ROUNDS})


main()
