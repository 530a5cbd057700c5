#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cede purge: a host is taken out of service. What the agency can have it gets; the rest goes only when
it is said so; nothing readable remains; the certificate is true and verifies with openssl alone."""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from stock import Store
from tap import Skip, check, equal
from world import World, program, until

MARKER = b"FACE-OF-A-TRAVELLER"
NAME = "PLATE-KB17XYZ"


def purge(w, *more, status=(0,), limit="60s"):
    """Its output; the certificate is w.dir/certificate."""
    words = ["purge", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--certificate",
             w.dir / "certificate", "--reason", "end of contract", "--operator", "J. Doe", "--limit", limit, *more]
    done = subprocess.run([program("cede"), *map(str, words)], capture_output=True, text=True, timeout=170, cwd=w.dir,
                          stdin=subprocess.DEVNULL)
    check(done.returncode in status, f"cede purge: status {done.returncode}, expected {status}\n{done.stdout}{done.stderr[-3000:]}")
    check(NAME not in done.stdout + done.stderr, "a capture's name in what it says")
    return done.stdout + done.stderr


def openssl(w, *words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, cwd=w.dir)
    check(done.returncode == 0, f"openssl {words[0]}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def certificate(w):
    """{key: [values]}, once openssl said that the host's key signed it."""
    note = (w.dir / "certificate").read_bytes()
    body, _, signature = note.partition(b"\n\n")
    (w.dir / "body").write_bytes(body + b"\n")
    (w.dir / "sig").write_bytes(base64.b64decode(signature.split()[-1])[4:])
    (w.dir / "agent.pub").write_bytes(openssl(w, "x509", "-in", w.pki / "agent.pem", "-pubkey", "-noout"))
    openssl(w, "dgst", "-sha256", "-verify", "agent.pub", "-signature", "sig", "body")
    lines = body.decode("ascii").split("\n")
    equal(lines[0], "cede-wipe-certificate/1", "the type")
    fields = {}
    for line in lines[1:]:
        key, _, value = line.partition(": ")
        fields.setdefault(key, []).append(value)
    details = (w.dir / "certificate.details").read_bytes()
    equal(fields["details"], [hashlib.sha256(details).hexdigest()], "the digest of the details")
    check(NAME.encode() not in note + details, "a capture's name in certificate or details")
    entries = [json.loads(line) for line in details.splitlines()]
    equal(entries[0], {"schema": "cede-purge-details/1"}, "the first line of the details")
    return fields, entries[1:]


def is_gone(w):
    equal(w.left(), [], "files left in the source")
    equal([str(p) for p in w.state.rglob("*")], [], "what is left in the state directory")
    check(not (w.pki / "agent.key").exists(), "the host's key is still there")
    equal(list(w.dir.glob(".cede-purge-*")), [], "names of outputs while they were made")


def ledger_copy(w, path):
    """The sealed copy, opened by hand."""
    openssl(w, "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", w.pki / "seal.key", "-recip", w.pki / "seal.pem",
            "-in", path, "-out", "ledger.zst")
    subprocess.run(["zstd", "-q", "-f", "-d", "ledger.zst", "-o", "ledger.db"], cwd=w.dir, check=True)
    return contextlib.closing(sqlite3.connect(w.dir / "ledger.db"))


def clean():
    """everything is handed over first; then sources, state and key go; the agency keeps a sealed copy of the ledger"""
    with World(source={"quiet": "0s"}) as w:
        w.start_receiver()
        for i in range(20):
            w.write(f"lane/{NAME}-{i}.jpg", MARKER * (100 + i))
        (w.capture / "lane" / f"{NAME}.txt").write_bytes(MARKER)  # nobody's: unmatched
        (w.capture / "link.jpg").symlink_to("/etc/hostname")
        os.mkfifo(w.capture / "pipe")
        said = purge(w, "--ledger", w.dir / "ledger.cms", "--html", w.dir / "page.html", "--yes")
        check("everything was handed over and wiped" in said, said)
        Store(w.store, w.pki).read().compare(w.want)
        is_gone(w)
        check(not list(w.capture.iterdir()), "a directory is left in the source")
        fields, entries = certificate(w)
        equal(fields["handed-over"], ["20"], "captures handed over")
        equal(fields["remains"], ["nothing"], "what remains")
        equal(sorted(e["what"] for e in entries if e["what"] != "state-file"), ["identity-key"] + ["other-file"] * 3, "the details")
        equal(fields["host"] + fields["operator"], ["dev-host-1", "J. Doe"], "host and operator")
        copy = (w.dir / "ledger.cms").read_bytes()
        equal(fields["ledger-copy"], [hashlib.sha256(copy).hexdigest() + " 1"], "the digest of the ledger's copy")
        with ledger_copy(w, w.dir / "ledger.cms") as db:
            equal(db.execute("SELECT count(*) FROM capture WHERE state = 4").fetchone(), (20,), "wiped captures in the copy")
            last = db.execute("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        equal(fields["ledger"], [f"{last[0]} {last[1].hex()}"], "the head of the ledger")
        page = (w.dir / "page.html").read_text()
        check("dev-host-1" in page and "<script" not in page and "cede-wipe-certificate/1" in page, "the page")


def most_sources():
    """the certificate of the largest policy: 256 sources with the longest names"""
    with World(source={"quiet": "0s"}) as w:
        w.policy["sources"] = []
        for i in range(256):
            name = f"lane-{i:03d}-" + "x" * 55
            (w.capture / name).mkdir()
            w.policy["sources"].append({**w.source, "name": name, "path": str(w.capture / name)})
        w.write_files()
        w.start_receiver()
        w.write("a.jpg", MARKER, top=w.capture / name, source=name)
        purge(w, "--drop-ledger", "--html", w.dir / "page.html", "--yes", status=(0, 1))
        fields, _ = certificate(w)
        equal((len(fields["names"]), fields["handed-over"]), (257, ["1"]), "sources, and captures handed over")
        Store(w.store, w.pki).read().compare(w.want)


def stops_short():
    """what can't be handed over, or is under a hold, stops it: nothing is wiped, no certificate; then it goes on"""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    with World(source={"quiet": "0s"}) as w:
        names = [f"{NAME}-{i}.jpg" for i in range(3)]
        for name in names:
            w.write(name, MARKER * 50)
        said = purge(w, "--drop-ledger", "--yes", limit="2s", status=(1,))
        check("3 captures" in said and "--destroy-unsent" in said, said)
        equal(w.left(), sorted(map(os.fsencode, names)), "files in the source")
        check((w.pki / "agent.key").exists() and (w.state / "ledger.db").exists(), "key and ledger are there")
        check(not (w.dir / "certificate").exists(), "there is no certificate")
        w.policy["holds"] = [{"id": "case-7", "sources": ["faces"], "until": soon}]
        w.write_files()
        w.start_receiver()
        said = purge(w, "--drop-ledger", "--yes", status=(1,))
        check("3 captures are under a legal hold" in said, said)
        equal(len(w.left()), 3, "files in the source")
        purge(w, "--drop-ledger", "--destroy-held", "--yes", status=(1,))
        is_gone(w)
        fields, entries = certificate(w)
        equal(sum(e["what"] == "held-capture" and e["level"].startswith("overwritten") for e in entries), 3, "held captures")
        equal(fields["ledger-copy"], ["none"], "the ledger's copy")


def left_alone():
    """what the policy wants and the hand-over leaves alone (too large, two links, still open) stops it; destroyed, it is a finding"""
    with World(source={"quiet": "0s", "max_size": "4KiB"}) as w:
        w.start_receiver()
        (w.capture / "large.jpg").write_bytes(MARKER * 1000)
        (w.capture / "twice.jpg").write_bytes(MARKER)
        os.link(w.capture / "twice.jpg", w.dir / "other-link")
        (w.capture / "notes.txt").write_bytes(MARKER * 1000)  # the policy does not want it
        w.write("a.jpg", MARKER)
        with open(w.capture / "open.jpg", "wb", buffering=0) as writer:
            writer.write(MARKER)
            said = purge(w, "--drop-ledger", "--yes", status=(1,), limit="5s")
        check("0 captures and 0 sealed bundles" in said and "3 more files that the policy wants were left alone" in said, said)
        equal(sorted(w.left()), [b"large.jpg", b"notes.txt", b"open.jpg", b"twice.jpg"], "files that stay")
        Store(w.store, w.pki).read().compare(w.want)
        w.expect("open.jpg", MARKER)  # complete now
        w.expect("twice.jpg", MARKER)
        (w.dir / "other-link").unlink()
        (w.capture / "late.jpg").write_bytes(MARKER * 1000)
        said = purge(w, "--drop-ledger", "--destroy-unsent", "--yes", status=(1,))
        check("done, with findings, 2 captures destroyed that the agency does not have;" in said, said)
        is_gone(w)
        Store(w.store, w.pki).read().compare(w.want)
        fields, entries = certificate(w)
        equal([(e["what"], e["id"]) for e in entries if e["what"] == "unsent-capture"], [("unsent-capture", None)] * 2, "the details")
        check("earlier-run" not in fields, "nothing was wiped before")


def nothing_readable():
    """waiting, held, sealed and wiped captures: nothing readable remains in the raw image; what the agency lacks is listed by id"""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        raise Skip("mounting an image needs root and loop devices")
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    with World() as w:
        image, disk = w.dir / "image", w.dir / "disk"
        disk.mkdir()
        with open(image, "wb") as f:
            f.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        try:
            w.state = disk / "state"
            w.config["state"] = str(w.state)
            base = {**w.source, "quiet": "0s"}
            tops = {}
            w.policy["sources"] = []
            for name, more in (("waiting", {}), ("held", {}), ("sealed", {"wipe": {**base["wipe"], "after": "seal"}}), ("done", {})):
                tops[name] = disk / name
                tops[name].mkdir()
                w.policy["sources"].append({**base, "name": name, "path": str(tops[name]), **more})
            w.policy["holds"] = [{"id": "case-7", "sources": ["held"], "until": soon}]
            w.write_files()
            rng = random.Random(5)

            def fill(source):
                for i in range(5):
                    w.write(f"{NAME}-{i}.jpg", b"%s %s " % (MARKER, source.encode()) * rng.randrange(1, 6000), source=source,
                            top=tops[source], want=False)
            fill("held")
            fill("done")
            w.start()
            until(lambda: w.counts()[0].get("held") == 5 and w.counts()[0].get("wiped") == 5, 30, "five held, five wiped")
            w.agent.stop()
            w.receiver.stop()
            fill("waiting")
            fill("sealed")
            os.sync()
            check(image.read_bytes().count(MARKER) > 0, "the markers can be found at all")
            purge(w, "--ledger", w.dir / "ledger.cms", "--destroy-unsent", "--destroy-held", "--yes", limit="8s", status=(1,))
            for name, top in tops.items():
                equal(list(top.iterdir()), [], f"what is left in {name}")
            equal(list(w.state.iterdir()), [], "what is left in the state directory")
            with ledger_copy(w, w.dir / "ledger.cms") as db:
                lost = {row[0].hex() for row in db.execute(
                    "SELECT c.uuid FROM capture c JOIN source s ON s.id = c.source WHERE s.name IN ('waiting', 'sealed')")}
            equal(len(lost), 10, "captures that the agency lacks")
            fields, entries = certificate(w)
            equal({e["id"].replace("-", "") for e in entries if e["what"] == "unsent-capture"}, lost, "those listed by id")
            equal(sum(e["what"] == "held-capture" for e in entries), 5, "held captures in the details")
            check(any(e["what"] == "unsent-bundle" for e in entries), "the sealed bundles are in the details")
            equal(fields["remains"], ["nothing"], "what remains")
            equal(sorted(set(f.split()[1] for f in fields["names"])), ["scrubbed"], "names in the journal")
        finally:
            if w.agent is not None:
                w.agent.kill_all()
            until(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0, 10, "unmounted")
        raw = image.read_bytes()
        equal(raw.count(MARKER), 0, "pieces of captures in the raw image")
        equal(raw.count(b"CREATE TABLE"), 0, "pieces of the ledger in the raw image")
        equal(raw.count(NAME.encode()), 0, "names in the raw image")


def refused():
    """nothing is touched: without --yes, over a file that is there, into a source, while the agent runs, another policy's time"""
    with World(source={"quiet": "0s"}) as w:
        w.write("a.jpg", MARKER * 10)
        for words, text in (
                (["--drop-ledger"], "add --yes"),
                (["--yes"], "either --ledger FILE, or --drop-ledger"),
                (["--drop-ledger", "--yes", "--ledger", w.dir / "x"], "either --ledger FILE, or --drop-ledger"),
                (["--drop-ledger", "--yes", "--html", w.capture / "page.html"], "lies in a source"),
                (["--drop-ledger", "--yes", "--html", w.dir / "policy.yaml"], "is there already"),
                (["--yes", "--ledger", w.dir / "x", "--ledger-to", "nowhere"], "name one of the policy's destinations"),
                (["--drop-ledger", "--yes", "--reason", "caf\u00e9"], "printable ASCII"),
                (["--drop-ledger", "--yes", "--limit", "soon"], "a duration")):
            said = purge(w, *words, status=(2,))
            check(text in said, f"{words}: {said}")
        w.start()
        w.settled()
        said = purge(w, "--drop-ledger", "--yes", status=(2, 3))
        check("another agent" in said or "uses" in said, said)
        w.agent.stop()
        w.write("b.jpg", MARKER * 10)
        os.chmod(w.pki / "agent.key", 0o644)
        check("chmod" in purge(w, "--drop-ledger", "--yes", status=(2,)), "the key that others can read is named")
        os.chmod(w.pki / "agent.key", 0o600)
        config = (w.dir / "agent.yaml").read_text()
        (w.dir / "agent.yaml").write_text(config.replace("pki/agent.key", "credential:agent.key"))
        check("credential:agent.key" in purge(w, "--drop-ledger", "--yes", status=(2,)), "a key that the service manager hands over is named")
        (w.dir / "agent.yaml").write_text(config)
        equal(w.left(), [b"b.jpg"], "the source")
        check((w.pki / "agent.key").exists() and not (w.dir / "certificate").exists(), "nothing was touched")


@contextlib.contextmanager
def mounted(place, options="size=16m"):
    """A file system in memory there."""
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], capture_output=True)


def source_gone():
    """without one of its sources nothing is certified or wiped; with it again, or with a policy without it, it goes on"""
    away = "capture.away"
    with World(source={"quiet": "0s"}) as w:
        w.start_receiver()
        w.write(f"{NAME}.jpg", MARKER * 10)
        os.rename(w.capture, w.dir / away)
        said = purge(w, "--drop-ledger", "--yes", status=(2,))
        check("source faces is not there" in said and "mount it" in said, said)
        check((w.pki / "agent.key").exists() and not (w.dir / "certificate").exists(), "nothing was touched")
        os.rename(w.dir / away, w.capture)
        purge(w, "--drop-ledger", "--yes")
        Store(w.store, w.pki).read().compare(w.want)
        is_gone(w)
    with World(source={"quiet": "0s"}, policy={"holds": [{"id": "case-7", "sources": ["faces"], "until": "2099-01-01T00:00:00Z"}]}) as w:
        w.start()
        w.write(f"{NAME}.jpg", MARKER * 10)
        until(lambda: w.counts()[0].get("held") == 1, 60, "one is held")
        w.agent.stop()
        os.rename(w.capture, w.dir / away)
        other = w.dir / "other"
        other.mkdir()
        w.policy["sources"] = [{**w.source, "name": "other", "path": str(other)}]
        w.policy["holds"] = []
        w.write_files()
        said = purge(w, "--drop-ledger", "--destroy-held", "--yes", status=(1,))
        check("remains: held-capture source-not-there 1" in said and "destroyed" not in said, said)
        equal(certificate(w)[0]["remains"], ["held-capture source-not-there 1"], "what remains")


def not_mounted():
    """what the ledger knows of a file system that is not mounted over the source remains, and is no capture destroyed"""
    with World(source={"quiet": "0s"}, policy={"holds": [{"id": "case-7", "sources": ["faces"], "until": "2099-01-01T00:00:00Z"}]}) as w:
        with mounted(w.capture):
            w.start()
            w.write(f"{NAME}.jpg", MARKER * 10)
            until(lambda: w.counts()[0].get("held") == 1, 60, "one is held")
            w.agent.stop()
        said = purge(w, "--drop-ledger", "--destroy-held", "--yes", limit="2s", status=(1,))
        check("remains: held-capture other-file-system 1" in said and "destroyed" not in said, said)
        equal(certificate(w)[0]["remains"], ["held-capture other-file-system 1"], "what remains")


def outputs():
    """files that can't be made, or are one, however they are spelled: nothing is wiped, none is left"""
    with World(source={"quiet": "0s"}) as w:
        (w.capture / "nobodys").write_bytes(MARKER)
        (w.dir / "here").symlink_to(w.dir)
        before = sorted(os.listdir(w.dir))
        for words, text in (
                (["--ledger", w.dir / "certificate"], "another option names it"),
                (["--ledger", w.dir / "certificate.details"], "another option names it"),
                (["--drop-ledger", "--html", w.dir / "certificate"], "another option names it"),
                (["--drop-ledger", "--html", w.dir / "pki" / ".." / "certificate.details"], "another option names it"),
                (["--ledger", w.dir / "here" / "page", "--html", "page"], "another option names it"),
                (["--ledger", w.dir / "copy", "--html", w.dir / "copy.2"], "a large copy has a part copy.2"),
                (["--drop-ledger", "--html", w.dir / "nowhere" / "page"], "No such file or directory"),
                (["--ledger", w.dir / "nowhere" / "copy"], "No such file or directory"),
                (["--drop-ledger", "--certificate", "/proc/certificate"], "/proc/certificate"),
                (["--drop-ledger", "--certificate", w.state / "certificate"], "No such file or directory")):
            said = purge(w, *words, "--yes", status=(2,))
            check(text in said, f"{words}: {said}")
            equal(sorted(os.listdir(w.dir)), before, f"{words}: files beside the source")
        equal(w.left(), [b"nobodys"], "the source")
        check((w.pki / "agent.key").exists(), "the host's key is gone")


def run_again():
    """no room for the outputs: nothing is wiped; the ledger's copy fails in the midst: the same words again end it"""
    with World(source={"quiet": "0s"}) as w:
        w.start_receiver()
        for i in range(20):
            w.write(f"{NAME}-{i}.jpg", MARKER * 10)
        out = w.dir / "out"
        out.mkdir()
        nobodys = w.capture / f"{NAME}.txt"
        words = ["--certificate", out / "certificate", "--ledger", out / "copy", "--yes"]
        with mounted(out, "size=1m"):
            def leave(size):
                """So many bytes are free there."""
                stat = os.statvfs(out)
                with open(out / "full", "ab") as f:
                    f.write(bytes(stat.f_bavail * stat.f_bsize - size))
            nobodys.write_bytes(MARKER)
            leave(64 << 10)
            said = purge(w, *words, status=(2,))
            check("No space left" in said, said)
            equal((len(w.left()), os.listdir(out)), (21, ["full"]), "files in the source, and outputs")
            os.truncate(out / "full", 0)
            leave((128 << 10) + 4096)  # what is reserved for certificate and details, and less than the copy takes
            said = purge(w, *words, status=(3,))
            check(f"run it again: {out}/copy: write: No space left" in said, said)
            check(not nobodys.exists() and (w.pki / "agent.key").exists(), "it ended in the midst")
            equal(os.listdir(out), ["full"], "outputs")
            os.truncate(out / "full", 0)
            said = purge(w, *words, status=(1,))
            check("1 earlier runs cut off" in said and "destroyed" not in said and "remains" not in said, said)
            for name in ("certificate", "certificate.details"):
                (w.dir / name).write_bytes((out / name).read_bytes())
            equal(sorted(os.listdir(out)), ["certificate", "certificate.details", "copy", "full"], "outputs")
            with ledger_copy(w, out / "copy") as db:
                equal(db.execute("SELECT count(*) FROM capture WHERE state = 4").fetchone(), (20,), "wiped captures in the copy")
        fields, _ = certificate(w)
        check(fields["earlier-run"][0].endswith("(unsent=0 held=0 bundles=0)"), fields["earlier-run"])
        equal((fields["remains"], fields["handed-over"]), (["nothing"], ["20"]), "what remains, and captures handed over")
        Store(w.store, w.pki).read().compare(w.want)
        is_gone(w)


def too_long():
    """what has a path too long for it remains, and the last line says so"""
    with World(source={"quiet": "0s"}) as w:
        w.start_receiver()
        fds = [os.open(w.capture, os.O_RDONLY)]
        for _ in range(17):
            os.mkdir("d" * 250, dir_fd=fds[-1])
            fds.append(os.open("d" * 250, os.O_RDONLY, dir_fd=fds[-1]))
        os.close(os.open("nobodys", os.O_CREAT, dir_fd=fds[-1]))
        for fd in fds:
            os.close(fd)
        said = purge(w, "--drop-ledger", "--yes", status=(1,))
        check("done, with findings, remains: other-file directory-not-entered 1; " in said, said)
        equal(certificate(w)[0]["remains"], ["other-file directory-not-entered 1"], "what remains")


if __name__ == "__main__":
    tap.run([clean, most_sources, stops_short, left_alone, nothing_readable, refused, source_gone, not_mounted, outputs, run_again, too_long])
