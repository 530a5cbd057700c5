# SPDX-License-Identifier: Apache-2.0
"""A whole little world in a temporary directory: keys, policy, agent, receiver, captures.

The programs are the built ones, used through their command lines and files only. Every process
that is started is stopped; what was written is removed unless a test failed and CEDE_KEEP is set."""

import atexit
import collections
import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from stock import Store
from tap import Failure, Skip, check, diag

TOP = pathlib.Path(__file__).resolve().parents[3]
DEADLINE_S = 60


def build_dir():
    return pathlib.Path(os.environ.get("BUILD", TOP / "build"))


def is_sanitized():
    return b"__asan_init" in pathlib.Path(program("cede-courier")).read_bytes()


def needs_landlock():
    """For a case in which the keeper has to be shut out of a directory."""
    if is_sanitized():
        raise Skip("a build with sanitizers has no Landlock")


def cache_dir():
    """What is dear to make and good for all builds: packages, images of systems."""
    place = TOP / "build-tests" / "cache"
    place.mkdir(parents=True, exist_ok=True)
    return place


def program(name):
    """The built program: installed below the build folder if it is there, else in place."""
    build = build_dir()
    for place in (build / "stage" / "bin" / name, build / "stage" / "libexec" / "cede" / name,
                  build / "agent" / name, build / "receiver" / name):
        if place.is_file():
            return str(place)
    for place in sorted(build.rglob(name)):
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    raise Failure(f"{name} is not built in {build}")


def _ports():
    """Ports that the kernel gives to nobody's connection: worlds live side by side."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        first, last = map(int, f.read().split())
    return range(10_000, first) if first > 20_000 else range(last + 1, 65_536) if last < 60_000 else range(10_000, 65_536)


_held = collections.deque(maxlen=256)  # sockets whose abstract names stand for the ports given out last


def free_port():
    """No other world gets it either while this one has nothing listening there."""
    ports = _ports()
    while True:
        port = random.SystemRandom().choice(ports)
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0cede-test-port-{port}")
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        _held.append(mark)
        return port


def until(condition, seconds, what, each=0.02):
    """Looks again and again until condition() is true; its value. Failure after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(each)


def loop_device(image):
    """A loop device on the file; None if the machine has none. Between looking for one and taking it
    another may have taken it."""
    for _ in range(50):
        done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
        if "busy" not in done.stderr.lower():
            break
        time.sleep(0.05)
    diag(f"losetup: {done.stderr.strip()}")
    return None


def yaml(value, depth=0):
    """Block style, as people write it."""
    pad = "  " * depth
    if isinstance(value, dict):
        out = ""
        for key, item in value.items():
            if isinstance(item, dict) or (isinstance(item, list) and item and isinstance(item[0], dict)):
                out += f"{pad}{key}:\n{yaml(item, depth + 1)}"
            else:
                out += f"{pad}{key}: {scalar(item)}\n"
        return out
    out = ""
    for item in value:
        body = yaml(item, depth + 1)
        out += f"{pad}- {body.lstrip()}"
    return out


def scalar(value):
    if isinstance(value, list):
        return "[" + ", ".join(scalar(v) for v in value) + "]"
    return json.dumps(value) if isinstance(value, str) and value[:1] in ":*&!{[\"'#%@`>|/" or value == "" else str(value)


class Process:
    """A program in a session of its own, with its standard error in a file."""

    def __init__(self, name, words, log, env=None):
        self.name, self.log = name, log
        self.status = None
        with open(log, "ab") as err:
            self.popen = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                          start_new_session=True, env=env)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.alive():
            self.popen.send_signal(number)

    def stop(self, seconds=10):
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise Failure(f"{self.name} did not stop within {seconds} s of SIGTERM") from None

    def kill(self):
        """kill -9 of this process alone, not of its children."""
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def kill_all(self):
        if self.popen.returncode is not None:
            return  # its number may be another program's by now; a courier ends with its keeper
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()

    def children(self):
        pids = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/children", encoding="ascii") as f:
                    pids += [int(p) for p in f.read().split()]
        return pids

    def said(self):
        return self.log.read_text(errors="replace")


_pki, _pki_lock = None, threading.Lock()


def pki_master():
    """One throw-away PKI for a test program; each world copies it."""
    global _pki
    with _pki_lock:
        if _pki is None:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="cede-pki-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            done = subprocess.run([str(TOP / "certs" / "dev-pki"), str(folder / "pki")], capture_output=True, text=True)
            check(done.returncode == 0, f"certs/dev-pki: {done.stdout}{done.stderr}")
            _pki = folder / "pki"
        return _pki


class World:
    """with World() as w: w.start(); w.write("a.jpg", b"..."); w.settled()"""

    def __init__(self, source=None, destination=None, policy=None, sources=None, receiver=True, signed=True):
        pki = pki_master()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cede-world-"))
        self.pki, self.state, self.store = self.dir / "pki", self.dir / "state", self.dir / "store"
        self.capture = self.dir / "capture"
        self.capture.mkdir()
        self.store.mkdir(mode=0o700)
        shutil.copytree(pki, self.pki)
        self.port = free_port()
        self.want = {}       # b"source/path" -> sha256 of all that must arrive
        self.processes = []
        self.agent = self.receiver = None
        self.has_receiver = receiver
        self.signed = signed
        self.source = {
            "name": "faces", "path": str(self.capture), "match": ["**/*.jpg", "**/*.json"],
            "ignore": ["**/.*", "**/*.tmp", "**/*.part"], "destination": "agency", "quiet": "200ms",
            "max_age": "15m", "at_max_age": "hold",
            "wipe": {"after": "receipt", "method": "overwrite", "require": "none"}, **(source or {})}
        self.destination = {
            "url": f"https://localhost:{self.port}/", "ca": "pki/ca.pem", "seal_to": ["pki/seal.pem"],
            "receipts": ["pki/receipt.pub"], **(destination or {})}
        year = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=365)
        self.policy = {"version": 1, "id": "test-lanes", "serial": 1, "expires": year.strftime("%Y-%m-%dT%H:%M:%SZ"),
                       "destinations": {"agency": self.destination}, "sources": sources or [self.source],
                       "unmatched": {"max_age": "24h", "at_max_age": "hold"}, **(policy or {})}
        for s in self.policy["sources"]:  # the journal of the machine's own file system is not for tests to empty
            s["wipe"] = {"scrub_within": "never", **s.get("wipe", {})}
        self.config = {"state": "state", "identity": {"certificate": "pki/agent.pem", "key": "pki/agent.key"},
                       "policy_signers": ["pki/policy.pub"], "metrics": "off", "log": {"level": "info"}}
        self.receiver_config = {"listen": f"127.0.0.1:{self.port}", "store": "store",
                                "identity": {"certificate": "pki/server.pem", "key": "pki/server.key"},
                                "clients": {"ca": "pki/ca.pem"}, "receipts": {"key": "pki/receipt.key"}}

    # ---- lifetime

    def __enter__(self):
        self.write_files()
        return self

    def __exit__(self, kind, value, trace):
        for process in self.processes:
            process.kill_all()
        if kind is not None and not issubclass(kind, Skip):
            self.complain()
        if kind is not None and os.environ.get("CEDE_KEEP"):
            diag(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def complain(self):
        for log in sorted(self.dir.glob("*.log")):
            diag(f"---- end of {log.name}")
            diag("\n".join(log.read_text(errors="replace").splitlines()[-25:]))

    def write_files(self):
        """All files anew; a policy that changed gets the next serial and is signed."""
        path = self.dir / "policy.yaml"
        if path.exists() and path.read_text() != yaml(self.policy) and f"serial: {self.policy['serial']}\n" in path.read_text():
            self.policy["serial"] += 1
        for name, value in (("policy.yaml", self.policy), ("agent.yaml", self.config),
                            ("receiver.yaml", self.receiver_config)):
            (self.dir / name).write_text(yaml(value))
        if self.signed:
            self.sign()
        return self

    def sign(self, key="pki/policy.key", path=None):
        self.cede("policy", "sign", "--key", self.dir / key, path or self.dir / "policy.yaml")

    def publish(self):
        """The next policy, as an agency's tool puts it in place: written and signed aside, then renamed."""
        self.policy["serial"] += 1
        new = self.dir / "policy.yaml.new"
        new.write_text(yaml(self.policy))
        self.sign(path=new)
        os.rename(f"{new}.sig", self.dir / "policy.yaml.sig")
        os.rename(new, self.dir / "policy.yaml")
        return self.policy["serial"]

    def spawn(self, name, *words, env=None):
        process = Process(name, [str(w) for w in words], self.dir / f"{name}.log", env)
        self.processes.append(process)
        return process

    def start(self):
        if self.has_receiver:
            self.start_receiver()
        self.start_agent()
        return self

    def receiver_words(self):
        return [program("cede-receiver"), "--config", str(self.dir / "receiver.yaml")]

    def start_receiver(self):
        self.receiver = self.spawn("receiver", *self.receiver_words())
        self.listening(self.receiver, self.port)
        return self.receiver

    def listening(self, process, where):
        """Waits until the process takes connections on this port, or on the UNIX socket of this name."""
        family, address = (socket.AF_INET, ("127.0.0.1", where)) if isinstance(where, int) else (socket.AF_UNIX, str(where))

        def up():
            check(process.alive(), f"{process.name} ended, status {process.popen.returncode}")
            with socket.socket(family) as s:
                s.settimeout(1)
                return s.connect_ex(address) == 0
        until(up, 15, f"{process.name} listens on {where}")

    def agent_words(self):
        return [program("cede"), "run", "--policy", str(self.dir / "policy.yaml"), "--config",
                str(self.dir / "agent.yaml"), *([] if self.signed else ["--unsigned"])]

    def start_agent(self, env=None):
        self.agent = self.spawn("agent", *self.agent_words(), env=env)
        return self.agent

    def courier(self, seconds=15):
        """The courier's process id."""
        def look():
            check(self.agent.alive(), f"cede run ended, status {self.agent.popen.returncode}")
            for pid in self.agent.children():
                with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="ascii") as f:
                    if f.read().strip() == "cede-courier":
                        return pid
            return None
        return until(look, seconds, "cede run has a courier")

    def cede(self, *words, status=(0,)):
        """Runs a cede command to its end; its output. Failure on another exit status."""
        done = subprocess.run([program("cede"), *map(str, words)], capture_output=True, stdin=subprocess.DEVNULL,
                              text=True, errors="replace", timeout=DEADLINE_S, cwd=self.dir)
        check(done.returncode in status,
              f"cede {' '.join(map(str, words))}: status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}")
        return done.stdout + (done.stderr if done.returncode == 3 else "")

    # ---- captures

    def write(self, name, content, want=True, source="faces", top=None):
        """Writes a capture as a camera does: a temporary name, then its own."""
        raw = os.fsencode(name)
        full = os.path.join(os.fsencode(top or self.capture), raw)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        hidden = os.path.join(os.path.dirname(full), b".new-" + hashlib.sha256(raw).hexdigest()[:16].encode())
        with open(hidden, "wb") as f:
            f.write(content)
        os.rename(hidden, full)
        if want:
            self.expect(name, content, source)
        return full

    def expect(self, name, content, source="faces"):
        key = source.encode() + b"/" + os.fsencode(name)
        self.want.setdefault(key, []).append(hashlib.sha256(content).hexdigest())

    def left(self):
        """Names of all files under the capture directory, relative to it."""
        top = os.fsencode(self.capture)
        found = []
        for folder, _, names in os.walk(top):
            found += [os.path.relpath(os.path.join(folder, n), top) for n in names]
        return sorted(found)

    def empty(self, seconds=DEADLINE_S, but=()):
        """Waits until the capture directory holds nothing but these files. The ledger says a moment later that they are wiped."""
        but = sorted(os.fsencode(b) for b in but)

        def look():
            if self.agent is not None:
                check(self.agent.alive(), f"cede run ended, status {self.agent.popen.returncode}")
            return self.left() == but
        until(look, seconds, lambda: f"capture directory has only {but}; it has {len(self.left())} files: {self.left()[:5]}")

    def settled(self, seconds=DEADLINE_S, but=()):
        """Waits until every capture is wiped and every bundle done, then compares the store."""
        self.empty(seconds, but)
        self.idle(seconds)
        Store(self.store, self.pki).read().compare(self.want)

    # ---- what cede says of itself

    def status(self):
        """Before the agent made its ledger there is nothing to count."""
        said = self.cede("status", "--state", self.state, "--json", status=(0, 1, 3))
        if said.lstrip().startswith("{"):
            return json.loads(said)
        check("no ledger yet" in said, f"cede status: {said}")
        return {"captures": {}, "bundles": {}}

    def counts(self):
        """({capture state: number}, {bundle state: number})"""
        status = self.status()
        return status["captures"], status["bundles"]

    def in_state(self, *states):
        """How many captures are in any of these states, at one moment."""
        captures = self.counts()[0]
        return sum(captures.get(s, 0) for s in states)

    def idle(self, seconds=DEADLINE_S):
        """Waits until the ledger has no live capture and no bundle that is not done."""
        def look():
            captures, bundles = self.counts()
            return not any(captures.get(s) for s in ("settling", "ready", "bundled", "sealed", "wiping")) and \
                not any(bundles.get(s) for s in ("sealed", "receipted"))
        until(look, seconds, lambda: f"the ledger is at rest; it has {self.counts()}", each=0.1)

    def verify_ledger(self):
        return self.cede("ledger", "verify", "--state", self.state)


def programs_are_built():
    for name in ("cede", "cede-courier", "cede-receiver"):
        program(name)

