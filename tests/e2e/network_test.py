#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The network as it is: links that are down, slow, cut, mute or flap; servers that refuse and mend;
names, certificates and clocks that change while the agent runs (docs/network.md)."""

import collections
import contextlib
import ctypes
import email.utils
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import servers
import tap
from clocks import Clock, Lapse
from metrics import metric
from proxy import CLOSE, Dumb, Proxy, Recorder, cpu_s, wakeups
from stock import Store
from tap import Skip, check, equal
from world import World, free_port, program, until, yaml

FIRST_S, MOST_S = 0.25, 30  # agent/send/backoff.h
SLACK_S = 8  # a busy machine: the lower bounds are the claim
ONE_MIB = {"bundle_size": "1MiB"}  # a bundle for each capture of that size
NOW = {"quiet": "0s"}
CLONE_NEWNET = 0x40000000


def big(n):
    return os.urandom(900_000) + b"%d" % n


def step(failures):
    """The longest wait after so many failures in a row."""
    return min(FIRST_S * 2 ** (failures - 1), MOST_S)


@contextlib.contextmanager
def linked(receiver=True, **how):
    """A world whose agent reaches the receiver through a proxy only."""
    with World(**how) as w, Proxy(w.port) as proxy:
        w.destination["url"] = f"https://localhost:{proxy.port}/"
        w.write_files()
        if receiver:
            w.start_receiver()
        yield w, proxy


@contextlib.contextmanager
def recorded(rule=None, **how):
    with World(receiver=False, **how) as w, Recorder(w, rule) as recorder:
        yield w, recorder


def with_metrics(w):
    w.config["metrics"] = f"127.0.0.1:{free_port()}"
    w.write_files()


def waiting(w, number):
    """So many captures stand sealed or ready, none is wiped, all files are there."""
    until(lambda: w.in_state("ready", "sealed") == number, 20,
          lambda: f"{number} captures wait; {w.counts()}")
    untouched(w, number)


def untouched(w, number):
    captures, bundles = w.counts()
    equal((captures.get("wiping", 0), captures.get("wiped", 0)), (0, 0), "captures wiping and wiped")
    equal((bundles.get("receipted", 0), bundles.get("done", 0)), (0, 0), "bundles receipted and done")
    equal(len(w.left()), number, "files that stay")


def said(w, pattern, seconds=20):
    until(lambda: re.search(pattern, w.agent.said()), seconds, f"the log says {pattern!r}")


def once(w):
    """All is there once, the ledger is whole, and nothing was given up or became another capture."""
    w.settled()
    captures, _ = w.counts()
    equal({s: n for s, n in captures.items() if n and s != "wiped"}, {}, "captures in other states")
    w.verify_ledger()


# ---- links that are down

def down():
    """receiver down: nothing is wiped; it recovers within one step of the link's return"""
    with World(receiver=False, source=NOW) as w:
        with_metrics(w)
        w.start_agent()
        w.write("a.jpg", b"picture")
        said(w, r"reason=connect ")
        until(lambda: (metric(w, "cede_push_failures_total") or 0) >= 5, 30, "five tries")
        equal(metric(w, "cede_destination_up"), 0, "destinations up")
        waiting(w, 1)
        w.start_receiver()
        began = time.monotonic()
        tries = metric(w, "cede_push_failures_total") + 1  # one may not be in the metrics yet
        once(w)
        check(time.monotonic() - began < step(tries) + 2 * SLACK_S, f"{time.monotonic() - began:.1f} s after {tries} tries")
        until(lambda: metric(w, "cede_destination_up") == 1, 10, "the metrics say that it is up")


def steps():
    """the waits double, with jitter, from a quarter of a second on"""
    with linked(source=NOW) as (w, proxy):
        proxy.doomed = True
        w.start_agent()
        w.write("a.jpg", b"picture")
        until(lambda: len(proxy.times) >= 6, 30, "six tries")
        proxy.doomed = False
        waits = [b - a for a, b in zip(proxy.times, proxy.times[1:])]
        tap.diag("waits " + ", ".join(f"{x:.2f}" for x in waits))
        for i, waited in enumerate(waits, 1):
            check(0.49 * step(i) <= waited <= step(i) + SLACK_S, f"wait {i} of {waits}")
        once(w)
        check(proxy.times[6] - proxy.times[5] <= step(6) + SLACK_S, "the next try takes the link that is back")


def unreachable():
    """unreachable: who connects hears nothing; nothing is wiped, it goes on when the link is back"""
    with linked(source=NOW) as (w, proxy):
        proxy.vanish()
        w.start_agent()
        w.write("a.jpg", b"picture")
        said(w, r"reason=timeout ", 30)
        waiting(w, 1)
        proxy.serve()
        once(w)


def cable():
    """the cable is cut while bundles are under way, and mended: they go on or are asked for"""
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        proxy.trickle = 200_000
        w.start_agent()
        for i in range(6):
            w.write(f"{i}.jpg", big(i))
        until(lambda: len(proxy.alive) >= 4, 20, "pushes are under way")
        proxy.hold = True
        until(lambda: w.counts()[1].get("sealed", 0) >= 6, 20, "all are sealed")
        untouched(w, 6)
        proxy.trickle, proxy.hold = None, None
        began = time.monotonic()
        once(w)
        check(time.monotonic() - began < 10, "a link that was mute for a moment goes on")


def in_flight(w, proxy, number):
    """So many pushes are under way, each with a part of its body sent."""
    until(lambda: sum(p.passed["client"] > 20_000 for p in list(proxy.alive)) >= number, 30,
          lambda: f"{number} under way: {[p.passed for p in list(proxy.alive)]}")
    check(w.agent.alive(), "the agent runs")


def eight_under_way(w, proxy, captures):
    """The agent starts, and as many pushes as go at once trickle; their connections."""
    proxy.trickle = 30_000
    w.start_agent()
    for i in range(captures):
        w.write(f"{i}.jpg", big(i))
    in_flight(w, proxy, 8)
    return list(proxy.alive)


def together():
    """pushes that break with one link count as one failure: the next try comes after the first step"""
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        proxy.trickle = 30_000
        w.start_agent()
        for i in range(8):
            w.write(f"{i}.jpg", big(i))
        in_flight(w, proxy, 6)
        tries, began = len(proxy.times), time.monotonic()
        proxy.reset()
        proxy.trickle = None
        until(lambda: len(proxy.times) > tries, 20, "the next try")
        waited = proxy.times[tries] - began
        check(waited < FIRST_S + SLACK_S, f"the next try came after {waited:.2f} s")
        once(w)


def hanging():
    """pushes that hang since the link broke do not hold up the others"""
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        stuck = eight_under_way(w, proxy, 10)
        for pair in stuck:
            pair.hold = True
        stuck[0].doomed = True
        proxy.trickle = None
        until(lambda: w.counts()[1].get("done", 0) >= 3, 12, lambda: f"others go through; {w.counts()}")
        for pair in stuck:
            pair.doomed = True
        once(w)


def forgotten():
    """connections end with a word to the agent alone, as when a router forgets them, and the receiver still waits: its old uploads make way"""
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        for pair in eight_under_way(w, proxy, 8):
            pair.forgotten = True
        proxy.trickle = None
        began = time.monotonic()
        once(w)
        took = time.monotonic() - began
        tap.diag(f"{took:.0f} s to the last receipt")
        check("its host asked anew" in w.receiver.said(), "the receiver said why it cut them")
        check(took < 45, "they waited for the end of the receiver's patience")


# ---- links that are slow

def too_slow():
    """a trickle of 200 bytes a second is given up after half a minute and tried again"""
    with linked(source=NOW) as (w, proxy):
        proxy.trickle = 200
        w.start_agent()
        w.write("a.jpg", big(0))
        said(w, r"reason=timeout .*next to nothing arrived", 60)
        untouched(w, 1)
        proxy.trickle = None
        proxy.reset()  # what is tried again meanwhile
        once(w)


def just_fast_enough():
    """a trickle that is just quick enough completes at the first try, though most waits in buffers"""
    with linked(source=NOW) as (w, proxy):
        with_metrics(w)
        w.start_agent()
        w.write("warm.jpg", b"the connection is there")
        w.settled()
        proxy.trickle = 10_000
        began = time.monotonic()
        w.write("a.jpg", big(0)[:420_000])
        w.empty(90)
        took = time.monotonic() - began
        check(took > 36, f"it took {took:.0f} s: the proxy is too fast to show anything")
        equal(metric(w, "cede_push_failures_total"), 0, "failures")
        once(w)


@contextlib.contextmanager
def lapsed(w, times, receiver=False):
    """Starts an agent whose time passes so many times as fast; the receiver's as well."""
    with Lapse(w.dir / "lapse", times) as lapse:
        if receiver:
            w.receiver = w.spawn("receiver", *w.receiver_words(), env=lapse.env)
            w.listening(w.receiver, w.port)
        wrapper = w.dir / "cede-courier"  # the courier's environment is always empty: a script sets it
        wrapper.write_text("#!/bin/sh\nexport " + " ".join(f"{name}='{value}'" for name, value in lapse.words.items()) + "\n"
                           f"exec '{program('cede-courier')}' \"$@\"\n")
        wrapper.chmod(0o755)
        w.agent = w.spawn("agent", *w.agent_words(), "--courier", wrapper, env=lapse.env)
        yield


@contextlib.contextmanager
def recorded_behind(rate, times, **how):
    """A server without a limit of its own behind a link of so many bytes a second, which all share."""
    with recorded(**how) as (w, _), Proxy(w.port) as proxy:
        proxy.total = rate * times
        w.destination["url"] = f"https://localhost:{proxy.port}/"
        w.write_files()
        with lapsed(w, times):
            yield w, proxy


def too_slow_for_all():
    """eight pushes on a link that is too slow for them: half give way to those that went further; the link never counts as down"""
    size, number = 60_000, 8
    with recorded_behind(5200, 4, source=NOW, destination={"bundle_size": "64KiB"}) as (w, proxy):
        for i in range(number):
            w.write(f"{i}.jpg", os.urandom(size))
        w.empty(90)
        once(w)
        said_all = w.agent.said()
        gave_way, sent = said_all.count("reason=slow "), proxy.passed["client"]
        tap.diag(f"{gave_way} gave way, {sent / (size * number):.2f} times the bundles' bytes were sent")
        check(1 <= gave_way <= 2 * number, f"{gave_way} gave way")
        equal((said_all.count("push.failed"), said_all.count("link.down")), (gave_way, 0), "failures, and times down")


def slow_as_a_modem():
    """24 kbit/s: a bundle that has it for itself arrives at the first try, however long it takes, with a `bandwidth` as well"""
    for limit in ({}, {"bandwidth": "32KiB/s"}):
        with recorded_behind(3000, 8, source=NOW, destination={**ONE_MIB, **limit}) as (w, proxy):
            began = time.monotonic()
            w.write("a.jpg", os.urandom(290_000))
            w.empty(60)
            took = 8 * (time.monotonic() - began)
            check(took > 90, f"it took {took:.0f} s: the proxy is too fast to show anything")
            equal((w.agent.said().count("push.failed"), len(proxy.times)), (0, 1), "failures and connections")
            once(w)


def thin_link_to_the_receiver():
    """six bundles over 32 kbit/s, then one over 24 kbit/s: the limits of the agent and those of the receiver agree with each other"""
    times = 4
    with linked(receiver=False, source=NOW, destination={"bundle_size": "64KiB"}) as (w, proxy):
        proxy.total = 4000 * times
        with lapsed(w, times, receiver=True):
            for i in range(6):
                w.write(f"{i}.jpg", os.urandom(60_000))
            w.empty(90)
            failures = collections.Counter(re.findall("push.failed .*reason=([^ ]+)", w.agent.said()))
            tap.diag(f"failures: {dict(failures)}")
            # what still lies on the way when a push gives way is received by the agency: it is told to come again
            check(set(failures) <= {"slow", "http-503"} and failures["slow"] <= 16, f"failures: {failures}")
            proxy.total = 3000 * times
            began = time.monotonic()
            w.write("a.jpg", os.urandom(120_000))  # two segments
            w.empty(90)
            took = times * (time.monotonic() - began)
            check(took > 36, f"it took {took:.0f} s: the proxy is too fast to show anything")
            check("too slowly" not in w.receiver.said(), "the receiver cut an upload")
            once(w)


def in_own_network(body):
    """Runs it in a network of its own, where the kernel buffers next to nothing of what is sent."""
    if os.geteuid() != 0:
        raise Skip("a network of its own needs root (unshare -n)")
    errors = []

    def enter():
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise Skip(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        pathlib.Path("/proc/sys/net/ipv4/tcp_wmem").write_text("4096 16384 32768")
        body()
    thread = threading.Thread(target=failing, args=(enter, errors))  # of this thread alone, and what it starts
    thread.start()
    thread.join()
    for error in errors:
        raise error


def larger_than_the_buffers():
    """80 kbit/s, and a bundle that no buffer on the way takes whole: it arrives at the first try"""
    def body():
        with recorded_behind(10_000, 8, source=NOW, destination=ONE_MIB) as (w, proxy):
            w.write("a.jpg", os.urandom(700_000))
            w.empty(60)
            equal((w.agent.said().count("push.failed"), len(proxy.times)), (0, 1), "failures and connections")
            once(w)
    in_own_network(body)


def sealed_in_time():
    """at_max_age: seal holds on a link that is up and slow: what can't go in time is sealed to the disk"""
    with linked(source={**NOW, "max_age": "20s", "at_max_age": "seal"}, destination=ONE_MIB) as (w, proxy):
        proxy.trickle = 3000
        w.start_agent()
        began = time.monotonic()
        for i in range(12):
            w.write(f"{i}.jpg", big(i))
        until(lambda: w.counts()[0].get("wiped", 0) == 12, 40, lambda: f"all are wiped; {w.counts()}")
        took = time.monotonic() - began
        check(took < 20 + SLACK_S, f"{took:.1f} s until the last was wiped")
        equal((w.left(), w.counts()[1].get("done", 0)), ([], 0), "files left, bundles done")
        proxy.trickle = None
        once(w)
        equal(list((w.state / "spool").glob("*.cms")), [], "bundles left in the spool")


def wiped_after_seal():
    """wipe after seal holds on a link that is up and slow: the plaintext does not wait for it"""
    with linked(source={**NOW, "wipe": {"after": "seal", "method": "overwrite", "require": "none"}}, destination=ONE_MIB) as (w, proxy):
        proxy.trickle = 3000
        w.start_agent()
        for i in range(12):
            w.write(f"{i}.jpg", big(i))
        until(lambda: w.counts()[0].get("wiped", 0) == 12, 15, lambda: f"all are wiped; {w.counts()}")
        equal((w.left(), w.counts()[1].get("done", 0)), ([], 0), "files left, bundles done")
        proxy.trickle = None
        once(w)


# ---- links that are cut

def cut():
    """reset in the middle, in either direction, again and again: each arrives once"""
    for where in (("client", 300), ("client", 6000), ("client", 300_000), ("server", 700), ("server", 1300)):
        with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
            proxy.cut, proxy.cuts = where, 3
            w.start_agent()
            for i in range(3):
                w.write(f"{i}.jpg", big(i))
            once(w)
            equal(proxy.cuts, 0, f"cuts left of {where}")


def answer_lost():
    """closed after the body, the answer lost: one copy in the store"""
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        proxy.swallow, proxy.swallows = 800_000, 4
        w.start_agent()
        for i in range(4):
            w.write(f"{i}.jpg", big(i))
        once(w)
        equal(proxy.swallows, 0, "answers that were not lost")
        equal(len(list(w.store.rglob("*.cms"))), 4, "bundles in the store")


def asked_first():
    """closed after the body without an answer: the receipt is asked for before the bundle is sent again"""
    for lossy, story in ((False, "PUT 0, GET 200"), (True, "PUT 0, GET 404, PUT 201")):
        mute = set()

        def rule(method, bundle):
            if method != "PUT" or bundle in mute or not armed:
                return None
            mute.add(bundle)
            return CLOSE
        armed = True
        with recorded(rule, source=NOW) as (w, recorder):
            recorder.lossy = lossy
            w.start_agent()
            w.write("fresh.jpg", b"on a fresh connection")
            w.settled()
            armed = False
            w.write("honest.jpg", b"the connection is kept")
            w.settled()
            armed = True
            w.write("reused.jpg", b"on a connection that was used before")
            w.settled()
            equal(sorted(recorder.story(b) for b in recorder.stored), sorted(["PUT 201", story, story]), "what was asked")
            once(w)


def crash_between():
    """keeper killed between push and receipt: it asks for the receipt before it sends anything again"""
    with recorded(source=NOW) as (w, recorder):
        recorder.pause.clear()
        w.start_agent()
        w.write("a.jpg", b"picture")
        until(lambda: recorder.requests, 20, "the bundle is there, its receipt is not on the way yet")
        bundle = recorder.requests[0].bundle
        w.agent.kill()
        untouched(w, 1)
        recorder.pause.set()
        w.start_agent()
        once(w)
        equal(recorder.story(bundle), "PUT 201, GET 200", "what was asked")
        equal(len(recorder.stored), 1, "bundles in the store")


def crash_before():
    """keeper killed before its bundle arrived: given up at the agency, even if that answer is lost, and sealed anew"""
    lost = {"DELETE"}

    def rule(method, _):
        if method == "PUT" and not recorder.requests:
            return CLOSE
        if method in lost:
            lost.remove(method)
            return CLOSE
        return None
    with recorded(rule, source=NOW) as (w, recorder):
        recorder.lossy = True
        recorder.pause.clear()
        w.start_agent()
        w.write("a.jpg", b"picture")
        until(lambda: recorder.requests, 20, "the bundle was sent")
        bundle = recorder.requests[0].bundle
        w.agent.kill()
        recorder.pause.set()
        w.start_agent()
        once(w)
        # a question may be asked again at once on a fresh connection
        check(re.fullmatch(r"PUT 0, GET 404, DELETE 0, (GET 404, )?DELETE 204", recorder.story(bundle)),
              f"what was asked: {recorder.story(bundle)}")
        check(bundle not in recorder.stored and len(recorder.stored) == 1, "the new bundle alone is stored")


# ---- servers that say no

def date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def retry_after(status, value, least, most, clock_s=0):
    """Two captures; the first is answered so. Nothing is asked before `least` seconds, something before `most`."""
    def rule(*_):
        return (status, {"Retry-After": value() if callable(value) else value}) if len(recorder.requests) == 0 else None
    with recorded(rule, source=NOW, destination=ONE_MIB) as (w, recorder):
        recorder.clock_s = clock_s
        w.start_agent()
        w.write("a.jpg", big(0))
        until(lambda: recorder.requests, 20, "the first request")
        w.write("b.jpg", big(1))
        began = recorder.requests[0].at
        if most is None:
            time.sleep(max(0, began + least - time.monotonic()))
            equal(len(recorder.requests), 1, f"requests in {least} s after Retry-After: {value}")
            return
        until(lambda: len(recorder.requests) > 1, most + 5, "the next request")
        waited = recorder.requests[1].at - began
        check(least <= waited <= most, f"{status}, Retry-After: {value}: the next request came after {waited:.2f} s")
        once(w)


def retry_after_seconds():
    """429 and 503 with Retry-After in seconds: no request before, one soon after"""
    retry_after(503, "2", 2, 2 + SLACK_S)
    retry_after(429, "3", 3, 3 + SLACK_S)


def retry_after_date():
    """Retry-After with a date counts from the server's own clock, which may be an hour off"""
    retry_after(503, lambda: date(3), 2, 4 + SLACK_S)
    retry_after(429, lambda: date(3603), 2, 4 + SLACK_S, clock_s=3600)
    retry_after(503, lambda: date(-3597), 2, 4 + SLACK_S, clock_s=-3600)


def retry_after_absurd():
    """Retry-After that is negative, past or no value counts as none; an absurd one counts to its cap"""
    for value in ("-7", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", ""):
        retry_after(503, value, 0.1, FIRST_S + SLACK_S)
    if tap.mode() == "full":
        retry_after(503, "1000000000000", 300, 300 + SLACK_S)
    else:
        retry_after(503, "1000000000000", 6, None)


def refuses(status):
    """Everything is refused so; then the server mends."""
    def case():
        def rule(method, _):
            return (status, {}) if method == "PUT" or status in (403, 404) else None
        with recorded(rule, source=NOW, destination=ONE_MIB) as (w, recorder):
            recorder.early = status in (403, 404, 413)
            with_metrics(w)
            w.start_agent()
            for i in range(4):
                w.write(f"{i}.jpg", big(i))
            said(w, rf"reason=http-{status} ")
            time.sleep(max(0, recorder.requests[0].at + 5 - time.monotonic()))
            # four at once, then one try after another: after 0.125 s and twice as long each time
            when = ", ".join(f"{r.at - recorder.requests[0].at:.2f} {r.method}" for r in recorder.requests)
            check(len(recorder.requests) >= 5 and len(recorder.said("PUT")) <= 12, f"requests in 5 s: {when}")
            equal(metric(w, "cede_destination_up"), 0, "destinations up")
            waiting(w, 4)
            recorder.rule = None
            once(w)
    case.__doc__ = f"a server that answers {status}: nothing is wiped, the waits grow, all arrives when it mends"
    case.__name__ = f"refuses_{status}"
    return case


def poisoned():
    """a bundle that is always refused (413) waits for itself; others go through, and it when the server mends"""
    poison = []

    def rule(method, bundle):
        if method != "PUT":
            return None
        if not poison:
            poison.append(bundle)
        return (413, {}) if bundle == poison[0] else None
    with recorded(rule, source=NOW) as (w, recorder):
        w.start_agent()
        w.write("a.jpg", b"refused")
        until(lambda: poison, 20, "the first bundle")
        for i in range(30):
            w.write(f"{i}.jpg", b"other %d" % i)
            time.sleep(0.15)  # a capture now and then
        w.empty(10, but=["a.jpg"])
        tries = len(recorder.said("PUT", poison[0]))
        check(2 <= tries <= 8, f"the bundle that is refused was sent {tries} times: {recorder.story(poison[0])}")
        recorder.rule = None
        once(w)


# ---- names

def elsewhere(w):
    """The server is elsewhere.example, as the host's own hosts file and name server say it."""
    if os.geteuid() != 0:
        raise Skip("a hosts file of its own needs root (unshare -m)")
    ca = servers.Ca(w.dir / "own")
    pem, key = ca.issue("elsewhere", kind="other")
    w.receiver_config["identity"] = {"certificate": str(pem), "key": str(key)}
    w.hosts, w.resolv = w.dir / "hosts", w.dir / "resolv.conf"
    w.hosts.write_text("127.0.0.1 localhost\n")
    w.resolv.write_text("nameserver 127.0.0.1\n")  # nobody: an error at once
    return {"url": f"https://elsewhere.example:{w.port}/", "ca": "own/ca.pem"}


def start_in_room(w):
    w.agent = w.spawn("agent", "unshare", "-m", "sh", "-c",
                      'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"',
                      "sh", w.hosts, w.resolv, *w.agent_words())
    until(lambda: "agent.ready" in w.agent.said() or not w.agent.alive(), 20, "the agent runs")
    if re.search("unshare: |mount: ", w.agent.said()):
        raise Skip(f"no mount namespace: {w.agent.said().splitlines()[0]}")


def names():
    """a name that is not known, then at another address, then right: each is noticed at the next try"""
    with World(source=NOW) as w:
        w.destination.update(elsewhere(w))
        w.write_files()
        start_in_room(w)
        w.start_receiver()
        w.write("a.jpg", b"picture")
        said(w, "reason=resolve ")
        waiting(w, 1)
        w.hosts.write_text("127.0.0.1 localhost\n127.0.0.77 elsewhere.example\n")
        said(w, "reason=connect ")
        w.hosts.write_text("127.0.0.1 localhost elsewhere.example\n")
        began = time.monotonic()
        w.empty(20)
        check(time.monotonic() - began < 12, f"it took {time.monotonic() - began:.1f} s")
        once(w)


def resolver_hangs():
    """a name server that does not answer holds up its own destination only"""
    with World(source=NOW) as w:
        far = w.dir / "far"
        far.mkdir()
        w.policy["destinations"]["far"] = {**w.destination, **elsewhere(w)}
        w.receiver_config["identity"] = {"certificate": "pki/server.pem", "key": "pki/server.key"}
        w.policy["sources"].append({**w.source, "name": "far", "path": str(far), "destination": "far"})
        address = "127.0.0.153"
        w.resolv.write_text(f"nameserver {address}\noptions timeout:30 attempts:1\n")
        w.write_files()
        try:
            dumb = Dumb(address)
        except OSError as e:
            raise Skip(f"port 53 of {address}: {e}") from None
        with dumb:
            w.start_receiver()
            start_in_room(w)
            w.write("f.jpg", b"far", top=far, source="far", want=False)
            until(dumb.asked, 20, "the name server is asked")
            began, n = time.monotonic(), 0
            while time.monotonic() - began < 15:
                w.write(f"{n}.jpg", b"near %d" % n)
                w.empty(3)
                n += 1
                time.sleep(0.3)
            check("destination=far reason=timeout" in w.agent.said(), "the try gave up")
        equal(list(far.iterdir()), [far / "f.jpg"], "what waits for the far one")


# ---- certificates

def stamp(seconds):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))


def client_certificate():
    """the host's certificate expires while the agent runs: said clearly, nothing lost; SIGHUP takes the new one"""
    with linked(receiver=False, source=NOW) as (w, proxy):
        ca = servers.Ca(w.dir / "own")
        pem, key = ca.issue("agent", stamp(-60), stamp(8), kind="client")
        expires = time.time() + 8
        w.config["identity"] = {"certificate": str(pem), "key": str(key)}
        w.receiver_config["clients"] = {"ca": "own/ca.pem"}
        with_metrics(w)
        w.start()
        w.write("a.jpg", b"before")
        w.settled()
        check(time.time() < expires, "the first capture went while the certificate was valid")
        until(lambda: time.time() > expires + 1, 20, "it has expired")
        w.write("b.jpg", b"after")
        said(w, r"error: identity\.invalid .*not valid now")
        said(w, r"push\.failed .*reason=(http-403|tls|reset) ")
        check(abs(metric(w, "cede_certificate_expiry_timestamp_seconds", role="identity") - expires) < 3, "the metrics say when")
        until(lambda: w.counts()[0].get("sealed", 0) == 1, 10, "the capture waits")
        equal(w.left(), [b"b.jpg"], "files that stay")
        ca.issue("agent", stamp(-60), stamp(3600), kind="client")
        w.agent.signal(signal.SIGHUP)
        once(w)
        said(w, r"identity\.valid")
        check(proxy.times, "all went through the proxy")


def server_certificate():
    """the server's certificate expires while the agent runs: refused until the server has a new one"""
    with linked(receiver=False, source=NOW) as (w, proxy):
        ca = servers.Ca(w.dir / "own")
        pem, key = ca.issue("server", stamp(-60), stamp(6))
        expires = time.time() + 6
        w.destination["ca"] = "own/ca.pem"
        w.receiver_config["identity"] = {"certificate": str(pem), "key": str(key)}
        w.write_files()
        w.start()
        w.write("a.jpg", b"before")
        w.settled()
        until(lambda: time.time() > expires + 1, 20, "it has expired")
        proxy.reset()
        w.write("b.jpg", b"after")
        said(w, r"reason=tls .*expired")
        until(lambda: w.counts()[0].get("sealed", 0) == 1, 10, "the capture waits")
        equal(w.left(), [b"b.jpg"], "files that stay")
        w.receiver.stop()
        ca.issue("server", stamp(-60), stamp(3600))
        w.start_receiver()
        once(w)


# ---- clocks

def lazy(pid, what, seconds=3, share=0.02):
    """The process uses next to no processor time, and sleeps most of the time."""
    before, woken = cpu_s(pid), wakeups(pid)
    time.sleep(seconds)  # nothing is to happen: only time shows it
    used, woken = cpu_s(pid) - before, wakeups(pid) - woken
    tap.diag(f"{what}: {used:.2f} s of {seconds} s of processor time, woken {woken} times")
    check(used <= share * seconds + 0.02, f"{what}: {used:.2f} s of {seconds} s of processor time")
    check(woken <= 60 * seconds, f"{what}: woken {woken} times in {seconds} s")


def clock_jumps():
    """the wall clock jumps an hour ahead and back: nothing lost, no retry late, no spinning"""
    with World(source=NOW) as w:
        clock = Clock(w)
        with_metrics(w)
        w.start_receiver()
        w.start_agent(env=clock.env)
        for number, hours in enumerate((1, 0, -1, 1, -1)):
            clock.set(3600 * hours)
            for name, content in cameras.roll(30 + number, 3, f"up-{number}"):
                w.write(name, content)
            w.empty(15)
        for number, hours in enumerate((1, 0, -1)):  # while the link is down
            w.receiver.kill()
            w.write(f"down-{number}.jpg", b"picture %d" % number)
            failures = metric(w, "cede_push_failures_total") or 0
            until(lambda: (metric(w, "cede_push_failures_total") or 0) >= failures + 2, 20, "tries fail")
            clock.set(3600 * hours)
            lazy(w.agent.pid, f"keeper, {hours} h")
            w.start_receiver()
            began = time.monotonic()
            w.empty(30)
            check(time.monotonic() - began < 10, f"it took {time.monotonic() - began:.1f} s after the jump to {hours} h")
        once(w)


def clock_and_deadlines():
    """deadlines go by the wall clock: set ahead they come at once, set back they count from then"""
    with World(source={**NOW, "max_age": "30m", "at_max_age": "seal"}, receiver=False) as w:
        clock = Clock(w)
        w.start_agent(env=clock.env)
        w.write("a.jpg", b"picture")
        waiting(w, 1)
        clock.set(3600)
        until(lambda: w.counts()[0].get("wiped", 0) == 1, 10, "overdue: sealed to the disk and wiped")
        clock.set(0)
        w.source["max_age"] = "9s"
        w.publish()
        said(w, "serial=2")
        w.write("b.jpg", b"picture 2")
        until(lambda: w.counts()[0].get("wiped", 0) == 2, 20, "sealed to the disk and wiped in time")
        w.start_receiver()
        once(w)


def clock_and_destruction():
    """a clock set ahead destroys nothing: at_max_age: destroy waits an hour; set back, the captures are handed over"""
    with World(source={**NOW, "max_age": "30m", "at_max_age": "destroy"}, receiver=False) as w:
        clock = Clock(w)
        w.start_agent(env=clock.env)
        w.write("a.jpg", b"picture")
        waiting(w, 1)
        clock.set(3600)
        said(w, "clock.stepped seconds=3600")
        w.write("b.jpg", b"picture 2")  # overdue for the agent at once, since its time is the true one
        until(lambda: sum(w.counts()[0].values()) == 2, 30, "both are recorded")
        until(lambda: w.cede("ledger", "events", "--state", w.state).count("clock-stepped") == 1, 10, "an event")
        equal(len(w.left()), 2, "captures that stay")
        clock.set(0)
        said(w, "clock.stepped seconds=-3600")
        w.start_receiver()
        once(w)
        check("capture-destroyed" not in w.cede("ledger", "events", "--state", w.state), "something was destroyed")


def clock_and_spool():
    """a clock set back a day does not keep what waits in the clear for a day: at_max_age: seal holds by the new time"""
    with World(source={**NOW, "max_age": "8s", "at_max_age": "seal"}, destination=ONE_MIB, receiver=False) as w:
        clock = Clock(w)
        w.start_agent(env=clock.env)
        w.write("first.jpg", b"picture")
        until(lambda: not w.left(), 40, "the link is down, and it is sealed to the disk in time")
        for i in range(40):
            w.write(f"{i}.jpg", big(i))
        until(lambda: w.in_state("ready") > 10, 20, lambda: f"most are ready: {w.counts()}")
        clock.set(-86400)
        said(w, "clock.stepped seconds=-86400")
        until(lambda: not w.left(), 40, lambda: f"sealed to the disk in time: {w.counts()}")


# ---- more than one destination; what it costs

def one_in_doubt():
    """one destination fails its handshakes for minutes: a slow upload to the other comes to its end, no new courier cuts it off"""
    if tap.mode() != "full":
        raise Skip("it takes five minutes: CEDE_TESTS=full")
    with World(source=NOW) as w:
        near = w.dir / "near"
        near.mkdir()
        w.policy["destinations"]["near"] = {**w.destination, "bandwidth": "1Mbit/s", "bundle_size": "48MiB"}
        w.policy["sources"].append({**w.source, "name": "near", "path": str(near), "destination": "near"})
        w.destination["ca"] = str(servers.Ca(w.dir / "other-ca").pem)
        w.write_files()
        w.start()
        w.write("f.jpg", b"far", want=False)
        w.write("n.jpg", os.urandom(36 << 20), top=near, source="near")
        until(lambda: not list(near.iterdir()), 500, "the slow upload came to its end")
        failures = w.agent.said().count("destination=agency reason=tls")
        check(failures >= 9, f"{failures} failed handshakes meanwhile")
        equal(w.agent.said().count("destination=near reason="), 0, "uploads that were cut off")
        store = Store(w.store, w.pki).read()
        equal((store.problems, list(store.captures)), ([], [b"near/n.jpg"]), "what the agency has")


def two_destinations():
    """two destinations, one down: the other goes on at full speed"""
    files = 400
    with linked(source=NOW) as (w, proxy):
        near = w.dir / "near"
        near.mkdir()
        w.policy["destinations"]["near"] = {**w.destination, "url": f"https://localhost:{w.port}/"}
        w.policy["sources"].append({**w.source, "name": "near", "path": str(near), "destination": "near"})
        with_metrics(w)
        w.start_agent()

        def deliver(turn):
            began = time.monotonic()
            for i in range(files):
                w.write(f"{turn}/{i}.jpg", os.urandom(5000), top=near, source="near")
            until(lambda: not any(names for _, _, names in os.walk(near)), 60, "the near destination has all")
            return time.monotonic() - began
        alone = deliver("alone")
        proxy.refuse()
        for i in range(20):
            w.write(f"{i}.jpg", big(i))
        said(w, "reason=connect ")
        beside = deliver("beside")
        tap.diag(f"{alone:.2f} s alone, {beside:.2f} s beside a destination that is down")
        check(beside < 2 * alone + SLACK_S, f"{alone:.2f} s alone, {beside:.2f} s beside a destination that is down")
        equal(len(w.left()), 20, "what waits for the one that is down")
        proxy.serve()
        once(w)


def idle():
    """keeper and courier rest while the link is down: refused, mute, and with a backlog"""
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        proxy.refuse()
        w.start_agent()
        for i in range(12):
            w.write(f"{i}.jpg", big(i))
        said(w, "reason=connect ")
        until(lambda: w.agent.said().count("push.failed") >= 3, 20, "tries fail")
        errors = []
        for what in (proxy.refuse, proxy.vanish):
            what()
            threads = [threading.Thread(target=failing, args=(lazy, errors, pid, f"{name}, {what.__name__}", 5))
                       for pid, name in ((w.agent.pid, "keeper"), (w.courier(), "courier"))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        check(not errors, "; ".join(map(str, errors)))
        proxy.serve()
        once(w)


def failing(function, errors, *args):
    try:
        function(*args)
    except Exception as e:  # pylint: disable=broad-except
        errors.append(e)


# ---- a link that flaps

class Flapper(threading.Thread):
    """Up for a second, down for a second, in one of the ways in which links are down."""

    def __init__(self, proxy, seed, up_s=1.0, down_s=1.0):
        super().__init__(daemon=True)
        self.proxy, self.rng, self.up_s, self.down_s = proxy, random.Random(seed), up_s, down_s
        self.enough = threading.Event()
        self.turns = 0

    def run(self):
        while not self.enough.wait(self.up_s * self.rng.uniform(0.5, 1.5)):
            self.rng.choice([self.proxy.refuse, self.proxy.vanish, self.hold, self.deaf])()
            self.enough.wait(self.down_s * self.rng.uniform(0.5, 1.5))
            self.proxy.hold = self.proxy.swallow = None
            self.proxy.serve()
            self.turns += 1

    def hold(self):
        self.proxy.hold = True

    def deaf(self):
        self.proxy.swallow = 5000

    def stop(self):
        self.enough.set()
        self.join(30)
        self.proxy.hold = self.proxy.swallow = None
        self.proxy.serve()


def seeded():
    seed = tap.seed()
    tap.diag(f"seed {seed}")
    return seed


def flapping():
    """a link that flaps each second under load: all arrive, each once"""
    seconds = {"quick": 10, "normal": 20, "full": 600}[tap.mode()]
    seed = seeded()
    rng = random.Random(seed)
    with linked(source=NOW, destination=ONE_MIB) as (w, proxy):
        w.start_agent()
        flapper = Flapper(proxy, seed)
        flapper.start()
        began, n = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            if len(w.left()) > 300:
                time.sleep(0.05)
                continue
            for _ in range(10):
                w.write(f"lane{n % 5}/{n:06d}.jpg", cameras.picture(rng, mean=40 << 10))
                n += 1
            time.sleep(0.05)  # a camera takes its time
        flapper.stop()
        tap.diag(f"{n} captures, {flapper.turns} times down, {len(w.left())} left, {proxy.swallowed} answers lost, "
                 f"{len(proxy.times)} connections")
        check(flapper.turns >= seconds // 4, "the link flapped")
        w.empty(90)
        once(w)
        equal(w.counts()[0]["wiped"], n, "captures wiped")


def bytes_below(top):
    total = 0
    for folder, _, names in os.walk(top):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # wiped meanwhile
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def flood():
    """24 GiB of mixed captures through a flapping link arrive whole, exactly once"""
    gib = float(os.environ.get("CEDE_FLAP_GIB", "24"))
    if tap.mode() != "full" and "CEDE_FLAP_GIB" not in os.environ:
        raise Skip("only with CEDE_TESTS=full, or CEDE_FLAP_GIB=1")
    seed = seeded()
    rng = random.Random(seed)
    with linked(source=NOW) as (w, proxy):
        room = shutil.disk_usage(w.dir).free / (1 << 30)
        if room < gib * 1.2 + 2:
            raise Skip(f"{room:.0f} GiB of disk are free, {gib * 1.2 + 2:.0f} are needed")
        w.start_agent()
        flapper = Flapper(proxy, seed, up_s=4.0)
        flapper.start()
        written = n = 0
        while written < gib * (1 << 30):
            if bytes_below(w.capture) > 512 << 20:
                time.sleep(0.2)
                continue
            kind = rng.random()
            size = rng.randrange(1 << 10, 4 << 10) if kind < 0.4 else rng.randrange(60 << 10, 400 << 10) \
                if kind < 0.97 else rng.randrange(20 << 20, 90 << 20)
            w.write(f"lane{n % 20}/{n:07d}.{'json' if kind < 0.4 else 'jpg'}", rng.randbytes(size))
            written += size
            n += 1
        flapper.stop()
        tap.diag(f"{n} captures, {written >> 20} MiB, {flapper.turns} times down, {proxy.swallowed} answers lost")
        w.empty(900)
        once(w)
        equal(w.counts()[0]["wiped"], n, "captures wiped")


if __name__ == "__main__":
    tap.run([just_fast_enough, too_slow, too_slow_for_all, slow_as_a_modem, thin_link_to_the_receiver, larger_than_the_buffers, flapping, sealed_in_time, wiped_after_seal, clock_jumps, unreachable, down, steps, cable, together,
             hanging, forgotten, cut, answer_lost, asked_first, crash_between, crash_before, retry_after_seconds, retry_after_date,
             retry_after_absurd, *map(refuses, (413, 507, 403, 404, 500)), poisoned, names, resolver_hangs,
             client_certificate, server_certificate, clock_and_deadlines, clock_and_destruction, clock_and_spool, idle, one_in_doubt, two_destinations, flood], at_once=4)
