# SPDX-License-Identifier: Apache-2.0
"""A world whose captures lie on a file system of their own, with a camera that the guard allows.

A guard that hangs shuts every program out of what it guards: so only loop devices of these tests are
ever guarded, and a watchdog ends guard and agent when a case takes too long."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import threading

from tap import Failure, Skip, check, diag
from world import World, build_dir, until

REFUSED = 13
WATCHDOG_S = 150


def run(*words, data=None):
    return subprocess.run([str(w) for w in words], input=data, stdin=None if data is not None else subprocess.DEVNULL,
                          capture_output=True, timeout=60)


def must(*words):
    done = run(*words)
    if done.returncode != 0:
        raise Skip(f"{words[0]} does not work here: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode().strip()


def guards(state=None):
    """Process ids of every cede-guard; of those whose keeper has this state directory, if it is given."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="ascii") as f:
            if f.read().strip() == "cede-guard":
                found.append(int(pid))
    return found


class Guarded(World):
    """with Guarded() as w: w.start(); w.camera("a.jpg", b"...")"""

    watchdog_s = WATCHDOG_S

    def __init__(self, mode="enforce", shared=False, allow=True, **more):
        if os.geteuid() != 0:
            raise Skip("needs root to guard anything")
        super().__init__(**more)
        self.stack = contextlib.ExitStack()
        self.disk = self.dir / "disk"
        self.disk.mkdir()
        self.capture = self.disk / "faces"
        self.source["path"] = str(self.capture)
        self.shared = shared
        programs = self.dir / "programs"
        programs.mkdir()
        self.lane_camera, self.stranger = programs / "lane-camera", programs / "stranger"
        opener = build_dir() / "tests" / "guard" / "opener"
        for copy in (self.lane_camera, self.stranger):
            shutil.copy(opener, copy)
        self.policy["guard"] = {"mode": mode}
        if allow:
            self.policy["guard"]["allow"] = [{"exe": str(self.lane_camera), "user": "root"}]
        self.ended = threading.Event()

    def mount(self):
        image = self.dir / "disk.img"
        with open(image, "wb") as f:
            f.truncate(96 << 20)
        self.make_file_system(image)
        self.device = must("losetup", "--find", "--show", image)
        self.stack.callback(run, "losetup", "--detach", self.device)
        must("mount", self.device, self.disk)
        self.stack.callback(self.unmount)
        self.capture.mkdir()
        if self.shared:
            (self.disk / "other").mkdir()
            (self.disk / "other" / "notes.txt").write_text("nobody's capture")

    def make_file_system(self, image):
        must("mkfs.ext4", "-q", "-F", image)

    def unmount(self):
        run("umount", "-l", self.disk)

    def __enter__(self):
        super().__enter__()
        try:
            self.mount()
        except BaseException:
            self.stack.close()
            raise
        threading.Thread(target=self.watchdog, daemon=True).start()
        return self

    def watchdog(self):
        if not self.ended.wait(self.watchdog_s):
            diag("the watchdog ends guard and agent")
            self.end_all()

    def end_all(self):
        for process in self.processes:
            process.kill_all()
        for pid in self.guards():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def __exit__(self, kind, value, trace):
        self.end_all()
        self.ended.set()
        self.stack.close()
        super().__exit__(kind, value, trace)

    def guards(self):
        """The guards that this world's agents started: they share their process group."""
        groups = {p.pid for p in self.processes}
        found = []
        for pid in guards():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) in groups:
                    found.append(pid)
        return found

    def guard(self, seconds=15):
        """The one guard's process id."""
        def one():
            found = self.guards()
            return found[0] if len(found) == 1 else None
        return until(one, seconds, lambda: f"one guard runs: {self.guards()}")

    def ready(self, seconds=30):
        self.said_again("agent.ready", 1, seconds)
        return self

    def said_again(self, event, times, seconds=30):
        def look():
            check(self.agent.alive(), f"cede run ended, status {self.agent.popen.returncode}")
            return self.agent.said().count(event) >= times
        until(look, seconds, f"the agent says {event} {times} times")

    def start_guarded(self):
        self.start()
        return self.ready()

    # ---- programs

    def camera(self, name, content, want=True, source="faces"):
        """Writes a capture with the allowed program."""
        path = self.capture / name
        done = run(self.lane_camera, "write", path, data=content)
        check(done.returncode == 0, f"the camera writes {name}: {done.stdout}")
        if want:
            self.expect(name, content, source)
        return path

    def opens(self, program, how, *words):
        """True: it opened the file; False: it was refused."""
        done = run(program, how, *words)
        if done.returncode not in (0, REFUSED):
            raise Failure(f"{program} {how} {words}: status {done.returncode}: {done.stdout} {done.stderr}")
        return done.returncode == 0

    # ---- what the ledger has

    def events(self, kind):
        import json
        said = self.cede("ledger", "events", "--state", self.state, "--json", status=(0, 3))
        rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return [r for r in rows if r.get("kind") == kind]

    def starts(self, count, seconds=20):
        """The details of the guard's starts, once so many are recorded: the ledger follows a moment later."""
        until(lambda: len(self.events("guard-started")) >= count, seconds, f"{count} starts of the guard are recorded")
        return [e["detail"] for e in self.events("guard-started")]

    def attempts(self, kind="guard-denied"):
        """The recorded attempts as mappings; subject is the capture's id or nothing."""
        found = []
        for row in self.events(kind):
            fields = dict(word.split("=", 1) for word in row["detail"].split(" "))
            fields["subject"] = row.get("subject")
            found.append(fields)
        return found

    def attempted(self, kind="guard-denied"):
        """How many in all."""
        return sum(int(a["count"]) for a in self.attempts(kind))
