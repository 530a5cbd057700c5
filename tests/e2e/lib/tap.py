# SPDX-License-Identifier: Apache-2.0
"""Runs test functions and prints TAP, one line a function; a failure keeps its reason."""

import os
import sys
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


def diag(text):
    for line in str(text).rstrip().splitlines():
        print(f"# {line}", flush=True)


def mode():
    """"quick", "normal" or "full": how much of each."""
    return os.environ.get("CEDE_TESTS", "normal")


def run(cases):
    """Runs each function of the list; ends the process. Arguments choose functions by name."""
    wanted = sys.argv[1:]
    cases = [c for c in cases if not wanted or any(w in c.__name__ for w in wanted)]
    print(f"1..{len(cases)}", flush=True)
    failed = 0
    for number, case in enumerate(cases, 1):
        name = (case.__doc__ or case.__name__).split("\n")[0].rstrip(".").replace("#", "")
        began = time.monotonic()
        try:
            case()
        except Skip as e:
            print(f"ok {number} - {name} # SKIP {e}", flush=True)
            continue
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            print(f"not ok {number} - {name}", flush=True)
            diag(e if isinstance(e, Failure) else traceback.format_exc())
            continue
        print(f"ok {number} - {name}", flush=True)
        diag(f"{time.monotonic() - began:.1f} s")
    sys.exit(1 if failed or not cases else 0)
