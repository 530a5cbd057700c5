# SPDX-License-Identifier: Apache-2.0
"""Breaks a running program at a chosen call (tests/fault), and looks whether custody holds there.

A World whose keeper, courier or receiver runs with the fault library; the moment of a kill is checked
from the disk alone: captures, ledger, spool and store."""

import concurrent.futures
import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

import cameras
import tap
from tap import Failure, Skip, check
from world import World, build_dir, program

AT_ONCE = 3 * (os.cpu_count() or 2)  # points: most of the time something waits to try again
TELL_EACH = 250  # points: what a long matrix has tried is known if it is stopped
CALLS = ("open", "create", "read", "write", "fsync", "rename", "unlink", "truncate", "mmap", "malloc", "send", "receive",
         "mkdir", "stat", "lease", "key")
CHANGES = ("create", "write", "fsync", "rename", "unlink", "truncate", "send", "mkdir")
NOTHING, KILL, FAIL = range(3)
MAGIC = 0x746C7561
KIB = 1024


def tried(one_point, victim, points):
    """Tries every point (the words that one_point takes after the victim), several at once. Yields (what one_point
    returned, None) or (None, why it failed), as they end."""
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(one_point, victim, *point) for point in points]
        for count, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            try:
                yield job.result(), None
            except Failure as e:
                failed += 1
                tap.diag(str(e))  # a whole matrix takes long: each is told at once
                yield None, str(e)
            if count % TELL_EACH == 0:
                tap.diag(f"{victim}: {count} of {len(jobs)} points, {failed} failed")


class Layout(ctypes.Structure):
    """struct fault_page of tests/fault/fault.h"""
    _fields_ = [("magic", ctypes.c_uint32), ("action", ctypes.c_uint32), ("error", ctypes.c_int32),
                ("mask", ctypes.c_uint32), ("at", ctypes.c_uint64), ("matched", ctypes.c_uint64),
                ("fired", ctypes.c_uint32), ("fired_call", ctypes.c_int32), ("count", ctypes.c_uint64 * len(CALLS)),
                ("distinct", ctypes.c_uint32)]


class Page:
    """The page that a broken program and its test share."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(bytes(mmap.PAGESIZE))
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        self.now = Layout.from_buffer(self.map)
        self.now.magic = MAGIC

    def arm(self, action, calls, at=0, error=0, distinct=False):
        self.now.action, self.now.error, self.now.at, self.now.distinct = action, error, at, distinct
        self.now.mask = sum(1 << CALLS.index(c) for c in calls)

    def fired(self):
        return CALLS[self.now.fired_call] if self.now.fired else None

    def counts(self):
        return dict(zip(CALLS, self.now.count))


def library():
    path = build_dir() / "tests" / "fault" / "libcedefault.so"
    if not path.is_file():
        raise Skip("the fault library is not part of a sanitized build")
    return path


# ---- what is handed over

def _content():
    rng = random.Random(4)
    faces = {}
    for i in range(5):
        faces[f"lane{i % 2}/{i:04d}.jpg"] = cameras.picture(rng, mean=12 * KIB)
        faces[f"lane{i % 2}/{i:04d}.json"] = b'{"plate": "never in a log %d"}' % i
    plates = {f"p{i}.jpg": cameras.picture(rng, mean=6 * KIB) for i in range(5)}
    expired = {f"old{i}.jpg": cameras.picture(rng, mean=4 * KIB) for i in range(2)}
    return {"faces": faces, "large": {"l.jpg": rng.randbytes(700 * KIB)}, "plates": plates, "expired": expired}


CONTENT = _content()
DIGESTS = {(s, n): hashlib.sha256(b).hexdigest() for s, files in CONTENT.items() for n, b in files.items()}


class BrokenWorld(World):
    """Four sources: groups and a large file that go by receipt, some wiped after sealing, some expired."""

    def __init__(self, here="", there=""):
        """here, there: folders of the agent's disk (sources, state) and of the agency's (store)."""
        super().__init__(destination={"bundle_size": "256KiB"})
        self.here, self.there = self.dir / here, self.dir / there
        self.state, self.store = self.here / "state", self.there / "store"
        self.config["state"], self.receiver_config["store"] = str(self.state), str(self.store)
        base = {"match": ["**/*.jpg", "**/*.json"], "ignore": ["**/.*"], "destination": "agency", "quiet": "0s",
                "max_age": "1h", "at_max_age": "hold"}
        wipe = {"method": "overwrite", "require": "none"}
        self.policy["sources"] = [
            {"name": "faces", "path": str(self.here / "faces"), **base,
             "group": {"by": "stem", "require": [".jpg", ".json"], "wait": "10s"}, "wipe": {"after": "receipt", **wipe}},
            {"name": "large", "path": str(self.here / "large"), **base, "wipe": {"after": "receipt", **wipe}},
            {"name": "plates", "path": str(self.here / "plates"), **base, "wipe": {"after": "seal", **wipe}},
            {"name": "expired", "path": str(self.here / "expired"), **base, "at_max_age": "destroy",
             "wipe": {"after": "receipt", **wipe}}]
        self.pages = {}
        self.power_fails = False
        if not here:
            self.deliver()

    def deliver(self):
        for source, files in CONTENT.items():
            for name, content in files.items():
                path = self.here / source / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                if source == "expired":
                    os.utime(path, (time.time() - 7200,) * 2)

    def page(self, victim):
        if victim not in self.pages:
            self.pages[victim] = Page(self.dir / f"{victim}.page")
        return self.pages[victim]

    def env_of(self, victim):
        if victim not in self.pages:
            return None
        return {**os.environ, "LD_PRELOAD": str(library()), "CEDE_FAULT": str(self.pages[victim].path)}

    def start_receiver(self):
        self.receiver = self.spawn("receiver", *self.receiver_words(), env=self.env_of("receiver"))
        self.listening(self.receiver, self.port)
        return self.receiver

    def start_agent(self, env=None):
        words = self.agent_words()
        if "courier" in self.pages:  # its environment is always empty: a script sets it
            wrapper = self.dir / "cede-courier"
            wrapper.write_text(f"#!/bin/sh\nexport LD_PRELOAD='{library()}' CEDE_FAULT='{self.pages['courier'].path}'\n"
                               f"exec '{program('cede-courier')}' \"$@\"\n")
            wrapper.chmod(0o755)
            words += ["--courier", str(wrapper)]
        self.agent = self.spawn("agent", *words, env=env or self.env_of("keeper"))
        return self.agent

    # ---- looking from outside

    def remaining(self):
        """(source, name) -> bytes of what is below the sources; none of what is being wiped (its lease
        keeps readers out)."""
        found = {}
        for source in CONTENT:
            top = self.here / source
            for path in top.rglob("*"):
                with contextlib.suppress(FileNotFoundError, BlockingIOError):
                    if path.is_file():
                        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as f:
                            found[source, str(path.relative_to(top))] = f.read()
        return found

    def ledger(self):
        """A connection to a copy of what is committed; None before there is a ledger."""
        if not (self.state / "ledger.db").exists():
            return None
        work = pathlib.Path(tempfile.mkdtemp(prefix="ledger-", dir=self.dir))
        for name in ("ledger.db", "ledger.db-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self.state / name, work / name)
        db = sqlite3.connect(work / "ledger.db")
        try:
            db.execute("SELECT count(*) FROM capture")
        except sqlite3.OperationalError:  # it is being made
            db.close()
            return None
        return db

    def custody(self):
        """Raises what is lost or wiped too early at this moment. Every program is stopped or dead."""
        remaining, db = self.remaining(), self.ledger()
        damaged = [key for key, digest in DIGESTS.items()
                   if key not in remaining or hashlib.sha256(remaining[key]).hexdigest() != digest]
        known = {}
        if db is not None:
            with contextlib.closing(db):
                for row in db.execute(
                        "SELECT s.name, c.path, c.state, c.id, c.bundle, c.uuid, c.segments FROM capture c "
                        "JOIN source s ON s.id = c.source"):
                    known.setdefault((row[0], os.fsdecode(row[1])), []).append(row)
                bundles = {row[0]: row for row in db.execute("SELECT id, uuid, state, spooled, receipt, sha256 FROM bundle")}
                segments = {}
                for capture, bundle in db.execute("SELECT capture, bundle FROM segment"):
                    segments.setdefault(capture, []).append(bundle)
                destroyed = {row[0] for row in db.execute("SELECT subject FROM event WHERE kind = 21")}
                for key in damaged:
                    self._proven(key, known.get(key, []), bundles, segments, destroyed)
                written = {row[1] for row in bundles.values()}
        else:
            check(not damaged, f"{damaged[:3]} touched before there was a ledger")
            written = set()
        for path in self.store.rglob("*.cms"):
            check(bytes.fromhex(path.stem.replace("-", "")) in written, f"{path.name} was sent before the ledger knew it")

    def _proven(self, key, rows, bundles, segments, destroyed):
        wiped = [r for r in rows if r[2] in (3, 4)]  # wiping, wiped
        check(len(wiped) == 1, f"{key} is not whole, and its states are {[r[2] for r in rows]}")
        row = wiped[0]
        if row[5] in destroyed:
            check(key[0] == "expired", f"{key} was destroyed")
            return
        proofs = segments.get(row[3], []) if row[6] > 1 else [row[4]]
        check(proofs and (row[6] == 1 or len(proofs) == row[6]), f"{key}: {len(proofs)} of {row[6]} segments")
        for proof in proofs:
            _, uuid, state, spooled, receipt, digest = bundles[proof]
            name = self._dashed(uuid)
            places = [p for p in self.store.rglob(f"{name}.cms")] if receipt else []
            if state == 0:
                check(spooled and key[0] == "plates", f"{key} was wiped without a receipt")
                places = [self.state / "spool" / f"{name}.cms"]
            else:
                check(receipt, f"{key}: bundle {name} has no receipt in the ledger")
            check(len(places) == 1 and places[0].exists(), f"{key}: bundle {name} is not where its proof says")
            check(hashlib.sha256(places[0].read_bytes()).digest() == digest, f"{key}: bundle {name} has other bytes")

    @staticmethod
    def _dashed(uuid):
        h = uuid.hex()
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"

    def at_rest(self):
        """No file below the sources or in the spool, no live capture, no open bundle."""
        if any((self.state / "spool").glob("*")) or any((self.here / s).exists() and any(p.is_file() for p in (self.here / s).rglob("*")) for s in CONTENT):
            return False
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.state}/ledger.db?mode=ro", uri=True, timeout=5)) as db:
                live = db.execute("SELECT (SELECT count(*) FROM capture WHERE live = 1), "
                                  "(SELECT count(*) FROM bundle WHERE state < 2)").fetchone()
                return live == (0, 0)
        except sqlite3.OperationalError:
            return False

    def rest(self, seconds=40):
        self.rest_or(lambda: check(self.agent.alive(), f"cede run ended, status {self.agent.popen.returncode}"), seconds)

    def rest_or(self, condition, seconds=40):
        """Waits until all is at rest, which is looked at now and then, or the condition, which is looked at all the
        time, is true; whether it was the condition."""
        end, look = time.monotonic() + seconds, 0
        while not condition():
            now = time.monotonic()
            if now >= look:
                if self.at_rest():
                    return False
                look = now + 0.05
            if now > end:
                raise Failure(f"not at rest within {seconds} s: {sorted(self.remaining())[:4]}, {self.counts()}")
            time.sleep(0.005)
        return True

    def _whole_again(self, name, path, digest):
        """Whether the ledger had begun to destroy it, and then found another file there: the disk had the times of
        the overwriting and none of its bytes (docs/reliability.md)."""
        with contextlib.closing(self.ledger()) as db:
            begun = db.execute("SELECT count(*) FROM capture c JOIN event e ON e.subject = c.id AND e.kind = 21 "
                               "JOIN source s ON s.id = c.source WHERE s.name = 'expired' AND c.path = ? AND c.state = 7",
                               (os.fsencode(name),)).fetchone()[0]
        return begun == 1 and hashlib.sha256(path.read_bytes()).hexdigest() == digest

    def verify_all(self):
        """At the end: each capture once at the agency, nothing left here."""
        out = self.dir / "opened"
        out.mkdir()
        done = subprocess.run(
            [program("cede-receiver"), "open", *sorted(self.store.rglob("*.cms")), "--key", self.pki / "seal.key",
             "--cert", self.pki / "seal.pem", "--into", out], capture_output=True, text=True)
        check(done.returncode == 0, f"cede-receiver open: {done.stdout}{done.stderr}")
        seen = {}
        for path in out.glob("*.manifest.json"):
            for entry in json.loads(path.read_bytes())["entries"]:
                key = (entry["source"], entry["path"], entry.get("segment", {}).get("index", 0))
                seen[key] = seen.get(key, 0) + 1
        twice = {key: n for key, n in seen.items() if n != 1}
        check(not twice, f"more than once at the agency: {twice}")
        for (source, name), digest in DIGESTS.items():
            path = out / source / name
            if source == "expired":
                check(not path.exists() or self.power_fails and self._whole_again(name, path, digest),
                      f"{name} was to be destroyed and is at the agency")
                continue
            check(path.exists(), f"missing at the agency: {source}/{name}")
            check(hashlib.sha256(path.read_bytes()).hexdigest() == digest, f"other bytes at the agency: {source}/{name}")
        check(not list((self.state / "spool").iterdir()), "the spool is not empty")
        at_rest = ("lock", "spool", "ledger.key", "guard.socket", "status.socket")
        strange = [p.name for p in self.state.iterdir() if not p.name.startswith("ledger.db") and p.name not in at_rest]
        check(not strange, f"left in the state directory: {strange}")
        strange = [p.name for p in self.store.rglob("*") if p.is_file() and p.suffix not in (".cms", ".receipt", ".abandoned")
                   and p.name not in ("checkpoints", "ledger.pub")]
        check(not strange, f"left in the store: {strange}")
        self.verify_ledger()

    def freeze(self):
        """Stops every process that is alive."""
        pids = [p.pid for p in self.processes if p.alive()]
        if self.agent is not None:
            pids += self.agent.children()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return pids

    @staticmethod
    def thaw(pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
