#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The receiver as a fortress: what it promises is on the disk, whatever kills it; what is malformed,
foreign, slow or too much is refused, told, and costs it little. Raw HTTP over TLS and over the UNIX
socket; nothing of the agent but where a test says so."""

import contextlib
import hashlib
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import stock
import tap
from clocks import Lapse
from raw import Client, Front, digest, head, issue, new_id, path, put
from servers import Ca
from tap import Failure, Skip, check, equal
from tracing import Strace
from world import World, program, until

MEMORY_MOST_KB = 128 << 10
FILES_MOST = 512 + 3 * 64 + 64  # connections, uploads with their folders, and the rest
DAY_S = 86400


class Behind(World):
    """A receiver on a UNIX socket, as it stands behind nginx."""

    def __init__(self, **more):
        super().__init__(**more)
        self.socket = self.dir / "receiver.sock"
        self.receiver_config = {"listen": f"unix:{self.socket}", "store": "store", "receipts": {"key": "pki/receipt.key"}}

    def start_receiver(self):
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        self.receiver = self.spawn("receiver", program("cede-receiver"), "--config", self.dir / "receiver.yaml")
        self.listening(self.receiver, self.socket)
        return self.receiver


def files(w):
    """Everything in the store, relative to it."""
    return sorted(str(p.relative_to(w.store)) for p in w.store.rglob("*") if not p.is_dir())


def bundles(w, ending=".cms"):
    return [f for f in files(w) if f.endswith(ending)]


def place(w, bundle, ending, host="dev-host-1"):
    day = time.strftime("%Y/%m/%d", time.gmtime(int(bundle[:8] + bundle[9:13], 16) / 1000))
    return w.store / host / day / f"{bundle}{ending}"


def must_prove(w, note, bundle, body, host="dev-host-1"):
    """The note is a receipt for exactly this, checked with openssl."""
    with tempfile.TemporaryDirectory(prefix="cede-proof-") as work:
        work = pathlib.Path(work)
        (work / "note").write_bytes(note)
        said = stock.read_receipt(work / "note", w.pki / "receipt.pub", work)
    said.pop("received")
    said.pop("checkpoint", None)  # of the agent that pushes as well
    equal(said, {"type": "cede-receipt/1", "bundle": bundle, "host": host, "size": str(len(body)),
                 "sha256": hashlib.sha256(body).hexdigest()}, "the receipt")


def must_work(client, w, host="dev-host-1"):
    """An honest push still goes through."""
    bundle, body = new_id(), os.urandom(5000)
    a = client.push(bundle, body)
    check(a is not None and a.status == 201, f"an honest push: {a}")
    must_prove(w, a.body, bundle, body, host)
    equal(place(w, bundle, ".cms", host).read_bytes(), body, "what is stored")


def figures(w):
    """(most memory in kB, open descriptors)"""
    with open(f"/proc/{w.receiver.pid}/status", encoding="ascii") as f:
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", f.read())[1])
    return peak, len(os.listdir(f"/proc/{w.receiver.pid}/fd"))


def must_be_small(w, most_kb=MEMORY_MOST_KB):
    check(w.receiver.alive(), "the receiver is alive")
    peak, fds = figures(w)
    tap.diag(f"VmHWM {peak} kB, {fds} descriptors")
    check(peak < most_kb, f"VmHWM {peak} kB, more than {most_kb}")
    check(fds <= FILES_MOST, f"{fds} descriptors")


# ---- durable before it says so

def calls_until_answer(w, ask, status):
    """(thread, call, rest) of the thread that answered, up to its answer."""
    with Strace(w.receiver.pid, w.dir, "-y", "-e", "trace=openat,mkdirat,write,pwrite64,linkat,unlinkat,fsync,fdatasync,sendto,sendmsg,writev") as s:
        ask()
        lines = [re.match(r"(\d+)\s+(\w+)\((.*)", line) for line in s.lines()]
    calls = [m.groups() for m in lines if m]
    at = [i for i, (_, name, rest) in enumerate(calls)
          if name in ("sendto", "sendmsg", "writev") and f"HTTP/1.1 {status}" in rest]
    equal(len(at), 1, f"answers {status} seen by strace")
    thread = calls[at[0]][0]
    return [(name, rest) for t, name, rest in calls[:at[0]] if t == thread]


def flushed(calls, after, where):
    """Whether a flush of this path comes after that place in the trace."""
    return any(name in ("fsync", "fdatasync") and re.match(rf"\d+<{re.escape(str(where))}>", rest)
               for name, rest in calls[after + 1:])


def durable_first():
    """content, both names and every new folder are flushed, in that order, before the 201 goes out"""
    with Behind() as w:
        w.start_receiver()
        client, bundle, body = Front(w), new_id(), os.urandom(3 << 20)
        made = []
        calls = calls_until_answer(w, lambda: made.append(client.push(bundle, body)), 201)
        equal(made[0].status, 201, "status")
        cms = place(w, bundle, ".cms")
        links = [i for i, (name, rest) in enumerate(calls) if name == "linkat"]
        equal([".cms" in calls[i][1] for i in links], [True, False], "the bundle's name, then the receipt's")
        nameless = re.search(r'/proc/self/fd/(\d+)"', calls[links[0]][1])[1]
        content = [i for i, (name, rest) in enumerate(calls) if name in ("write", "pwrite64") and rest.startswith(f"{nameless}<")]
        check(len(content) >= 3, f"{len(content)} writes of the content")
        check(any(name in ("fsync", "fdatasync") and rest.startswith(f"{nameless}<") for name, rest in calls[content[-1]:links[0]]),
              "the content is flushed before it gets its name")
        check(flushed(calls, links[1], cms.parent), "the folder is flushed behind both names")
        # the first of this host and day made four folders: each one's name is flushed, too
        for folder in (cms.parent, *list(cms.parents)[1:4]):
            made_at = [i for i, (name, rest) in enumerate(calls) if name == "mkdirat" and
                       re.match(rf'\d+<{re.escape(str(folder.parent))}>, "{folder.name}"', rest)]
            equal(len(made_at), 1, f"mkdir of {folder.name}")
            check(flushed(calls, made_at[0], folder.parent), f"the name of {folder.name} is flushed")
        equal(cms.read_bytes(), body, "what is stored")
        # two flushes for every further one
        again = calls_until_answer(w, lambda: client.push(new_id(), body), 201)
        equal(sum(name in ("fsync", "fdatasync") for name, _ in again), 2, "flushes of a further bundle")


def durable_before_an_old_receipt():
    """a receipt from before a crash is told again only when its names were flushed"""
    with Behind() as w:
        w.start_receiver()
        client, bundle, body = Front(w), new_id(), os.urandom(1000)
        equal(client.push(new_id(), body).status, 201, "the first push")  # the day is known: two flushes from now on
        with Strace(w.receiver.pid, w.dir, "-e", "inject=fsync:signal=KILL:when=2"):
            check(client.push(bundle, body) is None, "killed at the second flush")
        until(lambda: not w.receiver.alive(), 10, "the receiver is dead")
        check(place(w, bundle, ".receipt").exists(), "both names are there, and the folder was never flushed")
        w.start_receiver()
        got = []
        calls = calls_until_answer(w, lambda: got.append(client.receipt(bundle)), 200)
        must_prove(w, got[0].body, bundle, body)
        check(flushed(calls, -1, place(w, bundle, ".cms").parent), "the folder is flushed before the receipt goes out")


def tombstone_durable_first():
    """the promise never to take an id is flushed before the 204 goes out"""
    with Behind() as w:
        w.start_receiver()
        client, bundle = Front(w), new_id()
        calls = calls_until_answer(w, lambda: client.abandon(bundle), 204)
        linked = [i for i, (name, rest) in enumerate(calls) if name == "linkat" and ".abandoned" in rest]
        equal(len(linked), 1, "names of tombstones")
        check(flushed(calls, linked[0], place(w, bundle, ".cms").parent), "its folder is flushed")


# ---- killed at every call

CHANGING = ("openat", "mkdirat", "write", "pwrite64", "linkat", "unlinkat", "fsync", "fdatasync", "ftruncate", "renameat",
            "renameat2", "sendto", "sendmsg", "writev")
_years = itertools.cycle(range(1, 200))


def another_year():
    """An id of a year that no test has used: its folders are made anew."""
    return new_id(time.time() + 366 * DAY_S * next(_years))


def calls_of(w, ask):
    """(call, how many) of one request, in the thread that has most of them."""
    with Strace(w.receiver.pid, w.dir, "-e", "trace=" + ",".join(CHANGING)) as s:
        ask()
        seen = [re.match(r"(\d+)\s+(\w+)\(", line) for line in s.lines()]
    count = {}
    for m in filter(None, seen):
        count.setdefault(m[1], {}).setdefault(m[2], 0)
        count[m[1]][m[2]] += 1
    return max(count.values(), key=lambda c: sum(c.values()))


def nothing_strange(w, bodies):
    """Each bundle is whole, and there are no files but bundles, receipts and tombstones."""
    for f in files(w):
        p = w.store / f
        check(p.suffix in (".cms", ".receipt", ".abandoned"), f"left over: {f}")
        if p.suffix == ".cms":
            equal(hashlib.sha256(p.read_bytes()).digest(), hashlib.sha256(bodies[p.stem]).digest(), f"content of {f}")
        if p.suffix == ".receipt":
            check(p.with_suffix(".cms").exists(), f"a receipt that stands alone: {f}")


def killed_everywhere(w, client, ask, after):
    """ask(bundle) is killed at each call in turn; after(bundle, answer) looks at what is there then."""
    w.start_receiver()
    moments = calls_of(w, lambda: ask(another_year()))
    w.receiver.kill()
    total = missed = 0
    for call, count in sorted(moments.items()):
        for n in range(1, count + 1):
            bundle = another_year()
            w.start_receiver()
            with Strace(w.receiver.pid, w.dir, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}"):
                answer = ask(bundle)
            if answer is None:
                until(lambda: not w.receiver.alive(), 10, f"killed at {call} {n}")
            w.receiver.kill()  # the first made one folder more, or the log's line came after the answer
            total, missed = total + 1, missed + (answer is not None)
            w.start_receiver()
            after(bundle, answer)
            w.receiver.kill()
    tap.diag(f"{total} moments: {moments}; {missed} of them came when the answer was out")
    check(missed * 4 <= total, f"{missed} of {total} moments came too late")
    return moments


def kill_at_every_call_of_a_push():
    """kill -9 at every call of an upload that changes something: whole with a receipt, or not there and welcome"""
    with World() as w:
        client, bodies, outcome = Client(w), {}, {"stored": 0, "not": 0}

        def push(bundle):
            bodies[bundle] = os.urandom(700000)
            return client.push(bundle, bodies[bundle])

        def after(bundle, answer):
            nothing_strange(w, bodies)
            stored = place(w, bundle, ".cms").exists()
            outcome["stored" if stored else "not"] += 1
            check(stored or answer is None, "201 was said, and nothing is there")
            if not stored:
                equal(client.receipt(bundle).status, 404, "status of its receipt")
                equal(push(bundle).status, 201, "status of the second push")
            else:
                equal(client.push(bundle, bodies[bundle]).status, 412, "status of the second push")
            must_prove(w, client.receipt(bundle).body, bundle, bodies[bundle])
            nothing_strange(w, bodies)

        moments = killed_everywhere(w, client, push, after)
        check(all(moments.get(c) for c in ("openat", "mkdirat", "write", "linkat", "unlinkat", "fsync")), f"calls: {moments}")
        check(outcome["stored"] > 2 and outcome["not"] > 10, f"outcomes: {outcome}")


def kill_at_every_call_of_a_promise():
    """kill -9 at every call of a DELETE: the id is refused for ever, or was never given up"""
    with World() as w:
        client, bodies = Client(w), {}

        def after(bundle, answer):
            nothing_strange(w, bodies)
            given_up = place(w, bundle, ".abandoned").exists()
            check(given_up or answer is None, "204 was said, and nothing is there")
            bodies[bundle] = b"bytes"
            equal(client.push(bundle, b"bytes").status, 410 if given_up else 201, "status of a push")

        killed_everywhere(w, client, client.abandon, after)


def kill_at_every_call_of_a_new_receipt():
    """kill -9 while a lost receipt is made again: there is always one to be had"""
    with World() as w:
        client, body, bodies = Client(w), b"bytes", {}

        def ask(bundle):
            cms = place(w, bundle, ".cms")
            cms.parent.mkdir(parents=True)
            cms.write_bytes(body)
            cms.with_suffix(".receipt").write_bytes(b"damaged")
            bodies[bundle] = body
            return client.receipt(bundle)

        def after(bundle, _):
            nothing_strange(w, bodies)
            must_prove(w, client.receipt(bundle).body, bundle, body)

        killed_everywhere(w, client, ask, after)


# ---- once

def same_bytes_again():
    """the same bundle again: 412, the receipt by GET, and nothing is written"""
    with World() as w:
        w.start_receiver()
        client, bundle, body = Client(w), new_id(), os.urandom(100000)
        first = client.push(bundle, body)
        equal(first.status, 201, "status")
        was = {f: (w.store / f).stat().st_mtime_ns for f in files(w)}
        for _ in range(3):
            equal(client.push(bundle, body).status, 412, "status of the same again")
            equal(client.receipt(bundle).body, first.body, "the receipt")
        equal({f: (w.store / f).stat().st_mtime_ns for f in files(w)}, was, "the store")
        equal(client.abandon(bundle).status, 409, "status of a DELETE")
        check("SECURITY" not in w.receiver.said(), "no security event for what is usual")


def other_bytes_under_an_id():
    """other bytes under an id that is stored: 409, a security event, the original untouched"""
    with World() as w:
        w.start_receiver()
        client, bundle, body = Client(w), new_id(), os.urandom(100000)
        first = client.push(bundle, body)
        was = {f: (w.store / f).stat().st_mtime_ns for f in files(w)}
        for other in (os.urandom(100000), body[:-1], body + b"x"):
            before = w.receiver.said().count("SECURITY")
            equal(client.push(bundle, other).status, 409, "status")
            equal(w.receiver.said().count("SECURITY"), before + 1, "lines about it")
        place(w, bundle, ".receipt").unlink()  # without one the bundle itself is looked at
        equal(client.push(bundle, body[::-1]).status, 409, "status without a receipt")
        check(re.search(rf"error: bundle\.contradicted host=dev-host-1 bundle={bundle} status=409 error=\"SECURITY", w.receiver.said()),
              "the line says which")
        equal(place(w, bundle, ".cms").read_bytes(), body, "the original")
        must_prove(w, client.receipt(bundle).body, bundle, body)
        now = {f: (w.store / f).stat().st_mtime_ns for f in files(w)}
        cms = str(place(w, bundle, ".cms").relative_to(w.store))
        equal((now.keys(), now[cms]), (was.keys(), was[cms]), "the store")
        equal(first.status, 201, "status of the original")


def two_at_once():
    """many pushes of one id at the same time: one is stored, every other is told to wait or has its receipt"""
    with World() as w:
        w.start_receiver()
        client, bundle, body = Client(w), new_id(), os.urandom(2 << 20)
        got, lock = [], threading.Lock()

        def push():
            a = client.push(bundle, body)
            with lock:
                got.append(a.status if a else None)

        threads = [threading.Thread(target=push) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        equal(len(got), 12, "answers")
        equal(got.count(201), 1, f"stored once: {got}")
        check(set(got) <= {201, 412, 503}, f"statuses: {got}")
        equal(bundles(w), [str(place(w, bundle, ".cms").relative_to(w.store))], "bundles")


def after_a_reinstall():
    """an agent that lost its ledger stops until the agency lets it begin anew; then what still lies there goes under new ids"""
    with World(policy={"holds": [{"id": "case-7", "sources": ["faces"], "until": "2090-01-01T00:00:00Z"}]}) as w:
        w.start()
        wanted = {}
        for name, content in cameras.roll(5, 10, "lane1"):
            w.write(name, content, want=False)
            wanted[name] = content
        held = lambda: w.counts()[0].get("held") == len(wanted)  # noqa: E731
        until(held, 60, lambda: f"handed over and held: {w.counts()}", each=0.1)
        w.idle()
        equal(w.agent.stop(), 0, "exit status")
        before = bundles(w)
        shutil.rmtree(w.state)
        w.start_agent()
        until(lambda: not w.agent.alive(), 60, "the agent stops: its ledger is not what the agency has seen")
        check("checkpoint.refused host=dev-host-1 reason=another-key" in w.receiver.said(), w.receiver.said()[-400:])
        for name in ("checkpoints", "ledger.pub"):
            (w.store / "dev-host-1" / name).rename(w.dir / name)
        w.start_agent()
        until(held, 60, lambda: f"handed over again: {w.counts()}", each=0.1)
        w.idle()
        now = bundles(w)
        check(len(now) > len(before) and set(before) < set(now), f"bundles before {len(before)}, now {len(now)}")
        into = w.dir / "opened"
        done = subprocess.run([program("cede-receiver"), "open", *(str(w.store / b) for b in now), "--key", str(w.pki / "seal.key"),
                               "--cert", str(w.pki / "seal.pem"), "--into", str(into)], capture_output=True, text=True, timeout=60)
        check(done.returncode == 0, f"cede-receiver open: {done.stdout}{done.stderr}")
        opened = {str(p.relative_to(into / "faces")): p.read_bytes() for p in (into / "faces").rglob("*") if p.is_file()}
        equal(opened.keys(), wanted.keys(), "names")
        equal(opened, wanted, "content")
        equal(len(list(into.glob("*.manifest.json"))), len(now), "manifests: both copies are told")


# ---- no room

@contextlib.contextmanager
def small_disk(w, options):
    if os.geteuid() != 0:
        raise Skip("only root may mount a small file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(w.store)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        for process in w.processes:
            process.kill_all()
        subprocess.run(["umount", str(w.store)], check=True)


def disk_full():
    """a full disk: 507, no receipt, nothing of it stays; goes on when there is room"""
    with World() as w, small_disk(w, "size=8m,mode=0700"):
        w.start_receiver()
        client, first, bundle = Client(w), new_id(), new_id()
        body = os.urandom(6 << 20)
        equal(client.push(first, os.urandom(5 << 20)).status, 201, "status with room")
        was, room = files(w), os.statvfs(w.store).f_bfree
        for _ in range(3):
            equal(client.push(bundle, body).status, 507, "status without")
            equal(client.receipt(bundle).status, 404, "status of its receipt")
        equal(files(w), was, "files")
        check(abs(os.statvfs(w.store).f_bfree - room) <= 4, "the room is free again")
        must_work(client, w)
        check(re.search(rf"request\.refused host=dev-host-1 bundle={bundle} status=507 error=\".*No space left", w.receiver.said()),
              "the log says so")
        for ending in (".cms", ".receipt"):  # the agency takes a bundle away
            place(w, first, ending).unlink()
        a = client.push(bundle, body)
        equal(a.status, 201, "status when there is room")
        must_prove(w, a.body, bundle, body)


def no_room_for_names():
    """no room for another file: 507, nothing of it stays; goes on when there is room"""
    for inodes in (11, 12):  # none left, or one: for the bundle and not for its receipt
        with World() as w, small_disk(w, f"size=8m,nr_inodes={inodes},mode=0700"):
            w.start_receiver()
            client, got = Client(w), []
            while not got or got[-1] == 201:
                check(len(got) < inodes, f"the disk never gets full: {got}")
                bundle = new_id()
                got.append(client.push(bundle, b"small").status)
            equal(got, [201, 201, 201, 507], "statuses")
            equal(client.receipt(bundle).status, 404, "status of its receipt")
            if inodes == 11:
                equal(client.abandon(bundle).status, 507, "status of a promise that finds no room")
            equal((len(bundles(w)), len(files(w))), (3, 6), "bundles, and files")
            for f in files(w)[:2]:
                (w.store / f).unlink()
            equal(client.push(bundle, b"small").status, 201, "status when there is room")


def errors_of_the_disk():
    """a quota or an I/O error at any call: 507 or 500, nothing is promised, nothing stays, and it can come again"""
    with World() as w:
        w.start_receiver()
        client = Client(w)
        body = os.urandom(1000)
        cases = [(f"{call}:error={error}:when={n}", 507 if error == "EDQUOT" else 500)
                 for call, most in (("fsync", 7), ("linkat", 2), ("mkdirat", 3))
                 for n in range(1, most + 1) for error in (("EDQUOT", "EIO") if n in (1, most) else ("EIO",))]
        for inject, status in cases:
            bundle = another_year()
            was = files(w)
            with Strace(w.receiver.pid, w.dir, "-e", f"trace={inject.split(':')[0]}", "-e", f"inject={inject}"):
                equal(client.push(bundle, body).status, status, f"status with {inject}")
                equal(files(w), was, f"files after {inject}")
            equal(client.receipt(bundle).status, 404, f"status of the receipt after {inject}")
            a = client.push(bundle, body)
            equal(a.status, 201, f"status of the next after {inject}")
            must_prove(w, a.body, bundle, body)


# ---- whose is it

def others_bundles():
    """a host's certificate writes and reads under its own name alone, and learns nothing of others"""
    with World() as w:
        w.start_receiver()
        mine, bundle, body = Client(w), new_id(), os.urandom(1000)
        other = Client(w, issue(w, "other-host"))
        first = mine.push(bundle, body)

        def telling(a):
            return a.status, {k: v for k, v in a.headers.items() if k != "date"}, a.body

        equal(telling(other.receipt(bundle)), telling(other.receipt(new_id())), "another's bundle and one that never was")
        a = other.push(bundle, b"mine")
        equal(a.status, 201, "the same id under its own name")
        must_prove(w, a.body, bundle, b"mine", "other-host")
        second = new_id()
        mine.push(second, body)
        equal(other.abandon(second).status, 204, "status of giving up its own id")
        equal(place(w, bundle, ".cms").read_bytes(), body, "what the first host stored")
        equal(mine.receipt(bundle).body, first.body, "its receipt")
        equal(mine.push(second, body).status, 412, "its second bundle is there")
        equal(sorted(f.split("/")[0] for f in files(w)), ["dev-host-1"] * 4 + ["other-host"] * 3, "hosts")
        for target in (f"/v1/bundles/../dev-host-1/{bundle}/receipt", f"/dev-host-1/{path(bundle, True)}",
                       f"/v1/bundles/dev-host-1/{bundle}/receipt"):
            equal(other.ask(head("GET", target)).status, 404, target)
        equal(other.ask(head("GET", path(bundle, True), "X-Client-Subject: CN=dev-host-1")).body, a.body,
              "over TLS a front's header means nothing")


def strangers():
    """no certificate, another CA's, a server's, one that is over, a name that is no host id: 403 and a line in the log"""
    with World() as w:
        w.start_receiver()
        bundle = new_id()
        ca = Ca(w.dir / "own")
        for name, words in (("foreign", {}), ("late", {"end": "20260201000000Z"})):
            ca.issue(name, kind="client", **words)
        for name in (".hidden", "a b", "x" * 64 + ".key"):
            with contextlib.suppress(Failure):
                issue(w, name)
        clients = {"no certificate": Client(w, None), "another CA's": Client(w, "foreign", ca.dir), "a server's": Client(w, "server"),
                   "hidden": Client(w, ".hidden"), "space": Client(w, "a b")}
        for number, (name, client) in enumerate(clients.items(), 1):
            for data in (put(bundle, b"bytes"), head("GET", path(bundle, True)), head("DELETE", path(bundle)), head("GET", "/healthz")):
                a = client.ask(data)
                check(a is not None and (a.status, a.body) == (403, b""), f"{name}: {a}")
            equal(len(re.findall(r"request\.refused host=- bundle=- status=403", w.receiver.said())), 4 * number, f"lines for {name}")
        equal(files(w), [], "files")
        must_work(Client(w), w)
        # its own CA for clients: what was good once is over
        w.receiver.stop()
        shutil.copy(ca.pem, w.pki / "clients.pem")
        w.receiver_config["clients"]["ca"] = "pki/clients.pem"
        w.write_files()
        w.start_receiver()
        equal(Client(w, "late", ca.dir).ask(head("GET", "/healthz")).status, 403, "status of a certificate that is over")
        equal(Client(w, "foreign", ca.dir).ask(head("GET", path(bundle, True))).status, 404, "status of a good one (CN=localhost)")


def forged_subjects():
    """behind a front: subjects that are missing, double, escaped or no host id: 403"""
    with Behind() as w:
        w.start_receiver()
        good = "X-Client-Subject: CN=dev-host-1"
        for lines in ((), (good, good), (good, "X-Client-Subject: CN=x"), ("X-Client-Subject: CN=x", "x-client-subject: CN=y"),
                      ("X-Client-Subject: ",), ("X-Client-Subject: CN=a,CN=b",), ("X-Client-Subject: CN=a\\,CN=b",),
                      ("X-Client-Subject: CN=..",), ("X-Client-Subject: CN=../x",), ("X-Client-Subject: CN=a/b",),
                      ("X-Client-Subject: /CN=a/CN=b",), ("X-Client-Subject: O=x",), ("X-Client-Subject: CN=" + "x" * 65,),
                      ("X-Client-Subject: CN=a+CN=b",), ('X-Client-Subject: CN="a"',), ("X_Client_Subject: CN=a",)):
            with Front(w).open() as wire:
                equal(wire.ask(head("PUT", path(new_id()), *lines, "Content-Length: 5", f"Repr-Digest: {digest(b'bytes')}",
                                    "If-None-Match: *") + b"bytes").status, 403, lines)
        equal(files(w), [], "files")
        must_work(Front(w), w)


# ---- what is asked for

def odd_paths(bundle):
    return [f"%30{bundle[1:]}", f"{bundle}%00", f"{bundle}%2f", f"{bundle}%2Freceipt", f"{bundle}/", f"{bundle}/receipt/", f"{bundle}//receipt",
            f"{bundle}/receipts", f"{bundle}?", f"{bundle}?a=b", f"{bundle}/receipt?x=1", f"{bundle}#x", f"{bundle};x", bundle.upper(),
            bundle.replace("-", ""), f"{{{bundle}}}", f"../{bundle}", f"..%2f{bundle}", f"%2e%2e/{bundle}", f"%2E%2E%2F{bundle}",
            f"./{bundle}", f"/{bundle}", f"//{bundle}", f"{bundle}/..", f"{bundle}/../{bundle}", f"{bundle}%", f"{bundle}%zz", f"%u002e{bundle}",
            f"..\\{bundle}", "", ".", "..", "%2e%2e", "/", bundle + bundle, "x" * 36, "0" * 36, "x" * 4000, "../" * 1000 + "etc/passwd",
            "%2e%2e%2f" * 1000, "\xff\xfe", "%ff%fe", bundle[:-1], bundle[:14] + "4" + bundle[15:], "ffffffff-ffff-7fff-8000-000000000000",
            bundle[:-1] + "g", f"{bundle}\t", f"{bundle}\x0b", "*", "${jndi:x}", "';--"]


def path_tricks():
    """ids and paths in any other spelling: 400, 404 or 405, and nothing appears anywhere"""
    for kind, world in (("TLS", World), ("socket", Behind)):
        with world() as w:
            w.start_receiver()
            client, bundle = (Client if kind == "TLS" else Front)(w), new_id()
            for odd in odd_paths(bundle):
                target = f"/v1/bundles/{odd}"
                for data in (head("PUT", target, "Content-Length: 5", f"Repr-Digest: {digest(b'bytes')}", "If-None-Match: *") + b"bytes",
                             head("DELETE", target), head("GET", target)):
                    a = client.ask(data)
                    method = data.split(b" ")[0].decode()
                    if odd == f"{bundle}?" and method != "GET":  # an empty query is none; the id is its own
                        check(a.status in (201, 204, 410), f"{kind} {method} {odd[:60]!r}: {a}")
                        for f in files(w):
                            check(f.startswith(f"dev-host-1/20") and bundle in f, f)
                            (w.store / f).unlink()
                        continue
                    check(a is not None and a.status in (400, 404, 405), f"{kind} {method} {odd[:60]!r}: {a}")
                    equal(a.body if a.status != 400 or a.body.startswith(b"<") is False else b"", b"", f"body of {odd[:60]!r}")
            equal(files(w), [], "files")
            equal([str(p) for p in w.store.iterdir() if p.name != "dev-host-1"], [], "folders")
            must_work(client, w)


def targets_and_methods():
    """other targets, methods and versions: refused with the status that says it"""
    with Behind() as w:
        w.start_receiver()
        client, bundle = Front(w), new_id()
        receipt, plain = path(bundle, True), path(bundle)
        cases = [("GET", plain, 405), ("POST", plain, 405), ("HEAD", receipt, 405), ("PUT", receipt, 405), ("DELETE", receipt, 405),
                 ("PATCH", plain, 405), ("put", plain, 405), ("PROPFIND", plain, 405), ("X" * 2000, plain, 405), ("GET", "/", 404), ("GET", "*", 404),
                 ("OPTIONS", "*", 404), ("TRACE", "/", 404), ("CONNECT", "localhost:443", 404), ("GET", f"https://localhost{receipt}", 404),
                 ("GET", f"http://evil.example{receipt}", 404), ("PUT", f"https://localhost{plain}", 404), ("GET", "/healthz/", 404),
                 ("GET", "/v1", 404), ("GET", "/v2/bundles/x", 404), ("GET", "/healthz", 200), ("GET", receipt, 404)]
        for method, target, status in cases:
            a = client.ask(head(method, target))
            equal(a.status, status, f"{method[:20]} {target}")
            equal("allow" in a.headers, status == 405, f"Allow of {method[:20]} {target}")
        said = w.receiver.said()
        for words in ("evil.example", "PROPFIND", "healthz/"):
            check(words not in said, f"the client's words are in the log: {words}")
        line = head("GET", receipt)
        for version, status in (("HTTP/0.9", 505), ("HTTP/1.0", 404), ("HTTP/2.0", 505), ("HTTP/9.9", 505), ("http/1.1", 400), ("HTTP/1.1 x", 400),
                                ("", 400), ("FTP/1.1", 400), ("HTTP/1.1\0", 400)):
            equal(client.ask(line.replace(b"HTTP/1.1", version.encode())).status, status, f"version {version!r}")
        equal(files(w), [], "files")
        must_work(client, w)


# ---- bodies and headers

BODY = b"b" * 1000


def push_with(*lines, length="1000", digest_line=True, condition=True, bundle=None):
    return head("PUT", path(bundle or new_id()), *([] if length is None else [f"Content-Length: {length}"]),
                *([f"Repr-Digest: {digest(BODY)}"] if digest_line else []), *(["If-None-Match: *"] if condition else []), *lines) + BODY


def malformed():
    chunks = b"3e8\r\n" + BODY + b"\r\n0\r\n\r\n"
    other = digest(b"other")
    return [
        ("no length", push_with(length=None), 411), ("empty length", push_with(length=""), 400), ("length 0", push_with(length="0"), 400),
        ("length +1000", push_with(length="+1000"), 400), ("length -1", push_with(length="-1"), 400),
        ("length 0x3e8", push_with(length="0x3e8"), 400), ("length 01000", push_with(length="01000"), 400),
        ("length 1000, 1000", push_with(length="1000, 1000"), 400), ("length 1e3", push_with(length="1e3"), 400),
        ("length with a space in it", push_with(length="10 00"), 400),
        ("length of 64 bits and more", push_with(length="18446744073709551616"), 413),
        ("largest length", push_with(length="18446744073709551615"), 413), ("a byte too long", push_with(length=str((80 << 20) + 1)), 413),
        ("length twice, the same", push_with("Content-Length: 1000"), 400), ("length twice", push_with("Content-Length: 5"), 400),
        ("length twice, other case", push_with("content-length: 5"), 400),
        ("chunked", push_with("Transfer-Encoding: chunked", length=None)[:-1000] + chunks, 411),
        ("chunked and length", push_with("Transfer-Encoding: chunked")[:-1000] + chunks, 411),
        ("chunked, other case", push_with("transfer-encoding: CHUNKED")[:-1000] + chunks, 411),
        ("chunked twice", push_with("Transfer-Encoding: chunked", "Transfer-Encoding: identity")[:-1000] + chunks, 400),
        ("identity and length", push_with("Transfer-Encoding: identity"), 411),
        ("gzip, chunked", push_with("Transfer-Encoding: gzip, chunked")[:-1000] + chunks, 411),
        ("a space before the colon", push_with("Transfer-Encoding : chunked"), 400),
        ("length with a space before the colon", push_with("Content-Length : 1000", length=None), 400),
        ("a folded line", push_with("X-One: a", "\tTransfer-Encoding: chunked"), 400),
        ("a bare CR", push_with("X-One: a\rTransfer-Encoding: chunked"), 400),
        ("a control character", push_with("X-One: a\x01b"), 400), ("a name with a space", push_with("X One: a"), 400),
        ("no name", push_with(": a"), 400),
        ("no Host", push_with().replace(b"Host: localhost\r\n", b""), 400), ("Host twice", push_with("Host: other"), 400),
        ("no Repr-Digest", push_with(digest_line=False), 400), ("Repr-Digest twice", push_with(f"Repr-Digest: {other}"), 400),
        ("Repr-Digest: md5", push_with("Repr-Digest: md5=:AAAAAAAAAAAAAAAAAAAAAA==:", digest_line=False), 400),
        ("Repr-Digest in hexadecimal", push_with(f"Repr-Digest: sha-256={hashlib.sha256(BODY).hexdigest()}", digest_line=False), 400),
        ("Repr-Digest unpadded", push_with("Repr-Digest: " + digest(BODY).replace("=:", ":").replace("256:", "256=:"), digest_line=False), 400),
        ("two values in Repr-Digest", push_with(f"Repr-Digest: {digest(BODY)}, {other}", digest_line=False), 400),
        ("another Repr-Digest", push_with(f"Repr-Digest: {other}", digest_line=False), 400),
        ("no If-None-Match", push_with(condition=False), 428), ("another If-None-Match", push_with('If-None-Match: "x"', condition=False), 428),
        ("If-None-Match twice", push_with("If-None-Match: *"), 400),
    ]


def must_be_refused(w, client, cases):
    for name, data, status in cases:
        was = len(re.findall(rf"request\.refused .*status={status} ", w.receiver.said()))
        a = client.ask(data)
        check(a is not None and a.status == status, f"{name}: {a}, expected {status}")
        equal(len(re.findall(rf"request\.refused .*status={status} ", w.receiver.said())), was + 1, f"lines in the log for: {name}")
    equal(files(w), [], "files")


def malformed_requests():
    """lengths, encodings, digests and headers that are missing, double or malformed: each its status and one line in the log"""
    for world, client in ((World, Client), (Behind, Front)):
        with world() as w:
            w.start_receiver()
            must_be_refused(w, client(w), malformed())
            must_work(client(w), w)
            must_be_small(w)


def header_floods():
    """10,000 headers, a header of a megabyte, an endless request line: 431 or 414 or 400, and little memory"""
    with World() as w:
        w.start_receiver()
        client = Client(w)
        floods = [head("GET", "/healthz", *["X-a: b"] * 10000), head("GET", "/healthz", "X-a: " + "b" * (1 << 20)),
                  head("GET", "/" + "x" * (1 << 20)), head("X" * (1 << 20), "/"), head("GET", "/healthz", "X" * (1 << 20) + ": b"),
                  b"\r\n" * (1 << 19), b"A" * (1 << 20), b"GET / HTTP/1.1\r\n" + b"\0" * (1 << 20)]
        for number, data in enumerate(floods):
            for _ in range(5):
                a = client.ask(data)
                check(a is None or a.status in (400, 413, 414, 431), f"flood {number}: {a}")
        said = w.receiver.said()
        check(re.search(r"request\.refused host=- bundle=- status=431", said), "the log says so")
        must_work(client, w)
        must_be_small(w)


def body_and_length():
    """a body shorter than said is not stored; what follows a body is another request; early answers close"""
    with World() as w:
        w.start_receiver()
        client, bundle, victim = Client(w), new_id(), new_id()
        with client.open() as wire:  # shorter: the client goes away
            wire.send(put(bundle, BODY)[:-1])
            until(lambda: client.receipt(bundle).status == 503, 10, "status 503 while it comes")
        until(lambda: client.receipt(bundle).status == 404, 10, "its id is free again")
        with client.open() as wire:  # shorter: it waits, the rest comes
            wire.send(put(bundle, BODY)[:-1])
            until(lambda: client.receipt(bundle).status == 503, 10, "status 503 while it comes")
            equal(client.push(bundle, BODY).headers.get("retry-after"), "1", "Retry-After of another")
            equal(wire.ask(BODY[-1:]).status, 201, "status when the rest came")
        bundle = new_id()
        with client.open() as wire:  # longer: what is too much is no request
            equal(wire.ask(put(bundle, BODY) + b"y" * 500 + b"\r\n\r\n").status, 201, "status of the first")
            check([a.status for a in wire.answers()] in ([400], []), "what follows is no request")
        equal(place(w, bundle, ".cms").read_bytes(), BODY, "what is stored")
        ids = [new_id() for _ in range(4)]
        with client.open() as wire:  # pipelined pushes
            wire.send(b"".join(put(i, i.encode()) for i in ids))
            equal([wire.final().status for _ in ids], [201] * 4, "pipelined pushes")
        # a request in a body is never one: behind a refusal the connection ends
        inner = head("DELETE", path(victim))
        for outer in (head("GET", "/healthz", f"Content-Length: {len(inner)}"), head("DELETE", path(new_id()), f"Content-Length: {len(inner)}"),
                      head("GET", path(new_id(), True), f"Content-Length: {len(inner)}"), head("PUT", "/x", f"Content-Length: {len(inner)}"),
                      head("POST", path(new_id()), f"Content-Length: {len(inner)}"), head("GET", "/healthz"), head("FOO", "/x")):
            with client.open() as wire:
                wire.send(outer + inner)
                equal(len(wire.answers()), 1, f"answers to {outer[:40]}")
            chunked = outer.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX-Length")
            with client.open() as wire:
                wire.send(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner))
                equal(len(wire.answers()), 1, f"answers to {chunked[:60]}")
        with client.open() as wire:  # a body that is heard to its end, and thrown away
            equal(wire.ask(put(bundle, b"x" * len(inner))[:-len(inner)] + inner).status, 409, "status of the refusal")
            equal(wire.ask(head("GET", "/healthz")).status, 200, "the next answer is the next request's")
        check(not place(w, victim, ".abandoned").exists(), "the smuggled request was not heard")
        must_work(client, w)


def expectations():
    """Expect: 100-continue: the refusal comes instead of the invitation; a client that does not wait hears it all the same"""
    with World() as w:
        w.start_receiver()
        client, bundle, body = Client(w), new_id(), os.urandom(4 << 20)
        top = put(bundle, body, "Expect: 100-continue")[:-len(body)]
        with client.open() as wire:
            wire.send(top)
            equal(wire.answer().status, 100, "the invitation")
            equal(wire.ask(body).status, 201, "status")
        with client.open() as wire:
            wire.send(top)
            equal(wire.answer().status, 412, "no invitation for what is there")
        with client.open() as wire:
            wire.send(put(new_id(), b"", "Expect: 100-continue", length=(80 << 20) + 1))
            equal(wire.answer().status, 413, "no invitation for what is too large")
        equal(client.ask(head("GET", "/healthz", "Expect: something")).status, 200, "another expectation")
        # a small body that nobody wanted is heard to its end, so that the answer is, too: the connection lives
        with client.open() as wire:
            for size in (1, 1000, 1 << 20):
                data = put(bundle, body[:size - 1] + b"x")
                wire.send(data[:-size // 2])
                time.sleep(0.05)  # an answer that comes too early has its time to come
                equal(wire.ask(data[-size // 2:]).status, 409, f"status of {size} bytes that nobody wanted")
            equal(wire.ask(put(new_id(), BODY)).status, 201, "status of the next on this connection")
        for size in (1000, 200 << 10, 900 << 10, 4 << 20):
            got = [client.push(bundle, body[:size - 1] + b"x") for _ in range(10)]
            check(all(a is not None and a.status == 409 for a in got), f"{size} bytes that nobody wanted: {got}")


def digests_that_lie():
    """a body that is not what Repr-Digest says: 400, nothing stays, and the right one is taken"""
    with World() as w:
        w.start_receiver()
        client, bundle, body = Client(w), new_id(), os.urandom(3 << 20)
        for wrong in (body[:-1] + bytes([body[-1] ^ 1]), bytes(len(body)), bytes([body[0] ^ 1]) + body[1:]):
            a = client.ask(put(bundle, body)[:-len(body)] + wrong)
            equal(a.status, 400, "status")
            equal(files(w), [], "files")
        check(re.search(rf"bundle={bundle} status=400 error=\"the body is not what Repr-Digest says", w.receiver.said()), "the log says so")
        equal(client.push(bundle, body).status, 201, "status of the right one")


def log_is_limited():
    """refusals are told, fifty lines in ten seconds at most; a security event is not among those left out"""
    with World() as w:
        w.start_receiver()
        client, bundle = Client(w), new_id()
        equal(client.push(bundle, BODY).status, 201, "status")
        for _ in range(120):
            equal(client.ask(head("GET", "/nothing")).status, 404, "status")
        lines = w.receiver.said().count("request.refused")
        check(50 <= lines <= 100, f"{lines} lines")
        equal(client.push(bundle, b"c" * 1000).status, 409, "status")
        check(f"bundle={bundle} status=409" in w.receiver.said(), "the security event is told")


# ---- the TLS port

def noise_at_the_tls_port():
    """random bytes, old TLS, plain HTTP, half a handshake: closed and counted; honest pushes go on"""
    rng = random.Random(7)
    with World() as w:
        w.start_receiver()
        client, quiet = Client(w), Client(w, source="127.0.9.9")
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        sizes = [(rng.choice([b"", hello, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x03\xff\xff", b"\x15\x03\x03\x00\x02\x02\x28"]),
                  rng.choice([0, 1, 5, 100, 5000, 70000])) for _ in range(150)]
        for start, size in sizes:
            with quiet.connect() as s, contextlib.suppress(OSError):
                s.sendall(start + rng.randbytes(size))
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
        for most in (ssl.TLSVersion.TLSv1_2,):
            old = Client(w)
            old.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            old.context.maximum_version = most
            try:
                old.open()
                raise Failure("TLS 1.2 is accepted")
            except (ssl.SSLError, ConnectionResetError) as e:
                tap.diag(f"TLS 1.2: {e}")
        must_work(client, w)
        check(re.search(r"connection\.unused address=127\.0\.9\.9 ", w.receiver.said()), "the log says who")
        until(lambda: figures(w)[1] < 40, 25, "the descriptors are free again")
        must_be_small(w)
        equal(files(w), [f for f in files(w) if f.startswith("dev-host-1/")], "files")


# ---- slow ones and crowds

class Crowd:
    """Connections from many addresses of this machine that do as little as a kind says."""

    def __init__(self, w):
        self.w, self.wires, self.cut = w, [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s, *_ in self.wires:
            s.close()

    def idle(self, count, source):
        for _ in range(count):
            self.wires.append((Client(self.w, None, source=source).connect(), "idle", b""))

    def tls(self, kind, client, count, start, drip):
        """After the handshake: start, and then drip byte by byte."""
        for _ in range(count):
            wire = client.open()
            wire.send(start() if callable(start) else start)
            self.wires.append((wire.socket, kind, drip))

    def drip(self):
        """A byte from each that has some; who is cut is forgotten."""
        still = []
        for s, kind, rest in self.wires:
            try:
                if rest:
                    s.sendall(rest[:1])
                    rest = rest[1:]
                if kind != "deaf":
                    s.setblocking(False)
                    with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                        if not s.recv(4096):
                            raise ConnectionResetError
                    s.settimeout(5)
            except (OSError, ssl.SSLError):
                self.cut += 1
                s.close()
                continue
            still.append((s, kind, rest))
        self.wires = still

    def kinds(self):
        count = {}
        for _, kind, _ in self.wires:
            count[kind] = count.get(kind, 0) + 1
        return count


def slow_clients():
    """200 slow connections (silent, headers, bodies, answers): an agent's pushes go through, and every slow one is cut"""
    with World() as w, Crowd(w) as crowd:
        w.start_receiver()
        issue(w, "slow-host")
        slow = [Client(w, "slow-host", source=f"127.0.1.{n}") for n in range(1, 5)]
        for n in range(1, 3):
            crowd.idle(25, f"127.0.2.{n}")
        for client in slow:
            crowd.tls("headers", client, 15, head("GET", "/healthz")[:-4] + b"\r\nX-Slow: ", b"a" * 1000)
            crowd.tls("bodies", client, 15, lambda: put(new_id(), BODY)[:-len(BODY)], BODY[:900])
            crowd.tls("deaf", client, 8, lambda: put(new_id(), BODY) * 40, b"")
        began = time.monotonic()
        check(len(crowd.wires) >= 200, f"{len(crowd.wires)} slow connections")
        w.start_agent()
        for name, content in cameras.roll(6, 30, "lane1"):
            w.write(name, content)
        client, times = Client(w), []
        for number in range(10):
            at = time.monotonic()
            must_work(client, w)
            times.append(time.monotonic() - at)
            crowd.drip()
            if number == 0:
                there = crowd.kinds()
                check(there.get("headers", 0) >= 50 and there.get("bodies", 0) >= 16, f"the slow ones were still there: {there}")
        w.empty()
        w.idle()
        tap.diag(f"honest pushes beside them: at most {max(times):.2f} s; {crowd.kinds()}")

        def all_cut():
            crowd.drip()
            return not any(kind in crowd.kinds() for kind in ("idle", "headers", "bodies"))
        until(all_cut, 90, lambda: f"every slow one is cut: {crowd.kinds()}", each=0.5)
        tap.diag(f"all cut after {time.monotonic() - began:.0f} s")
        until(lambda: figures(w)[1] < 100, 60, lambda: f"descriptors are free again: {figures(w)}", each=0.2)
        said = w.receiver.said()
        for words in ("no request in time", "its body came too slowly"):
            check(re.search(rf'connection\.cut address=127\.0\.[12]\.\d error="{words}"', said), f"the log says: {words}")
        check(not [f for f in bundles(w) if f.startswith("slow-host") and (w.store / f).stat().st_size != len(BODY)], "half a body is stored")
        equal(w.receiver.stop(), 0, "exit status")


def crowds():
    """500 connections that do nothing, 1,200, all from one address: the limits hold, honest pushes go through"""
    with World() as w, Crowd(w) as crowd:
        w.start_receiver()
        client = Client(w)

        def held():
            return figures(w)[1]
        quiet = held()
        for n in range(1, 11):
            crowd.idle(50, f"127.0.3.{n}")
        must_work(client, w)
        check(held() > 400, f"the crowd is there: {held()} descriptors")
        for n in range(1, 15):
            crowd.idle(50, f"127.0.4.{n}")
            must_work(client, w)
            check(held() <= quiet + 512, f"{held()} descriptors")
        must_be_small(w)
        check("places are short" in w.receiver.said(), "the log says so")
    with World() as w, Crowd(w) as crowd:
        w.start_receiver()
        crowd.idle(300, "127.0.5.1")
        until(lambda: figures(w)[1] < 64 + 40, 10, lambda: f"one address has 64 places: {figures(w)}")
        check(re.search(r"connection\.refused address=127\.0\.5\.1 error=\"too many", w.receiver.said()), "the log says so")
        must_work(Client(w), w)
        must_be_small(w)
    with Behind() as w:
        w.start_receiver()
        idle = [Front(w).open() for _ in range(600)]
        must_work(Front(w), w)
        check(figures(w)[1] <= 512 + 40, f"{figures(w)[1]} descriptors")
        must_be_small(w)
        for wire in idle:
            wire.close()


def unwanted(length, *more):
    """A push that is refused (no If-None-Match) and whose body is heard to its end; the connection lives."""
    return head("PUT", path(new_id()), f"Content-Length: {length}", f"Repr-Digest: {digest(BODY)}", *more)


def hold(crowd, client, count, *more, kinds=("asked", "refused")):
    """So many connections of one host, or as many as get in: their bodies are not wanted and trickle, or they ask once and stay."""
    client.patience, shut_out = 2, 0
    for number in range(count):
        try:
            if kinds[number % len(kinds)] == "refused":
                crowd.tls("refused", client, 1, unwanted(900_000, *more), b"a" * 1000)
            else:
                wire = client.open()
                crowd.wires.append((wire.socket, "asked", b""))
                wire.ask(unwanted(1, *more) + b"a")
        except (OSError, Failure):
            shut_out += 1
            if shut_out == 3:
                return


def soon_cut(crowd, seconds=30):
    def look():
        crowd.drip()
        return not crowd.kinds().get("refused")
    until(look, seconds, lambda: f"bodies that are not wanted end soon: {crowd.kinds()}", each=0.5)


def one_hostile_host():
    """one host that wants all 512 places, by bodies that trickle after their refusal and by silence after a request, from many addresses and behind
    a front: another host's pushes go through, and each such body is cut within seconds"""
    with World() as w, Crowd(w) as crowd:
        w.start_receiver()
        issue(w, "hostile")
        for n in range(1, 14):
            hold(crowd, Client(w, "hostile", source=f"127.0.8.{n}"), 40)
        for _ in range(5):
            must_work(Client(w), w)
            crowd.drip()
        check(crowd.kinds().get("refused", 0) <= 32, f"one host has 32 places: {crowd.kinds()}")
        check(figures(w)[1] < 32 + 64, f"descriptors: {figures(w)}")
        check(re.search(r'request\.refused host=hostile bundle=- status=503 error="too many connections of this host"', w.receiver.said()), "the log says so")
        soon_cut(crowd)
        check("its body came too slowly, and was refused" in w.receiver.said(), "the log says so")
        must_work(Client(w, "hostile"), w, "hostile")  # it is not shut out for ever
    with Behind() as w, Crowd(w) as crowd:
        w.start_receiver()
        hold(crowd, Front(w), 520, "X-Client-Subject: CN=hostile")
        for _ in range(5):
            must_work(Front(w), w)
            crowd.drip()
        check(crowd.kinds().get("refused", 0) <= 32, f"one host has 32 places: {crowd.kinds()}")
        soon_cut(crowd)


def many_hostile_hosts():
    """seventeen such hosts behind a front: what was refused makes room, then what is idle; another host's pushes go through"""
    with Behind() as w, Crowd(w) as crowd:
        w.start_receiver()
        for n in range(17):
            hold(crowd, Front(w), 31, f"X-Client-Subject: CN=hostile-{n}", kinds=("refused",))
        for _ in range(5):
            must_work(Front(w), w)
        check("places are short and it was refused" in w.receiver.said(), "the log says so")
        must_be_small(w)
    with Behind() as w, Crowd(w) as crowd:
        w.start_receiver()
        for n in range(17):
            hold(crowd, Front(w), 31, f"X-Client-Subject: CN=hostile-{n}", kinds=("asked",))
        for _ in range(5):
            must_work(Front(w), w)
        check("places are short and it asks for nothing more" in w.receiver.said(), "the log says so")


def connections_of_hosts_behind_a_front():
    """a front's connection is a host's while its request is answered: 40 that were used by one host serve others"""
    with Behind() as w:
        w.start_receiver()
        wires = [Front(w).open() for _ in range(40)]
        for host in ("dev-host-1", "lane-2"):
            for number, wire in enumerate(wires):
                a = wire.ask(unwanted(1, f"X-Client-Subject: CN={host}") + b"a")
                check(a is not None and a.status == 428, f"{host}, connection {number}: {a}")
        for wire in wires:
            wire.close()


def many_uploads():
    """five hosts push 20 bundles each at once: 16 of one host, 64 in all, the others are told to wait; memory is bounded"""
    with World() as w:
        w.start_receiver()
        hosts = [issue(w, f"host-{n}") for n in range(5)]
        body, wires = os.urandom(1000 << 10), []
        try:
            for number, host in enumerate(hosts):
                client = Client(w, host, source=f"127.0.6.{number + 1}")
                for _ in range(20):
                    wire, bundle = client.open(), new_id()
                    a = wire.send(put(bundle, body, "Expect: 100-continue")[:-len(body)]) and wire.answer()
                    check(a and a.status in (100, 503), f"{host}: {a}")
                    wires.append((wire, bundle, host, a.status))
            got = {}
            for wire, _, _, status in wires:
                if status == 100:
                    wire.send(body[:-1])
            for wire, bundle, host, status in wires:
                a = wire.ask(body[-1:]) if status == 100 else None
                check(a is None if status == 503 else a is not None and a.status == 201, f"{host}: {a}")
                got.setdefault(host, []).append(status if a is None else a.status)
                if a is not None:
                    must_prove(w, a.body, bundle, body, host)
        finally:
            for wire, *_ in wires:
                wire.close()
        equal([got[h].count(201) for h in hosts], [16, 16, 16, 16, 0], "stored of each host")
        equal(len(bundles(w)), 64, "bundles")
        check(re.search(r"request\.refused host=host-4 .*status=503 error=\"too many uploads", w.receiver.said()), "the log says so")
        must_work(Client(w), w)
        must_be_small(w)


def accelerated(w, lapse):
    """The receiver, for which time passes faster."""
    w.receiver = w.spawn("receiver", *w.receiver_words(), env=lapse.env)
    w.listening(w.receiver, w.port)


def trickle(wire, data, size):
    """Five pieces a second, as a thin link would bring them."""
    for at in range(0, len(data), size):
        time.sleep(0.2)
        wire.send(data[at:at + size])


def thin_link():
    """a body at 1 KiB a second takes its minutes and is stored; one at a few bytes a second is cut within two"""
    with World() as w, Lapse(w.dir / "clock", 40) as lapse:
        accelerated(w, lapse)
        bundle, body, client = new_id(), os.urandom(256 << 10), Client(w)
        with client.open() as thin, client.open() as dead:
            began = time.monotonic()
            dead.send(put(new_id(), body)[:-len(body)])
            thin.send(put(bundle, body)[:-len(body)])
            for at in range(0, len(body) - 1, 8 << 10):
                trickle(thin, body[at:min(at + (8 << 10), len(body) - 1)], 8 << 10)
                with contextlib.suppress(OSError):  # cut by then
                    dead.send(body[:1])
            check(40 * (time.monotonic() - began) > 30 + len(body) / (16 << 10), "it took longer than at 16 KiB a second")
            a = thin.ask(body[-1:])
            check(a is not None and a.status == 201, f"the slow push: {a}")
            must_prove(w, a.body, bundle, body)
            check(dead.closed(5), "the other one was cut")
        equal(w.receiver.said().count("its body came too slowly"), 1, "bodies that were cut")


def asked_anew():
    """an upload that fell silent makes way when its host asks for its id anew; one that goes on does not, nor for another host or id"""
    with World() as w, Lapse(w.dir / "clock", 10) as lapse:
        accelerated(w, lapse)
        issue(w, "other")
        client, bundle, body = Client(w), new_id(), os.urandom(64 << 10)

        def asks_for_silent_one(ask, status):
            with client.open() as silent:
                silent.send(put(bundle, body)[:-1])
                until(lambda: client.receipt(bundle).status == 503, 10, "it has begun")
                time.sleep(0.7)  # 7 s for the receiver
                for _ in range(3):
                    equal(Client(w, "other").receipt(bundle).status, 404, "the id of another host")
                    equal(client.receipt(new_id()).status, 404, "another id")
                time.sleep(0.1)
                check(not silent.closed(0.05), "it was left alone")
                equal(ask().status, 503, "the first answer")
                check(silent.closed(5), "the silent one was cut")
                until(lambda: ask().status == status, 5, f"{status} then")

        asks_for_silent_one(lambda: client.receipt(bundle), 404)
        asks_for_silent_one(lambda: client.push(bundle, body), 201)
        bundle = new_id()
        with client.open() as wire:  # one that goes on
            wire.send(put(bundle, body)[:-len(body)])
            until(lambda: client.receipt(bundle).status == 503, 10, "it has begun")
            for at in range(0, len(body) - 1, 4 << 10):
                wire.send(body[at:min(at + (4 << 10), len(body) - 1)])
                equal(client.receipt(bundle).status, 503, "asked while it comes")
                time.sleep(0.1)
            equal(wire.ask(body[-1:]).status, 201, "the upload that went on")
        equal(w.receiver.said().count("its host asked anew"), 2, "uploads that were cut")


def slow_uploads_make_place():
    """16 slow uploads of a host hold no place for ever: the slowest makes room for its next one; another host's are not touched"""
    with World() as w, Lapse(w.dir / "clock", 40) as lapse:
        accelerated(w, lapse)
        issue(w, "other")
        client, body = Client(w), os.urandom(200 << 10)
        with contextlib.ExitStack() as stack:
            other = stack.enter_context(Client(w, "other").open())
            other.send(put(new_id(), body)[:-len(body)])
            slow = [stack.enter_context(client.open()) for _ in range(16)]
            for wire in slow:
                wire.send(put(new_id(), body, "Expect: 100-continue")[:-len(body)])
                equal(wire.answer().status, 100, "told to go on")
            a = client.push(new_id(), BODY)
            check(a is not None and a.status == 503, f"a push beside 16 that have just begun: {a}")
            check("places for uploads" not in w.receiver.said(), "none of them is slow yet")
            for _ in range(5):  # 40 s at about 4 KiB a second, but one at half of it
                for wire in (other, *slow):
                    wire.send(body[:16 << 10] if wire is not slow[7] else body[:8 << 10])
                time.sleep(0.2)
            a = client.push(new_id(), BODY)
            check(a is not None and a.status == 503, f"a push that makes place: {a}")
            until(lambda: client.push(new_id(), BODY).status == 201, 10, "the next one finds it", each=0.1)
            check(slow[7].closed(5), "the slowest was cut")
            for wire in (other, *slow[:7], *slow[8:]):
                wire.send(b"a")
        equal(w.receiver.said().count("places for uploads are short and it is the slowest"), 1, "uploads that were cut")


def stopped_among_connections():
    """stopped again and again while connections come: exit status 0 each time; an upload that was under way is finished, who comes then is sent away"""
    body, over = os.urandom(5000), threading.Event()
    with World() as w:
        def knock():
            while not over.is_set():
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", w.port), 1) as s:
                    s.sendall(b"\x16\x03\x01")
        threads = [threading.Thread(target=knock, daemon=True) for _ in range(4)]
        for t in threads:
            t.start()
        try:
            for _ in range(15):
                w.start_receiver()
                equal(w.receiver.stop(), 0, f"exit status: {w.receiver.said()[-500:]}")
        finally:
            over.set()
            for t in threads:
                t.join()
        w.start_receiver()
        with Client(w).open() as wire:
            bundle = new_id()
            wire.send(put(bundle, body, "Expect: 100-continue")[:-len(body)])
            equal(wire.answer().status, 100, "told to go on")
            w.receiver.signal(signal.SIGTERM)

            def sent_away():
                try:
                    return Client(w).push(new_id(), body) is None
                except (OSError, Failure):
                    return True
            until(sent_away, 4, "who comes then is sent away")
            a = wire.ask(body)
            check(a is not None and a.status == 201, f"the upload that was under way: {a}")
            must_prove(w, a.body, bundle, body)
        equal(w.receiver.stop(), 0, "exit status")


def foreign_key():
    """a key that is not the server certificate's: status 2, and all three files are named"""
    with World() as w:
        w.receiver_config["identity"]["key"] = "pki/agent.key"
        w.write_files()
        done = subprocess.run(w.receiver_words(), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        equal(done.returncode, 2, f"status of cede-receiver: {done.stderr}")
        for name in ("pki/server.pem", "pki/agent.key", "pki/ca.pem"):
            check(name in done.stderr, f"it names {name}: {done.stderr}")


def slowhttptest():
    """slowhttptest: slow headers, slow bodies and slow reading, 200 connections each: honest pushes go through"""
    tool = shutil.which("slowhttptest")
    if tool is None:
        raise Skip("slowhttptest is not installed")
    with World() as w:
        w.start_receiver()
        client, url = Client(w, source="127.0.7.1"), f"https://127.0.0.1:{w.port}"
        kinds = {"headers": ["-H", "-i", "1", "-u", f"{url}/healthz"], "body": ["-B", "-i", "1", "-u", url + path(new_id())],
                 "reading": ["-X", "-n", "1", "-u", f"{url}/healthz"]}
        for kind, words in kinds.items():
            attack = w.spawn(f"slow-{kind}", tool, "-c", "200", "-r", "200", "-l", "6", "-p", "3", *words)
            most, rounds = 0, 0
            while attack.alive():
                must_work(client, w)
                most, rounds = max(most, figures(w)[1]), rounds + 1
                time.sleep(0.1)  # a pace, not a wait
            check(rounds > 3, f"{kind}: {rounds} pushes")
            tap.diag(f"{kind}: {rounds} honest pushes, at most {most} descriptors")
            check(most < 64 + 64, f"{kind}: {most} descriptors")
        must_be_small(w)


if __name__ == "__main__":
    tap.run([durable_first, durable_before_an_old_receipt, tombstone_durable_first, kill_at_every_call_of_a_push,
             kill_at_every_call_of_a_promise, kill_at_every_call_of_a_new_receipt, same_bytes_again, other_bytes_under_an_id, two_at_once,
             after_a_reinstall, disk_full, no_room_for_names, errors_of_the_disk, others_bundles, strangers, forged_subjects, path_tricks,
             targets_and_methods, malformed_requests, header_floods, body_and_length, expectations, digests_that_lie, log_is_limited,
             noise_at_the_tls_port, slow_clients, crowds, one_hostile_host, many_hostile_hosts, connections_of_hosts_behind_a_front, many_uploads,
             thin_link, asked_anew, slow_uploads_make_place, stopped_among_connections, foreign_key, slowhttptest], at_once=3)
