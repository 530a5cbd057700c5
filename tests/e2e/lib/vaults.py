# SPDX-License-Identifier: Apache-2.0
"""A file system with encryption, in an image of the test's own, and a world whose source is a vault in it."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import subprocess

from tap import Skip, check
from world import World, program, until

GET_POLICY_EX = 0xC0096616
GET_KEY_STATUS = 0xC080661A


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def must(*words):
    done, said = run(*words)
    if not done:
        raise Skip(f"{words[0]} does not work here: {said}")
    return said


class Disk:
    """ext4 with encryption in an image; mounted at .mount. Everything is undone at the end."""

    def __init__(self, folder, size=256 << 20):
        self.image, self.mount = folder / "disk.img", folder / "disk"
        self.mount.mkdir()
        with open(self.image, "wb") as f:
            f.truncate(size)
        self.make()

    def make(self):
        """An empty file system."""
        must("mkfs.ext4", "-q", "-F", "-O", "encrypt", self.image)

    def attach(self):
        must("mount", "-o", "loop", self.image, self.mount)

    def detach(self):
        """As at a reboot: the keys of the file system go with it."""
        # a child of another thread, between fork and exec, still has this one's descriptors
        until(lambda: run("umount", self.mount)[0], 10, lambda: f"umount: {run('umount', self.mount)[1]}")

    def reboot(self):
        self.detach()
        self.attach()

    def count(self, *markers):
        """How often each stands in the raw image; the file system is synced first."""
        if self.is_attached():
            run("sync", "-f", self.mount)
        found = [0] * len(markers)
        with open(self.image, "rb") as f:
            rest = b""
            while block := f.read(8 << 20):
                block = rest + block
                for i, m in enumerate(markers):
                    found[i] += block.count(m)
                rest = block[-256:]
                for i, m in enumerate(markers):
                    found[i] -= rest.count(m)  # counted with the next block
        for i, m in enumerate(markers):
            found[i] += rest.count(m)
        return found

    def is_attached(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return any(line.split(" ")[4] == str(self.mount) for line in f)

    def done(self):
        while self.is_attached():
            must("umount", "-l", self.mount)


def key_of(folder):
    """The key of an encrypted directory in hexadecimal, or None."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        arg = bytearray((24).to_bytes(8, "little") + bytes(24))
        try:
            fcntl.ioctl(fd, GET_POLICY_EX, arg, True)
        except OSError:
            return None
        return arg[16:32].hex() if arg[8] == 2 else None
    finally:
        os.close(fd)


def key_state(mount, key):
    """absent, present or busy"""
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        arg = bytearray(128)
        arg[0:4] = (2).to_bytes(4, "little")  # by identifier
        arg[8:24] = bytes.fromhex(key)
        fcntl.ioctl(fd, GET_KEY_STATUS, arg, True)
        return {1: "absent", 2: "present", 3: "busy"}[int.from_bytes(arg[64:68], "little")]
    finally:
        os.close(fd)


def key_state_known(folder, key):
    """Whether the file system of the folder has encryption at all."""
    try:
        return bool(key_state(folder, key))
    except OSError:
        return False


class Vault(World):
    """World whose source lies in a vault: with Vault(epoch="2s") as w"""

    def __init__(self, epoch="2s", keys="memory", vault=None, **more):
        super().__init__(**more)
        self.disk = None
        self.source["vault"] = {"epoch": epoch, "keys": keys, **(vault or {})}
        self.secret = pathlib.Path(f"/dev/shm/cede-test-{os.getpid()}-{id(self)}")

    def __enter__(self):
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            raise Skip("needs root and loop devices")
        self.disk = Disk(self.dir)
        self.disk.attach()
        self.capture = self.disk.mount / "site" / "faces"
        self.capture.mkdir(parents=True)
        self.source["path"] = str(self.capture)
        if self.source["vault"]["keys"] == "wrapped":
            self.new_secret()
            self.config["vault"] = {"key": str(self.secret)}
        return super().__enter__()

    def audit(self):
        """[(finding, subject)] of the agency's audit, which requires crypto-erased."""
        export = self.dir / "export.jsonl"
        export.write_text(self.cede("ledger", "export", "--json", "--state", self.state))
        done = subprocess.run([program("cede-receiver"), "audit", "--store", self.store, "--host", "dev-host-1", "--ledger", export,
                               "--require", "crypto-erased", "--max-age", "1h", "--json"], capture_output=True, text=True)
        check(done.returncode in (0, 1), f"cede-receiver audit: {done.stdout}{done.stderr}")
        return [(o["finding"], o["subject"]) for o in map(json.loads, done.stdout.splitlines()) if "finding" in o]

    def new_secret(self):
        with open(os.open(self.secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(os.urandom(64))

    def __exit__(self, kind, value, trace):
        for process in self.processes:
            process.kill_all()
        if self.disk is not None:
            self.disk.done()
        with contextlib.suppress(FileNotFoundError):
            self.secret.unlink()
        super().__exit__(kind, value, trace)

    @property
    def store_dir(self):
        return self.disk.mount / "site" / ".cede-vault" / "faces"

    def epochs(self):
        """Directories that wait for their end."""
        return sorted(p.name for p in self.store_dir.iterdir()) if self.store_dir.is_dir() else []

    def key(self):
        return key_of(self.capture)

    def in_force(self, seconds=20, other_than=None):
        """Waits until the path leads to an encrypted directory (of another key); its key."""
        def look():
            check(self.agent.alive(), f"cede run ended, status {self.agent.popen.returncode}")
            key = self.key()
            return key if key is not None and key != other_than else None
        return until(look, seconds, "the source is in its vault")

    def events(self, kind):
        """[{key: value}] of each event of this kind, with its time as at"""
        out = []
        for line in self.cede("ledger", "events", "--state", self.state).splitlines():
            _, at, name, _, *detail = line.split(" ")
            if name == kind:
                out.append({"at": at, **dict(w.split("=", 1) for w in detail if "=" in w)})
        return out

    def levels(self):
        """{(level, reason): number} of all wiped captures, from the database"""
        import sqlite3
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/ledger.db?mode=ro", uri=True)) as db:
            return {(a, b): n for a, b, n in db.execute(
                "SELECT level, reason, count(*) FROM capture WHERE state = 4 GROUP BY 1, 2")}

    def erased(self, key, seconds=30):
        return until(lambda: [e for e in self.events("vault-erased") if e["epoch"] == key], seconds,
                     lambda: f"the key {key} is erased; epochs {self.epochs()}, log {re.findall('vault.*', self.agent.said())[-5:]}", each=0.2)[0]

    def left(self):
        """With the files of epochs that have not ended."""
        found = super().left()
        for folder, _, names in os.walk(os.fsencode(self.store_dir)):
            found += [os.path.relpath(os.path.join(folder, n), os.fsencode(self.store_dir)) for n in names]
        return sorted(found)

    def left_over(self):
        """Names of ignored files that writers left at the path (a rename that failed)."""
        return [os.fsdecode(n) for n in super().left() if n.endswith(b".part")]

    def lateness(self):
        """Seconds from the last wipe in each epoch to the end of its key, of those that had captures."""
        import sqlite3
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/ledger.db?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT e.ended_ns, (SELECT max(b.receipted_ns) FROM capture c JOIN bundle b ON b.id = c.bundle "
                              "WHERE c.source = e.source) FROM epoch e WHERE e.state = 3").fetchall()
        return [(ended - last) / 1e9 for ended, last in rows if last is not None]
