# SPDX-License-Identifier: Apache-2.0
"""The agency's end by hand: bundles and receipts opened with openssl, zstd and tar alone, as
docs/receiving.md tells it. Nothing here knows cede's code."""

import base64
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from tap import Failure, check

SEGMENT = re.compile(rb"^(.*)\.segment-(\d{6,})-of-(\d{6,})$", re.S)


def command(*words, cwd=None):
    done = subprocess.run([str(x) for x in words], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        raise Failure(f"{words[0]} {words[1]}: status {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_bundle(bundle, pki, into):
    """openssl cms, zstd, tar; a file between them, never a pipe. Gives the manifest."""
    into.mkdir(parents=True, exist_ok=True)
    packed = into.with_name(into.name + ".zst")
    command("openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", str(pki / "seal.key"),
            "-recip", str(pki / "seal.pem"), "-in", str(bundle), "-out", str(packed))
    plain = into.with_name(into.name + ".tar")
    command("zstd", "-q", "-d", "-f", str(packed), "-o", str(plain))
    command("tar", "-x", "-f", str(plain), "-C", str(into))
    packed.unlink()
    plain.unlink()
    manifest = json.loads((into / "manifest.json").read_bytes())
    (into / "manifest.json").unlink()
    return manifest


def read_receipt(path, public_key, work):
    """Verifies a receipt with openssl dgst; gives its lines as a dictionary."""
    note = path.read_bytes()
    text, _, signatures = note.partition(b"\n\n")
    text += b"\n"
    (work / "body").write_bytes(text)
    line = signatures.strip().splitlines()[-1]
    (work / "sig").write_bytes(base64.b64decode(line.split(b" ")[-1])[4:])
    out = command("openssl", "dgst", "-sha256", "-verify", str(public_key), "-signature", str(work / "sig"),
                  str(work / "body"))
    check(b"Verified OK" in out, f"receipt {path.name}: {out!r}")
    lines = text.decode("ascii").splitlines()
    return {"type": lines[0], **dict(line.split(": ", 1) for line in lines[1:])}


class Store:
    """All that the receiver holds, opened by hand."""

    def __init__(self, path, pki, receipt_key="receipt.pub"):
        self.path, self.pki = pathlib.Path(path), pki
        self.receipt_key = pki / receipt_key
        self.captures = {}   # b"source/path" -> list of sha256 (one each, if all is right)
        self.manifests = {}  # bundle id -> manifest
        self.receipts = {}   # bundle id -> lines of the receipt
        self.problems = []
        self._segments, self._numbers = {}, itertools.count()

    def bundles(self):
        return sorted(p for p in self.path.rglob("*.cms") if p.is_file())

    def read(self):
        work = pathlib.Path(tempfile.mkdtemp(prefix="cede-open-"))
        try:
            for bundle in self.bundles():
                self._read_bundle(bundle, work)
            self._join()
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return self

    def _read_bundle(self, bundle, work):
        name = bundle.stem
        if name in self.manifests:
            self.problems.append(f"bundle {name} is in the store twice")
        into = work / "out"
        self.manifests[name] = open_bundle(bundle, self.pki, into)
        receipt = bundle.with_suffix(".receipt")
        if not receipt.exists():
            self.problems.append(f"bundle {name} has no receipt")
        else:
            self.receipts[name] = read_receipt(receipt, self.receipt_key, work)
            if self.receipts[name]["bundle"] != name or self.receipts[name]["sha256"] != sha256(bundle):
                self.problems.append(f"the receipt of bundle {name} is for something else")
        top = os.fsencode(into)
        for folder, _, names in os.walk(top):
            for file in names:
                full = os.path.join(folder, file)
                key = os.path.relpath(full, top)
                match = SEGMENT.match(key)
                if match:
                    parts = self._segments.setdefault(match[1], (int(match[3]), {}))[1]
                    copies = parts.setdefault(int(match[2]), [])
                    copies.append(work / f"segment-{next(self._numbers)}")
                    os.rename(full, copies[-1])  # in a file: a capture may be larger than memory
                else:
                    self.captures.setdefault(key, []).append(sha256(full))
        shutil.rmtree(into)

    def _join(self):
        for key, (count, parts) in self._segments.items():
            if sorted(parts) != list(range(1, count + 1)):
                self.problems.append(f"a large capture has segments {sorted(parts)} of {count}")
                continue
            if any(len(copies) != 1 for copies in parts.values()):
                self.problems.append("a segment of a large capture came twice")
            whole = hashlib.sha256()
            for i in sorted(parts):
                whole.update(parts[i][0].read_bytes())
            self.captures.setdefault(key, []).append(whole.hexdigest())

    def compare(self, want):
        """want: b"source/path" -> sha256 or list of them. Raises what is missing, wrong or too many."""
        problems = list(self.problems)
        for key in want.keys() | self.captures.keys():
            wanted = want.get(key, [])
            wanted = sorted([wanted] if isinstance(wanted, str) else wanted)
            got = sorted(self.captures.get(key, []))
            if got == wanted:
                continue
            if not got:
                problems.append(f"missing: {key!r}")
            elif not wanted:
                problems.append(f"nobody wrote: {key!r}")
            elif len(got) > len(wanted) and set(got) == set(wanted):
                problems.append(f"{len(got)} times instead of {len(wanted)}: {key!r}")
            else:
                problems.append(f"other content: {key!r}: {[g[:8] for g in got]} for {[w[:8] for w in wanted]}")
        check(not problems, f"{len(problems)} problems in the store:\n" + "\n".join(sorted(problems)[:20]))
