#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The dry run's forecast against what the agent then does, file by file, over random trees and policies.

Each round is a policy of many sources, each with rules and a tree of its own. The dry run speaks first,
then the agent runs against the same files and state until it is at rest. Ages and limits are chosen far
from each other, so that nothing changes by the time that passes in between. CEDE_SEED repeats a round."""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from stock import Store
from tap import Failure, check, diag, equal, mode
from world import World, until

ROUNDS, SOURCES = {"quick": (4, 25), "normal": (20, 25), "full": (500, 4)}[mode()]
AT_ONCE = 4  # most of a round is waiting
AGES_S = (0, 2 * 3600, 30 * 3600, 10 * 86400)
LIMITS = ("1h", "20h", "7d")
PATTERNS = ("**/*.jpg", "**/*.json", "*.jpg", "a/**", "**/[a-c]*", "**/?", "**/*", "b/*/x*", "**/*.txt", "c/**/*.jpg")
NAMES = ("a.jpg", "a.json", "b.jpg", "b.json", "x", "x.jpg", "note.txt", ".hidden", "half.part", "c d.jpg", "e\n.jpg",
         "caf\udce9.jpg", "-x.jpg", "a.b.jpg", "a.jpg.tmp")


def some(rng, list_, least, most):
    return rng.sample(list_, rng.randint(least, min(most, len(list_))))


def make_tree(rng, top):
    folders = [top] + [top / f for f in some(rng, ["a", "b", "c", "a/b", "b/q", ".d", "c/1/2"], 0, 5)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in some(rng, NAMES, 0, 6):
            path = os.fsencode(folder) + b"/" + os.fsencode(name)
            kind = rng.random()
            if kind < 0.05:
                os.symlink(rng.choice([b"a.jpg", b"/etc/passwd", b"nowhere"]), path)
                continue
            if kind < 0.08:
                os.mkfifo(path)
                continue
            with open(path, "wb") as f:
                f.write(rng.randbytes(rng.choice((0, 1, 700, 5000))))
            if kind < 0.12:
                os.link(path, path + b".link")
            age = rng.choice(AGES_S)
            os.utime(path, (time.time() - age, time.time() - age))


def make_source(rng, number, top):
    source = {"name": f"s{number}", "path": str(top), "match": some(rng, PATTERNS, 1, 3),
              "destination": "agency", "quiet": rng.choice(("0s", "0s", "0s", "30m")), "max_age": rng.choice(LIMITS),
              "at_max_age": rng.choice(("hold", "seal", "destroy")),
              "wipe": {"after": rng.choice(("receipt", "receipt", "seal")), "require": "none"}}
    if rng.random() < 0.5:
        source["ignore"] = some(rng, ("**/.*", "**/*.tmp", "**/*.part", "b/**"), 1, 3)
    if rng.random() < 0.3:
        source["max_size"] = "1KiB"
    if rng.random() < 0.3:
        source["group"] = {"by": "stem", "require": some(rng, [".jpg", ".json", ".txt"], 1, 3),
                           "wait": rng.choice(("0s", "30m"))}
    return source


def make_holds(rng):
    holds = []
    for number in range(rng.randint(0, 4)):
        hold = {"id": f"case-{number}", "until": rng.choice(("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"))}
        if rng.random() < 0.7:
            hold["sources"] = [f"s{n}" for n in rng.sample(range(SOURCES), min(4, SOURCES))]
        if rng.random() < 0.7:
            hold["match"] = some(rng, PATTERNS, 1, 2)
        if rng.random() < 0.4:
            hold["to"] = "2026-01-01T00:00:00Z"
        holds.append(hold)
    return holds


def dry_run(w):
    """{(source, shown path): the line of the dry run}"""
    said = w.cede("policy", "dry-run", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--json",
                  status=(0, 1))
    lines = [json.loads(line) for line in said.splitlines()]
    return {(x["source"], x["path"]): x for x in lines if x["kind"] == "file"}


def shown(raw):
    """As the dry run shows a path."""
    return "".join(chr(c) if 0x20 <= c < 0x7f and c != 0x5c else f"\\x{c:02x}" for c in raw)


def percent(raw):
    return "".join(chr(c) if 0x20 < c < 0x7f and c != 0x25 else f"%{c:02x}" for c in raw)


def files_of(top):
    top = os.fsencode(top)
    for folder, _, names in os.walk(top):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), top)


def events(w):
    return [json.loads(line) for line in w.cede("ledger", "events", "--state", w.state, "--json").splitlines()]


def captures(w):
    return [json.loads(line) for line in w.cede("ledger", "list", "--state", w.state, "--json").splitlines()]


def judge(w, forecast, names):
    """Every difference between the forecast and what was done."""
    arrived = Store(w.store, w.pki).read().captures
    reported = {re.sub(" born=[0-9]+", "", e["detail"]) for e in events(w) if e["kind"] == "capture-refused"}
    states = {}
    for c in captures(w):
        states.setdefault((c["source"], c["path"]), set()).add(c["state"])
    destroyed = {e["subject"] for e in events(w) if e["kind"] == "capture-destroyed"}
    gone_without_receipt = {(c["source"], c["path"]) for c in captures(w) if c["id"] in destroyed}
    wrong = []
    for (source, raw), top in names.items():
        want = forecast.get((source, shown(raw)))
        if want is None:
            wrong.append(f"{source} {raw}: not in the forecast")
            continue
        in_store = source.encode() + b"/" + raw in arrived
        is_there = os.path.lexists(os.path.join(os.fsencode(top), raw))
        told = f"source={source} reason={want['reason']} path={percent(raw)}" in reported
        key = (source, percent(raw).replace('"', "%22").replace("\\", "%5c"))
        done = {"store": in_store, "file": is_there, "reported": told, "destroyed": key in gone_without_receipt}
        action = "held" if want["reason"] == "held" or (want["action"] == "hand-over" and want["hold"]) else want["action"]
        expected = {
            "hand-over": {"store": True, "file": False, "reported": False, "destroyed": False},
            "held": {"store": True, "file": True, "reported": False, "destroyed": False},
            "destroy": {"store": False, "file": False, "reported": False, "destroyed": True},
            "hold": {"store": False, "file": True, "reported": True, "destroyed": False},
            "refuse": {"store": False, "file": True, "reported": True, "destroyed": False},
            "ignore": {"store": False, "file": True, "reported": False, "destroyed": False},
            "wait": {"store": False, "file": True, "reported": False, "destroyed": False}}[action]
        if done != expected:
            wrong.append(f"{source} {raw}: forecast {want['action']} ({want['reason']}), done {done}, "
                         f"ledger {states.get(key)}")
    return wrong


def one_round(seed):
    rng = random.Random(seed)
    with World() as w:
        tops = {f"s{n}": w.dir / f"src{n}" for n in range(SOURCES)}
        for top in tops.values():
            make_tree(rng, top)
        w.policy["sources"] = [make_source(rng, n, tops[f"s{n}"]) for n in range(SOURCES)]
        w.policy["holds"] = make_holds(rng)
        w.write_files()
        names = {(name, raw): top for name, top in tops.items() for raw in files_of(top)}
        forecast = dry_run(w)
        equal(len(forecast), len(names), "files in the forecast")
        w.start()
        until(lambda: "agent.ready" in w.agent.said(), 15, "the agent is ready")
        until(lambda: not judge(w, forecast, names), 30, lambda: "\n".join(judge(w, forecast, names)[:10]), each=0.2)
        w.idle()
        wrong = judge(w, forecast, names)
        check(not wrong, "\n".join(wrong[:10]))
        w.agent.stop()
        again = dry_run(w)  # with what the ledger knows now
        left = {key: x for key, x in forecast.items() if x["action"] in ("hold", "refuse", "ignore", "wait")}
        for key, x in left.items():
            equal((again[key]["action"], again[key]["reason"]), (x["action"], x["reason"]), f"{key} in a second dry run")
        w.verify_ledger()
    return {x["action"] for x in forecast.values()}, {x["reason"] for x in forecast.values()}, len(forecast)


def seeded_round(seed):
    try:
        return one_round(seed)
    except Failure as e:
        raise Failure(f"CEDE_SEED={seed}: {e}") from e


def forecast_and_deed():
    """what the dry run says is what the agent does, for each file of random trees under random policies"""
    base = tap.seed()
    rounds = 1 if "CEDE_SEED" in os.environ else ROUNDS
    actions, reasons, files = set(), set(), 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for a, r, n in pool.map(seeded_round, range(base, base + rounds)):
            actions, reasons, files = actions | a, reasons | r, files + n
    diag(f"{rounds} policies, {rounds * SOURCES} trees with rules of their own, {files} files; reasons: {sorted(reasons)}")
    if rounds > 1:
        equal(actions, {"hand-over", "wait", "ignore", "hold", "refuse", "destroy"}, "actions that occurred")


if __name__ == "__main__":
    tap.run([forecast_and_deed])
