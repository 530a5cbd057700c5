#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Capture directories as an enemy, a careless neighbour or a failing disk makes them: docs/directories.md has the
outcome of each case. Mounts and loop devices are made and undone here; no setting of the machine is changed."""

import collections
import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import pathlib
import random
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from metrics import metric
from stock import command
from tap import Failure, Skip, check, equal, mode
from world import World, free_port, loop_device, needs_landlock, until

MANY, STAYING, FLOOD = {"quick": (20000, 34000, 9000), "normal": (50000, 34000, 10000), "full": (200000, 70000, 120000)}[mode()]
RACE_S, GROW_S = {"quick": (2, 2), "normal": (5, 5), "full": (30, 30)}[mode()]
KEEPER_MOST_KB = 160 << 10
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NO_CAPTURE = b"outside, and none of the agent's business"


# ---- what happened

def events(w, kind=None, word=""):
    said = w.cede("ledger", "events", "--state", w.state, "--json", status=(0, 3))
    if not said.startswith("{"):
        check(not said or "no ledger yet" in said, f"cede ledger events: {said}")
        return []
    found = [e for e in map(json.loads, said.splitlines()) if kind in (None, e["kind"]) and word in e["detail"]]
    check("\n" not in "".join(e["detail"] for e in found), "an event has a line end in it")
    return found


def happened(w, kind, word="", number=1, seconds=30, each=0.1):
    """Waits until the ledger has so many events of the kind, with the word in their detail."""
    until(lambda: len(events(w, kind, word)) >= number, seconds,
          lambda: f"{number} times {kind} {word}; has {collections.Counter(e['kind'] for e in events(w))}", each=each)
    return events(w, kind, word)


def refused(w, reason, number, seconds=30):
    """So many names, and no more, are refused for this reason; their names, as the ledger has them."""
    found = happened(w, "capture-refused", f"reason={reason} ", number, seconds)
    equal(len(found), number, f"names refused as {reason}")
    coded = [e["detail"].split(" path=", 1)[1] for e in found]
    return sorted(re.sub(rb"%([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), c.encode()) for c in coded)


def plain_bundles(w):
    """Each bundle as a tar, opened by hand."""
    with tempfile.TemporaryDirectory(prefix="cede-plain-") as folder:
        packed, plain = f"{folder}/b.zst", f"{folder}/b.tar"
        for bundle in sorted(w.store.rglob("*.cms")):
            command("openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", w.pki / "seal.key", "-recip",
                    w.pki / "seal.pem", "-in", bundle, "-out", packed)
            command("zstd", "-q", "-d", "-f", packed, "-o", plain)
            yield plain


def arrived(w):
    """b"source/path" -> digests, like stock.Store but without a file for each: there are many here."""
    found = collections.defaultdict(list)
    for plain in plain_bundles(w):
        with tarfile.open(plain) as tar:
            for member in tar:
                if member.name != "manifest.json":
                    found[os.fsencode(member.name)].append(sha(tar.extractfile(member).read()))
    return found


def contents(w):
    """How often each content is in the store, whatever its name."""
    return collections.Counter(d for copies in arrived(w).values() for d in copies)


def arrived_whole(w):
    """All that was expected is there, each once, and nothing else."""
    found = arrived(w)
    wrong = [k for k in w.want.keys() | found.keys() if found.get(k) != w.want.get(k)]
    equal(len(wrong), 0, f"captures that are not there once and right, such as {wrong[:3]}")


def sha(content):
    return hashlib.sha256(content).hexdigest()


def peak_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"^VmHWM:\s+(\d+) kB", f.read(), re.M)[1])


class Witness:
    """Tells whether a directory, or a file in it, was opened, read, written or changed in any way."""

    def __init__(self, folder):
        self.fd = LIBC.inotify_init1(os.O_NONBLOCK)
        check(self.fd >= 0, "inotify for the test")
        for name in (folder, *pathlib.Path(folder).rglob("*")):
            if name.is_symlink() or not (name.is_dir() or name.is_file()):
                continue
            check(LIBC.inotify_add_watch(self.fd, os.fsencode(name), 0x00000fff) > 0, f"watch {name}")

    def saw(self):
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        masks, at = [], 0
        while at < len(data):
            _, mask, _, n = struct.unpack_from("iIII", data, at)
            if not mask & 0x18:  # the end of what was open before: of a child that another test was just starting
                masks.append(hex(mask))
            at += 16 + n
        return masks

    def saw_nothing(self):
        equal(self.saw(), [], "what was done to files outside (inotify masks)")
        os.close(self.fd)


def exchange(a, b):
    """Two names change places in one step; False if one of them is not there."""
    if LIBC.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0:
        return True
    check(ctypes.get_errno() == 2, f"exchange: {os.strerror(ctypes.get_errno())}")
    return False


# ---- file systems of the test's own

def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def must(*words):
    done, said = run(*words)
    if not done:
        raise Skip(f"{words[0]} does not work here: {said}")
    return said


def unmount(place):
    """At once, whoever has files open there."""
    ok, said = run("umount", "-l", place)
    check(ok, f"umount: {said}")


@contextlib.contextmanager
def mounted(*words):
    """mount WORDS...; the last word is the place."""
    must("mount", *words)
    try:
        yield words[-1]
    finally:
        while is_mounted(words[-1]):
            unmount(words[-1])


def is_mounted(place):
    """As the kernel sees it: a bind mount on the same file system looks like any directory."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split(" ")[4] == str(place) for line in f)


@contextlib.contextmanager
def ext4(w, name="disk", size=64 << 20):
    """A loop device with ext4, which keeps its number while it is unmounted."""
    image = w.dir / f"{name}.img"
    with open(image, "wb") as f:
        f.truncate(size)
    must("mkfs.ext4", "-q", "-F", image)
    device = loop_device(image)
    if device is None:
        raise Skip("no loop device")
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def other_user(w):
    """Everything of the world given to nobody, and words that run a program as nobody."""
    if os.geteuid() != 0:
        raise Skip("needs root to run the agent as another user")
    for folder, names, files in os.walk(w.dir):
        for name in (*names, *files, "."):
            os.lchown(os.path.join(folder, name), 65534, 65534)
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def start_by(w, words):
    w.agent = w.spawn("agent", *words, *w.agent_words())


def restart(w):
    equal(w.agent.stop(10), 0, "exit status")
    w.start_agent()


# ---- links

def symlinks():
    """symlinks to files and directories, inside, outside, dangling, circular and into /proc: reported, never followed"""
    with World() as w:
        outside = w.dir / "outside"
        (outside / "deep").mkdir(parents=True)
        (outside / "a.jpg").write_bytes(NO_CAPTURE)
        (outside / "deep" / "b.jpg").write_bytes(NO_CAPTURE)
        witness = Witness(outside)
        links = {"file.jpg": outside / "a.jpg", "folder": outside, "folder.jpg": outside / "deep", "inside.jpg": "real/x.jpg",
                 "dangling.jpg": "nowhere", "circle.jpg": "circle.jpg", "root.jpg": "/proc/self/root", "cwd": "/proc/self/cwd",
                 "fd.jpg": "/proc/self/fd/0", "dots.jpg": "../outside/a.jpg"}
        for name, target in links.items():
            os.symlink(target, w.capture / name)
        w.start()
        w.write("real/x.jpg", b"a capture")
        os.symlink(outside, w.capture / "real" / "later")  # while the agent runs
        w.settled(but=[n for n in links if not (w.capture / n).is_dir()])
        names = refused(w, "symlink", len(links) + 1)
        equal(names, sorted(n.encode() for n in [*links, "real/later"]), "names refused")
        witness.saw_nothing()
        for name in links:
            check(os.path.islink(w.capture / name), f"the link {name} is gone")
        w.verify_ledger()


def swapper(pairs, stop, rng, pause_s):
    """Exchanges names again and again; each pair is as it was at the end."""
    turned = [False] * len(pairs)
    while not stop.is_set():
        i = rng.randrange(len(pairs))
        turned[i] ^= exchange(*pairs[i])
        if pause_s:
            time.sleep(rng.random() * pause_s)
    for i, pair in enumerate(pairs):
        if turned[i]:
            exchange(*pair)


def nothing_but_ours(w, witness, decoy):
    """What arrived is what cameras wrote, all of it; nothing came from outside. A file that was taken away while it was
    wiped, and put back afterwards, is empty."""
    found = arrived(w)
    equal([k for k, v in found.items() if decoy in v], [], "captures with content from outside")
    wrong = {k for k in w.want if not set(w.want[k]) <= set(found.get(k, []))}
    equal(wrong, set(), "captures that did not arrive")
    equal({k for k, v in found.items() if not set(v) <= {sha(b""), *w.want.get(k, [])}}, set(),
          "content nobody wrote")
    witness.saw_nothing()
    w.verify_ledger()


def swapped_directory():
    """a symlink that takes the place of a directory again and again leads neither reading nor wiping outside"""
    decoy = NO_CAPTURE * 20
    with World() as w:
        outside, link = w.dir / "outside", w.dir / "link"
        outside.mkdir()
        names = [f"cap-{i:03d}.jpg" for i in range(300)]
        for name in names:
            (outside / name).write_bytes(decoy)
        witness = Witness(outside)
        (w.capture / "lane").mkdir()
        real = os.open(w.capture / "lane", os.O_RDONLY | os.O_DIRECTORY)
        os.symlink(outside, link)
        stop, crew = threading.Event(), cameras.Crew()
        w.start()
        crew.add(swapper, [(w.capture / "lane", link)], stop, random.Random(1), 0.004)
        for i, name in enumerate(names):  # into the real directory, wherever it is
            content = b"%d" % i + bytes(len(decoy) - 3)
            with open(os.open(f".{name}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=real), "wb") as f:
                f.write(content)
            os.rename(f".{name}", name, src_dir_fd=real, dst_dir_fd=real)
            w.expect(f"lane/{name}", content)
            time.sleep(RACE_S / len(names))  # cameras take their time
        stop.set()
        crew.join(30)
        os.close(real)
        # what the agent could not make out while the directory was not there
        restart(w)
        w.empty(90)
        w.idle()
        tap.diag(f"{len(events(w))} events, {w.counts()[0]}")
        nothing_but_ours(w, witness, sha(decoy))
        equal([(outside / n).read_bytes() == decoy for n in names].count(False), 0, "files outside that changed")


def swapped_file():
    """a symlink that takes the place of a file again and again leads neither reading nor wiping outside"""
    decoy = NO_CAPTURE * 20
    with World(source={"quiet": "0s"}) as w:
        outside = w.dir / "outside"
        outside.mkdir()
        (outside / "victim").write_bytes(decoy)
        witness = Witness(outside)
        pairs = []
        for i in range(100):
            name = f"cap-{i:03d}.jpg"
            w.write(name, b"%d" % i + bytes(len(decoy) - 2))
            os.symlink(outside / "victim", w.dir / f"link-{i:03d}")
            pairs.append((w.capture / name, w.dir / f"link-{i:03d}"))
        stop, crew = threading.Event(), cameras.Crew()
        crew.add(swapper, pairs, stop, random.Random(2), 0.0004)
        w.start()
        time.sleep(RACE_S)
        stop.set()
        crew.join(30)
        # files that the exchange took out of the source, when their link was wiped away meanwhile, come back
        for name, other in pairs:
            if other.exists() and not other.is_symlink():
                os.rename(other, name)
        restart(w)
        until(lambda: all(n.startswith(b"cap-") and (w.capture / os.fsdecode(n)).is_symlink() for n in w.left()), 60,
              lambda: f"only links stay: {len(w.left())} names")
        w.idle()
        nothing_but_ours(w, witness, sha(decoy))
        equal((outside / "victim").read_bytes(), decoy, "the file outside")


def hard_links():
    """a file with a second name, outside or inside the source, is not touched; with one name left it goes"""
    with World() as w:
        outside = w.dir / "outside.jpg"
        outside.write_bytes(NO_CAPTURE)
        os.link(outside, w.capture / "to-outside.jpg")
        w.start()
        full = w.write("one.jpg", b"two names", want=False)
        os.link(full, w.capture / "two.jpg")
        equal(refused(w, "hard-link", 3), [b"one.jpg", b"to-outside.jpg", b"two.jpg"], "names refused")
        equal((outside.read_bytes(), os.stat(outside).st_nlink), (NO_CAPTURE, 2), "the file outside")
        os.unlink(w.capture / "one.jpg")
        with open(w.capture / "two.jpg", "r+b"):
            pass  # its writer closes it once more: the agent looks again
        w.expect("two.jpg", b"two names")
        w.settled(but=["to-outside.jpg"])
        equal((outside.read_bytes(), os.stat(outside).st_nlink), (NO_CAPTURE, 2), "the file outside")


def link_before_the_wipe():
    """a capture that gets a second name after it was sealed is not wiped: the other name would lose its content"""
    with World(receiver=False) as w:
        w.start_agent()
        w.write("a.jpg", b"sealed, then linked")
        until(lambda: w.in_state("sealed", "ready") == 1, 30, "recorded")
        os.link(w.capture / "a.jpg", w.dir / "other.jpg")
        w.start_receiver()
        refused(w, "hard-link", 1)
        equal((w.dir / "other.jpg").read_bytes(), b"sealed, then linked", "the other name's content")
        equal((w.capture / "a.jpg").read_bytes(), b"sealed, then linked", "the capture")
        os.unlink(w.dir / "other.jpg")
        with open(w.capture / "a.jpg", "r+b"):
            pass
        w.empty()
        w.idle()
        equal(set(contents(w)), {sha(b"sealed, then linked")}, "what arrived")


# ---- what is no file

def special_files():
    """FIFOs, sockets and devices: reported, never opened"""
    with World() as w:
        os.mkfifo(w.capture / "pipe.jpg")
        server = socket.socket(socket.AF_UNIX)
        top = os.open(w.capture, os.O_PATH)
        server.bind(f"/proc/self/fd/{top}/socket.jpg")  # the whole path may be too long for a socket's name
        os.close(top)
        made = ["pipe.jpg", "socket.jpg"]
        if os.geteuid() == 0:
            os.mknod(w.capture / "char.jpg", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.mknod(w.capture / "block.jpg", stat.S_IFBLK | 0o600, os.makedev(7, 0))
            made += ["char.jpg", "block.jpg"]
        opened = threading.Event()

        def writer():  # waits until somebody opens the other end
            with open(w.capture / "pipe.jpg", "wb"):
                opened.set()
        threading.Thread(target=writer, daemon=True).start()
        w.start()
        w.write("good.jpg", b"good")
        equal(refused(w, "special-file", len(made)), sorted(m.encode() for m in made), "names refused")
        w.settled(but=made)
        check(not opened.is_set(), "the agent opened the pipe")
        os.close(os.open(w.capture / "pipe.jpg", os.O_RDONLY | os.O_NONBLOCK))
        check(opened.wait(10), "the test's own writer never came")


def capture_becomes_something_else():
    """a capture that waits and is replaced by a link, a pipe or a directory is reported as gone; nothing waits for ever"""
    with World(receiver=False) as w:
        w.start_agent()
        for i in range(40):
            w.write(f"{i}.jpg", b"capture %d" % i, want=False)
        until(lambda: w.in_state("sealed", "ready") == 40, 30, "recorded")
        for i in range(40):
            os.unlink(w.capture / f"{i}.jpg")
            [lambda n: os.symlink("/etc/passwd", n), os.mkfifo, os.mkdir, lambda n: None][i % 4](w.capture / f"{i}.jpg")
        w.start_receiver()
        w.idle()
        captures = w.counts()[0]
        equal(captures["wiped"], 0, "captures said to be wiped")
        equal(captures["gone"] + captures["replaced"], 40, f"captures that are gone or replaced, of {captures}")
        equal(len(events(w, "capture-gone")) + len(events(w, "capture-replaced")), 40, "events that say so")


# ---- mounts

def mount_points():
    """what is mounted below a source is none of its: a tmpfs, a bind mount of a directory, one of a file"""
    with World() as w, contextlib.ExitStack() as stack:
        outside = w.dir / "outside"
        outside.mkdir()
        (outside / "a.jpg").write_bytes(NO_CAPTURE)
        (outside / "b.jpg").write_bytes(NO_CAPTURE)
        for name in ("memory", "bound"):
            (w.capture / name).mkdir()
        w.write("memory/hidden.jpg", b"hidden by the mount")
        w.write("file.jpg", b"hidden by the mount of a file")
        stack.enter_context(mounted("-t", "tmpfs", "test", w.capture / "memory"))
        (w.capture / "memory" / "mine.jpg").write_bytes(NO_CAPTURE)
        stack.enter_context(mounted("--bind", outside, w.capture / "bound"))
        with mounted("--bind", outside / "b.jpg", w.capture / "file.jpg"):
            witness = Witness(outside)
            w.start()
            w.write("good.jpg", b"good")
            equal(refused(w, "mount-point", 2), [b"bound", b"memory"], "names refused")
            equal(refused(w, "special-file", 1), [b"file.jpg"], "names refused")
            until(lambda: w.in_state("wiped") == 1, 30, "the capture beside them goes")
            w.idle()
            witness.saw_nothing()
            equal(sorted(w.left()), [b"bound/a.jpg", b"bound/b.jpg", b"file.jpg", b"memory/mine.jpg"], "files that stay")
        stack.close()
        restart(w)  # no event tells that a mount went: the next scan finds what it hid
        w.settled()


def mounted_over_what_is_proven():
    """a directory is mounted over a capture that is sealed: it is not gone, and wiped once it is seen again"""
    with World(receiver=False) as w:
        w.start_agent()
        w.write("lane/a.jpg", b"under the mount soon")
        until(lambda: w.in_state("sealed", "ready") == 1, 30, "recorded")
        with mounted("-t", "tmpfs", "test", w.capture / "lane"):
            (w.capture / "lane" / "a.jpg").write_bytes(NO_CAPTURE)
            w.start_receiver()
            refused(w, "mount-point", 1) if w.in_state("ready") else happened(w, "wipe-failed", "ENODEV")
            until(lambda: events(w, "wipe-failed", "ENODEV") or w.in_state("settling"), 30, "it waits")
            equal(w.in_state("gone", "wiped", "replaced"), 0, "captures said to be gone or wiped")
            equal((w.capture / "lane" / "a.jpg").read_bytes(), NO_CAPTURE, "the file of that name in the mount")
        restart(w)
        w.settled()


@contextlib.contextmanager
def source_on(w, device, place):
    place.mkdir(exist_ok=True)
    with mounted(device, place):
        os.chmod(place, 0o700)
        yield


def unmounted_with_its_directory():
    """a source's file system is unmounted and comes back: said missing and back, nothing gone, all arrives once"""
    with World(receiver=False) as w, ext4(w) as device:
        place = w.dir / "mnt"
        w.capture = place / "capture"
        w.source["path"] = str(w.capture)
        w.write_files()
        with source_on(w, device, place):
            w.capture.mkdir()
            w.start_agent()
            for i in range(30):
                w.write(f"{i}.jpg", b"before %d" % i)
            until(lambda: w.in_state("sealed", "ready") == 30, 30, "recorded")
            check("busy" in run("umount", place)[1], "umount says that the agent has the directory open")
            unmount(place)
            happened(w, "source-missing", "cause=unreachable")
            w.start_receiver()
            until(lambda: w.counts()[1].get("sealed") == 0, 30, "what was sealed has its receipt")
            time.sleep(3)  # more than one round of wipes: nothing happens, which only time can show
            equal(w.in_state("gone", "wiped", "replaced"), 0, "captures said to be gone or wiped")
            must("mount", device, place)
            happened(w, "source-back")
            for i in range(30):
                w.write(f"later-{i}.jpg", b"after %d" % i)
            w.settled()
            equal(len(events(w, "source-missing")), 1, "times it was said missing")


def unmounted_to_a_bare_directory():
    """the mount point stays when the source goes: captures of the disk wait, also over a restart; those in the directory go"""
    with World(receiver=False) as w, ext4(w) as device:
        with source_on(w, device, w.capture):
            os.rmdir(w.capture / "lost+found")
            w.start_agent()
            for i in range(30):
                w.write(f"{i}.jpg", b"before %d" % i)
            until(lambda: w.in_state("sealed", "ready") == 30, 30, "recorded")
            unmount(w.capture)
            happened(w, "source-changed", "file-system=other")
            happened(w, "source-missing", "cause=other-file-system")
            w.start_receiver()
            w.write("meanwhile.jpg", b"into the bare directory")
            until(lambda: w.in_state("wiped") == 1, 30, "the one in the directory is handed over")
            until(lambda: w.counts()[1].get("sealed") == 0, 30, "what was sealed has its receipt")
            restart(w)  # begins before the disk is there, as after a boot
            happened(w, "source-missing", "cause=other-file-system", 2)
            w.write("again.jpg", b"once more")
            until(lambda: w.in_state("wiped") == 2, 30, "the one in the directory is handed over")
            equal(w.in_state("gone", "replaced"), 0, "captures said to be gone")
            w.publish()  # what was ready is settling now, and is looked at again
            until(lambda: "policy.loaded" in w.agent.said(), 30, "another policy is in force")
            w.write("third.jpg", b"after the other policy")
            until(lambda: w.in_state("wiped") == 3, 30, "the one in the directory is handed over")
            equal(w.in_state("gone", "replaced"), 0, "captures said to be gone")
            must("mount", device, w.capture)
            happened(w, "source-back")
            w.settled()
            equal(w.in_state("wiped"), 33, "captures wiped")


def renamed_source():
    """the source's directory is renamed: what lies in it waits and is not touched there, a new one is watched at once"""
    with World() as w:
        w.start()
        w.write("first.jpg", b"first")
        w.settled()
        aside = w.dir / "evidence"
        os.rename(w.capture, aside)
        (aside / "put-there.jpg").write_bytes(NO_CAPTURE)
        happened(w, "source-missing")
        until(lambda: w.agent.said().count("source.missing") == 1, 10, "said once")
        w.capture.mkdir()
        happened(w, "source-back")
        for i in range(20):
            w.write(f"sub/{i}.jpg", b"new %d" % i)
        w.settled()
        equal((aside / "put-there.jpg").read_bytes(), NO_CAPTURE, "a file in the directory that was renamed")
        equal(w.agent.said().count("source.missing"), 1, "times it was said")


def mounted_above():
    """a file system is mounted two levels above a source, beyond the sandbox: said with the mend; a service manager starts the agent again; wiped then"""
    needs_landlock()
    with World() as w, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(w.dir / "notify"))
        place = w.dir / "mnt"
        w.capture = place / "site" / "faces"
        w.source["path"] = str(w.capture)
        w.capture.mkdir(parents=True)
        w.write_files()
        w.start_receiver()
        for manager in ({}, {"NOTIFY_SOCKET": str(w.dir / "notify")}):
            w.start_agent(env={**os.environ, **manager})
            w.write(f"before-{len(manager)}.jpg", b"before %d" % len(manager))
            w.settled()
            with mounted("-t", "tmpfs", "test", place):
                w.capture.mkdir(parents=True)
                w.write(f"a-{len(manager)}.jpg", b"on it %d" % len(manager))
                if manager:
                    clean = w.agent.said().count("agent.stopped clean=yes")
                    equal(w.agent.popen.wait(120), 3, "exit status: to be started again")
                    check("agent.restart" in w.agent.said() and w.agent.said().count("agent.stopped clean=yes") == clean + 1, w.agent.said())
                else:
                    until(lambda: "sandbox.beyond" in w.agent.said(), 120, "said that it is beyond the sandbox")
                    check("restart the agent" in w.agent.said(), "with the mend")
                    equal(w.left(), [b"a-0.jpg"], "files left")
                    equal(w.agent.stop(15), 0, "exit status")
                w.start_agent()
                w.settled()
                equal(w.agent.stop(10), 0, "exit status")
        equal(w.agent.said().count("sandbox.beyond"), 1, "times it was said")


# ---- what the system does not allow

def immutable():
    """chattr +i and +a: sealed and pushed; that it can't be wiped is reported, and it is wiped after chattr -ia"""
    with World() as w, ext4(w) as device, source_on(w, device, w.capture):
        os.rmdir(w.capture / "lost+found")
        w.write("i.jpg", b"immutable")
        w.write("a.jpg", b"append only")
        w.write("plain.jpg", b"plain")
        must("chattr", "+i", w.capture / "i.jpg")
        must("chattr", "+a", w.capture / "a.jpg")
        try:
            w.start()
            happened(w, "wipe-failed", "error=EPERM", 2)
            w.empty(but=["a.jpg", "i.jpg"])
            until(lambda: w.agent.said().count("wipe.failed") >= 5, 30, "it is tried again")
            equal(len(events(w, "wipe-failed")), 2, "events: one for each, however often it is tried")
            equal((w.capture / "i.jpg").read_bytes() + (w.capture / "a.jpg").read_bytes(), b"immutableappend only", "contents")
            equal(w.counts()[0]["wiping"], 2, "captures that wait to be wiped")
        finally:
            run("chattr", "-i", "-a", w.capture / "i.jpg", w.capture / "a.jpg")
        w.settled()


def read_only():
    """the source is remounted read-only while captures wait to be wiped: not wiped, reported; wiped when writable again"""
    with World(receiver=False) as w, ext4(w) as device, source_on(w, device, w.capture):
        os.rmdir(w.capture / "lost+found")
        w.start_agent()
        for i in range(20):
            w.write(f"{i}.jpg", b"content %d" % i)
        until(lambda: w.in_state("sealed", "ready") == 20, 30, "recorded")
        must("mount", "-o", "remount,ro", w.capture)
        w.start_receiver()
        happened(w, "wipe-failed", "error=EROFS", 20)
        equal({n: (w.capture / os.fsdecode(n)).read_bytes() for n in w.left()},
              {b"%d.jpg" % i: b"content %d" % i for i in range(20)}, "files that stay")
        restart(w)
        happened(w, "wipe-failed", "error=EROFS", 40)
        equal(w.in_state("wiping"), 20, "captures that wait to be wiped")
        must("mount", "-o", "remount,rw", w.capture)
        w.settled()
        equal(w.in_state("gone", "replaced"), 0, "captures said to be gone or replaced")


def removed_before_a_wipe_that_failed():
    """what another program removes while it can't be wiped is gone, and not said to be wiped"""
    with World() as w, ext4(w) as device, source_on(w, device, w.capture):
        os.rmdir(w.capture / "lost+found")
        name = w.capture / "i.jpg"
        w.write("i.jpg", b"immutable")
        must("chattr", "+i", name)
        try:
            w.start()
            happened(w, "wipe-failed", "error=EPERM")
            w.agent.signal(signal.SIGSTOP)  # so that it is removed before the agent comes round again
        finally:
            run("chattr", "-i", name)
        os.rename(name, w.capture / ".kept")
        w.agent.signal(signal.SIGCONT)
        w.idle()
        equal((w.in_state("gone"), w.in_state("wiped")), (1, 0), "gone and wiped")
        equal((w.capture / ".kept").read_bytes(), b"immutable", "the file under its other name")


def unreadable():
    """an agent that is not root, a file and a directory of mode 000: reported once each, tried again, go after chmod"""
    with World() as w:
        w.start_receiver()
        w.write("closed.jpg", b"mode 000")
        w.write("open.jpg", b"beside it")
        w.write("vault/in.jpg", b"in a directory of mode 000")
        os.chmod(w.capture / "closed.jpg", 0)
        os.chmod(w.capture / "vault", 0)
        start_by(w, other_user(w))
        until(lambda: w.in_state("wiped") == 1, 30, "the one beside it goes")
        equal(refused(w, "unreadable", 1), [b"vault"], "names refused")
        until(lambda: w.agent.said().count("capture.unreadable") >= 2, 60, "the file is tried again")
        equal(len(events(w, "capture-changed", "reason=unreadable")), 1, "events: one, however often it is tried")
        equal(w.in_state("ready", "bundled"), 1, "captures that wait")
        os.chmod(w.capture / "closed.jpg", 0o600)
        until(lambda: w.in_state("wiped") == 2, 30, "the file goes")
        os.chmod(w.capture / "vault", 0o700)
        equal(w.agent.stop(10), 0, "exit status")  # its next scan would find it; the next start finds it sooner
        start_by(w, other_user(w))
        w.settled()


# ---- names and paths

def strange_names():
    """names with line ends, tabs, bytes that are no UTF-8, 255 bytes, dashes, spaces, quotes, backslashes, patterns"""
    names = [b"new\nline", b"tab\there", b"\xff\xfe\x80no utf-8", b"-rf", b"--", b" space ", b"quote'\"", b"back\\slash", b"*?[a]",
             b"$(reboot)", b"%s%n", b"a" * 251, b"\xc3\xa9" * 125, b"\x01\x1b[31m", b"~", b".hidden", b"{}", b"\xed\xa0\x80", b"CON",
             b"x.segment-000001-of-000002", b"path_base64", b"manifest.json", b";", b"|", b"&", b"#"]
    with World(source={"ignore": ["**/*.part"]}) as w:
        folders = [b"", b"new\nfolder/", b"\xff/", b"-/", b"d" * 255 + b"/"]
        for i, folder in enumerate(folders):
            for k, name in enumerate(names):
                w.write(os.fsdecode(folder + name + b".jpg"), b"content %d %d" % (i, k))
        stays = b"stays\n\xff%20 x"
        (w.capture / os.fsdecode(stays)).write_bytes(b"unmatched")
        w.start()
        w.settled(but=[stays])
        equal(refused(w, "unmatched", 1), [stays], "names refused")
        listed = [json.loads(line) for line in w.cede("ledger", "list", "--state", w.state, "--json").splitlines()]
        equal(len(listed), len(names) * len(folders), "captures in the list, each one line of JSON")
        log = w.agent.log.read_bytes()
        for name in names:
            check(len(name) < 5 or name not in log, f"the log holds the name {name!r} (I9)")


def make_deep(top, size, content):
    """A file whose path below top has so many bytes, made step by step; a descriptor of its directory, and its name."""
    at = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    rest = size
    while rest > 250:
        step = b"d" * min(200, rest - 10)
        with contextlib.suppress(FileExistsError):
            os.mkdir(step, dir_fd=at)
        below = os.open(step, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at, rest = below, rest - len(step) - 1
    name = b"%d-" % size
    name += b"x" * (rest - len(name) - 4) + b".jpg"
    with open(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=at), "wb") as f:
        f.write(content)
    return at, name


def deep_paths():
    """paths of up to 4,095 bytes are handed over; longer ones, and what is below, are reported each and not touched"""
    goes, stays = (1000, 4000, 4094, 4095), (4096, 4097, 4200, 6000)
    with World() as w:
        kept, opened = [], []
        for size in goes + stays:
            opened.append((size, *make_deep(w.capture, size, b"deep %d" % size)))
        w.start()
        w.write("shallow.jpg", b"shallow")
        until(lambda: w.in_state("wiped") == len(goes) + 1, 60, lambda: f"{len(goes) + 1} are wiped; {w.counts()}")
        w.idle()
        for size, fd, name in opened:
            try:
                with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as f:
                    equal(f.read(), b"deep %d" % size, f"the file at {size} bytes")
                kept.append(size)
            except FileNotFoundError:
                pass
            os.close(fd)
        equal(kept, list(stays), "files that stay")
        # 4096, 4097, and the directories in which the longer ones begin to be too long
        said = happened(w, "capture-refused", "reason=path-too-long ")
        names = {e["detail"].split(" path=", 1)[1] for e in said}
        check(all(len(n) > 4095 for n in names) and len(names) == len(said), "names refused are longer than that, each once")
        check({4096, 4097} <= {len(n) for n in names}, f"lengths said: {sorted(len(n) for n in names)}")
        check(any(len(n) > 4097 for n in names), "a directory that leads too deep")
        listed = [json.loads(line)["path"] for line in w.cede("ledger", "list", "--state", w.state, "--json").splitlines()]
        equal(sorted(map(len, listed)), sorted([*goes, len("shallow.jpg")]), "lengths of the paths in the list")
        equal(sorted(dict(arrived_by_parts(w)).values()), sorted([sha(b"shallow"), *(sha(b"deep %d" % s) for s in goes)]), "what arrived")


def arrived_by_parts(w):
    """Paths and digests, for members whose path no single call can open: tar puts each out by itself."""
    for plain in plain_bundles(w):
        def member(name, plain=plain):
            return subprocess.run(["tar", "-xOf", plain, name], capture_output=True, check=True).stdout
        for entry in json.loads(member("manifest.json"))["entries"]:
            equal(sha(member(f"{entry['source']}/{entry['path']}")), entry["sha256"], "content of a member")
            yield entry["path"], entry["sha256"]


# ---- directories that move

def directories_that_move():
    """directories renamed while they are scanned and handed over: every capture arrives, none is left, none is torn"""
    with World() as w:
        rng = random.Random(3)
        want = set()
        for d in range(12):
            for i in range(60):
                content = b"%d/%d" % (d, i) * 20
                (w.capture / f"d{d}" / "sub").mkdir(parents=True, exist_ok=True)
                (w.capture / f"d{d}" / "sub" / f"{i}.jpg").write_bytes(content)
                want.add(sha(content))
        stop, crew = threading.Event(), cameras.Crew()

        def mover():
            number = 0
            while not stop.is_set():
                old = rng.choice(sorted(os.listdir(w.capture)))
                number += 1
                os.rename(w.capture / old, w.capture / f"moved-{number}")
                time.sleep(rng.random() * 0.02)
        crew.add(mover)
        w.start()
        time.sleep(RACE_S)
        stop.set()
        crew.join(30)
        w.empty()
        w.idle()
        found = contents(w)
        equal(set(found), want, "contents that arrived")
        tap.diag(f"{sum(found.values())} copies of {len(want)}; {w.counts()[0]}")
        w.verify_ledger()


def directories_that_vanish():
    """directories removed while their captures wait: each capture is said gone, nothing hangs, the rest arrives"""
    with World(receiver=False) as w:
        w.start_agent()
        for d in range(10):
            for i in range(20):
                w.write(f"d{d}/{i}.jpg", b"%d %d" % (d, i), want=d >= 5)
        until(lambda: w.in_state("sealed", "ready") == 200, 60, "recorded")
        for d in range(5):
            for name in os.listdir(w.capture / f"d{d}"):
                os.unlink(w.capture / f"d{d}" / name)
            os.rmdir(w.capture / f"d{d}")
        w.start_receiver()
        w.empty()
        w.idle()
        equal((w.in_state("gone"), w.in_state("wiped")), (100, 100), "gone and wiped")
        equal(len(events(w, "capture-gone")), 100, "events that say so")
        found = arrived(w)
        equal({k for k in w.want if found.get(k) != w.want[k]}, set(), "captures that did not arrive once")


def moved_out_and_back():
    """a directory is moved out of the source and back: not touched outside; gone, then new captures, all arrive"""
    with World(receiver=False) as w:
        w.start_agent()
        for i in range(30):
            w.write(f"lane/{i}.jpg", b"travels %d" % i)
        until(lambda: w.in_state("sealed", "ready") == 30, 30, "recorded")
        os.rename(w.capture / "lane", w.dir / "lane")
        w.start_receiver()
        happened(w, "capture-gone", "reason=removed-by-another-program", 30)
        for i in range(30):
            equal((w.dir / "lane" / f"{i}.jpg").read_bytes(), b"travels %d" % i, "content outside")
        (w.dir / "lane" / "new.jpg").write_bytes(b"written outside")
        w.expect("lane/new.jpg", b"written outside")
        os.rename(w.dir / "lane", w.capture / "lane")
        w.empty()
        w.idle()
        found = arrived(w)
        equal({k for k, v in w.want.items() if set(found.get(k, [])) != set(v)}, set(), "captures that did not arrive")
        equal(w.in_state("wiped"), 31, "captures wiped")


# ---- a full disk

def state_is_full():
    """the state directory's file system is full: nothing lost, nothing wiped unproven; goes on when there is space"""
    with World() as w:
        w.state.mkdir(mode=0o700)
        with mounted("-t", "tmpfs", "-o", "size=6m,mode=0700", "test", w.state):
            w.start()
            w.write("first.jpg", b"first")
            w.settled()
            ballast = fill(w.state)
            for i in range(3000):
                w.write(f"{i % 7}/{i}.jpg", b"content %d" % i)
            until(lambda: "ledger.unwritten" in w.agent.said(), 60, "the agent says that it can't write")
            time.sleep(3)  # tries go on
            check(w.agent.alive(), "the agent ended")
            stays = set(w.left())
            store = arrived(w)
            for key, digests in w.want.items():
                check(key.split(b"/", 1)[1] in stays or store.get(key) == digests, f"lost: {key!r}")
            check(len(stays) > 0, "the test's disk was not full enough")
            ballast.unlink()
            w.settled(120)
            tap.diag(f"{len(stays)} waited; peak {peak_kb(w.agent.pid) >> 10} MiB")
            w.verify_ledger()
            w.agent.stop(10)


def fill(folder):
    path = folder / "ballast"
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 16, 4096):
            with contextlib.suppress(OSError):
                while True:
                    f.write(bytes(size))
    return path


def spool_is_full():
    """no room for the sealed bundle where the policy wipes after sealing: not wiped, reported, goes when there is room"""
    with World(source={"wipe": {"after": "seal", "method": "overwrite", "require": "none"}}, receiver=False) as w:
        w.state.mkdir(mode=0o700)
        with mounted("-t", "tmpfs", "-o", "size=128m,mode=0700", "test", w.state):
            w.start_agent()
            w.write("first.jpg", b"first")
            until(lambda: w.in_state("wiped") == 1, 30, "the first is sealed and wiped")
            ballast = w.state / "ballast"
            ballast.write_bytes(bytes(60 << 20))  # less is left than the agent keeps free
            more = {f"{i}.jpg": b"content %d" % i for i in range(5)}
            for name, content in more.items():
                w.write(name, content)
            happened(w, "violation", "reason=spool-full", 1)
            until(lambda: w.in_state("ready") == 5, 30, "they wait")
            check("spool.full" in w.agent.said(), "the log says it")
            equal({os.fsdecode(n): (w.capture / os.fsdecode(n)).read_bytes() for n in w.left()}, more, "captures that wait")
            ballast.unlink()
            until(lambda: w.in_state("wiped") == 6, 30, "they are sealed and wiped")
            w.start_receiver()
            w.settled()
            w.agent.stop(10)


# ---- writers

def growing_files():
    """files that grow, held open or opened again for each piece: not handed over before the end, then once and whole"""
    with World(source={"quiet": "1500ms"}) as w:
        w.start()
        whole = {}

        def grow(name, again):
            begun.wait(10)
            with open(w.capture / name, "wb", buffering=0) as held:
                pieces = [hashlib.sha512(b"%s %d" % (name.encode(), i)).digest() for i in range(int(GROW_S / 0.05))]
                for i, piece in enumerate(pieces):
                    if not again and i == 20:
                        time.sleep(4)  # longer than quiet: that it is open has to do
                    if again:
                        held.close()
                        with open(w.capture / name, "ab") as f:
                            f.write(piece)
                    else:
                        held.write(piece)
                    time.sleep(0.05)  # the camera's rate
                whole[name] = b"".join(pieces)
                w.expect(name, whole[name])
        crew, begun = cameras.Crew(), threading.Barrier(5)
        for i in range(4):
            crew.add(grow, f"grows-{i}.jpg", i % 2 == 1)
        begun.wait(10)
        until(lambda: len(w.left()) + len(whole) >= 4, 10, "they grow")
        while any(t.is_alive() for t in crew.threads):
            alive = len([n for n in w.left() if n.startswith(b"grows-")])
            check(alive + len(whole) >= 4, "a file that grows is gone")
            check(w.in_state("bundled", "sealed", "wiping", "wiped") <= len(whole), "a file that grows was handed over")
            time.sleep(0.1)
        crew.join(10)
        w.settled()


def version(name, number, size):
    seed = hashlib.sha256(b"%s %d" % (name.encode(), number)).digest()
    return (seed * (size // 32 + 1))[:size]


class Rewriter:
    """Writes one file anew in place, by pwrite or through a mapping, in pieces, at random moments."""

    def __init__(self, w, name, seed):
        self.path, self.name, self.rng = w.capture / name, name, random.Random(seed)
        self.all, self.taken, self.number = {}, [], 0

    def write(self):
        size = 1 << 16
        self.number += 1
        content = version(self.name, self.number, size)
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as f:
            before = os.fstat(f.fileno())
            if before.st_nlink == 0:  # it was unlinked before we had it: the writer begins again
                self.number -= 1
                return False
            if self.number > 1 and before.st_size == 0:
                self.taken.append(self.number - 1)
            if self.rng.random() < 0.5:
                self.by_mapping(f, content)
            else:
                for at in self.order(size):
                    os.pwrite(f.fileno(), content[at:at + 4096], at)
                    self.pause()
            self.all[sha(content)] = self.number
        return True

    def order(self, size):
        places = list(range(0, size, 4096))
        self.rng.shuffle(places)
        return places

    def pause(self):
        if self.rng.random() < 0.2:
            time.sleep(self.rng.random() * 0.01)

    def by_mapping(self, f, content):
        os.ftruncate(f.fileno(), len(content))
        with mmap.mmap(f.fileno(), len(content)) as m:
            for at in self.order(len(content)):
                m[at:at + 4096] = content[at:at + 4096]
                self.pause()

    def loop(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.write()
            time.sleep(self.rng.random() * 0.5)
        while not self.write():
            pass


def rewritten_files():
    """files rewritten in place while they are sealed and wiped: only whole versions arrive, no version taken is lost"""
    with World(source={"quiet": "0s"}) as w:
        w.start()
        writers = [Rewriter(w, f"r{i}.jpg", i) for i in range(6)]
        crew = cameras.Crew()
        for writer in writers:
            crew.add(writer.loop, RACE_S)
        crew.join(RACE_S + 120)
        w.empty(90)
        w.idle()
        found = arrived(w)
        for writer in writers:
            got = collections.Counter(found.get(b"faces/" + writer.name.encode(), []))
            equal([d for d in got if d not in writer.all], [], f"torn versions of {writer.name}")
            equal([d for d, n in got.items() if n > 1], [], f"versions of {writer.name} that came twice")
            numbers = {writer.all[d] for d in got}
            check(writer.number in numbers, f"the last version of {writer.name} did not arrive")
            equal(set(writer.taken) - numbers, set(), f"versions of {writer.name} that were taken and did not arrive")
        tap.diag(f"{sum(len(x.all) for x in writers)} versions, {sum(len(v) for v in found.values())} arrived")


def same_name_again():
    """a camera that renames its next capture to the same name all the time: what was taken from there has arrived"""
    with World(source={"quiet": "0s"}) as w:
        w.start()
        taken, last = {}, {}

        def camera(number):
            rng, name, spare = random.Random(number), w.capture / f"latest-{number}.jpg", w.capture / f".spare-{number}"
            mine, end, k = None, time.monotonic() + RACE_S, 0
            while time.monotonic() < end or (len(taken) < 5 and time.monotonic() < end + 60):
                k += 1
                if k % 8 == 0:  # also where a hand-over takes longer than the pauses
                    with contextlib.suppress(Failure):
                        until(lambda: not name.exists(), 5, "it was taken")
                content = version(name.name, k, 3000)
                spare.write_bytes(content)
                if exchange(spare, name):
                    spare.unlink()  # the one before, as far as it is there: the camera itself took it away
                else:
                    if mine is not None:
                        taken[sha(mine)] = name.name
                    os.rename(spare, name)
                mine = content
                time.sleep(rng.random() * 0.12)
            last[sha(mine)] = name.name
        crew = cameras.Crew()
        for i in range(8):
            crew.add(camera, i)
        crew.join(RACE_S + 60)
        w.empty()
        w.idle()
        found = contents(w)
        lost = {d: n for d, n in {**taken, **last}.items() if d not in found}
        equal(lost, {}, "captures that were taken away and did not arrive")
        equal([d for d, n in found.items() if n > 1], [], "captures that arrived twice")
        tap.diag(f"{len(taken)} were taken")
        check(len(taken) >= 5, "the race took place")


# ---- very many

def write_many(folder, number, ending=".jpg"):
    """Small files in one directory, as quickly as can be."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for i in range(number):
        f = os.open(f"{i:06d}{ending}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
        os.write(f, b"%06d" % i + bytes(194))
        os.close(f)
    os.close(fd)


def expect_many(w, number):
    for i in range(number):
        w.expect(f"{i:06d}.jpg", b"%06d" % i + bytes(194))


@contextlib.contextmanager
def quick_captures(w):
    """The capture directory in memory, if that may be: what is tested is not the disk."""
    place = w.capture
    ok = os.geteuid() == 0 and run("mount", "-t", "tmpfs", "-o", "mode=0700", "test", place)[0]
    try:
        yield
    finally:
        if ok:
            unmount(place)


def very_many_files():
    """very many files in one directory: all arrive once, and the keeper's memory stays within its bound"""
    with World() as w, quick_captures(w):
        write_many(w.capture, MANY)
        began = time.monotonic()
        w.start()
        until(lambda: not os.listdir(w.capture), 600, lambda: f"all gone; left {len(os.listdir(w.capture))}", each=0.2)
        w.idle()
        peak = peak_kb(w.agent.pid)
        tap.diag(f"{MANY} files in {time.monotonic() - began:.1f} s; the keeper's peak is {peak >> 10} MiB")
        check(peak < KEEPER_MOST_KB, f"the keeper's peak is {peak} kB")
        expect_many(w, MANY)
        arrived_whole(w)


def very_many_that_stay():
    """very many files that no pattern matches: each is reported once, not again with every scan"""
    with World() as w, quick_captures(w):
        top, w.capture = w.capture, w.capture / "lane"
        w.source["path"] = str(w.capture)
        w.write_files()
        w.capture.mkdir()
        write_many(w.capture, STAYING, ".raw")
        w.start()
        happened(w, "capture-refused", "reason=unmatched ", STAYING, 120, each=1)
        for number in (1, 2):  # the directory goes and comes back: a whole scan
            os.rename(w.capture, top / "away")
            until(lambda: w.agent.said().count("source.missing") == number, 30, "it is said missing")
            os.rename(top / "away", w.capture)
            until(lambda: w.agent.said().count("source.back") == number, 30, "it is said to be back")
        w.write("good.jpg", b"good")
        until(lambda: w.in_state("wiped") == 1, 60, "the capture among them goes")
        equal(len(events(w, "capture-refused")), STAYING, "events")
        check(peak_kb(w.agent.pid) < KEEPER_MOST_KB, f"the keeper's peak is {peak_kb(w.agent.pid)} kB")
        w.capture = top


def very_many_that_settle():
    """more names settle than are kept in mind: the source is scanned again and again for the rest, with pauses in between"""
    with World(source={"quiet": "5m"}) as w, quick_captures(w):
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        write_many(w.capture, 135_000)
        w.start()
        times = []
        for number in (1, 2, 3):
            until(lambda: (metric(w, "cede_scans_total") or 0) >= number, 120, f"scan {number}")
            times.append(time.monotonic())
        tap.diag(f"{times[1] - times[0]:.1f} s and {times[2] - times[1]:.1f} s from the end of one scan to the next")
        check(times[2] - times[0] > 3, "scans follow each other without a pause")


def no_watches_left():
    """inotify watches run out: said, and directories without a watch are polled"""
    with World() as w:
        for i in range(60):
            (w.capture / f"d{i:02d}" / "deep").mkdir(parents=True)
        w.start_receiver()
        # a limit of the test's own, in a user namespace: nothing else on the machine feels it
        limit = "echo 20 > /proc/sys/user/max_inotify_watches && exec \"$@\""
        must("unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", "true")
        start_by(w, ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"])
        until(lambda: "source.watch source=faces mode=poll" in w.agent.said(), 30, "mode=poll is said")
        for i in range(60):
            w.write(f"d{i:02d}/deep/{i}.jpg", b"content %d" % i)
            w.write(f"new{i:02d}/{i}.jpg", b"new %d" % i)
        w.settled()


def events_overflow():
    """more events than the kernel keeps while the agent stands still: a watch-gap in the ledger, and every capture goes"""
    with World() as w, quick_captures(w):
        w.start()
        w.write("first.jpg", b"first")
        w.settled()
        w.agent.signal(signal.SIGSTOP)
        try:
            (w.capture / "more").mkdir()
            write_many(w.capture, FLOOD)
            for i in range(100):
                w.write(f"more/{i}.jpg", b"in a new directory %d" % i)
        finally:
            w.agent.signal(signal.SIGCONT)
        happened(w, "watch-gap", "cause=queue-overflow", seconds=60)
        expect_many(w, FLOOD)
        w.empty(180)
        w.idle()
        arrived_whole(w)


if __name__ == "__main__":
    tap.run([symlinks, swapped_directory, swapped_file, hard_links, link_before_the_wipe, special_files,
             capture_becomes_something_else, mount_points, mounted_over_what_is_proven, unmounted_with_its_directory,
             unmounted_to_a_bare_directory, renamed_source, mounted_above, immutable, read_only, removed_before_a_wipe_that_failed,
             unreadable, strange_names, deep_paths, directories_that_move, directories_that_vanish, moved_out_and_back,
             state_is_full, spool_is_full, growing_files, rewritten_files, same_name_again, very_many_files,
             very_many_that_stay, very_many_that_settle, no_watches_left, events_overflow], at_once=4)
