#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The courier alone, with the test in the keeper's place: what it holds, and what it takes."""

import contextlib
import hashlib
import os
import pathlib
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from keeper import FAILED, Courier
from tap import equal
from world import World, program

PUSHES_MOST = 256  # agent/courier/courier.c


@contextlib.contextmanager
def to_nobody():
    """A courier whose destination takes connections and says nothing."""
    with World(receiver=False) as w, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        port = listener.getsockname()[1]
        with Courier(program("cede-courier"), port) as courier:
            courier.destination(f"https://localhost:{port}/", w.pki / "ca.pem", w.pki / "agent.pem", w.pki / "agent.key")
            yield courier


def too_much_at_once():
    """bundles that it cannot take are given back: it keeps none of their descriptors"""
    content = b"sealed"
    with to_nobody() as courier:
        for _ in range(PUSHES_MOST):
            courier.ask(os.urandom(16))
        refused = [os.urandom(16) for _ in range(20)]
        for bundle in refused:
            courier.put(bundle, content, hashlib.sha256(content).digest())
            equal(courier.outcome(), (FAILED, bundle, "courier"), "what became of it")
        equal([fd for fd in courier.descriptors() if "memfd:" in fd], [], "memory files that it holds")


if __name__ == "__main__":
    tap.run([too_much_at_once])
