#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The crash matrix: keeper, courier or receiver dies before its Nth call that changes something, for
every N (--full; else a sample). Custody is checked at that moment and at the end.

CEDE_SEED repeats a sample; CEDE_AT=N tries one point."""

import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from faults import CHANGES, KILL, NOTHING, BrokenWorld, tried
from tap import Failure, check
from world import until

SAMPLE = {"quick": 24, "normal": 60, "full": 1 << 30}[tap.mode()]
SEED = tap.seed()
AT = int(os.environ.get("CEDE_AT", "0"))


def calls_of(victim):
    """How many calls that change something the victim makes in a hand-over without a fault."""
    with BrokenWorld() as w:
        w.page(victim).arm(NOTHING, CHANGES)
        w.start()
        w.rest()
        w.verify_all()
        return w.page(victim).now.matched


def dead(w, victim):
    if victim == "courier":
        return w.page(victim).fired()
    process = w.agent if victim == "keeper" else w.receiver
    return process is not None and not process.alive()


def start(w, victim):
    """Starts receiver and agent; the victim may die while it starts."""
    if victim == "receiver":
        w.receiver = w.spawn("receiver", *w.receiver_words(), env=w.env_of("receiver"))
        w.start_agent()
    else:
        w.start_receiver()
        w.start_agent()


def strike(w, victim, at):
    """Runs until the victim died there, and checks custody; None: all was done before that."""
    page = w.page(victim)
    page.arm(KILL, CHANGES, at)
    start(w, victim)
    w.rest_or(lambda: dead(w, victim))
    frozen = w.freeze()
    w.custody()
    page.arm(NOTHING, CHANGES)  # what is at rest still writes a checkpoint: it may die until now
    w.thaw(frozen)
    if page.fired():
        until(lambda: dead(w, victim), 10, "the victim ends where it was struck")
    return page.fired()


def again(w, victim, rng):
    """The second start, half of the time with a second death, then the third."""
    if victim == "keeper":
        page = w.page(victim)
        page.now.matched = page.now.fired = 0  # what fires from here on is a second death
        if rng.random() < 0.5:
            page.arm(KILL, CHANGES, rng.randrange(1, 250))
        w.start_agent()
        w.rest_or(lambda: not w.agent.alive())
        page.arm(NOTHING, CHANGES)  # it does not die any more, unless it just does
        if page.fired():
            w.agent.popen.wait(10)
            frozen = w.freeze()
            w.custody()
            w.thaw(frozen)
            w.start_agent()
    elif victim == "receiver":
        w.start_receiver()


def one_point(victim, at):
    rng = random.Random(SEED * 1_000_003 + at)
    with BrokenWorld() as w:
        try:
            call = strike(w, victim, at)
            if call is not None:
                again(w, victim, rng)
            w.rest()
            w.custody()
            w.verify_all()
            return call
        except Failure as e:
            raise Failure(f"{victim} at call {at} ({w.page(victim).fired()}), CEDE_SEED={SEED}: {e}") from e


def points(count):
    if AT:
        return [AT]
    if count <= SAMPLE:
        return range(1, count + 1)
    rng = random.Random(SEED)
    step = count / SAMPLE
    return sorted({1 + int(i * step + rng.random() * step) for i in range(SAMPLE)})


def matrix(victim):
    count = calls_of(victim)
    chosen = list(points(count))
    struck, problems = {}, []
    for call, problem in tried(one_point, victim, [(at,) for at in chosen]):
        if problem:
            problems.append(problem)
        else:
            struck[call or "none left"] = struck.get(call or "none left", 0) + 1
    tap.diag(f"{victim}: {count} calls, {len(chosen)} tried: {dict(sorted(struck.items()))}; seed {SEED}")
    check(not problems, f"{len(problems)} of {len(chosen)} points:\n" + "\n".join(sorted(problems)[:8]))


def keeper():
    """the keeper dies before each call that changes something"""
    matrix("keeper")


def courier():
    """the courier dies before each call that changes something"""
    matrix("courier")


def receiver():
    """the receiver dies before each call that changes something"""
    matrix("receiver")


tap.run([keeper, courier, receiver])
