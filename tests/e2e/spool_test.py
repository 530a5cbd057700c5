#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where the policy wipes after sealing, or max_age comes and the link is down: the durable sealed bundle
is the proof, the plaintext goes, and the bundle goes to the agency when the link is back."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from metrics import metric
from proxy import Proxy, Recorder
from raw import Client
from stock import Store
from tap import Skip, check, equal
from tracing import Strace
from world import TOP, World, free_port, is_sanitized, program, until, yaml

AFTER_SEAL = {"wipe": {"after": "seal", "method": "overwrite", "require": "none"}}


def spooled(w):
    folder = w.state / "spool"
    return sorted(folder.glob("*.cms")) if folder.is_dir() else []


def wiped(w, number):
    until(lambda: w.counts()[0].get("wiped") == number, 30, lambda: f"{number} wiped; {w.counts()}")
    equal(w.left(), [], "files left")


def sealed_and_wiped(w, seed, pictures):
    """Without a link: captures go to the spool, and from their source."""
    w.start_agent()
    for name, content in cameras.roll(seed, pictures, "lane1"):
        w.write(name, content)
    wiped(w, 2 * pictures)


def after_seal_without_link():
    """wipe after seal: with the link down the plaintext goes, the sealed bundle stays and arrives later"""
    with World(source=AFTER_SEAL, receiver=False) as w:
        sealed_and_wiped(w, 11, 8)
        check(len(spooled(w)) >= 1, "bundles are in the spool")
        plain = [p for p in w.state.rglob("*") if p.is_file() and b"JFIF" in p.read_bytes()]
        equal(plain, [], "files of the state directory with plaintext")
        w.start_receiver()
        w.settled()
        equal(spooled(w), [], "bundles left in the spool")


def after_seal_with_restart():
    """wipe after seal: keeper killed while the link is down; the spool survives and is handed over once"""
    with World(source=AFTER_SEAL, receiver=False) as w:
        sealed_and_wiped(w, 12, 8)
        w.agent.kill()
        (w.state / "spool" / "01a00000-0000-7000-8000-000000000000.cms").write_bytes(b"left over from a crash")
        w.start_agent()
        w.start_receiver()
        w.settled()
        equal(spooled(w), [], "bundles left in the spool")


def max_age_without_link():
    """at_max_age: seal: no receipt in time, so the captures are sealed to the disk and wiped"""
    with World(source={"quiet": "0s", "max_age": "9s", "at_max_age": "seal"}, receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(13, 8, "lane1"):
            w.write(name, content)
        wiped(w, 16)
        check(len(spooled(w)) >= 1, "bundles are in the spool")
        w.start_receiver()
        w.settled()
        equal(spooled(w), [], "bundles left in the spool")


SEAL_IN_TIME = {"quiet": "0s", "max_age": "9s", "at_max_age": "seal"}


def sealed_in_memory(w, size=1000):
    """Without a link: a capture that is sealed in memory only, and the link is known to be down."""
    w.start_agent()
    w.write("0.jpg", random.Random(23).randbytes(size))
    until(lambda: w.in_state("sealed") == 1, 10, lambda: f"sealed; {w.counts()}")
    until(lambda: "link.down" in w.agent.said(), 10, "the link is down")
    equal(spooled(w), [], "bundles in the spool")


def bundles_sealed(w):
    """Their ids, in order."""
    lines = w.cede("ledger", "export", "--json", "--state", w.state).splitlines()
    return [e["subject"] for e in map(json.loads, lines) if e["kind"] == "bundle-sealed"]


def both_verify(w):
    w.verify_ledger()
    done = subprocess.run([sys.executable, TOP / "tests" / "verifier" / "verify.py", w.state / "ledger.db"],
                          capture_output=True, text=True)
    check(done.stdout.startswith("sound "), f"the second verifier: {done.stdout}{done.stderr}")


def no_finding(w):
    """The agency's audit, of store and ledger."""
    export = w.dir / "export.jsonl"
    export.write_text(w.cede("ledger", "export", "--json", "--state", w.state))
    done = subprocess.run([program("cede-receiver"), "audit", "--store", w.store, "--host", "dev-host-1", "--ledger", export, "--deep"],
                          capture_output=True, text=True)
    equal(done.returncode, 0, f"status of cede-receiver audit: {done.stdout}{done.stderr}")


def arrives(w):
    """Once the link is there, from the spool."""
    w.start_receiver()
    w.settled()
    equal(spooled(w), [], "bundles left in the spool")
    w.verify_ledger()


def max_age_over_a_stop():
    """at_max_age: seal: what is sealed in memory when the agent stops goes to the spool: the plaintext goes in time, link or no link"""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        sealed_in_memory(w, 5 << 20)
        began = time.monotonic()
        equal(w.agent.stop(), 0, "exit status")
        check(time.monotonic() - began < 5, f"it stops in time: {time.monotonic() - began:.1f} s")
        equal(len(spooled(w)), 1, "bundles in the spool")
        w.start_agent()
        wiped(w, 1)
        arrives(w)


def stop_with_a_slow_spool():
    """a spool that is too slow does not hold the stop; what is not in it is said, stays in the clear and arrives once"""
    if is_sanitized():
        raise Skip("a sanitizer looks for leaks at the end, which fails beside strace")
    with World(source=SEAL_IN_TIME, destination={"bundle_size": "16MiB"}, receiver=False) as w:
        sealed_in_memory(w, 14 << 20)
        with Strace(w.agent.pid, w.dir, "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=600000"):
            began = time.monotonic()
            equal(w.agent.stop(), 0, "exit status")
            check(time.monotonic() - began < 5, f"it stops in time: {time.monotonic() - began:.1f} s")
        check("spool.unfinished" in w.agent.said(), "it is said")
        equal(spooled(w), [], "bundles in the spool")
        equal(w.left(), [b"0.jpg"], "captures that stay")
        w.start_agent()
        arrives(w)


def stop_with_a_full_spool():
    """the same with a spool that has no room"""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        w.config["spool"] = {"limit": "1MiB"}
        w.write_files()
        sealed_in_memory(w)
        equal(w.agent.stop(), 0, "exit status")
        check("spool.full" in w.agent.said(), "the alarm")
        check("spool.unfinished" in w.agent.said(), "it is said")
        equal(w.left(), [b"0.jpg"], "captures that stay")
        w.start_agent()
        arrives(w)


def stop_with_a_link():
    """with a link that works nothing is spooled at a stop: the receipt comes"""
    with World(source=SEAL_IN_TIME) as w:
        w.start()
        for i in range(3):
            w.write(f"{i}.jpg", b"%d" % i)
        until(lambda: w.in_state("sealed", "wiping", "wiped") > 0, 20, "they go")
        w.agent.stop()
        check("bundle-spooled" not in w.cede("ledger", "events", "--state", w.state), "nothing was spooled")


def another_seal_key(w):
    """The agency's next sealing key."""
    for words in (["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "next.key"],
                  ["req", "-x509", "-new", "-key", "next.key", "-subj", "/CN=next", "-days", "30", "-addext",
                   "keyUsage=critical,keyAgreement", "-out", "next.pem"]):
        subprocess.run(["openssl", *words], cwd=w.pki, check=True, capture_output=True)
    w.destination["seal_to"] = ["pki/next.pem"]


def max_age_beside_hold():
    """the same in a source beside one that says hold: they share no bundle, each is as its policy says"""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        slow = w.dir / "slow"
        slow.mkdir()
        w.policy["sources"].append({**w.source, "name": "slow", "path": str(slow), "max_age": "1h", "at_max_age": "hold"})
        w.write_files()
        w.write("a.jpg", b"in time")
        w.write("b.jpg", b"can wait", source="slow", top=slow)
        w.start_agent()
        until(lambda: not w.left(), 30, lambda: f"wiped; {w.counts()}")
        check((slow / "b.jpg").exists(), "what can wait is there")
        w.start_receiver()
        w.settled()


def max_age_after_a_kill():
    """the same after kill -9, when nobody knows whether the agency has the bundle: sealed anew in time, sent when it is known, once"""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        sealed_in_memory(w)
        w.agent.kill()
        w.start_agent()
        wiped(w, 1)
        lost, anew = bundles_sealed(w)
        equal([p.stem for p in spooled(w)], [anew], "bundles in the spool")
        w.agent.kill()  # what waits for the answer is known over another one
        w.start_agent()
        arrives(w)
        store = Store(w.store, w.pki).read()
        equal(list(store.manifests), [anew], "bundles at the agency")
        equal([p.stem for p in w.store.rglob("*.abandoned")], [lost], "bundles that it never takes")
        both_verify(w)
        no_finding(w)


def again(w):
    """kill -9 and another start."""
    w.agent.kill()
    starts = w.agent.said().count("agent.ready") + 1
    w.start_agent()
    until(lambda: w.agent.said().count("agent.ready") == starts, 15, "the agent is ready")


@contextlib.contextmanager
def lost_and_had(captures=3, source=None, removed=False):
    """A world and its proxy: a bundle that the agency has, while its receipt did not come and the link is down. The agent is
    killed unless it is told to stay. After it the link is there, and all must have arrived once."""
    with World(source={**SEAL_IN_TIME, **(source or {})}) as w:
        w.start_receiver()
        with Proxy(w.port) as proxy:
            w.destination["url"] = f"https://localhost:{proxy.port}/"
            w.write_files()
            proxy.swallow, proxy.last = 300_000, True
            for i in range(captures):
                w.write(f"{i}.jpg", random.Random(24 + i).randbytes(600_000))
            w.start_agent()
            until(lambda: proxy.doomed and list(w.store.rglob("*.receipt")), 20, "the agency has it")
            proxy.refuse()
            proxy.swallow, proxy.doomed = None, False
            equal(w.in_state("sealed"), captures, "captures that are sealed")
            lost = bundles_sealed(w)
            equal(len(lost), 1, "bundles")
            yield w, proxy
            proxy.serve()
            w.settled()
            until(lambda: not spooled(w), 10, "the spool is empty")
            check(lost[0] in Store(w.store, w.pki).read().manifests, "the agency has the lost bundle")
            w.agent.stop()
            both_verify(w)
            if not removed:
                no_finding(w)


def max_age_after_a_kill_and_had(over_a_kill=False):
    """the same, and the agency has the lost bundle: its receipt is the proof, the new one is not sent"""
    with lost_and_had() as (w, _):
        w.agent.kill()
        w.start_agent()
        wiped(w, 3)
        equal([p.stem for p in spooled(w)], bundles_sealed(w)[1:], "bundles in the spool")
        if over_a_kill:
            w.agent.kill()
            w.start_agent()


def next_captures(w):
    """Others, that may share a bundle with what is ready."""
    for i in range(2):
        w.write(f"next{i}.jpg", random.Random(i).randbytes(1000))


def max_age_and_had_and_touched():
    """the same, and the files have other rights by then: what is in them is what was sealed; one that is gone is no matter"""
    with lost_and_had(removed=True) as (w, _):
        w.agent.kill()
        os.chmod(w.capture / "0.jpg", 0o600)
        os.utime(w.capture / "1.jpg", ns=(1, (w.capture / "1.jpg").stat().st_mtime_ns))
        (w.capture / "2.jpg").unlink()
        w.write("3.jpg", random.Random(3).randbytes(600_000))
        w.start_agent()
        wiped(w, 3)


def max_age_and_had_and_another_key():
    """the same, and a policy with another sealing key comes while the link is down"""
    with lost_and_had() as (w, _):
        another_seal_key(w)
        w.destination["seal_to"].insert(0, "pki/seal.pem")  # opens all
        serial = w.publish()
        until(lambda: f"serial={serial}" in w.agent.said(), 10, "the next policy is in force")
        next_captures(w)
        wiped(w, 5)


def max_age_and_not_wanted():
    """the same, and the policy that comes does not want one of them any more: none is sealed anew, the agency's answer decides"""
    with lost_and_had() as (w, _):
        w.agent.kill()
        w.source["ignore"].append("2.jpg")
        w.write_files()
        w.start_agent()
        w.write("next.jpg", b"its max_age comes after theirs")
        until(lambda: w.in_state("wiped") == 1, 30, lambda: f"it is wiped; {w.counts()}")
        equal((w.in_state("sealed"), len(spooled(w)), len(w.left())), (3, 1, 3), "captures, bundles in the spool, files that stay")


def max_age_and_killed_in_the_midst():
    """the same, killed while they are sealed anew: nothing has happened, and the next start seals them anew"""
    with lost_and_had() as (w, _):
        again(w)
        with Strace(w.agent.pid, w.dir, "-e", "trace=linkat", "-e", "inject=linkat:signal=KILL"):
            w.agent.popen.wait(20)
        equal(w.in_state("sealed"), 3, "captures that are in the lost bundle still")
        next_captures(w)
        w.start_agent()
        wiped(w, 5)


def max_age_and_had_and_no_room():
    """the same, and the spool takes nothing for a while: they stay with the lost bundle until it does"""
    with lost_and_had() as (w, _):
        again(w)
        with Strace(w.agent.pid, w.dir, "-e", "trace=linkat", "-e", "inject=linkat:error=ENOSPC"):
            until(lambda: "seal.failed" in w.agent.said(), 20, "it fails")
            time.sleep(3)  # their age is the matter: not urgent yet when the others are tried again
            next_captures(w)
            equal(len(w.left()), 5, "captures that stay")
        wiped(w, 5)


def max_age_after_two_kills_and_had():
    """the same, killed once more before the answer"""
    max_age_after_a_kill_and_had(True)


def max_age_and_had_and_taken_out():
    """the same, and the new bundle is taken out of the spool before its captures are wiped: the lost one's receipt proves them"""
    with lost_and_had() as (w, proxy):
        w.agent.kill()
        with immutable([w.capture / name.decode() for name in w.left()]):
            w.start_agent()
            until(lambda: w.in_state("wiping") == 3, 20, lambda: f"they can't be wiped: {w.counts()}")
            w.agent.kill()
            for bundle in spooled(w):
                bundle.unlink()
            w.start_agent()
            until(lambda: "spool.missing" in w.agent.said(), 20, "said that it is missing")
            proxy.serve()
            until(lambda: w.counts()[1].get("sealed", 0) == 0, 30, lambda: f"both are answered; {w.counts()}")
        check("bundle-abandoned" not in w.cede("ledger", "events", "--state", w.state), "nothing was given up")


def max_age_and_never_answered():
    """the same, and the agency's answer for the lost bundle does not come: the new one waits for it, said once, and nothing else does"""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        sealed_in_memory(w)
        w.agent.kill()
        w.start_agent()
        wiped(w, 1)
        lost, anew = bundles_sealed(w)
        w.write("next.jpg", b"of later")
        wiped(w, 2)
        other = bundles_sealed(w)[2]
        with Recorder(w, lambda method, bundle: (503, {}) if bundle == lost else None) as agency:
            for _ in range(2):  # also over another start
                until(lambda: other in agency.stored, 30, "the other one is there")
                until(lambda: any(r.bundle == lost for r in agency.requests), 30, "it was asked for the lost one")
                equal(list(agency.stored), [other], "bundles at the agency")
                check(f"push.waits destination=agency bundle={lost}" in w.agent.said(), "it is said")
                w.agent.kill()
                agency.requests.clear()
                w.start_agent()
            agency.rule = None
            w.settled()
        equal(sorted(Store(w.store, w.pki).read().manifests), sorted([anew, other]), "bundles at the agency")


def max_age_and_another_policy(change, then=lambda w: None):
    """Another policy comes while a bundle is in memory and the link is down."""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        sealed_in_memory(w)
        change(w)
        serial = w.publish()
        until(lambda: f"serial={serial}" in w.agent.said(), 10, "the next policy is in force")
        wiped(w, 1)
        equal(len(spooled(w)), 1, "bundles in the spool")
        then(w)
        arrives(w)


def max_age_and_another_key():
    """at_max_age: seal, and a policy with another sealing key comes while the link is down: sealed in time to that key"""
    def next_key(w):
        for kind in ("key", "pem"):  # what the store is opened with
            os.replace(w.pki / f"next.{kind}", w.pki / f"seal.{kind}")
    max_age_and_another_policy(another_seal_key, next_key)


def max_age_and_another_place():
    """the same, and the agency moves: what is in memory is sent to the new place"""
    def move(w):
        w.port = free_port()
        w.destination["url"] = f"https://localhost:{w.port}/"
        w.receiver_config["listen"] = f"127.0.0.1:{w.port}"
        (w.dir / "receiver.yaml").write_text(yaml(w.receiver_config))
    max_age_and_another_policy(move)


def max_age_and_no_destination():
    """the same, and the destination goes: it is spooled, and sent when the destination is back"""
    def go(w):
        w.policy["destinations"] = {"other": dict(w.destination)}
        w.source["destination"] = "other"

    def back(w):
        w.policy["destinations"] = {"agency": w.destination}
        w.source["destination"] = "agency"
        w.publish()
    max_age_and_another_policy(go, back)


def in_force(w, **source):
    """Another policy."""
    w.source.update(source)
    serial = w.publish()
    until(lambda: f"serial={serial}" in w.agent.said(), 10, "the next policy is in force")


def max_age_no_more():
    """the same, and the policy that comes says hold: what is in memory is not spooled, and its captures stay"""
    with World(source=SEAL_IN_TIME, receiver=False) as w:
        beside = w.dir / "beside"
        beside.mkdir()
        w.policy["sources"].append({**w.source, "name": "beside", "path": str(beside)})
        w.write_files()
        sealed_in_memory(w)
        in_force(w, at_max_age="hold")
        w.write("b.jpg", b"its max_age comes later, and there it says seal", source="beside", top=beside)
        until(lambda: w.in_state("wiped") == 1, 30, lambda: f"it is wiped; {w.counts()}")
        equal((len(spooled(w)), w.left()), (1, [b"0.jpg"]), "bundles in the spool, captures that stay")
        equal(w.agent.stop(), 0, "exit status")
        equal((len(spooled(w)), w.left()), (1, [b"0.jpg"]), "the same after a stop")
        w.start_agent()
        arrives(w)


def max_age_from_now_on():
    """the other way round: a policy that says seal, or seal sooner, comes while a bundle is in memory: in the spool in time"""
    for before in ({"at_max_age": "hold"}, {"max_age": "1h"}):
        with World(source={**SEAL_IN_TIME, **before}, receiver=False) as w:
            sealed_in_memory(w)
            in_force(w, **SEAL_IN_TIME)
            wiped(w, 1)
            equal(len(spooled(w)), 1, "bundles in the spool")
            arrives(w)


def max_age_from_now_on_after_a_kill():
    """the same, and what was in memory is lost: sealed anew in time"""
    with World(source={**SEAL_IN_TIME, "max_age": "1h"}, receiver=False) as w:
        sealed_in_memory(w)
        w.agent.kill()
        w.source.update(SEAL_IN_TIME)
        w.write_files()
        w.start_agent()
        wiped(w, 1)
        arrives(w)


def segment_from_now_on():
    """the same with the segments of a large capture"""
    with World(source={**SEAL_IN_TIME, "at_max_age": "hold"}, destination={"bundle_size": "256KiB"}, receiver=False) as w:
        w.start_agent()
        until(lambda: "agent.ready" in w.agent.said(), 15, "the agent is ready")
        w.write("0.jpg", random.Random(26).randbytes(500_000))
        until(lambda: len(bundles_sealed(w)) > 0, 10, lambda: f"sealed; {w.counts()}")
        until(lambda: "link.down" in w.agent.said(), 10, "the link is down")
        in_force(w, **SEAL_IN_TIME)
        wiped(w, 1)
        arrives(w)


def max_age_hold():
    """at_max_age: hold: the same, and the captures stay until the agency has them"""
    with World(source={"quiet": "0s", "max_age": "2s", "at_max_age": "hold"}, receiver=False) as w:
        w.start_agent()
        for name, content in cameras.roll(14, 4, "lane1"):
            w.write(name, content)
        until(lambda: w.in_state("ready", "sealed") == 8, 30, "recorded")
        until(lambda: w.agent.said().count("push.failed") >= 5, 60, "five tries failed")
        equal(len(w.left()), 8, "captures that stay")
        equal(spooled(w), [], "bundles in the spool")
        w.start_receiver()
        w.settled()


def limit():
    """a spool at its limit: captures stay in their source, an alarm says so, all goes when the link is back"""
    with World(source={**AFTER_SEAL, "quiet": "0s"}, destination={"bundle_size": "256KiB"}, receiver=False) as w:
        w.config["spool"] = {"limit": "1500KiB"}
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        rng = random.Random(5)
        for i in range(40):
            w.write(f"{i:02d}.jpg", rng.randbytes(100 << 10))
        w.start_agent()
        until(lambda: "spool.full" in w.agent.said(), 30, "the alarm")
        until(lambda: w.counts()[0].get("wiped", 0) >= 6 and not w.counts()[0].get("wiping"), 30, "some are wiped")
        used = sum(p.stat().st_size for p in spooled(w))
        check(used <= 1500 << 10, f"the spool has {used} bytes")
        until(lambda: metric(w, "cede_spool_full") == 1, 10, "the metric")
        equal(metric(w, "cede_spool_bytes"), used, "cede_spool_bytes")
        equal(metric(w, "cede_spool_limit_bytes"), 1500 << 10, "cede_spool_limit_bytes")
        check("reason=spool-full" in w.cede("ledger", "events", "--state", w.state), "the ledger has the violation")
        left = w.left()
        equal(len(left), 40 - w.counts()[0]["wiped"], "captures that stay")
        w.agent.kill()  # what is in the spool counts after a restart as well
        w.start_agent()
        until(lambda: w.agent.said().count("spool.full") == 2, 30, "the alarm after a restart")
        equal(w.left(), left, "captures that stay after a restart")
        w.start_receiver()
        w.settled()
        until(lambda: metric(w, "cede_spool_full") == 0, 10, "the alarm is over")
        equal(spooled(w), [], "bundles left in the spool")


def limit_with_slow_commits():
    """a spool at its limit while each commit of the ledger takes a quarter of a second: what is sealed and not recorded yet counts, too"""
    with World(source={**AFTER_SEAL, "quiet": "0s"}, destination={"bundle_size": "256KiB"}, receiver=False) as w:
        w.config["spool"] = {"limit": "1500KiB"}
        w.write_files()
        w.start_agent()
        until(lambda: "agent.ready" in w.agent.said(), 15, "the agent is ready")
        rng = random.Random(7)
        with Strace(w.agent.pid, w.dir, "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=250000"):
            for i in range(40):
                w.write(f"{i:02d}.jpg", rng.randbytes(100 << 10))
            until(lambda: "spool.full" in w.agent.said(), 60, "the alarm")
            until(lambda: w.in_state("wiped") >= 6 and w.in_state("bundled", "wiping") == 0, 60, "some are wiped")
            used = sum(p.stat().st_size for p in spooled(w))
            check(used <= 1500 << 10, f"the spool has {used} bytes")
        w.start_receiver()
        w.settled()


def clear_before_spool():
    """a capture in the clear does not wait behind a full spool on a slow link"""
    source = {**AFTER_SEAL, "quiet": "0s"}
    with World(destination={"bundle_size": "256KiB", "bandwidth": {"limit": "8Mbit/s"}}, receiver=False) as w:
        fresh = w.dir / "fresh"
        fresh.mkdir()
        w.policy["sources"] = [{**w.source, **source}, {**w.source, "name": "fresh", "path": str(fresh), "quiet": "0s"}]
        w.write_files()
        rng = random.Random(6)
        for i in range(80):
            w.write(f"{i:02d}.jpg", rng.randbytes(125 << 10))
        w.start_agent()
        wiped(w, 80)
        before = len(spooled(w))
        w.start_receiver()
        until(lambda: len(spooled(w)) < before, 30, "the spool drains")
        w.write("now.jpg", rng.randbytes(1000), source="fresh", top=fresh)
        until(lambda: not (fresh / "now.jpg").exists(), 30, "the fresh one is there and wiped")
        check(len(spooled(w)) > before // 3, f"it waited until {len(spooled(w))} of {before} bundles were left")
        w.settled()


def no_plaintext():
    """no byte of plaintext gets to the disk of state and spool (looked for in its raw image)"""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        raise Skip("mounting an image needs root and loop devices")
    marker = b"PLAINTEXT-OF-A-TRAVELLER"
    with World(source={**AFTER_SEAL, "quiet": "0s"}, destination={"bundle_size": "256KiB"}, receiver=False) as w:
        image, disk = w.dir / "image", w.dir / "disk"
        disk.mkdir()
        with open(image, "wb") as f:
            f.truncate(300 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        try:
            w.state = disk / "state"
            w.config["state"] = str(w.state)
            w.write_files()
            for i in range(30):
                w.write(f"{i}.jpg", b"%s %d\n" % (marker, i) * (1 + i * 300))
            w.start_agent()
            until(lambda: len(spooled(w)) >= 1, 30, "something is in the spool")
            w.agent.kill()  # in the midst
            w.start_agent()
            wiped(w, 30)
            os.sync()
            raw = image.read_bytes()
            check(raw.count(marker) == 0, f"{raw.count(marker)} pieces of plaintext in the image")
            check(b"CREATE TABLE" in raw, "the ledger is in the image: the look is at the right one")
            w.start_receiver()
            w.settled()
            w.agent.stop()
        finally:
            w.agent.kill_all()
            until(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0, 10, "unmounted")
        raw = image.read_bytes()
        check(raw.count(marker) == 0, f"{raw.count(marker)} pieces of plaintext in the image")


def stuck_in_spool():
    """a bundle that can't be removed from the spool when its receipt is there goes as soon as it can, without a new start"""
    with World(source=AFTER_SEAL, receiver=False) as w:
        sealed_and_wiped(w, 15, 2)
        there = spooled(w)
        if subprocess.run(["chattr", "+i", *there], capture_output=True, check=False).returncode != 0:
            raise Skip("no immutable files here (chattr +i)")
        try:
            w.start_receiver()
            w.settled()
            until(lambda: "spool.leftover" in w.agent.said(), 10, "it is said")
            equal(spooled(w), there, "bundles that can't go")
            used = w.status()["spool"]["bytes"]
            equal(used, sum(p.stat().st_size for p in there), "bytes of the spool while they are there")
        finally:
            subprocess.run(["chattr", "-i", *there], check=True)
        until(lambda: not spooled(w), 10, "they go")
        equal(w.status()["spool"]["bytes"], 0, "bytes of the spool")


def taken_out():
    """a bundle that somebody takes out of the spool is reported, and holds up nothing"""
    with World(source={**AFTER_SEAL, "quiet": "0s"}, destination={"bundle_size": "256KiB"}, receiver=False) as w:
        rng = random.Random(8)
        for i in range(8):
            w.write(f"{i}.jpg", rng.randbytes(200 << 10))
        w.start_agent()
        wiped(w, 8)
        gone = max(spooled(w), key=lambda p: p.name)  # the first ones are open, to be sent
        gone.unlink()
        w.start_receiver()
        until(lambda: not spooled(w), 30, "the others went")
        w.idle()
        equal(len(Store(w.store, w.pki).read().manifests), 7, "bundles at the agency")
        check("reason=spooled-bundle-missing" in w.cede("ledger", "events", "--state", w.state), "a violation in the ledger")


@contextlib.contextmanager
def immutable(paths):
    if subprocess.run(["chattr", "+i", *paths], capture_output=True, check=False).returncode != 0:
        raise Skip("no immutable files here (chattr +i)")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *paths], check=True)


@contextlib.contextmanager
def leased(paths):
    """Open for reading to others, not for writing, and without a change of their times. The kernel takes a lease
    that is not given back away after 45 seconds."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            fd = stack.enter_context(open(path, "rb"))
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        yield


def taken_out_before_the_wipe(agency_has_it, content=None, some=slice(None), unwipeable=immutable):
    """Of the spooled bundles, `some` are taken out."""
    with World(source=AFTER_SEAL, destination={"bundle_size": "256KiB"}, receiver=False) as w:
        content = content or dict(cameras.roll(19, 3, "lane1"))
        for name, data in content.items():
            w.write(name, data)
        with unwipeable([w.capture / n for n in content]):
            w.start_agent()
            until(lambda: w.counts()[0].get("wiping") == len(content), 30, lambda: f"they can't be wiped: {w.counts()}")
            w.agent.kill()
            whole = len(spooled(w))
            lost = sorted(spooled(w))[some]
            if agency_has_it:
                w.start_receiver()
            for bundle in lost:
                if agency_has_it:
                    equal(Client(w).push(bundle.stem, bundle.read_bytes()).status, 201, "status of the push")
                bundle.unlink()
            w.start_agent()
            until(lambda: "spool.missing" in w.agent.said(), 20, "said that it is missing")
            serial = w.publish()  # another policy takes over while the agency is asked
            until(lambda: f"serial={serial}" in w.agent.said(), 20, "the next policy is in force")
        before = w.agent.said().count("wipe.failed")
        if not agency_has_it:
            w.start_receiver()
        w.settled()
        if not agency_has_it:
            equal(w.agent.said().count("wipe.failed"), before, "tries to wipe what had no proof")
        store = Store(w.store, w.pki).read()
        equal(store.problems, [], "problems in the store")
        equal({k.split(b"/", 1)[1].decode(): v for k, v in store.captures.items()},
              {n: [hashlib.sha256(d).hexdigest()] for n, d in content.items()}, "what the agency has")
        equal([b.stem in store.manifests for b in lost], [agency_has_it] * len(lost), "lost bundles that the agency has")
        if agency_has_it:
            equal(len(store.manifests), whole, "bundles at the agency")
        w.verify_ledger()


def taken_out_and_lost():
    """a bundle taken out of the spool while its captures wait to be wiped, and the agency never had it: they are sealed again, not wiped"""
    taken_out_before_the_wipe(False)


def taken_out_and_had():
    """the same, and the agency has it: wiped when its receipt is there"""
    taken_out_before_the_wipe(True)


def segments_taken_out_and_lost():
    """the same with two of the five segments of a large capture: those alone are sealed again"""
    taken_out_before_the_wipe(False, {"large.jpg": random.Random(20).randbytes(1200 << 10)}, slice(1, 4, 2), leased)


def segments_all_taken_out():
    """the same with all of its segments: it is sealed again whole"""
    taken_out_before_the_wipe(False, {"large.jpg": random.Random(22).randbytes(1200 << 10)}, slice(None), leased)


def segments_taken_out_and_had():
    """the same, and the agency has them"""
    taken_out_before_the_wipe(True, {"large.jpg": random.Random(21).randbytes(1200 << 10)}, slice(1, 4, 2), leased)


if __name__ == "__main__":
    tap.run([after_seal_without_link, after_seal_with_restart, max_age_without_link, max_age_over_a_stop, stop_with_a_slow_spool,
             stop_with_a_full_spool, stop_with_a_link, max_age_beside_hold, max_age_after_a_kill, max_age_after_a_kill_and_had,
             max_age_after_two_kills_and_had,
             max_age_and_had_and_touched, max_age_and_had_and_another_key, max_age_and_not_wanted, max_age_and_killed_in_the_midst, max_age_and_had_and_no_room, max_age_and_had_and_taken_out, max_age_and_never_answered, max_age_and_another_key, max_age_and_another_place, max_age_and_no_destination, max_age_no_more, max_age_from_now_on, max_age_from_now_on_after_a_kill, segment_from_now_on, max_age_hold, limit, limit_with_slow_commits,
             clear_before_spool, no_plaintext, stuck_in_spool, taken_out, taken_out_and_lost, taken_out_and_had,
             segments_taken_out_and_lost, segments_all_taken_out, segments_taken_out_and_had], at_once=3)
