#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Courier and keeper, each with the test in the other's place: what it holds, what it takes, and
what becomes of a keeper whose courier was taken over."""

import contextlib
import hashlib
import os
import pathlib
import re
import socket
import ssl
import sys
import textwrap
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from clocks import Lapse
from keeper import FAILED, Courier
from metrics import get
from tap import check, equal
from world import TOP, World, free_port, program, until

PUSHES_MOST = 256  # agent/courier/courier.c
CONDITIONS = re.findall(r'^\tX\([A-Z]+, "([a-z]+)"', (TOP / "agent" / "ipc" / "readiness.h").read_text(), re.M)


@contextlib.contextmanager
def to_nobody():
    """A courier whose destination takes connections and says nothing."""
    with World(receiver=False) as w, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        port = listener.getsockname()[1]
        with Courier(program("cede-courier"), port) as courier:
            courier.destination(f"https://localhost:{port}/", w.pki / "ca.pem", w.pki / "agent.pem", w.pki / "agent.key")
            yield courier


def too_much_at_once():
    """bundles that it cannot take are given back: it keeps none of their descriptors"""
    content = b"sealed"
    with to_nobody() as courier:
        for _ in range(PUSHES_MOST):
            courier.ask(os.urandom(16))
        refused = [os.urandom(16) for _ in range(20)]
        for bundle in refused:
            courier.put(bundle, content, hashlib.sha256(content).digest())
            equal(courier.outcome(), (FAILED, bundle, "courier"), "what became of it")
        equal([fd for fd in courier.descriptors() if "memfd:" in fd], [], "memory files that it holds")


def ready_without_figures():
    """a keeper that can't tell its figures still says what is not met: /readyz follows, /metrics has nothing old"""
    address = f"127.0.0.1:{free_port()}"
    with Courier(program("cede-courier"), 443, metrics=address) as courier:
        def readyz(status, line):
            until(lambda: get(address, "/readyz")[0] == status and line in get(address, "/readyz")[2], 10,
                  lambda: f"/readyz gives {status} with {line!r}: {get(address, '/readyz')}")
        readyz(503, "keeper: no: it has not said anything yet")
        courier.figures(b"# TYPE cede_of_the_keeper gauge\ncede_of_the_keeper 1\n", 0)
        readyz(200, "link: ok")
        equal("cede_of_the_keeper 1" in get(address, "/metrics")[2], True, "the keeper's figures")
        courier.figures(b"", 1 << CONDITIONS.index("link"))
        readyz(503, "link: no: ")
        status, _, text = get(address, "/metrics")
        equal((status, "cede_of_the_keeper" in text, "cede_courier_cpu_seconds_total" in text), (200, False, True), "the page without the keeper's")
        courier.figures(b"x" * (3 << 20), 0)  # as long as the largest policy's and longer
        readyz(200, "link: ok")
        check(len(get(address, "/metrics")[2]) > 3 << 20, "a long text")


# ---- a server that was taken over

class Endless(threading.Thread):
    """A TLS server that reads what it is sent, and answers each connection with `start`, then `more` again and again,
    every so many seconds."""

    def __init__(self, w, start, more, pause_s):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(w.pki / "server.pem", w.pki / "server.key")
        self.start_with, self.more, self.pause_s = start, more, pause_s
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = threading.Event()
        self.start()

    def run(self):
        while not self.ended.is_set():
            with contextlib.suppress(OSError):
                threading.Thread(target=self.answer, args=(self.listener.accept()[0],), daemon=True).start()

    def answer(self, client):
        with contextlib.suppress(OSError), client, self.context.wrap_socket(client, server_side=True) as s:
            self.go_on(s)

    def go_on(self, s):
        s.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while s.recv(1 << 16):
                pass
        s.settimeout(None)
        s.sendall(self.start_with)
        while not self.ended.wait(self.pause_s):
            s.sendall(self.more)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def peak_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return int(next(line for line in f if line.startswith("VmHWM")).split()[1])


def endless_answers():
    """a server whose answer never ends is given up in time, whatever it is made of, and costs no memory"""
    block = 1 << 14
    answers = (
        ("headers", b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * block + b"\r\n", 0),
        ("one header", b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * block, 0),
        ("interim answers", b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 100, 0),
        ("interim answers, one by one", b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
        ("trailers", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: " + b"a" * block + b"\r\n", 0),
        ("chunk extensions", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", b";a" * block, 0),
        ("drops of a header", b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.05),
        ("drops of a receipt", b"HTTP/1.1 200 OK\r\nContent-Length: 8000\r\n\r\n", b"a", 0.05),
        ("nothing", b"", b"", 0.2))
    content = b"sealed"
    with World(receiver=False) as w, Lapse(w.dir / "lapse", 20) as lapse:
        for what, *how in answers:
            with Endless(w, *how) as server, \
                    Courier(program("cede-courier"), server.port, env=lapse.env) as courier:
                courier.destination(f"https://localhost:{server.port}/", w.pki / "ca.pem", w.pki / "agent.pem", w.pki / "agent.key")
                for ask in (True, False):
                    bundle, began = os.urandom(16), time.monotonic()
                    if ask:
                        courier.ask(bundle)
                    else:
                        courier.put(bundle, content, hashlib.sha256(content).digest())
                    kind, of, reason = courier.outcome()
                    took = 20 * (time.monotonic() - began)
                    tap.diag(f"{what}: {reason} after {took:.0f} s; {peak_kib(courier.process.pid)} KiB")
                    equal((kind, of), (FAILED, bundle), f"what became of {what}")
                    check(took < 40 + 6 * 20, f"{what}: given up after {took:.0f} s")  # a timer of a second may be 20 late
                    check(reason in ("http", "reset", "timeout"), f"{what}: {reason}")
                check(peak_kib(courier.process.pid) < 64 << 10, f"{what}: {peak_kib(courier.process.pid)} KiB")


# ---- the other way round: a courier that was taken over

HOSTILE = """\
#!{python} -I
import os, socket, struct, sys, time
with open({turns!r}, "a+") as f:
    f.write("x")
    f.flush()
    turn = os.fstat(f.fileno()).st_size
if turn > {most}:
    os.execv({honest!r}, sys.argv)
s = socket.socket(fileno=3)
s.setblocking(True)
def say(kind, body=b"", fds=()):
    socket.send_fds(s, [b"CEDE" + struct.pack("<HH", 1, kind) + body], fds)
def hello():
    say(1, struct.pack("<HII", 1, 0xffffffff, 0))
def hear(*kinds):
    while True:
        packet = s.recv(1 << 16)
        if not packet:
            sys.exit(0)
        kind = struct.unpack("<H", packet[6:8])[0]
        if kind in kinds:
            return packet[8:]
def failed(bundle, kind=b"reset"):
    return bundle + struct.pack("<H", len(kind)) + kind + bytes(9)
"""


def taken_over(w, code, most=1):
    """Starts the agent; its courier does that, so many times, then the true one is started."""
    script = w.dir / "cede-courier"
    text = HOSTILE.format(python=sys.executable, turns=str(w.dir / "turns"), most=most, honest=program("cede-courier"))
    script.write_text(text + textwrap.dedent(code))
    script.chmod(0o755)
    w.agent = w.spawn("agent", *w.agent_words(), "--courier", script)


def said(w, pattern, seconds=20):
    until(lambda: re.search(pattern, w.agent.said()), seconds, f"the log says {pattern!r}")


def nonsense():
    """a courier that says what it may not say is killed and replaced; the keeper goes on, all arrives once"""
    for code, why in (
            ("say(3, bytes(18))", "out of turn"),
            ("hello(); say(98)", "not this side's"),
            ("hello(); say(7, bytes(1000))", "too long"),
            ("hello(); say(5, bytes(3))", "too short"),
            ("hello(); say(5, bytes(17), [0])", "descriptors"),
            ("hello(); s.send(bytes(40000))", "cut short"),
            ("hello(); say(9, struct.pack('<HHQHH', 999, 0, 1 << 63, 0, 0))", "no such destination"),
            ("hello(); b = hear(4)[2:18]; say(5, b + bytes([1]))", "absence of what was being sent")):
        with World(source={"quiet": "0s"}) as w:
            w.start_receiver()
            taken_over(w, code + "\nhear(12)")
            w.write("a.jpg", b"picture")
            said(w, f"courier.bad error=.*{why}")
            w.settled()


def forged():
    """outcomes that a courier invents change nothing: no receipt, no wipe before the true one"""
    with World(source={"quiet": "0s"}) as w:
        w.start_receiver()
        taken_over(w, """\
            hello()
            bundle = hear(4)[2:18]
            note = b"a receipt, as it were"
            for i in range(300):
                for b in (bundle, os.urandom(16)):
                    say(3, b + struct.pack("<H", len(note)) + note)
                    say(7, failed(b, b'slow'))
                    say(7, failed(b, b'x\\n"y'))
            """)
        w.write("a.jpg", b"picture")
        said(w, "reason=receipt ")
        said(w, "courier.exited")
        check('x\n"' not in w.agent.said(), "its words stand in the log as they came")
        w.settled()


def dies_again_and_again():
    """a courier that invents an outcome and dies is started after waits that double"""
    with World(source={"quiet": "0s"}) as w:
        w.start_receiver()
        taken_over(w, "hello(); say(7, failed(os.urandom(16)))", most=5)
        w.write("a.jpg", b"picture")
        w.settled()
        waits = [int(ms) for ms in re.findall(r"again_ms=(\d+)", w.agent.said())]
        equal(len(waits), 5, "times that it died")
        check(all(250 * 2 ** i // 2 <= ms for i, ms in enumerate(waits)), f"waits of {waits} ms")


def absent_without_promise():
    """a courier that denies a bundle without the agency's promise is not asked again and again"""
    with World(source={"quiet": "0s"}, receiver=False) as w:
        w.start_agent()
        w.write("a.jpg", b"picture")
        until(lambda: w.counts()[1].get("sealed", 0) == 1, 20, "its bundle is sealed")
        w.agent.kill()
        taken_over(w, """\
            hello()
            while True:
                say(5, hear(6)[2:18] + bytes(1))
            """)
        said(w, "courier.bad error=.*absence without the promise")
        w.start_receiver()
        w.settled()


def mute():
    """a courier that hangs is replaced within half a minute, before its hello and after it"""
    for code in ("hear(12)", "hello(); time.sleep(1000)"):
        with World(source={"quiet": "0s"}) as w:
            w.start_receiver()
            taken_over(w, code)
            w.write("a.jpg", b"picture")
            said(w, "courier.bad error=.*not said anything for 30 seconds", 45)
            w.settled()


if __name__ == "__main__":
    tap.run([mute, endless_answers, too_much_at_once, ready_without_figures, nonsense, forged, dies_again_and_again, absent_without_promise], at_once=3)
