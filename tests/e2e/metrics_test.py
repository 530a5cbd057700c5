#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The metrics endpoint: what it serves, when it is red, what it costs."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from disk import needs_root, run
from metrics import get, metric, parse
from tap import Skip, check, equal, mode
from world import TOP, World, free_port, program, until

GOLDEN = TOP / "tests" / "golden" / "metrics.txt"
OPEN = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def with_metrics(w, address=None):
    w.config["metrics"] = address or f"127.0.0.1:{free_port()}"
    return w.write_files()


def page(w, path="/metrics", headers=()):
    return get(w.config["metrics"], path, headers)


def answers(w, path="/metrics", status=200):
    """Waits for this status; the body."""
    got = []

    def look():
        check(w.agent.alive(), f"cede run ended, status {w.agent.popen.returncode}")
        try:
            got[:] = page(w, path)
        except OSError as e:
            got[:] = [None, None, str(e)]
        return got[0] == status
    until(look, 20, lambda: f"GET {path} gives {status}: {got}")
    return got[2]


def families(text):
    """"name type labels", one line each series family, as they stand in the golden list."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    lines = set()  # the help is for people: it may change
    for name, labels, _ in parse(text):
        family = next(f for f in (name, *(name.removesuffix(s) for s in ("_bucket", "_sum", "_count"))) if f in types)
        lines.add(" ".join([family, types[family], *sorted(set(labels) - {"le"})]))
    return sorted(lines)


def promtool(*words, given=None):
    done = subprocess.run(["promtool", *map(str, words)], input=given, capture_output=True, text=True)
    equal((done.returncode, done.stdout + done.stderr), (0, ""), f"promtool {' '.join(map(str, words))}")


def series():
    """every series is there from the start, is the golden list's, and promtool finds nothing"""
    with with_metrics(World()) as w:
        w.start()
        answers(w, "/readyz")
        _, kind, text = page(w)
        equal(kind, TEXT_TYPE, "content type")
        promtool("check", "metrics", given=text)
        golden = [line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
        equal(families(text), golden, f"series against {GOLDEN.name}")
        before = {(n, tuple(sorted(l.items()))) for n, l, _ in parse(text)}
        for i in range(5):
            w.write(f"AB-{i}.jpg", b"picture" * 100)
        w.settled()
        until(lambda: metric(w, "cede_captures_wiped_total", source="faces") == 5, 10, "five are wiped")
        _, _, text = page(w)
        equal({(n, tuple(sorted(l.items()))) for n, l, _ in parse(text)} - before, set(), "series that came later")
        check("AB-" not in text and ".jpg" not in text, "a capture's name in the metrics")


def figures():
    """what is counted is what happened: captures by state, bytes, exposure, latency, receipts"""
    with with_metrics(World(receiver=False, source={"quiet": "0s"})) as w:
        w.start_agent()
        answers(w)
        w.write("a.jpg", b"x" * 1000)
        before = w.dir / "old.jpg"  # of the same file system: it comes with its time
        before.write_bytes(b"y" * 500)
        os.utime(before, (time.time() - 300, time.time() - 300))
        os.rename(before, w.capture / "old.jpg")
        w.expect("old.jpg", b"y" * 500)
        w.write("a.txt", b"nobody wants it", want=False)
        until(lambda: metric(w, "cede_plaintext_files", source="faces") == 2, 20, "two are in the clear")
        equal(metric(w, "cede_plaintext_bytes", source="faces"), 1500, "bytes in the clear")
        until(lambda: 300 <= metric(w, "cede_oldest_plaintext_age_seconds", source="faces") < 320, 10, "the age of the oldest")
        equal(metric(w, "cede_source_max_age_seconds", source="faces"), 900, "what it may be")
        until(lambda: metric(w, "cede_destination_up") == 0, 10, "no link")
        until(lambda: metric(w, "cede_push_failures_total", reason="connect") > 0, 10, "failures by reason")
        w.agent.popen.send_signal(signal.SIGHUP)
        w.source["match"].append("**/*.never")
        w.publish()
        until(lambda: metric(w, "cede_policy_reloads_total") == 1, 10, "another policy")
        until(lambda: metric(w, "cede_reported_files", reason="unmatched") == 1, 10, "the file that stays")
        equal(metric(w, "cede_reported_bytes"), 15, "its bytes")
        w.start_receiver()
        w.settled(but=["a.txt"])
        until(lambda: metric(w, "cede_plaintext_files") == 0, 10, "nothing is in the clear")
        equal(metric(w, "cede_oldest_plaintext_age_seconds"), 0, "and has no age")
        equal(metric(w, "cede_capture_exposure_seconds_count", source="faces"), 2, "exposures")
        check(0 < metric(w, "cede_capture_exposure_seconds_sum") < 120, "they are counted from the file's last change")
        bundles = metric(w, "cede_receipts_total", destination="agency")
        check(1 <= bundles <= 2, f"{bundles} receipts")
        equal(metric(w, "cede_push_latency_seconds_count"), bundles, "latencies")
        equal(metric(w, "cede_wipes_total"), 2, "wipes by level")
        check(time.time() - metric(w, "cede_last_receipt_timestamp_seconds") < 60, "when the last receipt came")
        equal(metric(w, "cede_ledger_events"), w.status()["events"], "events in the ledger")
        check(metric(w, "cede_ledger_bytes") > 0 and metric(w, "cede_keeper_cpu_seconds_total") > 0 and
              metric(w, "cede_courier_open_fds") > 3 and metric(w, "cede_keeper_resident_memory_bytes") > 1 << 20, "what it uses")
        for role in ("identity", "seal", "server-ca"):
            check(metric(w, "cede_certificate_expiry_timestamp_seconds", role=role) > time.time(), f"certificate {role}")


def after_a_kill():
    """after kill -9 and a restart the figures of what waits are there again, read once from the ledger"""
    with with_metrics(World(receiver=False, source={"quiet": "0s"})) as w:
        w.start_agent()
        for i in range(30):
            w.write(f"{i}.jpg", b"x" * 100)
        until(lambda: metric(w, "cede_plaintext_files") == 30, 20, "thirty wait")
        w.agent.kill()
        w.start_agent()
        answers(w)
        until(lambda: metric(w, "cede_plaintext_files") == 30, 20, "thirty wait still")
        equal(metric(w, "cede_plaintext_bytes"), 3000, "their bytes")
        w.start_receiver()
        w.settled()
        until(lambda: metric(w, "cede_plaintext_files") == 0, 20, "nothing waits")


def negotiation():
    """OpenMetrics for whoever prefers it, the text format for all others; both say the same"""
    with with_metrics(World()) as w:
        w.start()
        answers(w, "/readyz")
        status, kind, text = page(w, headers=OPEN)
        equal((status, kind), (200, OPEN_TYPE), "OpenMetrics")
        check(text.endswith("# EOF\n") and "# TYPE cede_receipts counter\n" in text and
              'cede_receipts_total{destination="agency"} ' in text, "OpenMetrics names its counters without _total")
        names = {(n, tuple(l.items())) for n, l, _ in parse(text)}
        equal(names, {(n, tuple(l.items())) for n, l, _ in parse(page(w)[2])}, "series of both formats")
        for accept in ("*/*", "text/plain", "application/openmetrics-text;version=9.0.0", "application/openmetrics-text;q=0",
                       "application/openmetrics-text;q=0.1,text/plain;q=0.2", ";;;,,=q", "a" * 5000):
            equal(page(w, headers={"Accept": accept})[1], TEXT_TYPE, f"Accept: {accept[:60]}")
        equal(page(w, "/nothing")[0], 404, "another path")
        equal(page(w, "/metrics/")[0], 404, "another path")


def health():
    """/readyz names each condition that is not met and is red meanwhile; /healthz is red when the keeper is silent"""
    with with_metrics(World(receiver=False)) as w:
        w.start_agent()
        w.write("a.jpg", b"picture")
        said = answers(w, "/readyz", 503)
        until(lambda: "link: no: the last try at a destination failed" in answers(w, "/readyz", 503), 20, said)
        equal(page(w, "/healthz")[::2], (200, "ok\n"), "alive all the same")
        w.start_receiver()
        equal({line.partition(": ")[2] for line in answers(w, "/readyz").splitlines()}, {"ok"}, "all is well")
        os.rename(w.capture, w.dir / "elsewhere")
        until(lambda: "sources: no:" in answers(w, "/readyz", 503), 20, "the directory is gone")
        equal(metric(w, "cede_ready", condition="sources"), 0, "the metrics say the same")
        equal(metric(w, "cede_source_up", source="faces"), 0, "of this source")
        os.rename(w.dir / "elsewhere", w.capture)
        answers(w, "/readyz")
        good = (w.dir / "policy.yaml").read_bytes()
        (w.dir / "policy.yaml").write_bytes(good + b"nonsense\n")
        until(lambda: "reload: no:" in answers(w, "/readyz", 503), 20, "the new policy is refused")
        (w.dir / "policy.yaml").write_bytes(good)
        answers(w, "/readyz")
        w.agent.popen.send_signal(signal.SIGSTOP)
        try:
            until(lambda: page(w, "/healthz")[0] == 503, 40, "a keeper that says nothing")
            equal(page(w, "/readyz")[0], 503, "it is not ready")
            check(metric(w, "cede_keeper_silent_seconds") > 10, "the metrics say for how long")
        finally:
            w.agent.popen.send_signal(signal.SIGCONT)
        until(lambda: page(w, "/healthz")[0] == 200, 20, "it speaks again")


@contextlib.contextmanager
def small_state(w):
    """The state directory on a small file system of its own."""
    w.state.mkdir(mode=0o700)
    if not run("mount", "-t", "tmpfs", "-o", "size=600k,mode=700", "none", w.state)[0]:
        raise Skip("mounting is not allowed here")
    try:
        yield
    finally:
        run("umount", "-l", w.state)


def fill(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as f:  # until there is no room
        while True:
            f.write(bytes(1024))


def ledger_full():
    """a full state disk: red without a break until all is recorded, and nobody claims that nothing is in the clear"""
    needs_root()
    with with_metrics(World(source={"quiet": "0s", "max_age": "5s"})) as w, small_state(w):
        w.start()
        answers(w, "/readyz")
        fill(w.state / "filler")
        for i in range(4):
            w.write(f"{i}.jpg", b"picture")
        until(lambda: metric(w, "cede_ready", condition="ledger") == 0, 60, "the ledger can't be written")
        check("ledger: no: the ledger can't be written" in answers(w, "/readyz", 503), "/readyz says it")
        tries = metric(w, "cede_ledger_retries_total")

        def tried_often():
            text = page(w)[2]
            said = {name: number for name, labels, number in parse(text) if labels.get("condition", "ledger") == "ledger"}
            equal(said["cede_ready"], 0, "the ledger's condition while nothing can be recorded")
            return said["cede_ledger_retries_total"] > tries + 12
        until(tried_often, 60, "many tries")
        until(lambda: metric(w, "cede_oldest_plaintext_age_seconds", source="faces") >= 6, 60, "the age of what came")
        until(lambda: metric(w, "cede_ready", condition="age") == 0, 20, "it is a condition")
        done = subprocess.run([program("cede"), "status", "--state", str(w.state)], capture_output=True, text=True)
        equal(done.returncode, 1, "exit status of cede status")
        for words in (r"^ready +NO: ledger, age$", r"^ +FILES THAT CAME SINCE THE LEDGER FAILS ARE NOT COUNTED$", r"^faces .* TOO OLD$"):
            check(re.search(words, done.stdout, re.M), f"{words} in\n{done.stdout}")
        (w.state / "filler").unlink()
        w.settled()
        answers(w, "/readyz")
        until(lambda: metric(w, "cede_oldest_plaintext_age_seconds") == 0, 20, "nothing is in the clear")


def policy_expires():
    """a policy that expires turns /readyz and the metrics red, and says why"""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
    with with_metrics(World(policy={"expires": soon})) as w:
        w.start()
        said = answers(w, "/readyz", 503)
        until(lambda: "policy: no: the policy has expired" in answers(w, "/readyz", 503), 20, said)
        equal(metric(w, "cede_policy_expired"), 1, "the metrics say the same")
        equal(metric(w, "cede_ready", condition="policy"), 0, "as a condition")


def sockets():
    """a UNIX socket with its mode; a socket that a service manager passed lives on while the courier dies"""
    with World() as w:
        with_metrics(w, f"unix:{w.dir}/metrics.sock").start()
        answers(w)
        equal(oct((w.dir / "metrics.sock").stat().st_mode & 0o777), "0o660", "its mode")
        w.agent.stop()
        w.config["metrics"] = "systemd"
        w.write_files()
        equal(subprocess.run(w.agent_words(), capture_output=True).returncode, 2, "no socket was passed: a mistake in the set-up")
        starter = w.dir / "starter.py"  # as systemd does it: descriptor 3, LISTEN_PID of the very process
        port = free_port()
        starter.write_text(f"""import os, socket, sys
s = socket.create_server(("127.0.0.1", {port}))
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="metrics")
os.execv(sys.argv[1], sys.argv[1:])
""")
        w.agent = w.spawn("agent", sys.executable, starter, *w.agent_words())
        w.config["metrics"] = f"127.0.0.1:{port}"
        answers(w, "/readyz")
        old = w.courier()
        os.kill(old, signal.SIGKILL)
        until(lambda: w.courier() != old, 20, "another courier")
        check(page(w, "/healthz")[0] in (200, 503), "the port is open meanwhile: a refused connection would fail here")
        until(lambda: metric(w, "cede_courier_starts_total") == 2, 20, "its start is counted")


def log():
    """a flood of refusals is limited in the log and counted; no name of a capture stands in log, metrics or status"""
    with with_metrics(World(source={"quiet": "0s"})) as w:
        for i in range(300):
            os.symlink("/etc/passwd", w.capture / f"KA-{i}-PL8.jpg")
        w.start()
        answers(w)
        for i in range(5):
            w.write(f"KA-{i}-SEEN.jpg", b"picture")
        w.settled(but=[f"KA-{i}-PL8.jpg" for i in range(300)])
        until(lambda: "log.limited event=capture.refused lines=250" in w.agent.said(), 30, "what was left out is said")
        equal(w.agent.said().count("capture.refused source=faces"), 50, "lines of the event")
        for text in (w.agent.said(), page(w)[2], w.cede("status", "--state", w.state, status=(0, 1)),
                     w.cede("status", "--state", w.state, "--json", status=(0, 1))):
            check("KA-" not in text and ".jpg" not in text, "a capture's name")
        check("KA-7-PL8" in w.cede("ledger", "events", "--state", w.state), "the ledger names them")


def log_level():
    """log.level is the keeper's and the courier's: with error a hand-over that goes well says nothing at all"""
    with World(source={"quiet": "0s"}) as w:
        w.config["log"] = {"level": "error"}
        w.write_files()
        w.write("a.jpg", b"picture")
        w.start()
        w.settled()
        w.agent.stop()
        equal(w.agent.said(), "", "the agent's log")


def largest_policy():
    """256 sources and 16 destinations, all names as long as they may be: every series is there, /readyz and cede status answer"""
    with World() as w:
        names = [f"{'a-source-with-a-name-as-long-as-it-may-be-and-no-longer':-<60}.{i:03}" for i in range(256)]
        links = [f"{'a-destination-with-a-name-as-long-as-it-may-be-and-no-longer':-<60}.{i:03}" for i in range(16)]
        equal({len(n) for n in names + links}, {64}, "length of the names")
        w.policy["destinations"] = {n: w.destination for n in links}
        w.policy["sources"] = []
        for i, name in enumerate(names):
            (w.capture / name).mkdir()
            w.policy["sources"].append({**w.source, "name": name, "path": str(w.capture / name), "destination": links[i % 16]})
        with_metrics(w).start()
        answers(w, "/readyz")
        until(lambda: metric(w, "cede_source_up") == 256, 20, "figures of all sources")
        _, kind, text = page(w)
        equal(kind, TEXT_TYPE, "content type")
        promtool("check", "metrics", given=text)
        equal({labels["source"] for name, labels, _ in parse(text) if name == "cede_oldest_plaintext_age_seconds"}, set(names), "sources")
        equal({labels["destination"] for name, labels, _ in parse(text) if name == "cede_destination_up"}, set(links), "destinations")
        golden = [line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
        equal(families(text), golden, f"series against {GOLDEN.name}")
        status, kind, open_text = page(w, headers=OPEN)
        equal((status, kind, open_text[-6:]), (200, OPEN_TYPE, "# EOF\n"), "as OpenMetrics")
        check("metrics.untold" not in w.agent.said(), w.agent.said())
        equal(page(w, "/readyz")[0], 200, "/readyz")
        said = w.status()
        check(said["agent"].get("answers") and len(said["sources"]) == 256, f"cede status: {said['agent']}, {len(said['sources'])} sources")
        began = metric(w, "cede_keeper_cpu_seconds_total")
        time.sleep(5)  # what the page costs, idle but for it
        tap.diag(f"{len(text)} bytes; the keeper uses {(metric(w, 'cede_keeper_cpu_seconds_total') - began) * 20:.1f} % of a processor")
        (w.capture / names[0] / "a.jpg").write_bytes(b"picture")
        until(lambda: metric(w, "cede_captures_wiped_total", source=names[0]) == 1, 30, "a capture goes its way")


def many_waiting():
    """with many files waiting a scrape takes less than 10 ms, as with none"""
    count = {"quick": 2_000, "normal": 5_000, "full": 1_000_000}[mode()]
    with with_metrics(World(receiver=False, source={"quiet": "0s"})) as w:
        for i in range(count):
            folder = w.capture / f"{i // 1000}"
            if i % 1000 == 0:
                folder.mkdir()
            with open(folder / f"{i}.jpg", "wb") as f:
                f.write(b"x")
        w.start_agent()
        until(lambda: metric(w, "cede_plaintext_files") == count, 60 + count / 1000, f"{count} wait")
        times = []
        for _ in range(50):
            began = time.perf_counter()
            page(w)
            times.append((time.perf_counter() - began) * 1000)
        times.sort()
        tap.diag(f"{count} files wait: a scrape takes {times[25]:.2f} ms (median), {times[-1]:.2f} ms (longest of 50)")
        check(times[25] < 10, f"median {times[25]:.2f} ms")


if __name__ == "__main__":
    tap.run([series, figures, after_a_kill, negotiation, health, ledger_full, policy_expires, sockets, log, log_level, largest_policy, many_waiting])
