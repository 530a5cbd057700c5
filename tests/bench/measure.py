# SPDX-License-Identifier: Apache-2.0
"""Where a measured run takes place and what it cost; for tests/bench/run."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e" / "lib"))

from tap import Failure  # noqa: E402  pylint: disable=wrong-import-position
from world import until  # noqa: E402  pylint: disable=wrong-import-position

GIB = 1 << 30
DEADLINE_S = 1800
TICK = os.sysconf("SC_CLK_TCK")


def command(*words):
    words = [str(w) for w in words]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words[:20])}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


# ---- the place

class Place:
    """Two file systems that nothing was deleted from before (ext4 scans past freed inodes): here is the contractor's,
    with source and state, there the agency's, with the store. Without root: two directories of the work folder."""

    def __init__(self, here, there, devices=()):
        self.here, self.there, self.source, self.devices = here, there, here / "source", devices

    def written(self):
        """{side: [bytes, flushes]} that the devices were asked for, or {} without devices of our own."""
        found = {}
        for side, device in zip(("contractor", "agency"), self.devices):
            fields = pathlib.Path(f"/sys/block/{os.path.basename(device)}/stat").read_text(encoding="ascii").split()
            found[side] = [int(fields[6]) * 512, int(fields[15])]
        return found


@contextlib.contextmanager
def file_system(work, name, size, inodes):
    image, place = work / f"{name}.img", work / name
    place.mkdir(exist_ok=True)
    with open(image, "wb") as f:
        f.truncate(size)  # sparse
    command("mkfs.ext4", "-q", "-F", "-N", inodes, "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    # direct I/O below the loop device: through the page cache every write would be copied a second time
    device = command("losetup", "--find", "--show", "--direct-io=on", image).strip()
    command("mount", device, place)
    try:
        yield place, device
    finally:
        command("umount", place)
        command("losetup", "--detach", device)
        image.unlink()
        place.rmdir()


@contextlib.contextmanager
def fresh_place(work, files, size):
    if os.geteuid() != 0:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="place-", dir=work))
        for name in ("here", "there"):
            (folder / name).mkdir()
        try:
            yield Place(folder / "here", folder / "there")
        finally:
            shutil.rmtree(folder)
        return
    room, inodes = files * (size + (8 << 10)), files + 100_000
    with file_system(work, "contractor", 2 * room + 2 * GIB, inodes) as (here, one), \
            file_system(work, "agency", room + 2 * GIB, inodes) as (there, two):
        yield Place(here, there, (one, two))


def make_set(place, files, words):
    """The source directory with the set, on the disk; its files and bytes."""
    n, size = map(int, command(sys.executable, HERE / "make-set", place.source, files, *words).split())
    os.sync()
    return n, size


# ---- what it cost

class Meter:
    """What the whole machine does from now on: m = Meter(place); ...; m.stop() -> figures of a run."""

    def __init__(self, place):
        os.sync()
        self.place, self.disk = place, place.written()
        self.cpu, self.began = machine_cpu(), time.monotonic()

    def stop(self):
        seconds, cpu = time.monotonic() - self.began, machine_cpu() - self.cpu
        os.sync()  # what was left in memory counts as written, not as waited for
        disk = {side: [now - before for now, before in zip(after, self.disk[side])] for side, after in self.place.written().items()}
        return {"seconds": seconds, "machine_cpu_s": cpu, "disk": disk}


def machine_cpu():
    """Seconds that the processors were busy, kernel threads included."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def peak_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))


def process_figures(pid):
    """CPU seconds and peak memory of a process that is still there."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    return {"cpu_s": (int(fields[11]) + int(fields[12])) / TICK, "peak_mib": peak_kib(pid) / 1024}


def wait_empty(source, alive):
    """Until no file is left. Looks at one directory at a time, and there at the first entry only."""
    folders = [entry.path for entry in os.scandir(source) if entry.is_dir()]

    def look():
        alive()
        while folders:
            with os.scandir(folders[-1]) as entries:
                if next(entries, None) is not None:
                    return False
            folders.pop()
        return True
    until(look, DEADLINE_S, "the source is empty", each=0.05)  # each look is work that is measured as well


class Peaks(threading.Thread):
    """The largest peak memory among each root process and all below it, read while they run.

    wait4()'s ru_maxrss would not do: a child begins with its parent's peak, here that of Python."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.kib, self.done = roots, {name: 0 for name in roots}, threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.2):
            for name, pid in self.roots.items():
                self.look(name, pid)

    def look(self, name, pid):
        with contextlib.suppress(OSError, StopIteration):
            self.kib[name] = max(self.kib[name], peak_kib(pid))
            for task in os.listdir(f"/proc/{pid}/task"):
                for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    self.look(name, int(child))

    def stop(self):
        self.done.set()
        self.join()
        return self.kib


def usage_figures(usage, kib):
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": kib / 1024}
