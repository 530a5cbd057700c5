# SPDX-License-Identifier: Apache-2.0
"""A file system of its own in an image, so that a test can look at the raw blocks."""

import os
import subprocess

from tap import Failure, Skip

SIZE = 320 << 20  # the smallest that mkfs.xfs takes is 300 MiB; sparse


def needs_root():
    if os.geteuid() != 0:
        raise Skip("needs root for a file system of its own")


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode == 0, done.stdout + done.stderr


class Disk:
    """with Disk(folder, "mkfs.ext4 -q -F") as d: d.mount(place); ...; d.unmount(); d.count(b"...")"""

    def __init__(self, folder, mkfs, options=""):
        self.image, self.options, self.place = folder / "disk.img", options, None
        with open(self.image, "wb") as f:
            f.truncate(SIZE)
        ok, said = run(*mkfs.split(), self.image)
        if not ok:
            raise Skip(f"{mkfs} does not work here: {said}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.place is not None:
            run("umount", "-l", self.place)

    def mount(self, place):
        ok, said = run("mount", "-o", "loop" + (f",{self.options}" if self.options else ""), self.image, place)
        if not ok:
            raise Skip(f"mount does not work here: {said}")
        self.place = place

    def flush(self):
        """What was written is on the disk."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        ok, said = run("sync", "-f", self.place)
        if not ok:
            raise Failure(f"sync: {said}")

    def unmount(self):
        ok, said = run("umount", self.place)
        if not ok:
            raise Failure(f"umount: {said}")
        self.place = None

    def count(self, *texts):
        """How often each text stands in the image; it is unmounted."""
        found = [0] * len(texts)
        with open(self.image, "rb") as f:
            end = 0
            while True:
                try:
                    start = os.lseek(f.fileno(), end, os.SEEK_DATA)
                except OSError:
                    return found
                end = os.lseek(f.fileno(), start, os.SEEK_HOLE)
                for i, text in enumerate(texts):
                    at, rest = start, b""
                    while at < end:
                        piece = rest + os.pread(f.fileno(), min(4 << 20, end - at), at)
                        found[i] += piece.count(text)
                        at += len(piece) - len(rest)
                        rest = piece[-(len(text) - 1):]
