#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cede exposure: the report equals what the test knows to have happened; the page is looked at in a real browser."""

import calendar
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Skip, check, equal
from world import World, program, until


def stamp(seconds):
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e9):09d}Z"


def exposure(w, *words, status=(0, 1)):
    return w.cede("exposure", "--state", w.state, "--host", "dev-host-1", *words, status=status)


def seconds_of(text):
    """Seconds since 1970 of a time in the report."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def lines(w, *words):
    """(summary, notes, items) of --json."""
    objects = [json.loads(line) for line in exposure(w, "--json", *words).splitlines()]
    equal((objects[0]["kind"], objects[0]["schema"]), ("summary", "cede-exposure/1"), "the first line")
    return (objects[0], [o for o in objects if o["kind"] == "note"], [o for o in objects if o["kind"] in ("plaintext", "sealed", "refused")])


def paths(items, kind="plaintext"):
    return sorted(i["path"] for i in items if i["kind"] == kind)


class Story:
    """One life of a host, with what is true of it: name -> (from, to) in the clear, as the test saw it."""

    def __init__(self, w):
        self.w, self.clear, self.marks = w, {}, {}

    def write(self, name, size=1000):
        """In the clear from before this call's end on."""
        began = time.time()
        self.w.write(name, os.urandom(size))
        self.clear[name] = [began, None]

    def mark(self, what):
        """A moment between two things: nothing else happens a little before and after it."""
        time.sleep(0.05)  # the clock's grain, not an event
        self.marks[what] = time.time()
        time.sleep(0.05)
        return self.marks[what]

    def gone(self, *names):
        for name in names:
            self.clear[name][1] = time.time()

    def expected(self, a, b):
        return sorted(n for n, (f, t) in self.clear.items() if f < b and (t is None or t > a))


def told(w):
    """A day in the life: waiting while the link is down, handed over, removed by somebody, under a hold, the agent down."""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    w.policy["holds"] = [{"id": "case-7", "match": ["held*.jpg"], "until": soon}]
    w.write_files()
    s = Story(w)
    s.mark("start")
    w.start_agent()  # the link is down
    for i in range(5):
        s.write(f"a{i}.jpg")
    s.write("stolen.jpg")
    until(lambda: w.counts()[0].get("ready", 0) + w.counts()[0].get("sealed", 0) + w.counts()[0].get("bundled", 0) == 6, 30,
          lambda: f"six are known: {w.counts()}")
    s.mark("waiting")
    os.unlink(w.capture / "stolen.jpg")
    w.start_receiver()
    until(lambda: w.counts()[0].get("wiped") == 5 and w.counts()[0].get("gone") == 1, 40, "five are wiped, and one is missed")
    s.gone(*[f"a{i}.jpg" for i in range(5)], "stolen.jpg")  # in the clear until it was missed, at the latest
    s.mark("handed over")
    s.write("held.jpg")
    until(lambda: w.counts()[0].get("held") == 1, 30, "one is held")
    s.mark("held")
    w.agent.stop()
    s.mark("down")
    w.start_agent()
    s.write("b.jpg")
    until(lambda: w.counts()[0].get("wiped") == 6, 30, "the last is wiped")
    s.gone("b.jpg")
    s.mark("end")
    return s


def truth():
    """for every span between its moments the report's list equals what was here; the counts, the peak, the gaps"""
    with World(source={"quiet": "0s", "classification": "SPII, \"faces\""}) as w:
        s = told(w)
        moments = sorted(s.marks.values())
        for i, a in enumerate(moments):
            for b in moments[i + 1:]:
                summary, _, items = lines(w, "--from", stamp(a), "--to", stamp(b))
                equal(paths(items), s.expected(a, b), f"in the clear from {a} to {b}")
                equal(summary["plaintext"], len(s.expected(a, b)), "the count")
        for what, names in (("waiting", [f"a{i}.jpg" for i in range(5)] + ["stolen.jpg"]), ("handed over", []), ("held", ["held.jpg"])):
            _, _, items = lines(w, "--at", stamp(s.marks[what]))
            equal(paths(items), sorted(names), f"in the clear at the moment '{what}'")
        summary, notes, items = lines(w, "--from", stamp(s.marks["start"]), "--to", stamp(s.marks["end"]))
        equal(summary["peak"], 6, "most at one moment")
        equal({i["path"]: i["end"] for i in items if i["path"] in ("stolen.jpg", "a0.jpg", "held.jpg")},
              {"stolen.jpg": "gone", "a0.jpg": "wiped", "held.jpg": None}, "how they ended")
        check(all(i["classification"] == "SPII, \"faces\"" for i in items), "the classification")
        equal(summary["groups"][0]["removed"], 1, "removed by another program")
        down = [n for n in notes if n["note"] == "agent-down" and n["from"] and n["from"] > stamp(s.marks["held"])]
        check(down and down[0]["from"] < stamp(s.marks["down"]) < down[0]["to"], f"the gap: {notes}")
        _, notes, _ = lines(w, "--from", stamp(s.marks["waiting"]), "--to", stamp(s.marks["handed over"]))
        equal([n["note"] for n in notes], ["no-guard"], "what can't be excluded while the agent ran")
        w.verify_ledger()


def sealed_in_spool():
    """what was wiped after sealing is listed as sealed from its bundle's durable copy to its receipt"""
    wipe = {"after": "seal", "method": "overwrite", "require": "none"}
    with World(source={"quiet": "0s", "wipe": wipe}, receiver=False) as w:
        a = time.time()
        w.start_agent()
        for i in range(4):
            w.write(f"{i}.jpg", os.urandom(500))
        until(lambda: w.counts()[0].get("wiped") == 4, 30, "all are wiped")
        time.sleep(0.05)  # the clock's grain
        b = time.time()
        _, _, items = lines(w, "--at", stamp(b))
        equal((paths(items), paths(items, "sealed")), ([], [f"{i}.jpg" for i in range(4)]), "with the link down")
        w.start_receiver()
        until(lambda: not list((w.state / "spool").glob("*.cms")), 30, "the spool is empty")
        w.idle()
        time.sleep(0.05)  # the clock's grain
        _, _, items = lines(w, "--at", stamp(time.time()))
        equal(items, [], "after the receipts")
        summary, _, items = lines(w, "--from", stamp(a), "--to", stamp(time.time()))
        equal((summary["plaintext"], summary["sealed"]), (4, 4), "over all")
        check(all(i["end"] == "receipted" for i in items if i["kind"] == "sealed"), "how they ended")


def refused():
    """what cede left alone was in the clear: it is listed with its reason, counted, and the exit status says so"""
    with World(source={"quiet": "0s", "max_size": "10B"}) as w:
        w.start()
        a = time.time()
        w.write("=large.jpg", b"x" * 22, want=False)
        (w.dir / "other-name").write_bytes(b"x")
        os.link(w.dir / "other-name", w.capture / "linked.jpg")
        w.write("notes.txt", b"x", want=False)
        os.symlink("/nonexistent", w.capture / "link.jpg")

        def told():
            return sum("capture-refused" in line for line in w.cede("ledger", "events", "--state", w.state, status=(0, 3)).splitlines()) >= 4
        until(told, 60, "four are refused")
        b = stamp(time.time())
        time.sleep(0.05)  # the clock's grain
        w.write("small.jpg", b"y" * 3, want=False)
        until(lambda: w.counts()[0].get("wiped", 0) > 0, 60, "one is handed over")
        summary, notes, items = lines(w, "--at", b)
        want = {"=large.jpg": "too-large", "linked.jpg": "hard-link", "notes.txt": "unmatched"}
        left = {i["path"]: i for i in items if i["kind"] == "refused"}
        equal({p: i["end"] for p, i in left.items()}, want, "what was left alone, and why")
        check(all(i["to"] is None and i["id"] is None and a - 1 < seconds_of(i["from"]) for i in left.values()), f"{left}")
        equal((summary["plaintext"], summary["refused"]), (0, 3), "the counts")
        equal([n["note"] for n in notes if n["gap"]], ["no-guard", "refused"], "what can't be excluded")
        table = exposure(w, "--at", b, "--html", w.dir / "page.html", status=(1,))
        check("files left alone, in the clear                   3" in table and "too-large" in table, table)
        check("3 files lay here in the clear" in (w.dir / "page.html").read_text(), "the page")
        rows = list(csv.DictReader(io.StringIO(exposure(w, "--at", b, "--csv", status=(1,)))))
        equal({(r["form"], r["path"], r["end"], r["to"]) for r in rows},
              {("refused", "'" * (p[0] == "=") + p, why, "") for p, why in want.items()}, "the CSV")
        check(".jpg" not in exposure(w, "--at", b, "--no-names", status=(1,)), "no names where none are wanted")


def sealed_and_lost():
    """a bundle that was taken out of the spool: what had been wiped on its proof was sealed here until it was missed, and is named"""
    wipe = {"after": "seal", "method": "overwrite", "require": "none"}
    with World(source={"quiet": "0s", "wipe": wipe}, receiver=False) as w:
        a = stamp(time.time() - 1)
        w.start_agent()
        w.write("a.jpg", os.urandom(500), want=False)
        until(lambda: w.counts()[0].get("wiped") == 1, 60, "it is wiped")
        equal(w.agent.stop(), 0, "exit status")
        for bundle in (w.state / "spool").glob("*.cms"):
            bundle.unlink()
        w.start_receiver()
        w.start_agent()
        until(lambda: "bundle-abandoned" in w.cede("ledger", "events", "--state", w.state), 60, "it is missed")
        _, notes, items = lines(w, "--from", a, "--to", stamp(time.time()))
        equal([(i["path"], i["end"]) for i in items if i["kind"] == "sealed"], [("a.jpg", "abandoned")], "what was sealed")
        check([n for n in notes if n["note"] == "sealed-lost" and n["gap"]], f"{notes}")


def pruned():
    """what was taken out of the ledger is said, and the time in which nobody watched counts from the stop, whatever came after it"""
    with World(source={"quiet": "0s"}) as w:
        a = time.time()
        w.start()
        for i in range(3):  # the newest bundle stays
            w.write(f"{i}.jpg", os.urandom(500))
            w.settled()
        w.idle()
        b = time.time()
        w.agent.stop()
        time.sleep(0.1)  # the clock's grain
        stopped = time.time()
        _, notes, items = lines(w, "--from", stamp(a), "--to", stamp(b))
        check(len(items) == 3 and not [n for n in notes if n["note"] == "pruned"], f"{notes}")
        w.cede("ledger", "prune", "--state", w.state, "--before", "2200-01-01T00:00:00Z")
        _, notes, items = lines(w, "--from", stamp(a), "--to", stamp(b))
        told = [n for n in notes if n["note"] == "pruned"]
        check(0 < len(items) < 3 and told and told[0]["gap"] and f"{3 - len(items)} captures" in told[0]["text"], f"{items} {notes}")
        w.start_agent()
        until(lambda: w.status()["agent"]["running"], 20, "it runs")
        _, notes, _ = lines(w, "--from", stamp(stopped), "--to", stamp(stopped + 0.01))
        check([n for n in notes if n["note"] == "agent-down"], f"nobody watched behind the stop: {notes}")
        w.verify_ledger()


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    raise Skip("there is no Chromium to look at the page with (Debian package chromium)")


def pixels(png):
    """(width, height, rows of RGB or RGBA bytes) of a PNG of 8 bits without interlace."""
    data, at, idat = png.read_bytes(), 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", data[at + 8:at + 18])
            check(depth == 8 and colour in (2, 6), "an ordinary screenshot")
        elif kind == b"IDAT":
            idat += data[at + 8:at + 8 + n]
        at += 12 + n
    size = 3 if colour == 2 else 4
    raw, rows, before = zlib.decompress(idat), [], bytearray(width * size)
    for y in range(height):
        filtered, line = raw[y * (width * size + 1)], bytearray(raw[y * (width * size + 1) + 1:(y + 1) * (width * size + 1)])
        for x in range(len(line)):
            left, up, corner = line[x - size] if x >= size else 0, before[x], before[x - size] if x >= size else 0
            if filtered == 1:
                line[x] = (line[x] + left) & 255
            elif filtered == 2:
                line[x] = (line[x] + up) & 255
            elif filtered == 3:
                line[x] = (line[x] + (left + up) // 2) & 255
            elif filtered == 4:
                p = left + up - corner
                best = min((left, up, corner), key=lambda v: abs(p - v))
                line[x] = (line[x] + best) & 255
        rows.append(line)
        before = line
    return width, height, size, rows


def page():
    """the page: self-contained, hostile names escaped, the list's digest right; a real browser shows figures and curve"""
    with World(source={"quiet": "0s"}) as w:
        a = time.time()
        hostile = "<img src=x onerror=alert(1)>.jpg"
        w.write(hostile, b"x" * 100)
        for i in range(30):
            w.write(f"{i}.jpg", os.urandom(300))
        w.start_agent()
        until(lambda: w.counts()[0].get("ready", 0) + w.counts()[0].get("bundled", 0) + w.counts()[0].get("sealed", 0) == 31, 30, "all are known")
        w.start_receiver()
        w.settled()
        span = ("--from", stamp(a - 5), "--to", stamp(time.time() + 1))
        table = exposure(w, *span, "--html", w.dir / "page.html")
        check("captures in the clear on this host              31" in table, table[:500])
        text = (w.dir / "page.html").read_text()
        check("<img" not in text and "onerror=alert(1)&gt;" in text.replace("%20", " "), "the hostile name is escaped")
        check(not re.search(r"<script|<[^>]*\b(src|href)=|url\(|@import", text), "it loads nothing and runs nothing")
        listing = exposure(w, *span, "--csv")
        rows = list(csv.reader(io.StringIO(listing)))
        equal((rows[0][0], len(rows)), ("form", 32), "the CSV")
        raw = subprocess.run([program("cede"), "exposure", "--state", w.state, *span, "--csv"], capture_output=True).stdout
        check(hashlib.sha256(raw).hexdigest() in text, "the digest of the list stands on the page")
        without = exposure(w, *span, "--csv", "--no-names")
        check("onerror" not in without and ".jpg" not in without, "no names where none are wanted")
        browser = chromium()
        done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1400",
                               f"--user-data-dir={w.dir / 'profile'}", f"--screenshot={w.dir / 'page.png'}", f"file://{w.dir / 'page.html'}"],
                              capture_output=True, text=True, timeout=120)
        check((w.dir / "page.png").is_file(), f"no screenshot: {done.stderr[-500:]}")
        width, height, size, rows = pixels(w.dir / "page.png")
        red = [(x, y) for y in range(0, height, 2) for x in range(0, width, 2)
               if rows[y][x * size] > 180 and 60 < rows[y][x * size + 1] < 190 and abs(rows[y][x * size + 1] - rows[y][x * size + 2]) < 12]
        check(len(red) > 50, f"{len(red)} red points: the curve is not to be seen")
        dark = sum(rows[y][x * size] < 80 for y in range(0, 200, 2) for x in range(0, width, 2))
        check(dark > 100, "heading and figures are not to be seen")
        if os.environ.get("CEDE_PICTURES"):
            shutil.copy(w.dir / "page.png", os.environ["CEDE_PICTURES"])


def usage():
    """bad usage and bad times are named; a ledger that is not there is said"""
    with World() as w:
        for words, text in ((["--from", "yesterday", "--to", "2026-01-01T00:00:00Z"], "--from"),
                            (["--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], "later than --from"),
                            (["--at", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], "usage"),
                            (["--from", "2026-01-01T00:00:00Z"], "usage")):
            done = subprocess.run([program("cede"), "exposure", "--state", w.state, *words], capture_output=True, text=True)
            check(done.returncode == 2 and text in done.stderr, f"{words}: {done.returncode} {done.stderr}")
        done = subprocess.run([program("cede"), "exposure", "--state", w.state, "--at", "2026-01-01T00:00:00Z"], capture_output=True, text=True)
        check(done.returncode == 3 and "no ledger yet" in done.stderr, f"{done.returncode} {done.stderr}")


def one_source():
    """--source narrows the report, which says so; a name that the ledger does not know is refused"""
    with World(source={"quiet": "0s"}) as w:
        (w.dir / "plates").mkdir()
        other = {**w.source, "name": "plates", "path": str(w.dir / "plates")}
        never = {**w.source, "name": "never", "path": str(w.dir / "never")}
        w.policy["sources"] += [other, never]
        w.write_files()
        a = stamp(time.time() - 1)
        w.start()
        w.write("a.jpg", b"x", want=False)
        until(lambda: w.counts()[0].get("wiped", 0) > 0, 60, "one is handed over")
        until(lambda: "source=never" in w.cede("ledger", "events", "--state", w.state), 60, "one is missed")
        span = ("--from", a, "--to", stamp(time.time()))
        for source, count in (("faces", 1), ("plates", 0), ("never", 0)):
            summary, _, items = lines(w, *span, "--source", source)
            equal((summary["source"], summary["plaintext"], len(items)), (source, count, count), source)
            check(f"only of the source {source}\n" in exposure(w, *span, "--source", source), "the text says it")
        equal(lines(w, *span)[0]["source"], None, "of all")
        done = subprocess.run([program("cede"), "exposure", "--state", w.state, *span, "--source", "facse"], capture_output=True, text=True)
        check(done.returncode == 2 and done.stdout == "", f"{done.returncode} {done.stdout}")
        check("--source facse: the ledger knows no such source; it has: faces, plates" in done.stderr, done.stderr)


if __name__ == "__main__":
    tap.run([truth, sealed_in_spool, refused, one_source, sealed_and_lost, pruned, page, usage])
