#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""2,000 pictures with sidecars, written in four ways at once."""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from stock import Store, read_receipt
from tap import check, equal
from world import World

LIMIT_S = 90
PICTURES = 500  # in each of the four ways
WRITE_S = 5     # the slow program writes this long
BATCH = 125     # files that it has open at a time


def files(way):
    return list(cameras.roll(20261123, PICTURES, way, mean=64 << 10))


def expect(w, delivered):
    for name, content in delivered:
        w.expect(name, content)
    return delivered


def slow_program(top, delivered):
    pictures = [f for f in delivered if f[0].endswith(".jpg")]
    sidecars = dict(f for f in delivered if f[0].endswith(".json"))
    for at in range(0, len(pictures), BATCH):
        batch = pictures[at:at + BATCH]
        cameras.slowly(top, batch, WRITE_S, 3)
        cameras.by_rename(top, [(n[:-4] + ".json", sidecars[n[:-4] + ".json"]) for n, _ in batch])


def four_ways():
    """2,000 pictures with sidecars come by FTP, rsync, renaming and slow writing: each arrives once, unchanged"""
    group = {"by": "stem", "require": [".jpg", ".json"], "wait": "30s"}
    with World(source={"quiet": "1s", "group": group}) as w:
        w.start()
        began = time.monotonic()
        ways = {way: expect(w, files(way)) for way in ("ftp", "rsync", "rename", "slow")}
        ftp = cameras.Ftp(w, w.capture)
        crew = cameras.Crew()
        crew.add(ftp.deliver, ways["ftp"])
        crew.add(cameras.by_rsync, w.capture, w.dir / "scratch", ways["rsync"])
        crew.add(cameras.by_rename, w.capture, ways["rename"])
        crew.add(slow_program, w.capture, ways["slow"])
        crew.join(LIMIT_S)
        written = time.monotonic() - began
        w.empty(LIMIT_S)
        w.idle(LIMIT_S)
        tap.diag(f"written in {written:.1f} s, all wiped {time.monotonic() - began - written:.1f} s later")
        store = Store(w.store, w.pki).read()
        store.compare(w.want)
        captures, bundles = w.counts()
        equal(captures, {**dict.fromkeys(captures, 0), "wiped": 4 * 2 * PICTURES}, "captures by state")
        equal(bundles, {**dict.fromkeys(bundles, 0), "done": len(store.manifests)}, "bundles by state")
        receipts(w, store)
        w.verify_ledger()


def receipts(w, store):
    """The ledger's own copy of each receipt is the one in the store, and verifies by hand."""
    work = w.dir / "check"
    work.mkdir()
    for bundle in store.manifests:
        note = work / f"{bundle}.receipt"
        note.write_text(w.cede("ledger", "receipt", "--state", w.state, bundle))
        equal(read_receipt(note, w.pki / "receipt.pub", work), store.receipts[bundle], f"receipt of {bundle}")
    held = sum(len(m["entries"]) for m in store.manifests.values())
    check(held >= 4 * 2 * PICTURES, f"the manifests name {held} captures")


tap.run([four_ways])
