#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Vaults: each epoch of a source has a directory and a key of its own, and the key is destroyed when
all that was in the directory is proven. Loop devices with ext4 and its encryption; root only."""

import contextlib
import datetime
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import faults
import tap
from tap import check, diag, equal
from vaults import Vault, key_state, key_state_known
from world import needs_landlock, program, until

MARKER = b"~cede-vault-marker~~"
NAME = "NAMEmarkOfATraveller"


def seconds(text):
    return datetime.datetime.fromisoformat(text[:26] + "+00:00").timestamp()


def one_epoch():
    """a capture in a vault: handed over, unlinked, crypto-erased when its epoch has ended; no marker and no name in the raw image"""
    with Vault(epoch="2s") as w:
        w.start()
        first = w.in_force()
        for i in range(20):
            w.write(f"lane/{NAME}{i:03}.jpg", MARKER * 2000)
        w.settled()
        keys = {e["epoch"] for e in w.events("vault-turned")}
        check(first in keys, "the ledger has the epoch")
        for key in keys - {w.key()}:
            equal(w.erased(key)["level"], "crypto-erased", "level")
            equal(key_state(w.disk.mount, key), "absent", "the kernel's word on the key")
        until(lambda: w.levels() == {("crypto-erased", ""): 20}, 20, lambda: f"all are crypto-erased: {w.levels()}")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()
        equal(w.audit(), [], "what the agency's audit finds")
        equal(w.disk.count(MARKER, NAME.encode()), [0, 0], "markers and names in the image")
        # what the test would have seen of a file that is not in the vault
        (w.disk.mount / f"{NAME}-plain").write_bytes(MARKER * 2000)
        plain = w.disk.count(MARKER, NAME.encode())
        check(plain[0] >= 2000 and plain[1] >= 1, f"the positive control is not seen: {plain}")


def storage(w):
    """(verdict, text) of what the doctor says of the source's storage"""
    said = json.loads(w.cede("doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--offline", "--json", status=(0, 1)))
    (finding,) = [f for f in said["findings"] if f["check"] == "storage"]
    return finding["verdict"], finding["text"]


def explained(w, path):
    """{step: text} of cede policy explain"""
    said = json.loads(w.cede("policy", "explain", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--json", w.capture / path,
                             status=(0, 1)))
    return {s["step"]: s["text"] for s in said["steps"]}


class Camera:
    """Writes until it is told to stop, and remembers what it wrote for certain."""

    def __init__(self, w, name, write):
        self.w, self.name, self.write = w, name, write
        self.stop, self.refusals, self.count = threading.Event(), 0, 0
        self.error = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        rng = random.Random(self.name)
        try:
            while not self.stop.is_set():
                self.count += 1
                content = MARKER + f"{self.name}/{self.count}/".encode() + rng.randbytes(rng.randrange(500, 60000))
                path = f"{self.name}/{NAME}-{self.count:05}.jpg"
                while not self.write(path, content):  # told that it failed: again, as a camera does
                    self.refusals += 1
                self.w.expect(path, content)
                self.stop.wait(rng.uniform(0.02, 0.2))
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e
        finally:
            getattr(self.write, "let_go", lambda: None)()


def by_name(w):
    """a temporary name, then its own, by full paths"""
    def write(path, content):
        full = w.capture / path
        try:
            full.parent.mkdir(exist_ok=True)
            part = full.with_suffix(".part")
            part.write_bytes(content)
            os.rename(part, full)
            return True
        except FileNotFoundError:
            return False
    return write


def slowly(w, pause_s):
    """under its own name, open for as long as a turn takes"""
    def write(path, content):
        full = w.capture / path
        full.parent.mkdir(exist_ok=True)
        with open(full, "wb", buffering=0) as f:
            for i in range(4):
                f.write(content[len(content) * i // 4:len(content) * (i + 1) // 4])
                time.sleep(pause_s)  # the writer's own pause is what is tested
        return True
    return write


def staying(w, lets_go):
    """by a directory that is kept open, as a program writes into its working directory; let go now and then"""
    held = {}

    def write(path, content):
        if "fd" not in held:
            (w.capture / path).parent.mkdir(exist_ok=True)
            held["fd"] = os.open(w.capture, os.O_RDONLY | os.O_DIRECTORY)
            held["left"] = lets_go()
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=held["fd"])
            with open(fd, "wb") as f:
                f.write(content)
            done = True
        except FileNotFoundError:
            done = False
        held["left"] -= 1
        if held["left"] <= 0 or not done:
            let_go()
        return done

    def let_go():
        if "fd" in held:
            os.close(held.pop("fd"))
    write.let_go = let_go
    return write


def by_ftp(w, ftp):
    def write(path, content):
        ftp.deliver([(path, content)])
        return True
    return write


def turns():
    """cameras that keep writing through the turns (FTP, renames, files open across a turn, a directory that is kept): nothing is lost, each key goes within an epoch"""
    wanted, epoch = {"quick": (2, 6), "normal": (2, 8), "full": (50, 8)}[tap.mode()]
    with Vault(epoch=f"{epoch}s", vault={"leftovers": "erase"}) as w:
        w.start()
        w.in_force()
        rng = random.Random(5)
        crew = [Camera(w, "renames", by_name(w)), Camera(w, "open", slowly(w, 0.3)),
                Camera(w, "stays", staying(w, lambda: rng.randrange(5, 40))), Camera(w, "ftp", by_ftp(w, cameras.Ftp(w, w.capture)))]
        for c in crew:
            c.thread.start()
        until(lambda: len(w.events("vault-turned")) > wanted, 60 + wanted * epoch * 3, lambda: f"{wanted} turns; log {w.agent.said()[-600:]}", each=0.5)
        for c in crew:
            c.stop.set()
        for c in crew:
            c.thread.join(30)
            check(c.error is None, f"{c.name}: {c.error!r}")
        diag(f"{sum(c.count for c in crew)} captures, told to write again: {({c.name: c.refusals for c in crew})}")
        w.settled(but=w.left_over())
        last = w.key()
        keys = {e["epoch"] for e in w.events("vault-turned")} - {last}
        for key in keys:
            equal(w.erased(key)["level"], "crypto-erased", "level")
            equal(key_state(w.disk.mount, key), "absent", "the kernel's word on the key")
        late = w.lateness()
        diag(f"{len(keys)} epochs; from the last wipe of each to the end of its key: {max(late):.2f} s at most, {sorted(late)[len(late) // 2]:.2f} s in the middle")
        check(max(late) <= epoch, f"a key outlived its last capture by {max(late):.1f} s")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()
        equal(w.disk.count(MARKER, NAME.encode()), [0, 0], "markers and names in the image")


def waiting(w, n, prefix, want):
    """n captures that the agency can't get: the receiver is away"""
    for i in range(n):
        w.write(f"{prefix}/{NAME}{i}.jpg", MARKER * 50 + f"{prefix}{i}".encode(), want=want)
    until(lambda: w.in_state("ready", "sealed") == n, 20,
          lambda: f"{n} captures wait: {w.counts()}", each=0.1)


def reboot(w):
    """Power off and on again: no process goes on, the keyring is empty."""
    w.agent.kill()
    until(lambda: not os.path.exists(f"/proc/{w.courier_pid}"), 15, "the courier has ended with its keeper")
    w.disk.reboot()


def start_waiting(w):
    """The first captures are handed over; then the receiver is away and three wait. The open epoch's key."""
    w.start()
    w.in_force()
    for i in range(4):
        w.write(f"first/{NAME}{i}.jpg", MARKER * 50 + str(i).encode())
    w.settled()
    w.courier_pid = w.courier()
    w.receiver.stop()
    return w.key()


def reboot_memory():
    """keys in memory, and a reboot: what was not handed over is destroyed, each with its event; the next epoch goes on"""
    with Vault(epoch="1h", keys="memory", source={"wipe": {"after": "receipt", "require": "crypto-erased"}}, policy={"holds": [{"id": "case-1", "match": ["first/*0.jpg"], "until": "2099-01-01T00:00:00Z"}]}) as w:
        w.start()
        w.in_force()
        for i in range(4):
            w.write(f"first/{NAME}{i}.jpg", MARKER * 50 + str(i).encode())
        until(lambda: w.counts()[0].get("held") == 1 and w.counts()[0].get("wiped") == 3, 20, lambda: f"one is held: {w.counts()}", each=0.1)
        equal(w.levels(), {("removed", "pending-erase"): 3}, "levels before the end of the epoch")
        equal(storage(w), ("ok", "a vault: crypto-erased at the end of its epoch"), "what the doctor says")
        said = explained(w, f"first/{NAME}0.jpg")
        check("crypto-erased with the key of its epoch" in said["vault"] and "wipe" not in said, f"explained: {said}")
        w.courier_pid, lost = w.courier(), w.key()
        w.receiver.stop()
        waiting(w, 3, "waiting", want=False)
        (w.capture / "waiting" / "unseen.tmp").write_bytes(MARKER)
        reboot(w)
        try:
            (w.capture / "x.jpg").write_bytes(b"x")
            raise AssertionError("written without a key")
        except OSError as e:
            check(e.errno == 126, f"ENOKEY expected: {e}")  # no program writes in the clear meanwhile
        w.start()
        w.in_force(other_than=lost)
        equal(w.erased(lost)["cause"], "key-lost", "cause")
        equal([e["reason"] for e in w.events("capture-destroyed")], ["key-lost"] * 3, "captures destroyed, each said")
        equal([e.get("held") for e in w.events("capture-gone")], ["yes"], "what the hold was to keep")
        equal(w.levels(), {("crypto-erased", ""): 3, ("crypto-erased", "key-lost"): 3}, "levels")
        check(lost not in w.epochs(), f"its directory is left in the store: {w.epochs()}")
        check("vault.lost" in w.agent.said() and "vault.cleared" in w.agent.said(), "said in the log")
        w.write(f"after/{NAME}.jpg", MARKER * 50)
        w.settled()
        w.verify_ledger()
        equal(w.agent.stop(10), 0, "exit status")
        equal(w.disk.count(MARKER, NAME.encode()), [0, 0], "markers and names in the image")


def reboot_wrapped():
    """wrapped keys, and a reboot: everything waits under its own key and arrives; with another secret it waits, and nothing is destroyed"""
    with Vault(epoch="1h", keys="wrapped") as w:
        before = start_waiting(w)
        waiting(w, 3, "waiting", want=True)
        equal(len(list((w.state / "vault").iterdir())), 1, "sealed keys")
        reboot(w)
        secret = w.secret.read_bytes()
        w.new_secret()
        w.start()
        until(lambda: "vault.unavailable" in w.agent.said(), 20, lambda: f"said that it does not open: {w.agent.said()}")
        check("does not open" in w.agent.said(), "the error names the cause")
        equal(w.key(), before, "the directory stays where it is")
        equal(w.events("capture-destroyed") + w.events("capture-gone"), [], "nothing is given up")
        w.secret.write_bytes(secret)
        w.settled()
        equal(w.key(), before, "the epoch goes on")
        equal(w.levels(), {("removed", "pending-erase"): 7}, "levels before the end of the epoch")
        w.source["vault"]["epoch"] = "2s"
        w.publish()
        equal(w.erased(before)["level"], "crypto-erased", "level")
        equal(w.levels(), {("crypto-erased", ""): 7}, "levels")
        check(f"{before}.key" not in os.listdir(w.state / "vault"), "its sealed copy is gone")
        w.verify_ledger()
        equal(w.agent.stop(10), 0, "exit status")
        equal(w.disk.count(MARKER, NAME.encode()), [0, 0], "markers and names in the image")


def locked_and_displaced():
    """wrapped keys that do not open after a reboot, and another directory at the path, or none: the locked epoch waits, what comes there goes, and it goes on when it is back"""
    with Vault(epoch="1h", keys="wrapped") as w:
        before = start_waiting(w)
        waiting(w, 2, "waiting", want=True)
        reboot(w)
        secret = w.secret.read_bytes()
        w.new_secret()
        w.start()
        until(lambda: "does not open" in w.agent.said(), 20, lambda: f"said that it does not open: {w.agent.said()}")
        site = w.capture.parent
        os.rename(site, site.with_name("elsewhere"))
        time.sleep(8)  # longer than between two tries of the key
        check(w.agent.alive(), "the agent goes on while the store is not there")
        os.rename(site.with_name("elsewhere"), site)
        aside = w.capture.with_name("faces.old")
        os.rename(w.capture, aside)
        w.capture.mkdir()
        w.write("b.jpg", MARKER * 10)
        w.in_force(30, other_than=before)
        w.empty(30)
        equal([key_state(w.disk.mount, before), w.in_state("gone", "replaced"), w.events("vault-erased")], ["absent", 0, []], "its key is not there, nothing is given up")
        w.secret.write_bytes(secret)
        os.rename(aside, w.store_dir / before)  # by hand, as the log says
        w.settled()
        equal(key_state(w.disk.mount, before), "present", "its key, with the right secret")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()


def stop_waiting(w, want):
    """Killed while three captures wait in the epoch whose key this is."""
    key = start_waiting(w)
    waiting(w, 3, "waiting", want=want)
    w.agent.kill()
    until(lambda: not os.path.exists(f"/proc/{w.courier_pid}"), 15, "the courier has ended with its keeper")
    return key


def start_without_epochs(w):
    """The agent, where its epochs are not: it says so."""
    said = w.agent.said().count("vault.unavailable") + 1
    w.start_agent()
    until(lambda: w.agent.said().count("vault.unavailable") == said, 20, lambda: f"said that they are not here: {w.agent.said()}")
    check("have not ended" in w.agent.said() or "has not ended" in w.agent.said(), "the error names the cause")


def not_mounted():
    """started while the vault's file system is not mounted, with a bare directory in its place: its epochs are waited for, no key goes, nothing is written off"""
    with Vault(epoch="1h", keys="wrapped") as w:
        before = stop_waiting(w, want=True)
        w.start_receiver()
        for with_store in (False, True):  # as an administrator or an earlier version may have left one
            w.disk.detach()
            w.capture.mkdir(parents=True, exist_ok=True)
            if with_store:
                (w.capture.parent / ".cede-vault" / w.source["name"]).mkdir(mode=0o700, parents=True)
            if with_store and key_state_known(w.capture.parent, before):
                diag("the file system below has encryption as well: a store on it can't be told from the vault's own")
            else:
                start_without_epochs(w)
                wiped = w.in_state("wiped")
                w.write("bare.jpg", MARKER + bytes([with_store]))
                until(lambda n=wiped: w.in_state("wiped") == n + 1, 20, "what comes into the bare directory is handed over")
                check((w.capture.parent / ".cede-vault").exists() == with_store, "no store is made there")
                equal(w.agent.stop(10), 0, "exit status")
            w.disk.attach()
        equal(w.events("capture-destroyed") + w.events("capture-gone") + w.events("vault-erased"), [], "nothing is given up")
        check(f"{before}.key" in os.listdir(w.state / "vault"), "the sealed key is there")
        w.start_agent()
        w.settled()
        equal(w.key(), before, "the epoch goes on")
        equal(w.levels()["removed", "pending-erase"], 7, "levels before the end of the epoch")
        w.verify_ledger()
        pending = [f for f in w.audit() if f[0] == "weak-wipe"]
        check(len(pending) >= 7, f"what the agency's audit says of what can still be opened: {pending}")


def gone_for_good():
    """the vault's file system is made anew: its epochs are waited for until cede vault init, then they end as lost, each capture with its event"""
    with Vault(epoch="1h", keys="wrapped") as w:
        before = stop_waiting(w, want=False)
        w.disk.detach()
        w.disk.make()
        w.disk.attach()
        w.capture.mkdir(parents=True)
        start_without_epochs(w)
        equal(w.events("capture-destroyed") + w.events("vault-erased"), [], "nothing is given up yet")
        equal(w.agent.stop(10), 0, "exit status")
        w.cede("vault", "init", "--policy", w.dir / "policy.yaml")
        w.start()
        equal(w.erased(before)["cause"], "directory-gone", "cause")
        equal([e["reason"] for e in w.events("capture-destroyed")], ["key-lost"] * 3, "captures destroyed, each said")
        w.write(f"after/{NAME}.jpg", MARKER * 50)
        w.settled()
        w.verify_ledger()


def held():
    """a legal hold keeps its epoch and the key, said; when it is lifted the key goes"""
    hold = {"id": "case-1", "match": ["held/**"], "until": "2099-01-01T00:00:00Z"}
    with Vault(epoch="2s", policy={"holds": [hold]}) as w:
        w.start()
        first = w.in_force()
        w.write("held/a.jpg", MARKER * 10)
        w.write("b.jpg", MARKER * 10 + b"b")
        until(lambda: w.counts()[0].get("held") == 1, 20, "one is held")
        first = next(e["source"] for e in w.events("capture-seen")).split("@")[1]
        until(lambda: "vault.kept source=faces reason=legal-hold" in w.agent.said(), 20, "said that the epoch is kept")
        equal(key_state(w.disk.mount, first), "present", "its key")
        check(first in w.cede("vault", "status", "--state", w.state), "cede vault status has it")
        equal((w.store_dir / first / "held" / "a.jpg").read_bytes(), MARKER * 10, "what is held can be read")
        until(lambda: w.key() != first, 20, "another epoch is open")
        equal([(s["name"], s["plaintext_files"], s["files"].get("held"), s["overdue"]) for s in w.status()["sources"]], [("faces", 1, 1, False)],
              "cede status: one source, with what is in the clear in all its epochs")
        w.policy["holds"] = []
        w.publish()
        equal(w.erased(first)["level"], "crypto-erased", "level")
        w.settled()


def policy_command(w, *words):
    done = subprocess.run([program("cede"), "policy", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def forecast():
    """dry run, explain and diff look into the epochs that have ended as well; into one without its key nobody looks, and that is said"""
    with Vault(epoch="2s", keys="wrapped", receiver=False) as w:
        (w.capture / "lane").mkdir()
        policy, config = w.dir / "policy.yaml", w.dir / "agent.yaml"
        w.write("lane/first.jpg", b"before the vault", want=False)
        w.start_agent()
        w.in_force()
        for i in range(3):  # the same name in an epoch each
            def write(content=b"face %d" % i):
                with contextlib.suppress(FileExistsError), open(w.capture / "lane" / "a.jpg", "xb") as file:
                    return file.write(content)
                return False
            until(write, 30, lambda: f"a turn: {w.epochs()}", each=0.2)
        until(lambda: w.in_state("ready", "sealed") == 4, 20, lambda: f"four wait: {w.counts()}")
        equal(w.agent.stop(10), 0, "exit status")
        store = w.store_dir
        there = {(name, os.path.relpath(pathlib.Path(folder, file), top)) for name, top in
                 [(None, w.capture), *((e, store / e) for e in w.epochs())] for folder, _, files in os.walk(top) for file in files}
        keys = sorted({e for e, _ in there} - {None, "before"})
        check(len(keys) >= 2 and ("before", "lane/first.jpg") in there, f"captures in epochs that have ended: {there}")

        code, said, wrong = policy_command(w, "dry-run", "--json", "--policy", policy, "--config", config)
        equal(code, 0, f"exit status of the dry run: {wrong}")
        found = {(x["epoch"], x["path"]): x for x in map(json.loads, said.splitlines()) if x["kind"] == "file"}
        equal(set(found), there, "files of the dry run")
        equal({x["source"] for x in found.values()}, {"faces"}, "their source")
        said = policy_command(w, "dry-run", "--policy", policy)[1]
        for row in (f"faces@{keys[0]}/lane/a.jpg", "faces@before/lane/first.jpg", "4 files,"):
            check(row in said, f"{row!r} in {said}")

        for path, name in ((store / keys[0] / "lane/a.jpg", keys[0]), (store / "before/lane/first.jpg", "before")):
            code, said, wrong = policy_command(w, "explain", "--policy", policy, "--config", config, path)
            equal(code, 0, f"explain {path}: {said}{wrong}")
            check("faces (line" in said and f"in an epoch of its vault that has ended: {name}" in said, said)
            check("first seen not known" not in said, f"the ledger knows it by its epoch: {said}")
            check("decision  hand-over: ready" in said, said)
        equal(policy_command(w, "explain", "--policy", policy, store / "nothing" / "x.jpg")[0], 3, "explain where no epoch is")

        (w.dir / "new.yaml").write_text(policy.read_text().replace("**/*.jpg", "**/a.jpg"))
        code, said, wrong = policy_command(w, "diff", "--json", policy, w.dir / "new.yaml")
        equal(code, 1, f"exit status of diff: {wrong}")
        said = [json.loads(line) for line in said.splitlines()]
        equal({x["path"]: x["new_reason"] for x in said if x["kind"] == "file"},
              {str(store / "before/lane/first.jpg"): "unmatched"}, "files decided differently")
        equal(said[-1]["looked_at"], 4, "files that diff looked at")

        (store / "junk").mkdir()
        (store / "junk" / "x.jpg").write_bytes(b"whose?")
        code, _, wrong = policy_command(w, "dry-run", "--policy", policy)
        check(code == 3 and "in its epoch junk: a directory in the vault's store that is no epoch" in wrong, f"{code} {wrong}")
        (store / "junk" / "x.jpg").unlink()
        (store / "junk").rmdir()

        w.disk.reboot()
        code, said, wrong = policy_command(w, "dry-run", "--policy", policy)
        equal(code, 3, "exit status without the keys")
        for key in keys:
            check(f"source faces: in its epoch {key}: locked" in wrong, wrong)
        check("source faces: locked" in wrong, f"the directory at the path as well: {wrong}")
        check("1 file," in said and "faces@before/lane/first.jpg" in said, f"no encrypted name is shown: {said}")
        code, said, wrong = policy_command(w, "explain", "--policy", policy, store / keys[0] / "lane/a.jpg")
        check(code == 3 and "locked" in wrong, f"{code} {said}{wrong}")


def no_vault_here():
    """where the file system has no encryption: handed over and overwritten, and said; check --host and init say why"""
    hold = {"id": "case-1", "match": ["held/**"], "until": "2099-01-01T00:00:00Z"}
    with Vault(epoch="1h", policy={"holds": [hold]}) as w:
        w.disk.detach()
        subprocess.run(["mkfs.ext4", "-q", "-F", w.disk.image], check=True)
        w.disk.attach()
        w.capture.mkdir(parents=True)
        said = w.cede("vault", "init", "--policy", w.dir / "policy.yaml", status=(1,))
        check("tune2fs -O encrypt" in said, f"init names the mend: {said}")
        w.start()
        until(lambda: "vault.unavailable" in w.agent.said(), 20, "said")
        w.write("a.jpg", MARKER * 1000)
        w.settled()
        equal([e["reason"] for e in w.events("violation")], ["vault-unavailable"], "violations")
        verdict, text = storage(w)
        check(verdict == "broken" and "tune2fs -O encrypt" in text, f"what the doctor says: {verdict} {text}")
        w.write("held/b.jpg", MARKER * 10)
        until(lambda: w.counts()[0].get("held") == 1, 20, "one is held")
        said = explained(w, "held/b.jpg")
        check("tune2fs -O encrypt" in said["vault"] and said["wipe"].startswith("none is required; here at best"), f"explained: {said}")
        check(all(level != "crypto-erased" for level, _ in w.levels()), f"nothing is called crypto-erased: {w.levels()}")


def without_the_vault_again():
    """the policy drops the vault: the last epoch ends, and the source is a plain directory again"""
    with Vault(epoch="1h") as w:
        w.start()
        key = w.in_force()
        (w.capture / "lane").mkdir()
        w.write("lane/a.jpg", MARKER * 10)
        w.settled()
        del w.source["vault"]
        w.publish()
        equal(w.erased(key, seconds=60)["level"], "crypto-erased", "level")
        equal(w.key(), None, "the directory at the path has no key")
        check((w.capture / "lane").is_dir(), "with the directories of the old one")
        w.write("lane/b.jpg", MARKER * 10)
        w.settled()
        until(lambda: set(w.epochs()) <= {"before"}, 30, lambda: f"nothing is left in the store: {w.epochs()}")
        w.verify_ledger()


def one_kill(at):
    """The agent dies before its call `at` of those that make turns and ends; then it goes on."""
    with Vault(epoch="1s", keys="wrapped", vault={"leftovers": "erase"}) as w:
        page = faults.Page(w.dir / "page")
        page.arm(faults.KILL, ("mkdir", "rename", "unlink", "key"), at)
        (w.capture / "lane").mkdir()
        w.start_receiver()
        w.start_agent(env={**os.environ, "LD_PRELOAD": str(faults.library()), "CEDE_FAULT": str(page.path)})
        for i in range(60):
            w.write(f"lane/{i}.jpg", MARKER * 20 + str(i).encode())
            if not w.agent.alive():
                break
            time.sleep(0.1)  # the camera's own pause
        until(lambda: not w.agent.alive(), 30, f"the agent dies at call {at}")
        call = page.fired()
        w.write("lane/late.jpg", MARKER * 20)
        w.start_agent()
        w.in_force()
        w.write("lane/later.jpg", MARKER * 21)
        w.settled(90)
        keys = {e["epoch"] for e in w.events("vault-turned")}
        until(lambda: len(w.epochs()) <= 1, 30, lambda: f"the store is empty but for the last epoch: {w.epochs()}")
        for key in keys - {w.key()}:
            if key != w.key():  # the last turn of this moment
                w.erased(key)
                equal(key_state(w.disk.mount, key), "absent", f"key {key}")
        w.verify_ledger()
        equal(w.agent.stop(10), 0, "exit status")
        sealed = {f[:32] for f in os.listdir(w.state / "vault")}
        check(sealed <= {w.key(), *w.epochs()}, f"sealed keys without an epoch: {sealed}, {w.key()}, {w.epochs()}")
        return call


def killed():
    """kill -9 at any step of a turn or an end: the next start goes on; nothing is lost, every key but the last goes"""
    tries = {"quick": [6, 21], "normal": [4, 9, 15, 28], "full": range(1, 60)}[tap.mode()]
    struck = {}
    for at in tries:
        try:
            call = one_kill(at)
        except tap.Failure as e:
            raise tap.Failure(f"call {at}: {e}") from e
        struck[call] = struck.get(call, 0) + 1
    diag(f"died before {struck}")


def went_to_the_present_epoch(w, dead, number):
    """So many captures b*.jpg went once, under the present epoch and not under the dead one, which ends with none of theirs."""
    w.settled()
    seen = [e["source"].split("@")[1] for e in w.events("capture-seen") if e["path"].startswith("b")]
    equal((len(seen), dead in seen), (number, False), f"captures seen, and whether any was in the dead epoch {dead}: {seen}")
    return w.erased(dead)


def staged(again):
    """A turn is in the ledger and waits for a half-written file; then the agent, or its policy, is another one."""
    with Vault(epoch="32s", keys="wrapped") as w:
        w.start()
        first = w.in_force()
        w.write("a.jpg", MARKER)
        w.empty(20)
        half = w.capture / "x.part"

        def turned():
            half.write_bytes(b"half")
            return [e["epoch"] for e in w.events("vault-turned") if e["epoch"] != first]
        dead = until(turned, 40, "an early turn is in the ledger", each=0.3)[0]
        equal(w.key(), first, "the epoch at the path: the turn waits")
        again(w)
        half.unlink()
        equal((went_to_the_present_epoch(w, dead, 20)["captures"], key_state(w.disk.mount, dead)), ("0", "absent"),
              "captures in the epoch that never was, and its key")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()


def write_twenty(w):
    for i in range(20):
        w.write(f"b{i}.jpg", MARKER * 10 + b"%d" % i)


def turn_waits_over_a_restart():
    """a turn is in the ledger and waits for a half-written file, the agent is started anew: the key that was never used goes, what lies at the path goes once"""
    def again(w):
        equal(w.agent.stop(10), 0, "exit status")
        write_twenty(w)
        w.start_agent()
    staged(again)


def turn_waits_over_a_reload():
    """the same, and another policy comes into force"""
    def again(w):
        w.receiver.stop()
        write_twenty(w)
        w.publish()
        until(lambda: "policy.loaded" in w.agent.said(), 20, "another policy is in force")
        w.start_receiver()
    staged(again)


def replaced(epoch, goes_on):
    """Another directory at the source's path, while two captures wait in the vault's: the key of that one."""
    with Vault(epoch=epoch, keys="wrapped") as w:
        key = start_waiting(w)
        waiting(w, 2, "waiting", want=True)
        aside = w.capture.with_name("faces.old")
        os.rename(w.capture, aside)
        w.capture.mkdir()
        w.write("b.jpg", MARKER * 10)
        until(lambda: [e["file-system"] for e in w.events("source-changed")] == ["same"], 20, "said that it is another")
        w.start_receiver()
        new = w.in_force(30, other_than=key)
        w.empty(30)
        equal(len(list((aside / "waiting").iterdir())), 2, "captures in the directory that was renamed")
        equal([key in w.epochs(), w.in_state("gone", "replaced")], [False, 0], "whether its name is in the store; captures said to be gone")
        equal(key_state(w.disk.mount, key), "present", "its key")
        goes_on(w, key, aside, new)
        w.settled()
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()
        equal(w.disk.count(MARKER), [0], "markers in the image")


def another_directory():
    """another directory at the path of a vault: it is said, what comes there goes and the vault goes on with it; the old one waits, and goes on when it is back"""
    def back(w, key, aside, new):
        os.rename(w.capture, w.capture.with_name("faces.new"))
        os.rename(aside, w.capture)
        until(lambda: not list((w.capture / "waiting").iterdir()), 30, "what waited goes")
        equal(w.key(), key, "the epoch goes on at the path")
        os.rename(w.capture, w.store_dir / key)  # by hand, as the log says
        os.rename(w.capture.with_name("faces.new"), w.capture)
        until(lambda: w.agent.said().count("source.back") >= 2, 20, "both are found")
        w.write("c.jpg", MARKER * 11)
        w.empty(30)
        equal(w.key(), new, "the epoch at the path")
    replaced("1h", back)


def another_directory_and_turns():
    """the same, and turns come: no directory is exchanged that the vault does not know; what is put into the store under its own name is found there"""
    def stored(w, key, aside, new):
        w.write("c.jpg", MARKER * 11)
        w.in_force(60, other_than=new)
        os.rename(aside, w.store_dir / key)
        w.erased(key, 60)
    replaced("4s", stored)


def removed_while_away():
    """another directory at the path, and the old one is removed where it was moved to: its epoch ends when the agency has what was sealed, and it counts as away no more"""
    with Vault(epoch="4s", keys="wrapped") as w:
        key = start_waiting(w)
        waiting(w, 2, "waiting", want=True)
        another_at_the_path(w)
        until(lambda: len(w.events("source-missing")) == 1, 20, "said that it is away")
        equal(w.events("source-back"), [], "said to be back")
        shutil.rmtree(w.capture.with_name("faces.old"))
        w.start_receiver()
        equal(w.erased(key, 60)["cause"], "directory-gone", "cause")
        equal((len(w.events("source-missing")), len(w.events("source-back"))), (1, 1), "times it was away, and that this ended")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()


def two_plain(meanwhile):
    """A directory without encryption waits for its end in the store, and another comes to the path: first the one, then the other."""
    with Vault(epoch="4s", keys="wrapped", receiver=False) as w:
        w.write("x.jpg", MARKER * 10)
        w.start_agent()
        w.in_force()
        until(lambda: w.in_state("ready", "sealed") == 1, 20, lambda: f"one waits: {w.counts()}")
        equal((w.epochs(), (w.store_dir / "before" / "x.jpg").exists()), (["before"], True), "what is in the store")
        meanwhile(w)
        w.write("y.jpg", MARKER * 11)
        w.start_receiver()
        w.empty(60)
        w.settled()
        until(lambda: "before" not in w.epochs() and (w.key() is not None) == ("vault" in w.source), 60, lambda: f"both have ended: {w.epochs()}")
        seen = [e["path"] for e in w.events("capture-seen")]
        equal((sorted(seen), w.in_state("gone", "replaced")), (["x.jpg", "y.jpg"], 0), "captures seen; said to be gone")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()


def another_at_the_path(w):
    os.rename(w.capture, w.capture.with_name("faces.old"))
    w.capture.mkdir()


def second_plain_directory():
    """another directory without encryption comes to the path while the first waits in the store: it waits, at no cost, and goes after it"""
    def meanwhile(w):
        def descriptors():
            return len(os.listdir(f"/proc/{w.agent.popen.pid}/fd"))
        another_at_the_path(w)
        until(lambda: "two directories without encryption" in w.agent.said(), 20, "said that it waits")
        before = descriptors()
        time.sleep(17)  # three looks at it
        check(descriptors() < before + 3, f"descriptors of the agent: {before}, then {descriptors()}")
    two_plain(meanwhile)


def second_plain_directory_at_the_start():
    """the same, and the agent is started anew meanwhile: what the ledger has of the first is not looked for in the second"""
    def meanwhile(w):
        equal(w.agent.stop(10), 0, "exit status")
        another_at_the_path(w)
        w.start_agent()
        until(lambda: "two directories without encryption" in w.agent.said(), 20, "said that it waits")
    two_plain(meanwhile)


def second_plain_directory_without_the_vault():
    """the same, and the policy drops the vault meanwhile"""
    def meanwhile(w):
        del w.source["vault"]
        another_at_the_path(w)
        w.publish()
    two_plain(meanwhile)


def into_the_directory_above(w):
    """A second source, which lets the agent into the directory above the mount point: what is mounted later is within its sandbox."""
    above = w.dir / "yard"
    above.mkdir()
    w.policy["sources"].append({**w.source, "name": "yard", "path": str(above)})
    del w.policy["sources"][1]["vault"]


def proven_and_mounted_later():
    """started while the vault's file system is not mounted: what was to be wiped there, and what a hold that ended has kept there, is wiped as soon as it is mounted"""
    hold = {"id": "case-1", "match": ["held/**"], "until": "2099-01-01T00:00:00Z"}
    with Vault(epoch="1h", keys="wrapped", policy={"holds": [hold]}) as w:
        into_the_directory_above(w)
        w.write_files()
        w.start()
        key = w.in_force()
        w.write("held/a.jpg", MARKER * 9)
        until(lambda: w.in_state("held") == 1, 20, "one is held")
        w.receiver.signal(signal.SIGSTOP)
        waiting(w, 2, "waiting", want=True)
        until(lambda: w.in_state("sealed") == 2, 30, lambda: f"two are sealed: {w.counts()}")
        with contextlib.ExitStack() as stack:  # a file that is open for writing is not wiped
            for p in (w.capture / "waiting").iterdir():
                stack.enter_context(open(p, "r+b"))
            w.receiver.signal(signal.SIGCONT)
            until(lambda: w.in_state("wiping") == 2, 30, lambda: f"two are to be wiped: {w.counts()}")
            equal(w.agent.stop(15), 0, "exit status")
        w.disk.detach()
        w.capture.mkdir(parents=True, exist_ok=True)
        w.policy["holds"] = []
        w.write_files()
        start_without_epochs(w)
        until(lambda: "wipe.deferred source=faces" in w.agent.said(), 10, "said that wipes wait")
        check("no longer has the source" not in w.agent.said(), "the policy has the source")
        w.disk.attach()
        until(lambda: w.in_state("wiping", "held") == 0, 30, lambda: f"all is wiped: {w.counts()}")
        w.settled()
        equal((w.key(), w.in_state("gone", "replaced")), (key, 0), "the epoch at the path; captures said to be gone")
        w.verify_ledger()


def sealed_anew_when_found():
    """at_max_age: seal: killed while captures of an epoch are sealed in memory and the link is down, started without the vault's file system: once it is there they are sealed anew, into the spool"""
    with Vault(epoch="1h", keys="wrapped", source={"max_age": "9s", "at_max_age": "seal"}) as w:
        into_the_directory_above(w)
        w.write_files()
        start_waiting(w)
        waiting(w, 3, "waiting", want=True)
        until(lambda: w.in_state("sealed") == 3, 10, lambda: f"sealed in memory: {w.counts()}")
        w.agent.kill()
        until(lambda: not os.path.exists(f"/proc/{w.courier_pid}"), 15, "the courier has ended with its keeper")
        w.disk.detach()
        w.capture.mkdir(parents=True, exist_ok=True)
        start_without_epochs(w)
        time.sleep(2)  # the lost bundle was looked at without its place
        w.disk.attach()
        until(lambda: w.in_state("sealed") == 0 and w.in_state("wiped") == 7, 40, lambda: f"sealed anew and wiped: {w.counts()}")
        w.start_receiver()
        w.settled()
        w.verify_ledger()


def mounted_beyond_the_sandbox():
    """a vault's file system is mounted where the sandbox does not reach: said with the mend, and wiped after it"""
    needs_landlock()
    with Vault(epoch="1h", keys="wrapped") as w:
        w.start()
        key = w.in_force()
        w.write("a.jpg", MARKER * 9)
        w.settled()
        equal(w.agent.stop(15), 0, "exit status")
        w.disk.detach()
        w.capture.mkdir(parents=True, exist_ok=True)
        start_without_epochs(w)
        w.disk.attach()
        until(lambda: key_state(w.disk.mount, key) == "present", 20, "its key is there again")
        w.write("b.jpg", MARKER * 10)
        until(lambda: "sandbox.beyond" in w.agent.said(), 120, "said that the sandbox does not reach it")
        equal(w.agent.stop(15), 0, "exit status")
        w.start_agent()
        w.settled()
        equal((w.key(), w.agent.said().count("sandbox.beyond")), (key, 1), "the epoch at the path; times it was said")


def mounted_later():
    """the file system of a vault is mounted while the agent runs: what is on it goes, and the vault comes into force; unmounted, its epochs wait for it"""
    with Vault(epoch="1h", keys="wrapped") as w:
        into_the_directory_above(w)
        w.disk.detach()
        w.capture.mkdir(parents=True)
        w.write_files()
        w.start()
        until(lambda: "vault.unavailable" in w.agent.said(), 20, "said that there is no vault")
        w.disk.attach()
        w.write("b.jpg", MARKER * 10)
        w.empty(30)
        key = w.in_force(30)
        w.receiver.stop()
        waiting(w, 2, "waiting", want=True)
        subprocess.run(["umount", "-l", w.disk.mount], check=True)
        until(lambda: len(w.events("source-changed")) == 2, 20, "said that it is another")
        w.write("bare.jpg", MARKER * 12)
        w.start_receiver()
        until(lambda: w.left() == [], 30, "what comes into the bare directory goes")
        equal([w.in_state("gone", "replaced"), w.events("vault-erased")], [0, []], "captures said to be gone; keys that went")
        w.disk.attach()
        w.settled()
        equal(w.key(), key, "the epoch goes on")
        w.verify_ledger()


def mounted_meanwhile():
    """the file system of a vault is mounted while captures of the bare directory are being read and wiped: none of them is said to be gone, and they go when it is unmounted"""
    with Vault(epoch="1h", keys="wrapped") as w:
        into_the_directory_above(w)
        w.disk.detach()
        w.capture.mkdir(parents=True)
        w.write_files()
        w.start()
        until(lambda: "vault.unavailable" in w.agent.said(), 20, "said that there is no vault")
        bare, number = os.open(w.capture, os.O_RDONLY | os.O_DIRECTORY), 0

        def write():
            nonlocal number
            if number > w.in_state("wiped") + 300:
                return
            for number in range(number + 1, number + 11):
                content = MARKER * 200 + str(number).encode()
                with open(os.open(f"{number}.jpg", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=bare), "wb") as f:
                    f.write(content)
                w.expect(f"{number}.jpg", content)
        until(lambda: write() or w.in_state("wiped") > 50, 30, lambda: f"they are on their way: {w.counts()}", each=0.02)
        w.disk.attach()
        until(lambda: write() or w.key(), 30, "the vault is in force", each=0.01)
        os.close(bare)
        left = number - w.in_state("wiped")
        diag(f"{left} of {number} captures are in the bare directory")
        check(left > 0, "none was under way")
        subprocess.run(["umount", "-l", w.disk.mount], check=True)
        until(lambda: w.left() == [], 60, "what is in the bare directory goes")
        w.idle()
        equal((w.in_state("wiped"), w.in_state("gone", "replaced"), w.events("capture-gone")), (number, 0, []), "captures wiped, gone")
        w.disk.attach()
        w.settled()
        w.verify_ledger()


def died_behind_the_rmdir():
    """the directory of an ended epoch is gone and the ledger does not know it yet: its key goes, what lies at the path goes once"""
    with Vault(epoch="8s", keys="wrapped") as w:
        w.start()
        first = w.in_force()
        w.write("a.jpg", MARKER)
        w.empty(20)
        w.in_force(other_than=first)
        equal(w.agent.stop(10), 0, "exit status")
        os.rmdir(w.store_dir / first)  # as the agent had done before it died
        write_twenty(w)
        w.start_agent()
        equal(went_to_the_present_epoch(w, first, 20)["captures"], "1", "captures in the ended epoch")
        equal(w.agent.stop(10), 0, "exit status")
        w.verify_ledger()


def purged():
    """cede purge of a host with a vault: its epochs, what waits and what is held in them, and their keys go"""
    hold = {"id": "case-1", "match": ["held/**"], "until": "2099-01-01T00:00:00Z"}
    with Vault(epoch="2s", keys="wrapped", policy={"holds": [hold]}) as w:
        w.start()
        w.in_force()
        w.write(f"held/{NAME}.jpg", MARKER * 100)
        until(lambda: w.counts()[0].get("held") == 1 and w.epochs(), 20, "one is held in an epoch that has ended")
        w.receiver.stop()
        w.write(f"{NAME}.jpg", MARKER * 101, want=False)
        until(lambda: w.counts()[0].get("ready") or w.counts()[0].get("sealed"), 20, "one waits")
        equal(w.agent.stop(10), 0, "exit status")
        keys = {e["epoch"] for e in w.events("vault-turned")}
        done = subprocess.run([program("cede"), "purge", "--policy", str(w.dir / "policy.yaml"), "--config", str(w.dir / "agent.yaml"),
                               "--certificate", str(w.dir / "certificate"), "--reason", "test", "--operator", "test", "--limit", "2s",
                               "--drop-ledger", "--destroy-unsent", "--destroy-held", "--yes"], capture_output=True, text=True, check=False, cwd=w.dir)
        check(done.returncode in (0, 1), f"cede purge: {done.returncode} {done.stdout}{done.stderr}")
        equal(w.left(), [], "files left")
        check(not (w.capture.parent / ".cede-vault").exists(), "the store is still there")
        for key in keys:
            equal(key_state(w.disk.mount, key), "absent", f"key {key}")
        details = [json.loads(line) for line in (w.dir / "certificate.details").read_text().splitlines()[1:]]
        said = sorted((d["what"], d["level"]) for d in details if d["what"] in ("unsent-capture", "held-capture", "vault-key"))
        check(("held-capture", "overwritten-current") in said or ("held-capture", "unproven") in said, f"the held one: {said}")
        check([w for w, _ in said].count("unsent-capture") == 1, f"the one that waited: {said}")
        check(("vault-key", "crypto-erased") in said and ("vault-key", "remains") not in said, f"keys: {said}")
        equal(w.disk.count(MARKER, NAME.encode()), [0, 0], "markers and names in the image")


if __name__ == "__main__":
    tap.run([one_epoch, turns, reboot_memory, reboot_wrapped, locked_and_displaced, not_mounted, gone_for_good, held, forecast,
             no_vault_here, without_the_vault_again, purged, turn_waits_over_a_restart, turn_waits_over_a_reload,
             died_behind_the_rmdir, another_directory, another_directory_and_turns, removed_while_away, second_plain_directory,
             second_plain_directory_at_the_start, second_plain_directory_without_the_vault, mounted_later, mounted_meanwhile,
             proven_and_mounted_later, sealed_anew_when_found, mounted_beyond_the_sandbox, killed], at_once=5)
