# SPDX-License-Identifier: Apache-2.0
"""Other users, as numbers without names: for stories that root tells."""

import os
import pickle
import traceback


class User:
    def __init__(self, name, uid, *groups):
        self.name = name
        self.uid = self.gid = uid
        self.groups = list(groups)

    def become(self):
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    def does(self, function, *args):
        """What a function returns in a process of this user; what it raises is raised here."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self.become()
                answer = (True, function(*args))
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)
                answer = (False, error)
            with open(writer, "wb") as out:
                pickle.dump(answer, out)
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as answers:
            done, answer = pickle.load(answers)
        os.waitpid(pid, 0)
        if not done:
            raise answer
        return answer

    def folder(self, *path, mode=0o755, group=None):
        """A new folder of this user."""
        path = os.path.join(*path)
        os.mkdir(path)
        os.chown(path, self.uid, self.gid if group is None else group)
        os.chmod(path, mode)
        return path


def can_run_programs(user):
    """Can this user run the programs under test, wherever they were built?"""
    def run():
        return os.spawnlp(os.P_WAIT, "dircached", "dircached", "--version") == 0 and \
            os.spawnlp(os.P_WAIT, "dircache", "dircache", "--version") == 0
    out = os.dup(1)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    try:
        return user.does(run)
    finally:
        os.dup2(out, 1)
        os.close(out)
        os.close(null)
