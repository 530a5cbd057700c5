#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agency's side of custody: cede-receiver audit and report, against stores and exports that were tampered with."""

import fcntl
import hashlib
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import termios
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import check, equal
from world import World, is_sanitized, program, until

HOST = "dev-host-1"


def receiver(*words, status=(0, 1)):
    done = subprocess.run([program("cede-receiver"), *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    check(done.returncode in status, f"cede-receiver {words[0]}: status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}")
    return done.stdout + (done.stderr if done.returncode > 1 else "")


def audit(w, export, *more, status=(0, 1), store=None):
    """(summary, [(finding, subject)])"""
    objects = [json.loads(line) for line in receiver("audit", "--store", store or w.store, "--host", HOST, "--ledger", export, "--json",
                                                     *more, status=status).splitlines()]
    equal((objects[-1]["kind"], objects[-1]["schema"]), ("summary", "cede-audit/1"), "the last line")
    return objects[-1], [(o["finding"], o["subject"]) for o in objects[:-1]]


def day(w):
    """A host that handed over some captures; its export."""
    for i in range(12):
        w.write(f"{i}.jpg", os.urandom(40000))
    w.start()
    w.settled()
    w.agent.stop()
    export = w.dir / "export.jsonl"
    export.write_text(w.cede("ledger", "export", "--json", "--state", w.state))
    return export


def chained(events):
    """The same events with all hashes written anew, as whoever has root on the host can."""
    previous = bytes(32)
    for e in events:
        subject = uuid.UUID(e["subject"]).bytes if e["subject"] else b""
        parts = [e["kind"].encode(), subject, e["detail"].encode()]
        text = b"cede-event/1" + previous + struct.pack("<QQ", e["sequence"], e["at_ns"] & (2**64 - 1))
        previous = hashlib.sha256(text + b"".join(struct.pack("<Q", len(p)) + p for p in parts)).digest()
        e["hash"] = previous.hex()
    return events


def appended(events, kind, detail, at_ns, subject=""):
    """One event more, as whoever has root on the host can record it."""
    e = {"sequence": len(events) + 1, "at_ns": at_ns, "kind": kind, "subject": subject, "detail": detail}
    parts = [kind.encode(), uuid.UUID(subject).bytes if subject else b"", detail.encode()]
    text = b"cede-event/1" + bytes.fromhex(events[-1]["hash"]) + struct.pack("<QQ", e["sequence"], at_ns)
    return events + [e | {"hash": hashlib.sha256(text + b"".join(struct.pack("<Q", len(p)) + p for p in parts)).hexdigest()}]


def written(path, events):
    path.write_text("".join(json.dumps(e) + "\n" for e in events))
    return path


def sound_and_tampered():
    """a sound host has no finding; each tampering with store or export is named, with its bundle or event"""
    with World(source={"quiet": "0s"}, destination={"bundle_size": "64KiB"}) as w:
        export = day(w)
        summary, findings = audit(w, export, "--deep", "--max-age", "1h", status=(0,))
        equal(findings, [], "findings of a sound host")
        equal((summary["captures"], summary["bundles"], summary["in_store"]), (12, summary["receipted"], summary["receipted"]), "totals")
        check(summary["checkpoints"] > 0, "the store has checkpoints")
        bundles = sorted(w.store.rglob("*.cms"))
        check(len(bundles) >= 4, f"{len(bundles)} bundles")

        def tampered(change):
            store = w.dir / "other-store"
            shutil.copytree(w.store, store)
            try:
                change(store, [store / b.relative_to(w.store) for b in bundles])
                return audit(w, export, "--deep", store=store)[1]
            finally:
                shutil.rmtree(store)

        def one_more(age_s):
            # another bundle, that the ledger never sealed, whose packing began so long before the export's end
            at_ms = json.loads(export.read_text().splitlines()[-1])["at_ns"] // 1_000_000 - age_s * 1000
            name = f"{at_ms >> 16:08x}-{at_ms & 0xffff:04x}-7000-8000-000000000000.cms"
            return tampered(lambda store, all_of_them: shutil.copy(all_of_them[0], all_of_them[0].with_name(name)))

        equal(tampered(lambda s, b: b[0].unlink()), [("lacking", bundles[0].stem)], "a bundle that the agency lacks")
        equal(tampered(lambda s, b: os.truncate(b[1], 100)), [("different", bundles[1].stem)], "a bundle that was cut")
        def flip(store, b):
            raw = bytearray(b[2].read_bytes())
            raw[50] ^= 1
            b[2].write_bytes(raw)
        equal(tampered(flip), [("different", bundles[2].stem)], "a bundle with another byte")
        equal([f[0] for f in one_more(605)], ["unknown"], "a bundle that the ledger does not know")
        equal(one_more(590), [], "a bundle that may have been in the making when the export ended")

        def one_of_2099(age_s):
            def change(store, all_of_them):
                place = store / HOST / "2099" / "01" / "01" / f"03b5{'0' * 4}-0000-7000-8000-000000000000.cms"
                place.parent.mkdir(parents=True)
                shutil.copy(all_of_them[0], place)
                os.utime(place, (time.time() - age_s, time.time() - age_s))
            return tampered(change)
        equal(one_of_2099(0), [], "a bundle that came after the export")
        equal([f[0] for f in one_of_2099(7200)], ["unknown"], "a bundle that came before its end, whatever its id says")

        events = [json.loads(line) for line in export.read_text().splitlines()]
        other = w.dir / "other.jsonl"
        middle = len(events) // 8  # early: the checkpoint that came with the last bundle covers it
        edited = json.loads(json.dumps(events))
        edited[middle]["detail"] += "x"
        check(("ledger-broken", str(edited[middle]["sequence"])) in audit(w, written(other, edited))[1], "an event was edited")
        check(("ledger-broken", str(middle + 1)) in audit(w, written(other, events[:middle] + events[middle + 1:]))[1], "an event was left out")
        check("ledger-rewritten" in [f[0] for f in audit(w, written(other, chained(edited)))[1]], "all hashes were written anew")
        check(("ledger-short", str(middle + 1)) in audit(w, written(other, events[:middle]))[1], "the end was cut off")
        # what a host would rather not tell, called emptied: by an event that empties nothing, by none, by an earlier one
        wiped = next(i for i, e in enumerate(events) if e["kind"] == "captures-wiped")
        for by in (len(events), len(events) + 7, 1):
            hidden = json.loads(json.dumps(events))
            hidden[wiped] |= {"kind": "pruned", "subject": "", "detail": "", "at_ns": by}
            check("ledger-broken" in [f[0] for f in audit(w, written(other, hidden))[1]], f"an event that event {by} is said to have emptied")
        # what the policy asked for
        names = [f[0] for f in audit(w, export, "--require", "crypto-erased")[1]]
        equal((len(names), set(names)), (12, {"weak-wipe"}), "wipes below a requirement")
        names = [f[0] for f in audit(w, export, "--max-age", "1ms")[1]]
        equal((len(names), set(names)), (12, {"overstayed"}), "captures that stayed for too long")
        check("12 captures" in receiver("audit", "--store", w.store, "--host", HOST, "--ledger", export), "the table")


def anchored():
    """how much of a history the agency was shown is said; one that it was shown nothing of, or nothing of for long, is a finding"""
    with World(source={"quiet": "0s"}, destination={"bundle_size": "64KiB"}) as w:
        export = day(w)
        events = [json.loads(line) for line in export.read_text().splitlines()]
        notes = w.store / HOST / "checkpoints"
        kept = notes.read_text()
        newest = max(int(line) for line in kept.splitlines() if line.isdigit())
        summary, findings = audit(w, export, status=(0,))
        equal((findings, summary["anchored"], summary["events"]), ([], newest, len(events)), "a sound host")
        equal(summary["anchored_at"], kept.split("time ")[-1].split("\n")[0], "when")
        said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", export, status=(0,))
        check(f"anchored up to event {newest} of {len(events)} ({summary['anchored_at']})\n" in said, said)
        invented = written(w.dir / "invented.jsonl", chained([e | {"detail": "x=1" if e["kind"] == "agent-started" else e["detail"]} for e in events]))
        early = written(w.dir / "early.jsonl", chained([{**events[0], "detail": "x=1"}]))
        later = json.loads(json.dumps(events))
        later[-1]["at_ns"] += 3_600_000_000_000
        later = written(w.dir / "later.jsonl", chained(later))
        summary, findings = audit(w, invented)
        check("ledger-rewritten" in [f[0] for f in findings] and summary["anchored"] < newest, f"rewritten: {findings}, {summary}")

        def says(ledger, *want):
            summary, findings = audit(w, ledger, status=(1,) if want else (0,))
            equal([f for f in findings if f[0] != "unknown"], [(f, "-") for f in want], str(ledger))
            return summary
        # the checkpoints are gone; receipts still name one
        notes.unlink()
        for ledger in (export, invented, early):
            equal(says(ledger, "unanchored")["anchored"], 0, "nothing is anchored")
        said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", invented, status=(1,))
        check(f"anchored up to event 0 of {len(events)}\n" in said and f"receipts in the store name a checkpoint of {newest} events" in said, said)
        # of the newest alone
        first = kept.index("\n", kept.index("\n\n\u2014") + 2) + 1
        notes.write_text(kept[:first])
        says(export, "unanchored")
        # and no receipt names one: bundles that came before the export's end say so, others can't
        notes.unlink()
        receipts = {p: p.read_text() for p in w.store.rglob("*.receipt")}
        for path in receipts:
            path.unlink()
        says(export)
        says(later, "unanchored")
        # bundles go on coming and checkpoints do not
        notes.write_text(kept)
        at = time.time()
        for path, text in receipts.items():
            path.write_text(text)
        one = max(receipts)
        for hours, want in ((23, ()), (25, ("unanchored",))):
            one.write_text("\n".join(f"received: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at + hours * 3600))}" if line.startswith("received: ") else line
                                     for line in receipts[one].split("\n")))
            says(export, *want)


def emptied(events, hide, at_ns, **said):
    """The events with those emptied, and one that says so; a prune says what `said` does not."""
    by, digest = len(events) + 1, hashlib.sha256()
    hidden = [e for e in events if hide(e)]
    for e in hidden:
        digest.update(struct.pack("<Q", e["sequence"]))
    says = {"before": at_ns, "captures": sum(e["kind"] == "capture-seen" for e in hidden), "bundles": sum(e["kind"] == "bundle-sealed" for e in hidden),
            "events": len(hidden), "digest": digest.hexdigest(), "covered": max(e["sequence"] for e in hidden)} | said
    events = [{**e, "kind": "pruned", "subject": "", "detail": "", "at_ns": by} if hide(e) else e for e in events]
    return appended(events, "ledger-pruned", " ".join(f"{k}={v}" for k, v in says.items() if v is not None), at_ns)


def emptied_to_hide():
    """a host that empties what it would rather not tell: more than was acknowledged, more than it says, newer than it says; an honest prune is told, too"""
    with World(source={"quiet": "0s"}) as w:
        w.start()
        for name in "abcd":
            w.write(f"{name}.jpg", os.urandom(1000))
            w.settled()
        w.agent.stop()
        events = [json.loads(line) for line in w.cede("ledger", "export", "--json", "--state", w.state).splitlines()]
        bundles = [e["subject"] for e in events if e["kind"] == "bundle-sealed"]
        newest = max(int(line) for line in (w.store / HOST / "checkpoints").read_text().splitlines() if line.isdigit())
        ends = {e["subject"]: e["sequence"] for e in events if e["kind"] == "bundle-done"}
        acknowledged = [b for b in bundles if ends[b] <= newest]
        equal((len(bundles), len(acknowledged)), (4, 3), "bundles, and those of which all was acknowledged")
        at_ns = events[-1]["at_ns"] + 3_600_000_000_000  # an hour later: every bundle is one that the ledger must know
        captures = {}
        for e in events:
            if e["kind"] == "bundle-sealed":
                captures[e["detail"].split("members=")[1].split(":")[0]] = e["subject"]
        owner = {e["subject"]: captures[e["detail"].split("row=")[1].split()[0]] for e in events if e["kind"] == "capture-seen"}
        owner |= {b: b for b in bundles}
        other = w.dir / "other.jsonl"

        def is_of(these):
            return lambda e: owner.get(e["subject"]) in these

        def says(what, forged, *want, more=()):
            summary, findings = audit(w, written(other, forged), *more, status=(1,) if want else (0,))
            equal(sorted(findings), sorted(want), what)
            return summary
        def unknown(these):
            return [("unknown", b) for b in these]
        pruning = str(len(events) + 1)
        broken, told = ("ledger-broken", pruning), ("emptied", pruning)

        honest = emptied(events, is_of(acknowledged), at_ns, covered=newest)
        summary = says("as a prune does it", honest, told)
        equal((summary["pruned_captures"], summary["pruned_bundles"], summary["pruned"]), (3, 3, sum(map(is_of(acknowledged), events))), "what was pruned")
        equal(summary["pruned_before"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ns // 10**9)), "and until when")
        says("as a prune does it, and that is accepted", honest, more=["--allow-pruned"])
        said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", other, status=(1,))
        check(f"pruned: 3 captures in 3 bundles of before {summary['pruned_before']}\n" in said, said)

        # everything, by an event that says as little as it can
        says("all of it", emptied(events, is_of(bundles), at_ns, before=1, captures=1, bundles=1, covered=1), broken, *unknown(bundles))
        says("more than it says was acknowledged", emptied(events, is_of(bundles), at_ns, covered=newest), broken, *unknown(bundles))
        says("more than the agency was shown", emptied(events, is_of(bundles), at_ns), broken, *unknown(bundles))
        says("acknowledged before it was", emptied(events, is_of(acknowledged), at_ns, covered=len(events) + 1), broken, *unknown(acknowledged))
        for key in ("before", "captures", "bundles", "covered"):
            says(f"without {key}", emptied(events, is_of(acknowledged), at_ns, **{"covered": newest, key: None}), broken, *unknown(acknowledged))
        says("more bundles than events", emptied(events, is_of(acknowledged), at_ns, covered=newest, bundles=99), broken, *unknown(acknowledged))
        # three bundles are gone and it says one: whichever that is
        summary, findings = audit(w, written(other, emptied(events, is_of(acknowledged), at_ns, covered=newest, bundles=1)), status=(1,))
        equal([f[0] for f in findings], ["emptied", "unknown", "unknown"], "more bundles than it says")
        says("newer than it says", emptied(events, is_of(acknowledged), at_ns, covered=newest, before=1), told, *unknown(acknowledged))
        middle = next(e["at_ns"] for e in events if e["kind"] == "bundle-done" and e["subject"] == acknowledged[0])
        says("two of them newer than it says", emptied(events, is_of(acknowledged), at_ns, covered=newest, before=middle), told, *unknown(acknowledged[1:]))
        # bundles for another agency may have been acknowledged by that one: this one can't know, and it explains none of its own
        elsewhere = appended(events, "bundle-sealed", f"row=9 destination=elsewhere size=1 sha256={0:064x} captures=0", at_ns, subject=str(uuid.UUID(int=(1 << 80) | 7 << 76 | 2 << 62)))
        for more in ((), ("--allow-pruned",)):
            says("more than this agency was shown", emptied(elsewhere, is_of(acknowledged), at_ns, covered=newest + 1), ("emptied", str(len(elsewhere) + 1)),
                 *unknown(acknowledged), more=more)


def several_agencies():
    """a host that hands over to several agencies: what the others have is lacking nowhere; what is missing here, or everything, still is"""
    with World(source={"quiet": "0s"}, destination={"bundle_size": "64KiB"}) as w:
        events = [json.loads(line) for line in day(w).read_text().splitlines()]
        receipted = {e["subject"] for e in events if e["kind"] == "bundle-receipted"}
        bundles = [e["subject"] for e in events if e["kind"] == "bundle-sealed" and e["subject"] in receipted]
        check(len(bundles) >= 4, f"{len(bundles)} bundles")
        theirs = bundles[1::2]
        ours = bundles[0::2]

        def to_another(e):
            if e["subject"] in theirs and e["kind"] == "bundle-sealed":
                return e | {"detail": " ".join("destination=another" if p.startswith("destination=") else p for p in e["detail"].split(" "))}
            return e
        alone = written(w.dir / "alone.jsonl", events)
        shared = written(w.dir / "shared.jsonl", chained([to_another(e) for e in events]))

        def says(what, export, gone, lacking, elsewhere=0):
            store = w.dir / "other-store"
            shutil.copytree(w.store, store)
            for path in store.rglob("*.cms"):
                if path.stem in gone:
                    path.unlink()
            summary, findings = audit(w, export, store=store)
            shutil.rmtree(store)
            equal((sorted(f for f in findings if f[0] == "lacking"), summary["elsewhere"]), (sorted(("lacking", b) for b in lacking), elsewhere), what)

        says("one agency, and nothing is there", alone, bundles, bundles)
        says("all is there", shared, [], [])
        says("those of the other are not", shared, theirs, [], len(theirs))
        says("and one of ours", shared, theirs + ours[:1], ours[:1], len(theirs))
        says("one of the other's is", shared, theirs[1:], theirs[1:])
        says("nothing is there", shared, bundles, ["-"], len(bundles))
        said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", shared)
        check("elsewhere" not in said, said)
        for path in w.store.rglob("*.cms"):
            if path.stem in theirs:
                path.unlink()
        said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", shared)
        check(f"elsewhere: {len(theirs)} bundles that another destination has, as the host says\n" in said, said)


def begun_anew():
    """a host that pruned, and then was let begin anew by the agency: its checkpoints begin behind the prune and contradict nothing; one of before it does"""
    with World(source={"quiet": "0s"}, destination={"bundle_size": "64KiB"}) as w:
        day(w)
        w.cede("ledger", "prune", "--before", "2200-01-01T00:00:00Z", "--state", w.state)
        notes = w.store / HOST / "checkpoints"
        earlier = notes.read_text()
        for name in ("checkpoints", "ledger.pub"):
            (w.store / HOST / name).rename(w.dir / name)
        w.write("later.jpg", os.urandom(40000))
        w.start_agent()
        w.settled()
        w.agent.stop()
        export = w.dir / "export.jsonl"
        export.write_text(w.cede("ledger", "export", "--json", "--state", w.state))
        prune = next(json.loads(line) for line in export.read_text().splitlines() if '"ledger-pruned"' in line)
        check(all(int(line) > prune["sequence"] for line in notes.read_text().splitlines() if line.isdigit()), "checkpoints of before the prune")
        equal(audit(w, export, "--allow-pruned", status=(0,))[1], [], "begun anew")
        equal(audit(w, export)[1], [("emptied", str(prune["sequence"]))], "what was pruned is told")
        # with the first of those that were moved away: up to then the agency had seen less than the prune says
        first = earlier[:earlier.index("\n", earlier.index("\n\n\u2014") + 2) + 1]
        notes.write_text(first + "\n" + notes.read_text())
        equal(audit(w, export, "--allow-pruned")[1], [("ledger-broken", str(prune["sequence"]))], "pruned beyond what the agency was shown")


def while_it_runs():
    """an export of a running host that ends while a bundle is in the making accuses nobody; ten minutes later the same bundle would be unknown"""
    with World(source={"quiet": "0s"}) as w:
        events = [json.loads(line) for line in day(w).read_text().splitlines()]
        other = w.dir / "other.jsonl"
        cut = next(i for i, e in enumerate(events) if e["kind"] == "bundle-sealed")
        bundle = uuid.UUID(events[cut]["subject"])
        began_ns = (bundle.int >> 80) * 1_000_000  # packing began
        check(began_ns <= events[cut]["at_ns"], "a bundle's id is older than its event")
        # as it was before the event, and something else was told meanwhile: the agency has more, and says just that
        until_then = events[:cut]
        for later_s, want in ((0, set()), (590, set()), (605, {str(bundle)})):
            until_then[-1]["at_ns"] = began_ns + later_s * 1_000_000_000
            found = [f for f in audit(w, written(other, chained(until_then)), status=(1,))[1] if f[0] == "unknown"]
            check(want <= {f[1] for f in found} and (want or not found), f"{later_s} s after its packing began: {found}")


def beside_a_receiver():
    """an audit reads the checkpoints first, and bundles come meanwhile: a receipt that names a newer checkpoint accuses nobody, if that one is kept"""
    with World(source={"quiet": "0s"}, destination={"bundle_size": "64KiB"}) as w:
        export = day(w).read_bytes()
        notes = w.store / HOST / "checkpoints"
        kept = notes.read_text()
        first = kept[:kept.index("\n", kept.index("\n\n\u2014") + 2) + 1]
        check(len(first) < len(kept), "there is more than one checkpoint")
        pipe = w.dir / "pipe"
        os.mkfifo(pipe)

        def meanwhile(then):
            """The findings, if that happens to the store once the audit has read the checkpoints."""
            notes.write_text(first)
            audit_ = subprocess.Popen([program("cede-receiver"), "audit", "--store", w.store, "--host", HOST, "--ledger", pipe, "--json"],
                                      stdout=subprocess.PIPE, text=True)
            with pipe.open("wb", buffering=0) as f:
                f.write(export[:1000])
                until(lambda: struct.unpack("i", fcntl.ioctl(f, termios.FIONREAD, bytes(4)))[0] == 0, 10, "it reads the export")
                then()
                f.write(export[1000:])
            lines = audit_.communicate(timeout=60)[0].splitlines()
            return [(o["finding"], o["subject"]) for o in map(json.loads, lines[:-1])]

        equal(meanwhile(lambda: None), [("unanchored", "-")], "the newer ones were cut off")
        equal(meanwhile(lambda: notes.write_text(kept)), [], "they came meanwhile")
        equal(meanwhile(notes.unlink), [("unanchored", "-")], "all of them were removed")


def hostile():
    """what is no export, no host, no store is said with its line; nothing crashes"""
    with World(source={"quiet": "0s"}) as w:
        export = day(w)
        lines = export.read_text().splitlines()
        bad = w.dir / "bad.jsonl"
        for text, words in (("nonsense\n", "line 1"), (lines[0] + "\n{}\n", "line 2"), (lines[0][:-20] + "\n", "line 1"),
                            (lines[0] + "\n[1]\n", "line 2"), (lines[0].replace('"sequence":1', '"sequence":-1') + "\n", "line 1"),
                            ("\0" * 100 + "\n", "line 1")):
            bad.write_text(text)
            said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", bad, status=(2,))
            check(words in said, f"{text[:40]!r}: {said}")
        events = [json.loads(line) for line in lines]
        for e in events:
            if e["kind"] == "captures-wiped":
                e["detail"] = "level=removed rows=1-99999999999999"
        receiver("audit", "--store", w.store, "--host", HOST, "--ledger", written(bad, events), status=(2,))
        for host in ("nobody", "../x", ""):
            receiver("audit", "--store", w.store, "--host", host, "--ledger", export, status=(2,))
        receiver("audit", "--store", w.dir / "nowhere", "--host", HOST, "--ledger", export, status=(2, 3))
        receiver("audit", "--host", HOST, status=(2,))
        receiver("report", status=(2,))


def bounded(*words, cpu_s=10, memory_mb=256):
    """(status, output) of cede-receiver, which gets so much of the machine and no more; a sanitizer takes what it wants."""
    sanitized = is_sanitized()

    def limit():
        if sanitized:
            return
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    done = subprocess.run([program("cede-receiver"), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          preexec_fn=limit, timeout=120, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def of_events(path, events):
    """An export whose hashes are none: one finding, and everything else is looked at all the same."""
    with path.open("w") as f:
        for number, (kind, subject, detail, at_ns) in enumerate(events, 1):
            f.write(f'{{"sequence":{number},"at_ns":{at_ns},"kind":"{kind}","subject":"{subject}","detail":"{detail}","hash":"{number:064x}"}}\n')
    return path


def costly():
    """exports that would take the square of their size, or all memory: the audit ends, within seconds and megabytes"""
    with World(receiver=False) as w:
        (w.store / HOST).mkdir()
        export = w.dir / "export.jsonl"

        def must_end(words, status, what, **limits):
            got, said = bounded("audit", "--store", w.store, "--host", HOST, "--ledger", *words, **limits)
            check((got, what in said) == (status, True), f"status {got}, expected {status}: {said[-300:]!r}")

        number = 100_000
        ids = [uuid.UUID(int=(1 << 80) | 7 << 76 | 2 << 62 | n) for n in range(number)]
        of_events(export, [("bundle-sealed", i, f"size=1 sha256={0:064x}", 1) for i in ids] + [("bundle-receipted", i, "", 1) for i in ids])
        must_end([export], 1, f"{number} bundles of which {number} receipted", memory_mb=512)
        of_events(export, [("bundle-sealed", i, f"destination={n} size=1 sha256={0:064x}", 1) for n, i in enumerate(ids)] + [("bundle-receipted", i, "", 1) for i in ids])
        must_end([export], 1, f"elsewhere: {number} bundles", memory_mb=512)
        of_events(export, [("pruned", "", "", 10 * number + n) for n in range(2 * number)])
        must_end([export], 1, f"{2 * number} emptied", memory_mb=1024)
        rows = ",".join(["1-1000"] * 500)
        of_events(export, [("capture-seen", i, f"row={n} born=1", 1) for n, i in enumerate(ids[:1000], 1)] + [("captures-wiped", ids[0], f"level=removed rows={rows}", 2)])
        must_end([export], 2, "line 1001: the same rows are wiped again and again")
        rows = ",".join(str(n) for n in range(1, 2 * number, 2))
        of_events(export, [("capture-seen", ids[0], f"row={n} born=1", 1) for n in range(1, 2 * number)] + [("captures-wiped", ids[0], f"rows={rows}", 2)] * 16)
        must_end([export], 1, f"{2 * number - 1} captures")
        must_end(["/dev/zero"], 2, "line 1: too long", memory_mb=32)
        export.write_text("[" + "{}," * 1_300_000 + "{}]\n")
        must_end([export], 2, "line 1: not an event", memory_mb=32)


def many_checkpoints():
    """300 MiB of checkpoints take no more memory than 300; what is damaged among them is a finding, and those behind it are compared"""
    with World(source={"quiet": "0s"}) as w:
        w.start()
        for name in "abcd":
            w.write(f"{name}.jpg", os.urandom(1000))
            w.settled()
        w.agent.stop()
        export = w.dir / "export.jsonl"
        export.write_text(w.cede("ledger", "export", "--json", "--state", w.state))
        kept = w.store / HOST / "checkpoints"
        notes = kept.read_bytes()
        count = notes.count(b"\ntime ")
        check(count >= 3, f"{count} checkpoints")
        with kept.open("wb") as f:
            for _ in range(300):
                f.write(b"\n" * (1 << 20))
            f.write(notes)
        status, said = bounded("audit", "--store", w.store, "--host", HOST, "--ledger", export, memory_mb=32)
        check((status, f"{count} checkpoints; 0 findings" in said) == (0, True), f"status {status}: {said}")
        first = notes.index(b"\n\n\xe2\x80\x94") + 2
        first = notes.index(b"\n", first) + 1  # behind the first note
        for text, findings, left in ((notes[:20] + b"x" + notes[21:], 1, count - 1), (notes[:first] + b"y" * 30_000 + b"\n\n" + notes[first:], 1, count),
                                     (notes + b"\n" + notes[:first], 1, count), (notes[:-9], 1, count - 1)):
            kept.write_bytes(text)
            summary, found = audit(w, export, status=(1,))
            equal(([f[0] for f in found], summary["checkpoints"]), (["checkpoint-bad"] * findings, left), "findings, and checkpoints that are left")


def hostile_words():
    """words of an export never reach the terminal, nor break the JSON"""
    with World(receiver=False) as w:
        (w.store / HOST).mkdir()
        capture, escape = uuid.UUID(int=7 << 76 | 2 << 62), "\\u001b[2J\\u009b31m"
        for level in (escape, "\u00e9" * 40):
            export = of_events(w.dir / "export.jsonl", [("capture-seen", capture, "row=1 born=1", 1), ("captures-wiped", capture, f"level={level} rows=1", 2)])
            said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", export, "--require", "removed", status=(1,))
            check("no level that there is" in said and "\x1b" not in said and "\x9b" not in said, repr(said))
            equal(sorted(f[0] for f in audit(w, export, "--require", "removed")[1]), ["ledger-broken", "weak-wipe"], "findings")
        export = of_events(w.dir / "export.jsonl", [("capture-seen", capture, f"row=1 born={1 - 2**63}", 1), ("captures-wiped", capture, "level=removed rows=1", 2**63 - 1)])
        equal(sorted(f[0] for f in audit(w, export, "--max-age", "1h")[1]), ["ledger-broken", "overstayed"], "a stay of all time")
        for line in ("\x1b[2J", '{"a":"\x9b31m', '{"\x9b31m":1,"\x9b31m":2}'):
            (w.dir / "export.jsonl").write_text(line + "\n")
            said = receiver("audit", "--store", w.store, "--host", HOST, "--ledger", w.dir / "export.jsonl", status=(2,))
            check("line 1" in said and "\x1b" not in said and "\x9b" not in said, repr(said))


def fleet():
    """every host with its last bundle, checkpoint, policy serial and oldest capture; one that is overdue is a finding"""
    with World(source={"quiet": "0s"}) as w:
        day(w)
        (w.store / "lane-9" / "2026").mkdir(parents=True)
        opened = w.dir / "opened"
        receiver("open", *sorted(w.store.rglob("*.cms")), "--key", w.pki / "seal.key", "--cert", w.pki / "seal.pem", "--into", opened)
        report = json.loads(receiver("report", "--store", w.store, "--opened", opened, "--max-age", "1h", "--json", status=(0,)))
        equal([h["host"] for h in report["hosts"]], [HOST, "lane-9"], "the hosts")
        mine, silent = report["hosts"]
        equal((mine["bundles"], mine["policy_serial"], mine["overdue"]), (len(list(w.store.rglob("*.cms"))), 1, False), "the one that works")
        check(mine["ledger_events"] > 0 and mine["checkpoint"] != "-" and mine["oldest_plaintext_seconds"] >= 0, f"its ledger: {mine}")
        equal((silent["last_bundle"], silent["bundles"]), ("-", 0), "the one that never sent anything")
        table = receiver("report", "--store", w.store, "--opened", opened, "--max-age", "1ms", status=(1,))
        check("OVERDUE" in table, table)


def report(w, opened, *more, status):
    """(hosts by name, what was said on standard error)"""
    done = subprocess.run([program("cede-receiver"), "report", "--store", w.store, "--opened", opened, "--json", *more], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=60)
    check(done.returncode == status, f"report: status {done.returncode}, expected {status}: {done.stdout}{done.stderr}")
    return {h["host"]: h for h in json.loads(done.stdout)["hosts"]}, done.stderr


def fleet_with_trouble():
    """a host that can't be read is named and the others are told; manifests in a folder of each host count, those in another's name do not"""
    with World(source={"quiet": "0s"}) as w:
        day(w)
        opened, mine = w.dir / "opened", w.dir / "opened" / HOST
        opened.mkdir()
        receiver("open", *sorted(w.store.rglob("*.cms")), "--key", w.pki / "seal.key", "--cert", w.pki / "seal.pem", "--into", mine)
        want = report(w, mine, status=0)[0][HOST]
        equal(want["policy_serial"], 1, "the serial of its policy")
        equal(report(w, opened, status=0)[0][HOST], want, "with a folder for each host")
        # what a host can write: a capture that has a manifest's name, in a source that has a host's
        manifest = next(mine.glob("*.manifest.json"))
        text = json.loads(manifest.read_text()) | {"created": "2099-01-01T00:00:00Z"}
        unknown = str(uuid.UUID(int=uuid.UUID(manifest.name[:36]).int ^ 1))
        (opened / f"{unknown}.manifest.json").write_text(json.dumps(text | {"bundle": unknown}))
        hosts, said = report(w, opened, status=0)
        equal(hosts[HOST], want, "a manifest of a bundle that nobody sent")
        check("1 manifests are of bundles that the store does not have" in said, said)
        (w.store / "lane-9").mkdir()
        for change in ({"host": "lane-9"}, {"bundle": unknown}):
            (opened / manifest.name).write_text(json.dumps(text | change))
            hosts, _ = report(w, opened, status=1)
            equal(hosts[HOST], want | {"forged_manifests": True}, f"a manifest that lies: {change}")
            equal(hosts["lane-9"]["opened"], "-", "what is known of the other")
        (opened / manifest.name).unlink()
        old = json.loads(manifest.read_text())
        for e in old["entries"]:
            e["mtime_ns"] = -2**63
        (opened / manifest.name).write_text(json.dumps(old | {"created": "2099-01-01T00:00:00Z"}))
        check(report(w, opened, "--max-age", "1h", status=1)[0][HOST]["overdue"], "a capture from before all time is overdue")
        (opened / manifest.name).write_text("{")
        hosts, said = report(w, opened, status=3)
        equal(hosts[HOST], want | {"unreadable": True}, "a manifest that is none")
        check(manifest.name in said, said)
        (opened / manifest.name).unlink()
        shutil.copy(w.store / HOST / "ledger.pub", w.store / "lane-9")
        (w.store / "lane-9" / "checkpoints").write_text("nonsense")
        hosts, said = report(w, opened, status=3)
        equal((hosts[HOST], hosts["lane-9"]["unreadable"]), (want, True), "the hosts")
        check("lane-9: the checkpoints of host lane-9 are damaged" in said, said)
        check("UNREADABLE" in receiver("report", "--store", w.store, status=(3,)), "the table")


def opened_all_the_same():
    """a bundle that can't be read is named, the status is 3, and those behind it are opened"""
    with World(source={"quiet": "0s"}) as w:
        day(w)
        good = sorted(w.store.rglob("*.cms"))
        (w.dir / "refused.cms").write_bytes(b"nonsense")
        words = ["--key", w.pki / "seal.key", "--cert", w.pki / "seal.pem", "--into", w.dir / "opened"]
        said = receiver("open", w.dir / "missing.cms", w.dir / "refused.cms", *good, *words, status=(3,))
        check(f"{w.dir}/missing.cms: " in said and f"{w.dir}/refused.cms: " in said, said)
        equal(len(list((w.dir / "opened" / "faces").iterdir())), 12, "captures")
        receiver("open", w.dir / "refused.cms", *good, *words, status=(1,))


if __name__ == "__main__":
    tap.run([sound_and_tampered, anchored, emptied_to_hide, several_agencies, begun_anew, while_it_runs, beside_a_receiver, hostile, costly, many_checkpoints, hostile_words, fleet, fleet_with_trouble, opened_all_the_same])
