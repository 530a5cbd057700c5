#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cede doctor on prepared hosts: each fault is named with its mend, and a sound host gets nothing but ok.

A host is a mount namespace of its own: file systems on loop devices for source and state, and files bound
over those of /proc that say how the machine is set up."""

import json
import os
import pathlib
import re
import shlex
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Skip, check, equal
from terminal import on_a_terminal
from world import World, build_dir, program

SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "ext4 that encrypts": ["mkfs.ext4", "-q", "-F", "-O", "encrypt"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


class Host(World):
    """A sound one, until somebody changes it."""

    def __init__(self, **more):
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            raise Skip("mounting file systems of its own needs root and loop devices")
        super().__init__(**more)
        self.kind, self.size, self.options = "ext4", 320 << 20, []
        self.proc = {"swaps": SWAPS, "sys/kernel/core_pattern": "core\n", "sys/fs/inotify/max_user_watches": "65536\n",
                     "sys/fs/inotify/max_queued_events": "16384\n", "sys/fs/inotify/max_user_instances": "128\n"}
        self.clock_ns, self.synchronized, self.before = 0, True, []
        self.disk = self.dir / "disk"
        self.capture, self.state = self.disk / "capture", self.disk / "state"
        self.source["path"], self.config["state"] = str(self.capture), str(self.state)

    def script(self):
        """What the host is made of, then the doctor."""
        lines = ["set -e", f"mkdir -p {self.disk}"]
        if self.kind == "tmpfs":
            lines.append(f"mount -t tmpfs -o size=64M tmpfs {self.disk}")
        else:
            image = self.dir / "image"
            with open(image, "wb") as f:
                f.truncate(self.size)
            subprocess.run([*MKFS[self.kind], image], check=True, capture_output=True)
            lines.append(f"mount -o {','.join(['loop', *self.options])} {image} {self.disk}")
        lines.append(f"mkdir -p {self.capture} && mkdir -p -m 700 {self.state}")
        for name, text in self.proc.items():
            path = self.dir / ("proc-" + name.replace("/", "-"))
            path.write_text(text)
            lines.append(f"mount --bind {path} /proc/{name}")
        clock = self.dir / "clock"
        clock.write_bytes(struct.pack("<q", self.clock_ns))
        lines += [*self.before, "ulimit -c 0"]
        words = shlex.join(map(str, [program("cede"), "doctor", "--policy", self.dir / "policy.yaml", "--config",
                                     self.dir / "agent.yaml", "--json", *self.more]))
        env = f"LD_PRELOAD={build_dir() / 'tests' / 'fault' / 'clock.so'} CEDE_CLOCK={clock} CEDE_CLOCK_KEPT={int(self.synchronized)}"
        lines.append(f"exec env {env} {self.prefix} {words}")
        return "\n".join(lines)

    more, prefix = (), ""

    def doctor(self, status):
        code, findings = self.look()
        check(code == status, f"cede doctor: status {code}, expected {status}\n{findings}")
        return findings

    def look(self):
        """(exit status, findings)"""
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", self.script()], capture_output=True,
                              text=True, timeout=60, cwd=self.dir, stdin=subprocess.DEVNULL)
        check(done.returncode in (0, 1), f"cede doctor: status {done.returncode}\n{done.stdout}{done.stderr}")
        report = json.loads(done.stdout)
        equal(report["schema"], "cede-doctor/1", "schema")
        return done.returncode, report["findings"]


def faults(findings):
    return [f for f in findings if f["verdict"] != "ok"]


def sound():
    """a sound host: every line is ok, exit status 0"""
    if not (build_dir() / "tests" / "fault" / "clock.so").is_file():
        raise Skip("the clock library is not part of a sanitized build")
    with Host() as h:
        h.start_receiver()
        h.write_files()
        findings = h.doctor(0)
        equal(faults(findings), [], "what it finds")
        equal(sorted({f["check"] for f in findings}),
              ["clock", "core-dumps", "descriptors", "destination", "guard", "identity", "inotify", "key", "policy", "sandbox", "space",
               "state", "storage", "swap"], "what it looks at")
        check(all(f["mend"] == "" for f in findings), "a mend where nothing is wrong")


def other_storage(kind, options=(), size=320 << 20):
    def prepare(h):
        h.kind, h.options, h.size = kind, list(options), size
    return prepare


def expired_certificate(h):
    for words in (("req", "-new", "-key", h.pki / "agent.key", "-subj", "/CN=dev-host-1", "-out", h.dir / "agent.csr"),
                  ("x509", "-req", "-in", h.dir / "agent.csr", "-CA", h.pki / "ca.pem", "-CAkey", h.pki / "ca.key", "-days", "1",
                   "-out", h.pki / "agent.pem")):
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
        check(done.returncode == 0, done.stderr)
    h.clock_ns = 2 * 86400 * 10**9


def guard_impossible(h):
    h.policy["guard"] = {"mode": "enforce", "allow": [{"exe": "/bin/true", "user": "root"}]}
    h.prefix = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin"


def vault_impossible(h):
    h.source["vault"] = {"epoch": "1h", "keys": "memory"}


def full(h):
    h.before.append(f"head -c 290000000 /dev/zero > {h.disk}/filler")


def read_only(name):
    def prepare(h):
        place = getattr(h, name)
        h.before += [f"mount --bind {place} {place}", f"mount -o remount,bind,ro {place}"]
    return prepare


# name -> (preparation, receiver up, check, verdict, words in the text, words in the mend)
HOSTS = {
    "captures on btrfs": (other_storage("btrfs"), True, "storage", "broken", "copy-on-write", "ext4"),
    "captures in memory": (other_storage("tmpfs"), True, "storage", "broken", "memory", "ext4"),
    "ext4 that journals data": (other_storage("ext4", ["data=journal"]), True, "storage", "broken", "data-journalled", "data=ordered"),
    "swap in the clear": (lambda h: h.proc.update(swaps=SWAPS + "/dev/nowhere2 partition 1048572 0 -2\n"), True, "swap", "weak",
                          "in the clear", "swapoff"),
    "an old certificate": (expired_certificate, True, "identity", "broken", "expired at", "renew"),
    "a clock an hour ahead": (lambda h: setattr(h, "clock_ns", 3600 * 10**9), True, "clock", "broken", "is 360", "set the clock"),
    "a clock that nothing keeps right": (lambda h: setattr(h, "synchronized", False), True, "clock", "weak", "nothing keeps it", "chrony"),
    "a guard that is impossible": (guard_impossible, True, "guard", "broken", "none is possible", "CAP_SYS_ADMIN"),
    "too few watches": (lambda h: h.proc.update({"sys/fs/inotify/max_user_watches": "1\n"}), True, "inotify", "broken", "1 watches",
                        "fs.inotify.max_user_watches"),
    "a destination that is down": (lambda h: None, False, "destination", "broken", "connect", "is the receiver up"),
    "a wrong pin": (lambda h: h.destination.update(pins=["sha256//" + "A" * 43 + "="]), True, "destination", "broken", "pin",
                    "do not work around it"),
    "a vault where there is no encryption": (vault_impossible, True, "storage", "broken", "tune2fs -O encrypt", "cede vault init --policy"),
    "a full disk": (full, True, "space", "broken", "nearly full", "make room"),
    "a key that others can read": (lambda h: os.chmod(h.pki / "agent.key", 0o644), True, "key", "broken", "chmod", "alone"),
    "core dumps that are kept": (lambda h: h.proc.update({"sys/kernel/core_pattern": "|/lib/systemd/systemd-coredump %P\n"}), True,
                                 "core-dumps", "weak", "another program", "Storage=none"),
    "a state directory that others can see": (lambda h: h.before.append(f"chmod 755 {h.state}"), True, "state", "broken", "mode 755",
                                              "chmod 700"),
    "a state directory on a read-only file system": (read_only("state"), True, "state", "broken", "read-only", "mount it for writing"),
    "captures on a read-only file system": (read_only("capture"), True, "storage", "broken", "nothing can be wiped", "mount it for writing"),
}


def one_host(name):
    prepare, is_up, at, verdict, text, mend = HOSTS[name]
    with Host() as h:
        h.source["wipe"]["require"] = "overwritten"
        prepare(h)
        h.write_files()
        if is_up:
            h.start_receiver()
        found = faults(h.doctor(1))
        hits = [f for f in found if f["check"] == at and f["verdict"] == verdict and text in f["text"] and mend in f["mend"]]
        check(hits, f"{name}: expected {at} {verdict}: …{text}… -> …{mend}…; it found {found}")
        # nothing else is blamed: but a fault may show in several places (tmpfs holds the state, too)
        others = [f for f in found if f not in hits and not (name == "captures in memory" and f["check"] == "state")
                  and not (at == "space" and f["check"] == "space") and not (name == "an old certificate" and f["check"] in ("clock",))]
        equal(others, [], f"{name}: what else it finds")


def prepared():
    """prepared hosts: file systems, swap, certificate, clock, guard, limits, destination, pin, disk, key: each named with its mend"""
    if not (build_dir() / "tests" / "fault" / "clock.so").is_file():
        raise Skip("the clock library is not part of a sanitized build")
    problems = []
    for name in HOSTS:
        try:
            one_host(name)
        except tap.Failure as e:
            problems.append(str(e))
    check(not problems, "\n".join(problems))


def vaults():
    """a source with a vault: whether this host can have it counts, not what overwriting is worth there; the doctor changes nothing"""
    with Host(receiver=False) as h:
        h.kind, h.more = "ext4 that encrypts", ["--offline"]
        h.source.update(vault={"epoch": "1h", "keys": "memory"}, wipe={"after": "receipt", "method": "overwrite", "require": "crypto-erased"})
        h.write_files()

        def storage():
            return [(f["verdict"], f["text"], f["mend"]) for f in h.look()[1] if f["check"] == "storage"]
        (verdict, text, mend), = storage()
        check(verdict == "broken" and "the vault's store beside the source" in text, f"without a store: {verdict} {text}")
        words = ["vault", "init", "--policy", h.dir / "policy.yaml", "--config", h.dir / "agent.yaml"]
        check(shlex.join(map(str, words)) in mend, f"its mend: {mend}")
        h.before.append(shlex.join(map(str, [program("cede"), *words])) + " > /dev/null")  # what it says is what helps
        equal(storage(), [("ok", "a vault: crypto-erased at the end of its epoch", "")], "with a store")
        h.source["vault"]["keys"] = "wrapped"
        h.before[-1] += " || true"
        h.config["vault"] = {"key": str(h.state / "secret")}
        h.write_files()
        h.before.insert(0, f"head -c 64 /dev/urandom > {h.state}/secret && chmod 600 {h.state}/secret")
        h.before.append(f"mkdir -p -m 700 {h.capture.parent}/.cede-vault/faces && chmod 700 {h.capture.parent}/.cede-vault")
        (verdict, text, mend), = storage()
        check(verdict == "broken" and "vault.key lies on the file system of the state" in text, f"a key that protects nothing: {text}")
        h.config["vault"] = {"key": "credential:vault-key"}
        h.config["state"] = str(h.dir / "not-yet" / "state")
        (h.dir / "not-yet").mkdir()
        h.write_files()
        (verdict, text, mend), = storage()
        check(verdict == "ok" and "handed over by the service manager" in text, f"a credential: {verdict} {text}")
        h.config["vault"] = {"key": str(h.dir / "secret")}
        (h.dir / "secret").touch(0o600)
        (h.dir / "secret").write_bytes(bytes(64))
        h.write_files()
        (verdict, text, mend), = storage()
        check(verdict == "broken" and "vault.key lies on the file system of the state" in text, f"before the first start: {text}")
        check(not (h.dir / "not-yet" / "state").exists(), "the state directory was made")


def for_people():
    """as a table: a line a finding, its mend below; a policy that can't be used is a finding, a configuration that can't be read is not"""
    with World(receiver=False) as w:
        said = w.cede("doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--offline", status=(0, 1))
        check(any(line.startswith("ok      key ") for line in said.splitlines()), said)
        text = (w.dir / "agent.yaml").read_text()
        check("pki/agent.key" in text, text)
        (w.dir / "agent.yaml").write_text(text.replace("pki/agent.key", "credential:agent.key"))
        said = w.cede("doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", status=(0, 1))
        check(any(line.startswith("ok      key ") and "service manager" in line for line in said.splitlines()), said)
        check("broken  key" not in said and "broken  destination" not in said, said)
        (w.dir / "agent.yaml").write_text(text)
        with open(w.dir / "policy.yaml", "a", encoding="utf-8") as f:
            f.write("nonsense: 1\n")
        said = w.cede("doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--offline", status=(1,))
        check("broken  policy" in said and "not the file that was signed" in said and "-> get a policy from the agency" in said, said)
        (w.dir / "agent.yaml").write_text("state: [\n")
        w.cede("doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", status=(2,))
        w.cede("doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "none.yaml", status=(2,))


def another_user():
    """who may not read the agent's files is told to be another user, and not to ask the agency for them"""
    if os.geteuid() != 0:
        raise Skip("being another user needs root")
    with World(receiver=False) as w:
        w.dir.chmod(0o755)
        w.state.mkdir(mode=0o700)

        def mends(*checks):
            done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program("cede"), "doctor", "--policy",
                                   w.dir / "policy.yaml", "--config", w.dir / "agent.yaml", "--offline", "--json"],
                                  capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            equal(done.returncode, 1, f"status: {done.stdout}{done.stderr}")
            found = [f for f in faults(json.loads(done.stdout)["findings"]) if f["check"] in checks]
            check(sorted({f["check"] for f in found}) == sorted(checks), f"what it finds: {found}")
            for f in found:
                check("Permission denied" in f["text"] and "as root" in f["mend"], f"{f}")
        mends("policy", "key", "state")  # the ledger's floor can't be looked up
        (w.pki / "policy.pub").chmod(0o600)
        mends("policy", "key", "state")


def screen():
    """on a terminal of 80 columns: no line is longer or ends in a space, and nothing but the findings stands there"""
    with World() as w:
        w.start_receiver()
        words = ["doctor", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml"]
        said = on_a_terminal(80, *words)
        for line in said.splitlines():
            check(len(line) <= 80 and line == line.rstrip(), f"not fit for 80 columns: {line!r}")
            check(re.match(r"(ok|weak|broken) +[a-z-]+ +\S| {21,24}\S", line), f"no finding: {line!r}\n{said}")
        check("ok      destination  agency: reached" in said and "landlock" in said, said)
        done = subprocess.run([program("cede"), *words], capture_output=True, text=True)
        check("destination" in done.stdout and "sandbox.on" not in done.stdout + done.stderr, f"what the courier logs: {done.stderr}")
        said = on_a_terminal(80, *words, "--courier", "/bin/false")
        check("broken  destination  agency: no answer within" in said, said)


if __name__ == "__main__":
    tap.run([sound, prepared, vaults, for_people, another_user, screen])
