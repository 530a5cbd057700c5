# SPDX-License-Identifier: Apache-2.0
"""A keeper that a test plays: starts cede-courier with one end of a socket pair and speaks to it
message by message (agent/ipc/message.h)."""

import os
import socket
import struct
import subprocess
import time

from tap import check, equal

HELLO, RECEIPT, ABSENT, FAILED, PROBED = 1, 3, 5, 7, 9
DESTINATION, PUT, ASK, CANCEL, METRICS, STOP, PROBE = 2, 4, 6, 8, 10, 12, 14


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<H", len(s)) + s


def memory(content):
    fd = os.memfd_create("of a test")
    os.write(fd, content)
    return fd


class Courier:
    def __init__(self, program, port, env=None, metrics=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([program, "--fd", str(theirs.fileno()), "--port", str(port), *(["--metrics", metrics] if metrics else [])],
                                        pass_fds=[theirs.fileno()], env=env, stderr=subprocess.PIPE)
        theirs.close()
        self.socket = ours
        self.socket.settimeout(60)
        kind, _ = self.hear()
        equal(kind, HELLO, "the first message")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.socket.close()

    def say(self, kind, body=b"", fds=()):
        socket.send_fds(self.socket, [b"CEDE" + struct.pack("<HH", 1, kind) + body], list(fds))

    def hear(self):
        packet = self.socket.recv(1 << 16)
        check(packet[:4] == b"CEDE", f"a message of the courier, not {packet[:20]!r}")
        return struct.unpack("<H", packet[6:8])[0], packet[8:]

    def outcome(self):
        """(type, bundle, kind of failure) of the next outcome of a push."""
        kind, body = self.hear()
        return kind, body[:16], body[18:18 + struct.unpack("<H", body[16:18])[0]].decode() if kind == FAILED else ""

    def destination(self, url, ca, certificate, key, addresses=()):
        files = [memory(p.read_bytes()) for p in (ca, certificate, key)]
        body = struct.pack("<H", 0) + text(url) + struct.pack("<HH", 0, len(addresses))
        self.say(DESTINATION, body + b"".join(addresses), files)
        for fd in files:
            os.close(fd)

    def put(self, bundle, content, sha256, rate=0):
        fd = memory(content)
        self.say(PUT, struct.pack("<H", 0) + bundle + struct.pack("<Q", len(content)) + sha256 + struct.pack("<Q", rate) + text(""), [fd])
        os.close(fd)

    def ask(self, bundle, reclaim=False):
        self.say(ASK, struct.pack("<H", 0) + bundle + bytes([reclaim]))

    def figures(self, content, unmet):
        """What it is to serve: the keeper's text (b"": it could not tell it), conditions that are not met."""
        fd = memory(content)
        self.say(METRICS, struct.pack("<II", len(content), unmet), [fd])
        os.close(fd)

    def descriptors(self):
        """What it holds open now: links of /proc/PID/fd."""
        folder = f"/proc/{self.process.pid}/fd"
        return [os.readlink(f"{folder}/{n}") for n in os.listdir(folder)]

    def ended(self, seconds=10):
        """Its exit status and what it said."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        check(self.process.poll() is not None, "the courier ended")
        return self.process.returncode, self.process.stderr.read().decode()
