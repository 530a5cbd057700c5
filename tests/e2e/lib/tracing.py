# SPDX-License-Identifier: Apache-2.0
"""strace on a running process: tells what it calls, makes calls fail or take long, or kills it there."""

import re
import shutil
import signal
import subprocess

from tap import Skip
from world import until


class Call:
    """One call: it began as line number began, and had ended by line number ended."""

    def __init__(self, thread, name, rest, began):
        self.thread, self.name, self.rest, self.began, self.ended = thread, name, rest, began, None

    def succeeded(self):
        return self.ended is not None and re.search(r"\)\s+= \d", self.rest) is not None

    def __repr__(self):
        return f"{self.thread} {self.name}({self.rest}"


class Strace:
    """with Strace(pid, folder, "-e", "trace=fsync") as s: ...; s.calls()"""

    def __init__(self, pid, folder, *words, threads=True):
        if shutil.which("strace") is None:
            raise Skip("strace is not here")
        self.out, self.err = folder / "trace", folder / "strace.log"
        self.kills = any("signal=KILL" in word for word in words)
        with open(self.err, "wb") as err:
            self.popen = subprocess.Popen(
                ["strace", *(["-f"] if threads else []), "-s", "200", "-o", str(self.out), *words, "-p", str(pid)],
                stderr=err, stdin=subprocess.DEVNULL)
        try:
            until(lambda: "attached" in self.err.read_text(errors="replace") or self.popen.poll() is not None, 20, "strace attaches")
            if self.popen.poll() is not None:
                raise Skip(f"strace may not attach: {self.err.read_text(errors='replace').strip()[-100:]}")
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """SIGINT lets it write to the end; one whose process was killed may wait for ever for a thread that is gone."""
        self.popen.send_signal(signal.SIGKILL if self.kills else signal.SIGINT)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def lines(self):
        self.stop()
        return self.out.read_text(errors="replace").splitlines()

    def calls(self):
        """All calls in the order in which they began."""
        found, open_calls = [], {}
        for number, line in enumerate(self.lines()):
            begun = re.match(r"(\d+)\s+(\w+)\((.*)", line)
            resumed = re.match(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)", line)
            if begun:
                call = Call(*begun.groups(), number)
                found.append(call)
                if call.rest.endswith("<unfinished ...>"):
                    open_calls[call.thread] = call
                else:
                    call.ended = number
            elif resumed and resumed.group(1) in open_calls:
                call = open_calls.pop(resumed.group(1))
                call.rest = call.rest.removesuffix("<unfinished ...>") + resumed.group(3)
                call.ended = number
        return found
