#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No file is taken while its writer has it open; none is wiped that changed after it was sealed."""

import ctypes
import mmap
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from stock import Store
from tap import check, equal
from world import World, until


def slow_writer():
    """pauses longer than quiet: the file goes whole, and only after it was closed"""
    content = b"".join(b"%07d\n" % i for i in range(40_000))
    with World() as w:  # quiet is 200 ms
        w.start()
        cameras.slowly(w.capture, [("slow.jpg", content)], 4, 3)
        w.expect("slow.jpg", content)
        w.settled()
        equal(w.counts()[0]["wiped"], 1, "captures")


def open_and_silent():
    """a file that is open for writing and quiet stays, while its neighbours go"""
    with World() as w:
        w.start()
        with open(w.capture / "open.jpg", "wb") as f:
            f.write(b"first")
            f.flush()
            for i in range(5):  # five hand-overs go by
                w.write(f"other{i}.jpg", b"%d" % i)
                w.empty(30, but=["open.jpg"])
            check(not w.counts()[0].get("sealed"), "something is sealed while nothing may be")
            f.write(b" and last")
        w.expect("open.jpg", b"first and last")
        w.settled()


def mapped_writer():
    """a program that only has the file mapped, its descriptor closed, is waited for"""
    size = 1 << 20
    libc = ctypes.CDLL(None, use_errno=True)  # mmap of the standard library keeps a descriptor
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with World() as w:
        w.start()
        fd = os.open(w.capture / "mapped.jpg", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, size)
        memory = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        check(memory not in (None, ctypes.c_void_p(-1).value), "mmap failed")
        os.close(fd)
        try:
            ctypes.memset(memory, ord("a"), size)
            for i in range(3):
                w.write(f"other{i}.jpg", b"other")
                w.empty(30, but=["mapped.jpg"])
            ctypes.memset(memory, ord("b"), size)
        finally:
            libc.munmap(memory, size)
        w.expect("mapped.jpg", b"b" * size)
        w.settled()


def opened_before_start():
    """a file that was opened before the agent started is waited for, too"""
    with World() as w:
        with open(w.capture / "early.jpg", "wb") as f:
            f.write(b"early")
            f.flush()
            w.write("other.jpg", b"other")
            w.start()
            w.empty(30, but=["early.jpg"])
            f.write(b" and late")
        w.expect("early.jpg", b"early and late")
        w.settled()


def read_by_others():
    """a reader does not keep a file from being handed over and wiped, and has noise in its hands then"""
    with World() as w:
        path = w.write("read.jpg", b"read")
        with open(path, "rb") as reader:
            w.start()
            w.settled()
            check(b"read" not in reader.read(), "the file that is still open was not overwritten")


def sealed_then(change, name="victim.jpg"):
    """Stops the receiver, lets the capture be sealed, changes the file, goes on."""
    old, keep = b"first content " * 1000, b"another capture"
    with World() as w:
        w.start()
        w.write("warm.jpg", b"the link is up")
        w.settled()
        w.receiver.signal(signal.SIGSTOP)
        w.write(name, old)
        w.write("beside.jpg", keep)
        until(lambda: w.counts()[0].get("sealed") == 2, 30, lambda: f"two captures are sealed: {w.counts()}")
        new = change(w, w.capture / name, old)
        w.receiver.signal(signal.SIGCONT)
        if new is not None:
            w.expect(name, new)
        w.settled()
        captures = w.counts()[0]
        w.verify_ledger()
        return captures


def appended():
    """a file appended to after it was sealed is not wiped and goes again"""
    def change(_w, path, old):
        with open(path, "ab") as f:
            f.write(b"more")
        return old + b"more"
    captures = sealed_then(change)
    equal((captures["replaced"], captures["wiped"]), (1, 3), "captures replaced and wiped")


def replaced():
    """a file replaced by rename after it was sealed is not wiped and goes again"""
    def change(w, _path, _old):
        w.write("victim.jpg", b"a new picture", want=False)
        return b"a new picture"
    captures = sealed_then(change)
    equal((captures["replaced"], captures["wiped"]), (1, 3), "captures replaced and wiped")


def rewritten_in_place():
    """same name, same inode, same size, other bytes: not wiped, goes again"""
    def change(_w, path, old):
        with open(path, "r+b") as f:
            f.write(b"F")
        return b"F" + old[1:]
    captures = sealed_then(change)
    equal((captures["replaced"], captures["wiped"]), (1, 3), "captures replaced and wiped")


def times_put_back():
    """a change hidden by putting the old times back is seen all the same"""
    def change(_w, path, old):
        before = os.stat(path)
        with open(path, "r+b") as f:
            f.write(b"F")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return b"F" + old[1:]
    captures = sealed_then(change)
    equal((captures["replaced"], captures["wiped"]), (1, 3), "captures replaced and wiped")


def hard_link_after_seal():
    """a second name made after sealing: nothing is overwritten through it"""
    def change(w, path, old):
        os.link(path, w.dir / "kept-outside")
        w.kept = (w.dir / "kept-outside", old)
        return None
    old = b"first content " * 1000
    with World() as w:
        w.start()
        w.receiver.signal(signal.SIGSTOP)
        w.write("victim.jpg", old)
        until(lambda: w.counts()[0].get("sealed") == 1, 30, "the capture is sealed")
        change(w, w.capture / "victim.jpg", old)
        w.receiver.signal(signal.SIGCONT)
        until(lambda: w.counts()[1].get("sealed") == 0, 30, "the receipt is in the ledger")
        w.write("after.jpg", b"after")
        w.empty(30, but=["victim.jpg"])
        equal((w.dir / "kept-outside").read_bytes(), old, "content under the second name")


def gone():
    """a file that somebody else removed after it was sealed is reported as gone"""
    def change(_w, path, _old):
        path.unlink()
    captures = sealed_then(change)
    equal(captures["wiped"] + captures["gone"], 3, "captures accounted for")


def open_again():
    """a file that is open for writing again when the receipt comes is not overwritten"""
    old = b"first content " * 1000
    with World() as w:
        w.start()
        w.receiver.signal(signal.SIGSTOP)
        w.write("victim.jpg", old)
        until(lambda: w.counts()[0].get("sealed") == 1, 30, "the capture is sealed")
        with open(w.capture / "victim.jpg", "r+b") as f:
            w.receiver.signal(signal.SIGCONT)
            until(lambda: w.counts()[1].get("sealed") == 0, 30, "the receipt is in the ledger")
            w.write("after.jpg", b"after")
            w.empty(30, but=["victim.jpg"])
            equal((w.capture / "victim.jpg").read_bytes(), old, "content while it is open")
            f.write(b"LAST")
        w.expect("victim.jpg", b"LAST" + old[4:])
        w.settled()


def many_writers():
    """fifty slow writers at once: every file comes whole and in one piece"""
    files = [(n, c) for n, c in cameras.roll(11, 50, "busy", mean=30 << 10) if n.endswith(".jpg")]
    with World() as w:
        w.start()
        began = time.monotonic()
        cameras.slowly(w.capture, files, 3, 4)
        for name, content in files:
            w.expect(name, content)
        w.settled()
        tap.diag(f"{time.monotonic() - began:.1f} s")
        store = Store(w.store, w.pki).read()
        equal(sum(len(m["entries"]) for m in store.manifests.values()), len(files), "captures ever sealed")


tap.run([slow_writer, open_and_silent, mapped_writer, opened_before_start, read_by_others, appended, replaced,
         rewritten_in_place, times_put_back, hard_link_after_seal, gone, open_again, many_writers], at_once=4)
