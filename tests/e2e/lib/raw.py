# SPDX-License-Identifier: Apache-2.0
"""HTTP by hand: bytes to the receiver over TLS with a client certificate, or over its UNIX socket as
a front would, and the answers that come back. Nothing here corrects what a test wants to send."""

import base64
import hashlib
import os
import secrets
import socket
import ssl
import subprocess
import time

from tap import Failure, check

ANSWER_S = 20


def new_id(when=None):
    """A UUID of version 7."""
    ms = int((time.time() if when is None else when) * 1000)
    value = ms << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    h = f"{value:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def digest(body):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def path(bundle, receipt=False):
    return f"/v1/bundles/{bundle}{'/receipt' if receipt else ''}"


def head(method, target, *lines, host="localhost"):
    """The head of a request, its lines as given."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


def put(bundle, body, *more, length=None):
    """A push as an agent makes it."""
    return head("PUT", path(bundle), f"Content-Length: {len(body) if length is None else length}",
                f"Repr-Digest: {digest(body)}", "If-None-Match: *", *more) + body


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:80]!r}>"


class Wire:
    """One connection; answers come one after the other."""

    def __init__(self, plain):
        self.socket, self.rest = plain, b""
        plain.settimeout(ANSWER_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        """Whether all of it went; a peer that closed is no failure, its answer is."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            return False

    def more(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError, ssl.SSLEOFError):
            data = b""
        self.rest += data
        return bool(data)

    def answer(self):
        """The next answer; None if the peer closed without one."""
        try:
            while b"\r\n\r\n" not in self.rest:
                if not self.more():
                    return None
            top, _, self.rest = self.rest.partition(b"\r\n\r\n")
            first, *lines = top.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            status = int(first.split()[1])
            length = 0 if status in (100, 204, 304) else int(headers.get("content-length", 0))
            while len(self.rest) < length:
                if not self.more():
                    return None
        except TimeoutError:
            raise Failure(f"no answer within {ANSWER_S} s; so far {self.rest[:200]!r}") from None
        body, self.rest = self.rest[:length], self.rest[length:]
        return Answer(status, headers, body)

    def final(self):
        """The next answer that is not 100 Continue."""
        while (a := self.answer()) is not None and a.status == 100:
            pass
        return a

    def ask(self, data):
        self.send(data)
        return self.final()

    def answers(self):
        """All answers until the peer closes."""
        got = []
        while (a := self.final()) is not None:
            got.append(a)
        return got

    def closed(self, seconds):
        """Whether the peer closes within so many seconds (what it still says is read)."""
        self.socket.settimeout(seconds)
        try:
            while self.more():
                pass
            return True
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(ANSWER_S)


class Client:
    """A host with its certificate; open() connects, push() and the others ask once."""

    def __init__(self, world, certificate="agent", pki=None, source=None):
        self.world, self.source, self.patience = world, source, ANSWER_S
        pki = pki or world.pki
        self.context = ssl.create_default_context(cafile=str(world.pki / "ca.pem"))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certificate is not None:
            self.context.load_cert_chain(pki / f"{certificate}.pem", pki / f"{certificate}.key")

    def connect(self):
        """The bare TCP connection, from another address of this machine if the client has one."""
        s = socket.socket()
        s.settimeout(self.patience)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.source is not None:
            s.bind((self.source, 0))
        s.connect(("127.0.0.1", self.world.port))
        return s

    def open(self):
        s = self.connect()
        try:
            return Wire(self.context.wrap_socket(s, server_hostname="localhost"))
        except BaseException:
            s.close()
            raise

    def ask(self, data):
        """The answer; None if the peer closed without one, before or after the handshake."""
        try:
            wire = self.open()
        except (ssl.SSLError, ConnectionError):
            return None
        with wire:
            return wire.ask(data)

    def push(self, bundle, body, *more):
        return self.ask(put(bundle, body, *more))

    def receipt(self, bundle):
        return self.ask(head("GET", path(bundle, receipt=True)))

    def abandon(self, bundle):
        return self.ask(head("DELETE", path(bundle)))


class Front(Client):
    """What nginx does: plain HTTP over the UNIX socket, the certificate's subject in a header."""

    def __init__(self, world, subject="CN=dev-host-1"):  # pylint: disable=super-init-not-called
        self.world, self.subject, self.patience = world, subject, ANSWER_S

    def open(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(self.patience)
        s.connect(str(self.world.socket))
        return Wire(s)

    def ask(self, data):
        first, _, rest = data.partition(b"\r\n")
        return super().ask(first + f"\r\nX-Client-Subject: {self.subject}\r\n".encode() + rest)


def issue(world, name):
    """A client certificate for another host, of the world's CA, as pki/NAME.pem and .key."""
    key, request, pem = (world.pki / f"{name}.{e}" for e in ("key", "csr", "pem"))
    extensions = world.pki / f"{name}.ext"
    extensions.write_text("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n")
    for words in (("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                   "-keyout", key, "-out", request),
                  ("x509", "-req", "-in", request, "-CA", world.pki / "ca.pem", "-CAkey", world.pki / "ca.key", "-days", "30",
                   "-extfile", extensions, "-out", pem)):
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"openssl {words[0]}: {done.stderr}")
    os.chmod(key, 0o600)
    return name
