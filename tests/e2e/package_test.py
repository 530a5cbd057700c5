#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The packages: what they hold, and how they behave on a clean system, from the first install to the purge."""

import ctypes
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import atexit
import hashlib
import json

import packages
import spdx
import tap
from container import HOME, Container, run
from prometheus import Prometheus
from tap import Failure, Skip, check, diag, equal
from world import Process, until

SECRET = "AB12CDE"  # what a file name may tell of a person


def lintian():
    """lintian has no error and no warning for the source and the binary packages"""
    changes = list(packages.debian().glob("*.changes"))
    equal(len(changes), 1, "changes files")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    status, out = run(*user, "lintian", "--fail-on", "error,warning", "--tag-display-limit", "0", changes[0], env={**os.environ, "HOME": "/nonexistent"})
    equal(status, 0, f"status of lintian\n{out}")


def contents(deb, folder):
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return {p.relative_to(folder): p for p in sorted(pathlib.Path(folder).rglob("*")) if p.is_file() and not p.is_symlink()}


def bill_of_materials():
    """each package has a valid SPDX 2.3 document that names all its files and libraries, with digests that are true"""
    for name in ("cede", "cede-receiver"):
        deb = packages.package(name)
        with tempfile.TemporaryDirectory() as folder:
            files = contents(deb, folder)
            own = pathlib.Path(f"usr/share/doc/{name}/{name}.spdx.json")
            document = json.loads(files.pop(own).read_text())
            spdx.check_document(document)
            told = {pathlib.Path(f["fileName"]): f for f in document["files"]}
            equal(set(told), set(files), f"files of {name}")
            for path, file in files.items():
                for algorithm in ("SHA1", "SHA256"):
                    want = [c["checksumValue"] for c in told[path]["checksums"] if c["algorithm"] == algorithm]
                    equal(want, [hashlib.new(algorithm.lower(), file.read_bytes()).hexdigest()], f"{algorithm} of {path}")
            linked = {p["name"] for p in spdx.related(document, "DYNAMIC_LINK")}
            depends = {d.split()[0] for d in run("dpkg-deb", "-f", deb, "Depends")[1].split(", ") if d.startswith("lib")}
            check(depends - {"libc6"} <= linked, f"{name} depends on {sorted(depends - linked)}, which its bill of materials does not name")
            check("gcc" in {p["name"] for p in spdx.related(document, "BUILD_TOOL_OF")}, "the compiler is named")


def led_to_the_runbook():
    """each alert names a page that the package has under this very name, and a section of it"""
    with tempfile.TemporaryDirectory() as folder:
        files = contents(packages.package("cede"), folder)
        led = re.findall(r"^ +runbook: /(\S+)#(\S+)$", files[pathlib.Path("usr/share/cede/prometheus/cede.rules.yml")].read_text(), re.M)
        check(len(led) > 20, f"{len(led)} alerts")
        for page, section in led:
            check(pathlib.Path(page) in files, f"the package has no /{page}")
            check(section in re.findall(r"^### (\w+)$", files[pathlib.Path(page)].read_text().lower(), re.M), f"/{page} has no section {section}")


def reproducible():
    """built again in another folder, time zone, language and umask, at another time, the packages have the same bytes"""
    if tap.mode() == "quick":
        raise Skip("builds a second time: not with --quick")
    first = packages.debian()
    again = packages.cache_dir() / "packages" / "again"
    shutil.rmtree(again, ignore_errors=True)
    before = os.umask(0o077)
    try:
        packages.build("deb", again / "out", again / "another" / "place",
                       {"TZ": "Pacific/Kiritimati", "LANG": "tr_TR.UTF-8", "LC_ALL": "C", "HOME": "/nonexistent", "CCACHE_DISABLE": "1"})
    finally:
        os.umask(before)
    sources = packages.of_these_sources()
    names = sorted(p.name for p in first.iterdir() if p.suffix == ".deb" or (sources and (p.suffix == ".dsc" or ".tar." in p.name)))
    check(len(names) >= (6 if sources else 4), names)
    if not sources:
        diag("tests were changed since the packages were built: the source package is not compared")
    for name in names:
        equal(hashlib.sha256((again / "out" / name).read_bytes()).hexdigest(), hashlib.sha256((first / name).read_bytes()).hexdigest(), f"SHA-256 of {name}")
    shutil.rmtree(again)


def rpm():
    """rpmbuild makes both packages from the spec; they hold the same files as Debian's, but the documents"""
    if tap.mode() == "quick":
        raise Skip("builds a second time: not with --quick")
    if not shutil.which("rpmbuild"):
        raise Skip("not installed: rpm (packaging/install-dependencies test)")
    top = packages.cache_dir() / "packages" / "rpm"
    shutil.rmtree(top, ignore_errors=True)
    packages.build("rpm", top / "out", top / "work")
    for name, package in (("cede", "cede-0"), ("cede-receiver", "cede-receiver-0")):
        found = [p for p in (top / "out").glob(f"{package}*.rpm") if ".src." not in p.name]
        equal(len(found), 1, f"packages {package}")
        told = {line for line in run("rpm", "-qpl", found[0])[1].splitlines() if line.startswith("/") and "/doc/" not in line and "/licenses/" not in line}
        with tempfile.TemporaryDirectory() as folder:
            want = {f"/{p}".removesuffix(".gz") for p in contents(packages.package(name), folder) if "/doc/" not in f"/{p}" and "lintian" not in p.parts}
        got = {t.replace("/usr/lib/systemd", "/lib/systemd").removesuffix(".gz") for t in told}
        check(want <= got, f"{package} lacks {sorted(want - got)}")
        check(re.search(r"^/usr/share/doc/[^/]+/runbook\.md$", run("rpm", "-qpl", found[0])[1], re.M), f"{package} has the documents, side by side")
        check(run("rpm", "-qp", "--scripts", found[0])[1].count("try-restart") == 1, "it is started again after an upgrade")
        equal(run("rpm", "-qpc", found[0])[1].count(".yaml"), 1, "settings that an upgrade keeps")
    shutil.rmtree(top)


# ---- one system, from the first install to the purge: the cases follow each other

@functools.cache
def begun():
    """The system, or why there is none: found out once."""
    try:
        c = Container([packages.package("cede"), packages.package("cede-receiver")])
        c.__enter__()
    except (Skip, Failure) as e:
        return None, e
    atexit.register(c.__exit__, None, None, None)
    return c, None


def system():
    c, why = begun()
    if why is not None:
        raise type(why)(str(why))
    return c


def names():
    return [packages.package(n).name for n in ("cede", "cede-receiver")]


def installed():
    """on a clean system apt installs both; nothing starts, users and folders are there with their modes"""
    c = system()
    out = c.install(*names())
    check("installed and not started" in out, out)
    equal(c.try_sh("systemctl is-active cede cede-receiver")[1].split(), ["inactive"] * 2, "states")
    equal(c.try_sh("systemctl is-enabled cede cede-receiver")[1].split(), ["disabled"] * 2, "enabled")
    equal(c.sh("stat -c '%A %U %n' /var/lib/cede /var/lib/cede-receiver /etc/cede-receiver/keys").splitlines(),
          ["drwx------ root /var/lib/cede", "drwx------ cede-receiver /var/lib/cede-receiver", "drwx------ root /etc/cede-receiver/keys"], "folders")
    for user in ("cede-courier", "cede-receiver"):
        check("nologin" in c.sh(f"getent passwd {user}"), f"{user} can't log in")
    check(re.match(r"cede \d", c.sh("cede --version")), "cede runs")
    check(re.match(r"cede-receiver \d", c.sh("cede-receiver --version")), "cede-receiver runs")
    c.sh("systemd-analyze --man=no verify cede.service cede-receiver.service")


def refused():
    """as they were installed both refuse to start, say why in the journal, and are not started again"""
    c = system()
    for unit, reason in (("cede", "agent.yaml:9:1: identity is not filled in: which host is this?"),
                         ("cede-receiver", "receiver.yaml:10:1: receipts is not filled in: which key signs receipts?")):
        check(c.try_sh(f"systemctl start {unit}")[0] != 0, f"{unit} does not start")
        said = c.journal(unit)
        check(reason in said, said)
        equal(c.sh(f"systemctl show -p NRestarts -p Result {unit}").split(), ["Result=exit-code", "NRestarts=0"], f"{unit} waits for a person")
    c.sh("systemctl reset-failed")


def handed_over():
    """two edited files, keys and a signed policy: both start under systemd, a picture goes, cede status shows it"""
    c = system()
    c.sh("""
        set -e
        CEDE_HOST=lanes-1 /usr/share/cede/dev-pki pki
        cd pki
        install -m 0600 -t /etc/cede-receiver/keys server.key receipt.key
        install -m 0644 -t /etc/cede-receiver server.pem ca.pem
        install -m 0600 -t /etc/cede agent.key
        install -m 0644 -t /etc/cede agent.pem policy.pub ca.pem seal.pem receipt.pub
    """)
    (c.root / "etc/cede/policy.yaml").write_text("""version: 1
id: lanes
serial: 1
expires: 2099-01-01T00:00:00Z
destinations:
  agency: {url: "https://localhost:8443/", ca: ca.pem, seal_to: [seal.pem], receipts: [receipt.pub]}
sources:
  - name: faces
    path: /srv/capture
    match: ["**/*.jpg"]
    ignore: ["lost+found/**"]
    destination: agency
    quiet: 200ms
    max_age: 15m
    at_max_age: hold
    wipe: {after: receipt, method: overwrite, require: overwritten}
""")
    c.sh("cede policy sign --key pki/policy.key /etc/cede/policy.yaml")
    c.edit("/etc/cede/agent.yaml", ("^#identity", "identity"), ("^#policy_signers", "policy_signers"))
    c.edit("/etc/cede-receiver/receiver.yaml", ("^#identity", "identity"), ("^#clients", "clients"), ("^#receipts", "receipts"))
    for unit in ("cede-receiver", "cede"):
        status, out = c.try_sh(f"systemctl enable --now {unit}")
        check(status == 0, f"{unit} does not start: {out}\n{c.journal(unit)}")
    picture = os.urandom(200_000)
    (c.dir / "captures" / f".{SECRET}").write_bytes(picture)
    (c.dir / "captures" / f".{SECRET}").rename(c.dir / "captures" / f"{SECRET}.jpg")
    until(lambda: not (c.dir / "captures" / f"{SECRET}.jpg").exists(), 30, lambda: c.journal("cede"))

    def at_rest():
        counts = json.loads(c.sh("cede status --json"))
        return counts["captures"]["wiped"] == 1 and counts["bundles"]["done"] == 1
    until(at_rest, 30, "cede status shows the capture as wiped, its bundle as done", each=0.2)
    check("wiped" in c.sh("cede status"), "and the table does")
    c.sh("cede doctor --offline || test $? -eq 1")
    c.sh("mkdir opened && cede-receiver open $(find /var/lib/cede-receiver -name '*.cms') --key pki/seal.key --cert pki/seal.pem --into opened")
    equal(c.sh(f"sha256sum opened/faces/{SECRET}.jpg").split()[0], hashlib.sha256(picture).hexdigest(), "the picture at the agency")


def watched():
    """systemd sees status lines, feeds from the watchdog, the courier's own user, no capability and no name in the journal"""
    c = system()
    shown = dict(line.split("=", 1) for line in c.sh(
        "systemctl show -p StatusText -p WatchdogTimestampMonotonic -p WatchdogUSec -p MainPID -p NotifyAccess cede").splitlines())
    check(shown["StatusText"].startswith("handing over; policy lanes, serial 1;"), shown)
    equal(shown["WatchdogUSec"], "2min", "watchdog")
    check(int(shown["WatchdogTimestampMonotonic"]) > 0, "the watchdog was fed")
    pid = c.sh("for p in /proc/[0-9]*; do if grep -qs cede-courier $p/comm; then echo ${p#/proc/}; fi; done").split()
    equal(len(pid), 1, f"couriers: {pid}")
    said = c.sh(f"grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/{pid[0]}/status")
    check(re.search(r"CapEff:\s+0{16}", said) and re.search(r"NoNewPrivs:\s+1", said) and re.search(r"Seccomp:\s+2", said), said)
    check(not re.search(r"Uid:\s+0\b", said), f"the courier is not root: {said}")
    receiver = c.sh("grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$(systemctl show -P MainPID cede-receiver)/status")
    check(re.search(r"CapBnd:\s+0{16}", receiver) and re.search(r"Seccomp:\s+2", receiver) and not re.search(r"Uid:\s+0\b", receiver), receiver)
    bundle = c.sh("cd /var/lib/cede-receiver && find . -name '*.cms' -printf '%f'").removesuffix(".cms")
    check("bundle.stored" in c.sh(f"journalctl -o cat --no-pager CEDE_BUNDLE={bundle}"), "the journal finds a bundle by its id")
    for unit in ("cede", "cede-receiver"):
        check(SECRET not in c.journal(unit), "no name of a capture is in the journal")
    if ctypes.CDLL(None).syscall(444, None, 0, 1) > 0:  # landlock_create_ruleset: which version
        check(not re.search(r"sandbox.missing .*layer=landlock ", c.journal("cede")), "the unit leaves the agent its own sandbox")
    c.sh("systemctl reload cede")
    until(lambda: "policy.unchanged" in c.journal("cede"), 10, "the reload was taken")


def killed():
    """an agent that dies or hangs is started again by systemd"""
    c = system()
    c.sh("mkdir -p /run/systemd/system/cede.service.d && printf '[Service]\\nWatchdogSec=2s\\nRestartSec=200ms\\n' > "
         "/run/systemd/system/cede.service.d/fast.conf && systemctl daemon-reload && systemctl restart cede")
    for signal, result in (("KILL", "status=9/KILL"), ("STOP", "Watchdog timeout")):
        before = c.sh("systemctl show -P MainPID cede")
        c.sh(f"kill -{signal} $(systemctl show -P MainPID cede)")

        def again():
            now = c.sh("systemctl show -P MainPID -P ActiveState cede").split()
            return now[0] not in ("0", before.strip()) and now[1] == "active"
        until(again, 30, lambda: f"started again after SIG{signal}\n{c.journal('cede')[-2000:]}", each=0.2)
        check(result in c.journal("cede"), f"{result} in {c.journal('cede')[-2000:]}")
    c.sh("rm -r /run/systemd/system/cede.service.d && systemctl daemon-reload && systemctl restart cede")


def scraped():
    """the metrics socket is systemd's: it answers, also while the agent is started anew"""
    c = system()
    c.edit("/etc/cede/agent.yaml", ("^metrics: .*", "metrics: systemd"))
    c.sh("systemctl stop cede && systemctl start cede-metrics.socket && systemctl start cede")
    page = c.sh("curl -sS --retry 20 --retry-delay 1 --retry-all-errors -f http://127.0.0.1:9464/metrics")
    check("cede_oldest_plaintext_age_seconds{" in page and SECRET not in page, page[:2000])
    check('cede_courier_sandbox_layer{layer="own-user"} 1\n' in page, "the courier is a user of its own")
    c.sh("systemctl stop cede-metrics.socket")
    c.edit("/etc/cede/agent.yaml", ("^metrics: .*", "metrics: 127.0.0.1:8443"))
    c.sh("systemctl restart cede")
    until(lambda: "metrics.unserved" in c.sh("journalctl -u cede -p err -o cat --no-pager"), 20,
          "an error of the courier's is an error in the journal: another has its port")
    c.edit("/etc/cede/agent.yaml", ("^metrics: .*", "metrics: 127.0.0.1:9464"))
    c.sh("systemctl restart cede && curl -sS --retry 20 --retry-delay 1 --retry-all-errors -f -o page http://127.0.0.1:9464/metrics")


def alerted():
    """a real Prometheus beside it scrapes the installed agent and evaluates the installed rules: alerts fire, and clear"""
    c = system()
    folder = c.dir / "prometheus"
    folder.mkdir()

    def spawn(words):
        return Process("prometheus", ["nsenter", "-t", str(c.leader), "-n", *words], folder / "log")

    def fetch(url):
        status, out = c.try_sh(f"curl -sSf '{url}'")
        return out if status == 0 else None
    prometheus = Prometheus(folder, c.root / "usr/share/cede/prometheus/cede.rules.yml", "127.0.0.1:9464", 9090, spawn, fetch)
    try:
        until(lambda: prometheus.value('up{job="cede"}') == [1], 60, lambda: f"the agent is scraped: {prometheus.process.said()}", each=0.2)
        late = {"CedePlaintextTooOld", "CedeDestinationDown"}
        equal(prometheus.firing() & (late | {"CedeDown"}), set(), "alerts while all is well")
        until(lambda: "CedeAbsent" not in prometheus.firing(), 20, "it fired until the first scrape, and clears", each=0.2)
        c.sh("systemctl stop cede-receiver")
        old = c.dir / "captures" / ".old"
        old.write_bytes(b"picture" * 100)
        os.utime(old, (old.stat().st_mtime - 6000,) * 2)
        old.rename(c.dir / "captures" / "old.jpg")
        until(lambda: late <= prometheus.firing(), 60, lambda: f"{late} fire: {prometheus.firing()}", each=0.2)
        status, out = c.try_sh("systemctl start cede-receiver")
        if status != 0:  # seen once beside much else; the unit is started again after 5 s, and the journal says why
            diag(f"the first start failed: {out}\n{c.journal('cede-receiver')[-3000:]}")
            until(lambda: c.try_sh("systemctl is-active cede-receiver")[0] == 0, 30, lambda: c.journal("cede-receiver")[-3000:], each=0.2)
        until(lambda: not late & prometheus.firing(), 90, lambda: f"{late} clear: {prometheus.firing()}", each=0.2)
        check(not (c.dir / "captures" / "old.jpg").exists(), "the picture is gone")
        c.sh("systemctl stop cede")
        until(lambda: "CedeDown" in prometheus.firing(), 60, "the agent is down", each=0.2)
        c.sh("systemctl start cede")
        until(lambda: "CedeDown" not in prometheus.firing(), 60, "it is back", each=0.2)
    finally:
        prometheus.process.kill_all()


def guarded():
    """the unit leaves the guard what it needs; agent and guard killed at once: opens wait, since systemd has kept the questions"""
    c = system()
    policy = c.root / "etc/cede/policy.yaml"
    without = policy.read_text()

    def publish(serial, more=""):
        policy.write_text(without.replace("serial: 1\n", f"serial: {serial}\n") + more)
        c.sh("cede policy sign --key pki/policy.key /etc/cede/policy.yaml && systemctl reload cede")
        until(lambda: f"serial {serial};" in c.sh("systemctl show -P StatusText cede"), 20, lambda: c.journal("cede")[-2000:], each=0.2)
    c.sh("systemctl stop cede-receiver && cp /bin/cp /usr/local/bin/camera")
    publish(2, "guard: {mode: enforce, allow: [{exe: /usr/local/bin/camera, user: root}]}\n")
    until(lambda: "guard.started" in c.journal("cede"), 20, "there is a guard", each=0.2)
    c.sh("camera /etc/os-release /srv/capture/seen.jpg")
    check("not permitted" in c.sh("cat /srv/capture/seen.jpg", status=1), "root's cat is denied")
    check(int(c.sh("systemctl show -P NFileDescriptorStore cede")) > 0, "systemd keeps a descriptor")
    c.sh("kill -9 $(systemctl show -P MainPID cede) $(grep -lx cede-guard /proc/[0-9]*/comm | cut -d/ -f3)")
    c.sh("timeout 2 cat /srv/capture/seen.jpg", status=124)
    until(lambda: "gap=no" in c.sh("cede ledger events | grep guard-started; true"), 30, "the guard is back without a gap", each=0.2)
    check("not permitted" in c.sh("cat /srv/capture/seen.jpg", status=1), "root's cat is denied")
    publish(3)
    until(lambda: c.sh("systemctl show -P NFileDescriptorStore cede").strip() == "0", 20, "a policy without a guard: systemd keeps nothing", each=0.2)
    c.sh("timeout 5 cat /srv/capture/seen.jpg")
    c.sh("systemctl start cede-receiver")
    until(lambda: not (c.dir / "captures" / "seen.jpg").exists(), 60, lambda: c.journal("cede")[-2000:], each=0.2)


def newer(deb, version):
    """The same package as a later version."""
    folder = deb.parent / "newer"
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.M))
    target = folder / f"{deb.name.split('_')[0]}_{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree, target], check=True, capture_output=True)
    shutil.rmtree(tree)
    return target


def upgraded():
    """an upgrade keeps settings, ledger and store, and starts again what ran"""
    c = system()
    before = c.sh("cede ledger list --state /var/lib/cede --json; md5sum /etc/cede/* /etc/cede-receiver/*.yaml; find /var/lib/cede-receiver -type f | sort")
    pids = c.sh("systemctl show -P MainPID cede cede-receiver").split()
    later = [newer(packages.package(n), "0.1.1-1") for n in ("cede", "cede-receiver")]
    for deb in later:
        shutil.copy(deb, c.root / HOME)
    c.install(*(deb.name for deb in later))
    equal(c.sh("dpkg-query -W -f '${Version}\\n' cede cede-receiver").split(), ["0.1.1-1"] * 2, "versions")
    equal(c.sh("systemctl is-active cede cede-receiver").split(), ["active"] * 2, "states")
    now = c.sh("systemctl show -P MainPID cede cede-receiver").split()
    check(not set(pids) & set(now), f"both were started again: {pids} {now}")
    equal(c.sh("cede ledger list --state /var/lib/cede --json; md5sum /etc/cede/* /etc/cede-receiver/*.yaml; find /var/lib/cede-receiver -type f | sort"), before,
          "what was there before")
    c.sh("cede ledger verify")


def purged():
    """removed, even purged, they stop, and leave captures, ledger, spool and store where they are, with a note"""
    c = system()
    c.sh("systemctl stop cede-receiver")  # so that the capture stays
    (c.dir / "captures" / "last.jpg").write_bytes(b"x" * 5000)
    equal(c.try_sh("systemctl is-active cede")[1].split(), ["active"], "state before")
    c.sh("apt-get remove -q -y cede cede-receiver")
    equal(c.try_sh("systemctl is-active cede cede-receiver")[1].split(), ["inactive"] * 2, "states")
    check((c.root / "etc/cede/agent.yaml").exists(), "settings stay until the purge")
    files = "find /var/lib/cede /var/lib/cede-receiver -type f | sort | xargs md5sum"
    before = c.sh(files)
    check("ledger" in before and ".cms" in before, before)
    out = c.sh("apt-get purge -q -y cede cede-receiver")
    check("/var/lib/cede stays: the custody ledger" in out and "/var/lib/cede-receiver stays" in out, out)
    equal(c.sh(files), before, "what was there before")
    equal((c.dir / "captures" / "last.jpg").stat().st_size, 5000, "size of the capture")
    check(not (c.root / "etc/cede/agent.yaml").exists(), "the settings as they were installed are gone")
    check((c.root / "etc/cede/agent.key").exists(), "keys are the administrator's")


tap.run([lintian, bill_of_materials, led_to_the_runbook, reproducible, rpm, installed, refused, handed_over, watched, scraped, alerted, guarded, killed, upgraded,
         purged])
