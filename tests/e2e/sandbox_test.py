#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the running programs gave up: privileges, core files, debuggers; and the spawner, which may start
the courier and nothing else. The acts that are forbidden are tried in tests/sandbox."""

import os
import pathlib
import pwd
import re
import signal
import socket
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Skip, check, equal
from world import World, until

CAPABILITIES = {"dac_override": 1, "dac_read_search": 2, "fowner": 3, "kill": 5, "setgid": 6, "setuid": 7, "ipc_lock": 14,
                "sys_ptrace": 19, "sys_admin": 21, "sys_nice": 23, "sys_resource": 24, "lease": 28}
KEEPER = {"dac_override", "dac_read_search", "fowner", "lease", "sys_admin", "ipc_lock"}
SPAWNER = {"setuid", "setgid", "kill",  # and what it hands on to the guard
           "sys_admin", "sys_ptrace", "dac_read_search", "sys_nice", "ipc_lock", "sys_resource"}


def root_only():
    if os.geteuid() != 0:
        raise Skip("needs root: what is given up must have been there")


def fields(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def bits(names):
    """As far as the machine has them."""
    return sum(1 << CAPABILITIES[n] for n in names) & int(fields(os.getpid())["CapBnd"], 16)


def named(w, name):
    """The process id of the agent's child of this name."""
    def look():
        for pid in w.agent.children():
            if fields(pid)["Name"] == name:
                return pid
        return None
    return until(look, 15, f"cede run has a {name}")


def gave_up(pid, name, keep, bound=None):
    """bound: capabilities that are left in the bounding set; never to be had again."""
    # a process that may not be dumped belongs to root in /proc, whoever runs it
    until(lambda: int(fields(pid)["CapPrm"], 16) == bits(keep) and os.stat(f"/proc/{pid}/environ").st_uid == 0, 15,
          lambda: f"{name} gave up what it has to: {fields(pid)}, {os.stat(f'/proc/{pid}/environ')}")
    status = fields(pid)
    equal(status["NoNewPrivs"], "1", f"{name}: no new privileges")
    if name != "spawner":
        until(lambda: fields(pid)["Seccomp"] == "2", 15, f"{name} has a list of system calls")
    equal(int(status["CapEff"], 16), bits(keep), f"{name}: CapEff")
    equal(int(status["CapBnd"], 16), bits(keep if bound is None else bound), f"{name}: CapBnd")
    for kind in ("CapInh", "CapAmb"):
        equal(int(status[kind], 16), 0, f"{name}: {kind}")
    limits = pathlib.Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    equal(re.search(r"^Max core file size +(\S+) +(\S+)", limits, re.M).groups(), ("0", "0"), f"{name}: size of a core file")


def privileges():
    """keeper, spawner and courier have the capabilities that they use and no others, no core files"""
    root_only()
    with World() as w:
        w.start()
        w.courier()
        gave_up(w.agent.pid, "keeper", KEEPER)
        gave_up(named(w, "cede-spawner"), "spawner", SPAWNER)
        gave_up(w.courier(), "courier", set(), SPAWNER)


def own_user():
    """the courier runs as courier_user, hands over, and is started again as that user"""
    root_only()
    nobody = pwd.getpwnam("nobody")
    with World() as w:
        w.config["courier_user"] = "nobody"
        w.write_files().start()
        first = w.courier()
        for pid in (first, None):
            pid = pid or w.courier()
            status = fields(pid)
            equal(status["Uid"].split(), [str(nobody.pw_uid)] * 4, "user ids of the courier")
            equal(status["Gid"].split(), [str(nobody.pw_gid)] * 4, "group ids of the courier")
            equal(status["Groups"].split(), [], "further groups of the courier")
            gave_up(pid, "courier", set(), SPAWNER)
            w.write(f"{pid}.jpg", b"picture")
            w.settled()
            if pid == first:
                os.kill(first, signal.SIGKILL)
                until(lambda: w.courier() != first, 15, "another courier")


def unknown_user():
    """a courier_user that does not exist is refused at start, by name"""
    with World(receiver=False) as w:
        w.config["courier_user"] = "no-such-user"
        w.write_files().start_agent()
        equal(w.agent.popen.wait(15), 2, "exit status")
        check("courier_user: there is no user no-such-user" in w.agent.said(), w.agent.said())


def spawner_dies():
    """without its spawner the agent says so and ends; started again it goes on"""
    with World() as w:
        w.start()
        w.courier()
        os.kill(named(w, "cede-spawner"), signal.SIGKILL)
        equal(w.agent.popen.wait(15), 3, "exit status")
        check("the spawner has ended" in w.agent.said(), w.agent.said())
        w.start_agent()
        w.write("a.jpg", b"picture")
        w.settled()


def nothing_left():
    """a keeper that is killed takes spawner and courier with it"""
    with World() as w:
        w.start()
        pids = [named(w, "cede-spawner"), w.courier()]
        w.agent.signal(signal.SIGKILL)
        w.agent.popen.wait(10)

        def alive(pid):
            try:
                return fields(pid)["State"][0] not in "ZX"
            except (FileNotFoundError, ProcessLookupError):
                return False
        until(lambda: not any(alive(p) for p in pids), 10, "both have ended")


def manager():
    """under a service manager a policy with sources elsewhere makes the agent end in order, to be started again"""
    with World() as w, tempfile.TemporaryDirectory() as outside, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(w.dir / "notify"))
        notified.settimeout(15)
        w.start_receiver()
        w.start_agent(env={**os.environ, "NOTIFY_SOCKET": str(w.dir / "notify")})
        while notified.recv(4096) != b"READY=1":
            pass
        other = pathlib.Path(outside)
        w.policy["sources"].append({**w.source, "name": "other", "path": str(other)})
        w.publish()
        equal(w.agent.popen.wait(20), 3, "exit status")
        check("agent.restart" in w.agent.said() and "agent.stopped clean=yes" in w.agent.said(), w.agent.said())
        w.start_agent()
        w.write("a.jpg", b"picture", top=other, source="other")
        w.write("b.jpg", b"picture")
        until(lambda: not list(other.iterdir()), 20, "the other source is emptied")
        w.settled()


def required():
    """a policy that requires a layer which the courier lacks hands nothing over, says so, and goes on once it may"""
    root_only()
    with World(policy={"sandbox": {"require": ["seccomp", "landlock", "own-user"]}}) as w:
        w.start()
        w.write("a.jpg", b"picture")
        until(lambda: "requires of the courier's sandbox: own-user" in w.agent.said(), 20, "the log says which layer lacks")
        equal(w.left(), [b"a.jpg"], "what stays")
        equal(list(w.store.rglob("*.cms")), [], "what arrived")
        del w.policy["sandbox"]
        w.publish()
        w.settled()
        w.policy["sandbox"] = {"require": ["own-user"]}
        w.config["courier_user"] = "nobody"
        w.publish()
        w.write_files()
        w.agent.stop()
        w.start_agent()
        w.write("b.jpg", b"picture")
        w.settled()


def elsewhere():
    """without a service manager such a policy is refused, with the mend; the one before stays in force"""
    with World() as w, tempfile.TemporaryDirectory() as outside:
        w.start()
        until(lambda: "agent.ready" in w.agent.said(), 20, "the agent is ready")
        w.policy["sources"].append({**w.source, "name": "other", "path": outside})
        w.publish()
        until(lambda: "policy.refused" in w.agent.said() and "restart the agent" in w.agent.said(), 20, "refused, with the mend")
        w.write("a.jpg", b"picture")
        w.settled()
        w.agent.stop()
        w.start_agent()
        w.write("b.jpg", b"picture", top=outside, source="other")
        until(lambda: not os.listdir(outside), 20, "the other source is emptied")


tap.run([required, manager, elsewhere, privileges, own_user, unknown_user, spawner_dies, nothing_left])
