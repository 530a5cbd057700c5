#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A ledger that is busy, full, damaged or gone: nothing is wiped without it, and the agent says what to do."""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from faults import CHANGES, KILL, BrokenWorld
from stock import Store
from tap import Skip, check, equal
from world import World, program, until

MEND = "keep the state directory"
FILES = 8
AN_ID = "0193577c-4a00-7c01-9000-0123456789ab"
STEP = {"quick": 20, "normal": 12, "full": 1}[tap.mode()]  # between calls at which the agent dies


def filled(w):
    """An agent that has recorded captures while the link was down, stopped; their bytes."""
    for name, content in cameras.roll(21, FILES // 2, "lane1"):
        w.write(name, content)
    w.start_agent()
    until(lambda: sum(w.counts()[0].values()) == FILES, 30, "all are recorded")
    equal(w.agent.stop(), 0, "exit status")
    return {name: (w.capture / os.fsdecode(name)).read_bytes() for name in w.left()}


def untouched(w, before):
    equal({name: (w.capture / os.fsdecode(name)).read_bytes() for name in w.left()}, before, "the captures")


def refuses(w, before, word):
    """cede run says what is wrong and what to do, ends, and touches nothing."""
    w.start_receiver()
    w.start_agent()
    until(lambda: not w.agent.alive(), 30, "cede run ends")
    check(w.agent.popen.returncode > 0, f"exit status {w.agent.popen.returncode}")
    said = w.agent.said()
    check(word in said and MEND in said, f"it says what is wrong ({word}) and what to do: {said[-600:]}")
    untouched(w, before)
    equal(list(w.store.rglob("*.cms")), [], "bundles at the agency")


def garbage():
    """a ledger that is no database: cede run ends, says what to do, wipes nothing"""
    with World(receiver=False) as w:
        before = filled(w)
        (w.state / "ledger.db").write_bytes(random.Random(1).randbytes(40_000))
        refuses(w, before, "damaged")
        equal(w.agent.popen.returncode, 2, "exit status: a restart would not help")
        span = ("--at", "2026-01-01T00:00:00Z")
        for status, words in ((1, ["ledger", "verify"]), (3, ["ledger", "list"]), (3, ["ledger", "events"]), (3, ["ledger", "export", "--json"]),
                              (3, ["ledger", "show", AN_ID]), (3, ["ledger", "receipt", AN_ID]), (3, ["status"]),
                              (3, ["ledger", "prune", "--before", "2026-01-01T00:00:00Z"]), (3, ["exposure", *span]), (3, ["vault", "status"]),
                              (2, ["ledger", "show", "nonsense"]), (2, ["ledger", "prune", "--before", "nonsense"]),
                              (2, ["exposure", "--at", "nonsense"])):
            done = subprocess.run([program("cede"), *words, "--state", w.state], capture_output=True, text=True)
            said = done.stdout + done.stderr
            check(done.returncode == status and (status == 2 or MEND in said), f"{words}: {done.returncode} {said}")
            check("backup" not in said, f"{words}: {said}")


def flipped():
    """bits of a ledger's pages flipped, anywhere: found at the start or when met, and nothing is wiped"""
    with World(receiver=False) as w:
        before = filled(w)
        good = (w.state / "ledger.db").read_bytes()
        w.start_receiver()
        rng = random.Random(2)
        found = 0
        for page in range(len(good) // 4096):
            bad = bytearray(good)
            for _ in range(24):
                bad[page * 4096 + rng.randrange(4096)] ^= 1 << rng.randrange(8)
            (w.state / "ledger.db").write_bytes(bad)
            for name in ("ledger.db-wal", "ledger.db-shm"):
                with contextlib.suppress(FileNotFoundError):
                    (w.state / name).unlink()
            done = subprocess.run(["timeout", "1", *w.agent_words()], capture_output=True, text=True, errors="replace")
            check(done.returncode >= 0, f"page {page}: died of signal {-done.returncode}")
            for name in before:
                path = w.capture / os.fsdecode(name)
                if not path.exists() or path.read_bytes() != before[name]:
                    self_proven(w, name, before[name])
            if done.returncode not in (0, 124):
                found += 1
                check("ledger" in done.stderr, f"page {page}: {done.stderr[-300:]}")
                continue
            for name, content in before.items():  # it went through: put the captures back for the next page
                if not (w.capture / os.fsdecode(name)).exists():
                    (w.capture / os.fsdecode(name)).write_bytes(content)
        tap.diag(f"{len(good) // 4096} pages, {found} found at the start")
        check(found > 0, "no damage was found at the start")


def self_proven(w, name, content):
    """A capture went although the ledger was damaged: then the agency has its bytes in a bundle whose receipt
    stands in the ledger. Rows are read one by one: an index may be what was damaged."""
    store = Store(w.store, w.pki).read()
    with contextlib.closing(sqlite3.connect(f"file:{w.state}/ledger.db?mode=ro", uri=True)) as db:
        proven = {uuid.hex() for uuid, receipt in db.execute("SELECT uuid, receipt FROM bundle NOT INDEXED") if receipt}
    key = {"source": "faces", "path": os.fsdecode(name), "sha256": hashlib.sha256(content).hexdigest()}
    places = [b for b, manifest in store.manifests.items() for e in manifest["entries"] if key.items() <= e.items()]
    check(any(b.replace("-", "") in proven for b in places),
          f"{name!r} was wiped without a receipt in the ledger; it is in {places}, of {sorted(proven)}")


def wiping_without_proof():
    """a ledger that says a capture is to be wiped, and has no proof: cede run ends, says what to do, wipes nothing"""
    with World(receiver=False) as w:
        before = filled(w)
        with contextlib.closing(sqlite3.connect(w.state / "ledger.db")) as db, db:
            db.execute("UPDATE capture SET state = 3 WHERE id = 1")  # one bit, where it was sealed
        refuses(w, before, "damaged")


def cut_short():
    """a ledger that lost its end"""
    with World(receiver=False) as w:
        before = filled(w)
        os.truncate(w.state / "ledger.db", 8192)
        refuses(w, before, "damaged")


def damaged_while_running():
    """pages overwritten under a running agent: it stops with instructions, and wipes nothing without a proof"""
    with World(source={"quiet": "0s"}) as w:
        w.start()
        for name, content in cameras.roll(22, 4, "lane1"):
            w.write(name, content)
        w.settled()
        with contextlib.closing(sqlite3.connect(w.state / "ledger.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = (w.state / "ledger.db").stat().st_size
        with open(w.state / "ledger.db", "r+b") as f:
            f.seek(4096)
            f.write(random.Random(3).randbytes(size - 4096))
        w.receiver.stop()
        for i in range(200):
            w.write(f"n{i}.jpg", b"%d" % i * 5000)
        until(lambda: not w.agent.alive() or "push.failed" in w.agent.said(), 30, "it met the damage, or goes on in memory")
        if w.agent.alive():  # what it has in its cache is good: a new start meets the damage
            w.agent.kill()
            w.start_agent()
            until(lambda: not w.agent.alive(), 30, "cede run ends")
        check(MEND in w.agent.said(), f"it says what to do: {w.agent.said()[-500:]}")
        equal(len(w.left()), 200, "captures that stay")


def gone():
    """a ledger that is gone: a new one begins, the captures are found again and go; none is lost"""
    with World(receiver=False) as w:
        filled(w)
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            with contextlib.suppress(FileNotFoundError):
                (w.state / name).unlink()
        w.start_receiver()
        w.start_agent()
        w.settled()


def locked():
    """another program holds the ledger locked: the agent waits, tries again, and goes on"""
    with World(source={"quiet": "0s"}) as w:
        w.start()
        w.write("first.jpg", b"first")
        w.settled()
        with contextlib.closing(sqlite3.connect(w.state / "ledger.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            for name, content in cameras.roll(23, 4, "lane1"):
                w.write(name, content)
            until(lambda: "ledger.unwritten" in w.agent.said(), 30, "it says that the ledger is busy")
            equal(len(w.left()), 8, "captures that stay")
            db.execute("ROLLBACK")
        w.settled()


def full():
    """no room for the ledger: nothing is lost or wiped, and all goes on when there is room again"""
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    with World(source={"quiet": "0s"}) as w:
        disk = w.dir / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk], check=True)
        try:
            w.state = disk / "state"
            w.config["state"] = str(w.state)
            w.write_files()
            w.start()
            w.write("first.jpg", b"first")
            w.settled()
            ballast = disk / "ballast"
            fd = os.open(ballast, os.O_CREAT | os.O_WRONLY)
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(4096))
            os.close(fd)
            for name, content in cameras.roll(24, 40, "lane1"):
                w.write(name, content)
            until(lambda: "ledger.unwritten" in w.agent.said(), 30, "it says that the ledger can't be written")
            check(w.agent.alive(), "cede run goes on")
            equal(len(w.left()), 80, "captures that stay")
            ballast.unlink()
            w.settled()
            w.verify_ledger()
            w.agent.stop()
        finally:
            w.agent.kill_all()
            until(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0, 10, "unmounted")


def read_only():
    """a state directory that can't be written: cede run says so and ends, nothing is touched"""
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    with World(receiver=False) as w:
        before = filled(w)
        subprocess.run(["mount", "--bind", w.state, w.state], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", w.state], check=True)
        try:
            w.start_receiver()
            w.start_agent()
            until(lambda: not w.agent.alive(), 30, "cede run ends")
            check(w.agent.popen.returncode > 0 and str(w.state) in w.agent.said(),
                  f"status {w.agent.popen.returncode}: {w.agent.said()[-300:]}")
            untouched(w, before)
            w.verify_ledger()
        finally:
            w.agent.kill_all()
            subprocess.run(["umount", w.state], check=True)
        w.start_agent()
        w.settled()


def read_where_it_died():
    """a command reads the ledger, or says that there is none yet, wherever the agent died in its first seconds"""
    told = {"a ledger": 0, "none yet": 0}
    for at in range(1, 400, STEP):
        with BrokenWorld() as w:
            w.page("keeper").arm(KILL, CHANGES, at)
            w.start_receiver()
            w.start_agent()
            if not w.rest_or(lambda: not w.agent.alive()):
                break
            told["a ledger" if w.status()["captures"] else "none yet"] += 1
    tap.diag(f"died at {sum(told.values())} calls: {told}")
    check(all(told.values()), f"both were met: {told}")


def hostile():
    """control characters, new lines and bytes that are no text, put into the ledger by root: no command prints one, and JSON stays JSON"""
    bad = b"b\x1b[31m\n99 forged\r\x9b\xff\"\\,".hex()
    with World(receiver=False) as w:
        filled(w)
        with contextlib.closing(sqlite3.connect(w.state / "ledger.db")) as db, db:
            db.executescript(f"""
                DROP TRIGGER event_keeps;
                UPDATE event SET detail = detail || ' x=' || CAST(x'{bad}' AS TEXT) WHERE kind <> 18;
                UPDATE event SET kind = 18, at_ns = unixepoch() * 1000000000, detail = 'reason=' || CAST(x'{bad}' AS TEXT)
                    WHERE seq = (SELECT max(seq) FROM event);
                UPDATE event SET kind = 6, detail = 'source=f' || CAST(x'{bad}' AS TEXT) || ' reason=r' || CAST(x'{bad}' AS TEXT)
                    || ' path=p' || CAST(x'{bad}' AS TEXT) WHERE seq = (SELECT max(seq) - 1 FROM event);
                UPDATE source SET name = CAST(x'{bad}' AS TEXT);
                UPDATE capture SET class = CAST(x'{bad}' AS TEXT), level = CAST(x'{bad}' AS TEXT);
                UPDATE bundle SET destination = CAST(x'{bad}' AS TEXT);
                UPDATE policy SET policy = CAST(x'{bad}' AS TEXT)""")
            one = uuid.UUID(bytes=db.execute("SELECT uuid FROM capture WHERE id = 1").fetchone()[0])
        span = ["exposure", "--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"]
        for words in (["ledger", "list"], ["ledger", "events"], ["ledger", "show", one], ["ledger", "verify"], ["status"], span, [*span, "--csv"],
                      [*span, "--source", "x"], ["vault", "status"], ["ledger", "list", "--json"], ["status", "--json"], [*span, "--json"]):
            done = subprocess.run([program("cede"), *map(str, words), "--state", w.state], capture_output=True)
            said = done.stdout + done.stderr
            check(done.returncode >= 0 and len(said) > 10, f"{words}: {done.returncode}")
            check(all(c == 10 or 32 <= c < 127 for c in said.replace(b"\r\n", b"\n")), f"{words}: {said[:2000]}")
            check(b"\n99 forged" not in said, f"{words}: {said[:2000]}")
            if "--json" in words:
                check(done.returncode in (0, 1) and [json.loads(line) for line in done.stdout.splitlines()], f"{words}: {said[:2000]}")


def nowhere():
    """without --state and without the host's settings: the message names an option that there is"""
    if os.path.exists("/etc/cede/agent.yaml"):
        raise Skip("this machine has settings")
    for words in (["ledger", "list"], ["status"]):
        done = subprocess.run([program("cede"), *words], capture_output=True, text=True)
        check(done.returncode == 3 and "no --state given: open /etc/cede/agent.yaml" in done.stderr, f"{words}: {done.returncode} {done.stderr}")


def bad_usage():
    """what is wrong with the words is said before the usage, and nothing is done"""
    for words, said in ((["bogus"], "there is no command bogus"), (["verify", "--key", "x"], "--key goes with verify --checkpoint FILE"),
                        (["prune"], "prune needs --before TIME"), (["export"], "export needs --json"), (["show"], "show needs an id"),
                        (["list", "x"], "unexpected argument x"), (["export", "--json", "--from", "x"], "--from x: a number of an event expected")):
        done = subprocess.run([program("cede"), "ledger", *words], capture_output=True, text=True)
        equal((done.returncode, done.stderr.splitlines()[0]), (2, f"cede ledger: {said}"), f"cede ledger {' '.join(words)}")
        check("usage: cede ledger" in done.stderr and done.stdout == "", done.stderr + done.stdout)


def another_user():
    """as a user that may not read it: the commands say that, and whose it is to be; cede run names the owner"""
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    with World(receiver=False) as w:
        filled(w)
        w.dir.chmod(0o755)
        for mode in (0o700, 0o755):  # the directory, then the file alone is closed to others
            w.state.chmod(mode)
            for words in (["ledger", "list"], ["ledger", "verify"], ["status"], ["exposure", "--at", "2026-01-01T00:00:00Z"], ["vault", "status"]):
                try:
                    done = subprocess.run([program("cede"), *words, "--state", w.state], capture_output=True, text=True, user=65534, group=65534,
                                          extra_groups=[])
                except PermissionError:
                    raise Skip("the programs are where nobody else may run them") from None
                check(done.returncode == 3 and "ledger.db: Permission denied; run this as root or as the agent's user" in done.stderr,
                      f"{words}: {done.returncode} {done.stderr}")
        for owner, mode, text in ((0, 0o755, "chmod 700"), (65534, 0o700, "belongs to user 65534, and cede run is user 0")):
            w.state.chmod(mode)
            os.chown(w.state, owner, -1)
            done = subprocess.run(w.agent_words(), capture_output=True, text=True, timeout=60)
            check(done.returncode == 2 and text in done.stderr and ("chmod" in text) == ("chmod" in done.stderr), f"{done.returncode} {done.stderr}")


def another_agent():
    """a second agent on the same state directory is refused"""
    with World() as w:
        w.start()
        w.write("a.jpg", b"a")
        w.settled()
        done = subprocess.run(w.agent_words(), capture_output=True, text=True, timeout=30)
        check(done.returncode > 0 and "another cede run" in done.stderr, f"{done.returncode}: {done.stderr}")
        w.write("b.jpg", b"b")
        w.settled()


tap.run([garbage, flipped, wiping_without_proof, cut_short, damaged_while_running, gone, locked, full, read_only, read_where_it_died, hostile, nowhere, bad_usage, another_user, another_agent], at_once=4)
