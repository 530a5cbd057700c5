#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agent and receiver under a service manager: what they tell it, when, and what they take from it."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Failure, Skip, check, equal
from tracing import Strace
from world import World, until


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, w, name="notify"):
        self.path = w.dir / name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.words = []

    def env(self, **more):
        return {**os.environ, "NOTIFY_SOCKET": str(self.path), **more}

    def wait(self, word, seconds=20):
        """Reads on until this comes; everything before it is passed over."""
        end = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                self.words.append(self.socket.recv(4096).decode())
            except TimeoutError:
                raise Failure(f"no {word!r} within {seconds} s; heard {self.words[-20:]}") from None
            if self.words[-1].startswith(word):
                return self.words[-1]

    def heard(self, word):
        """It came already, or it comes."""
        if not any(known.startswith(word) for known in self.words):
            self.wait(word)

    def silent(self, word, seconds):
        """Whether none of these came for so long."""
        try:
            self.wait(word, seconds)
        except Failure:
            return True
        return False

    def forget(self):
        self.socket.setblocking(False)
        while True:
            try:
                self.socket.recv(4096)
            except BlockingIOError:
                return


def from_start_to_end():
    """ready comes when the agent works, status says how it goes, stopping comes with SIGTERM"""
    with World() as w:
        w.start_receiver()
        manager = Manager(w)
        w.start_agent(env=manager.env())
        manager.wait("READY=1")
        check("agent.ready" in w.agent.said(), "the log says ready first")
        manager.heard("STATUS=handing over; policy test-lanes, serial 1; 0 sealed bundles wait for a receipt; link up")
        w.write("lane1/AB12CDE.jpg", b"picture" * 1000)
        w.settled()
        equal(w.agent.stop(), 0, "exit status")
        manager.wait("STOPPING=1")
        check(not any("AB12CDE" in word for word in manager.words), "no name of a capture is told")
        check(not any(word.startswith("WATCHDOG") for word in manager.words), "no watchdog was asked for, none was fed")


def not_ready_without_policy():
    """an agent that refuses to start never says ready, and says why"""
    with World() as w:
        manager = Manager(w)
        (w.dir / "policy.yaml.sig").unlink()
        w.start_agent(env=manager.env())
        until(lambda: not w.agent.alive(), 15, "the agent ends")
        equal(w.agent.popen.returncode, 2, "exit status")
        check("there is no signature beside the policy" in w.agent.said(), w.agent.said())
        check(manager.silent("READY=1", 0.1), "it never said ready")


def slow_from_the_start(w, manager, delay_s):
    """Starts the agent; each flush of its ledger takes so long."""
    if shutil.which("strace") is None:
        raise Skip("strace is not here")
    w.agent = w.spawn("agent", "strace", "-D", "-f", "-o", w.dir / "trace", "-e", "trace=fdatasync", "-e",
                      f"inject=fdatasync:delay_enter={int(delay_s * 1e6)}", *w.agent_words(), env=manager.env())


def ready_means_recovered():
    """who waits for ready finds what was under way before known, also while the disk is slow; a disk that hangs is no failed start"""
    with World(receiver=False) as w:
        manager = Manager(w)
        w.start_agent(env=manager.env())
        manager.wait("READY=1")
        for delay_s, known in ((1, True), (13, False)):
            w.agent.stop()
            manager.forget()
            slow_from_the_start(w, manager, delay_s)
            manager.wait("READY=1", 60)
            unmet = w.status()["agent"]["unmet"]
            equal("recovered" not in unmet, known, f"known before ready with {delay_s} s a flush; unmet: {unmet}")


def reload_ends_with_ready():
    """a reload is told from its beginning to its end, a refused policy too, and the status says so"""
    with World(receiver=False) as w:
        manager = Manager(w)
        w.start_agent(env=manager.env())
        manager.wait("READY=1")
        w.publish()
        manager.wait("RELOADING=1\nMONOTONIC_USEC=")
        manager.wait("READY=1")
        manager.heard("STATUS=handing over; policy test-lanes, serial 2;")
        (w.dir / "policy.yaml").write_text("version: 1\n")
        manager.wait("RELOADING=1")
        manager.wait("READY=1")
        manager.heard("STATUS=handing over; policy test-lanes, serial 2 (a newer one was refused)")
        w.agent.signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        manager.wait("READY=1")


def delayed(w, process, calls, delay_s, threads=True):
    """Each of these calls of the process takes so long."""
    return Strace(process.pid, w.dir, "-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter={int(delay_s * 1e6)}",
                  threads=threads)


def watchdog_follows_the_ledger():
    """while a commit hangs, the loop lives on and the watchdog is not fed; then it is again"""
    with World(receiver=False) as w:
        manager = Manager(w)
        w.start_agent(env=manager.env(WATCHDOG_USEC="800000", WATCHDOG_PID="0"))
        manager.wait("READY=1")
        check(manager.silent("WATCHDOG=1", 1), "another process's watchdog is not fed")
        w.agent.stop()
        w.start_agent(env=manager.env(WATCHDOG_USEC="800000"))
        manager.wait("READY=1")
        for _ in range(4):
            manager.wait("WATCHDOG=1", 10)
        with delayed(w, w.agent, "fdatasync,fsync", 4):
            w.write("a.jpg", b"x" * 5000, want=False)
            until(lambda: manager.silent("WATCHDOG=1", 2), 20, "the watchdog is not fed")
        manager.forget()
        manager.wait("WATCHDOG=1", 20)


def watchdog_follows_the_loop():
    """while the loop hangs, the watchdog is not fed"""
    with World(receiver=False) as w:
        manager = Manager(w)
        w.start_agent(env=manager.env(WATCHDOG_USEC="800000"))
        manager.wait("READY=1")
        manager.wait("WATCHDOG=1")
        with delayed(w, w.agent, "epoll_wait,epoll_pwait", 4, threads=False):
            until(lambda: manager.silent("WATCHDOG=1", 2), 20, "the watchdog is not fed")
        manager.forget()
        manager.wait("WATCHDOG=1", 20)


def receiver_tells_too():
    """the receiver says ready, feeds the watchdog while requests get on, and says stopping"""
    with World() as w:
        manager = Manager(w)
        w.receiver = w.spawn("receiver", *w.receiver_words(), env=manager.env(WATCHDOG_USEC="800000"))
        manager.wait("READY=1")
        for _ in range(4):
            manager.wait("WATCHDOG=1", 10)
        w.start_agent()
        w.write("a.jpg", b"x" * 5000)
        w.settled()
        with delayed(w, w.receiver, "fdatasync,fsync", 4):
            w.write("b.jpg", b"x" * 5000)
            until(lambda: manager.silent("WATCHDOG=1", 2), 20, "the watchdog is not fed while the store's disk hangs")
        check("receiver.stuck" in w.receiver.said(), w.receiver.said())
        manager.forget()
        manager.wait("WATCHDOG=1", 20)
        w.settled()
        equal(w.receiver.stop(), 0, "exit status")
        manager.wait("STOPPING=1")


def credentials():
    """keys that the manager passes are taken; without it the error says what to do"""
    with World() as w:
        folder = w.dir / "credentials"
        folder.mkdir()
        for name in ("agent.pem", "agent.key", "server.pem", "server.key", "receipt.key"):
            (w.pki / name).rename(folder / name)
            (folder / name).chmod(0o400)
        w.config["identity"] = {"certificate": "credential:agent.pem", "key": "credential:agent.key"}
        w.receiver_config["identity"] = {"certificate": "credential:server.pem", "key": "credential:server.key"}
        w.receiver_config["receipts"] = {"key": "credential:receipt.key"}
        w.write_files()
        for words in (w.agent_words(), w.receiver_words()):
            done = subprocess.run(words, capture_output=True, text=True, timeout=30)
            equal(done.returncode, 2, "exit status without credentials")
            check("started without credentials; let systemd pass it (LoadCredential=)" in done.stderr, done.stderr)
        env = {**os.environ, "CREDENTIALS_DIRECTORY": str(folder)}
        w.receiver = w.spawn("receiver", *w.receiver_words(), env=env)
        w.listening(w.receiver, w.port)
        w.start_agent(env=env)
        w.write("a.jpg", b"x" * 5000)
        w.settled()


def credentials_of_another_user():
    """root's credentials that an access list opens to the receiver's own user are taken, other such keys not"""
    if os.geteuid() != 0:
        raise Skip("needs root to become another user")
    with World() as w:
        folder = w.dir / "credentials"
        folder.mkdir()
        for name in ("server.pem", "server.key", "receipt.key"):
            shutil.copy(w.pki / name, folder / name)
            os.chown(folder / name, 0, 65534)
            (folder / name).chmod(0o440)  # as an access list with one reader shows
        for place in (w.dir, w.pki, folder):
            place.chmod(0o755)
        for place in w.dir.rglob("*"):
            if place.suffix in (".pem", ".yaml"):
                place.chmod(0o644)
        os.chown(w.store, 65534, 65534)
        w.receiver_config["identity"] = {"certificate": "credential:server.pem", "key": "credential:server.key"}
        w.receiver_config["receipts"] = {"key": "credential:receipt.key"}
        w.write_files()
        (w.dir / "receiver.yaml").chmod(0o644)
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        from world import program
        own = shutil.copy(program("cede-receiver"), w.dir / "cede-receiver")  # where nobody may go
        words = [*become, own, "--config", str(w.dir / "receiver.yaml")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30,
                              env={**os.environ, "CREDENTIALS_DIRECTORY": str(w.pki)})
        equal(done.returncode, 3, "status where they are root's alone")
        w.receiver = w.spawn("receiver", *words, env={**os.environ, "CREDENTIALS_DIRECTORY": str(folder)})
        w.listening(w.receiver, w.port)
        w.receiver.stop()
        # the same files by path: the group's bit is what it says there
        w.receiver_config["receipts"] = {"key": str(folder / "receipt.key")}
        w.write_files()
        done = subprocess.run(words, capture_output=True, text=True, timeout=30,
                              env={**os.environ, "CREDENTIALS_DIRECTORY": "/nowhere"})
        equal(done.returncode, 2, "status by path")


tap.run([from_start_to_end, ready_means_recovered, not_ready_without_policy, reload_ends_with_ready, watchdog_follows_the_ledger,
         watchdog_follows_the_loop, receiver_tells_too, credentials, credentials_of_another_user])
