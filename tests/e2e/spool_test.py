#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where the policy wipes after sealing, or max_age comes and the link is down: the durable sealed bundle
is the proof, the plaintext goes, and the bundle goes to the agency when the link is back."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from tap import check, equal
from world import World, until

AFTER_SEAL = {"wipe": {"after": "seal", "method": "overwrite", "require": "none"}}


def spooled(w):
    folder = w.state / "spool"
    return sorted(folder.glob("*.cms")) if folder.is_dir() else []


def wiped(w, number):
    until(lambda: w.counts()[0].get("wiped") == number, 30, lambda: f"{number} wiped; {w.counts()}")
    equal(w.left(), [], "files left")


def after_seal_without_link():
    """wipe after seal: with the link down the plaintext goes, the sealed bundle stays and arrives later"""
    with World(source=AFTER_SEAL, receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(11, 8, "lane1"):
            w.write(name, content)
        wiped(w, 16)
        check(len(spooled(w)) >= 1, "bundles are in the spool")
        plain = [p for p in w.state.rglob("*") if p.is_file() and b"JFIF" in p.read_bytes()]
        equal(plain, [], "files of the state directory with plaintext")
        w.start_receiver()
        w.settled()
        equal(spooled(w), [], "bundles left in the spool")


def after_seal_with_restart():
    """wipe after seal: keeper killed while the link is down; the spool survives and is handed over once"""
    with World(source=AFTER_SEAL, receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(12, 8, "lane1"):
            w.write(name, content)
        wiped(w, 16)
        w.agent.kill()
        (w.state / "spool" / "01a00000-0000-7000-8000-000000000000.cms").write_bytes(b"left over from a crash")
        w.start_agent()
        w.start_receiver()
        w.settled()
        equal(spooled(w), [], "bundles left in the spool")


def max_age_without_link():
    """at_max_age: seal: no receipt in time, so the captures are sealed to the disk and wiped"""
    with World(source={"quiet": "0s", "max_age": "9s", "at_max_age": "seal"}, receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(13, 8, "lane1"):
            w.write(name, content)
        wiped(w, 16)
        check(len(spooled(w)) >= 1, "bundles are in the spool")
        w.start_receiver()
        w.settled()
        equal(spooled(w), [], "bundles left in the spool")


def max_age_hold():
    """at_max_age: hold: the same, and the captures stay until the agency has them"""
    with World(source={"quiet": "0s", "max_age": "2s", "at_max_age": "hold"}, receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(14, 4, "lane1"):
            w.write(name, content)
        until(lambda: sum(w.counts()[0].get(s, 0) for s in ("ready", "sealed")) == 8, 30, "recorded")
        until(lambda: w.agent.said().count("push.failed") >= 5, 60, "five tries failed")
        equal(len(w.left()), 8, "captures that stay")
        equal(spooled(w), [], "bundles in the spool")
        w.start_receiver()
        w.settled()


if __name__ == "__main__":
    tap.run([after_seal_without_link, after_seal_with_restart, max_age_without_link, max_age_hold])
