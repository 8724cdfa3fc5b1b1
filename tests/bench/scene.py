# SPDX-License-Identifier: Apache-2.0
"""Where the benchmark runs: a private file system in memory, programs timed from start to end, the daemon.

Nothing outlives the benchmark, however it ends: the file system is mounted in a mount namespace of its own from
an image that has no name any more, and the daemon dies with its parent.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC_PRIVATE = 0x20000, 0x4000 | 0x40000
COMMAND_SECONDS = 300


class Failed(Exception):
    """A command failed; the words say which and why."""


def check_call(result, what):
    if result < 0:
        raise Failed("%s: %s" % (what, os.strerror(ctypes.get_errno())))


@contextlib.contextmanager
def time_limit(seconds, what):
    def on_alarm(signum, frame):
        raise Failed("%s took more than %d s" % (what, seconds))

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mount_ext4(folder, gigabytes):
    """An ext4 image in memory, mounted where only we see it. Inode tables and journal are made at once, so that no
    kernel thread makes them while we measure."""
    image = folder + ".image"
    try:
        with open(image, "wb") as file:
            file.truncate(gigabytes << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "1000000", "-E", "lazy_itable_init=0,lazy_journal_init=0",
                        image], check=True, capture_output=True)
        check_call(LIBC.unshare(CLONE_NEWNS), "unshare")
        check_call(LIBC.mount(b"none", b"/", None, MS_REC_PRIVATE, None), "making mounts private")
        subprocess.run(["mount", "-o", "loop", image, folder], check=True, capture_output=True)
    except (OSError, Failed, subprocess.CalledProcessError):
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(image)
    return True


def unmount(folder):
    for _ in range(100):
        if subprocess.run(["umount", folder], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", folder], capture_output=True)


@contextlib.contextmanager
def file_system(on=None, gigabytes=12):
    """A folder to measure in, and what it is on: ext4 in memory, else tmpfs; or a new folder inside `on`."""
    folder = tempfile.mkdtemp(prefix="dircache-bench-", dir=on or "/dev/shm")
    mounted = False
    try:
        if on is None and os.geteuid() == 0:
            mounted = mount_ext4(folder, gigabytes)
        os.chmod(folder, 0o755)
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True).stdout
        yield folder, "ext4 on a loop image in memory" if mounted else kind.strip()
    finally:
        if mounted:
            unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


class Runner:
    """Starts programs, each timed from before its start to its end, with its output in files of our own."""

    def __init__(self, folder):
        self.folder = folder
        self.out, self.err = os.path.join(folder, "stdout"), os.path.join(folder, "stderr")

    def settle(self):
        """Write out what earlier programs left to write, so that the next one does not wait for it."""
        root = os.open(self.folder, os.O_RDONLY)
        try:
            check_call(LIBC.syncfs(root), "syncfs")
        finally:
            os.close(root)

    def spawn(self, argv, **options):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawnp(argv[0], argv, os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self.out, flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, self.err, flags, 0o600)], setsigdef=[signal.SIGINT], **options)

    def forget_output(self):
        for path in self.out, self.err:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def output(self):
        with open(self.out, encoding="utf-8", errors="replace") as file:
            return file.read()

    def fail(self, argv, status):
        with open(self.err, encoding="utf-8", errors="replace") as file:
            said = file.read().strip() or "nothing said"
        raise Failed("%s: exit status %d: %s" % (" ".join(argv)[:200], status, said[-500:]))

    def time(self, *argv):
        """Milliseconds from before the program's start to its end."""
        self.forget_output()
        begin = time.monotonic_ns()
        pid = self.spawn(argv)
        try:
            with time_limit(COMMAND_SECONDS, argv[0]):
                _, status = os.waitpid(pid, 0)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        end = time.monotonic_ns()
        if status:
            self.fail(argv, os.waitstatus_to_exitcode(status))
        return (end - begin) / 1e6

    def run(self, *argv):
        """The program's output."""
        self.time(*argv)
        return self.output()

    def time_together(self, commands):
        """Start all at once. Milliseconds from the common start to the end of each, in order of their ends."""
        self.forget_output()
        ends, failed = [], 0
        begin = time.monotonic_ns()
        group = self.spawn(commands[0], setpgroup=0)
        try:
            with time_limit(COMMAND_SECONDS, commands[0][0]):
                for argv in commands[1:]:
                    self.spawn(argv, setpgroup=group)
                for _ in commands:
                    _, status = os.waitpid(-group, 0)
                    failed = failed or status
                    ends.append((time.monotonic_ns() - begin) / 1e6)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-group, 0)
            raise
        if failed:
            self.fail(commands[0], os.waitstatus_to_exitcode(failed))
        return ends

    def remove(self, path):
        """Not timed."""
        if os.path.lexists(path):
            subprocess.run(["rm", "-rf", path], check=True)


PING = b"\x94\x00\x01\xa4ping\x91\x80"  # [0, 1, "ping", [{}]]
READY = b"\xa5ready\xc3"                # "ready": true


class Daemon:
    """A dircached with a store of its own. A context manager."""

    def __init__(self, program, client, folder, name, options=()):
        self.store = os.path.join(folder, "store-" + name)
        self.socket = os.path.join(folder, "socket-" + name)
        self.argv = [program, "--store", self.store, "--socket", self.socket, *options]
        self.client = [client, "--socket", self.socket]
        self.log = os.path.join(folder, "log-" + name)
        self.process = None

    def start(self):
        """Start it. Milliseconds from before its start to its first answer, and to the answer that it is ready."""
        with open(self.log, "ab") as log:
            begin = time.monotonic_ns()
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.argv],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with time_limit(COMMAND_SECONDS, "starting the daemon"), self.connect() as connection:
            first = None
            while True:
                connection.sendall(PING)
                answer = connection.recv(4096)
                now = (time.monotonic_ns() - begin) / 1e6
                first = first or now
                if READY in answer:
                    return first, now
                if not answer:
                    raise Failed("the daemon hung up: " + self.last_words())
                time.sleep(0.001)

    def connect(self):
        while self.process.poll() is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self.socket)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                time.sleep(0.0005)
        raise Failed("the daemon did not start: " + self.last_words())

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read().strip()[-500:]

    def stop(self):
        if not self.process:
            return
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed("the daemon did not stop within 60 s") from None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *what):
        try:
            self.stop()
        except Failed as failure:  # what was measured is still worth seeing
            print("bench: %s" % failure, file=sys.stderr)

    def resident(self):
        """Bytes of memory in use."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))

    def counters(self):
        return json.loads(subprocess.run([*self.client, "--json", "stats"], check=True, capture_output=True).stdout)
