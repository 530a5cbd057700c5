#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The receiver behind nginx with the configuration that is shipped: the whole way, and its refusals."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import cameras
import tap
from raw import Client, digest, head, issue, new_id, path
from tap import Failure, Skip, check, equal
from world import TOP, World

SHIPPED = TOP / "packaging" / "nginx" / "cede-receiver.conf"


def nginx():
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not found:
        raise Skip("nginx is not installed")
    return found


class Front(World):
    """A World whose receiver listens on a UNIX socket, with nginx before it."""

    def __init__(self, **more):
        super().__init__(**more)
        self.socket = self.dir / "receiver.sock"
        self.receiver_config = {"listen": f"unix:{self.socket}", "store": "store",
                                "front_user": "www-data", "receipts": {"key": "pki/receipt.key"}}

    def start_receiver(self):
        text = SHIPPED.read_text()
        for was, is_now in (("/run/cede-receiver/receiver.sock", str(self.socket)), ("8443", f"127.0.0.1:{self.port}"),
                            ("/etc/cede-receiver/keys/", f"{self.pki}/"), ("/etc/cede-receiver/", f"{self.pki}/"), ("intake.agency.example", "localhost")):
            check(was in text, f"{was} stands in the shipped configuration")
            text = text.replace(was, is_now)
        user = "user www-data;" if os.geteuid() == 0 else ""
        (self.dir / "nginx.conf").write_text(
            f"{user} pid {self.dir}/nginx.pid; error_log stderr; daemon off; master_process on;\n"
            f"events {{ worker_connections 4096; }}\nhttp {{ access_log off;\n"
            f"client_body_temp_path {self.dir}/nb; proxy_temp_path {self.dir}/np; fastcgi_temp_path {self.dir}/nf;\n"
            f"uwsgi_temp_path {self.dir}/nu; scgi_temp_path {self.dir}/ns;\n{text}\n}}\n")
        os.chmod(self.dir, 0o711)  # nginx's workers must reach the socket
        from world import program
        self.receiver = self.spawn("receiver", program("cede-receiver"), "--config", self.dir / "receiver.yaml")
        self.listening(self.receiver, self.socket)
        front = self.spawn("nginx", nginx(), "-e", "stderr", "-p", self.dir, "-c", self.dir / "nginx.conf")
        self.listening(front, self.port)
        return self.receiver


def curl(w, *words):
    """(status, body) of a request with curl."""
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--cacert", str(w.pki / "ca.pem"), "-w", "\n%{http_code}",
                           *map(str, words)], capture_output=True, text=True, timeout=30)
    body, _, status = done.stdout.rpartition("\n")
    return int(status or 0), body, done.stderr


def the_whole_way():
    """captures go through nginx to the receiver, and are receipted under the certificate's name"""
    nginx()
    with Front() as w:
        w.start()
        for name, content in cameras.roll(21, 20, "lane1"):
            w.write(name, content)
        w.settled()
        equal(sorted(p.name for p in w.store.iterdir()), ["dev-host-1"], "hosts in the store")


def refusals():
    """no certificate, another CA's, TLS 1.2, a forged subject header: none gets in or becomes another host"""
    nginx()
    with Front() as w:
        w.start_receiver()
        url = f"https://localhost:{w.port}/v1/bundles/01a00000-0000-7000-8000-000000000000/receipt"
        mine = ["--cert", w.pki / "agent.pem", "--key", w.pki / "agent.key"]
        equal(curl(w, url)[0], 400, "status without a certificate")
        equal(curl(w, *mine, url)[0], 404, "status with one")
        status, _, text = curl(w, *mine, "--tls-max", "1.2", url)
        check(status == 0 and "alert" in text, f"TLS 1.2: {status} {text}")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                        "/CN=dev-host-1", "-days", "1", "-keyout", str(w.dir / "other.key"), "-out", str(w.dir / "other.pem")],
                       check=True, capture_output=True)
        equal(curl(w, "--cert", w.dir / "other.pem", "--key", w.dir / "other.key", url)[0], 400, "another CA's")
        # a header of the client's is overwritten: the tombstone lands under the certificate's own name
        status, _, _ = curl(w, *mine, "-X", "DELETE", "-H", "X-Client-Subject: CN=somebody-else", url.removesuffix("/receipt"))
        equal(status, 204, "status of the DELETE")
        equal(sorted(p.name for p in w.store.iterdir()), ["dev-host-1"], "hosts in the store")


def one_hostile_host():
    """one host with 520 requests whose refused bodies trickle: nginx lets 32 of them through, another host's pushes arrive"""
    nginx()
    with Front() as w:
        w.start_receiver()
        issue(w, "hostile")
        client, wires, refused = Client(w, "hostile"), [], 0
        try:
            for _ in range(520):
                wire = client.open()
                wires.append(wire)
                wire.send(head("PUT", path(new_id()), "Content-Length: 900000", f"Repr-Digest: {digest(b'')}") + b"a")
            for _ in range(5):
                equal(Client(w).push(new_id(), b"honest").status, 201, "another host's push")
                for wire in wires:
                    wire.send(b"a")
            for wire in wires:
                wire.socket.settimeout(0.05)
                with contextlib.suppress(Failure):
                    a = wire.answer()
                    refused += a is not None and a.status == 503 and "retry-after" not in a.headers
        finally:
            for wire in wires:
                wire.close()
        check(refused >= 520 - 32, f"{refused} of 520 were answered by nginx itself")
        check(len(os.listdir(f"/proc/{w.receiver.pid}/fd")) < 32 + 64, "few of them reach the receiver")


def not_the_front():
    """who talks to the socket itself must be the front's user, root or the receiver's own"""
    if os.geteuid() != 0:
        raise Skip("needs root to become another user")
    with Front() as w:
        w.start_receiver()
        child = os.fork()
        if child == 0:
            try:
                os.setgid(65534)
                os.setuid(65534)
                connection = http.client.HTTPConnection("localhost")
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.connect(str(w.socket))
                connection.request("GET", "/healthz", headers={"X-Client-Subject": "CN=dev-host-1"})
                os._exit(0 if connection.getresponse().status == 403 else 1)
            except BaseException:  # pylint: disable=broad-except
                os._exit(2)
        equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, "nobody is refused with 403")
        check(re.search(r"request\.refused .*status=403", w.receiver.said()), "and the log says so")


if __name__ == "__main__":
    tap.run([the_whole_way, refusals, one_hostile_host, not_the_front])
