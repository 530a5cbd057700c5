#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the agent's wipes are worth, by what it says and by the raw disk; what the policy says below that.

Every capture directory is a file system of its own in an image; tests/unit/wipe/storage_test.c has the matrix
of file systems and histories, here the whole agent does it."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from disk import Disk, needs_root
from tap import check, equal
from tracing import Strace
from world import World, until

MARK = b"cede-e2e-mark/"
NAME = "plate-7XKW204"  # what a name must not leave behind
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL, FS_APPEND_FL = 0x80086601, 0x40086602, 0x10, 0x20


def content(text=b"", size=60000):
    unit = MARK + text
    return (unit * (size // len(unit) + 1))[:size]


def events(w, kind, word=""):
    if not (w.state / "ledger.db").exists():
        return []
    said = w.cede("ledger", "events", "--state", w.state, "--json", status=(0, 3))
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [e for e in found if e["kind"] == kind and word in e["detail"]]


def happened(w, kind, word="", number=1, seconds=30):
    until(lambda: len(events(w, kind, word)) >= number, seconds, f"{number} times {kind} {word}", each=0.1)
    return events(w, kind, word)


def levels(w):
    """How many captures were wiped to each level."""
    count = {}
    for e in events(w, "captures-wiped") + events(w, "capture-wiped"):
        words = dict(p.split("=", 1) for p in e["detail"].split(" ") if "=" in p)
        key = words["level"], words.get("reason", "")
        count[key] = count.get(key, 0) + 1
    return count


@contextlib.contextmanager
def world(mkfs, options="", **wipe):
    """A world whose capture directory is a disk of its own."""
    needs_root()
    source = {"wipe": {"after": "receipt", "method": "overwrite", "require": "overwritten", **wipe}}
    with World(source=source) as w, Disk(w.dir, mkfs, options) as disk:
        disk.mount(w.capture)
        yield w, disk


def ended(w, disk):
    equal(w.agent.stop(10), 0, "exit status")
    w.verify_ledger()
    disk.unmount()


def nothing_stays(mkfs, options, number=40):
    """Captures come, are handed over and wiped; then neither content nor names are in the image."""
    with world(mkfs, options, scrub_within="1s", verify="sample" if "journal" in options else "all") as (w, disk):
        w.start()
        for i in range(number):
            w.write(f"lane/{NAME}-{i}.jpg", content(b"%d" % i))
            w.write(f"lane/{NAME}-{i}.json", content(b"%d" % i, 90))
        disk.flush()
        w.settled()
        if events(w, "names-stay"):
            raise tap.Skip("the agent may not empty a journal here")
        scrubbed = happened(w, "names-scrubbed", f"names={2 * number} ") if "journal" not in options else happened(w, "names-scrubbed")
        check("took_ms=" in scrubbed[0]["detail"], scrubbed)
        check(not events(w, "violation"), events(w, "violation"))
        found = levels(w)
        check(set(level for level, _ in found) == {"overwritten-current"}, found)
        ended(w, disk)
        equal(disk.count(MARK, NAME.encode()), [0, 0], "copies of content and of names in the image")


def ext4_ordered():
    """ext4: content and names are gone from the image, and the ledger says since when"""
    nothing_stays("mkfs.ext4 -q -F", "")


def ext4_journalled():
    """ext4 with data=journal and with inline data: the same, since the journal is emptied"""
    nothing_stays("mkfs.ext4 -q -F -O inline_data", "data=journal")


def what_an_unlink_leaves():
    """the search finds content and names where nothing was wiped"""
    with world("mkfs.ext4 -q -F") as (w, disk):
        w.write(f"{NAME}.jpg", content(), want=False)
        disk.flush()
        os.unlink(w.capture / f"{NAME}.jpg")
        disk.unmount()
        left = disk.count(MARK, NAME.encode())
        check(left[0] > 1000 and left[1] > 0, left)


def names_stay():
    """xfs: content goes; that names stay is said, once"""
    with world("mkfs.xfs -q", scrub_within="1s") as (w, disk):
        w.start()
        for i in range(10):
            w.write(f"{NAME}-{i}.jpg", content())
        disk.flush()
        w.settled()
        happened(w, "names-stay", "source=faces ")
        w.write("later.jpg", content())
        w.settled()
        time.sleep(2.5)  # longer than scrub_within and a tick: it would be said again by now
        equal(len(events(w, "names-stay")), 1, "times that it was said")
        check(not events(w, "names-scrubbed"), "it claims what it can't do")
        equal(set(levels(w)), {("overwritten-current", "history-unknown")}, "levels")
        ended(w, disk)
        equal(disk.count(MARK), [0], "copies of content in the image")


def below_is_wiped():
    """btrfs, wipe-and-report: wiped as well as can be, each a violation with its reason"""
    with world("mkfs.btrfs -q -f") as (w, disk):
        w.start()
        for i in range(5):
            w.write(f"{i}.jpg", content())
        disk.flush()
        w.settled()
        found = events(w, "violation", "reason=wipe-below-requirement ")
        equal(len(found), 5, "violations")
        for word in ("require=overwritten", "effect=wiped", "level=unproven", "why=copy-on-write"):
            check(word in found[0]["detail"], found[0])
        equal(set(levels(w)), {("unproven", "copy-on-write")}, "levels")
        ended(w, disk)
        check(disk.count(MARK)[0] > 0, "the image holds nothing: then unproven was too little")


def below_is_kept():
    """btrfs, keep-and-report: handed over and kept, a violation; wiped under a policy that takes less"""
    with world("mkfs.btrfs -q -f", below_requirement="keep-and-report") as (w, disk):
        w.start()
        for i in range(5):
            w.write(f"{i}.jpg", content(), want=True)
        happened(w, "violation", "effect=kept ", 5)
        until(lambda: w.counts()[0].get("kept") == 5, 10, "five captures are kept")
        until(lambda: w.counts()[1].get("done", 0) > 0, 10, "their bundle is done")
        equal(len(w.left()), 5, "files that stay")
        for i in range(5):
            equal((w.capture / f"{i}.jpg").read_bytes(), content(), "a kept file")
        equal(w.agent.stop(10), 0, "exit status")
        w.start_agent()  # nothing has changed: nothing happens to them
        w.courier()
        w.write("new.jpg", content())
        happened(w, "violation", "effect=kept ", 6)
        until(lambda: w.in_state("kept") == 6, 30, lambda: f"all are kept after a restart; {w.counts()}")
        equal(len(events(w, "keep-ended")), 0, "kept ones that were tried again for nothing")
        w.source["wipe"]["below_requirement"] = "wipe-and-report"
        w.policy["sources"][0]["wipe"]["below_requirement"] = "wipe-and-report"
        w.publish()
        w.empty()
        w.idle()
        equal(len(events(w, "keep-ended")), 6, "kept ones that were tried again")
        equal(len(events(w, "violation", "effect=wiped ")), 6, "violations for having been wiped")
        equal(w.counts()[0].get("wiped"), 6, "captures wiped")
        ended(w, disk)


def kept_while_away():
    """btrfs, kept; a policy that takes less comes while the source is away: wiped when it is back, without a restart"""
    with world("mkfs.btrfs -q -f", below_requirement="keep-and-report") as (w, disk):
        top, aside = w.capture / "lane", w.capture / "aside"
        top.mkdir()
        w.source["path"] = str(top)
        w.write_files()
        w.start()
        for i in range(5):
            w.write(f"{i}.jpg", content(), top=top)
        until(lambda: w.in_state("kept") == 5, 30, "five captures are kept")
        equal(w.agent.stop(10), 0, "exit status")
        os.rename(top, aside)
        w.source["wipe"]["below_requirement"] = "wipe-and-report"
        w.write_files()
        w.start_agent()
        happened(w, "source-missing")
        time.sleep(2)  # more than one look at what is kept: nothing happens, which only time can show
        equal((w.in_state("kept"), len(events(w, "keep-ended"))), (5, 0), "kept while the source is away; tried again")
        os.rename(aside, top)
        w.empty()
        w.idle()
        equal((len(events(w, "keep-ended")), w.in_state("wiped")), (5, 5), "kept ones that were tried again; captures wiped")
        ended(w, disk)


def flags():
    """an immutable and an append-only file are not wiped, and it is said how to mend that; then they are"""
    with world("mkfs.ext4 -q -F") as (w, disk):
        names = {"fixed.jpg": FS_IMMUTABLE_FL, "log.jpg": FS_APPEND_FL}
        for name in names:
            w.write(name, content())
        for name, flag in names.items():
            set_flags(w.capture / name, flag)
        try:
            w.start()
            happened(w, "wipe-failed", "error=EPERM", 2)
            until(lambda: "chattr -i -a" in w.agent.said(), 10, "the log says how to mend it")
            equal(len(w.left()), 2, "files that stay")
            equal((w.capture / "fixed.jpg").read_bytes(), content(), "the immutable file")
        finally:
            for name in names:
                set_flags(w.capture / name, 0)
        w.settled()
        check("fixed" not in w.agent.said(), "the log names a capture (I9)")
        ended(w, disk)


def moved_while_stopped():
    """what was to be wiped and could not be is moved away while the agent is stopped: removed by another program, not wiped"""
    with world("mkfs.ext4 -q -F") as (w, disk):
        w.write("a.jpg", content(), want=False)
        set_flags(w.capture / "a.jpg", FS_IMMUTABLE_FL)
        try:
            w.start()
            happened(w, "wipe-failed", "error=EPERM")
            equal(w.agent.stop(10), 0, "exit status")
        finally:
            set_flags(w.capture / "a.jpg", 0)
        shutil.move(w.capture / "a.jpg", w.dir / "moved.jpg")
        w.start_agent()
        happened(w, "capture-gone", "reason=removed-by-another-program")
        equal(levels(w), {}, "wipes that are claimed")
        equal((w.dir / "moved.jpg").read_bytes(), content(), "the file, where it is now")
        ended(w, disk)


def kept_over_a_restart():
    """keep-and-report holds for what a program had open when it was to be wiped, and the agent was started again"""
    with world("mkfs.btrfs -q -f", below_requirement="keep-and-report") as (w, disk):
        w.start_agent()
        w.write("a.jpg", content(), want=True)
        until(lambda: w.in_state("sealed") == 1, 30, "it is sealed")
        with open(w.capture / "a.jpg", "r+b"):
            w.start_receiver()
            until(lambda: w.in_state("wiping") == 1, 30, "it is to be wiped")
            equal(w.agent.stop(10), 0, "exit status")
        w.start_agent()
        happened(w, "violation", "effect=kept ")
        equal((w.capture / "a.jpg").read_bytes(), content(), "the file")
        equal(levels(w), {}, "wipes")
        ended(w, disk)


def set_flags(path, flags_now):
    fd = os.open(path, os.O_RDONLY)
    try:
        have = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, struct.pack("l", 0)))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", have & ~(FS_IMMUTABLE_FL | FS_APPEND_FL) | flags_now))
    finally:
        os.close(fd)


def sparse():
    """a sparse file larger than its disk: its holes are left alone"""
    with world("mkfs.ext4 -q -F") as (w, disk):
        path = w.capture / ".big"
        with open(path, "wb") as f:
            f.write(content())
            f.seek((400 << 20) - 60000)
            f.write(content())
        disk.flush()
        w.start()
        os.rename(path, w.capture / "big.jpg")
        w.empty()
        w.idle()
        equal(set(levels(w)), {("overwritten-current", "history-unknown")}, "levels")
        ended(w, disk)
        equal(disk.count(MARK), [0], "copies of content in the image")


def attributes():
    """what was told of a file in user attributes goes, and the level says that copies may stay"""
    with world("mkfs.ext4 -q -F") as (w, disk):
        path = w.capture / "x.jpg"
        w.write("x.jpg", content())
        os.setxattr(path, "user.plate", b"7XKW204" * 10)
        w.start()
        w.settled()
        equal(set(levels(w)), {("unproven", "user-attributes")}, "levels")
        ended(w, disk)


# ---- whole lives

@contextlib.contextmanager
def watched(**wipe):
    with world("mkfs.ext4 -q -F", require="watched", **wipe) as (w, disk):
        w.start()
        w.write("first.jpg", content())  # once it is wiped, the directory has been listed
        w.empty()
        yield w, disk


def wiped_as(w, level, reason, number):
    until(lambda: w.counts()[0].get("wiped", 0) >= number, 30, f"{number} captures are wiped")
    found = events(w, "captures-wiped") + events(w, "capture-wiped")
    last = max(found, key=lambda e: e["sequence"])["detail"]
    check(f"level={level}" in last and (not reason or f"reason={reason}" in last), f"{level} {reason} expected, found {last}")


def whole_lives():
    """require: watched: files seen from their creation on are overwritten-watched, written in place or renamed into it"""
    with watched() as (w, disk):
        for i in range(3):
            w.write(f"lane{i}/first.jpg", content())  # in a directory that is new: it escaped notice, or not
        w.empty()
        w.idle()  # the ledger has what was said of them
        before = len(events(w, "violation"))
        for i in range(20):
            w.write(f"lane{i % 3}/again-{i}.jpg", content())
            with open(w.capture / f"in-place-{i}.jpg", "wb") as f:
                for _ in range(10):
                    f.write(content(size=6000))
                    f.flush()
            w.expect(f"in-place-{i}.jpg", content(size=6000) * 10)
        w.settled()
        equal(len(events(w, "violation")), before, "violations for files whose whole life was seen")
        wiped_as(w, "overwritten-watched", "", 44)
        ended(w, disk)
        equal(disk.count(MARK), [0], "copies of content in the image")


def life_goes_on():
    """a look that leaves a file as it is (a legal hold covers it, a program has it open) does not end what is known of its life"""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 12))
    with world("mkfs.ext4 -q -F", require="watched", below_requirement="keep-and-report") as (w, disk):
        w.policy["holds"] = [{"id": "case-1", "match": ["held.jpg"], "until": soon}]
        w.write_files()
        w.start()
        w.write("first.jpg", content(), want=True)  # the directory was listed, or not: it may be kept
        until(lambda: w.in_state("wiped", "kept") == 1, 30, "the directory has been listed")
        before = w.in_state("wiped")
        w.receiver.signal(signal.SIGSTOP)  # with the link down what comes later would not be sealed
        w.write("held.jpg", content())
        w.write("open.jpg", content())
        until(lambda: w.in_state("sealed") == 2, 30, "both are sealed")
        with open(w.capture / "open.jpg", "r+b"):
            w.receiver.signal(signal.SIGCONT)
            until(lambda: w.in_state("held") == 1 and w.in_state("wiping") == 1, 30, lambda: f"both were looked at: {w.counts()}")
        until(lambda: w.in_state("wiped") == before + 2, 40, lambda: f"both are wiped: {w.counts()}")
        wiped_as(w, "overwritten-watched", "", before + 2)
        equal(len(events(w, "violation", "history-unknown")), 1 - before, "files that are kept, or wiped below what is required")
        ended(w, disk)


def broken_lives():
    """require: watched: written twice, cut, replaced, linked, moved in, there before the agent: not watched, a violation each"""
    with watched() as (w, disk):
        number = w.counts()[0]["wiped"]

        def rewritten(path):
            path.write_bytes(content(b"earlier"))
            path.write_bytes(content())

        def cut_by_name(path):
            path.write_bytes(content() + b"tail")
            os.truncate(path, len(content()))

        def replaced(path):
            path.write_bytes(content(b"earlier"))
            other = path.with_name(".other")
            other.write_bytes(content())
            os.rename(other, path)

        def linked(path):
            hidden = path.with_name(".hidden")
            hidden.write_bytes(content())
            os.link(hidden, path)
            os.unlink(hidden)

        def appended(path):
            path.write_bytes(content()[:1000])
            with open(path, "ab") as f:
                f.write(content()[1000:])

        for i, story in enumerate((rewritten, cut_by_name, replaced, linked, appended)):
            story(w.capture / f"{story.__name__}.jpg")
            wiped_as(w, "overwritten-current", "history-unknown", number + i + 1)
            until(lambda: len(events(w, "violation", "require=watched")) >= i + 2, 30, f"a violation after {story.__name__}")
            equal(len(events(w, "violation", "require=watched")), i + 2, f"violations after {story.__name__}")
        w.empty()
        equal(w.agent.stop(10), 0, "exit status")
        w.write("while-away.jpg", content())
        w.start_agent()
        wiped_as(w, "overwritten-current", "history-unknown", number + 6)
        ended(w, disk)


def lost_events():
    """require: watched: where events were lost nothing is known of what was there; of what is made after the next listing it is"""
    with watched() as (w, disk):
        w.agent.signal(signal.SIGSTOP)
        try:
            w.write("before.jpg", content())
            for i in range(9000):  # two events each, of files that the policy leaves alone
                (w.capture / f".{i}").touch()
        finally:
            w.agent.signal(signal.SIGCONT)
        happened(w, "watch-gap", "cause=queue-overflow")
        w.empty(but=[f".{i}" for i in range(9000)])
        wiped_as(w, "overwritten-current", "history-unknown", 2)
        number, level = 2, ""
        while "overwritten-watched" not in level:  # as soon as the scan that follows has ended
            check(number < 200, "no life is whole again after the events were lost")
            w.write(f"after-{number}.jpg", content())
            number += 1
            until(lambda n=number: w.counts()[0].get("wiped", 0) >= n, 30, "another capture is wiped")
            found = events(w, "captures-wiped") + events(w, "capture-wiped")
            level = max(found, key=lambda e: e["sequence"])["detail"]
        ended(w, disk)


# ---- in which order

def on(calls, names, path, exact=False):
    """Those of the calls with one of the names whose first descriptor is this path, or lies below it."""
    end = ">" if exact else "[/>]"
    return [c for c in calls if c.name in names and re.match(rf"\d+<{re.escape(str(path))}{end}", c.rest)]


def flushed_first():
    """a wipe by its system calls: nothing is overwritten before the ledger's flushes, unlinked before the overwriting is flushed, told before the directory is"""
    with world("mkfs.ext4 -q -F") as (w, disk):
        w.start()
        w.write("first.jpg", content())
        w.settled()
        with Strace(w.agent.pid, w.dir, "-y", "-e", "trace=openat2,pread64,pwrite64,syncfs,fsync,fdatasync,renameat2,unlinkat") as s:
            names = [f"lane{i % 3}/{i}.jpg" for i in range(60)]
            for name in names:
                w.write(name, content())
            w.settled()
            calls = s.calls()
        failed = [c for c in calls if c.name.endswith(("sync", "syncfs")) and not c.succeeded()]
        equal(failed, [], "flushes that failed, or did not end")
        wal = w.state / "ledger.db-wal"
        commits, records = on(calls, ["fdatasync"], wal, exact=True), on(calls, ["pwrite64"], wal, exact=True)
        flushes = on(calls, ["syncfs", "fsync", "fdatasync"], w.capture)
        for name in names:
            path = w.capture / name
            written = on(calls, ["pwrite64"], path, exact=True)
            # some are read back from the device at the end
            read = [c for c in on(calls, ["pread64"], path, exact=True) if written and c.ended < written[0].began]
            moved = [c for c in on(calls, ["renameat2"], path.parent, exact=True) if f'"{path.name}"' in c.rest and c.succeeded()]
            check(read and written and len(moved) == 1, f"{name}: read {read}, overwritten {written}, put aside {moved}")
            unlinked = [c for c in on(calls, ["unlinkat"], path.parent, exact=True) if c.began > moved[0].ended and c.thread == moved[0].thread][0]
            # sealed, and then receipted and to be wiped: a commit each between the last look at it and its end
            between = [c for c in commits if c.began > read[-1].ended and c.ended < written[0].began]
            check(len(between) >= 2, f"{name}: {len(between)} flushes of the ledger between its reading and its overwriting")
            check(any(c.began > written[-1].ended and c.ended < moved[0].began for c in flushes),
                  f"{name}: no flush between its overwriting and its unlinking")
            after = [c for c in on(flushes, ["syncfs", "fsync"], path.parent) if c.began > unlinked.ended]
            check(after and any(c.began > after[0].ended for c in records),
                  f"{name}: the ledger was told before the directory was flushed")
        ended(w, disk)


tap.run([flushed_first, ext4_ordered, ext4_journalled, what_an_unlink_leaves, names_stay, below_is_wiped, below_is_kept,
         kept_over_a_restart, kept_while_away, flags, moved_while_stopped, sparse, attributes, whole_lives, life_goes_on,
         broken_lives, lost_events])
