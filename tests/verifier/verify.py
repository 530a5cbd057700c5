#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second verifier of the ledger, written from docs/ledger.md: the Python standard library and the openssl command.

    verify.py LEDGER [--checkpoint FILE] [--key PUB]

LEDGER: what `cede ledger export --json` wrote, or a ledger.db (then the tables are compared, too).
Prints "sound EVENTS HASH" or "bad SEQUENCE REASON"; status 0 or 1."""

import argparse
import base64
import hashlib
import json
import pathlib
import sqlite3
import struct
import subprocess
import sys
import tempfile
import urllib.parse
import uuid

KINDS = ("agent-started agent-stopped capture-seen capture-changed capture-replaced capture-gone capture-refused bundle-sealed "
         "bundle-spooled bundle-receipted bundle-abandoned receipt-refused bundle-wiping capture-wiped wipe-failed bundle-done "
         "policy-loaded watch-gap violation capture-held hold-lifted capture-destroyed source-missing source-back source-changed "
         "clock-stepped source-remounted checkpoint key-changed names-scrubbed vault-turned vault-erased guard-started guard-lost "
         "guard-denied guard-noted sandbox-weak purge-begun purge-done captures-wiped segment-sealed ledger-pruned "
         "ledger-migrated names-stay keep-ended bundle-freed").split()
SPKI_P256 = 91


class Bad(Exception):
    """The first event that is not what was recorded, or is contradicted."""

    def __init__(self, sequence, why):
        super().__init__(why)
        self.sequence = sequence


def sha256(*parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(part)
    return h.digest()


class Event:
    def __init__(self, sequence, at_ns, kind, subject, detail, digest):
        self.sequence, self.at_ns, self.kind, self.subject, self.detail, self.hash = sequence, at_ns, kind, subject, detail, digest
        self._keys = None

    def get(self, key, otherwise=None):
        if self._keys is None:
            self._keys = {}
            for part in self.detail.split(" "):
                name, equals, value = part.partition("=")
                if equals:
                    self._keys.setdefault(name, value)
        return self._keys.get(key, otherwise)

    def number(self, key, otherwise=None):
        value = self.get(key)
        return otherwise if value is None else int(value)

    def plain(self, key):
        value = self.get(key)
        return None if value is None else urllib.parse.unquote_to_bytes(value)

    def canonical(self, before):
        """What is hashed."""
        out = b"cede-event/1" + before + struct.pack("<Qq", self.sequence, self.at_ns)
        for part in (self.kind.encode(), self.subject, self.detail.encode("utf-8", "surrogateescape")):
            out += struct.pack("<Q", len(part)) + part
        return out


def from_export(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            o = json.loads(line)
            yield Event(o["sequence"], o["at_ns"], o["kind"], uuid.UUID(o["subject"]).bytes if o["subject"] else b"", o["detail"],
                        bytes.fromhex(o["hash"]))


def from_table(db):
    for sequence, at_ns, kind, subject, detail, digest in db.execute("SELECT * FROM event ORDER BY seq"):
        name = "pruned" if kind == -1 else KINDS[kind] if 0 <= kind < len(KINDS) else "?"
        yield Event(sequence, at_ns, name, subject or b"", detail, digest)


class Tree:
    """RFC 9162 section 2.1.1, over the events' hashes."""

    def __init__(self):
        self.size = 0
        self.edge = []

    def append(self, entry):
        node, n = sha256(b"\0", entry), self.size
        while n & 1:
            node = sha256(b"\1", self.edge.pop(), node)
            n >>= 1
        self.edge.append(node)
        self.size += 1

    def root(self):
        if not self.edge:
            return sha256()
        node = self.edge[-1]
        for left in reversed(self.edge[:-1]):
            node = sha256(b"\1", left, node)
        return node


class Note:
    """A checkpoint: text, signature lines."""

    def __init__(self, raw, agency):
        self.text, _, rest = raw.partition("\n\n")
        self.text += "\n"
        self.agency = agency
        self.signatures = [base64.b64decode(line.split(" ")[2]) for line in rest.splitlines() if line.startswith("\u2014 ")]
        lines = self.text.split("\n")
        self.origin, self.size, self.root = lines[0], int(lines[1]), base64.b64decode(lines[2])

    def signed_by(self, key):
        """key: DER SubjectPublicKeyInfo. The key id is its SHA-256's first four bytes."""
        if not key or not self.origin.startswith("cede-checkpoint/1/"):
            return False
        with tempfile.TemporaryDirectory() as d:
            d = pathlib.Path(d)
            (d / "text").write_bytes(self.text.encode())
            (d / "key").write_bytes(b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(key) + b"-----END PUBLIC KEY-----\n")
            for signature in self.signatures:
                if signature[:4] != sha256(key)[:4]:
                    continue
                (d / "sig").write_bytes(signature[4:])
                done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", d / "key", "-signature", d / "sig", d / "text"],
                                      capture_output=True)
                if done.returncode == 0:
                    return True
        return False


def notes_of(text, agency):
    """A file holds one behind the other; a signature line is the end unless another one follows."""
    notes, lines = [], []
    for line in text.split("\n") + [""]:
        if lines and any(x.startswith("\u2014 ") for x in lines) and not line.startswith("\u2014 "):
            notes.append(Note("\n".join(lines), agency))
            lines = []
        if lines or line:
            lines.append(line)
    return notes


class Walk:
    def __init__(self, events, notes, key, tables):
        self.events, self.key, self.given = list(events), key, key is not None
        self.prunings = {e.sequence for e in self.events if e.kind == "ledger-pruned"}
        self.notes = sorted(notes, key=lambda n: n.size)
        self.tables = tables
        self.tree = Tree()
        self.good = 0
        self.key_sequence = 0
        self.named_key = None
        self.pruned = {}
        self.newest = bytes(32)

    def run(self):
        for event in self.events:
            self.event(event)
        if self.notes:
            raise Bad(self.tree.size + 1, "cut off, or put back to an older file")
        for by in self.pruned:
            raise Bad(by, "events were emptied, and no event says so")
        if self.tables:
            self.tables.end(self)
        return self.tree.size, self.newest

    def event(self, e):
        expected = self.tree.size + 1
        if e.sequence != expected or e.kind == "?" or len(e.hash) != 32:
            raise Bad(expected, "removed, inserted or changed")
        if e.kind != "pruned" and sha256(e.canonical(self.newest)) != e.hash:
            raise Bad(expected, "removed, inserted or changed")
        self.newest = e.hash
        self.tree.append(e.hash)
        if e.kind == "pruned":
            if e.at_ns <= e.sequence or e.at_ns not in self.prunings or e.subject or e.detail:
                raise Bad(e.sequence, "emptied by nobody")
            self.pruned.setdefault(e.at_ns, []).append(e.sequence)
        elif e.kind == "ledger-pruned":
            of = self.pruned.pop(e.sequence, [])
            if e.number("events") != len(of) or e.get("digest") != sha256(*(struct.pack("<Q", s) for s in of)).hex():
                raise Bad(e.sequence, "other events were emptied than it says")
        elif e.kind == "key-changed" and e.get("role") == "ledger":
            self.key_sequence, self.named_key = e.sequence, base64.b64decode(e.get("key"))
            if not self.given:
                self.key = self.named_key
        elif self.tables:
            self.tables.event(e)
        while self.notes and self.notes[0].size == self.tree.size:
            self.note(self.notes.pop(0))

    def note(self, n):
        if not n.signed_by(self.key):
            raise Bad((self.key_sequence or 1) if n.agency else n.size, "not signed with this ledger's key")
        if n.root != self.tree.root():
            raise Bad(self.good + 1, f"rewritten since event {self.good}")
        self.good = n.size


def rows_of(e):
    """Of a list such as 3,7-12,40."""
    for part in e.get("rows").split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


class Tables:
    """What the tables must say, from the events."""

    OPEN, SEALED, WIPING, WIPED, GONE, REPLACED, HELD, KEPT = "OPEN SEALED WIPING WIPED GONE REPLACED HELD KEPT".split()
    STATES = {OPEN: (0, 1, 5), SEALED: (2,), WIPING: (3,), WIPED: (4,), GONE: (6,), REPLACED: (7,), HELD: (8,), KEPT: (9,)}
    OF_ROWS = ("segment-sealed", "bundle-sealed", "hold-lifted", "keep-ended")
    BUNDLE = {"bundle-receipted": 1, "bundle-done": 2, "bundle-abandoned": 3}

    def __init__(self, db):
        self.db = db
        self.rows = {r[0]: r[1:] for r in db.execute(
            "SELECT c.id, c.uuid, s.name, c.path, c.size, c.born_ns, c.mtime_ns, c.first_seen_ns, c.state, coalesce(c.bundle, 0), "
            "c.sha256, c.wiped_ns, c.level, c.reason, c.class FROM capture c JOIN source s ON s.id = c.source")}
        self.bundles = {r[0]: r[1:] for r in db.execute(
            "SELECT id, uuid, destination, size, sha256, captures, sealed_ns, receipt, receipted_ns, state, spooled FROM bundle")}
        self.segments = {(r[0], r[1]): r[2:] for r in db.execute("SELECT capture, idx, bundle, offset, size, sha256 FROM segment")}
        self.policies = db.execute("SELECT loaded_ns, policy, serial, sha256, signed FROM policy ORDER BY id").fetchall()
        self.by_id = {b[0]: row for row, b in self.bundles.items()}
        self.captures, self.sealed = {}, {}
        self.last_seen = 0
        self.changed = {}
        self.old_captures = self.old_bundles = 0

    def event(self, e):
        row = e.number("row") if e.kind.startswith("capture-") or e.kind in self.OF_ROWS or (e.kind == "violation" and e.subject) else None
        if e.kind == "ledger-migrated":
            self.old_captures, self.old_bundles = e.number("captures"), e.number("bundles")
        elif e.kind == "policy-loaded":
            want = (e.at_ns, e.plain("policy").decode(), e.number("serial"), bytes.fromhex(e.get("sha256")), e.get("signed") == "yes")
            if not self.policies or self.policies.pop(0) != want:
                raise Bad(e.sequence, "another policy")
        elif e.kind == "captures-wiped":
            for row in rows_of(e):
                self.wipe(e, row)
        elif e.kind == "bundle-sealed":
            self.seal(e, row)
        elif e.kind.startswith("bundle-"):
            self.bundle(e)
        elif row is not None and row > self.old_captures:
            self.capture(e, row)

    def wipe(self, e, row):
        c = self.captures.setdefault(row, {"stage": None, "bundle": 0, "wipe": None, "segments": False})
        if c["stage"] not in (self.GONE, self.REPLACED):
            c["stage"] = self.WIPED
        c["wipe"] = e

    def capture(self, e, row):
        if e.kind == "capture-seen":
            self.see(e, row)
            return
        if row not in self.captures or self.captures[row]["stage"] is None:
            raise Bad(e.sequence, "never seen")
        c = self.captures[row]
        if e.kind == "capture-changed" and e.get("size") is not None:
            self.change(e, row)
        elif e.kind == "capture-wiped":
            self.wipe(e, row)
        elif e.kind == "segment-sealed":
            c["segments"] = True
            have = self.segments.get((row, e.number("index")))
            if have and have[0] == e.number("bundle") and \
                    have[1:] != (e.number("offset"), e.number("size"), bytes.fromhex(e.get("sha256"))):
                raise Bad(e.sequence, "another segment")
        elif e.kind in ("capture-replaced", "capture-gone"):
            c["stage"] = self.GONE if e.kind == "capture-gone" else self.REPLACED
            c["wipe"] = e
        else:
            c["stage"] = {"capture-held": self.HELD,
                          "hold-lifted": self.WIPING, "keep-ended": self.WIPING, "violation": self.KEPT, "capture-destroyed": self.WIPING}.get(e.kind, c["stage"])

    def see(self, e, row):
        self.captures[row] = {"stage": self.OPEN, "bundle": 0, "wipe": None, "segments": False}
        if any(self.last_seen < r < row and r > self.old_captures for r in self.rows):
            raise Bad(e.sequence, "a row that no event tells of")
        self.last_seen = row
        have = self.rows.get(row)
        if have is None:
            raise Bad(e.sequence, "no such row")
        names = (e.subject, e.plain("source").decode(), e.plain("path"), (e.plain("class") or b"").decode())
        if (*have[:3], have[13] or "") != names or have[6] != e.number("first", e.at_ns):
            raise Bad(e.sequence, "another capture")
        if have[3:6] != (e.number("size"), e.number("born"), e.number("mtime", e.number("born"))):
            self.change(e, row)

    def change(self, e, row):
        born = e.number("born")
        before = self.changed.get(row)
        self.changed[row] = (e.number("size"), min(born, before[1]) if before else born, e.number("mtime", born), e.sequence)

    def seal(self, e, row):
        if row is None or row <= self.old_bundles:
            return
        if row in self.sealed:
            raise Bad(e.sequence, "two bundles of one row")
        b = self.sealed[row] = {"state": 0, "spooled": 0, "sequence": e.sequence, "members": []}
        have = self.bundles.get(row)
        if have is None:
            raise Bad(e.sequence, "no such row")
        if have[:6] != (e.subject, e.plain("destination").decode(), e.number("size"), bytes.fromhex(e.get("sha256")),
                        e.number("captures"), e.at_ns):
            raise Bad(e.sequence, "another bundle")
        for part in (e.get("members") or "").split(","):
            if part:
                member, _, digest = part.partition(":")
                self.member(row, b, int(member), base64.b64decode(digest))

    def member(self, bundle, b, row, digest):
        c = self.captures.setdefault(row, {"stage": None, "bundle": 0, "wipe": None, "segments": False})
        if c["stage"] == self.OPEN:
            c["stage"], c["bundle"], c["digest"] = self.SEALED, bundle, digest
        b["members"].append(row)

    def bundle(self, e):
        row = self.by_id.get(e.subject)
        if row is None:
            raise Bad(e.sequence, "no such bundle")
        if row <= self.old_bundles:
            return
        if row not in self.sealed:
            raise Bad(e.sequence, "never sealed")
        b = self.sealed[row]
        b["state"] = self.BUNDLE.get(e.kind, b["state"])
        if e.kind == "bundle-spooled":
            b["spooled"] = 1
        elif e.kind == "bundle-receipted":
            have = self.bundles[row]
            if sha256(have[6] or b"").hex() != e.get("sha256") or have[7] != e.at_ns:
                raise Bad(e.sequence, "another receipt")
        elif e.kind in ("bundle-wiping", "bundle-abandoned", "bundle-freed"):
            for member in rows_of(e) if e.kind == "bundle-freed" else b["members"]:
                c = self.captures[member]
                if c["stage"] == self.SEALED and c["bundle"] == row:
                    c["stage"] = self.WIPING if e.kind == "bundle-wiping" else self.OPEN
                    if c["stage"] == self.OPEN:
                        c["bundle"] = 0

    def end(self, walk):
        last = walk.tree.size
        for row in sorted(self.rows):
            if row > self.old_captures:
                self.end_capture(row, last)
        for row in sorted(self.bundles):
            if row <= self.old_bundles:
                continue
            if row not in self.sealed:
                raise Bad(last, "a bundle that no event tells of")
            if self.bundles[row][8:10] != (self.sealed[row]["state"], self.sealed[row]["spooled"]):
                raise Bad(self.sealed[row]["sequence"], "another state")
        for row, (size, born, mtime, sequence) in self.changed.items():
            have = self.rows.get(row)
            if have and (have[3] != size or have[5] != mtime or have[4] > born):
                raise Bad(sequence, "another size or time")
        if self.policies:
            raise Bad(last, "a policy that no event tells of")

    def end_capture(self, row, last):
        have, c = self.rows[row], self.captures.get(row)
        if c is None or c["stage"] is None:
            raise Bad(last, "a row that no event tells of")
        told = c["wipe"].sequence if c["wipe"] else last
        states = self.STATES[c["stage"]] + ((2, 3) if c["segments"] and c["stage"] == self.OPEN else ())
        if have[7] not in states:
            raise Bad(told, "another state")
        e = c["wipe"]
        wiped = e is not None and e.kind.endswith("wiped")  # else it ended when it was found gone or replaced
        want = (e.at_ns if e else None, e.plain("level").decode() if wiped else None)
        reason = (e.plain("reason") or b"").decode() if wiped else have[12] or ""
        if have[10:12] != want or (have[12] or "") != reason:
            raise Bad(told, "another wipe")
        if not c["segments"] and c["stage"] in (self.SEALED, self.WIPING, self.WIPED) and c["bundle"] and have[8] != c["bundle"]:
            raise Bad(self.sealed[c["bundle"]]["sequence"], "in another bundle")
        if not c["segments"] and c["bundle"] and have[8] == c["bundle"] and have[9] != c["digest"]:
            raise Bad(self.sealed[c["bundle"]]["sequence"], "another digest")


def verify(ledger, checkpoint=None, key=None):
    """(events, newest hash), or Bad."""
    notes = notes_of(pathlib.Path(checkpoint).read_text(encoding="utf-8"), True) if checkpoint else []
    der = base64.b64decode("".join(pathlib.Path(key).read_text().splitlines()[1:-1])) if key else None
    with open(ledger, "rb") as f:
        is_table = f.read(15) == b"SQLite format 3"
    if not is_table:
        return Walk(from_export(ledger), notes, der, None).run()
    db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        notes += notes_of("\n".join(r[0].decode() for r in db.execute("SELECT note FROM checkpoint")), False)
        return Walk(from_table(db), notes, der, Tables(db)).run()
    finally:
        db.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger")
    parser.add_argument("--checkpoint")
    parser.add_argument("--key")
    words = parser.parse_args()
    try:
        events, newest = verify(words.ledger, words.checkpoint, words.key)
    except Bad as bad:
        print(f"bad {bad.sequence} {bad}")
        return 1
    print(f"sound {events} {newest.hex()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
