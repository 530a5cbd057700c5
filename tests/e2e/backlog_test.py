#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A backlog: many files wait while the link is down. Memory does not grow with them, the nearest deadline goes
first, a new urgent capture does not wait behind them, and a restart goes on at once.

Figures of throughput are printed, not asserted; tests/bench/backlog measures them at a million files."""

import contextlib
import os
import pathlib
import random
import sqlite3
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Skip, check, equal
from world import World, until

FILES = int(os.environ.get("CEDE_FILES", "0")) or {"quick": 12_000, "normal": 20_000, "full": 1_000_000}[tap.mode()]
SIZE = 4096
A_FOLDER = 1000
KEEPER_MOST_KIB = 160 << 10
COURIER_MOST_KIB = 64 << 10
WAIT_S = 120 + FILES // 500


# of what a bundle held, all is wiped; asking the captures would cost as much as the agent's own work
DONE = "SELECT coalesce(sum(captures), 0) FROM bundle WHERE state = 2"


def peak_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def write_backlog(w):
    if os.statvfs(w.dir).f_bavail * os.statvfs(w.dir).f_frsize < 6 * SIZE * FILES or \
            os.statvfs(w.dir).f_favail < 3 * FILES:
        raise Skip(f"not enough room in {w.dir.parent} for {FILES} files")
    rng = random.Random(7)
    for folder in range((FILES + A_FOLDER - 1) // A_FOLDER):
        top = w.capture / f"d{folder:04d}"
        top.mkdir()
        for i in range(min(A_FOLDER, FILES - folder * A_FOLDER)):
            with open(top / f"{i:04d}.jpg", "wb") as f:
                f.write(rng.randbytes(SIZE))


def ask(w, sql):
    try:
        with contextlib.closing(sqlite3.connect(f"file:{w.state}/ledger.db?mode=ro", uri=True, timeout=10)) as db:
            return db.execute(sql).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def rates_with(w):
    """Files a second while most of the backlog is there, and while little is: a tenth each."""
    start, began, seen = ask(w, DONE), time.monotonic(), []

    def look():
        seen.append((time.monotonic(), ask(w, DONE)))
        return seen[-1][1] >= FILES
    until(look, WAIT_S, "all bundles are done", 0.05)

    def when(share):
        """The time at which so much of what waited was done; between two looks it went evenly."""
        want = start + (FILES - start) * share
        (t0, n0), (t1, n1) = next(pair for pair in zip([(began, start), *seen], seen) if pair[1][1] >= want)
        return t0 + (t1 - t0) * (want - n0) / max(n1 - n0, 1)

    def rate(low, high):
        return (FILES - start) * (high - low) / (when(high) - when(low))
    rates = rate(0.05, 0.25), rate(0.75, 0.95)
    tap.diag(f"{rates[0]:.0f} files/s in the second to fifth twentieth of what waited, {rates[1]:.0f} in the sixteenth to nineteenth")
    return rates


def backlog():
    """a backlog is taken in with the link down, handed over, and goes on after a restart: memory stays flat"""
    bundle = {"bundle_size": "512KiB"} if FILES < 100_000 else {}
    with World(source={"quiet": "0s", "max_age": "30d"}, destination=bundle, receiver=False) as w:
        alarm = w.dir / "alarms"
        alarm.mkdir()
        alarms = {**w.source, "name": "alarms", "path": str(alarm), "max_age": "1h"}
        w.policy["sources"] = [w.source, alarms]
        w.write_files()
        write_backlog(w)
        began = time.monotonic()
        w.start_agent()
        until(lambda: ask(w, "SELECT count(*) FROM capture WHERE live = 1") == FILES, WAIT_S, "all are in the ledger", 0.2)
        tap.diag(f"{FILES} files found and recorded in {time.monotonic() - began:.1f} s; "
                 f"keeper {peak_kib(w.agent.pid) >> 10} MiB")
        w.start_receiver()
        began = time.monotonic()
        until(lambda: ask(w, DONE) >= FILES // 10, WAIT_S, "a tenth is wiped", 0.02)
        tap.diag(f"{ask(w, DONE) / (time.monotonic() - began):.0f} files/s with the backlog, from the receiver's start on")
        (alarm / "a.jpg").write_bytes(b"urgent")
        until(lambda: not (alarm / "a.jpg").exists(), 30, "the urgent capture is wiped", 0.01)
        check(ask(w, "SELECT count(*) FROM capture WHERE live = 1") > 0, "the backlog was gone already")
        peaks = [peak_kib(w.agent.pid)], [peak_kib(w.courier())]
        w.agent.kill()
        bundles = len(list(w.store.rglob("*.cms")))
        began = time.monotonic()
        w.start_agent()
        until(lambda: len(list(w.store.rglob("*.cms"))) > bundles, WAIT_S, "the first push after the restart", 0.01)
        tap.diag(f"first push {time.monotonic() - began:.1f} s after the restart, "
                 f"{ask(w, 'SELECT count(*) FROM capture WHERE live = 1')} waiting")
        rates = rates_with(w)
        until(lambda: ask(w, "SELECT count(*) FROM capture WHERE live = 1") == 0, WAIT_S, "all are wiped", 0.2)
        peaks[0].append(peak_kib(w.agent.pid))
        peaks[1].append(peak_kib(w.courier()))
        equal(w.left(), [], "files left")
        equal(ask(w, "SELECT count(*) FROM capture WHERE state = 4"), FILES + 1, "captures wiped")
        equal(ask(w, "SELECT count(*) FROM (SELECT 1 FROM capture GROUP BY source, path HAVING count(*) > 1)"), 0,
              "captures recorded twice")
        tap.diag(f"peak keeper {max(peaks[0]) >> 10} MiB, courier {max(peaks[1]) >> 10} MiB")
        if tap.mode() == "full":
            check(rates[0] >= 0.9 * rates[1], f"{rates[0]:.0f} files/s with the most, {rates[1]:.0f} with the fewest")
        check(max(peaks[0]) <= KEEPER_MOST_KIB, f"the keeper had {max(peaks[0])} KiB")
        check(max(peaks[1]) <= COURIER_MOST_KIB, f"the courier had {max(peaks[1])} KiB")
        w.verify_ledger()


def nearest_deadline_first():
    """the older of two sources with the same max_age goes first, whatever was found first"""
    with World(source={"quiet": "0s", "max_age": "2h"}, destination={"bundle_size": "64KiB"}, receiver=False) as w:
        now = time.time()
        order = list(range(60))
        random.Random(3).shuffle(order)
        for i in order:  # file i is i minutes old
            path = w.capture / f"{i:02d}.jpg"
            path.write_bytes(random.Random(i).randbytes(20_000))
            os.utime(path, (now - 60 * i,) * 2)
        w.start_agent()
        until(lambda: ask(w, "SELECT count(*) FROM capture") == 60, 30, "all are in the ledger")
        w.start_receiver()
        w.empty()
        w.idle()
        with contextlib.closing(sqlite3.connect(f"file:{w.state}/ledger.db?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT b.uuid, c.path FROM capture c JOIN bundle b ON b.id = c.bundle").fetchall()
        # a bundle's id begins with the moment when its captures were taken; bundles are sealed two at a
        # time, and one that ends sooner is recorded sooner
        taken = sorted((int.from_bytes(uuid[:6], "big"), -int(path[:2])) for uuid, path in rows)
        # before all were found, others may have gone: at most the bundles that fit in memory
        late = [-number for _, number in taken[20:]]
        equal(late, sorted(late, reverse=True), "the order in which the later ones were taken, oldest first")


tap.run([nearest_deadline_first, backlog])
