# SPDX-License-Identifier: Apache-2.0
"""lib.sh for stories in Python: a daemon in a short temporary folder, claims as TAP, nothing left behind."""

import faulthandler
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback


class Story:
    def __init__(self, seconds=400, folder="/tmp"):
        self.n_checks = self.n_failed = 0
        self.daemon = None
        self.seconds = seconds
        self.folder = folder
        self.at_end = []  # called when the daemon is gone, the last first

    def __enter__(self):
        builddir = os.environ.get("builddir")
        if builddir:
            builddir = os.path.abspath(builddir)
            os.environ["PATH"] = "%s/client:%s/daemon:%s" % (builddir, builddir, os.environ["PATH"])
        for signal_ in signal.SIGTERM, signal.SIGHUP:
            signal.signal(signal_, lambda *_: sys.exit(143))
        signal.signal(signal.SIGALRM, self.give_up)
        signal.alarm(self.seconds)
        self.dir = tempfile.mkdtemp(prefix="dc.", dir=self.folder)
        self.store = os.path.join(self.dir, "store")
        self.socket = os.path.join(self.dir, "s")
        self.log = os.path.join(self.dir, "daemon.log")
        return self

    def give_up(self, *_):
        faulthandler.dump_traceback()
        raise TimeoutError("no end after %d seconds" % self.seconds)

    def __exit__(self, type_, value, trace):
        signal.alarm(0)
        try:
            if type_ not in (None, SystemExit):
                print("Bail out!", " ".join(traceback.format_exception_only(type_, value)).strip())
                for line in "".join(traceback.format_tb(trace)).splitlines():
                    print("#", line)
            elif type_ is None and self.daemon:
                self.check("the daemon stops cleanly in the end", self.stop_daemon() == 0)
            if type_ not in (None, SystemExit) or self.n_failed:
                self.show_log()
        finally:
            self.kill_daemon()
            while self.at_end:
                self.at_end.pop()()
            shutil.rmtree(self.dir, ignore_errors=True)
        if type_ is None:
            print("1..%d" % self.n_checks)
            sys.exit(1 if self.n_failed else 0)
        return False

    # ---- claims ----

    def check(self, claim, true, seen=""):
        """A claim, whether it is so, and what to show where it is not."""
        self.n_checks += 1
        print("%s %d - %s" % ("ok" if true else "not ok", self.n_checks, claim))
        if not true:
            self.n_failed += 1
            frame = sys._getframe(1)
            print("# line %d %s" % (frame.f_lineno, str(seen)[:2000].replace("\n", "\n# ")))
        sys.stdout.flush()

    def check_is(self, claim, got, want):
        self.check(claim, got == want, "got %r, not %r" % (got, want))

    def skip(self, claim, reason):
        """A claim that cannot be tried here."""
        self.n_checks += 1
        print("ok %d - %s # SKIP %s" % (self.n_checks, claim, reason))

    def eventually(self, seconds, condition):
        """Wait until it is so, at most so many seconds of a machine that has nothing else to do."""
        end = time.monotonic() + 6 * seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def litter(self, *folders):
        """What is in the store and in folders of targets for as long as something is made or taken away."""
        found = []
        for name in "tmp", "trash":
            folder = os.path.join(self.store, name)
            found += os.listdir(folder) if os.path.isdir(folder) else []
        staging = os.path.join(self.store, "staging")
        for name in os.listdir(staging):
            with open(os.path.join(staging, name), "rb") as records:
                found += ["record in " + name] * records.read().count(b"dircache-staging")
        for folder in folders:
            found += [name for name in os.listdir(folder) if name.startswith(".dircache-")]
        return found

    def show_log(self):
        if os.path.exists(self.log):
            with open(self.log, errors="replace") as log:
                for line in log.read().splitlines()[-15:]:
                    print("#", line)

    # ---- the daemon ----

    def start_daemon(self, *options, under=()):
        """Start it; under: words in front of the command, of a program that becomes it."""
        command = [*under, "dircached", "--store", self.store, "--socket", self.socket, *options]
        with open(self.log, "a") as log:
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not self.eventually(10, lambda: self.is_listening() or self.daemon.poll() is not None):
            raise RuntimeError("the daemon does not listen")
        if self.daemon.poll() is not None:
            raise RuntimeError("the daemon ended with status %d" % self.daemon.returncode)

    def is_listening(self):
        """Does the daemon listen? A socket that one before it left behind does not count."""
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(self.socket)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[0] == self.daemon.pid

    def stop_daemon(self):
        daemon, self.daemon = self.daemon, None
        daemon.terminate()
        return daemon.wait(60)

    def kill_daemon(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None


def skip_story(reason):
    print("1..0 # SKIP", reason)
    sys.exit(0)
