# SPDX-License-Identifier: Apache-2.0
"""A receiver that can lie: the right certificate, TLS 1.3, HTTP/1.1, and whatever answer the test
wants. Its notes are signed with the openssl command, not with cede's code."""

import base64
import datetime
import hashlib
import http.server
import pathlib
import ssl
import subprocess
import tempfile
import threading

from servers import openssl


class Facts:
    """What the server knows of a bundle that was pushed."""

    def __init__(self, bundle, host, body):
        self.bundle, self.host, self.size = bundle, host, len(body)
        self.sha256 = hashlib.sha256(body).hexdigest()

    def lines(self, **other):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"bundle": self.bundle, "host": self.host, "size": self.size, "sha256": self.sha256, "received": now, **other}
        first = told.pop("type", "cede-receipt/1")
        return "".join([f"{first}\n", *(f"{key}: {value}\n" for key, value in told.items())])


def note(text, key, key_id_of=None, name="agency-receipts"):
    """The signed note over text; key_id_of: the key whose id it claims, if not its own."""
    with tempfile.TemporaryDirectory(prefix="cede-liar-") as work:
        public = pathlib.Path(work) / "public.der"
        openssl("pkey", "-in", key_id_of or key, "-pubout", "-outform", "DER", "-out", public)
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(key)], input=text.encode(),
                                   capture_output=True, check=True).stdout
        key_id = hashlib.sha256(public.read_bytes()).digest()[:4]
    return f"{text}\n\N{EM DASH} {name} {base64.b64encode(key_id + signature).decode()}\n".encode()


class Liar:
    """answer(facts) -> (status, body); facts is None for a bundle that was never pushed."""

    def __init__(self, world, answer):
        self.answer, self.pushed, self.requests = answer, {}, []
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                bundle = self.path.rstrip("/").split("/")[-1]
                host = dict(x[0] for x in self.connection.getpeercert()["subject"])["commonName"]
                liar.pushed[bundle] = Facts(bundle, host, body)
                self.reply(bundle)

            def do_GET(self):
                self.reply(self.path.rstrip("/").split("/")[-2])

            def do_DELETE(self):
                self.reply(self.path.rstrip("/").split("/")[-1])

            def reply(self, bundle):
                liar.requests.append(f"{self.command} {self.path}")
                status, body = liar.answer(liar.pushed.get(bundle)) if bundle in liar.pushed else (404, b"")
                if isinstance(body, tuple):  # (announced length, what really comes)
                    length, body = body
                else:
                    length = len(body)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = length != len(body)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(world.pki / "server.pem", world.pki / "server.key")
        context.load_verify_locations(world.pki / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", world.port), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
