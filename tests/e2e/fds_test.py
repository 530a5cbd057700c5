#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two rooms (I5): what keeper and courier hold open, looked at throughout a run."""

import os
import pathlib
import re
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from tap import check, equal
from world import World


class Watcher(threading.Thread):
    """Reads /proc/PID/fd and the kernel's socket tables again and again."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.enough = pid, threading.Event()
        self.paths, self.internet, self.looks = set(), set(), 0

    def run(self):
        while not self.enough.is_set():
            sockets = set()
            try:
                for fd in os.listdir(f"/proc/{self.pid}/fd"):
                    try:
                        target = os.readlink(f"/proc/{self.pid}/fd/{fd}")
                    except FileNotFoundError:
                        continue
                    match = re.fullmatch(r"socket:\[(\d+)\]", target)
                    if match:
                        sockets.add(match[1])
                    else:
                        self.paths.add(target)
                self.internet |= {f"{kind} {line}" for kind, inode, line in internet_sockets(self.pid) if inode in sockets}
            except (FileNotFoundError, ProcessLookupError):
                return
            self.looks += 1
            self.enough.wait(0.002)

    def stop(self):
        self.enough.set()
        self.join(10)


def internet_sockets(pid):
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6", "packet", "udplite"):
        try:
            with open(f"/proc/{pid}/net/{kind}", encoding="ascii") as f:
                rows = f.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        for row in rows:
            words = row.split()
            inode = words[8] if kind == "packet" else words[9]
            yield kind, inode, " ".join(words[1:4])


def watched_run(w):
    if os.geteuid() != 0:
        raise tap.Skip("only root may look at descriptors of a process that made itself undumpable")
    w.start()
    keeper, courier = Watcher(w.agent.pid), Watcher(w.courier())
    keeper.start()
    courier.start()
    for name, content in cameras.roll(12, 400, "lane1", mean=100 << 10):
        w.write(name, content)
    w.write("film.jpg", cameras.random.Random(1).randbytes(20 << 20))
    w.settled()
    keeper.stop()
    courier.stop()
    tap.diag(f"keeper looked at {keeper.looks} times, courier {courier.looks} times")
    check(keeper.looks > 100 and courier.looks > 100, "too few looks to prove anything")
    return keeper, courier


def under(paths, top):
    return sorted(p for p in paths if p == str(top) or p.startswith(f"{top}/"))


_seen = {}


def seen():
    """One run for all cases."""
    if not _seen:
        with World() as w:
            keeper, courier = watched_run(w)
            _seen.update(keeper=keeper, courier=courier, capture=w.capture, state=w.state, dir=w.dir)
    return _seen


def looks_prove_something():
    """the looks caught the keeper with a capture and the courier with its connection"""
    s = seen()
    check(under(s["keeper"].paths, s["capture"]), "the keeper was never seen with a capture")
    check(any("ledger.db" in p for p in s["keeper"].paths), "the keeper was never seen with the ledger")
    check(s["courier"].internet, "the courier was never seen with a connection")


def courier_without_captures():
    """the courier never holds a capture file or a capture directory"""
    s = seen()
    equal(under(s["courier"].paths, s["capture"]), [], "the courier's descriptors")


def courier_without_ledger():
    """the courier never holds the ledger or the state directory"""
    s = seen()
    state = [p for p in under(s["courier"].paths, s["state"]) if "/spool/" not in p]
    equal(state, [], "the courier's descriptors")


def courier_without_files():
    """the courier holds no file of this world at all: keys and bundles come as memory files"""
    s = seen()
    allowed = re.compile(r".*/(spool/[^/]+|agent\.log)$")
    mine = [p for p in under(s["courier"].paths, s["dir"]) if not allowed.match(p)]
    equal(mine, [], "the courier's descriptors")


def keeper_without_network():
    """the keeper never holds an internet socket"""
    equal(sorted(seen()["keeper"].internet), [], "the keeper's internet sockets")


tap.run([looks_prove_something, courier_without_captures, courier_without_ledger, courier_without_files,
         keeper_without_network])
