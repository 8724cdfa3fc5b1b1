# SPDX-License-Identifier: Apache-2.0
"""A client of the daemon written from docs/PROTOCOL.md alone; it needs the msgpack module.

    rpc.py burst SOCKET PID N DIGEST FOLDER

asks for a tree N times at once, at FOLDER/1 to FOLDER/N, and prints what the answers say under `cache`, with
how many said so. At once means: the daemon PID is halted while the requests are sent.
"""

import array
import collections
import os
import signal
import socket
import sys
import time

import msgpack

TIMEOUT = 60


class RpcError(Exception):
    """What the daemon answered instead of a result."""

    def __init__(self, error):
        super().__init__("%s: %s" % (error["code"], error["message"]))
        self.code = error["code"]
        self.message = error["message"]
        self.missing = error.get("missing", [])
        self.error = error

    def __reduce__(self):
        return RpcError, (self.error,)


class Closed(Exception):
    """The daemon closed the connection."""


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(path)
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        self.answers = {}
        self.notifications = []
        self.fds = []
        self.last_id = 0

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_bytes(self, data, fds=()):
        """All of data, the descriptors with its first bytes."""
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            sent = self.socket.sendmsg([data], ancillary)
            data = data[sent:]
        self.socket.sendall(data)

    def request(self, method, params=None, fds=()):
        """Send a request; its id, for wait()."""
        self.last_id += 1
        params = dict(params or {})
        if fds:
            params.setdefault("fds", len(fds))
        self.send_bytes(msgpack.packb([0, self.last_id, method, [params]]), fds)
        return self.last_id

    def receive(self):
        """Read once. Raises Closed at the end of the stream."""
        ancillary_size = socket.CMSG_SPACE(253 * 4)
        data, ancillary, _, _ = self.socket.recvmsg(1 << 16, ancillary_size)
        for level, type_, fds in ancillary:
            if (level, type_) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(fds[: len(fds) - len(fds) % received.itemsize])
                self.fds.extend(received)
        if not data:
            raise Closed
        self.unpacker.feed(data)
        for message in self.unpacker:
            if message[0] == 1:
                assert len(message) == 4 and message[1] not in self.answers, message
                self.answers[message[1]] = message[2:]
            else:
                assert message[0] == 2 and len(message) == 3 and len(message[2]) == 1, message
                self.notifications.append((message[1], message[2][0]))

    def wait(self, id_):
        """The result of a request; raises RpcError."""
        while id_ not in self.answers:
            self.receive()
        error, result = self.answers.pop(id_)
        if error is not None:
            assert result is None
            raise RpcError(error)
        return result

    def call(self, method, params=None, fds=()):
        return self.wait(self.request(method, params, fds))

    def take_fd(self):
        return self.fds.pop(0)

    def until_closed(self):
        """Read to the end of the stream; the notifications that came."""
        try:
            while True:
                self.receive()
        except (Closed, ConnectionResetError):
            return self.notifications


def ready_client(path):
    """A client of a daemon that has read its index."""
    client = Client(path)
    while not client.call("ping")["ready"]:
        time.sleep(0.01)
    return client


def outcome(function, *args):
    """A result, or the code of an error."""
    try:
        return function(*args)
    except RpcError as error:
        return error.code


def burst(path, pid, n, digest, folder):
    clients = [Client(path) for _ in range(n)]
    for client in clients:
        client.call("ping")
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    os.kill(pid, signal.SIGSTOP)
    try:
        ids = [
            client.request("materialize", {"digest": digest, "name": b"%d" % (i + 1)}, [folder_fd])
            for i, client in enumerate(clients)
        ]
    finally:
        os.kill(pid, signal.SIGCONT)
    said = collections.Counter(client.wait(id_)["cache"] for client, id_ in zip(clients, ids))
    for word, count in sorted(said.items()):
        print(word, count)


def main(command, path, pid, n, digest, folder):
    assert command == "burst"
    burst(path, int(pid), int(n), digest, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
