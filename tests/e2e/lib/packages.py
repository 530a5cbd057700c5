# SPDX-License-Identifier: Apache-2.0
"""The packages of this tree, built once for all tests of a run: kept under the digest of the sources."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess

from tap import Failure, Skip, check
from world import TOP, cache_dir

TOOLS = ("dpkg-buildpackage", "dh", "lintian", "scdoc")
BUILD_LIMIT_S = 900


def tree_digest(tests=False):
    """Over names and contents of all files that git knows, but the tests: only the source package has them."""
    names = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True).stdout.split(b"\0")
    total = hashlib.sha256()
    for name in sorted(filter(None, names)):
        path = TOP / os.fsdecode(name)
        if path.is_file() and (tests or not name.startswith(b"tests/")):
            total.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def build(kind, out, work, env=None):
    """packaging/build-packages; compiled with ccache if there is one (it builds the same)."""
    path = os.environ["PATH"]
    if os.path.isdir("/usr/lib/ccache"):
        path = f"/usr/lib/ccache:{path}"
    done = subprocess.run([str(TOP / "packaging" / "build-packages"), kind, str(out), str(work)], capture_output=True, text=True,
                          timeout=BUILD_LIMIT_S, env={**os.environ, "PATH": path, "DEB_BUILD_OPTIONS": "nocheck", **(env or {})})
    check(done.returncode == 0, f"build-packages {kind}: status {done.returncode}\n{done.stderr[-3000:]}")


@functools.cache
def tried():
    """(the folder, None) or (None, why there is none): built once, failed once."""
    try:
        return built(), None
    except (Failure, Skip) as e:
        return None, e


def debian():
    """The folder with the Debian packages and their .changes."""
    folder, why = tried()
    if why is not None:
        raise type(why)(str(why))
    return folder


def built():
    missing = [t for t in TOOLS if not shutil.which(t)]
    if missing:
        raise Skip(f"not installed: {' '.join(missing)} (packaging/install-dependencies test)")
    top = cache_dir() / "packages"
    top.mkdir(exist_ok=True)
    with open(top / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        out = top / tree_digest()
        if not (out / "done").exists():
            for old in top.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            sources = tree_digest(tests=True)
            build("deb", out, top / "work")
            (out / "done").write_text(sources)
        return out


def of_these_sources():
    """Whether the tests are those that the source package has."""
    return (debian() / "done").read_text() == tree_digest(tests=True)


def package(name):
    """The .deb of a binary package."""
    found = sorted(debian().glob(f"{name}_*.deb"))
    check(len(found) == 1, f"one package {name}: {found}")
    return found[0]
