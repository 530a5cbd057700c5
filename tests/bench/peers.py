# SPDX-License-Identifier: Apache-2.0
"""What people use today, and the raw bound: each moves the files of a place away and leaves its source without any.
For tests/bench/run. Each way is a function of (place, files, words) that gives the figures of one run."""

import getpass
import os
import pathlib
import shutil
import signal
import subprocess

from measure import Failure, Meter, Peaks, command, make_set, until, usage_figures, wait_empty
from world import build_dir, free_port, pki_master

PARALLEL = 16  # of curl


def arrived(place, expected, who):
    there = sum(len(names) for folder, _, names in os.walk(place.there / "store") if ".body" not in folder)
    if there != expected:
        raise Failure(f"{who}: {there} of {expected} files arrived")


# ---- rsync over ssh

class Sshd:
    """A server on a loopback port with throw-away keys, for the user who runs this."""

    def __init__(self, folder):
        folder.mkdir(mode=0o700)
        self.folder, self.port = folder, free_port()
        for name in ("host", "user"):
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
        shutil.copy(folder / "user.pub", folder / "authorized")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd wants it
        (folder / "conf").write_text(f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
""")
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "conf")], stdin=subprocess.DEVNULL,
            stderr=open(folder / "log", "wb"), start_new_session=True)  # pylint: disable=consider-using-with

    def remote_shell(self):
        return (f"ssh -p {self.port} -i {self.folder}/user -o IdentitiesOnly=yes -o BatchMode=yes -F none "
                f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={self.folder}/known")

    def ready(self):
        def look():
            if self.process.poll() is not None:
                raise Failure(f"sshd ended: {(self.folder / 'log').read_text(errors='replace')}")
            return subprocess.run([*self.remote_shell().split(), f"{getpass.getuser()}@127.0.0.1", "true"],
                                  stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
        until(look, 15, lambda: f"ssh works: {(self.folder / 'log').read_text(errors='replace')[-500:]}", each=0.1)

    def idle(self):
        """Until every session is reaped: then its CPU time counts as the server's."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        until(lambda: not children.read_text().split(), 15, "sshd has no session", each=0.005)

    def stop(self):
        """The resources of the server and its sessions."""
        self.process.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        return usage


def rsync(place, files, words):
    n, size = make_set(place, files, words)
    sshd = Sshd(place.there / "ssh")
    try:
        sshd.ready()
        (place.there / "store").mkdir()
        meter = Meter(place)
        client = subprocess.Popen(  # pylint: disable=consider-using-with
            ["rsync", "-a", "--remove-source-files", "-e", sshd.remote_shell(), f"{place.source}/",
             f"{getpass.getuser()}@127.0.0.1:{place.there}/store/"], stdin=subprocess.DEVNULL)
        peaks = Peaks({"client": client.pid, "server": sshd.process.pid})
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
        figures = meter.stop()
        kib = peaks.stop()
        if client.returncode != 0:
            raise Failure(f"rsync: status {client.returncode}")
        wait_empty(place.source, lambda: None)
        sshd.idle()
    finally:
        server = sshd.stop()
    arrived(place, n, "rsync")
    return {"files": n, "bytes": size, **figures,
            "processes": {"rsync+ssh": usage_figures(usage, kib["client"]), "sshd+rsync": usage_figures(server, kib["server"])}}


# ---- curl to a server that takes PUT from who has a certificate

class Nginx:
    def __init__(self, place):
        self.folder, self.store, self.port = place.there / "nginx", place.there / "store", free_port()
        self.pki = pki_master()
        self.folder.mkdir()
        (self.store / ".body").mkdir(parents=True)
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        (self.folder / "conf").write_text(f"""{user} pid {self.folder}/pid; error_log {self.folder}/log; daemon off; worker_processes 2;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 0; client_body_temp_path {self.store}/.body;
    keepalive_requests 1000000; keepalive_timeout 300s;
    server {{
        listen 127.0.0.1:{self.port} ssl;
        ssl_certificate {self.pki}/server.pem; ssl_certificate_key {self.pki}/server.key;
        ssl_client_certificate {self.pki}/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;
        root {self.store}; dav_methods PUT; create_full_put_path on; sendfile on;
    }}
}}
""")
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            ["/usr/sbin/nginx", "-e", self.folder / "log", "-p", self.folder, "-c", self.folder / "conf"], stdin=subprocess.DEVNULL)
        until(lambda: subprocess.run(["curl", *self.curl(), "-o", "/dev/null", self.url("")], capture_output=True).returncode == 0,
              15, "nginx answers", each=0.1)

    def url(self, name):
        return f"https://localhost:{self.port}/{name}"

    def curl(self):
        return ["-sS", "--http1.1", "--cacert", f"{self.pki}/ca.pem", "--cert", f"{self.pki}/agent.pem", "--key", f"{self.pki}/agent.key"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def shell(script, **variables):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**os.environ, **{k: str(v) for k, v in variables.items()}})
    if done.returncode != 0:
        raise Failure(f"{script}: status {done.returncode}\n{done.stdout}{done.stderr[-2000:]}")


def by_curl(place, files, words, script, one=False):
    """script has $source, $url, $curl (its options), $tmp (a folder in memory)."""
    n, size = make_set(place, files, words)
    nginx = Nginx(place)
    memory = pathlib.Path(f"/dev/shm/cede-bench-{os.getpid()}")
    memory.mkdir()
    try:
        meter = Meter(place)
        shell(script, source=place.source, url=nginx.url(""), curl=" ".join(nginx.curl()), tmp=memory, parallel=PARALLEL)
        figures = meter.stop()
        wait_empty(place.source, lambda: None)
    finally:
        nginx.stop()
        shutil.rmtree(memory)
    arrived(place, 1 if one else n, "curl")
    return {"files": n, "bytes": size, **figures, "processes": {}}


def tar(place, files, words):
    """tar, zstd -3, one PUT, rm"""
    return by_curl(place, files, words, '''
tar -C "$source" -c . | zstd -3 -q | curl $curl --fail -T - "${url}all.tar.zst"
find "$source" -type f -delete''', one=True)


PUT_EACH = '''
cd "$source"
find . -type f -printf 'upload-file = "%P"\nurl = "'"$url"'%P"\n' > "$tmp/put"
curl $curl --fail -Z --parallel-max $parallel -o /dev/null -K "$tmp/put"
'''


def curl(place, files, words):
    """one PUT a file, 16 at a time, rm"""
    return by_curl(place, files, words, PUT_EACH + "find . -type f -delete")


def careful(place, files, words):
    """one PUT a file, all read back and their digests compared, shred -n1 -u"""
    return by_curl(place, files, words, PUT_EACH + '''
find . -type f -print0 | xargs -0 sha256sum > "$tmp/sums"
find . -type f -printf 'output = "'"$tmp"'/back/%P"\nurl = "'"$url"'%P"\n' > "$tmp/get"
curl $curl --fail -Z --parallel-max $parallel --create-dirs -K "$tmp/get"
(cd "$tmp/back" && sha256sum --quiet -c "$tmp/sums")
find . -type f -print0 | xargs -0 shred -n1 -u''')


# ---- the bound

def bound(place, files, words):
    n, size = make_set(place, files, words)
    (place.there / "store").mkdir()
    binary = build_dir() / "tests" / "bench" / "bound"
    if not binary.is_file():
        command("ninja", "-C", build_dir(), "tests/bench/bound")
    meter = Meter(place)
    said = command(binary, place.source, place.there / "store")
    figures = meter.stop()
    if said.split() != [str(n), str(size)]:
        raise Failure(f"bound: {said} instead of {n} {size}")
    wait_empty(place.source, lambda: None)
    return {"files": n, "bytes": size, **figures, "processes": {}}
