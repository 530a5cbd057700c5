#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The audit commands: read-only to the last system call, bounded in memory, fit for a terminal; and the
walk of docs/auditing.md, whose output is compared with what the commands say."""

import hashlib
import json
import os
import pathlib
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Skip, check, diag, equal
from terminal import on_a_terminal
from world import TOP, World, program, until, yaml

# System calls that change something, or reach out. Opening for reading and writing to one's own
# standard output are what is left.
CHANGES = ("rename|renameat|renameat2|unlink|unlinkat|rmdir|mkdir|mkdirat|link|linkat|symlink|symlinkat|chmod|fchmod|fchmodat|"
           "chown|fchown|fchownat|lchown|truncate|ftruncate|fallocate|utime|utimes|utimensat|futimesat|setxattr|fsetxattr|"
           "lsetxattr|removexattr|mknod|mknodat|mount|umount2|pwrite64|pwritev|pwritev2|sendfile|splice|copy_file_range|"
           "socket|connect|bind|listen|sendto|sendmsg|accept4|execveat|ptrace|kill|fcntl_setlease").split("|")


class Tree(World):
    """A prepared tree whose decisions do not change with time (with --at)."""

    AT = "2026-11-23T12:00:00Z"

    def __enter__(self):
        super().__enter__()
        noon = 1795435200
        for name, content, age in (("lane1/0001.jpg", b"j" * 4000, 60), ("lane1/0001.json", b"{}", 60),
                                   ("lane1/0002.jpg", b"j" * 900, 3600), ("lane2/0003.jpg", b"j" * 500, 90),
                                   ("lane2/0003.json", b"{}", 90), ("lane2/evidence.jpg", b"e" * 70, 120),
                                   ("notes.txt", b"hello", 200000), ("lane2/x.part", b"half", 10)):
            path = self.capture / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (noon - age, noon - age))
        os.symlink("/etc/passwd", self.capture / "shortcut.jpg")
        os.utime(self.capture / "shortcut.jpg", (noon - 5, noon - 5), follow_symlinks=False)
        return self


def files(w, number):
    for i in range(number):
        folder = w.capture / f"d{i % 20}"
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(b"x")


def commands(w):
    policy = w.dir / "policy.yaml"
    return [["dry-run", "--policy", policy, "--config", w.dir / "agent.yaml"],
            ["dry-run", "--policy", policy, "--json", "--summary"],
            ["explain", "--policy", policy, "--config", w.dir / "agent.yaml", w.capture / "d3" / "3.jpg"],
            ["diff", policy, w.dir / "new.yaml"], ["show", "--policy", policy],
            ["check", "--config", w.dir / "agent.yaml", policy]]


def whole(top):
    """Every file below it: its rights, owner, time and content."""
    seen = {p: p.lstat() for p in sorted(top.rglob("*"))}
    return {p: (s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p, s in seen.items()}


# SQLite opens these so, and gives them the owner that they have; whole() sees that it makes and changes nothing
OF_SQLITE = re.compile(r'(openat\(\S+, "\S+/ledger\.db-wal", O_RDWR\|O_CREAT\||fchown\(\d+<\S+/ledger\.db-(wal|shm)>, )')


def read_only():
    """strace over 1,000 files: no call that changes anything or reaches out; no access time changes"""
    if shutil.which("strace") is None:
        raise Skip("strace is not here")
    with World() as w:
        files(w, 1000)
        w.start()
        w.empty()
        w.idle()
        w.agent.stop()
        files(w, 1000)
        at_rest = whole(w.state)
        (w.dir / "new.yaml").write_text((w.dir / "policy.yaml").read_text().replace("15m", "16m"))
        for words in commands(w):
            trace = w.dir / "trace"
            done = subprocess.run(["strace", "-f", "-y", "-o", str(trace), program("cede"), "policy", *map(str, words)],
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
            check(done.returncode in (0, 1), f"{words[0]}: status {done.returncode}: {done.stderr[-500:]}")
            lines = trace.read_text(errors="replace").splitlines()
            check(len(lines) > 50, f"{words[0]}: strace saw {len(lines)} calls")
            for line in lines:
                call = re.match(r"\d+\s+(\w+)\((.*)", line)
                if not call or OF_SQLITE.match(line.split(None, 1)[1]):
                    continue
                name, rest = call.groups()
                check(name not in CHANGES, f"{words[0]}: {line}")
                if name in ("write", "writev"):
                    check(re.match(r"[12]<", rest), f"{words[0]} writes elsewhere: {line}")
                if name in ("open", "openat", "openat2", "creat"):
                    check(not re.search("O_CREAT|O_TMPFILE|O_TRUNC|O_RDWR|O_WRONLY", rest) or "/dev/null" in rest,
                          f"{words[0]}: {line}")
                check(name != "mmap" or not re.search("PROT_WRITE.*MAP_SHARED", rest), f"{words[0]} writes by a mapping: {line}")
            equal(whole(w.state), at_rest, "the state directory")


def beside_the_agent():
    """the ledger is read while the agent runs, and after it was killed: no file of its own, the same answer"""
    with World(receiver=False) as w:
        w.start_agent()
        w.write("a.jpg", b"x")
        until(lambda: w.counts()[0].get("sealed") == 1, 20, "sealed")
        words = ["policy", "dry-run", "--policy", w.dir / "policy.yaml", "--config", w.dir / "agent.yaml"]
        running = w.cede(*words)
        before = sorted(p.name for p in w.state.iterdir())
        check({"ledger.db", "ledger.db-shm", "ledger.db-wal", "lock", "spool", "status.socket"} <= set(before), f"files of the state directory: {before}")
        w.agent.kill()
        (w.state / "ledger.db-shm").chmod(0o400)
        equal((w.counts()[0]["sealed"], w.counts()[1]["sealed"]), (1, 1), "what is sealed")
        equal(w.cede(*words).split("\n")[0], running.split("\n")[0], "the dry run")
        equal(sorted(p.name for p in w.state.iterdir()), before, "files of the state directory")


def access_times():
    """access times of files and directories stay, where the file system records each access"""
    if os.geteuid() != 0:
        raise Skip("needs root to mount a file system with strictatime")
    with World() as w:
        place = w.dir / "strict"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "strictatime,size=16m", "none", str(place)], capture_output=True)
        if done.returncode != 0:
            raise Skip("mounting is not allowed here")
        try:
            w.capture = place
            w.source["path"] = str(place)
            w.write_files()
            files(w, 200)
            (w.dir / "new.yaml").write_text((w.dir / "policy.yaml").read_text().replace("15m", "16m"))
            everything = [place, *sorted(place.rglob("*"))]
            for path in everything:
                os.utime(path, (1_600_000_000, 1_600_000_000))
            control = place / "control"
            control.write_bytes(b"x")
            os.utime(control, (1_600_000_000, 1_600_000_000))
            control.read_bytes()
            check(control.stat().st_atime > 1_600_000_000, "the file system records accesses at all")
            control.unlink()
            os.utime(place, (1_600_000_000, 1_600_000_000))
            for words in commands(w):
                w.cede("policy", *words, status=(0, 1))
            equal([str(p) for p in everything if p.lstat().st_atime != 1_600_000_000], [], "files whose access time changed")
        finally:
            subprocess.run(["umount", str(place)], check=False)


def memory():
    """the dry run's memory does not grow with the files: 100,000 within 64 MiB"""
    with World() as w:
        many = 100_000
        for folder in range(100):
            top = w.capture / f"d{folder}"
            top.mkdir()
            handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            for i in range(many // 100):
                os.close(os.open(f"{i}.jpg", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=handle))
            os.close(handle)
        began = time.monotonic()
        with open(os.devnull, "wb") as null:
            child = subprocess.Popen([program("cede"), "policy", "dry-run", "--policy", str(w.dir / "policy.yaml")],
                                     stdout=null, stderr=null)
            peak = 0
            while child.poll() is None:
                with open(f"/proc/{child.pid}/status", encoding="ascii", errors="replace") as f:
                    found = re.search(r"VmHWM:\s+(\d+)", f.read())
                peak = max(peak, int(found.group(1)) if found else 0)
                time.sleep(0.005)
        check(peak > 0, "the peak was seen")
        diag(f"{many} files: peak {peak} KiB, {many / (time.monotonic() - began):.0f} files/s")
        check(peak < 64 * 1024, f"peak {peak} KiB")


def exit_codes():
    """0 compliant, 1 findings, 2 bad input, 3 unreadable; 4 on demand if there is work"""
    with World() as w:
        policy = w.dir / "policy.yaml"

        def code(*words):
            return subprocess.run([program("cede"), "policy", *map(str, words)], capture_output=True,
                                  stdin=subprocess.DEVNULL).returncode
        equal(code("dry-run", "--policy", policy), 0, "an empty source")
        equal(code("dry-run", "--policy", policy, "--detailed-exitcode"), 0, "an empty source, detailed")
        w.write("a.jpg", b"x", want=False)
        equal(code("dry-run", "--policy", policy), 0, "a capture")
        equal(code("dry-run", "--policy", policy, "--detailed-exitcode"), 4, "a capture, detailed")
        equal(code("dry-run", "--policy", policy, "--at", "2099-01-01T00:00:00Z"), 1, "overdue by then")
        w.write("b.txt", b"x", want=False)
        equal(code("dry-run", "--policy", policy), 1, "unmatched")
        equal(code("dry-run", "--policy", policy, "--source", "none"), 2, "no such source")
        equal(code("dry-run", "--policy", w.dir / "none.yaml"), 3, "no such policy")
        if not os.path.exists("/etc/cede/policy.yaml"):
            equal(code("dry-run"), 3, "no policy named, and none where it would be")
        equal(code("dry-run", "--policy", policy, "--at", "tomorrow"), 2, "no time")
        equal(code("dry-run", "--policy", policy, "--key", "x"), 2, "an option of another command")
        equal(code("explain", "--policy", policy, w.capture / "a.jpg"), 0, "explain")
        equal(code("explain", "--policy", policy, w.capture / "b.txt"), 1, "explain a finding")
        equal(code("explain", "--policy", policy, "/etc/passwd"), 2, "explain what is in no source")
        equal(code("explain", "--policy", policy, w.capture / "none.jpg"), 3, "explain what is not there")
        equal(code("diff", policy, policy), 0, "no difference")
        w.source["path"] = str(w.dir / "nowhere")
        w.write_files()
        equal(code("dry-run", "--policy", policy), 3, "a source that is not there")


def refused_by_commands():
    """what the agent would refuse, the commands refuse with --config: each with its own message"""
    with World() as w:
        policy, config = w.dir / "policy.yaml", w.dir / "agent.yaml"
        good = policy.read_bytes()

        def says(needle):
            for words in (["check", "--config", config, policy], ["dry-run", "--policy", policy, "--config", config],
                          ["show", "--policy", policy, "--config", config],
                          ["explain", "--policy", policy, "--config", config, w.capture / "a.jpg"]):
                done = subprocess.run([program("cede"), "policy", *map(str, words)], capture_output=True, text=True,
                                      stdin=subprocess.DEVNULL)
                equal(done.returncode, 2, f"{words[0]}: {done.stderr}")
                check(needle in done.stderr, f"{words[0]} says {needle!r}: {done.stderr}")
                equal(done.stdout, "", f"{words[0]} prints")
        policy.write_bytes(good + b"#\n")
        says("not the file that was signed")
        policy.write_bytes(good)
        ca = (w.pki / "ca.pem").read_bytes()
        (w.pki / "ca.pem").write_bytes(ca + b"\n")
        says("ca.pem: not the file that was signed")
        (w.pki / "ca.pem").write_bytes(ca)
        signature = (w.dir / "policy.yaml.sig").read_bytes()
        (w.dir / "policy.yaml.sig").unlink()
        says("no signature")
        (w.dir / "policy.yaml.sig").write_bytes(signature)
        w.policy["serial"] = 9
        w.write_files()
        w.start()
        w.write("a.jpg", b"x")
        w.settled()
        w.agent.stop()
        policy.write_bytes(good)
        (w.dir / "policy.yaml.sig").write_bytes(signature)
        says("serial 1 is older than 9")


def enforced():
    """with --config the commands say whether this policy is the one that the agent enforces"""
    with World() as w:
        def says():
            return subprocess.run([program("cede"), "policy", "show", "--policy", str(w.dir / "policy.yaml"), "--config",
                                   str(w.dir / "agent.yaml")], capture_output=True, text=True).stderr
        check("no agent has loaded a policy here yet" in says(), says())
        w.start_agent()
        until(lambda: "agent.ready" in w.agent.said() and "is what the agent loaded last (serial 1)" in says(), 10, says)
        w.agent.stop()
        w.policy["serial"] = 5
        w.write_files()
        check("is not what the agent loaded last: that has serial 1" in says(), says())


def terminal():
    """the table fits the terminal; colour only there; nothing is shortened in a file"""
    with Tree(policy={"holds": [{"id": "case-2026-114", "match": ["lane2/evidence.jpg"], "until": "2099-01-01T00:00:00Z"}]}) as w:
        long = w.write("lane1/" + "deep/" * 12 + "a-name-that-is-rather-long.jpg", b"x", want=False)
        words = ["dry-run", "--policy", w.dir / "policy.yaml", "--at", w.AT]
        for columns in (80, 132):
            said = on_a_terminal(columns, "policy", *words)
            check("\033[" in said, "colour on a terminal")
            plain = re.sub(r"\033\[\d*m", "", said)
            lines = [line for line in plain.split("\n") if not line.startswith("cede policy dry-run: ")]  # a message
            check(all(len(line) <= columns for line in lines), f"lines of at most {columns} columns: {max(lines, key=len)}")
            check(re.search("^ {50,}hold case-2026-114$" if columns == 80 else "evidence.jpg  hold case-2026-114$", plain, re.M), plain)
            check("..." in plain, "the long path is shortened in its middle")
        plain = w.cede("policy", *words, status=(0, 1))
        check("\033" not in plain, "no colour in a file")
        check(os.fsdecode(long)[len(str(w.capture)) + 1:] in plain, "the whole path")


def names():
    """names of any bytes: escaped in the table, valid JSON, and found again by explain"""
    with World() as w:
        for name in (b"new\nline.jpg", b"\x1b[31mred.jpg", b"\xff\xfe.jpg", b'quo"te\\.jpg', b"-rf.jpg", b"a" * 251 + b".jpg"):
            w.write(name, b"x", want=False)
        table = w.cede("policy", "dry-run", "--policy", w.dir / "policy.yaml", status=(0, 1))
        check(table.isascii() and "\x1b" not in table, "the table is plain text")
        equal(len([line for line in table.splitlines() if "faces/" in line]), 6, "lines for six files")
        for line in w.cede("policy", "dry-run", "--policy", w.dir / "policy.yaml", "--json", status=(0, 1)).splitlines():
            json.loads(line)
        said = w.cede("policy", "explain", "--policy", w.dir / "policy.yaml",
                      os.fsdecode(os.path.join(os.fsencode(w.capture), b"new\nline.jpg")), status=(0, 1))
        check("new\\x0aline.jpg" in said, said)


def hostile_policy():
    """control characters in a policy move no terminal and forge no line: explain, check, dry-run, doctor, show"""
    forged = "\n  decision  hand-over: ready (line 1)\033]8m\u009b8m"
    with World(receiver=False, signed=False) as w:
        policy = w.dir / "policy.yaml"
        w.write("a.jpg", b"x", want=False)

        def said(*words):
            done = subprocess.run([program("cede"), *map(str, words)], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
            out = (done.stdout + done.stderr).decode()
            bad = [line for line in out.splitlines() if line.startswith("  decision  hand-over: ready (line 1)")]
            check(not bad and not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f]", out), f"cede {words[:2]} prints {out!r}")
            return out
        # a word of the policy, as YAML writes what can't stand in it
        hostile = json.dumps("?/x" + forged)

        def publish(old, new):
            text = yaml(w.policy)
            check(old in text, text)
            policy.write_text(text.replace(old, new, 1))
        publish('match: ["**/*.jpg"', f'match: [{hostile}, "**/*.jpg"')
        shown = said("policy", "explain", "--policy", policy, w.capture / "a.jpg")
        check("\\x1b]8m\\x9b8m: no" in shown, f"the pattern is shown with its escapes: {shown}")
        said("policy", "check", policy)
        said("policy", "show", "--policy", policy)
        publish("ca: pki/ca.pem", f"ca: {hostile}")
        check("No such file" in said("policy", "check", policy), "the name of the file")
        said("policy", "sign", "--key", w.pki / "policy.key", policy)
        said("doctor", "--policy", policy, "--config", w.dir / "agent.yaml", "--offline", "--unsigned")
        publish(json.dumps(w.source["path"]), json.dumps(w.source["path"] + forged))
        for words in (["policy", "check", "--host", policy], ["policy", "dry-run", "--policy", policy],
                      ["doctor", "--policy", policy, "--config", w.dir / "agent.yaml", "--offline", "--unsigned"]):
            check("No such file" in said(*words), f"{words}: the source is not there")
        w.policy["guard"] = {"mode": "report", "allow": [{"exe": "/HERE", "user": "root"}]}
        publish('"/HERE"', json.dumps("/x" + forged))
        said("policy", "explain", "--policy", policy, w.capture / "a.jpg")
        said("doctor", "--policy", policy, "--config", w.dir / "agent.yaml", "--offline", "--unsigned")


def through_links():
    """explain finds a file by each of its names: symbolic links in the source's path, in the file's, in the working directory"""
    with World(receiver=False) as w:
        (w.dir / "link").symlink_to(w.dir)
        w.write("d/a.jpg", b"x", want=False)
        (w.capture / "own.jpg").symlink_to(w.capture / "d" / "a.jpg")
        store = w.dir / ".cede-vault" / "faces" / "none"
        store.mkdir(parents=True)
        for top, vault in ((w.dir / "link" / "capture", True), (w.capture, False)):
            w.source["path"] = str(top)
            w.source["vault"] = {"epoch": "1h", "keys": "memory"}
            if not vault:
                del w.source["vault"]
            w.write_files()
            for here, name in ((w.dir, w.capture / "d" / "a.jpg"), (w.dir, w.dir / "link" / "capture" / "d" / "a.jpg"),
                               (w.dir / "link" / "capture" / "d", "a.jpg"), (w.dir, w.dir / "link" / "link" / "capture" / "d" / ".." / "d" / "a.jpg")):
                done = subprocess.run([program("cede"), "policy", "explain", "--policy", w.dir / "policy.yaml", "--json", name], cwd=here,
                                      capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
                check(done.returncode in (0, 1), f"explain {name}: {done.returncode} {done.stderr}")
                said = json.loads(done.stdout)
                equal((said["source"], said["path"]), ("faces", f"{top}/d/a.jpg"), f"explain {name}")
            words = ["explain", "--policy", w.dir / "policy.yaml", "--json"]
            said = json.loads(w.cede("policy", *words, w.dir / "link" / "capture" / "own.jpg", status=(1,)))
            equal(said["path"], f"{top}/own.jpg", "a link is a file of its own")
            if vault:  # in the store beside it, which is no epoch
                w.cede("policy", *words, store / "x.jpg", status=(2, 3))
        (w.dir / "other").mkdir()
        w.cede("policy", "explain", "--policy", w.dir / "policy.yaml", w.dir / "link" / "other" / "a.jpg", status=(2,))


def said_where():
    """a mistake is said with the thing, its place and what to do"""
    with World(receiver=False) as w:
        policy, key = w.dir / "policy.yaml", w.pki / "policy.key"

        def wrong(status, *words):
            done = subprocess.run([program("cede"), *map(str, words)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            equal(done.returncode, status, f"cede {words}: {done.stdout}{done.stderr}")
            return done.stderr
        said = wrong(3, "policy", "explain", "--policy", policy, w.capture / "nope.jpg")
        check(f"{w.capture}/nope.jpg: " in said and "No such file" in said, said)
        said = wrong(3, "policy", "sign", "--key", key, w.dir / "nope.yaml")
        check(f"open {w.dir}/nope.yaml: No such file" in said and "agency" not in said, said)
        text = policy.read_text()
        line = [i for i, words in enumerate(text.splitlines(), 1) if words.startswith("expires: ")][0]
        said = wrong(2, "policy", "check", "--at", "2099-01-01T00:00:00Z", policy)
        check(f"policy.yaml:{line}:10: warning: expires: over" in said, said)
        policy.write_text(text.replace("id: test-lanes", "id: test-\x07lanes"))
        said = wrong(2, "policy", "check", policy)
        check("policy.yaml:2:10: control characters are not allowed" in said, said)
        shutil.copy(w.pki / "ca.pem", w.pki / "c\u00e4.pem")
        policy.write_text(text.replace("ca: pki/ca.pem", "ca: pki/c\u00e4.pem"), encoding="utf-8")
        for words in (["check"], ["sign", "--key", key]):
            said = wrong(2, "policy", *words, policy)
            check("destination agency: ca: pki/c\u00e4.pem: can't be signed under this name" in said and "policy.yaml:6:3: " in said, said)
        for words, needle in ((["policy", "bogus"], "no command bogus"), (["policy"], "a command expected"),
                              (["policy", "sign", policy], "needs --key"), (["policy", "check", "--key", key, policy], "takes no --key"),
                              (["policy", "check"], "a name is missing"), (["policy", "check", policy, "more"], "unexpected argument more"),
                              (["doctor", "more"], "unexpected argument more"),
                              (["status", "--state", "a", "--config", "b"], "not both"),
                              (["exposure", "--at", w.policy["expires"], "--csv", "--json"], "not both")):
            said = wrong(2, *words)
            check(needle in said.splitlines()[0] and "usage: cede" in said, said)


def differences():
    """diff names the keys that differ, and exactly the files that would be decided differently"""
    with Tree() as w:
        old = w.dir / "policy.yaml"
        new = w.dir / "new.yaml"
        second = w.dir / "second"
        second.mkdir()
        (second / "s.jpg").write_bytes(b"s")
        w.source["match"] = ["**/*.jpg"]
        w.source["max_age"] = "2h"
        w.policy["sources"].append({**w.source, "name": "second", "path": str(second)})
        new.write_text(yaml(w.policy))
        said = [json.loads(x) for x in w.cede("policy", "diff", "--json", "--at", w.AT, old, new, status=(1,)).splitlines()]
        keys = {x["key"] for x in said if x["kind"] == "rule"}
        check({"sources.faces.match", "sources.faces.max_age", "sources.second.path"} <= keys, f"keys: {keys}")
        before = {x["path"]: x for x in map(json.loads, w.cede(
            "policy", "dry-run", "--policy", old, "--json", "--at", w.AT, status=(0, 1)).splitlines()) if x["kind"] == "file"}
        after = {(x["source"], x["path"]): x for x in map(json.loads, w.cede(
            "policy", "dry-run", "--policy", new, "--json", "--at", w.AT, status=(0, 1)).splitlines()) if x["kind"] == "file"}
        want = {f"{w.capture}/{p}" for p, x in before.items()
                if (x["action"], x["reason"]) != (after["faces", p]["action"], after["faces", p]["reason"])}
        want.add(f"{second}/s.jpg")
        equal({x["path"] for x in said if x["kind"] == "file"}, want, "files")
        equal(said[-1]["files"], len(want), "the total")


def other_keys():
    """diff names a CA, sealing certificate or receipt key that is another behind the same name, and one that can't be read"""
    with World() as w:
        old, new = w.dir / "policy.yaml", w.dir / "new" / "policy.yaml"
        shutil.copytree(w.pki, new.parent / "pki")
        shutil.copy(old, new)

        def diff(*words):
            done = subprocess.run([program("cede"), "policy", "diff", *words, str(old), str(new)], capture_output=True,
                                  text=True, stdin=subprocess.DEVNULL)
            return done.returncode, done.stdout, done.stderr

        equal(diff("--rules-only")[:2], (0, "0 rules differ\n"), "the same keys elsewhere")
        subprocess.run([TOP / "certs" / "dev-pki", w.dir / "evil"], check=True, capture_output=True)
        names = {"ca": "ca.pem", "seal_to[0]": "seal.pem", "receipts[0]": "receipt.pub"}
        sha256 = {}
        for key, name in names.items():
            shutil.copy(w.dir / "evil" / name, new.parent / "pki" / name)
            sha256[f"destinations.agency.{key}.sha256"] = [
                hashlib.sha256((top / name).read_bytes()).hexdigest() for top in (w.pki, w.dir / "evil")]
        lines = [f"~ {key}: {a} -> {b}" for key, (a, b) in sha256.items()]
        equal(diff("--rules-only")[:2], (1, "\n".join([*lines, "3 rules differ", ""])), "other keys behind the same names")
        said = [json.loads(line) for line in diff("--json")[1].splitlines()]
        equal({x["key"]: [x["old"], x["new"]] for x in said if x["kind"] == "rule"}, sha256, "the same in JSON")
        (new.parent / "pki" / "seal.pem").unlink()
        code, said, wrong = diff()
        equal(code, 3, "exit status when a file can't be read")
        check(f"{new}: destinations.agency.seal_to[0].sha256: open pki/seal.pem: No such file" in wrong, wrong)
        equal(said.splitlines(), [lines[0], lines[2], "2 rules differ; 0 of 0 files would be decided differently"], "the rest")
        w.destination["seal_to"].append("pki/ca.pem")  # a file more is one
        new.write_text(yaml(w.policy))
        shutil.copy(w.pki / "seal.pem", new.parent / "pki")
        check("+ destinations.agency.seal_to[1].sha256: " in diff("--rules-only")[1], "another file named")


def warnings():
    """check warns with the place and the reason; --host looks at this host; --strict makes 1 of it"""
    with World(policy={"expires": "2099-01-01T00:00:00Z"}) as w:
        policy = w.dir / "policy.yaml"

        def check_says(*words):
            done = subprocess.run([program("cede"), "policy", "check", *map(str, words)], capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL)
            return done.returncode, done.stdout, done.stderr
        code, said, warned = check_says(policy)
        equal(code, 0, "warnings alone")
        check("ok: id test-lanes" in said, said)
        for needle in (":6:3: warning: destination agency: neither pins nor addresses", "ca: pki/ca.pem ends at",
                       "seal_to: pki/seal.pem ends at", "wipe.require: none"):
            check(needle in warned, f"{needle!r} in {warned}")
        equal(check_says("--strict", policy)[0], 1, "with --strict")
        said = json.loads(check_says("--json", policy)[1])
        equal((said["ok"], len(said["warnings"])), (True, 4), "warnings in JSON")
        w.source["wipe"] = {"require": "overwritten"}
        w.source["path"] = "/dev/shm"
        w.policy["sources"].append({**w.source, "name": "none", "path": str(w.dir / "none")})
        w.write_files()
        warned = check_says("--host", policy)[2]
        check("source faces: wipe.require: overwritten can't be met here: memory" in warned, warned)
        check("source none: open directory" in warned and "make the directory" in warned, warned)
        shutil.copy(w.pki / "agent.pem", w.pki / "ca.pem")
        code, _, warned = check_says(policy)
        equal(code, 2, "a CA that is none")
        check("pki/ca.pem: no certificate authority" in warned, warned)


def shown_again():
    """show writes every default out, and what it writes loads to the same policy"""
    with World(policy={"holds": [{"id": "case-7", "sources": ["faces"], "match": ["a/**"], "from": "2026-01-01T00:00:00Z",
                                  "to": "2026-02-01T00:00:00.5Z", "until": "2027-01-01T00:00:00Z"}]},
               destination={"addresses": ["127.0.0.0/8", "::1", "2001:db8::/32"], "bundle_size": "1MiB",
                            "bandwidth": {"limit": "300kbit/s", "windows": [
                                {"days": ["mon", "fri"], "from": "08:00", "to": "24:00", "limit": "2MiB/s"}]}},
               source={"group": {"by": "stem", "require": [".jpg"]}, "classification": 'a "b" \\ c', "max_size": "5MiB"}) as w:
        once = w.cede("policy", "show", "--policy", w.dir / "policy.yaml")
        (w.dir / "shown.yaml").write_text(once)
        twice = w.cede("policy", "show", "--policy", w.dir / "shown.yaml")
        equal(twice, once, "shown twice")
        check("wait: 30s" in once and "at_max_age: hold" in once, once)
        equal(w.cede("policy", "diff", "--rules-only", w.dir / "policy.yaml", w.dir / "shown.yaml"), "0 rules differ\n", "diff")
        json.loads(w.cede("policy", "show", "--policy", w.dir / "policy.yaml", "--json"))


def the_walk():
    """every command of docs/auditing.md says what is printed there"""
    text = (TOP / "docs" / "auditing.md").read_text(encoding="utf-8")
    with Tree() as w:
        home = pathlib.Path(tempfile.mkdtemp(prefix="cede-walk-"))
        try:
            os.rename(w.capture, home / "capture")
            policy = (TOP / "tests" / "golden" / "auditing" / "policy.yaml").read_text()
            (home / "policy.yaml").write_text(policy.replace("/srv/capture", str(home / "capture")))
            (home / "new.yaml").write_text(policy.replace("/srv/capture", str(home / "capture"))
                                           .replace("serial: 7", "serial: 8").replace('"**/*.json"]', '"**/*.json", "*.txt"]'))
            shutil.copytree(w.pki, home / "pki")
            blocks = re.findall(r"^    \$ (cede .*)\n((?:    .*\n|\n(?=    ))*)", text, re.M)
            check(len(blocks) >= 5, f"commands in docs/auditing.md: {len(blocks)}")
            for command, output in blocks:
                done = subprocess.run(["sh", "-c", command.replace("cede ", f"{program('cede')} ", 1)
                                       .replace("/srv/capture", str(home / "capture"))],
                                      cwd=home, capture_output=True, text=True, stdin=subprocess.DEVNULL)
                said = done.stdout.replace(str(home / "capture"), "/srv/capture")
                want = "".join(line[4:] + "\n" if line.strip() else "\n" for line in output.splitlines()).rstrip("\n") + "\n"
                # birth and status change are of today, and the best wipe is this file system's; everything else follows from --at
                today = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ(?= \(in the future)|(?<=status changed )\S+Z|(?<=birth      )\S+Z|(?<=here at best )\S+")
                # a directory's order is the file system's
                equal(sorted(today.sub("T", said).split("\n")), sorted(today.sub("T", want).split("\n")), command)
        finally:
            shutil.rmtree(home)


TESTS = [read_only, beside_the_agent, access_times, memory, exit_codes, refused_by_commands, enforced, terminal, names, hostile_policy, through_links, said_where, differences, other_keys, warnings, shown_again, the_walk]

if __name__ == "__main__":
    tap.run(TESTS)
