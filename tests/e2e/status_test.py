#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cede status: what a person and a script are told, with the agent up, down, and stopped."""

import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import check, equal
from world import TOP, World, program, until


def status(w, *words):
    """(exit status, output)"""
    done = subprocess.run([program("cede"), "status", "--state", str(w.state), *words], capture_output=True, text=True, timeout=30)
    equal(done.stderr, "", "standard error")
    return done.returncode, done.stdout


def told(w):
    return json.loads(status(w, "--json")[1])


def agent_answers(w):
    until(lambda: w.status().get("agent", {}).get("answers"), 20, "the agent answers")


def readable(text):
    for line in text.splitlines():
        check(len(line) <= 80 and line == line.rstrip(), f"not fit for 80 columns: {line!r}")
    for word in ("AB-", ".jpg", "None", "(null)"):
        check(word not in text, f"{word} in {text}")


def keys(value, path=""):
    """"sources[].name" and so on; names that are states or reasons as STATE and REASON."""
    if isinstance(value, list):
        return set().union(*(keys(v, path + "[]") for v in value)) if value else set()
    if isinstance(value, dict) and value:
        variable = {"captures": "STATE", "bundles": "STATE", "sources[].files": "STATE", "violations_24h": "REASON",
                    "sources[].reported": "REASON"}.get(path)
        return set().union(*(keys(v, f"{path}.{variable or k}".lstrip(".")) for k, v in value.items()))
    return set() if isinstance(value, dict) else {path}


def up():
    """with the agent up: everything is there, in 80 columns, and the exit status is 0 only when all is in order"""
    with World(receiver=False, source={"quiet": "0s"}) as w:
        for i in range(7):  # before the link is known to be down
            w.write(f"AB-{i}.jpg", b"x" * 1000)
        w.write("AB.txt", b"nobody wants it", want=False)
        w.start_agent()
        agent_answers(w)
        until(lambda: told(w)["agent"]["unmet"] == ["link"], 20, "no link")
        until(lambda: told(w)["captures"]["sealed"] == 7, 20, "seven are sealed")
        code, text = status(w)
        readable(text)
        equal(code, 1, "exit status")
        for words in (r"^ready +NO: link$", r"^link +agency DOWN, no receipt yet, \d bundles? \(.*\) without one$",
                      r"^policy +test-lanes, serial 1, signed, ends in 36[45] d$", r"^faces +7 +6\.8 KiB +\d+ s +15 min$", r"^faces +7 sealed$"):
            check(re.search(words, text, re.M), f"{words} in\n{text}")
        w.start_receiver()
        w.settled(but=["AB.txt"])
        until(lambda: told(w)["agent"]["ready"], 20, "ready")
        w.agent.popen.send_signal(signal.SIGHUP)
        code, text = status(w)
        readable(text)
        equal(code, 0, f"exit status of\n{text}")
        check(re.search(r"^link +agency up, last receipt \d+ s ago$", text, re.M), text)
        check(re.search(r"^handed over +7 captures wiped", text, re.M), text)
        said = told(w)
        check(said["sources"][0]["files"]["wiped"] == 7 and said["destinations"][0]["up"] is True and
              {c["role"] for c in said["certificates"]} == {"identity", "seal", "server-ca"} and said["spool"]["limit"] == 16 << 30, f"{said}")


def long_host():
    """the longest host id that there can be keeps to 80 columns, and stands there whole"""
    host = "gate-07." + "x" * 56
    with World(receiver=False) as w:
        pki = w.dir / "pki-long"
        done = subprocess.run([str(TOP / "certs" / "dev-pki"), str(pki)], capture_output=True, text=True, env={**os.environ, "CEDE_HOST": host})
        equal(done.returncode, 0, f"dev-pki: {done.stderr}")
        w.config["identity"] = {"certificate": str(pki / "agent.pem"), "key": str(pki / "agent.key")}
        w.write_files().start_agent()
        agent_answers(w)
        text = status(w)[1]
        readable(text)
        check(re.search(rf"^agent +{host},\n +running for \d+ s, version ", text), text)


def down():
    """with the agent down or killed: it says so, and the ledger tells the age against the limit"""
    with World(receiver=False, source={"quiet": "0s"}) as w:
        done = subprocess.run([program("cede"), "status", "--state", w.dir / "state"], capture_output=True, text=True)
        equal(done.returncode, 3, "exit status before there is a ledger")
        check("has not run here" in done.stderr, done.stderr)
        w.start_agent()
        path = w.write("AB.jpg", b"picture")
        os.utime(path, (time.time() - 6000, time.time() - 6000))
        agent_answers(w)
        until(lambda: "age" in told(w)["agent"]["unmet"], 20, "too old")
        equal(told(w)["violations_24h"], {"overdue": 1}, "violations")
        code, text = status(w)
        check(code == 1 and re.search(r"^ready +NO: .*age", text, re.M) and re.search(r"1 h 4\d min +15 min  TOO OLD$", text, re.M), text)
        for end in (lambda: w.agent.kill(), lambda: w.agent.stop()):  # pylint: disable=unnecessary-lambda
            end()
            code, text = status(w)
            readable(text)
            equal(code, 1, "exit status")
            check(text.startswith("agent         NOT RUNNING: this is what its ledger says\n"), text)
            check(re.search(r"1 h 4\d min +15 min  TOO OLD$", text, re.M), text)
            equal(told(w)["agent"], {"running": False, "answers": False}, "agent")
            w.start_agent()
            agent_answers(w)


def stopped():
    """a process that is there and hangs is told from one that is not there"""
    with World(receiver=False) as w:
        w.start_agent()
        agent_answers(w)
        w.agent.popen.send_signal(signal.SIGSTOP)
        try:
            code, text = status(w)
            equal(code, 1, "exit status")
            check("DOES NOT ANSWER" in text, text)
            with contextlib.ExitStack() as stack, contextlib.suppress(BlockingIOError):
                for _ in range(100):  # until the queue is full
                    s = stack.enter_context(socket.socket(socket.AF_UNIX))
                    s.setblocking(False)
                    s.connect(str(w.state / "status.socket"))
            check("DOES NOT ANSWER" in status(w)[1], "when nobody can be added to those who wait")
        finally:
            w.agent.popen.send_signal(signal.SIGCONT)


def watch():
    """--watch shows it again and again; on a terminal in place"""
    with World() as w:
        w.start()
        agent_answers(w)
        words = [program("cede"), "status", "--state", str(w.state), "--watch=1"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as plain:
            seen = [plain.stdout.readline() for _ in range(40)]
            plain.terminate()
        check(sum(line.startswith("agent ") for line in seen) >= 3 and "\033" not in "".join(seen), "".join(seen))
        master, terminal = pty.openpty()
        with subprocess.Popen(words, stdout=terminal) as shown:
            got = b""
            os.close(terminal)
            while got.count(b"\033[H\033[J") < 3:
                got += os.read(master, 4096)
            shown.terminate()
        os.close(master)
        equal(subprocess.run([*words[:-1], "--watch=0"], capture_output=True).returncode, 2, "no seconds")
        with subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE, text=True) as lines:
            for _ in range(2):
                equal(json.loads(lines.stdout.readline())["schema"], "cede-status/1", "a line of its own")
            lines.stdout.close()  # nobody reads any more
            check(lines.wait(20) != 0, "ends when nobody reads")


def documented():
    """the keys of --json are those of docs/status.md, with the agent up and down"""
    wanted, live = set(), set()
    for row in re.findall(r"^\| `.*\|$", (TOP / "docs" / "status.md").read_text(), re.M):
        names, _, when = (cell.strip() for cell in row.strip("|").split("|"))
        wanted |= set(re.findall(r"`([^`]+)`", names))
        live |= set(re.findall(r"`([^`]+)`", names)) if when == "not there" else set()
    with World() as w:
        w.start()
        agent_answers(w)
        w.write("AB.jpg", b"picture")
        w.write("AB.txt", b"nobody wants it", want=False)
        os.utime(w.write("old.jpg", b"picture"), (time.time() - 6000, time.time() - 6000))
        w.settled(but=["AB.txt"])
        w.publish()
        until(lambda: told(w)["sources"][0].get("reported") and told(w)["violations_24h"], 20, "a file that stays")
        said = told(w)
        said["agent"]["unmet"] = ["link"]
        got = {k.removesuffix("[]") for k in keys(said)}
        equal((got - wanted, wanted - got), (set(), set()), "keys of --json that docs/status.md lacks, and the other way round")
        w.agent.stop()
        got = keys(told(w))
        equal((got - (wanted - live), wanted - live - got), (set(), set()), "the same with the agent down")


def strangers():
    """the status socket: nothing is read from it, nobody is waited for, nobody else may come"""
    with World() as w:
        w.start()
        agent_answers(w)
        at = str(w.state / "status.socket")
        equal(oct(w.state.stat().st_mode & 0o777), "0o700", "mode of the state directory")
        with contextlib.ExitStack() as stack:
            for i in range(30):
                s = stack.enter_context(socket.socket(socket.AF_UNIX))
                s.connect(at)
                with contextlib.suppress(OSError):  # it is closed as soon as it was told
                    s.sendall(b"GET / HTTP/1.1\r\n\r\n" if i % 2 else os.urandom(65536))
            w.write("a.jpg", b"picture")
            w.settled()
            equal(told(w)["agent"]["answers"], True, "it answers others meanwhile")
        check(w.agent.alive(), "the agent lives")
        w.agent.stop()
        check(not pathlib.Path(at).exists(), "the socket goes with the agent")


if __name__ == "__main__":
    tap.run([up, long_host, down, stopped, watch, documented, strangers])
