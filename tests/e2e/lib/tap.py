# SPDX-License-Identifier: Apache-2.0
"""Runs test functions and prints TAP, one line a function; a failure keeps its reason."""

import concurrent.futures
import functools
import itertools
import os
import sys
import threading
import time
import traceback


class Failure(Exception):
    """What was expected did not happen."""


class Skip(Exception):
    """The test cannot run here, and why."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def equal(got, want, text):
    if got != want:
        raise Failure(f"{text}: got {got!r}, expected {want!r}")


_own = threading.local()  # .lines: what a case says while others run at the same time


def diag(text):
    lines = getattr(_own, "lines", None)
    for line in str(text).rstrip().splitlines():
        if lines is None:
            print(f"# {line}", flush=True)
        else:
            lines.append(line)


def mode():
    """"quick", "normal" or "full": how much of each."""
    return os.environ.get("CEDE_TESTS", "normal")


KNOWN_SEEDS = (11, 12, 13, 14, 15)


def seed():
    """What a sample is drawn by. --full takes another one each time; else it is one of a few, by the day, so that
    a run does not fail for a point that nobody has tried before. CEDE_SEED repeats one."""
    given = int(os.environ.get("CEDE_SEED", "0"))
    if given or mode() == "full":
        return given or int(time.time())
    return KNOWN_SEEDS[int(time.time()) // 86400 % len(KNOWN_SEEDS)]


def attempt(case, buffered):
    """(whether it failed, what stands behind its number, what is to be said of it)."""
    _own.lines = said = [] if buffered else None
    name = (case.__doc__ or case.__name__).split("\n")[0].rstrip(".").replace("#", "")
    began = time.monotonic()
    why = []
    try:
        case()
    except Skip as e:
        return False, f"{name} # SKIP {e}", said or []
    except Exception as e:  # pylint: disable=broad-except
        why = [str(e) if isinstance(e, Failure) else traceback.format_exc()]
    return bool(why), name, why + (said or []) + ([] if why else [f"{time.monotonic() - began:.1f} s"])


def alone(case):
    """A case that runs while no other of its program does: it measures times, or must act at once."""
    case.alone = True
    return case


def run(cases, at_once=1):
    """Runs each function of the list, so many at a time, then those that run alone; ends the process.
    Arguments choose functions by name."""
    wanted = sys.argv[1:]
    cases = [c for c in cases if not wanted or any(w in c.__name__ for w in wanted)]
    together = [c for c in cases if at_once > 1 and not hasattr(c, "alone")]
    print(f"1..{len(cases)}", flush=True)
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        outcomes = itertools.chain(pool.map(functools.partial(attempt, buffered=True), together),
                                   map(functools.partial(attempt, buffered=False), [c for c in cases if c not in together]))
        for number, (failed, name, said) in enumerate(outcomes, 1):
            print(f"{'not ok' if failed else 'ok'} {number} - {name}", flush=True)
            for text in said:
                diag(text)
            failures += failed
    sys.exit(1 if failures or not cases else 0)
