#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The breach of 2019 replayed: captures of weeks at one port of entry, an outage of the link, an insider who tries
to copy, an intrusion at a random moment. What `cede exposure` says of it equals the truth exactly.

The agent's clock is moved from one hour of the story to the next (tests/fault/clock.c); within an hour time passes as
it does. CEDE_CAPTURES, CEDE_DAYS and CEDE_SEED choose another story; --show tells it (packaging/demo --breach)."""

import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
import world
from guarding import Guarded, run
from tap import Skip, check, equal
from world import build_dir, until

CAPTURES, DAYS = {"quick": (1_200, 3), "normal": (4_000, 6), "full": (184_000, 21)}[tap.mode()]
CAPTURES, DAYS = int(os.environ.get("CEDE_CAPTURES", CAPTURES)), int(os.environ.get("CEDE_DAYS", DAYS))
SEED = int(os.environ.get("CEDE_SEED", "2019"))
HOURS = (1, 4, 7, 10, 13, 16, 19, 22)  # in which captures are made, each day
SHOW = "--show" in sys.argv
DAY_S = 86400


def say(text):
    if SHOW:
        print(f"    {text}", flush=True)


def stamp(seconds):
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e9):09d}Z"


class Clock:
    """The story's time: real time and so much less."""

    def __init__(self, folder):
        self.library = build_dir() / "tests" / "fault" / "clock.so"
        if not self.library.is_file():
            raise Skip("the clock library is not part of a sanitized build")
        self.path, self.offset, self.first = folder / "clock", 0.0, None
        self.env = {**os.environ, "LD_PRELOAD": str(self.library), "CEDE_CLOCK": str(self.path), "CEDE_CLOCK_ALL": "1"}
        self.path.write_bytes(bytes(16))

    def now(self):
        return time.time() + self.offset

    def set(self, to):
        """Never back."""
        if self.first is None:
            self.first = self.offset = to - time.time()
        self.offset = max(self.offset, to - time.time())
        with open(self.path, "r+b") as f:
            f.write(struct.pack("<qq", int(self.offset * 1e9), int((self.offset - self.first) * 1e9)))


class Story(Guarded):
    """A port of entry under the guard; this program is its camera."""

    watchdog_s = 1700

    def __init__(self, began):
        super().__init__(allow=False, source={"quiet": "0s", "max_age": "36h", "at_max_age": "seal", "classification": "face"})
        self.policy["guard"]["allow"] = [{"exe": os.path.realpath("/proc/self/exe"), "user": "root"}]
        self.began, self.clock = began, Clock(self.dir)
        self.made = {}     # name -> when, in the story's time
        self.gone = {}     # name -> at the latest when
        self.number = 0

    def agent_of_its_time(self):
        self.start_agent(env=self.clock.env)
        return self.ready()

    def shoot(self, count):
        """So many captures, each made at its moment of this hour."""
        for _ in range(count):
            name = f"{self.number:06d}.jpg"
            self.number += 1
            now = self.clock.now()
            path = self.capture / f".{name}"
            with open(path, "wb") as f:
                f.write(random.randbytes(400))
            os.utime(path, (now, now))
            self.made[name] = now
            os.rename(path, self.capture / name)

    def present(self):
        return sorted(n for n in os.listdir(self.capture) if not n.startswith("."))

    def handed_over(self, seconds=int(os.environ.get("CEDE_WAIT", "90"))):
        until(lambda: not self.present(), seconds, lambda: f"the captures are handed over; {len(self.present())} are left")
        self.idle(seconds)
        for name in set(self.made) - set(self.gone):
            self.gone[name] = self.clock.now()

    def report(self, *words):
        out = self.cede("exposure", "--state", self.state, "--host", "port-1", "--json", *words, status=(0, 1))
        objects = [json.loads(line) for line in out.splitlines()]
        return objects[0], [o for o in objects if o["kind"] == "note"], [o for o in objects if o["kind"] == "plaintext"]


def paths(items):
    return sorted(i["path"] for i in items)


def pki_of(when, work):
    """A PKI that is as old as the story."""
    clock = Clock(work)
    clock.set(when)
    done = subprocess.run([str(world.TOP / "certs" / "dev-pki"), str(work / "pki")], capture_output=True, text=True, env=clock.env)
    check(done.returncode == 0, f"certs/dev-pki: {done.stdout}{done.stderr}")
    return work / "pki"


def one_hour(s, day, hour, count):
    s.clock.set(s.began + day * DAY_S + hour * 3600)
    s.shoot(count)


def outage(s, day, per_hour):
    """The link is down for a day: what comes waits. [(moment, what is here then)], between its hours."""
    s.receiver.kill()
    moments = []
    for hour in HOURS[:3]:
        one_hour(s, day, hour, per_hour)
        moments.append((s.clock.now(), s.present()))
    known = lambda: s.in_state("ready", "bundled", "sealed", "settling")  # noqa: E731
    until(lambda: known() == len(s.present()), 60, lambda: f"all that waits is known: {known()} of {len(s.present())}")
    return moments


def insider(s):
    """Somebody with root's shell copies what waits; the names he tried."""
    tried = s.present()[:3]
    for name in tried:
        done = run("cp", s.capture / name, s.dir / "stolen")
        check(done.returncode != 0, f"cp of {name} went through under the guard")
    until(lambda: len(s.events("guard-denied")) > 0, 20, "the ledger tells of the attempt")
    return tried


def ids(items):
    return {i["path"]: i["id"] for i in items}


def breach():
    """weeks of captures, an outage, an insider, an intrusion at a random moment: the report's lists equal the truth exactly"""
    rng = random.Random(SEED)
    began = (int(time.time()) // DAY_S - DAYS - 1) * DAY_S
    per_hour = max(1, CAPTURES // (DAYS * len(HOURS)))
    middle = DAYS // 2
    with Story(began) as s:
        for path in s.pki.iterdir():
            path.unlink()
        made = pki_of(began - DAY_S, s.dir / "then") if (s.dir / "then").mkdir() is None else None
        for path in made.iterdir():
            path.rename(s.pki / path.name)
        s.write_files()
        s.clock.set(began)
        s.start_receiver()
        s.agent_of_its_time()
        quiet = []
        real = time.monotonic()
        for day in range(DAYS):
            if day == middle:
                moments = outage(s, day, max(1, per_hour * len(HOURS) // 3))
                tried = insider(s)
                moments.append((s.clock.now(), s.present()))
                intrusion, waiting = rng.choice(moments)
                say(f"day {day + 1}: the link is down, {len(waiting)} captures wait; an insider's cp was denied; then the intrusion")
                s.start_receiver()
                s.handed_over(120)
                after = s.clock.now()
                continue
            for hour in HOURS:
                one_hour(s, day, hour, per_hour + rng.randrange(-per_hour // 4, per_hour // 4 + 1))
                s.handed_over()
            quiet.append((s.clock.now(), []))
            say(f"day {day + 1}: {len(s.made)} captures so far, {time.monotonic() - real:.0f} s")
        s.clock.set(began + DAYS * DAY_S)
        tap.diag(f"{len(s.made)} captures of {DAYS} days in {time.monotonic() - real:.0f} s")

        # what was here in the clear at the moment of the intrusion, and at every other that was noted
        for moment, names in moments + quiet:
            equal(paths(s.report("--at", stamp(moment))[2]), names, f"in the clear at {stamp(moment)}")
        began_report = time.monotonic()
        summary, _, items = s.report("--at", stamp(intrusion))
        took = time.monotonic() - began_report
        equal(paths(items), waiting, "in the clear at the moment of the intrusion")
        # all of it, and each day
        summary, notes, items = s.report("--from", stamp(began), "--to", stamp(s.clock.now()))
        equal(paths(items), sorted(s.made), "in the clear in all the weeks")
        check(all(abs(parse(i["from"]) - s.made[i["path"]]) < 1e-3 for i in items), "since when")
        check(all(i["end"] == "wiped" and parse(i["to"]) <= s.gone[i["path"]] for i in items), "until when")
        known = ids(items)
        for day in range(DAYS):
            a, b = began + day * DAY_S, began + (day + 1) * DAY_S
            if a < after < b + DAY_S and intrusion < b < after:
                continue
            _, _, some = s.report("--from", stamp(a), "--to", stamp(b))
            equal(paths(some), sorted(n for n, t in s.made.items() if t < b and s.gone[n] > a), f"in the clear on day {day + 1}")
        # the insider: which captures he tried, by id
        told = " ".join(n["text"] for n in notes if n["note"] == "opened")
        for name in tried:
            check(known[name] in told, f"the attempt on {name} is in the report: {told[:300]}")
        check("denied" in told and not (s.dir / "stolen").exists(), "he was denied")
        s.verify_ledger()

        # beside a contractor who keeps what he has
        kept = sum(intrusion - t for t in s.made.values() if t < intrusion)
        here = sum(intrusion - s.made[n] for n in waiting)
        before = sum(1 for t in s.made.values() if t < intrusion)
        say("")
        say(f"at the moment of the intrusion                     {'kept by the contractor':>24} {'with cede':>14}")
        say(f"captures in the clear on the host                  {before:>24} {len(waiting):>14}")
        all_seconds = summary["plaintext_seconds"]
        forever = sum(s.clock.now() - t for t in s.made.values())
        say(f"plaintext-seconds of what an intruder finds        {kept:>24.0f} {here:>14.0f}")
        say(f"plaintext-seconds in all the weeks                 {forever:>24.0f} {all_seconds:>14.0f}")
        say(f"the list of the {len(waiting)} took {took:.1f} s; it equals what lay in the directory at that moment")
        check(len(waiting) < before and all_seconds < forever / 4, "less was exposed than a contractor would have kept")


def parse(text):
    whole, _, part = text.rstrip("Z").partition(".")
    import calendar
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{part or 0}")


if __name__ == "__main__":
    sys.argv = [a for a in sys.argv if a != "--show"]
    tap.run([breach])
