#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The guard: who may open captures, by whatever way, and what becomes of it when processes die.

Every guarded file system is a loop device of the case."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

from guarding import Guarded, guards, must, run  # noqa: E402
from tap import Skip, check, diag, equal  # noqa: E402
import tap  # noqa: E402
from world import build_dir, free_port, is_sanitized, until  # noqa: E402

HOLD = {"match": ["**/*.jpg"], "quiet": "1h", "max_age": "1d"}  # captures stay: nothing is handed over


def python_reads(path):
    done = run(sys.executable, "-c", f"open({str(path)!r}).read()")
    if done.returncode != 0:
        check(b"PermissionError" in done.stderr, done.stderr)
    return done.returncode == 0


def cat_reads(path):
    done = run("cat", path)
    if done.returncode != 0:
        check(b"not permitted" in done.stderr, done.stderr)
    return done.returncode == 0


def denied_everywhere(w, path):
    """Root's own programs, in every way that opens a file."""
    copy = w.dir / "copy"
    equal(cat_reads(path), False, "root's cat")
    equal(run("cp", path, copy).returncode, 1, "root's cp")
    check(not copy.exists() or copy.stat().st_size == 0, "cp copied something")
    equal(python_reads(path), False, "a Python reader")
    for how in ("read", "map", "o-path"):
        equal(w.opens(w.stranger, how, path), False, f"a stranger's {how}")
    equal(w.opens(w.stranger, "handle", path, w.disk), False, "a stranger's handle")
    equal(run("dd", f"if={path}", "of=/dev/null").returncode, 1, "dd")
    equal(run("sh", "-c", f"read x < {path}").returncode != 0, True, "the shell")


def every_way(shared):
    with Guarded(source=HOLD, shared=shared) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"a face")
        marks = "file-systems=0 inodes=1" if shared else "file-systems=1 inodes=0"
        check(marks in w.starts(1)[0], w.starts(1))
        denied_everywhere(w, path)
        equal(w.opens(w.lane_camera, "read", path), True, "the camera itself")

        (w.capture / "sub" / "deeper").mkdir(parents=True)
        inner = w.camera("sub/deeper/b.jpg", b"another face")
        if shared:  # a new directory has its mark a moment later
            until(lambda: not cat_reads(inner), 10, "a directory that is new is guarded")
        equal(cat_reads(inner), False, "in a directory that is new")

        os.link(path, w.disk / "link.jpg")
        equal(cat_reads(w.disk / "link.jpg"), False, "through a hard link elsewhere")
        equal(w.opens(w.stranger, "map", w.disk / "link.jpg"), False, "mapped through a hard link")
        os.rename(inner, w.disk / "moved.jpg")
        equal(cat_reads(w.disk / "moved.jpg"), False, "after a move out of the source")
        bound = w.dir / "bound"
        bound.mkdir()
        check(run("mount", "--bind", w.capture, bound).returncode == 0, "mount --bind")
        w.stack.callback(run, "umount", "-l", bound)
        equal(cat_reads(bound / "a.jpg"), False, "through a bind mount")
        again = w.dir / "again"
        again.mkdir()
        check(run("mount", w.device, again).returncode == 0, "mount the device a second time")
        w.stack.callback(run, "umount", "-l", again)
        equal(cat_reads(again / "faces" / "a.jpg"), False, "through a second mount")
        equal(run("unshare", "-m", "cat", path).returncode, 1, "from a mount namespace of its own")
        equal(run("unshare", "-U", "-r", "cat", path).returncode, 1, "as root of a user namespace")
        equal(run("unshare", "-p", "-f", "cat", path).returncode, 1, "from a pid namespace of its own")
        copy = w.dir / "programs" / "another"
        equal(run("cp", w.lane_camera, copy).returncode, 0, "copy the camera's program")
        equal(w.opens(copy, "read", path), False, "a copy of the camera's program")
        equal(run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", w.lane_camera, "read", path).returncode,
              13, "the camera's program as another user")
        equal(python_reads(path), False, "still")
        if shared:
            equal(cat_reads(w.disk / "other" / "notes.txt"), True, "what lies beside the source")


def every_way_whole_file_system():
    """enforce, a file system of its own: no program of root's opens a capture, by no way; the camera does"""
    every_way(False)


def every_way_shared_file_system():
    """enforce, a shared file system: the same ways, and what lies beside the source is nobody's business"""
    every_way(True)


def recorded():
    """each attempt is in the ledger with pid, uid, program and capture id; the count is exact"""
    with Guarded(source={"max_age": "1d", "wipe": {"after": "receipt", "method": "overwrite", "require": "none"}}, receiver=False) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"a face", want=False)
        until(lambda: w.events("capture-seen"), 20, "the capture is known")
        done = subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        done.wait()
        a = until(w.attempts, 15, "an attempt is recorded")[0]
        equal((a["count"], a["pid"], a["uid"]), ("1", str(done.pid), "0"), "count, pid, uid")
        equal(a["exe"], os.path.realpath("/usr/bin/cat"), "program")
        equal((a["source"], a["path"]), ("faces", "a.jpg"), "source and path")
        capture = w.events("capture-seen")[0]["subject"]
        equal(a["subject"], capture, "the capture's id")
        os.link(path, w.disk / "link.jpg")
        run("head", "-c1", w.disk / "link.jpg")
        a = until(lambda: w.attempts()[1:], 15, "another")[0]
        equal((a["subject"], a.get("source")), (capture, None), "the same capture by a name elsewhere")
        for name in ("a.jpg", "link.jpg"):
            check(name not in w.agent.said(), f"{name} is in the log")
        w.verify_ledger()
        equal(w.agent.stop(), 0, "status")
        check("cause=agent-stopped" in w.events("guard-lost")[-1]["detail"], "the stop is in the ledger")
        equal(cat_reads(path), True, "after a clean stop")


def end_to_end():
    """captures are handed over and wiped under the guard; leases and opens of the agent's own never wait for it"""
    with Guarded() as w:
        w.start_guarded()
        for i in range(60):
            w.camera(f"{i}.jpg", os.urandom(20000))
        w.settled(90)
        equal(w.attempted(), 0, "attempts")
        equal(len(w.starts(1)), 1, "starts")


def many(w, program, path, count, rate=0):
    """A process that opens a file so often; what it said comes with answers()."""
    return subprocess.Popen([program, "many", path, str(count), str(rate)], stdout=subprocess.PIPE)


def answers(process):
    out, _ = process.communicate(timeout=120)
    return json.loads(out)


def waits(process):
    """Whether it waits for an answer of the guard."""
    return "fanotify" in pathlib.Path(f"/proc/{process.pid}/wchan").read_text()


def opens_without_a_wrong_answer():
    """100,000 opens by four programs at once: not one wrong answer, and each that was denied is counted"""
    each = {"quick": 2500, "normal": 25000, "full": 250000}[tap.mode()]
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        files = [w.camera(f"{i}.jpg", b"x" * 100) for i in range(2)]
        cameras = [many(w, w.lane_camera, f, each) for f in files]
        strangers = [many(w, w.stranger, f, each) for f in files]
        for said in map(answers, cameras):
            equal((said["opened"], said["refused"], said["other"]), (each, 0, 0), "the camera's opens")
        for said in map(answers, strangers):
            equal((said["opened"], said["refused"], said["other"]), (0, each, 0), "the stranger's opens")
        until(lambda: w.attempted() == 2 * each, 30, lambda: f"{2 * each} attempts are recorded; {w.attempted()} are")
        rows = len(w.attempts())
        check(rows <= 100, f"the ledger has {rows} rows for {2 * each} attempts")


def flood():
    """attempts on hundreds of files at once: the ledger gets few rows, and the exact count"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        files = [w.camera(f"{i}.jpg", b"x") for i in range(300)]
        refused = run("cat", *files)
        equal(refused.stderr.count(b"not permitted"), 300, "refused")
        until(lambda: w.attempted() == 300, 30, lambda: f"300 attempts are recorded; {w.attempted()} are")
        check(len(w.attempts()) < 200, "fewer rows than attempts")


def killed():
    """the guard is killed under load, again and again: nobody is let through, each start is recorded"""
    times = {"quick": 2, "normal": 3, "full": 40}[tap.mode()]
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        other = w.camera("b.jpg", b"x")
        camera, stranger = many(w, w.lane_camera, path, 10000 * times), many(w, w.stranger, other, 2000 * times)
        for i in range(times):
            first = w.guard()
            os.kill(first, signal.SIGKILL)
            until(lambda: w.guards() and first not in w.guards(), 15, "another guard")
            w.starts(i + 2)
        said = answers(stranger)
        equal((said["opened"], said["other"]), (0, 0), "the stranger's opens")
        said = answers(camera)
        equal(said["other"], 0, "the camera's other errors")
        tap.diag(f"{times} kills, {10000 * times} opens of the camera: {said['refused']} refused; slowest {said['max_us'] / 1000:.0f} ms")
        # what it had read and not yet noted in its table is denied: at most one question of each program
        check(said["refused"] <= times, f"the camera was refused {said['refused']} times")
        lost = [e["detail"] for e in w.events("guard-lost")]
        equal(lost, ["cause=process-ended opens=wait"] * times, "losses")
        check(all("gap=no" in detail for detail in w.starts(times + 1)[1:]), "no gap")
        equal(cat_reads(path), False, "afterwards")


def stopped():
    """the guard is stopped: opens wait, the agent replaces it, then each gets its answer"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        first = w.guard()
        os.kill(first, signal.SIGSTOP)
        camera, cat = many(w, w.lane_camera, path, 1), subprocess.Popen(["cat", path], stderr=subprocess.DEVNULL)
        until(lambda: first not in w.guards(), 30, "the agent kills what hangs")
        equal(answers(camera)["opened"], 1, "the camera's open")
        equal(cat.wait(30), 1, "cat")
        check("hangs" in w.agent.said(), "the log says why")


def keeper_killed():
    """kill -9 of the agent: its guard goes on, and hands over to the next agent's, without a gap"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        first = w.guard()
        w.starts(1)  # recorded: "ready" comes before
        w.agent.kill()
        equal(cat_reads(path), False, "cat while there is no agent")
        equal(w.opens(w.lane_camera, "read", path), True, "the camera while there is no agent")
        os.kill(first, signal.SIGINT)
        camera, stranger = many(w, w.lane_camera, path, 10000), many(w, w.stranger, path, 1000)
        w.start_agent()
        w.said_again("agent.ready", 2)
        until(lambda: first not in w.guards(), 15, "the first guard has ended")
        said = answers(camera)
        equal((said["opened"], said["refused"]), (10000, 0), "the camera meanwhile")
        said = answers(stranger)
        equal((said["opened"], said["refused"]), (0, 1000), "the stranger meanwhile")
        w.guard()
        check("where=guard" in w.agent.said(), "found where the guard waits")
        check("gap=no" in w.starts(2)[1], w.starts(2))
        until(lambda: w.attempted() == 1001, 20, lambda: f"1001 attempts are recorded; {w.attempted()} are")
        w.agent.kill()
        second = w.guard()
        os.kill(second, signal.SIGTERM)
        until(lambda: not w.guards(), 10, "SIGTERM ends a guard without an agent")
        equal(cat_reads(path), True, "with no guard and no agent")


def given_by(sockets, words, log):
    """cede run as a service manager starts it, with these descriptors under their names."""
    names = ":".join(name for name, _ in sockets)

    def place():
        for i, (_, fd) in enumerate(sockets):
            os.dup2(fd, 3 + i)
    shell = f'LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names} exec "$@"'
    return subprocess.Popen(["sh", "-c", shell, "sh", *words], preexec_fn=place, start_new_session=True, stderr=log,
                            pass_fds=range(3, 3 + len(sockets)), stdin=subprocess.DEVNULL)


def stored(manager):
    """What FDSTORE=1 brought: [(name, fd)]."""
    found = []
    while len(found) < 2:
        text, fds, _, _ = socket.recv_fds(manager, 4096, 4)
        if b"FDSTORE=1" in text.split(b"\n"):
            name = next(line[7:] for line in text.split(b"\n") if line.startswith(b"FDNAME="))
            found.append((name.decode(), fds[0]))
    return found


def group_of(pid):
    """Its process group; None: it has just ended."""
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def both_killed():
    """agent and guard die at once: with the service manager's store opens wait; without one they are allowed"""
    with Guarded(source=HOLD) as w, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = str(w.dir / "notify")
        manager.bind(name)
        manager.settimeout(20)
        w.start_receiver()
        w.start_agent(env={**os.environ, "NOTIFY_SOCKET": name})
        w.ready()
        kept = stored(manager)
        path = w.camera("a.jpg", b"x")
        w.starts(1)
        for pid in (w.agent.pid, w.guard()):
            os.kill(pid, signal.SIGKILL)
        w.agent.popen.wait()
        camera, cat = many(w, w.lane_camera, path, 1), subprocess.Popen(["cat", path], stderr=subprocess.DEVNULL)
        for process in (camera, cat):
            until(lambda p=process: waits(p) or p.poll() is not None, 10, "it waits")
            check(process.poll() is None, "it was answered although there is no guard")
        with open(w.dir / "again.log", "wb") as log:
            again = given_by(kept, w.agent_words(), log)
        try:
            equal(answers(camera)["opened"], 1, "the camera's open")
            equal(cat.wait(30), 1, "cat")
            check("gap=no" in w.starts(2)[1], w.starts(2))
            pids = [p for p in guards() if group_of(p) == again.pid]
            for pid in (again.pid, *pids):
                os.kill(pid, signal.SIGKILL)
        finally:
            os.killpg(again.pid, signal.SIGKILL)
            again.wait()
        equal(cat.poll(), 1, "cat was denied")
        for _, fd in kept:
            os.close(fd)
        until(lambda: cat_reads(path), 10, "without any descriptor left opens are allowed")
        w.start_agent()
        w.said_again("agent.ready", 2)
        check("gap=unknown" in w.starts(3)[2], w.starts(3))


def leases():
    """a file with a write lease (as the wipe holds it) makes nobody wait for the guard but who opens that file"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        leased, other = w.camera("a.jpg", b"x"), w.camera("b.jpg", b"x")
        holder = subprocess.Popen([w.lane_camera, "lease", leased], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        equal(holder.stdout.readline(), b"leased\n", "the lease")
        for _ in range(10):
            stranger = many(w, w.stranger, leased, 20)
            until(lambda: stranger.poll() is not None or waits(stranger), 20, "the stranger asks")
            said = answers(many(w, w.lane_camera, other, 100))
            equal(said["opened"], 100, "the camera at another file")
            check(said["max_us"] < 10e6, f"it waited {said['max_us']} us")
            equal(answers(stranger)["refused"], 20, "a stranger at the leased file")
        holder.stdin.close()
        equal(holder.wait(20), 0, "the holder")
        equal(w.opens(w.lane_camera, "read", leased), True, "without the lease")


def upgrade():
    """the camera's program is replaced as a package upgrade does: its first open is allowed, the running one stays so"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        running = many(w, w.lane_camera, path, 3000, 1000)
        new = w.lane_camera.with_suffix(".new")
        for _ in range(3):
            shutil.copy(w.stranger, new)
            os.rename(new, w.lane_camera)
            equal(w.opens(w.lane_camera, "read", path), True, "the new program's first open")
        said = answers(running)
        equal((said["opened"], said["refused"]), (3000, 0), "the program that runs still")
        equal(w.opens(w.stranger, "read", path), False, "a stranger")
        shutil.copy(w.stranger, new)
        os.chmod(new, 0o777)
        os.rename(new, w.lane_camera)
        equal(w.opens(w.lane_camera, "read", path), False, "a program that anybody can change")
        check("can be changed by others than root" in w.agent.said(), "the log says why")


def let_go():
    """an allowed program whose rights let others change it later: denied within the refresh time, allowed again when that is mended"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        os.chmod(w.lane_camera, 0o777)
        until(lambda: not w.opens(w.lane_camera, "read", path), 10, "a program that anybody can change is denied")
        check("can be changed by others than root" in w.agent.said(), "the log says why")
        os.chmod(w.lane_camera, 0o755)
        until(lambda: w.opens(w.lane_camera, "read", path), 10, "it is allowed again")


def report():
    """report: everybody may, who is not allowed is noted; a newer policy makes it enforce, another ends it"""
    with Guarded(mode="report", source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        equal(cat_reads(path), True, "cat")
        noted = until(lambda: w.attempts("guard-noted"), 15, "noted")
        equal((len(noted), noted[0]["exe"]), (1, os.path.realpath("/usr/bin/cat")), "what was noted")
        equal(w.attempts("guard-denied"), [], "what was denied")
        w.policy["guard"]["mode"] = "enforce"
        w.publish()
        w.said_again("policy.loaded", 1)
        equal(cat_reads(path), False, "cat, enforced")
        equal(w.opens(w.lane_camera, "read", path), True, "the camera")
        w.policy["guard"]["allow"][0]["exe"] = str(w.stranger)
        w.publish()
        w.said_again("policy.loaded", 2)
        equal((w.opens(w.lane_camera, "read", path), w.opens(w.stranger, "read", path)), (False, True), "another program is allowed")
        w.policy["guard"]["allow"][0]["user"] = "nobody-of-this-name"
        w.publish()
        w.said_again("policy.refused", 1)
        check("there is no user nobody-of-this-name" in w.agent.said(), "the log says why")
        equal((w.opens(w.lane_camera, "read", path), w.opens(w.stranger, "read", path)), (False, True), "the former rules stay")
        del w.policy["guard"]
        w.publish()
        w.said_again("policy.loaded", 3)
        until(lambda: not w.guards(), 15, "the guard ends")
        equal(cat_reads(path), True, "cat, with no guard wanted")
        until(lambda: w.events("guard-lost"), 15, "its end is in the ledger")
        check("cause=policy" in w.events("guard-lost")[-1]["detail"], w.events("guard-lost"))


def seen_by_investigators():
    """the exposure report finds no gap while agent and guard run, also after kill -9, and the one that there was"""
    with Guarded(mode="report") as w:
        def span_without_gap(number):
            w.start_guarded()
            until(lambda: len(w.events("agent-started")) == number, 15, "it is in the ledger")
            first = time.time()
            w.camera(f"{number}.jpg", b"x")
            until(lambda: w.in_state("wiped") == 2 * number - 1, 20, "handed over")
            second = time.time()
            w.camera(f"again-{number}.jpg", b"x")
            until(lambda: w.in_state("wiped") == 2 * number, 20, "handed over")
            equal(notes_of(w, first, second) - {"opened"}, set(), "gaps while both run")

        span_without_gap(1)
        w.agent.kill_all()
        until(lambda: not w.guards(), 15, "both are gone")
        killed = time.time()
        span_without_gap(2)
        check("agent-down" in notes_of(w, killed, killed + 0.001), "nobody watched")


def notes_of(w, a, b):
    words = ["exposure", "--state", w.state, "--json"]
    for name, at in (("--from", a), ("--to", b)):
        words += [name, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(at))) + f".{int(at % 1 * 1e9):09d}Z"]
    return {o["note"] for o in map(json.loads, w.cede(*words, status=(0, 1)).splitlines()) if o["kind"] == "note"}


def impossible():
    """without CAP_SYS_ADMIN: enforce does not start and says why; report goes on and is loud about it"""
    unable = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    with Guarded(source=HOLD) as w:
        done = run(*unable, *w.agent_words())
        equal(done.returncode, 2, "status")
        check(b"CAP_SYS_ADMIN" in done.stderr, done.stderr)
        equal(w.guards(), [], "guards")
        w.policy["guard"]["mode"] = "report"
        w.write_files()
        w.agent = w.spawn("agent", *unable, *w.agent_words())
        w.ready()
        check("guard.lost" in w.agent.said() and "CAP_SYS_ADMIN" in w.agent.said(), "the log says it")
        until(lambda: w.events("guard-lost"), 15, "the ledger says it")
        check("cause=not-started" in w.events("guard-lost")[0]["detail"], w.events("guard-lost"))


def little_locked_memory():
    """under a limit on locked memory and without CAP_IPC_LOCK, as in a container: it guards all the same, and says what it lacks"""
    narrow = ["prlimit", "--memlock=8388608:8388608", "setpriv", "--bounding-set=-ipc_lock,-sys_resource", "--inh-caps=-ipc_lock,-sys_resource"]
    with Guarded(source=HOLD) as w:
        w.agent = w.spawn("agent", *narrow, *w.agent_words())
        w.ready()
        path = w.camera("a.jpg", b"x")
        equal((cat_reads(path), w.opens(w.lane_camera, "read", path)), (False, True), "root's cat, the camera")
        check("guard.memory" in w.agent.said(), "the log says that it may be swapped out")


def exchanged():
    """another directory takes the source's place, as at a vault's turn: both are guarded; .cede-vault is no stranger"""
    for shared in (False, True):
        with Guarded(source=HOLD, shared=shared) as w:
            store = w.disk / ".cede-vault" / "faces"
            store.mkdir(parents=True)
            w.start_guarded()
            marks = "file-systems=0 inodes=1" if shared else "file-systems=1 inodes=0"
            check(marks in w.starts(1)[0], w.starts(1))
            w.camera("old.jpg", b"x")
            (store / "next").mkdir()
            equal(run(w.lane_camera, "write", store / "next" / "new.jpg", data=b"x").returncode, 0, "the camera")
            until(lambda: not cat_reads(store / "next" / "new.jpg"), 10, "the new directory is guarded before its turn")
            os.rename(w.capture, store / "before")
            os.rename(store / "next", w.capture)
            equal(cat_reads(store / "before" / "old.jpg"), False, "the file in the former directory")
            equal(cat_reads(w.capture / "new.jpg"), False, "the file in the new directory")
            equal(w.opens(w.lane_camera, "read", w.capture / "new.jpg"), True, "the camera")


class GuardedVault(Guarded):
    """The source is a vault on a file system that it shares."""

    def __init__(self, epoch, **more):
        super().__init__(source={"quiet": "0s", "max_age": "1d", "vault": {"epoch": epoch, "keys": "memory"}}, shared=True, **more)

    def make_file_system(self, image):
        must("mkfs.ext4", "-q", "-F", "-O", "encrypt", image)


def ended_epoch():
    """a camera that goes on in a directory whose epoch has ended: what it makes there is guarded, also by the next guard and the next agent, and the epoch still ends"""
    with GuardedVault("4s", receiver=False) as w:
        w.start_guarded()
        w.said_again("vault.turned", 1)
        inside = os.open(w.capture, os.O_RDONLY | os.O_DIRECTORY)  # as an FTP session is in its root
        while w.agent.said().count("vault.turned") < 3:
            w.camera(f"a{time.monotonic_ns()}.jpg", b"a face")
            time.sleep(0.5)  # the camera's rate
        old = next(d for d in (w.disk / ".cede-vault" / "faces").iterdir() if d.stat().st_ino == os.fstat(inside).st_ino)
        key = old.name

        def lane_is_guarded(name):
            os.mkdir(name, dir_fd=inside)
            path = old / name / "n.jpg"
            equal(run(w.lane_camera, "write", path, data=b"plain face").returncode, 0, f"the camera in {name}")
            w.expect(f"{name}/n.jpg", b"plain face")
            until(lambda: not cat_reads(path), 10, f"root's cat in {name} is denied")
            equal(w.opens(w.lane_camera, "read", path), True, f"the camera reads in {name}")

        lane_is_guarded("lane9")
        lane_is_guarded("lane9/deeper")
        os.kill(w.guard(), signal.SIGKILL)
        w.starts(2)
        lane_is_guarded("lane10")
        equal(w.agent.stop(), 0, "exit status")
        w.start_agent()
        w.said_again("agent.ready", 2)
        equal(cat_reads(old / "lane9" / "n.jpg"), False, "root's cat, after a restart of the agent")
        os.close(inside)
        w.start_receiver()
        until(lambda: any(key in str(e) for e in w.events("vault-erased")), 60, "the key of the epoch is destroyed")


def make_chain(top, name, levels):
    """Directories in one another, deeper than one path can say. The descriptor of the last."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        next_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = next_fd
    return fd


def link_is_guarded(w, fd, name):
    """A capture that the camera writes in the directory: root's cat of another name of it is denied."""
    done = subprocess.run([w.lane_camera, "write", f"./{name}.jpg"], input=b"a face", preexec_fn=lambda: os.fchdir(fd), check=False)
    equal(done.returncode, 0, f"the camera writes {name}")
    os.link(f"{name}.jpg", w.disk / f"{name}-link.jpg", src_dir_fd=fd)
    until(lambda: not cat_reads(w.disk / f"{name}-link.jpg"), 10, f"{name} is guarded")


def guard_active(w):
    with urllib.request.urlopen(f"http://{w.config['metrics']}/metrics", timeout=5) as page:
        return next(line.split()[-1] for line in page.read().decode().splitlines() if line.startswith("cede_guard_active"))


def guard_words(w):
    """What the ledger tells of the guard: started, or the cause of its loss."""
    events = sorted(w.events("guard-started") + w.events("guard-lost"), key=lambda e: e["sequence"])
    return ["started" if e["kind"] == "guard-started" else e["detail"].split()[0].removeprefix("cause=") for e in events]


def deep():
    """a shared file system: directories as deep as a path can say are guarded; what lies deeper is reported, and neither start nor policy fails for it"""
    w = Guarded(source=HOLD, shared=True)
    w.config["metrics"] = f"127.0.0.1:{free_port()}"
    with w:
        before = make_chain(w.capture, "a", 2000)  # 3,999 bytes
        w.start_guarded()
        link_is_guarded(w, before, "before")
        os.close(before)
        after = make_chain(w.capture, "b", 2000)
        link_is_guarded(w, after, "after")
        equal("guard.unmarked" in w.agent.said(), False, "all of it is marked")
        until(lambda: guard_active(w) == "1", 10, "the metrics say that all is guarded")
        os.close(after)
        beyond = make_chain(w.capture, "c" * 200, 25)
        w.said_again("guard.unmarked", 1)
        check("parts=" in w.agent.said() and "4095 bytes" in w.agent.said(), "the log says what is not guarded")
        until(lambda: guard_active(w) == "0", 10, "the metrics say that not all is guarded")
        until(lambda: guard_words(w) == ["started", "unmarked"], 10, lambda: f"the ledger says that not all is guarded: {guard_words(w)}")
        seen = time.time()
        os.mkdir(w.capture / "lane")
        lane = os.open(w.capture / "lane", os.O_RDONLY | os.O_DIRECTORY)
        link_is_guarded(w, lane, "lane")
        w.policy["unmatched"]["max_age"] = "25h"
        w.publish()
        w.said_again("policy.loaded", 1)
        until(lambda: guard_words(w) == ["started", "unmarked"] * 2, 10, lambda: f"and so for the next policy: {guard_words(w)}")
        equal(w.agent.stop(), 0, "exit status")
        w.start_agent()
        w.said_again("agent.ready", 2)
        until(lambda: guard_words(w)[4:] == ["agent-stopped", "started", "unmarked"], 10, lambda: f"and the next agent: {guard_words(w)}")
        os.kill(w.guard(), signal.SIGKILL)
        until(lambda: guard_words(w)[7:] == ["process-ended", "started", "unmarked"], 10, lambda: f"and the next guard: {guard_words(w)}")
        equal(cat_reads(w.disk / "before-link.jpg"), False, "root's cat, after a restart of the agent")
        for fd in (beyond, lane):
            os.close(fd)
        shutil.rmtree(w.capture / ("c" * 200))
        os.rename(w.capture, w.disk / "aside")  # it is walked again when it is back
        os.rename(w.disk / "aside", w.capture)
        until(lambda: guard_active(w) == "1", 10, "the metrics say that all is guarded")
        until(lambda: guard_words(w)[10:] == ["started"], 10, lambda: f"the ledger says that all is guarded: {guard_words(w)}")
        seen, ended, later = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(s)) for s in (seen, time.time() + 1, time.time() + 3600))
        said = w.cede("exposure", "--state", w.state, "--from", seen, "--to", later, "--json", status=(0, 1))
        gaps = [n for n in map(json.loads, said.splitlines()) if n["kind"] == "note" and n["note"] == "guard-open"]
        check(gaps and gaps[0]["from"][:19] <= seen[:19] and gaps[-1]["to"][:19] <= ended[:19], f"the exposure report from {seen} to {ended}: {gaps}")


class ManyDirectories(Guarded):
    """A file system with room for them: they lie in their inodes."""

    def make_file_system(self, image):
        must("mkfs.ext4", "-q", "-F", "-O", "inline_data", "-N", 40000, image)


def wide():
    """a shared file system: 20,000 directories beside each other below a path of 3,000 bytes take a few megabytes of the guard, not 3,000 bytes each"""
    w = ManyDirectories(source=HOLD, shared=True)
    with w:
        at = make_chain(w.capture, "a" * 199, 15)  # 3,000 bytes
        for i in range(20_000):
            os.mkdir(f"{i:05d}", dir_fd=at)
        w.start_guarded()
        check("guard.unmarked" not in w.agent.said(), w.agent.said()[-400:])
        last = os.open("00000", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        link_is_guarded(w, last, "last")
        with open(f"/proc/{w.guard()}/status", encoding="ascii") as f:
            peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
        diag(f"the guard's memory at its peak: {peak} KiB")
        if not is_sanitized():
            check(peak < 24 << 10, f"the guard's memory at its peak: {peak} KiB")
        for fd in (at, last):
            os.close(fd)


def mounted_anew():
    """the file system is unmounted and mounted again while the agent runs: it is guarded again at once"""
    with Guarded(source=HOLD) as w:
        w.start_guarded()
        path = w.camera("a.jpg", b"x")
        check(run("umount", "-l", w.disk).returncode == 0, "umount")
        w.said_again("source.missing", 1)
        check(run("mount", w.device, w.disk).returncode == 0, "mount")
        until(lambda: not cat_reads(path), 10, "it is guarded again")
        equal(w.opens(w.lane_camera, "read", path), True, "the camera")


def moved_in():
    """a shared file system: what is moved or linked into the source is guarded by its other names, too"""
    with Guarded(source=HOLD, shared=True) as w:
        w.start_guarded()
        other = w.disk / "other"
        for name in ("moved", "linked", "folder"):
            (other / f"{name}.jpg").write_text("x") if name != "folder" else (other / name).mkdir()
        (other / "folder" / "inner.jpg").write_text("x")
        os.rename(other / "moved.jpg", w.capture / "moved.jpg")
        os.link(other / "linked.jpg", w.capture / "linked.jpg")
        os.rename(other / "folder", w.capture / "folder")
        os.link(w.capture / "moved.jpg", other / "again.jpg")
        os.link(w.capture / "folder" / "inner.jpg", other / "inner.jpg")
        for path in (w.capture / "moved.jpg", other / "again.jpg", other / "linked.jpg", w.capture / "folder" / "inner.jpg", other / "inner.jpg"):
            until(lambda p=path: not cat_reads(p), 10, f"{path} is guarded")
        os.unlink(w.capture / "linked.jpg")
        equal(cat_reads(other / "notes.txt"), True, "what lies beside the source")
        path = w.camera("folder/new.jpg", b"x")
        os.rename(w.capture / "folder", other / "gone")
        equal(cat_reads(other / "gone" / "new.jpg"), False, "in a directory that was moved out")


def slept():
    """a machine that sleeps right after the agent's start: the guard is not taken for one that hangs"""
    library = build_dir() / "tests" / "fault" / "clock.so"
    if not library.is_file():
        raise Skip("the clock library is not part of a sanitized build")
    with Guarded() as w:
        page = w.dir / "clock"
        page.write_bytes(bytes(16))
        w.start_receiver()
        w.start_agent(env={**os.environ, "LD_PRELOAD": str(library), "CEDE_CLOCK": str(page), "CEDE_CLOCK_ALL": "1"})
        w.ready()
        guard = w.guard()
        with open(page, "r+b") as f:
            f.write(struct.pack("<qq", 3600 * 10**9, 3600 * 10**9))  # all clocks: an hour has passed
        for i in range(40):
            w.camera(f"{i:02d}.jpg", b"content %d" % i)
            time.sleep(0.05)  # the camera's rate: the keeper looks at its guard meanwhile
        w.settled()
        equal(w.guard(), guard, "the guard's process")
        check("guard.lost" not in w.agent.said(), "the guard was taken for lost")


if __name__ == "__main__":
    tap.run([slept, every_way_whole_file_system, every_way_shared_file_system, recorded, end_to_end, opens_without_a_wrong_answer,
             flood, killed, stopped, keeper_killed, both_killed, leases, upgrade, let_go, report, seen_by_investigators, impossible, little_locked_memory, exchanged, ended_epoch, deep, wide, mounted_anew, moved_in], at_once=3)
