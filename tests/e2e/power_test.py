#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Power failures: captures, ledger and spool on one disk, the agency's store on another, every device write of
a hand-over logged (tests/fault/disklog). A crash state is, for each disk, all that was written up to its last
flush before a moment, and any part of what came after. Each state is mounted, custody is checked from the
disks alone, then agent and receiver start on it and everything must arrive, once.

CEDE_SEED repeats a round."""

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from faults import BrokenWorld
from tap import Failure, Skip, check
from world import build_dir, loop_device, until

STATES = {"quick": 30, "normal": 150, "full": 1200}[tap.mode()]
SEED = tap.seed()
MIB = 1 << 20
SIZES = (256 * MIB, 96 * MIB)  # of the agent's disk (the spool wants room) and the agency's
PIECE = 4096
HEAD = struct.Struct("=cB6xQQ")
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    check(done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout.strip()


class Disk:
    """A loop device on a file, mounted."""

    def __init__(self, image, where):
        self.where = where
        self.loop = loop_device(image)
        check(self.loop, "no free loop device")
        try:
            run("mount", "-t", "ext4", "-o", "commit=1", self.loop, where)
        except Failure:
            run("losetup", "-d", self.loop)
            raise

    def detach(self):
        def gone():
            return subprocess.run(["umount", self.where], capture_output=True).returncode == 0
        until(gone, 10, f"{self.where} is no longer in use")
        run("losetup", "-d", self.loop)


@contextlib.contextmanager
def mounted(images, places):
    disks = []
    try:
        for image, where in zip(images, places):
            disks.append(Disk(image, where))
        yield
    finally:
        for disk in disks:
            disk.detach()


def can_run():
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    if not (build_dir() / "tests" / "fault" / "disklog").exists():
        raise Skip("libfuse3-dev was not there when this was built")
    for node in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(node):
            raise Skip(f"there is no {node}")
    if not os.access("/dev/shm", os.W_OK) or shutil.disk_usage("/dev/shm").free < 600 * MIB:
        raise Skip("less than 600 MiB free in /dev/shm")


# ---- a hand-over on logged disks

def record(w, work):
    """Makes both disks with the captures on them, hands everything over, and gives the log."""
    places = (w.here, w.there)
    for i, size in enumerate(SIZES):
        with open(work / f"start{i}", "wb") as f:
            f.truncate(size)
        run("mkfs.ext4", "-q", "-F", "-J", "size=4", work / f"start{i}")
        places[i].mkdir()
    with mounted([work / "start0", work / "start1"], places):
        w.deliver()
        w.store.mkdir(mode=0o700)
        os.sync()
    for i in range(2):
        run("cp", "--sparse=always", work / f"start{i}", work / f"live{i}")
    served = work / "served"
    served.mkdir()
    log = subprocess.Popen([build_dir() / "tests" / "fault" / "disklog", served, work / "log", work / "live0",
                            work / "live1"], stderr=subprocess.DEVNULL)
    try:
        until((served / "1").exists, 10, "the log's file system is there")
        with mounted([served / "0", served / "1"], places):
            w.start()
            w.rest()
            w.custody()
            w.verify_all()
            w.agent.stop()
            w.receiver.stop()
    finally:
        run("fusermount3", "-u", served)
        log.wait()
    return work / "log"


def read_log(path):
    """[(kind, disk, offset, bytes)] in order."""
    entries, raw, at = [], path.read_bytes(), 0
    while at < len(raw):
        kind, disk, offset, size = HEAD.unpack_from(raw, at)
        at += HEAD.size
        data = b""
        if kind == b"W":
            data = raw[at:at + size]
            at += size
        entries.append((kind, disk, offset, data))
    return entries


# ---- crash states

class States:
    """Makes images of crash states, in the order of their moments: what is certain is written only once."""

    def __init__(self, work, number, entries):
        self.entries = entries
        self.certain = [work / f"certain{number}-{i}" for i in range(2)]
        self.images = [work / f"crash{number}-{i}" for i in range(2)]
        self.done = [0, 0]
        for i in range(2):
            run("cp", "--sparse=always", work / f"start{i}", self.certain[i])

    def make(self, cut, rng):
        for disk in range(2):
            flush = max((i for i in range(self.done[disk], cut) if self.entries[i][:2] == (b"F", disk)),
                        default=self.done[disk])
            with open(self.certain[disk], "r+b") as f:
                self._apply(f, disk, self.done[disk], flush, lambda: True)
            self.done[disk] = flush
            run("cp", "--sparse=always", self.certain[disk], self.images[disk])
            chance = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])
            with open(self.images[disk], "r+b") as f:
                self._apply(f, disk, flush, cut, lambda c=chance: rng.random() < c)
        return self.images

    def _apply(self, file, disk, first, end, arrives):
        for kind, d, offset, data in self.entries[first:end]:
            if kind != b"W" or d != disk:
                continue
            for at in range(0, len(data), PIECE):  # a write can arrive in part
                if arrives():
                    file.seek(offset + at)
                    file.write(data[at:at + PIECE])


def alone(folder, work):
    """This process gets mounts, a loopback and what is in the folder for itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")
    copy = pathlib.Path(tempfile.mkdtemp(dir=work)) / "world"
    shutil.copytree(folder, copy)
    run("mount", "--bind", copy, folder)
    with socket.socket() as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def one_state(w, images, places):
    w.agent = w.receiver = None
    try:
        with mounted(images, places):
            try:
                w.custody()
                w.start()
                w.rest()
                frozen = w.freeze()
                w.custody()
                w.thaw(frozen)
                w.agent.stop()
                w.receiver.stop()
                w.verify_all()
            finally:
                for process in w.processes:
                    process.kill_all()
                w.processes.clear()
    finally:
        shutil.rmtree(w.dir / "opened", ignore_errors=True)
        for log in w.dir.glob("*.log"):
            log.unlink()
        for copy in w.dir.glob("ledger-*"):
            shutil.rmtree(copy)


def worker(w, work, number, entries, cuts, results):
    """Tries its share of the moments; puts a text for each that failed, and "" for each that did not."""
    try:
        alone(w.dir, work)
        states = States(work, number, entries)
        for cut in cuts:
            try:
                one_state(w, states.make(cut, random.Random(SEED * 1_000_003 + cut)), (w.here, w.there))
                results.put("")
            except Failure as e:
                results.put(f"cut at write {cut} of {len(entries)}, CEDE_SEED={SEED}: {e}")
    except Exception as e:  # pylint: disable=broad-except
        results.put(f"worker {number}: {e!r}")
    finally:
        results.put(None)


def power_failures():
    """after a power failure at any moment nothing is lost or wiped early, and all arrives once"""
    can_run()
    work = pathlib.Path(tempfile.mkdtemp(prefix="cede-power-", dir="/dev/shm"))
    try:
        with BrokenWorld("agent", "agency") as w:
            entries = read_log(record(w, work))
            w.processes.clear()
            w.power_fails = True
            shutil.rmtree(w.dir / "opened")
            rng = random.Random(SEED)
            cuts = sorted(rng.randrange(1, len(entries) + 1) for _ in range(STATES))
            flushes = sum(e[0] == b"F" for e in entries)
            jobs = os.cpu_count() or 2
            results = multiprocessing.Queue()
            workers = [multiprocessing.Process(target=worker, args=(w, work, n, entries, cuts[n::jobs], results))
                       for n in range(jobs)]
            for p in workers:
                p.start()
            outcomes = [text for _ in workers for text in iter(results.get, None)]  # each ends with None
            for p in workers:
                p.join()
            problems = [text for text in outcomes if text]
            check(problems or len(outcomes) == len(cuts), f"{len(outcomes)} outcomes of {len(cuts)} states")
            tap.diag(f"{len(entries) - flushes} writes, {flushes} flushes; {len(cuts)} crash states, "
                     f"{len(problems)} bad; seed {SEED}")
            check(not problems, f"{len(problems)} of {len(cuts)} crash states:\n" + "\n".join(problems[:6]))
    finally:
        shutil.rmtree(work, ignore_errors=True)


tap.run([power_failures])
