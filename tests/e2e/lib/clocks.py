# SPDX-License-Identifier: Apache-2.0
"""Time that passes faster for a program (tests/fault/clock.c)."""

import os
import struct
import threading
import time

from tap import Skip
from world import build_dir, is_sanitized


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
        began = time.monotonic()
        with open(self.page, "r+b", buffering=0) as f:
            while not self.enough.wait(0.01):
                passed = (self.times - 1) * (time.monotonic() - began)
                os.pwrite(f.fileno(), struct.pack("<q", int(passed * 1e9)), 8)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.enough.set()
        self.thread.join()
