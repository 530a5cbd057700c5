# SPDX-License-Identifier: Apache-2.0
"""The time of a program under test (tests/fault/clock.c): its wall clock set, or time that passes faster."""

import os
import struct
import threading
import time

from tap import Skip
from world import build_dir, is_sanitized


class Clock:
    """The agent's wall clock (tests/fault/clock.c); the courier, which has no environment, keeps the true one."""

    def __init__(self, w):
        library = build_dir() / "tests" / "fault" / "clock.so"
        if not library.exists():
            raise Skip(f"{library} is not built")
        if is_sanitized():
            raise Skip("a sanitized program takes no library before its sanitizer")
        self.path = w.dir / "clock"
        self.set(0)
        self.env = {**os.environ, "LD_PRELOAD": str(library), "CEDE_CLOCK": str(self.path)}

    def set(self, seconds):
        with open(self.path, "r+b" if self.path.exists() else "wb") as f:
            f.write(struct.pack("<q", int(seconds * 1e9)))


class Lapse:
    """In the environment .env time passes so many times as fast; the wall clock stays true. What waits in the
    kernel waits as ever: a program that has nothing else to do sees its timers late. A wait for a condition lasts
    as long as it would."""

    def __init__(self, page, times):
        library = build_dir() / "tests" / "fault" / "clock.so"
        if not library.exists():
            raise Skip(f"{library} is not built")
        if is_sanitized():
            raise Skip("a sanitized program takes no library before its sanitizer")
        self.page, self.times = page, times
        page.write_bytes(bytes(16))
        self.words = {"LD_PRELOAD": str(library), "CEDE_CLOCK": str(page), "CEDE_CLOCK_ALL": "1"}
        self.env = {**os.environ, **self.words}
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        passed, last = 0, time.monotonic()
        with open(self.page, "r+b", buffering=0) as f:
            while not self.enough.wait(0.01):
                now = time.monotonic()
                passed += (self.times - 1) * min(now - last, 0.03)  # a stall of this machine is no longer than it is
                last = now
                os.pwrite(f.fileno(), struct.pack("<q", int(passed * 1e9)), 8)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.enough.set()
        self.thread.join()
