#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The way of a capture from its directory to the agency's store, and what stays behind."""

import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from tap import check, equal
from world import World, until


def one_picture():
    """a picture and its sidecar arrive, are receipted and wiped"""
    with World() as w:
        w.start()
        for name, content in cameras.roll(1, 1, "lane1"):
            w.write(name, content)
        w.settled()
        captures, bundles = w.counts()
        equal(captures["wiped"], 2, "captures wiped")
        check(bundles["done"] >= 1, f"no bundle is done: {bundles}")
        w.verify_ledger()


def found_at_start():
    """captures written before the agent started are found by its scan"""
    with World() as w:
        for name, content in cameras.roll(2, 20, "lane1"):
            w.write(name, content)
        w.start()
        w.settled()


def new_directories():
    """files in directories made while the agent runs are found"""
    with World() as w:
        w.start()
        w.write("first.jpg", b"first")
        w.settled()
        for i in range(30):
            w.write(f"a/b{i}/c/d/e.jpg", b"deep %d" % i)
        w.settled()


def strange_names():
    """names with spaces, line ends, quotes, other scripts and bytes that are no UTF-8 arrive unchanged"""
    names = [b"with space.jpg", b"line\nend.jpg", b"tab\there.jpg", b'"quoted" \'name\'.jpg', b"-rf.jpg", b"back\\slash.jpg",
             b"*.jpg", "прибытие-到着.jpg".encode(), b"latin-\xe9\xff\xfe.jpg", b"a:b=c;d&e.jpg", b" lead and trail .jpg",
             b"n" * 251 + b".jpg", b"dir with space/\xf0\x28/x.jpg", b"segment.jpg.segment-1-of-2.jpg"]
    with World() as w:
        w.start()
        for i, name in enumerate(names):
            w.write(os.fsdecode(name), b"content %d" % i)
        w.settled()
        log = w.agent.log.read_bytes()
        for name in names:
            stem = os.path.basename(name)[:-4]
            check(len(stem) < 5 or stem not in log, f"the log holds the name {name!r} (I9)")


def empty_file():
    """an empty file is handed over like any other"""
    with World() as w:
        w.start()
        w.write("nothing.jpg", b"")
        w.settled()


def large_file():
    """a file of 40 MiB goes in segments and comes out whole"""
    content = random.Random(5).randbytes(40 << 20)
    with World() as w:
        w.start()
        w.write("film.jpg", content)
        w.write("small.jpg", b"beside it")
        w.settled()
        equal(w.counts()[0]["wiped"], 2, "captures wiped")
        check(w.counts()[1]["done"] >= 3, "the large file fits no single bundle")


def small_segments():
    """with a small bundle_size every bundle keeps to it"""
    limit = 1 << 20
    with World(destination={"bundle_size": "1MiB"}) as w:
        w.start()
        for name, content in cameras.roll(6, 30, "lane1", mean=200 << 10):
            w.write(name, content)
        w.settled()
        for bundle in w.store.rglob("*.cms"):
            check(bundle.stat().st_size <= limit + (256 << 10), f"a bundle of {bundle.stat().st_size} bytes")


def groups():
    """a group waits for its members, and no longer than its wait"""
    with World(source={"group": {"by": "stem", "require": [".jpg", ".json"], "wait": "3s"}}) as w:
        w.start()
        began = time.monotonic()
        w.write("alone.jpg", b"no sidecar")
        w.write("pair.jpg", b"picture")
        until(lambda: time.monotonic() - began > 1.2, 5, "a second later")  # six times quiet
        check(b"pair.jpg" in w.left(), "the picture went without its sidecar")
        w.write("pair.json", b"{}")
        w.settled()
        check(time.monotonic() - began >= 3, "the picture without a sidecar did not wait")


class Writer:
    """Has a file open, and appends to it each so many seconds, or never."""

    def __init__(self, path, each=None):
        self.file = open(path, "ab", buffering=0)
        self.file.write(b"{")
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.append, args=(each,))
        self.thread.start()

    def append(self, each):
        while not self.ends.wait(each):
            self.file.write(b" ")
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def foreseen(w):
    """{path: reason} of a dry run"""
    said = w.cede("policy", "dry-run", "--policy", w.dir / "policy.yaml", "--json", status=(0, 1))
    return {x["path"]: x["reason"] for x in map(json.loads, said.splitlines()) if x["kind"] == "file"}


def unfinished_members():
    """a member that is held open or written to again and again holds up the others no longer than wait"""
    group = {"by": "stem", "require": [".jpg", ".json"], "wait": "3s"}
    with World(source={"max_age": "6s", "at_max_age": "seal", "group": group}) as w:
        w.start()
        until(lambda: "agent.ready" in w.agent.said(), 15, "the agent is ready")
        with Writer(w.capture / "held.json"), Writer(w.capture / "written.json", 0.05):
            began = time.monotonic()
            for name in ("held.jpg", "written.jpg"):
                w.write(name, name.encode())
            until(lambda: time.monotonic() - began > 1.2, 5, "a second later")  # six times quiet
            pictures = {b"held.jpg", b"written.jpg"}
            check(pictures <= set(w.left()), f"a picture did not wait for its sidecar: {w.left()}")
            equal(foreseen(w)["written.jpg"], "group-waits", "what a dry run says meanwhile")
            until(lambda: not pictures & set(w.left()), 6, lambda: f"the pictures went; left: {w.left()}")
            check(time.monotonic() - began >= 3, "the pictures did not wait for their sidecars")
            equal(sorted(w.left()), [b"held.json", b"written.json"], "files that stay while they are written")
        for name in ("held.json", "written.json"):
            w.want[b"faces/" + name.encode()] = hashlib.sha256((w.capture / name).read_bytes()).hexdigest()
        w.settled()
        events = [json.loads(line) for line in w.cede("ledger", "events", "--state", w.state, "--json").splitlines()]
        violations = [e["detail"] for e in events if e["kind"] == "violation"]
        check(sum("reason=group-incomplete" in v for v in violations) >= 2, f"violations in the ledger: {violations}")
        w.verify_ledger()


def unfinished_member_foreseen():
    """the dry run says the same of a member that is written to again and again: wait, then group-incomplete"""
    with World(source={"group": {"by": "stem", "require": [".jpg", ".json"], "wait": "2s"}}) as w:
        with Writer(w.capture / "a.json", 0.05):
            began = time.monotonic()
            w.write("a.jpg", b"picture", want=False)
            until(lambda: time.monotonic() - began > 0.5, 5, "past quiet")
            equal(foreseen(w), {"a.jpg": "group-waits", "a.json": "settling"}, "before wait is over")
            until(lambda: time.monotonic() - began > 2.2, 5, "past wait")
            equal(foreseen(w), {"a.jpg": "group-incomplete", "a.json": "settling"}, "past wait")
        until(lambda: foreseen(w) == {"a.jpg": "ready", "a.json": "ready"}, 5, lambda: f"complete: {foreseen(w)}")


def what_stays():
    """other files, links and pipes stay as they are and are reported"""
    outside = b"outside, never to be touched"
    with World() as w:
        (w.dir / "outside.jpg").write_bytes(outside)
        os.symlink(w.dir / "outside.jpg", w.capture / "link.jpg")
        os.symlink(w.dir, w.capture / "dirlink")
        os.link(w.dir / "outside.jpg", w.capture / "hard.jpg")
        os.mkfifo(w.capture / "pipe.jpg")
        (w.capture / "notes.txt").write_bytes(b"unmatched")
        (w.capture / "half.part").write_bytes(b"ignored")
        w.write("good.jpg", b"good")
        w.start()
        stays = ["link.jpg", "hard.jpg", "pipe.jpg", "notes.txt", "half.part", "dirlink"]
        left = sorted(s.encode() for s in stays if s != "dirlink")
        until(lambda: sorted(w.left()) == left, 30, lambda: f"{left} stay; left: {w.left()}")
        w.idle()
        equal((w.dir / "outside.jpg").read_bytes(), outside, "the linked file")
        equal(os.stat(w.dir / "outside.jpg").st_nlink, 2, "links of the linked file")
        out = w.cede("policy", "dry-run", "--policy", w.dir / "policy.yaml", status=(1,))
        for reason in ("symlink", "hard-link", "special-file", "unmatched"):
            check(reason in out, f"the dry run does not say {reason}:\n{out}")
        equal(w.agent.stop(5), 0, "exit status")
        check("outside.jpg" not in w.agent.said(), "the log names a capture (I9)")
        for reason in ("symlink", "hard-link", "special-file"):
            check(reason in w.agent.said(), f"the agent does not report {reason}")


def dry_run_changes_nothing():
    """a dry run shows what would be done and changes nothing"""
    with World() as w:
        for name, content in cameras.roll(3, 3, "lane1"):
            w.write(name, content)
        before = {n: os.stat(os.path.join(os.fsencode(w.capture), n)) for n in w.left()}
        time.sleep(0.3)  # older than quiet, which only time can do
        out = w.cede("policy", "dry-run", "--policy", w.dir / "policy.yaml", status=(0,))
        equal(out.count("ready"), 6, f"files said to be ready in\n{out}")
        after = {n: os.stat(os.path.join(os.fsencode(w.capture), n)) for n in w.left()}
        equal([(s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for s in after.values()],
              [(s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for s in before.values()], "files after it")
        check(not w.state.exists(), "the dry run made the state directory")


def nothing_to_do_again():
    """started again, the agent does nothing twice"""
    with World() as w:
        w.start()
        for name, content in cameras.roll(4, 10, "lane1"):
            w.write(name, content)
        w.settled()
        equal(w.agent.stop(5), 0, "exit status")
        bundles = sorted(p.name for p in w.store.rglob("*.cms"))
        w.start_agent()
        w.courier()
        w.write("later.jpg", b"later")
        w.settled()
        equal(len(list(w.store.rglob("*.cms"))), len(bundles) + 1, "bundles")
        w.verify_ledger()


def stops_under_load():
    """SIGTERM under load stops within 5 seconds and loses nothing"""
    with World() as w:
        w.start()
        for name, content in cameras.roll(7, 600, "lane1"):
            w.write(name, content)
        until(lambda: any(w.store.rglob("*.cms")), 30, "the first bundle is in the store")
        began = time.monotonic()
        equal(w.agent.stop(5), 0, "exit status")
        tap.diag(f"stopped in {time.monotonic() - began:.2f} s with {len(w.left())} files left")
        w.verify_ledger()
        w.start_agent()
        w.settled()


def link_down():
    """with no receiver captures stay; once it is there they go"""
    with World(receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(8, 5, "lane1"):
            w.write(name, content)
        def recorded():
            counts = w.counts()[0] if w.state.exists() else {}
            return counts.get("sealed", 0) + counts.get("ready", 0) == 10
        until(recorded, 30, "ten captures are recorded")
        equal(len(w.left()), 10, "captures that stay")
        w.start_receiver()
        w.settled()


def behind_the_courier():
    """a courier that is killed is started again"""
    with World() as w:
        w.start()
        first = w.courier()
        os.kill(first, signal.SIGKILL)
        until(lambda: w.courier() != first, 15, "another courier")
        w.write("after.jpg", b"after")
        w.settled()


def until_empty(w, limit="60s", ends_by="left"):
    """What `cede run --until-empty` says is left, once it has ended with status 1; "" with status 0."""
    done = subprocess.run([*w.agent_words(), "--until-empty", limit], capture_output=True, text=True, timeout=120)
    said = re.search(r"^cede run: left: (.*) \(cede status .*\)$", done.stderr, re.M)
    equal(done.returncode, 1 if said else 0, f"exit status of\n{done.stderr}")
    check(f"agent.stopping reason={ends_by if said else 'empty'}" in done.stderr, done.stderr)
    return said.group(1) if said else ""


def empty_at_last():
    """--until-empty ends with 0 once all is handed over and wiped; what the policy does not want is not left"""
    with World() as w:
        w.start_receiver()
        w.write("a.jpg", b"picture")
        w.write("a.txt", b"nobody wants it", want=False)
        w.write(".a.jpg", b"is ignored", want=False)
        os.link(w.capture / "a.txt", w.dir / "another-name")
        os.symlink("a.txt", w.capture / "link.jpg")
        equal(until_empty(w), "", "left")
        w.settled(but=["a.txt", ".a.jpg", "link.jpg"])


def left_refused():
    """--until-empty: hard links and what is too large are left; exit status 1"""
    with World(source={"max_size": "100B"}) as w:
        w.start_receiver()
        w.write("a.jpg", b"picture")
        w.write("large.jpg", bytes(200), want=False)
        w.write("linked.jpg", b"picture", want=False)
        os.link(w.capture / "linked.jpg", w.dir / "another-name")
        equal(until_empty(w), "1 hard-link, 1 too-large", "left")
        w.settled(but=["large.jpg", "linked.jpg"])


def left_and_came_later():
    """--until-empty: a file that is refused counts also when it came after the first look at the source"""
    with World(source={"max_size": "100B"}, receiver=False) as w:
        w.write("a.jpg", b"picture")
        agent = w.spawn("agent", *w.agent_words(), "--until-empty", "2m")
        until(lambda: w.in_state("ready", "bundled", "sealed") == 1, 30, "the first look is over, the link is awaited")
        w.write("large.jpg", bytes(200), want=False)
        until(lambda: "capture.refused source=faces reason=too-large" in agent.said(), 30, "it was found")
        w.start_receiver()
        equal(agent.popen.wait(60), 1, "exit status")
        check("cede run: left: 1 too-large (" in agent.said(), agent.said())


def left_expired():
    """--until-empty: with an expired policy all that it wants is left"""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    with World(policy={"expires": soon}) as w:
        w.write("a.jpg", b"picture")
        w.write("a.txt", b"nobody wants it", want=False)
        equal(until_empty(w), "1 policy-expired", "left")


def left_held():
    """--until-empty: what a hold keeps is left, although the agency has it"""
    with World(policy={"holds": [{"id": "case-7", "until": "2090-01-01T00:00:00Z"}]}) as w:
        w.start_receiver()
        w.write("a.jpg", b"picture")
        equal(until_empty(w), "1 held", "left")


def left_away():
    """--until-empty: what may be in a source that is not there is left"""
    with World() as w:
        w.start_receiver()
        w.capture.rmdir()
        equal(until_empty(w), "what is in source faces, which is not there", "left")


def left_without_link():
    """--until-empty: after its time it says what has no receipt"""
    with World(receiver=False) as w:
        w.write("a.jpg", b"picture")
        check(until_empty(w, "3s", "limit") != "", "left")


def lost_with_the_spool():
    """--until-empty: captures that were wiped after sealing, and whose bundle somebody took out of the spool"""
    with World(source={"wipe": {"after": "seal", "method": "overwrite", "require": "none"}}, receiver=False) as w:
        for i in range(3):
            w.write(f"{i}.jpg", b"picture")
        w.start_agent()
        w.empty()
        w.agent.stop()
        for bundle in (w.state / "spool").iterdir():
            bundle.unlink()
        w.start_receiver()
        equal(until_empty(w), "3 wiped and lost with a bundle that was taken out of the spool", "left")


tap.run([one_picture, found_at_start, new_directories, strange_names, empty_file, large_file, small_segments, groups,
         unfinished_members, unfinished_member_foreseen, what_stays, dry_run_changes_nothing, nothing_to_do_again, stops_under_load, link_down, behind_the_courier,
         empty_at_last, left_refused, left_and_came_later, left_expired, left_held, left_away, left_without_link, lost_with_the_spool], at_once=3)
