#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of keeper, courier or receiver at random moments under load.

CEDE_SEED repeats a run's choices (the moments themselves stay the machine's)."""

import os
import pathlib
import random
import signal
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from tap import check, equal
from world import World, until

ROUNDS = {"quick": 12, "normal": 24, "full": 50}[tap.mode()]
FILES_A_ROUND = 40
MOST_WAIT_S = 0.7


class Feeder(threading.Thread):
    """Writes pictures as long as the backlog is small, so that something is always under way."""

    def __init__(self, w, seed):
        super().__init__(daemon=True)
        self.w, self.rng, self.n = w, random.Random(seed), 0
        self.enough = threading.Event()
        self.error = None

    def run(self):
        try:
            while not self.enough.is_set():
                if len(self.w.left()) > 4 * FILES_A_ROUND:
                    self.enough.wait(0.05)
                    continue
                for _ in range(FILES_A_ROUND // 4):
                    image = cameras.picture(self.rng, mean=40 << 10)
                    self.w.write(f"lane{self.n % 5}/cap-{self.n:06d}.jpg", image)
                    self.n += 1
                self.enough.wait(0.02)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e


def strike(w, victim):
    if victim == "courier":
        os.kill(w.courier(), signal.SIGKILL)
    elif victim == "keeper":
        orphans = w.agent.children()
        w.agent.kill()
        until(lambda: not any(os.path.exists(f"/proc/{p}/fd") and alive(p) for p in orphans), 10,
              "the courier ends when its keeper is dead")
        w.start_agent()
    else:
        w.receiver.kill()
        w.start_receiver()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def rounds():
    """after many rounds of kill -9 every capture is in the store exactly once, and wiped"""
    seed = tap.seed()
    tap.diag(f"seed {seed}, {ROUNDS} rounds")
    rng = random.Random(seed)
    killed = {"keeper": 0, "courier": 0, "receiver": 0}
    with World(destination={"bundle_size": "1MiB"}) as w:
        w.start()
        feeder = Feeder(w, seed)
        feeder.start()
        try:
            for _ in range(ROUNDS):
                w.courier()
                feeder.enough.wait(rng.uniform(0, MOST_WAIT_S))  # the random moment
                victim = rng.choice(["keeper", "keeper", "courier", "receiver"])
                strike(w, victim)
                killed[victim] += 1
        finally:
            feeder.enough.set()
            feeder.join(30)
        if feeder.error:
            raise feeder.error
        tap.diag(f"killed {killed}, {feeder.n} captures, {len(w.left())} left to go")
        w.settled(120)
        captures, bundles = w.counts()
        equal(captures["wiped"], feeder.n, "captures wiped")
        equal({s: n for s, n in captures.items() if n and s != "wiped"}, {}, "captures in other states")
        check(not bundles.get("sealed") and not bundles.get("receipted"), f"bundles left over: {bundles}")
        w.verify_ledger()
        equal(w.agent.stop(5), 0, "exit status")
        leftovers = [p for p in w.store.rglob("*") if p.is_file() and p.suffix not in (".cms", ".receipt", ".abandoned")
                     and p.name not in ("checkpoints", "ledger.pub")]
        tap.diag(f"bundles {bundles}; other files in the store: {len(leftovers)}")


tap.run([rounds])
