#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whose policy counts: signatures, serials, expiry; another policy while the agent runs; legal holds;
captures that the policy says to destroy."""

import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from clocks import Clock
from metrics import metric
from stock import Store
from tap import check, equal, mode
from world import World, free_port, program, until, yaml


def utc(**delta):
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def refused_start(w, *needles):
    """cede run ends with status 2, names what is wrong, and nothing was touched."""
    before = w.left()
    done = subprocess.run(w.agent_words(), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    equal(done.returncode, 2, f"status of cede run: {done.stderr}")
    for needle in needles:
        check(needle in done.stderr, f"cede run says {needle!r}: {done.stderr}")
    equal(w.left(), before, "files of the capture directory")
    equal(sorted(w.store.rglob("*.cms")), [], "bundles in the store")


def events(w, kind):
    said = w.cede("ledger", "events", "--state", w.state, "--json")
    return [e for e in map(json.loads, said.splitlines()) if e.get("kind") == kind]


# ---- at start

def no_signature():
    """a policy without a signature is refused; --unsigned takes it and says so"""
    with World() as w:
        w.start_receiver()
        w.write("a.jpg", b"picture", want=False)
        (w.dir / "policy.yaml.sig").unlink()
        refused_start(w, "policy.yaml.sig", "no signature")
        w.signed = False
        w.start_agent()
        w.expect("a.jpg", b"picture")
        w.settled()
        check("policy.unsigned" in w.agent.said(), "the log says that nobody vouches for the policy")


def tampered_policy():
    """one byte of the policy changed after signing"""
    with World() as w:
        w.start_receiver()
        w.write("a.jpg", b"picture", want=False)
        path = w.dir / "policy.yaml"
        path.write_text(path.read_text() + "# harmless?\n")
        refused_start(w, "policy.yaml: not the file that was signed")


def tampered_files():
    """each file that the policy names is covered by the signature"""
    for name in ("ca.pem", "seal.pem", "receipt.pub"):
        with World() as w:
            w.start_receiver()
            w.write("a.jpg", b"picture", want=False)
            with open(w.pki / name, "a", encoding="ascii") as f:
                f.write("\n")
            refused_start(w, f"pki/{name}: not the file that was signed")


def untrusted_signer():
    """signed by a key that agent.yaml does not trust; or signed for another role"""
    with World() as w:
        w.start_receiver()
        w.write("a.jpg", b"picture", want=False)
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                        str(w.dir / "other.key")], check=True, capture_output=True)
        os.chmod(w.dir / "other.key", 0o600)
        w.sign("other.key")
        refused_start(w, "policy.yaml.sig", "no signature of a key that is trusted")
        w.config["policy_signers"] = []
        w.write_files()
        refused_start(w, "policy_signers")


def broken_signature():
    """a signature that is cut short, empty, too long, of another statement"""
    with World() as w:
        w.start_receiver()
        sig = w.dir / "policy.yaml.sig"
        good = sig.read_bytes()
        for bad in (b"", good[:-20], good[:40], b"x" * 100000, good.replace(b"serial: 1", b"serial: 2"),
                    good.replace(b"cede-policy/1", b"cede-receipt/1"), good + good, b"\0" * 500):
            sig.write_bytes(bad)
            refused_start(w, "policy.yaml.sig")


def by_hand():
    """the signature verifies with openssl alone"""
    with World() as w:
        note = (w.dir / "policy.yaml.sig").read_text(encoding="utf-8")
        text, line = note.rsplit("\n\n", 1)
        (w.dir / "body").write_text(text + "\n")
        import base64
        (w.dir / "sig").write_bytes(base64.b64decode(line.split()[2])[4:])
        subprocess.run(["openssl", "dgst", "-sha256", "-verify", str(w.pki / "policy.pub"), "-signature",
                        str(w.dir / "sig"), str(w.dir / "body")], check=True, capture_output=True)
        digest = subprocess.run(["sha256sum", str(w.dir / "policy.yaml")], capture_output=True, text=True, check=True)
        check(f"sha256: {digest.stdout.split()[0]}" in text, "the policy's digest stands in it")
        equal(len(re.findall(r"^file: [0-9a-f]{64} pki/", text, re.M)), 3, "file lines")


def older_serial():
    """a serial below the highest ever seen, and the same serial with another text, can't come back"""
    with World() as w:
        w.start()
        w.write("a.jpg", b"picture")
        w.settled()
        for name in ("policy.yaml", "policy.yaml.sig"):
            shutil.copy(w.dir / name, w.dir / f"old-{name}")
        w.agent.stop()
        w.policy["serial"] = 7
        w.write_files()
        w.start_agent()
        w.write("b.jpg", b"picture 2")
        w.settled()
        w.agent.stop()
        arrived = len(list(w.store.rglob("*.cms")))
        for name in ("policy.yaml", "policy.yaml.sig"):
            shutil.copy(w.dir / f"old-{name}", w.dir / name)
        w.write("c.jpg", b"picture 3", want=False)
        done = subprocess.run(w.agent_words(), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        equal(done.returncode, 2, "status")
        check("serial 1 is older than 7" in done.stderr, done.stderr)
        (w.dir / "policy.yaml").unlink()
        w.policy.update(serial=7, id="another")
        w.write_files()
        done = subprocess.run(w.agent_words(), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        equal(done.returncode, 2, "status")
        check("serial 7 was another text" in done.stderr, done.stderr)
        equal(w.left(), [b"c.jpg"], "the capture stays")
        equal(len(list(w.store.rglob("*.cms"))), arrived, "bundles in the store")


def expired():
    """after its expiry nothing is handed over or wiped; a newer policy ends that without a restart"""
    with World(policy={"expires": utc(seconds=-5)}) as w:
        w.start()
        w.write("a.jpg", b"picture")
        until(lambda: "policy.expired" in w.agent.said(), 10, "the log says so")
        until(lambda: "reason=policy-expired" in w.agent.said(), 10, "the capture is reported")
        equal(w.left(), [b"a.jpg"], "files")
        equal(sorted(w.store.rglob("*.cms")), [], "bundles in the store")
        w.policy["expires"] = utc(days=9)
        w.publish()
        w.settled()


def sealing_certificate_over():
    """a sealing certificate that ends while the agent runs: nothing more is sealed to it, also after a restart; a policy with the next one ends that"""
    with World(source={"max_age": "30d"}) as w:
        clock = Clock(w)
        make = ["openssl", "req", "-x509", "-key", w.pki / "seal.key", "-subj", "/CN=seal", "-addext", "keyUsage=critical,keyAgreement",
                "-addext", "subjectKeyIdentifier=hash"]
        subprocess.run([*make, "-days", "1", "-out", w.pki / "seal.pem"], check=True, capture_output=True)
        w.write_files()
        w.start_receiver()
        w.start_agent(env=clock.env)
        w.write("a.jpg", b"picture")
        w.settled()
        clock.set(2 * 86400)
        w.write("b.jpg", b"picture 2")
        until(lambda: "seal.expired destination=agency" in w.agent.said(), 30, "it is said")
        until(lambda: w.in_state("ready") == 1, 20, "it waits")
        until(lambda: "seal" in w.status()["agent"]["unmet"], 10, "the agent is not ready")
        equal(w.agent.stop(), 0, "exit status")
        w.start_agent(env=clock.env)
        until(lambda: w.agent.said().count("seal.expired destination=agency") == 2, 30, "it starts, and says it again")
        equal((w.left(), w.in_state("ready")), ([b"b.jpg"], 1), "what waits")
        w.write_files()
        w.publish()
        until(lambda: "policy.refused" in w.agent.said(), 20, "another policy with it is refused")
        subprocess.run([*make, "-days", "9", "-out", w.pki / "seal.pem"], check=True, capture_output=True)
        w.publish()
        w.settled()


def said_beforehand(w, *needles):
    """cede policy check and cede doctor say it as well, and nothing is made."""
    policy, config = w.dir / "policy.yaml", w.dir / "agent.yaml"
    done = subprocess.run([program("cede"), "policy", "check", "--host", "--config", config, policy], capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL)
    equal(done.returncode, 2, f"status of cede policy check: {done.stdout}{done.stderr}")
    doctor = w.cede("doctor", "--policy", policy, "--config", config, "--offline", status=(1,))
    for needle in needles:
        check(needle in done.stderr, f"cede policy check says {needle!r}: {done.stderr}")
        check(needle in doctor, f"cede doctor says {needle!r}: {doctor}")


def own_places():
    """a state directory, keys or a policy in a source, or a source in the state: refused before anything is made"""
    with World(receiver=False) as w:
        w.write("a.jpg", b"picture", want=False)
        (w.dir / "link").symlink_to(w.capture)
        (w.capture / "agent.key").write_bytes((w.pki / "agent.key").read_bytes())
        (w.capture / "agent.key").chmod(0o600)
        identity = w.config["identity"]
        for config, path, needles in (
                ({"state": "capture"}, w.capture, ("capture lies in source faces", "move it out")),
                ({"state": "capture/not/yet"}, w.capture, ("capture/not/yet lies in source faces", "move it out")),
                ({"state": "link/state"}, w.capture, ("link/state lies in source faces", "move it out")),
                ({"state": "capture/state"}, w.dir / "link", ("capture/state lies in source faces", "move it out")),
                ({"state": "state"}, w.state / "faces", ("state has source faces in it", "move one out")),
                ({"identity": {**identity, "key": "link/agent.key"}}, w.capture, ("link/agent.key lies in source faces", "move it out"))):
            kept, w.config = w.config, {**w.config, **config}
            w.source["path"] = str(path)
            w.write_files()
            said_beforehand(w, *needles)
            refused_start(w, *needles)
            check(not w.state.exists() and not (w.capture / "state").exists(), "a state directory was made")
            w.config = kept
        w.source["path"] = str(w.capture)
        w.write_files()
        (w.capture / "agent.key").unlink()
        shutil.copytree(w.pki, w.capture / "pki")
        for name in ("policy.yaml", "policy.yaml.sig"):
            shutil.copy(w.dir / name, w.capture / name)
        said = w.agent_words()
        said[said.index(str(w.dir / "policy.yaml"))] = str(w.capture / "policy.yaml")
        done = subprocess.run(said, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        check(done.returncode == 2 and "the policy's directory" in done.stderr, f"a policy in a source: {done.returncode} {done.stderr}")
        w.cede("policy", "check", "--host", "--config", w.dir / "agent.yaml", w.dir / "policy.yaml")


def foreign_key():
    """a key that does not belong to the certificate: refused at the start, naming both; at a reload the old ones stay"""
    with World() as w:
        key = w.pki / "agent.key"
        own = key.read_bytes()
        key.write_bytes((w.pki / "server.key").read_bytes())
        w.write("a.jpg", b"picture")
        refused_start(w, "pki/agent.key", "pki/agent.pem", "does not belong to the certificate", "put the key there")
        key.write_bytes(own)
        w.start()
        w.settled()
        key.write_bytes((w.pki / "server.key").read_bytes())
        w.policy["serial"] += 1
        w.write_files()
        w.agent.popen.send_signal(signal.SIGHUP)
        until(lambda: "does not belong to the certificate" in w.agent.said(), 60, "the reload is refused")
        w.write("b.jpg", b"picture 2")
        w.settled()
        key.write_bytes(own)
        w.agent.popen.send_signal(signal.SIGHUP)
        until(lambda: in_force(w) == w.policy["serial"], 60, "the next one is taken")


# ---- while it runs

def in_force(w):
    """The serial of the policy that the ledger says was loaded last."""
    with contextlib.closing(sqlite3.connect(f"file:{w.state}/ledger.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT serial FROM policy ORDER BY id DESC LIMIT 1").fetchone()[0]


def reload_on_change():
    """a changed policy is taken up by itself, is in ledger, log and metrics; SIGHUP with nothing new changes nothing"""
    with World() as w:
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        w.start()
        w.write("a.jpg", b"picture")
        w.settled()
        w.write("b.txt", b"text", want=False)
        until(lambda: "reason=unmatched" in w.agent.said(), 10, "b.txt matches nothing")
        w.source["match"].append("**/*.txt")
        w.expect("b.txt", b"text")
        serial = w.publish()
        w.settled()
        equal(len(events(w, "policy-loaded")), 2, "policies in the ledger")
        check(f"serial={serial}" in events(w, "policy-loaded")[-1]["detail"], "with its serial")
        until(lambda: metric(w, "cede_policy_serial") == serial, 10, "the metrics have the serial")
        equal(metric(w, "cede_policy_signed"), 1, "signed")
        w.agent.popen.send_signal(signal.SIGHUP)
        until(lambda: "policy.unchanged" in w.agent.said(), 10, "nothing new")
        w.verify_ledger()


def bad_reload():
    """a bad policy leaves the old one in force and raises an alarm; each kind"""
    with World() as w:
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        w.start()
        w.write("first.jpg", b"picture")
        w.settled()
        good, sig = (w.dir / "policy.yaml").read_bytes(), (w.dir / "policy.yaml.sig").read_bytes()
        ca = (w.pki / "ca.pem").read_bytes()

        def tamper():
            (w.dir / "policy.yaml").write_bytes(good + b"#\n")

        def no_sig():
            (w.dir / "policy.yaml.sig").unlink()

        def other_ca():
            (w.pki / "ca.pem").write_bytes(ca + b"\n")

        def not_yaml():
            (w.dir / "policy.yaml").write_bytes(b"version: [")

        def gone():
            (w.dir / "policy.yaml").unlink()
        for number, (spoil, needle) in enumerate((
                (tamper, "not the file that was signed"), (no_sig, "no signature"), (other_ca, "ca.pem: not the file"),
                (not_yaml, "not the file that was signed"), (gone, "policy.yaml"))):
            said = len(w.agent.said())
            spoil()
            w.agent.popen.send_signal(signal.SIGHUP)
            until(lambda: "policy.refused" in w.agent.said()[said:], 10, f"{spoil.__name__} is refused")
            check(needle in w.agent.said()[said:], f"{spoil.__name__}: {w.agent.said()[said:]}")
            until(lambda: metric(w, "cede_policy_reload_failed") == 1, 10, "the metrics say so")
            w.write(f"{number}.jpg", b"picture %d" % number)
            w.settled()
            (w.dir / "policy.yaml.sig").write_bytes(sig)
            (w.pki / "ca.pem").write_bytes(ca)
            (w.dir / "policy.yaml").write_bytes(good)
            w.agent.popen.send_signal(signal.SIGHUP)
            until(lambda: metric(w, "cede_policy_reload_failed") == 0, 10, "the alarm ends")
        equal(len(events(w, "policy-loaded")), 1, "policies in the ledger")


def own_places_later():
    """a later policy with a source around the state or the keys is refused, and the old one stays in force"""
    with World() as w:
        w.start()
        w.write("a.jpg", b"picture")
        w.settled()
        serial, more = w.policy["serial"], dict(w.source, name="more")
        w.policy["sources"] = [w.source, more]
        (w.dir / "link").symlink_to(w.dir)
        for path, needle in ((w.state, "lies in source more"), (w.state / "not-yet", "has source more in it"),
                             (w.dir / "link" / "pki", "lies in source more")):
            more["path"] = str(path)
            said = len(w.agent.said())
            w.publish()
            until(lambda: "policy.refused" in w.agent.said()[said:], 60, "it is refused")
            check(needle in w.agent.said()[said:], f"{path}: {w.agent.said()[said:]}")
            equal(in_force(w), serial, "the policy in force")
        w.write("b.jpg", b"picture 2")
        w.settled()
        w.verify_ledger()


@tap.alone
def reload_under_load():
    """many policies (200 with --full) while 5,000 captures pass: each whole by one policy, each once"""
    swaps, files = {"quick": (20, 1000), "normal": (50, 5000), "full": (200, 5000)}[mode()]
    with World(source={"quiet": "0s", "classification": "serial-1"}) as w:
        w.start()
        until(lambda: "agent.ready" in w.agent.said(), 15, "the agent is ready")
        share = files // swaps
        may_write = threading.Semaphore(share)  # captures come all the time, not all at the beginning

        def deliver():
            for i in range(files):
                may_write.acquire()
                w.write(f"{i % 50}/{i}.jpg", os.urandom(2000) + b"%d" % i)

        writer = threading.Thread(target=deliver)
        writer.start()
        serial = 1
        for _ in range(swaps):
            w.source["classification"] = f"serial-{w.policy['serial'] + 1}"
            w.source["match"] = ["**/*.jpg", f"**/*.{w.policy['serial'] + 1}"]
            serial = w.publish()
            w.agent.popen.send_signal(signal.SIGHUP)
            for _ in range(share):
                may_write.release()
            until(lambda: in_force(w) == serial, 30, f"serial {serial} is in force", each=0.01)
        writer.join()
        w.settled()
        equal(len(events(w, "policy-loaded")), swaps + 1, "policies in the ledger")
        check("policy.refused" not in w.agent.said(), "no policy was refused")
        seen = set()
        for manifest in Store(w.store, w.pki).read().manifests.values():
            for entry in manifest["entries"]:
                equal(entry["classification"], f"serial-{manifest['policy']['serial']}", "classification by the bundle's policy")
                seen.add(manifest["policy"]["serial"])
        check(len(seen) >= min(10, swaps), f"captures passed under {len(seen)} policies")
        w.verify_ledger()


def another_destination():
    """the agency moves: what is sealed and has no receipt goes to the new place, once"""
    with World(receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(21, 8, "lane1"):
            w.write(name, content)
        until(lambda: w.counts()[1].get("sealed", 0) > 0, 20, "bundles wait")
        w.port = free_port()
        w.destination["url"] = f"https://localhost:{w.port}/"
        w.receiver_config["listen"] = f"127.0.0.1:{w.port}"
        (w.dir / "receiver.yaml").write_text(yaml(w.receiver_config))
        w.start_receiver()
        w.publish()
        w.settled()


def destination_gone_and_back():
    """a policy without the destination of a sealed bundle: nothing is sent; it is when the destination is back"""
    with World(receiver=False) as w:
        w.start_agent()
        w.write("a.jpg", b"picture")
        until(lambda: w.counts()[1].get("sealed", 0) > 0, 20, "a bundle waits")
        w.policy["destinations"] = {"other": dict(w.destination)}
        w.source["destination"] = "other"
        w.publish()
        until(lambda: "bundle.homeless" in w.agent.said(), 10, "the log says so")
        w.start_receiver()
        w.policy["destinations"] = {"agency": w.destination}
        w.source["destination"] = "agency"
        w.publish()
        w.settled()


def source_removed():
    """a source that the policy no longer has is left alone; back again, it is handed over"""
    with World(receiver=False) as w:
        w.start_agent()
        w.write("a.jpg", b"picture")
        until(lambda: w.counts()[0].get("sealed", 0) > 0, 20, "sealed")
        other = w.dir / "other"
        other.mkdir()
        w.policy["sources"] = [{**w.source, "name": "other", "path": str(other)}]
        w.publish()
        until(lambda: "serial=2" in w.agent.said(), 10, "in force")
        w.start_receiver()
        w.write("late.jpg", b"late", top=other, source="other")
        until(lambda: not list(other.iterdir()), 20, "the other source is emptied")
        equal(w.left(), [b"a.jpg"], "files of the source that is gone")
        w.policy["sources"] = [w.source]
        w.publish()
        w.settled()


def bandwidth():
    """no more than the policy's rate goes out, by the window that has the time"""
    day = {"from": "00:00", "to": "24:00", "limit": "8Mbit/s"}
    for limit in ("8Mbit/s", {"limit": "800Mbit/s", "windows": [day]}):
        with World(destination={"bandwidth": limit, "bundle_size": "1MiB"}, source={"quiet": "0s"}) as w:
            for i in range(4):
                w.write(f"{i}.jpg", os.urandom(900_000))
            began = time.monotonic()
            w.start()
            w.settled()
            took = time.monotonic() - began
            check(took > 2.5, f"3.6 MB at 1 MB/s took {took:.1f} s")
            tap.diag(f"3.6 MB at 8 Mbit/s: {took:.1f} s")


# ---- holds

def hold(**more):
    return {"id": "case-7", "until": utc(days=30), **more}


def held_then_lifted():
    """handed over and kept, over a restart, too; lifted by a newer policy it is wiped"""
    with World(policy={"holds": [hold(match=["held/**"])]}) as w:
        w.start()
        w.write("held/a.jpg", b"evidence")
        w.write("b.jpg", b"picture")
        w.empty(20, but=["held/a.jpg"])
        until(lambda: w.counts()[0].get("held") == 1, 10, "one is held")
        w.idle()
        Store(w.store, w.pki).read().compare(w.want)
        check(events(w, "capture-held")[0]["detail"].startswith("hold=case-7 "), "the hold's name is in the ledger")
        w.agent.kill()
        w.start_agent()
        w.write("c.jpg", b"picture 2")
        w.empty(20, but=["held/a.jpg"])
        w.policy["holds"] = []
        w.publish()
        w.settled()
        equal(w.counts()[0].get("held", 0), 0, "held")
        equal(len(events(w, "hold-lifted")), 1, "lifted once")
        check("level=" in events(w, "capture-wiped")[-1]["detail"], "its wipe is in the ledger")
        w.verify_ledger()


def hold_ends():
    """a hold ends by itself; one that comes while a capture waits for its receipt holds it"""
    with World(receiver=False) as w:
        w.start_agent()
        w.write("a.jpg", b"evidence")
        until(lambda: w.counts()[0].get("sealed", 0) > 0, 20, "sealed")
        w.policy["holds"] = [hold(until=utc(seconds=6))]
        w.publish()
        until(lambda: "serial=2" in w.agent.said(), 10, "in force")
        w.start_receiver()
        until(lambda: w.counts()[0].get("held") == 1, 20, lambda: f"held; {w.counts()}")
        equal(w.left(), [b"a.jpg"], "files")
        w.settled()


def held_file_changes():
    """a held file that is written to is a new capture; the hold covers that one as well"""
    with World(policy={"holds": [hold()]}) as w:
        w.start()
        full = w.write("a.jpg", b"evidence")
        until(lambda: w.counts()[0].get("held") == 1, 20, "held")
        with open(full, "ab") as f:
            f.write(b", more")
        w.expect("a.jpg", b"evidence, more")
        until(lambda: w.counts()[0].get("replaced") == 1 and w.counts()[0].get("held") == 1, 20,
              lambda: f"replaced and held; {w.counts()}")
        w.policy["holds"] = []
        w.publish()
        w.settled()


# ---- destroy

def destroyed():
    """at_max_age: destroy: what has no receipt at max_age is wiped, with an event; a hold keeps it"""
    with World(source={"at_max_age": "destroy", "max_age": "3s"}, receiver=False,
               policy={"holds": [hold(match=["held/**"])]}) as w:
        w.start_agent()
        w.write("a.jpg", b"picture", want=False)
        w.write("held/b.jpg", b"evidence")
        old = w.write("old.jpg", b"long ago", want=False)
        os.utime(old, (time.time() - 3600, time.time() - 3600))
        w.empty(20, but=["held/b.jpg"])
        until(lambda: len(events(w, "capture-destroyed")) == 2, 10, "two were destroyed")
        until(lambda: w.in_state("wiped") == 2, 30, lambda: f"two are wiped; {w.counts()}")
        w.start_receiver()
        w.policy["holds"] = []
        w.policy["sources"][0]["at_max_age"] = "hold"
        w.publish()
        w.empty()
        w.idle()
        check(b"faces/held/b.jpg" in Store(w.store, w.pki).read().captures, "the held one arrived")
        w.verify_ledger()


def destroy_in_force():
    """what is destroyed for its age is decided by the policy in force, not by the one under which it was found"""
    with World(receiver=False) as w:
        w.policy["sources"] = sources = []
        for name, age in (("longer", "6s"), ("narrower", "6s"), ("shorter", "1h"), ("witness", "6s")):
            (w.dir / name).mkdir()
            sources.append({**w.source, "name": name, "path": str(w.dir / name), "at_max_age": "destroy", "max_age": age})
        w.write_files()
        w.start_agent()
        for source, name in (("longer", "a.jpg"), ("narrower", "ignored.jpg"), ("narrower", "large.jpg"), ("shorter", "a.jpg"), ("witness", "a.jpg")):
            w.write(name, bytes(5000), top=w.dir / source, want=False)
        until(lambda: w.in_state("ready", "sealed") == 5, 20, lambda: f"all are recorded: {w.counts()}")
        sources[0]["max_age"], sources[2]["max_age"] = "1h", "6s"
        sources[1]["ignore"] = ["ignored.jpg"]
        sources[1]["max_size"] = "2KiB"
        w.publish()
        until(lambda: in_force(w) == 2, 10, "in force")
        until(lambda: len(events(w, "capture-destroyed")) == 2, 30, "the witness, and what may be older no more, are destroyed")
        until(lambda: w.in_state("wiped") == 2, 20, "they are wiped")
        equal([sorted(os.listdir(w.dir / s["name"])) for s in sources], [["a.jpg"], ["ignored.jpg", "large.jpg"], [], []], "what is left")
        w.verify_ledger()


def violations():
    """what is overdue or incomplete when it is found goes, and the ledger and the metrics say so"""
    with World(source={"max_age": "1h", "group": {"by": "stem", "require": [".jpg", ".json"], "wait": "1s"}}) as w:
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        for name, age in (("a.jpg", 7200), ("a.json", 7200), ("b.jpg", 5), ("c.jpg", 5), ("c.json", 5)):
            path = w.write(name, name.encode())
            os.utime(path, (time.time() - age, time.time() - age))
        w.start()
        w.settled()
        reasons = sorted(re.search(r"reason=(\S+)", e["detail"]).group(1) for e in events(w, "violation"))
        equal(reasons, ["group-incomplete", "overdue", "overdue"], "violations in the ledger")
        until(lambda: metric(w, "cede_violations_total") == 3, 10, "the metrics count them")


def lost_and_ignored():
    """what was sealed under one policy and lost with the process is decided anew by the one in force"""
    with World(receiver=False, source={"quiet": "0s"}) as w:
        w.write("a.jpg", b"not wanted any more", want=False)
        w.write("b.jpg", b"wanted")
        w.start_agent()
        until(lambda: w.in_state("sealed") == 2, 20, lambda: f"both are sealed in memory: {w.counts()}")
        w.agent.stop()
        w.source["ignore"] = ["a.jpg"]
        w.write_files()
        w.start_receiver()
        w.start_agent()
        w.empty(but=["a.jpg"])
        until(lambda: w.in_state("wiped") == 1 and w.counts()[1]["done"] >= 1, 20, lambda: f"b.jpg is done: {w.counts()}")
        equal(set(Store(w.store, w.pki).read().captures), {b"faces/b.jpg"}, "what arrived")
        equal((w.left(), w.counts()[0]["settling"]), ([b"a.jpg"], 1), "what is left")
        w.verify_ledger()


def removed_while_waiting():
    """another program removes captures that wait: each a gap in custody, recorded once, also over a change of policy"""
    with World(receiver=False, destination={"bundle_size": "64KiB"}) as w:
        w.start_agent()
        for i in range(60):
            w.write(f"{i}.jpg", os.urandom(30_000), want=False)
        # few bundles fit into memory while the link is down: the rest stays ready
        until(lambda: w.in_state("ready", "sealed") == 60 and
              w.counts()[0].get("ready", 0) > 30, 20, lambda: f"most are ready: {w.counts()}")
        for name in w.left():
            os.unlink(os.path.join(os.fsencode(w.capture), name))
        w.source["classification"] = "x"
        w.publish()
        until(lambda: w.counts()[0].get("gone", 0) > 30, 20, lambda: f"gone: {w.counts()}")
        w.start_receiver()
        w.idle(40)
        equal(w.counts()[0].get("gone", 0), 60, "gone")
        equal(len(events(w, "capture-gone")), 60, "gaps in the ledger")


TESTS = [no_signature, tampered_policy, tampered_files, untrusted_signer, broken_signature, by_hand, older_serial,
         expired, sealing_certificate_over, own_places, foreign_key, reload_on_change, bad_reload, own_places_later,
         reload_under_load, another_destination,
         destination_gone_and_back, source_removed, bandwidth, held_then_lifted, hold_ends, held_file_changes, destroyed,
         destroy_in_force, violations, lost_and_ignored, removed_while_waiting]

if __name__ == "__main__":
    tap.run(TESTS, at_once=4)
