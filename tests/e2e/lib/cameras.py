# SPDX-License-Identifier: Apache-2.0
"""Cameras: pictures with sidecars, and the ways in which they come."""

import ftplib
import hashlib
import json
import os
import pathlib
import random
import subprocess
import threading
import time

from tap import check
from world import free_port, until


def picture(rng, mean=120 << 10, least=2 << 10, most=2 << 20):
    """Bytes that compress as badly as a JPEG's and begin like one; the size is log-normal."""
    size = int(min(most, max(least, rng.lognormvariate(0, 0.6) * mean)))
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + rng.randbytes(size) + b"\xff\xd9"


def sidecar(rng, image):
    text = {"lane": rng.randrange(1, 9), "taken": "2026-11-23T08:00:00Z", "sha256": hashlib.sha256(image).hexdigest(),
            "plate": "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ0123456789") for _ in range(7)),
            "confidence": round(rng.random(), 3), "note": "x" * 300}
    return json.dumps(text, indent=1).encode()


def roll(seed, n, prefix, **size):
    """n pictures with their sidecars: (name, content) pairs, the picture before its sidecar."""
    rng = random.Random(f"{seed}/{prefix}")
    for i in range(n):
        image = picture(rng, **size)
        stem = f"{prefix}/{i % 7}/cap-{i:05d}"
        yield f"{stem}.jpg", image
        yield f"{stem}.json", sidecar(rng, image)


class Ftp:
    """vsftpd as an ordinary process on a loopback port, its root a directory."""

    def __init__(self, world, root):
        self.port = free_port()
        folder = world.dir / "ftp"
        (folder / "empty").mkdir(parents=True)
        conf = folder / "vsftpd.conf"
        conf.write_text(f"""listen=YES
listen_address=127.0.0.1
listen_port={self.port}
background=NO
run_as_launching_user=YES
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=077
anon_root={root}
secure_chroot_dir={folder / "empty"}
seccomp_sandbox=NO
xferlog_enable=NO
pasv_address=127.0.0.1
""")
        server = "/usr/sbin/vsftpd"
        check(os.path.exists(server), "vsftpd is not installed")
        self.process = world.spawn("vsftpd", server, conf)
        world.listening(self.process, self.port)

    def deliver(self, files):
        with ftplib.FTP() as ftp:
            ftp.connect("127.0.0.1", self.port, timeout=30)
            ftp.login()
            made = set()
            for name, content in files:
                folder = pathlib.PurePosixPath(name).parent
                for step in [*reversed(folder.parents), folder]:
                    if str(step) != "." and step not in made:
                        try:
                            ftp.mkd(str(step))
                        except ftplib.error_perm:
                            pass  # it is there
                        made.add(step)
                ftp.storbinary(f"STOR {name}", _reader(content))


def _reader(content):
    import io
    return io.BytesIO(content)


def by_rsync(top, scratch, files):
    """rsync writes a hidden temporary file and renames it."""
    for name, content in files:
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = subprocess.run(["rsync", "-a", f"{scratch}/", f"{top}/"], capture_output=True, text=True)
    check(done.returncode == 0, f"rsync: {done.stderr}")


def by_rename(top, files):
    for name, content in files:
        path = pathlib.Path(top) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        os.rename(part, path)


def slowly(top, files, seconds, pauses):
    """All files at once under their own names, in pieces, with pauses: takes so many seconds."""
    handles = []
    for name, content in files:
        path = pathlib.Path(top) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handles.append((open(path, "wb", buffering=0), content))  # pylint: disable=consider-using-with
    for step in range(pauses + 1):
        for handle, content in handles:
            n = len(content)
            handle.write(content[n * step // (pauses + 1):n * (step + 1) // (pauses + 1)])
        if step < pauses:
            time.sleep(seconds / pauses)  # the writer's own pause is what is tested
    for handle, _ in handles:
        handle.close()


class Crew:
    """Cameras that work at the same time; join() passes on the first error."""

    def __init__(self):
        self.threads, self.errors = [], []

    def add(self, work, *args):
        def guarded():
            try:
                work(*args)
            except BaseException as e:  # pylint: disable=broad-except
                self.errors.append(e)
        thread = threading.Thread(target=guarded, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self, seconds):
        until(lambda: not any(t.is_alive() for t in self.threads), seconds, "the cameras are done", each=0.1)
        if self.errors:
            raise self.errors[0]
