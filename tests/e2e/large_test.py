#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Captures larger than a bundle: in segments, each sent once however often anything dies, within the
keeper's bound of memory; and what is more urgent does not wait for their end."""

import hashlib
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from stock import Store
from tap import Skip, check, equal
from world import World, is_sanitized, program, until

MIB = 1 << 20
WHOLE = {"quick": 96, "normal": 256, "full": 8192}[tap.mode()] * MIB
SANITIZED = 2 if is_sanitized() else 1  # a sanitizer takes its own on top
KEEPER_MOST_KIB = SANITIZED * 160 << 10
COURIER_MOST_KIB = SANITIZED * 64 << 10


def peak_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def write_large(w, name, size, seed):
    """A capture of incompressible bytes, written piece by piece; its SHA-256."""
    rng, digest = random.Random(seed), hashlib.sha256()
    hidden = w.capture / ".large"
    with open(hidden, "wb") as f:
        while size > 0:
            piece = rng.randbytes(min(size, 4 * MIB))
            f.write(piece)
            digest.update(piece)
            size -= len(piece)
    os.rename(hidden, w.capture / name)
    w.want.setdefault(b"faces/" + os.fsencode(name), []).append(digest.hexdigest())


def bundles(w, ending=".cms"):
    return sorted(p.stem for p in w.store.rglob(f"*{ending}"))


def need_room(w, size):
    s = os.statvfs(w.dir)
    if s.f_bavail * s.f_frsize < 4 * size:
        raise Skip(f"less than {4 * size >> 20} MiB free in {w.dir.parent}")


def killed_at_half():
    """a large file, the keeper killed at half: only segments without a receipt are sent again"""
    segment = 16 * MIB if WHOLE > 1012 * MIB else 4 * MIB
    count = WHOLE // segment
    with World(destination={"bundle_size": f"{segment >> 20}MiB"}, source={"quiet": "0s"}) as w:
        need_room(w, WHOLE)
        write_large(w, "large.jpg", WHOLE, 1)
        w.start()
        until(lambda: len(bundles(w, ".receipt")) >= count // 2, 600, "half of the segments have a receipt")
        w.agent.kill()
        half = peak_courier = None
        until(lambda: len(bundles(w)) == len(bundles(w, ".receipt")), 30, "what was under way has ended")
        half = set(bundles(w))
        check(len(half) < count, "all was sent before the kill")
        w.start_agent()
        until(lambda: len(bundles(w)) >= count - 2, 600, "nearly all segments are there")
        peak_courier = peak_kib(w.courier())
        peak_keeper = peak_kib(w.agent.pid)
        w.settled(600)
        check(half <= set(bundles(w)), "bundles of the first half are gone")
        equal(len(bundles(w)), count, "bundles in the store: each segment once")
        tap.diag(f"{count} segments, {len(half)} before the kill, {len(bundles(w, '.abandoned'))} begun anew; "
                 f"peak keeper {peak_keeper >> 10} MiB, courier {peak_courier >> 10} MiB")
        check(peak_keeper <= KEEPER_MOST_KIB, f"the keeper had {peak_keeper} KiB")
        check(peak_courier <= COURIER_MOST_KIB, f"the courier had {peak_courier} KiB")
        w.verify_ledger()


def killed_often():
    """a large file, the keeper killed again and again: it comes to its end, each segment once"""
    with World(destination={"bundle_size": "64KiB"}, source={"quiet": "0s"}) as w:
        write_large(w, "large.jpg", 8 * MIB + 17, 2)
        w.start_receiver()
        for goal in range(12, 120, 12):
            w.start_agent()
            until(lambda g=goal: len(bundles(w)) >= g, 60, f"{goal} segments are there")
            w.agent.kill()
        w.start_agent()
        w.settled(60)
        equal(len(bundles(w)), 129, "bundles in the store")


def changed_midway():
    """a large file that is replaced while it goes: the new one arrives whole under an id of its own"""
    with World(destination={"bundle_size": "64KiB"}, source={"quiet": "0s"}) as w:
        write_large(w, "large.jpg", 12 * MIB, 3)
        w.want.clear()
        w.start()
        until(lambda: len(bundles(w)) >= 20, 60, "some segments are there")
        w.agent.signal(signal.SIGSTOP)
        write_large(w, "large.jpg", 12 * MIB, 4)
        w.agent.signal(signal.SIGCONT)
        w.empty(120)
        w.idle()
        store = Store(w.store, w.pki).read()
        captures = {}
        for manifest in store.manifests.values():
            for entry in manifest["entries"]:
                captures.setdefault(entry["capture"], {}).setdefault(entry["segment"]["index"], []).append(entry)
        equal(len(captures), 2, "captures in the store")
        whole = [c for c in captures.values() if len(c) == 192]
        equal(len(whole), 1, "whole captures in the store")
        check(all(len(copies) == 1 for c in captures.values() for copies in c.values()), "a segment came twice")
        equal({s: n for s, n in w.counts()[0].items() if n}, {"replaced": 1, "wiped": 1}, "captures")
        out = w.dir / "out"
        out.mkdir()
        done = subprocess.run([program("cede-receiver"), "open", *sorted(w.store.rglob("*.cms")), "--key",
                               w.pki / "seal.key", "--cert", w.pki / "seal.pem", "--into", out],
                              capture_output=True, text=True)
        equal(done.returncode, 0, f"cede-receiver open: {done.stdout}{done.stderr}")
        got = hashlib.sha256((out / "faces" / "large.jpg").read_bytes()).hexdigest()
        equal([got], w.want[b"faces/large.jpg"], "what cede-receiver open gives")


def urgent_between():
    """what is more urgent goes between the segments of a large file"""
    sources = []
    with World(destination={"bundle_size": "64KiB"}, source={"quiet": "0s"}) as w:
        alarms = w.dir / "alarms"
        alarms.mkdir()
        sources = [w.source, {**w.source, "name": "alarms", "path": str(alarms), "max_age": "1m"}]
        w.policy["sources"] = sources
        w.write_files()
        write_large(w, "large.jpg", 20 * MIB, 5)
        w.start()
        until(lambda: len(bundles(w)) >= 8, 60, "the large one is under way")
        content = cameras.picture(random.Random(6), mean=30 << 10)
        w.write("a.jpg", content, source="alarms", top=alarms)
        until(lambda: not (alarms / "a.jpg").exists(), 30, "the urgent one is there and wiped")
        check((w.capture / "large.jpg").exists(), "the large one is still on its way")
        tap.diag(f"{len(bundles(w))} bundles when the urgent one was wiped")
        w.settled(120)


def one_after_the_other():
    """large files of one source go one after the other, small ones past them: the first is wiped while the next ones go"""
    with World(destination={"bundle_size": "1MiB"}, source={"quiet": "0s"}) as w:
        for i in range(3):
            write_large(w, f"large{i}.jpg", 24 * MIB, 20 + i)
        for i in range(5):
            w.write(f"small{i}.jpg", b"small %d" % i)
        w.start()
        w.settled(120)
        w.verify_ledger()
        events = [json.loads(line) for line in w.cede("ledger", "events", "--json", "--state", w.state).splitlines()]
    segments = [e["subject"] for e in events if e["kind"] == "segment-sealed"]
    equal(len(segments), 72, "segments")
    runs = [capture for capture, _ in itertools.groupby(segments)]
    equal(len(runs), 3, f"runs of segments of one capture: {runs}")
    last = max(i for i, e in enumerate(events) if e["kind"] == "segment-sealed")
    small = [i for i, e in enumerate(events) if e["kind"] == "bundle-sealed" and "captures=5 " in e["detail"] + " "]
    equal(len(small), 1, "bundles with the small ones")
    check(small[0] < last, "the small ones went between")
    check(any(e["kind"] == "captures-wiped" for e in events[:last]), "the first one was wiped before the last was sealed")


def touched_midway():
    """a large file whose rights are changed before its wipe is the same capture: sent once, wiped"""
    with World(destination={"bundle_size": "64KiB"}, source={"quiet": "0s"}) as w:
        write_large(w, "large.jpg", MIB + 5, 8)
        w.start_agent()
        until(lambda: w.counts()[0].get("ready") or w.counts()[0].get("bundled"), 30, "it is recorded")
        w.receiver = w.spawn("receiver", *w.receiver_words())
        until(lambda: len(bundles(w)) >= 17, 60, "all segments are there", each=0.001)
        w.agent.kill()  # before the wipe, or in it
        if (w.capture / "large.jpg").exists():
            os.chmod(w.capture / "large.jpg", 0o640)
        w.start_agent()
        w.settled()
        equal(len(bundles(w)), 17, "bundles in the store")


def wiped_after_seal():
    """wipe after seal: a large file goes when its last segment is in the spool, and arrives later"""
    after = {"wipe": {"after": "seal", "method": "overwrite", "require": "none"}, "quiet": "0s"}
    with World(destination={"bundle_size": "1MiB"}, source=after, receiver=False) as w:
        write_large(w, "large.jpg", 9 * MIB + 1, 7)
        w.start_agent()
        w.empty(60)
        equal(len(list((w.state / "spool").glob("*.cms"))), 10, "bundles in the spool")
        w.agent.kill()
        w.start_agent()
        w.start_receiver()
        w.settled(60)
        equal(len(bundles(w)), 10, "bundles in the store")


tap.run([killed_at_half, killed_often, changed_midway, urgent_between, one_after_the_other, touched_midway, wiped_after_seal], at_once=2)
