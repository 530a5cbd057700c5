# SPDX-License-Identifier: Apache-2.0
"""The network as it is: a TCP proxy that a test makes bad while bytes pass, and a receiver that
writes down every request and answers honestly unless its rule says otherwise."""

import collections
import contextlib
import http.server
import os
import random
import select
import socket
import ssl
import struct
import threading
import time

from liar import Facts, note
from tap import check

BLOCK = 65536
TURN_S = 0.02
HANDSHAKE = 4000  # bytes of a client, about


class Proxy:
    """A TCP proxy to a port of this host. Set at any time, for all connections:

    trickle     bytes a second in each direction once a client has sent its hello and certificate
    total       the same, of all connections together, which share it evenly
    hold        True: nothing passes, nothing is said (as when a cable is cut)
    cut         (direction, bytes): resets a connection after so many bytes from "client" or "server"
    cuts        how many more connections are cut
    swallow     bytes: once a client has sent so many, the server's answer does not pass and the
                connection is closed
    swallows    how many more answers are swallowed
    last        True: with the first that is swallowed the link is gone (doomed)
    doomed      True: whoever connects is reset at once

    and refuse(), vanish(), serve(): nobody listens; connecting gets no answer; as usual."""

    def __init__(self, to_port, port=None):
        self.to_port, self.port = to_port, port
        self.trickle = self.total = self.hold = self.cut = self.swallow = None
        self.doomed = self.last = False
        self.cuts = self.swallows = 1 << 30
        self.swallowed = 0
        self.due = {"client": 0.0, "server": 0.0}  # with a total: when the next block may pass
        self.passed = {"client": 0, "server": 0}  # bytes, of all connections
        self.lock = threading.Lock()
        self.times = []  # of each connection that was accepted
        self.alive = set()
        self.listener = None
        self.accepting = threading.Event()
        self.fillers = []
        self.ended = False
        self.serve()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True
        self.refuse()

    # ---- who may connect

    def _listen(self, backlog):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what trickles must not be taken early
        listener.bind(("127.0.0.1", self.port or 0))
        listener.listen(backlog)
        self.port = listener.getsockname()[1]
        return listener

    def _deaf(self):
        self.accepting.clear()
        if self.listener:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)  # at once, although a thread waits for it
            self.listener.close()
            self.listener = None

    def refuse(self):
        """Nobody listens; what is open is reset."""
        self._deaf()
        for filler in self.fillers:
            filler.close()
        self.fillers = []
        self.reset()

    def vanish(self):
        """Whoever connects hears nothing: the queue of the listener is full and stays so. What is
        open hears nothing more either."""
        self._deaf()
        self.hold = True
        self.listener = self._listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)

    def serve(self):
        self.refuse()
        self.hold = None
        self.listener = self._listen(64)
        self.accepting.set()

    def reset(self):
        """Resets what is open."""
        for pair in list(self.alive):
            pair.doomed = True

    def take_turn(self, side):
        """Whether a tenth of a second's bytes may pass now."""
        with self.lock:
            now = time.monotonic()
            if self.due[side] > now:
                return False
            self.due[side] = max(self.due[side], now - TURN_S) + 0.1
            return True

    def _accept(self):
        while not self.ended:
            if not self.accepting.wait(0.1):
                continue
            listener = self.listener
            try:
                if not select.select([listener], [], [], TURN_S)[0]:
                    continue
                client, _ = listener.accept()
            except (OSError, ValueError, TypeError, AttributeError):
                continue
            self.times.append(time.monotonic())
            pair = Pair(self, client)
            self.alive.add(pair)
            threading.Thread(target=pair.run, daemon=True).start()


class Pair:
    def __init__(self, proxy, client):
        self.proxy, self.client, self.server = proxy, client, None
        self.doomed = proxy.doomed
        self.passed = {"client": 0, "server": 0}
        self.due = {"client": 0.0, "server": 0.0}
        self.open = ["client", "server"]
        self.hard = False  # ends with a reset
        self.hold = False  # this one alone
        self.forgotten = False  # as by a router: its client is told (a reset), its server is not

    def run(self):
        with contextlib.suppress(OSError):
            if not self.doomed:
                self.server = socket.create_connection(("127.0.0.1", self.proxy.to_port), 10)
            while not self.doomed and self.open and self.turn():
                pass
        self.proxy.alive.discard(self)
        for side in (self.client, self.server):
            if side is None:
                continue
            if self.doomed or self.hard:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            side.close()

    def turn(self):
        if self.forgotten:
            if self.client:
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.client.close()
                self.client = None
            time.sleep(TURN_S)
            return True
        now = time.monotonic()
        ready = [side for side in self.open if self.due[side] <= now and not self.proxy.hold and not self.hold]
        if not ready:
            time.sleep(TURN_S)
            return True
        sockets = {getattr(self, side): side for side in ready}
        for s in select.select(list(sockets), [], [], TURN_S)[0]:
            if not self.passes(sockets[s], s):
                return False
        if self.proxy.total:
            time.sleep(TURN_S * random.random())  # whose turn is next
        return True

    def passes(self, side, s):
        """Takes a block and hands it on; False ends the pair."""
        p = self.proxy
        slow = p.trickle or p.total if self.passed["client"] >= HANDSHAKE else None
        if slow and p.total and not p.take_turn(side):
            return True
        data = s.recv(max(1, min(BLOCK, slow // 10)) if slow else HANDSHAKE if p.trickle or p.total else BLOCK)
        other = self.server if side == "client" else self.client
        if not data:
            self.open.remove(side)
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_WR)
            return True
        if side == "server" and p.swallow is not None and self.passed["client"] >= p.swallow and p.swallows > 0:
            p.swallows -= 1
            p.swallowed += 1
            p.doomed = p.doomed or p.last
            return False
        self.passed[side] += len(data)
        p.passed[side] += len(data)
        other.sendall(data)
        if slow and p.total is None:
            self.due[side] = max(self.due[side], time.monotonic()) + len(data) / slow
        if p.cut and p.cut[0] == side and self.passed[side] >= p.cut[1] and p.cuts > 0:
            p.cuts -= 1
            self.hard = True
            return False
        return True


Request = collections.namedtuple("Request", "at method bundle receipt status")
CLOSE = (0, {})  # a rule's answer: the connection is closed instead


class Recorder:
    """In the receiver's place, at the world's port. rule(method, bundle) -> None (honest), (status,
    headers), or CLOSE; for a PUT before its body is read if `early`, else when the body is there.
    `lossy`: a body whose answer is CLOSE is not stored. What is stored lies in the world's store."""

    def __init__(self, world, rule=None, port=None):
        self.world, self.rule, self.early, self.lossy = world, rule, False, False
        self.requests, self.stored, self.gone, self.bodies = [], {}, set(), 0
        self.clock_s = 0  # added to the Date that is said
        self.lock = threading.Lock()
        self.pause = threading.Event()  # while clear, answers wait
        self.pause.set()
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                bundle = self.path.split("/")[3]
                if recorder.early and (ruled := recorder.ruled("PUT", bundle)):
                    self.close_connection = True
                    self.reply("PUT", bundle, *ruled)
                    self.connection.settimeout(1)  # a server that closes at once loses its own answer
                    with contextlib.suppress(OSError):
                        self.rfile.read(int(self.headers["Content-Length"]))
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if len(body) < int(self.headers["Content-Length"]):
                    self.close_connection = True
                    return
                recorder.bodies += 1
                host = dict(x[0] for x in self.connection.getpeercert()["subject"])["commonName"]
                ruled = recorder.ruled("PUT", bundle)
                there = bundle in recorder.stored
                if ruled is None or ruled == CLOSE and not recorder.lossy:
                    recorder.store(bundle, host, body)
                if ruled is None and bundle in recorder.gone:
                    ruled = 410, {}
                if ruled is None and there:
                    ruled = 412, {}
                self.reply("PUT", bundle, *(ruled or (201, {})))

            def do_GET(self):
                bundle = self.path.split("/")[3]
                self.reply("GET", bundle, *(recorder.ruled("GET", bundle) or
                                            (200 if bundle in recorder.stored else 404, {})))

            def do_DELETE(self):
                bundle = self.path.split("/")[3]
                ruled = recorder.ruled("DELETE", bundle)
                if ruled in (None, CLOSE) and bundle not in recorder.stored:
                    recorder.gone.add(bundle)
                self.reply("DELETE", bundle, *(ruled or (409 if bundle in recorder.stored else 204, {})))

            def reply(self, method, bundle, status, headers):
                recorder.requests.append(Request(time.monotonic(), method, bundle, self.path.endswith("/receipt"), status))
                recorder.pause.wait()
                if (status, headers) == CLOSE:
                    self.close_connection = True
                    return
                body = recorder.stored[bundle] if status in (200, 201) else b""
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp=None):
                return super().date_time_string((timestamp or time.time()) + recorder.clock_s)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(world.pki / "server.pem", world.pki / "server.key")
        context.load_verify_locations(world.pki / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port or world.port), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pause.set()
        self.server.shutdown()
        self.server.server_close()

    def ruled(self, method, bundle):
        return self.rule(method, bundle) if self.rule else None

    def store(self, bundle, host, body):
        with self.lock:
            if bundle in self.stored or bundle in self.gone:
                return
            folder = self.world.store / host / "2026" / "01" / "01"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{bundle}.cms").write_bytes(body)
            receipt = note(Facts(bundle, host, body).lines(), self.world.pki / "receipt.key")
            (folder / f"{bundle}.receipt").write_bytes(receipt)
            self.stored[bundle] = receipt

    def said(self, method=None, bundle=None):
        return [r for r in self.requests if method in (None, r.method) and bundle in (None, r.bundle)]

    def story(self, bundle):
        """"PUT 201, GET 200": what was asked about a bundle, in order; 0 where no answer was given."""
        return ", ".join(f"{r.method} {r.status}" for r in self.said(bundle=bundle))


class Dumb:
    """A name server that never answers (UDP port 53 of an address of this host)."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))

    def asked(self):
        return bool(select.select([self.socket], [], [], 0)[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def wakeups(pid):
    """How often the threads of a process were waiting and went on."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{task}/status", encoding="ascii", errors="replace") as f:
            total += int(next(line for line in f if line.startswith("voluntary_ctxt_switches")).split()[1])
    return total


def cpu_s(pid):
    """Processor seconds of a process since it began."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    check(len(fields) > 13, "fields of /proc/PID/stat")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
