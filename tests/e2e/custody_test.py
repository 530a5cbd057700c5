#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A ledger that can't be rewritten unnoticed: tampered with in every way, rolled back, swapped, pruned; two verifiers."""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "verifier"))

import tap
import verify as second
from tap import check, equal
from world import World, program, until

HOST = "dev-host-1"
SEED = 20261125


def host_dir(w):
    return w.store / HOST


def lived(w, more=0):
    """An agent that has handed over some captures, one of them in segments; stopped with one left."""
    w.start()
    for i in range(3 + more):
        w.write(f"lane 1/{i}.jpg", b"%d" % i * 500)
        w.settled()
    w.write("large.jpg", random.Random(SEED).randbytes(2_500_000))
    for i in range(12):
        w.write(f"lane 2/%{i}\n.jpg", b"%d" % i * 700)
    w.settled()
    w.receiver.stop()
    w.write("left.jpg", b"left", want=False)
    until(lambda: w.in_state("ready", "bundled", "sealed") == 1, 30, "one is left")
    equal(w.agent.stop(), 0, "exit status")


def world(**more):
    return World(source={"quiet": "0s"}, destination={"bundle_size": "1MiB"}, **more)


@contextlib.contextmanager
def lives(more=0):
    with world() as w:
        lived(w, more)
        yield w


def first(state, *words):
    """What cede says: (0, events) or (sequence, None)."""
    done = subprocess.run([program("cede"), "ledger", "verify", "--state", state, *map(str, words)], capture_output=True, text=True)
    if done.returncode == 0:
        return 0, int(done.stdout.split("sound: ")[1].split()[0])
    check(done.returncode == 1 and "first bad event " in done.stdout, f"{done.returncode}: {done.stdout}{done.stderr}")
    return int(done.stdout.split("first bad event ")[1].split(":")[0]), None


def other(state, checkpoint=None, key=None):
    try:
        return 0, second.verify(pathlib.Path(state) / "ledger.db", checkpoint, key)[0]
    except second.Bad as bad:
        return bad.sequence, None


class Copy:
    """A copy of a state directory, to be tampered with."""

    def __init__(self, w, name="copy"):
        self.path = w.dir / name
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(w.state, self.path)
        with contextlib.closing(sqlite3.connect(self.path / "ledger.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode = DELETE")

    def do(self, *statements):
        with contextlib.closing(sqlite3.connect(self.path / "ledger.db", isolation_level=None)) as db:
            db.execute("PRAGMA foreign_keys = OFF")
            for name in ("event_keeps", "event_stays"):
                db.execute(f"DROP TRIGGER IF EXISTS {name}")
            for statement in statements:
                db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)
        return self

    def ask(self, sql):
        with contextlib.closing(sqlite3.connect(self.path / "ledger.db")) as db:
            return db.execute(sql).fetchall()

    def rehash(self, since):
        """All hashes and the tree anew, as one does who has read docs/ledger.md."""
        with contextlib.closing(sqlite3.connect(self.path / "ledger.db", isolation_level=None)) as db:
            db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            before, tree, nodes = bytes(32), second.Tree(), []
            for e in list(second.from_table(db)):
                if e.sequence >= since:
                    e.hash = hashlib.sha256(e.canonical(before)).digest()
                    db.execute("UPDATE event SET hash = ? WHERE seq = ?", (e.hash, e.sequence))
                before = e.hash
                nodes.append(hashlib.sha256(b"\0" + e.hash).digest())
            level, height = nodes, 0
            db.execute("DELETE FROM tree")
            while len(level) > 1:
                level = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
                height += 1
                if height >= 6:
                    db.executemany("INSERT INTO tree VALUES(?, ?, ?)", [(height, i, n) for i, n in enumerate(level)])
            del tree
        return self


def kinds(w, kind):
    """Sequences of the events of a kind."""
    return [e["sequence"] for e in map(json.loads, w.cede("ledger", "events", "--state", w.state, "--json").splitlines()) if e["kind"] == kind]


def agency_keeps():
    """the agency has the checkpoints, each proven to extend the last; receipts name them; both verifiers agree with the host"""
    with lives() as w:
        notes = host_dir(w) / "checkpoints"
        kept = second.notes_of(notes.read_text(), True)
        check(len(kept) >= 4, f"{len(kept)} checkpoints")
        sizes = [n.size for n in kept]
        equal(sizes, sorted(set(sizes)), "their order")
        newest = max(w.store.rglob("*.receipt"), key=lambda p: p.name).read_text()
        line = next(x for x in newest.splitlines() if x.startswith("checkpoint: "))
        check(int(line.split()[1]) in sizes, f"a receipt names a checkpoint that the agency has: {line}")
        said = w.cede("ledger", "verify", "--state", w.state, "--checkpoint", notes, "--key", host_dir(w) / "ledger.pub")
        check(f"agrees with the agency's checkpoints, the newest of {sizes[-1]} events" in said, said)
        events = int(said.split("sound: ")[1].split()[0])
        equal(other(w.state, notes, host_dir(w) / "ledger.pub"), (0, events), "the second verifier, of the tables")
        export = w.dir / "export.jsonl"
        export.write_text(w.cede("ledger", "export", "--json", "--state", w.state))
        equal(second.verify(export, notes, host_dir(w) / "ledger.pub")[0], events, "the second verifier, of the export")
        lines = export.read_text().splitlines()
        equal(len(lines), events, "lines of the export")
        half = w.cede("ledger", "export", "--json", "--from", events // 2, "--state", w.state).splitlines()
        equal(lines[:events // 2 - 1] + half, lines, "an export that was resumed")
        for key in ("sequence", "at_ns", "kind", "subject", "detail", "hash"):
            check(key in json.loads(lines[0]), f"{key} in the export")
        manifest = stock_manifest(w)
        note = second.notes_of(__import__("base64").b64decode(manifest["ledger"]["checkpoint_base64"]).decode(), True)[0]
        key = second.base64.b64decode("".join((host_dir(w) / "ledger.pub").read_text().splitlines()[1:-1]))
        check(note.signed_by(key), "the manifest's checkpoint is signed by the host's ledger key")
        check("checkpoint.refused" not in w.receiver.said(), "nothing was refused")


def stock_manifest(w):
    """The newest bundle's manifest, opened with openssl and zstd."""
    bundle = max(w.store.rglob("*.cms"), key=lambda p: p.name)
    plain = w.dir / "b.zst"
    subprocess.run(["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", w.pki / "seal.key", "-recip", w.pki / "seal.pem",
                    "-in", bundle, "-out", plain], check=True, capture_output=True)
    tar = subprocess.run(["zstd", "-dc", plain], check=True, capture_output=True).stdout
    return json.loads(subprocess.run(["tar", "xO", "manifest.json"], input=tar, check=True, capture_output=True).stdout)


def whole_life():
    """cede ledger show: every event of one capture and of its bundles, of one in segments as well"""
    with lives() as w:
        rows = [json.loads(x) for x in w.cede("ledger", "list", "--state", w.state, "--json").splitlines()]
        for name, bundles in (("lane%201/0.jpg", 1), ("large.jpg", 3)):
            capture = next(r for r in rows if r["path"] == name)
            said = w.cede("ledger", "show", capture["id"], "--state", w.state)
            words = [line.split()[2] for line in said.splitlines()]
            equal(words[0], "capture-seen", "what it begins with")
            equal(words.count("bundle-receipted"), bundles, "receipts")
            equal(words.count("captures-wiped"), 1, "wipes")
            equal(words.count("bundle-done"), bundles, "ends")
            check(max(map(len, said.splitlines())) < 400, "only the capture itself of a bundle's list")
            again = w.cede("ledger", "show", capture["id"], "--state", w.state, "--json").splitlines()
            equal([json.loads(x)["kind"] for x in again], words, "the same as JSON")
        w.cede("ledger", "show", "0193577c-5b38-7e11-8000-0123456789ab", "--state", w.state, status=(1,))


def tampered():
    """the matrix: delete, insert, reorder, edit, cut off, tables alone, forged checkpoints: found, the first bad event named"""
    with lives() as w:
        notes, key = host_dir(w) / "checkpoints", host_dir(w) / "ledger.pub"
        n = first(w.state)[1]
        wiped, sealed, seen = kinds(w, "captures-wiped"), kinds(w, "bundle-sealed"), kinds(w, "capture-seen")
        agency = [c.size for c in second.notes_of(notes.read_text(), True)]
        own = [r[0] for r in Copy(w).ask("SELECT size FROM checkpoint ORDER BY size")]
        row = "(SELECT min(id) FROM capture WHERE state = 4)"
        cut = agency[-1] - 1
        alone = [
            ("an event deleted", ["DELETE FROM event WHERE seq = 9"], 9),
            ("the first one deleted", ["DELETE FROM event WHERE seq = 1"], 1),
            ("deleted, the others moved up", ["DELETE FROM event WHERE seq = 9", "UPDATE event SET seq = seq - 1 WHERE seq > 9"], 9),
            ("one inserted at the end", [f"INSERT INTO event SELECT {n + 1}, at_ns, kind, subject, detail, hash FROM event WHERE seq = {n}"], n + 1),
            ("one inserted between", ["UPDATE event SET seq = -seq WHERE seq > 9", "UPDATE event SET seq = 1 - seq WHERE seq < 0",
                                      "INSERT INTO event SELECT 10, at_ns, kind, subject, detail, hash FROM event WHERE seq = 9"], 10),
            ("two in another order", ["UPDATE event SET seq = -1 WHERE seq = 9", "UPDATE event SET seq = 9 WHERE seq = 10",
                                      "UPDATE event SET seq = 10 WHERE seq = -1"], 9),
            ("a path edited", [f"UPDATE event SET detail = replace(detail, 'jpg', 'gif') WHERE seq = {seen[0]}"], seen[0]),
            ("a time edited", ["UPDATE event SET at_ns = at_ns + 1 WHERE seq = 7"], 7),
            ("a kind edited", [f"UPDATE event SET kind = 13 WHERE seq = {seen[1]}"], seen[1]),
            ("a subject edited", [f"UPDATE event SET subject = zeroblob(16) WHERE seq = {seen[1]}"], seen[1]),
            ("a hash edited", ["UPDATE event SET hash = zeroblob(32) WHERE seq = 8"], 8),
            ("the last ones cut off", [f"DELETE FROM event WHERE seq > {cut}"], cut + 1),
            ("one emptied", [f"UPDATE event SET kind = -1, subject = NULL, detail = '', at_ns = {n} WHERE seq = 9"], 9),
            ("one emptied by nobody", ["UPDATE event SET kind = -1, subject = NULL, detail = '', at_ns = 3 WHERE seq = 9"], 9),
            ("tables: a state", [f"UPDATE capture SET state = 2, live = 1 WHERE id = {row}"], wiped[0]),
            ("tables: a level", [f"UPDATE capture SET level = 'crypto-erased' WHERE id = {row}"], wiped[0]),
            ("tables: when it was wiped", [f"UPDATE capture SET wiped_ns = wiped_ns - 1 WHERE id = {row}"], wiped[0]),
            ("tables: a path", [f"UPDATE capture SET path = x'41' WHERE id = {row}"], seen[0]),
            ("tables: a source", ["UPDATE source SET name = 'other'"], seen[0]),
            ("tables: a size", [f"UPDATE capture SET size = 1 WHERE id = {row}"], seen[0]),
            ("tables: an age", [f"UPDATE capture SET born_ns = born_ns + 1000000000 WHERE id = {row}"], seen[0]),
            ("tables: a digest", [f"UPDATE capture SET sha256 = zeroblob(32) WHERE id = {row}"], sealed[0]),
            ("tables: another bundle", [f"UPDATE capture SET bundle = 2 WHERE id = {row}"], sealed[0]),
            ("tables: a capture deleted", [f"DELETE FROM capture WHERE id = {row}"], seen[0]),
            ("tables: a capture added", ["CREATE TABLE one AS SELECT * FROM capture WHERE id = " + row, "UPDATE one SET id = 99",
                                         "INSERT INTO capture SELECT * FROM one", "DROP TABLE one"], n),
            ("tables: a bundle's size", ["UPDATE bundle SET size = size + 1 WHERE id = 1"], sealed[0]),
            ("tables: a receipt", ["UPDATE bundle SET receipt = x'41' WHERE id = 1"], kinds(w, "bundle-receipted")[0]),
            ("tables: a bundle's state", ["UPDATE bundle SET state = 1 WHERE id = 1"], sealed[0]),
            ("tables: a segment", ["UPDATE segment SET offset = 1 WHERE idx = 0"], kinds(w, "segment-sealed")[0]),
            ("tables: a policy's serial", ["UPDATE policy SET serial = 0"], kinds(w, "policy-loaded")[0]),
            ("a checkpoint forged", [f"UPDATE checkpoint SET note = CAST(replace(CAST(note AS TEXT), 'time 2', 'time 1') AS BLOB) WHERE size = {own[0]}"], own[0]),
        ]
        for what, statements, want in alone:
            copy = Copy(w).do(*statements)
            equal(first(copy.path), (want, None), what)
            equal(other(copy.path), (want, None), f"{what}: the second verifier")
        rewritten(w, notes, key, seen, agency, own)
        forged(w, notes)
    tap.diag(f"{len(alone)} ways of tampering found by verify alone")


def rewritten(w, notes, key, seen, agency, own):
    """Whoever is root on the host writes all hashes anew: what the agency, or a signature, has seen tells."""
    edit = f"UPDATE event SET detail = replace(detail, 'size=500', 'size=501') WHERE seq = {seen[0]}"
    table = "UPDATE capture SET size = 501 WHERE id = 1"
    copy = Copy(w).do(edit, table).rehash(seen[0])
    before = max([s for s in own if s < seen[0]], default=0)
    equal(first(copy.path)[0], before + 1, "rewritten: the signatures of the ledger's own checkpoints")
    copy.do("DELETE FROM checkpoint")
    equal(first(copy.path)[0], 0, "without its own checkpoints it looks sound")
    before = max([s for s in agency if s < seen[0]], default=0)
    equal(first(copy.path, "--checkpoint", notes, "--key", key), (before + 1, None), "rewritten, against the agency's")
    equal(other(copy.path, notes, key), (before + 1, None), "the second verifier")


def forged(w, notes):
    """Checkpoints that the agency never had, and those of another host."""
    text = notes.read_text()
    bad = w.dir / "forged"
    bad.write_text(text.replace("/1/dev-host-1\n", "/1/dev-host-2\n", 1))
    key_event = [e for e in kinds(w, "key-changed")][0]
    equal(first(w.state, "--checkpoint", bad), (key_event, None), "a forged checkpoint of the agency")
    equal(other(w.state, bad), (key_event, None), "the second verifier")
    bad.write_text("")
    w.cede("ledger", "verify", "--state", w.state, "--checkpoint", bad, status=(2,))


def rolled_back():
    """the whole state put back to yesterday's copy: verify against the agency's checkpoint, the receiver, and the agent itself see it"""
    with world() as w:
        w.start()
        w.write("a.jpg", b"a")
        w.settled()
        w.agent.stop()
        shutil.copytree(w.state, w.dir / "yesterday")
        events = first(w.state)[1]
        w.start_agent()
        for i in range(5):
            w.write(f"{i}.jpg", b"%d" % i)
        w.settled()
        w.agent.stop()
        shutil.rmtree(w.state)
        shutil.copytree(w.dir / "yesterday", w.state)
        notes = host_dir(w) / "checkpoints"
        equal(first(w.state), (0, events), "alone it is sound: it was, yesterday")
        equal(first(w.state, "--checkpoint", notes)[0], events + 1, "against the agency's checkpoint")
        equal(other(w.state, notes)[0], events + 1, "the second verifier")
        w.write("new.jpg", b"new", want=False)
        for _ in range(2):  # and each time it is started again
            w.start_agent()
            until(lambda: not w.agent.alive(), 30, "the agent stops")
            check(w.agent.popen.returncode > 0, "with a status that says so")
            check("it was rolled back or changed" in w.agent.said(), w.agent.said()[-400:])
        equal(w.left(), [b"new.jpg"], "nothing is wiped")
        check("reason=ledger-is-not-what-the-agency-has-seen" in w.cede("ledger", "events", "--state", w.state), "a violation")
        check("checkpoint.refused host=dev-host-1 reason=behind" in w.receiver.said(), w.receiver.said()[-400:])
        check((host_dir(w) / "checkpoints.refused").stat().st_size > 0, "the receiver keeps the evidence")
        # the agency lets the host begin anew
        for name in ("checkpoints", "ledger.pub"):
            (host_dir(w) / name).rename(host_dir(w) / f"{name}.old")
        w.expect("new.jpg", b"new")
        w.start_agent()
        w.settled()


def swapped():
    """the ledgers of two hosts swapped: verify says so alone, against the agency's checkpoint, and the agent does not start"""
    with lives() as one, lives(more=1) as two:
        notes = host_dir(one) / "checkpoints"
        key_event = kinds(two, "key-changed")[0]
        shutil.copy(two.state / "ledger.db", one.dir / "swapped.db")
        copy = Copy(one)
        shutil.copy(Copy(two).path / "ledger.db", copy.path / "ledger.db")
        equal(first(copy.path), (key_event, None), "alone, by the key beside it")
        equal(first(copy.path, "--checkpoint", notes), (key_event, None), "against the agency's checkpoint")
        equal(other(copy.path, notes), (key_event, None), "the second verifier")
        shutil.rmtree(one.state)
        shutil.move(copy.path, one.state)
        one.publish()
        one.start_agent()
        until(lambda: not one.agent.alive(), 30, "the agent does not start")
        check("is not the key of the ledger beside it" in one.agent.said(), one.agent.said()[-300:])
        # key and all: then it is the receiver that knows another key of this host
        shutil.rmtree(one.state)
        shutil.copytree(two.state, one.state)
        one.start_receiver()
        one.start_agent()
        until(lambda: "checkpoint.refused host=dev-host-1 reason=another-key" in one.receiver.said(), 30, "the receiver says so")
        until(lambda: not one.agent.alive(), 30, "and the agent stops")
        check(b"left.jpg" in one.left(), "nothing is wiped")


def random_cases():
    """both verifiers say the same of 200 random ways of tampering (fewer in quick mode)"""
    with lives() as w:
        base = Copy(w, "base")
        notes, key = host_dir(w) / "checkpoints", host_dir(w) / "ledger.pub"
        n = first(base.path)[1]
        captures = [r[0] for r in base.ask("SELECT id FROM capture")]
        rng = random.Random(SEED)
        found = 0
        for i in range({"quick": 20, "normal": 200, "full": 1000}[tap.mode()]):
            shutil.copytree(base.path, w.dir / "case")
            copy = Copy.__new__(Copy)
            copy.path = w.dir / "case"
            what = mutate(copy, rng, n, captures)
            words = [(), ("--checkpoint", notes), ("--checkpoint", notes, "--key", key)][i % 3]
            a = first(copy.path, *words)
            b = other(copy.path, notes if i % 3 else None, key if i % 3 == 2 else None)
            equal(a, b, f"case {i}: {what}")
            found += a[0] != 0
            shutil.rmtree(copy.path)
        tap.diag(f"seed {SEED}: {found} found, the others change nothing that is recorded")


def mutate(copy, rng, n, captures):
    """One way of tampering; what it was."""
    s, t = rng.randint(1, n), rng.randint(1, n)
    c = rng.choice(captures)
    b = rng.randint(1, 4)
    ways = [
        [f"DELETE FROM event WHERE seq = {s}"],
        [f"DELETE FROM event WHERE seq >= {s}"],
        [f"UPDATE event SET at_ns = {rng.randint(0, 2**60)} WHERE seq = {s}"],
        [f"UPDATE event SET kind = {rng.randint(-3, 60)} WHERE seq = {s}"],
        [f"UPDATE event SET detail = detail || ' x=1' WHERE seq = {s}"],
        [f"UPDATE event SET hash = (SELECT hash FROM event WHERE seq = {t}) WHERE seq = {s}"],
        [f"UPDATE event SET seq = -1 WHERE seq = {s}", f"UPDATE event SET seq = {s} WHERE seq = {t}", f"UPDATE event SET seq = {t} WHERE seq = -1"],
        [f"UPDATE event SET kind = -1, subject = NULL, detail = '', at_ns = {t} WHERE seq = {s}"],
        [f"INSERT INTO event SELECT {n + 1}, at_ns, kind, subject, detail, hash FROM event WHERE seq = {s}"],
        [f"UPDATE capture SET state = {rng.randint(0, 8)} WHERE id = {c}"],
        [f"UPDATE capture SET sha256 = randomblob(32) WHERE id = {c}"],
        [f"UPDATE capture SET size = size + {rng.randint(0, 1)} WHERE id = {c}"],
        [f"UPDATE capture SET path = x'{rng.randbytes(3).hex()}' WHERE id = {c}"],
        [f"UPDATE capture SET bundle = {b} WHERE id = {c}"],
        [f"UPDATE capture SET wiped_ns = wiped_ns + {rng.randint(0, 1)} WHERE id = {c}"],
        [f"UPDATE capture SET level = 'unlinked' WHERE id = {c}"],
        [f"UPDATE capture SET born_ns = born_ns + {rng.randint(-1, 1)} WHERE id = {c}"],
        [f"DELETE FROM capture WHERE id = {c}"],
        [f"UPDATE bundle SET state = {rng.randint(0, 3)} WHERE id = {b}"],
        [f"UPDATE bundle SET receipt = randomblob(9) WHERE id = {b}"],
        [f"UPDATE bundle SET size = size + 1 WHERE id = {b}"],
        [f"DELETE FROM bundle WHERE id = {b}"],
        ["UPDATE policy SET serial = serial + 1"],
        ["UPDATE checkpoint SET note = CAST(replace(CAST(note AS TEXT), 'dev-host', 'tev-host') AS BLOB)"],
        ["DELETE FROM checkpoint", f"DELETE FROM event WHERE seq > {s}"],
        [f"UPDATE capture SET deadline_ns = 1 WHERE id = {c}"],
    ]
    way = rng.choice(ways)
    copy.do(*way)
    return "; ".join(way)


def pruned():
    """prune: only what is wiped, receipted and acknowledged goes, its names are nowhere in the file, and all can still be verified"""
    with lives() as w:
        notes, key = host_dir(w) / "checkpoints", host_dir(w) / "ledger.pub"
        events = first(w.state)[1]
        left = w.counts()[0]
        w.cede("ledger", "prune", "--before", "2020-01-01T00:00:00Z", "--state", w.state)
        equal(first(w.state), (0, events), "nothing is that old")
        said = w.cede("ledger", "prune", "--before", "2200-01-01T00:00:00Z", "--state", w.state)
        check("pruned 3 captures" in said or "pruned " in said and "pruned 0" not in said, said)
        captures = int(said.split("pruned ")[1].split()[0])
        check(0 < captures < sum(left.values()), f"{captures} of {left}: what the agency has not acknowledged stays")
        raw = b"".join(p.read_bytes() for p in w.state.glob("ledger.db*"))
        check(b"lane 1/0.jpg" not in raw and b"lane%201/0.jpg" not in raw, "a pruned name is in the file")
        check(b"left.jpg" in raw, "the look is at the right file")
        equal(first(w.state, "--checkpoint", notes, "--key", key), (0, events + 1), "it verifies, with the agency's checkpoints")
        equal(other(w.state, notes, key), (0, events + 1), "the second verifier")
        export = w.dir / "export.jsonl"
        export.write_text(w.cede("ledger", "export", "--json", "--state", w.state))
        equal(second.verify(export, notes, key)[0], events + 1, "the export")
        for words, status in (((), 1), (("--allow-pruned",), 0)):
            said = subprocess.run([program("cede-receiver"), "audit", "--store", w.store, "--host", "dev-host-1", "--ledger", export, *words],
                                  capture_output=True, text=True)
            check(said.returncode == status and f"pruned: {captures} captures in " in said.stdout and f"; {status} findings" in said.stdout,
                  f"the agency's audit: {said.returncode}: {said.stdout}{said.stderr}")
        copy = Copy(w)
        one = copy.ask("SELECT max(seq) FROM event WHERE kind = 1")[0][0]
        copy.do(f"UPDATE event SET kind = -1, subject = NULL, detail = '', at_ns = {events + 1} WHERE seq = {one}")
        equal(first(copy.path), (events + 1, None), "one more emptied than was pruned")
        equal(other(copy.path), (events + 1, None), "the second verifier")
        w.expect("left.jpg", b"left")  # and the agent goes on with it
        w.start_receiver()
        w.start_agent()
        w.settled()
        w.cede("ledger", "prune", "--before", "2200-01-01T00:00:00Z", "--state", w.state, status=(3,))
        w.agent.stop()
        w.verify_ledger()
        check("checkpoint.refused" not in w.receiver.said(), "the agency's proofs go on")


tap.run([agency_keeps, whole_life, tampered, rolled_back, swapped, random_cases, pruned])
