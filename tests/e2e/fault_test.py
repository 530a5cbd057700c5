#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The fault matrix: one call of keeper, courier or receiver fails, every one in turn (--full; else a
sample). Nothing may be lost, nothing wiped early, nobody may crash or spin; what cannot go on says so
and ends, and after a new start all goes through.

CEDE_SEED repeats a sample; CEDE_AT=call:error:N tries one point."""

import errno
import os
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from faults import CALLS, FAIL, NOTHING, BrokenWorld, tried
from tap import Failure, check

SAMPLE = {"quick": 1, "normal": 2, "full": 300}[tap.mode()]  # of each call and error: thousands of reads are alike
PLACES = {"quick": 8, "normal": 25, "full": 4000}[tap.mode()]  # of allocations
SEED = tap.seed()
AT = os.environ.get("CEDE_AT", "")
CPU_MOST_S = 6

ERRORS = {
    "open": ["EIO", "EMFILE", "ENOMEM", "EINTR"],
    "create": ["EIO", "ENOSPC", "EDQUOT", "EMFILE", "ENOMEM"],
    "read": ["EIO", "EINTR"],
    "write": ["EIO", "ENOSPC", "EDQUOT", "EINTR"],
    "fsync": ["EIO", "ENOSPC", "EDQUOT"],
    "rename": ["EIO", "ENOSPC"],
    "unlink": ["EIO"],
    "truncate": ["EIO", "ENOSPC"],
    "mmap": ["ENOMEM"],
    "malloc": ["ENOMEM"],
    "send": ["ECONNRESET", "ENOBUFS", "EINTR"],
    "receive": ["ECONNRESET", "ENOBUFS", "EINTR"],
    "mkdir": ["EIO", "ENOSPC"],
    "stat": ["EIO", "ENOMEM"],
    "lease": ["EAGAIN", "ENOMEM"],
    "key": ["EIO", "ENOMEM"],  # none without a vault
}


def cpu_s(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def counts_of(victim):
    """How often the victim makes each call in a hand-over without a fault; allocations: from how many places."""
    with BrokenWorld() as w:
        w.page(victim).arm(NOTHING, ["malloc"], distinct=True)
        w.start()
        w.rest()
        counts = w.page(victim).counts()
        counts["malloc"] = w.page(victim).now.matched
        return counts


FRAME = re.compile(r"^(/\S*?)\([^)]*\)\[0x", re.M)


def in_a_library(said):
    """Whether it was a library's own allocation that failed: what it does then is not ours to mend, as
    long as the program is started again and nothing is lost."""
    frames = [os.path.basename(f) for f in FRAME.findall(said) if "libcedefault" not in f]
    return bool(frames) and frames[0].startswith(("lib", "ld-linux"))


def crashed(name, cause, w, call):
    said = w.agent.said() + w.receiver.said()
    check(call == "malloc" and in_a_library(said), f"{name} died of {cause}")
    return 1


def ended(process, w, call):
    """A program that ended says why, with its exit status and its last line; a signal is a crash. How many."""
    status = process.popen.returncode
    if status < 0:
        return crashed(process.name, f"signal {-status}", w, call)
    check(status > 0, f"{process.name} ended with status {status}")
    if status == 127:  # the dynamic linker's, without memory for a library's thread-local data
        return crashed(process.name, "the dynamic linker", w, call)
    last = [line for line in process.said().splitlines() if not FRAME.match(line)][-1:]
    check(last and last[0].startswith("cede"), f"{process.name} ended with status {status} and without a word")
    return 0


def start_what_ended(w, call, tally):
    """Starts again what said why and ended."""
    for process, start in ((w.receiver, w.start_receiver), (w.agent, w.start_agent)):
        if not process.alive():
            tally["crashed in a library"] += ended(process, w, call)
            tally["started again"] += 1
            start()
    check(tally["started again"] < 4, "it ends again and again")


def one_point(victim, call, error, at):
    with BrokenWorld() as w:
        page = w.page(victim)
        page.arm(FAIL, [call], at, getattr(errno, error), distinct=call == "malloc")
        try:
            w.receiver = w.spawn("receiver", *w.receiver_words(), env=w.env_of("receiver"))
            w.start_agent()
            tally = {"started again": 0, "crashed in a library": 0}
            w.rest_or(lambda: start_what_ended(w, call, tally), 60)
            frozen = w.freeze()
            w.custody()
            w.thaw(frozen)
            used = sum(cpu_s(pid) for pid in frozen)
            check(used < CPU_MOST_S, f"{used:.1f} s of processor time: something spins")
            for number in re.findall(r"courier\.exited signal=(\d+)", w.agent.said()):
                if number != "9":  # 9: the keeper's answer to nonsense
                    tally["crashed in a library"] += crashed("the courier", f"signal {number}", w, call)
            w.agent.stop()
            w.verify_all()
            return page.fired(), tally
        except Failure as e:
            raise Failure(f"{victim}: {call} {error} at {at} (CEDE_AT={call}:{error}:{at}): {e}") from e


def points(victim):
    if AT:
        call, error, at = AT.split(":")
        return [(call, error, int(at))]
    rng = random.Random(SEED)
    chosen = []
    for call, count in counts_of(victim).items():
        if victim == "courier" and call in ("read", "stat"):
            continue  # its own programs and libraries being loaded
        for error in ERRORS[call]:
            most = PLACES if call == "malloc" else SAMPLE
            chosen += [(call, error, at) for at in (range(1, count + 1) if count <= most else
                                                    sorted(rng.sample(range(1, count + 1), most)))]
    return chosen


def matrix(victim):
    chosen = points(victim)
    fired, problems, total = {}, [], {}
    for outcome, problem in tried(one_point, victim, chosen):
        if problem:
            problems.append(problem)
            continue
        call, tally = outcome
        fired[call or "none left"] = fired.get(call or "none left", 0) + 1
        total = {key: total.get(key, 0) + n for key, n in tally.items()}
    tap.diag(f"{victim}: {len(chosen)} faults tried: {dict(sorted(fired.items()))}; {total}; seed {SEED}")
    check(not problems, f"{len(problems)} of {len(chosen)} points:\n" + "\n".join(sorted(problems)[:30]))


def keeper():
    """a call of the keeper fails: nothing is lost, nothing wiped early, nobody crashes or spins"""
    matrix("keeper")


def courier():
    """a call of the courier fails: nothing is lost, nothing wiped early, nobody crashes or spins"""
    matrix("courier")


def receiver():
    """a call of the receiver fails: nothing is lost, nothing wiped early, nobody crashes or spins"""
    matrix("receiver")


assert set(ERRORS) == set(CALLS)
tap.run([keeper, courier, receiver])
