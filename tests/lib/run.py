# SPDX-License-Identifier: Apache-2.0
"""Builds cede in several ways, runs all tests, and sums up every single test case.

Behind tests/run. The last line is "N passed, N failed, N skipped"; before it each skip and each
failure stands with its reason. Exit status 0 only if nothing failed and something ran.

Stages
  gcc     release compiler, warnings are errors: lint, unit, fuzz replay and e2e suites
  asan    the same with address and undefined-behaviour sanitizers: unit, fuzz replay, e2e
  clang   second compiler, warnings are errors; every fuzz target runs for a few seconds
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
JOBS = os.cpu_count() or 2
FUZZ_SECONDS = {"quick": 1, "normal": 4, "full": 60}
BUILD_LIMIT_S = 900
TEST_LIMIT_S = {"quick": 1800, "normal": 3600, "full": 28800}


class Case:
    def __init__(self, stage, program, name, result, reason=""):
        self.title = f"{stage}: {program}" + (f": {name}" if name and name != program else "")
        self.result = result  # "passed", "failed", "skipped"
        self.reason = reason.strip()


def say(text):
    print(text, flush=True)


def run(command, limit, **kwargs):
    """The command's (status, output); a command that hangs counts as failed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit,
                              text=True, errors="replace", stdin=subprocess.DEVNULL, **kwargs)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        text = e.stdout or b""
        return 124, (text.decode(errors="replace") if isinstance(text, bytes) else text) + \
            f"\nno end after {limit} s"


def tail(text, lines=25):
    return "\n".join(text.rstrip().splitlines()[-lines:])


# ---- TAP

TAP_LINE = re.compile(r"^(not )?ok\b\s*(\d+)?\s*(?:- )?(.*?)(?:\s*#\s*(SKIP)\b\s*(.*))?$", re.I)
TAP_PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*(SKIP)\b\s*(.*))?", re.I)


def tap_cases(stage, program, text):
    """Each 'ok' and 'not ok' of a TAP stream, and the number that its plan promised (or None)."""
    cases, planned, skip_all = [], None, None
    for line in text.splitlines():
        plan = TAP_PLAN.match(line)
        if plan:
            planned = (planned or 0) + int(plan.group(1))
            skip_all = plan.group(3) if plan.group(2) else None
            continue
        match = TAP_LINE.match(line)
        if match:
            bad, number, name, directive, why = match.groups()
            name = name or f"case {number}"
            if (directive or "").upper() == "SKIP":
                cases.append(Case(stage, program, name, "skipped", why or "no reason given"))
            else:
                cases.append(Case(stage, program, name, "failed" if bad else "passed"))
        elif line.startswith("#") and cases and cases[-1].result == "failed":
            cases[-1].reason += line.lstrip("# ") + "\n"
    if planned == 0 and not cases:
        cases.append(Case(stage, program, "", "skipped", skip_all or "it planned no tests"))
    return cases, planned


def log_cases(stage, path):
    """Reads meson's testlog.json: one line a test program, with all it printed."""
    cases = []
    for line in path.read_text(errors="replace").splitlines():
        test = json.loads(line)
        name = re.sub(r"^cede[:/]\s*", "", test["name"]).split(" / ")[-1]
        result, out, err = test["result"], test.get("stdout", ""), test.get("stderr", "")
        inner, planned = [], None
        if re.search(r"^(1\.\.\d+|(not )?ok\b)", out, re.M):
            inner, planned = tap_cases(stage, name, out)
        cases += inner
        said = tail((out if not inner else "") + err)
        missing = (planned or 0) - len(inner)
        if result == "SKIP":
            if not inner:
                cases.append(Case(stage, name, "", "skipped", said or "exit status 77"))
        elif result in ("OK", "EXPECTEDFAIL"):
            if missing > 0:
                cases.append(Case(stage, name, "", "failed", f"{missing} planned cases did not run"))
            elif not inner:
                cases.append(Case(stage, name, "", "passed"))
        elif not any(c.result == "failed" for c in inner) or missing > 0:
            why = f"{result.lower()}, exit status {test.get('returncode')}, {len(inner)} cases before it"
            cases.append(Case(stage, name, "", "failed", why + "\n" + (said or tail(out))))
    return cases


# ---- building

class Stage:
    """One build folder."""

    def __init__(self, name, options, env=None):
        self.name = name
        self.dir = TOP / "build-tests" / name
        self.options = ["-Dwerror=true", f"--prefix={self.dir / 'stage'}", *options]
        self.env = {**os.environ, **(env or {})}
        self.began = time.monotonic()

    def build(self, targets=(), install=False):
        """Cases of a failed build; none if it worked."""
        say(f"== {self.name}: build")
        self.began = time.monotonic()
        self.dir.parent.mkdir(exist_ok=True)
        commands = []
        setup = ["meson", "setup", str(self.dir), str(TOP), *self.options]
        if (self.dir / "build.ninja").exists():
            setup.insert(2, "--reconfigure")
        commands.append(setup)
        commands.append(["ninja", "-C", str(self.dir), f"-j{JOBS}", *targets])
        if install:
            commands.append(["meson", "install", "-C", str(self.dir), "--no-rebuild", "--quiet"])
        for command in commands:
            status, out = run(command, BUILD_LIMIT_S, env=self.env)
            if status != 0 and command is setup and "--reconfigure" in command:
                shutil.rmtree(self.dir)  # made by other options or another meson: begin afresh
                command.remove("--reconfigure")
                status, out = run(command, BUILD_LIMIT_S, env=self.env)
            if status != 0:
                say(tail(out, 40))
                return [Case(self.name, "build", " ".join(command[:2]), "failed", tail(out))]
        return []

    def test(self, suites, only, extra_env):
        names = ["meson", "test", "-C", str(self.dir), "--no-rebuild", "--print-errorlogs"]
        cases = []
        for label, jobs, chosen in suites:
            wanted = self.matching(chosen, only)
            if not wanted:
                continue
            base = f"log-{label}"
            log = self.dir / "meson-logs" / f"{base}.json"
            log.unlink(missing_ok=True)
            say(f"== {self.name}: {label} ({len(wanted)} programs)")
            began = time.monotonic()
            status, out = run([*names, "--num-processes", str(jobs), "--logbase", base, *wanted],
                              TEST_LIMIT_S[extra_env["CEDE_TESTS"]], env={**self.env, **extra_env})
            got = log_cases(self.name, log) if log.exists() else []
            cases += got
            bad = [c for c in got if c.result == "failed"]
            if status != 0 and not bad:
                cases.append(Case(self.name, label, "", "failed", f"meson test: status {status}\n{tail(out)}"))
            if status == 0 and not got:
                cases.append(Case(self.name, label, "", "failed", "meson test wrote no log"))
            for case in bad:
                say(f"   FAILED {case.title}\n" + indent(case.reason))
            say(f"   {count(got)} in {time.monotonic() - began:.0f} s")
        return cases

    def matching(self, suites, only):
        """Names of the tests of these suites (and, with --only, whose name contains it)."""
        status, out = run(["meson", "introspect", "--tests", str(self.dir)], 60, env=self.env)
        if status != 0:
            raise SystemExit(f"meson introspect: {tail(out)}")
        names = []
        for test in json.loads(out):
            mine = {s.split(":")[-1] for s in test["suite"]}
            if mine & set(suites) and (not only or only in test["name"]):
                names.append(test["name"])
        return names


def fuzz_one(stage, target, seconds):
    """Runs a fuzz target for so many seconds from its corpus; a crash leaves its input behind."""
    noun = target.name.removesuffix("_fuzz")
    corpus = TOP / "tests" / "fuzz" / "corpus" / noun
    keep = stage.dir / "fuzz" / noun
    keep.mkdir(parents=True, exist_ok=True)
    if not corpus.is_dir() or not any(corpus.iterdir()):
        return Case(stage.name, "fuzz", noun, "failed", f"no seeds in {corpus.relative_to(TOP)}")
    with tempfile.TemporaryDirectory(prefix="cede-fuzz-") as work:
        status, out = run([str(target), f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
                           "-print_final_stats=1", f"-artifact_prefix={keep}/", work, str(corpus)],
                          seconds + 60, env=stage.env, cwd=work)
    if status == 0 and re.search(r"number_of_executed_units:\s*(\d+)", out):
        return Case(stage.name, "fuzz", noun, "passed")
    reason = f"status {status}, the input is in {keep}\n{tail(out)}"
    say(f"   FAILED {noun}\n{indent(reason)}")
    return Case(stage.name, "fuzz", noun, "failed", reason)


def fuzz(stage, mode, only):
    """Every fuzz target, as many at a time as there are processors."""
    targets = sorted(p for p in stage.dir.rglob("*_fuzz") if p.is_file() and os.access(p, os.X_OK))
    if not targets and not only:
        return [Case(stage.name, "fuzz", "", "failed", "no fuzz target was built")]
    seconds = FUZZ_SECONDS[mode]
    say(f"== {stage.name}: fuzz ({len(targets)} targets, {seconds} s each)")
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(lambda t: fuzz_one(stage, t, seconds),
                             [t for t in targets if only in t.name.removesuffix("_fuzz")]))


# ---- summing up

def indent(text):
    return "\n".join("      " + line for line in text.splitlines())


def count(cases):
    n = {"passed": 0, "failed": 0, "skipped": 0}
    for case in cases:
        n[case.result] += 1
    return f"{n['passed']} passed, {n['failed']} failed, {n['skipped']} skipped"


def report(cases, began):
    say("")
    for result in ("skipped", "failed"):
        for case in (c for c in cases if c.result == result):
            say(f"{result.upper()} {case.title}\n{indent(case.reason or 'no reason given')}")
    say(f"{time.monotonic() - began:.0f} s")
    say(count(cases))
    failed = any(c.result == "failed" for c in cases)
    return 1 if failed or not any(c.result == "passed" for c in cases) else 0


def stages(mode, only):
    everything = [("lint", JOBS, ["lint"]), ("unit", JOBS, ["unit", "fuzz"]), ("e2e", JOBS, ["e2e"])]
    sanitized = [("unit", JOBS, ["unit", "fuzz"]), ("e2e", JOBS, ["e2e-asan"])]
    asan = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1"}
    sanitizers = ["-Db_sanitize=address,undefined", "-Db_lundef=false"]
    yield Stage("gcc", []), everything, {}
    yield Stage("asan", sanitizers), sanitized if mode != "quick" else sanitized[:1], asan
    if not only or only.startswith("fuzz"):
        yield Stage("clang", [*sanitizers, "-Dfuzz=true"], {"CC": "clang-14"}), None, asan


def main():
    args = argparse.ArgumentParser(prog="tests/run", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--quick", action="store_true", help="less of each: a few minutes")
    args.add_argument("--full", action="store_true", help="all rounds, a minute for each fuzz target")
    args.add_argument("--only", metavar="NAME", help="only tests whose name contains NAME")
    args.add_argument("--stage", choices=("gcc", "asan", "clang"), help="only gcc, asan or clang")
    options = args.parse_args()
    mode = "full" if options.full else "quick" if options.quick else "normal"
    began = time.monotonic()
    cases = []
    for stage, suites, env in stages(mode, options.only):
        if options.stage and stage.name != options.stage:
            continue
        broken = stage.build(install=suites is not None)
        cases += broken
        say(f"   {'failed' if broken else 'built'} in {time.monotonic() - stage.began:.0f} s")
        if broken:
            continue
        if suites is None:
            stage.env.update(env)
            cases += fuzz(stage, mode, (options.only or "").removeprefix("fuzz").strip())
        else:
            cases += stage.test(suites, options.only, {**env, "CEDE_TESTS": mode})
    return report(cases, began)


if __name__ == "__main__":
    sys.exit(main())
