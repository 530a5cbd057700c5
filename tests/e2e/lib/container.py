# SPDX-License-Identifier: Apache-2.0
"""A clean Debian with a systemd of its own, made by debootstrap and run by systemd-nspawn, without a network.

What a package depends on is fetched when the image is made, and lies there as packages that are not installed: apt in the
container really installs them. Each container is a throw-away layer over the image; /srv/capture is an ext4 of its own."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from tap import Failure, Skip, check, diag
from world import cache_dir, until

SUITE = "bookworm"
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "mkfs.ext4")
EXTRA = ("curl", "openssl", "sqlite3", "zstd")  # by hand, in what the documents show
WEEK_S = 7 * 86400
HOME = "opt/admin"  # where commands run, and packages lie
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*words, limit=600, **more):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, errors="replace", timeout=limit,
                          stdin=subprocess.DEVNULL, **more)
    return done.returncode, done.stdout + done.stderr


def mirror():
    """Where apt of this machine gets this suite from."""
    status, out = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", f"Codename: {SUITE}",
                      "Component: main", "Origin: Debian")
    found = out.split()
    if status != 0 or not found:
        raise Skip(f"apt of this machine has no {SUITE} to make a clean system of")
    return found[0]


def chroot(top, *words, limit=600):
    return run("chroot", top, "/usr/bin/env", "-i", f"PATH={PATH}", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", *words, limit=limit)


def same_apt(top):
    """The machine's sources and keys; what it sets for the network of apt."""
    for place in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d"):
        source, target = pathlib.Path("/") / place, top / place
        if source.is_dir():
            for name in source.iterdir():
                if name.suffix in (".list", ".sources", ".conf", ".gpg", ".asc"):
                    shutil.copy(name, target / name.name)
        elif source.is_file():
            shutil.copy(source, target)
    shutil.copy("/etc/resolv.conf", top / "etc/resolv.conf")


def bootstrap(part):
    # in a name space of its own: what it mounts goes with it, whatever happens
    status, out = run("unshare", "--mount", "debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,ca-certificates",
                      SUITE, part, mirror())
    if status != 0:
        raise Skip(f"debootstrap: {out.strip().splitlines()[-1:]}")
    if not (part / "etc/apt/sources.list.d").is_dir():
        (part / "etc/apt/sources.list.d").mkdir()
    (part / "etc/apt/sources.list").unlink(missing_ok=True)
    same_apt(part)
    (part / "etc/hostname").write_text("lanes\n")


def make_image(top, debs, old):
    """old: an image for other dependencies, to begin with; or None."""
    part = top.with_suffix(".part")
    if part.exists():
        shutil.rmtree(part)
    if old is None:
        bootstrap(part)
    else:
        old.rename(part)
    for deb in debs:
        shutil.copy(deb, part / "opt" / deb.name)
    inside = [f"/opt/{deb.name}" for deb in debs]
    for words in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", *EXTRA],
                  ["apt-get", "install", "-q", "-y", "--no-install-recommends", "--download-only", *inside]):
        status, out = chroot(part, *words)
        if status != 0:
            raise Skip(f"{' '.join(words[:2])} in the clean system: {out.strip().splitlines()[-1:]}")
    for deb in debs:
        (part / "opt" / deb.name).unlink()
    (part / "etc/machine-id").write_text("")
    part.rename(top)


def depends(deb):
    return run("dpkg-deb", "-f", deb, "Depends")[1].strip()


def image(debs):
    """The folder of the image for packages with these dependencies; made if there is none of this week."""
    if os.geteuid() != 0:
        raise Skip("a clean system needs root")
    missing = [t for t in TOOLS if not shutil.which(t)]
    if missing:
        raise Skip(f"not installed: {' '.join(missing)} (packaging/install-dependencies test)")
    tops = cache_dir() / "images"
    tops.mkdir(exist_ok=True)
    key = hashlib.sha256("\n".join([SUITE, *EXTRA, *map(depends, debs)]).encode()).hexdigest()[:16]
    top = tops / key
    with open(tops / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        others = [p for p in tops.iterdir() if p.is_dir()]
        for old in others:
            if old.suffix == ".part" or time.time() - (old / "etc/hostname").stat().st_mtime > WEEK_S:
                shutil.rmtree(old)
        others = [p for p in others if p.exists() and p != top]
        if not top.exists():
            began = time.monotonic()
            make_image(top, debs, others[0] if others else None)
            diag(f"made a clean {SUITE} in {time.monotonic() - began:.0f} s")
    return top


class Container:
    """with Container(debs) as c: c.sh("apt-get install ...")"""

    def __init__(self, debs):
        self.debs = debs
        self.image = image(debs)
        self.stack = contextlib.ExitStack()
        self.nspawn = self.leader = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cede-container-"))
            stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            for name in ("upper", "work", "root", "captures"):
                (self.dir / name).mkdir()
            self.root = self.dir / "root"
            self.mount(stack, "-t", "overlay", "overlay", "-o",
                       f"lowerdir={self.image},upperdir={self.dir}/upper,workdir={self.dir}/work", self.root)
            with open(self.dir / "captures.img", "wb") as f:
                f.truncate(64 << 20)
            check(run("mkfs.ext4", "-q", self.dir / "captures.img")[0] == 0, "mkfs.ext4")
            self.mount(stack, "-o", "loop", self.dir / "captures.img", self.dir / "captures")
            (self.root / HOME).mkdir()
            for deb in self.debs:
                shutil.copy(deb, self.root / HOME)
            stack.callback(self.kill)
            self.boot()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *why):
        self.stack.close()

    @staticmethod
    def mount(stack, *words):
        status, out = run("mount", *words)
        check(status == 0, f"mount: {out}")
        stack.callback(run, "umount", words[-1])

    def boot(self):
        self.log = open(self.dir / "console", "wb")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "-D", str(self.root), f"--machine=cede-test-{os.getpid()}", "--register=no", "--keep-unit",
             "--private-network", "--console=pipe", f"--bind={self.dir}/captures:/srv/capture", "--boot"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "SYSTEMD_SECCOMP": "0"})  # nspawn's own filter knows no Landlock
        self.leader = until(self.find_leader, 30, self.console)

        def up():
            status, out = self.try_sh("systemctl is-system-running")
            return out.strip() in ("running", "degraded")
        try:
            until(up, 60, "systemd is up")
        except Failure as e:
            raise Skip(f"systemd does not come up in a container here: {e}; {self.console()[-300:]}") from None

    def console(self):
        return (self.dir / "console").read_text(errors="replace")

    def find_leader(self):
        if self.nspawn.poll() is not None:
            raise Skip(f"systemd-nspawn does not work here: {self.console()[-300:]}")
        try:
            found = pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        except FileNotFoundError:
            return None
        for pid in found:
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return int(pid)
        return None

    def kill(self):
        """Its first process takes all others along."""
        if self.leader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)
        if self.nspawn is not None:
            try:
                self.nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
            self.log.close()

    # ---- inside

    def try_sh(self, script, limit=120):
        """(status, output) of a shell script."""
        return run("nsenter", "-t", self.leader, "-a", "/usr/bin/env", "-i", "-C", f"/{HOME}", f"PATH={PATH}", "LC_ALL=C.UTF-8", f"HOME=/{HOME}",
                   "USER=root", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive", "bash", "-c", script, limit=limit)

    def sh(self, script, status=0, limit=120):
        got, out = self.try_sh(script, limit)
        check(got == status, f"{script}\nstatus {got}, expected {status}\n{out}")
        return out

    def install(self, *names, limit=300):
        files = " ".join(f"./{name}" for name in names)
        return self.sh(f"apt-get install -q -y --no-install-recommends {files}", limit=limit)

    def journal(self, unit):
        return self.sh(f"journalctl --sync; journalctl -u {unit} -o cat --no-pager")

    def edit(self, path, *changes):
        """Replaces the first match of each (pattern, text) in a file."""
        file = self.root / path.lstrip("/")
        text = file.read_text()
        for pattern, new in changes:
            text, n = re.subn(pattern, new, text, count=1, flags=re.M)
            check(n == 1, f"{path} has {pattern}")
        file.write_text(text)
