#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every command of the documents for administrators is run as it stands there, on a clean system with systemd.

In a page a block ```sh is run by bash, in one folder, and must succeed. A comment before a block says more:
    <!-- before: COMMAND -->        what the test does itself: the other side's part, or waiting
    <!-- file: PATH -->             the next block is the content of that file
    <!-- foreground -->             each line is a program that goes on: it is ended once it is ready
    <!-- here: PAGE -->             the other page's steps belong here
    <!-- not-run: REASON -->        the next block is not run; at most a few, and each is shown
No command may hide in a block of another kind."""

import atexit
import functools
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import packages
import tap
from container import HOME, Container
from tap import Failure, Skip, check, diag, equal
from world import TOP, until

PAGES = ("README.md", "docs/operating.md", "docs/receiving.md", "docs/runbook.md")
COMMANDS = r"(\$ )?(sudo )?(cede|cede-receiver|openssl|systemctl|journalctl|apt-get|apt|zstd|tar|curl|install|chmod|packaging/\S+|tests/\S+|meson)\s"
READY = {"cede": "agent.ready", "cede-receiver": "receiver.listening"}


class Step:
    def __init__(self, kind, text, place):
        self.kind, self.text, self.place = kind, text, place


def steps(page):
    """What a page asks for, in order."""
    found, lines, notes, at = [], (TOP / page).read_text().splitlines(), {}, 0
    while at < len(lines):
        comment = re.fullmatch(r"\s*<!-- ([a-z-]+)(?:: (.*))? -->", lines[at])
        fence = re.fullmatch(r"(\s*)```(\w*)", lines[at])
        place = f"{page}:{at + 1}"
        if comment and comment[1] in ("before", "here"):
            found.append(Step(comment[1], comment[2], place))
        elif comment:
            notes[comment[1]] = comment[2]
        elif fence:
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            text = "\n".join(line.removeprefix(fence[1]) for line in lines[at + 1:end]) + "\n"
            if "not-run" in notes:
                found.append(Step("not-run", f"{notes['not-run']}", place))
            elif "file" in notes:
                found.append(Step("file", (notes["file"], text), place))
            elif fence[2] == "sh":
                found.append(Step("foreground" if "foreground" in notes else "run", text, place))
            else:
                found.append(Step("shown", text, place))
            notes, at = {}, end
        elif lines[at].startswith("    ") and lines[at].strip() and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            found.append(Step("shown", "\n".join(line[4:] for line in lines[at:end]), place))
            at = end - 1
        at += 1
    return found


def pages():
    return [p for p in PAGES if (TOP / p).exists()]


def no_command_hides():
    """in these pages commands stand in blocks that are run, and few are excused"""
    excused = 0
    for page in pages():
        for step in steps(page):
            excused += step.kind == "not-run"
            if step.kind == "not-run":
                diag(f"{step.place} is not run: {step.text}")
            if step.kind == "shown":
                for line in step.text.splitlines():
                    check(not re.match(COMMANDS, line), f"{step.place}: a command that nothing runs: {line}")
    check(excused <= 4, f"{excused} blocks are excused")


@functools.cache
def begun():
    try:
        c = Container([packages.package("cede"), packages.package("cede-receiver")])
        c.__enter__()
    except (Skip, Failure) as e:
        return None, e
    atexit.register(c.__exit__, None, None, None)
    with open(c.root / "etc/hosts", "a", encoding="ascii") as f:
        f.write("127.0.0.1 intake.agency.example\n")
    return c, None


def system():
    c, why = begun()
    if why is not None:
        raise type(why)(str(why))
    return c


def foreground(c, step):
    """Each line: ready, then ended by SIGTERM with status 0."""
    for line in step.text.splitlines():
        unit = f"line-{abs(hash(line))}"
        name = line.split()[0]
        c.sh(f"systemd-run -q -u {unit} -p SuccessExitStatus=0 -E CREDENTIALS_DIRECTORY=/run/test-credentials {line}")
        until(lambda: READY[name] in c.journal(unit), 30, lambda: f"{step.place}: {line}\n{c.journal(unit)}")
        c.sh(f"systemctl stop {unit}")
        check("Deactivated successfully" in c.journal(unit), c.journal(unit))


def walk(page):
    c, ran = system(), 0
    for step in steps(page):
        if step.kind == "here":
            ran += walk(f"docs/{step.text}")
        elif step.kind == "file":
            path = pathlib.Path(c.root, step.text[0].lstrip("/")) if step.text[0].startswith("/") else c.root / HOME / step.text[0]
            path.write_text(step.text[1])
        elif step.kind == "foreground":
            foreground(c, step)
            ran += 1
        elif step.kind in ("run", "before"):
            status, out = c.try_sh("set -e -o pipefail\n" + step.text)
            check(status == 0, f"{step.place}: status {status}\n{step.text}\n{out}\n{''.join(map(c.journal, ('cede', 'cede-receiver')))[-2500:]}")
            ran += step.kind == "run"
    return ran


def from_receiving_to_operating():
    """docs/receiving.md, and docs/operating.md where it belongs: the agency's and the contractor's walk, command by command"""
    want = sum(s.kind in ("run", "foreground") for page in ("docs/receiving.md", "docs/operating.md") for s in steps(page))
    equal(walk("docs/receiving.md"), want, "blocks that were run")


def readme():
    """README.md: its commands, on the system that the other pages have set up"""
    c = system()
    c.sh("apt-get install -q -y ./cede_*.deb ./cede-receiver_*.deb; systemctl stop cede cede-receiver; "
         "mkdir -p /run/test-credentials && cp /etc/cede-receiver/keys/receipt.key /run/test-credentials/key_receipt.key && "
         "cp /etc/cede-receiver/keys/server.key /run/test-credentials/key_server.key && cp /etc/cede/agent.key /run/test-credentials/")
    check(walk("README.md") > 0, "README.md has commands")


def runbook():
    """docs/runbook.md: the commands that its lines name, while the agent runs and while it doesn't"""
    c = system()
    looks = "cede status|cede ledger|cede doctor|cede policy check|cede exposure|journalctl|systemctl status|timedatectl"
    said = re.findall(rf"`((?:{looks})\b[^`]*)`", (TOP / "docs/runbook.md").read_text())
    commands = sorted({line for line in said if not re.search(r"\b[A-Z]{3,}\b", line)})
    check(len(commands) >= 5, commands)
    for state in ("start", "stop"):
        c.sh(f"systemctl {state} cede-receiver cede")
        for line in commands:
            status, out = c.try_sh(line)
            stopped = state == "stop" and line.startswith("systemctl status") and status == 3
            check((status in (0, 1) or stopped) and out, f"{line}: status {status}\n{out}")


tap.run([no_command_hides, from_receiving_to_operating, readme, runbook])
