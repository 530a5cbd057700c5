#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Servers that are not the agency's, or lie: nothing is wiped, and one log line says why."""

import base64
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import servers
import tap
from tap import check, equal
from world import World, free_port, until

CAPTURES = {"a.jpg": b"first picture", "b.jpg": b"second picture" * 5000, "b.json": b"{}"}


def refused(w, word, seconds=30):
    """Captures are delivered to a server that must be refused: waits for the log line with this word
    (a pattern), then sees that all is as it was."""
    w.start_agent()
    for name, content in CAPTURES.items():
        w.write(name, content, want=False)

    def said():
        check(w.agent.alive(), f"cede run ended, status {w.agent.popen.returncode}")
        return [line for line in w.agent.said().splitlines() if re.search(word, line)]
    lines = until(said, seconds, f"a log line with {word!r}")
    tap.diag(lines[0])
    nothing_wiped(w)
    # a later try must be refused as well
    until(lambda: len(said()) >= 2 or tries(w) >= 2, seconds, "a second try")
    nothing_wiped(w)
    return lines


def tries(w):
    return len(re.findall(r"push\.failed|receipt\.refused", w.agent.said()))


def nothing_wiped(w):
    left = {os.fsdecode(n): (w.capture / os.fsdecode(n)).read_bytes() for n in w.left()}
    equal({n: len(c) for n, c in left.items()}, {n: len(c) for n, c in CAPTURES.items()}, "captures that stay")
    check(left == CAPTURES, "a capture that stays has other content")
    captures, bundles = w.counts()
    equal((captures["wiping"], captures["wiped"]), (0, 0), "captures wiping and wiped")
    equal((bundles["receipted"], bundles["done"]), (0, 0), "bundles receipted and done")
    for name in CAPTURES:
        check(name not in w.agent.said(), f"the log names {name} (I9)")


def heal(w, change):
    """The mistake is mended, and all goes through after all."""
    equal(w.agent.stop(5), 0, "exit status")
    change()
    w.write_files()
    for name, content in CAPTURES.items():
        w.expect(name, content)
    w.start_agent()
    w.settled()
    w.verify_ledger()


def other_ca():
    """a server certificate from another CA"""
    with World(receiver=False) as w:
        pem, key = servers.Ca(w.dir / "other").issue("server")
        web = servers.nginx(w, "impostor", pem, key, "return 201;")
        refused(w, r"reason=tls ")
        equal(web.access.read_text() if web.access.exists() else "", "", "requests that reached the impostor")
        web.stop()
        heal(w, w.start_receiver)


def expired_certificate():
    """a server certificate that has expired"""
    with World(receiver=False) as w:
        ca = servers.Ca(w.dir / "own")
        w.destination["ca"] = "own/ca.pem"
        w.write_files()
        pem, key = ca.issue("old", "20240101000000Z", "20250101000000Z")
        servers.nginx(w, "expired", pem, key, "return 201;")
        refused(w, r"reason=tls .*expired")


def not_yet_valid():
    """a server certificate that is not valid yet"""
    with World(receiver=False) as w:
        ca = servers.Ca(w.dir / "own")
        w.destination["ca"] = "own/ca.pem"
        w.write_files()
        pem, key = ca.issue("young", "20980101000000Z", "20990101000000Z")
        servers.nginx(w, "young", pem, key, "return 201;")
        refused(w, r"reason=tls ")


def other_name():
    """a server certificate of the right CA for another name"""
    with World(receiver=False) as w:
        ca = servers.Ca(w.dir / "own")
        w.destination["ca"] = "own/ca.pem"
        w.write_files()
        pem, key = ca.issue("elsewhere", kind="other")
        servers.nginx(w, "elsewhere", pem, key, "return 201;")
        refused(w, r"reason=tls ")


def client_certificate():
    """a certificate of the right CA and name, but not for servers"""
    with World(receiver=False) as w:
        ca = servers.Ca(w.dir / "own")
        w.destination["ca"] = "own/ca.pem"
        w.write_files()
        pem, key = ca.issue("client", kind="client")
        servers.s_server(w, pem, key, "-tls1_3")
        refused(w, r"reason=tls ")


def pin_mismatch():
    """a server whose key is not the pinned one"""
    with World(destination={"pins": ["sha256//" + "A" * 43 + "="]}) as w:
        w.start_receiver()
        refused(w, r"reason=pin ")

        def mend():
            del w.destination["pins"]
        heal(w, mend)


def pin_matches():
    """the right pin among others lets the hand-over go on"""
    with World() as w:
        key = servers.openssl("x509", "-in", w.pki / "server.pem", "-noout", "-pubkey")
        (w.dir / "server.pub").write_text(key)
        servers.openssl("pkey", "-pubin", "-in", w.dir / "server.pub", "-outform", "DER", "-out", w.dir / "server.der")
        servers.openssl("dgst", "-sha256", "-binary", "-out", w.dir / "digest", w.dir / "server.der")
        pin = base64.b64encode((w.dir / "digest").read_bytes()).decode()
        w.destination["pins"] = ["sha256//" + "A" * 43 + "=", "sha256//" + pin]
        w.write_files()
        w.start()
        w.write("a.jpg", b"pinned")
        w.settled()


def other_address():
    """a name that resolves to an address outside `addresses`"""
    with World(destination={"addresses": ["192.0.2.0/24", "2001:db8::/32"]}) as w:
        w.start_receiver()
        refused(w, r"reason=address ")

        def mend():
            w.destination["addresses"] = ["127.0.0.0/8", "::1/128"]
        heal(w, mend)


def old_tls():
    """a server that speaks TLS 1.2 only"""
    with World(receiver=False) as w:
        web = servers.nginx(w, "old", w.pki / "server.pem", w.pki / "server.key", "return 201;", protocols="TLSv1.2")
        refused(w, r"reason=tls ")
        equal(web.access.read_text() if web.access.exists() else "", "", "requests that reached it")


def old_tls_of_openssl():
    """openssl s_server -tls1_2"""
    with World(receiver=False) as w:
        servers.s_server(w, w.pki / "server.pem", w.pki / "server.key", "-tls1_2")
        refused(w, r"reason=tls ")


def redirect():
    """a redirect (302, 307, 308) is not followed"""
    for status in (302, 307, 308):
        with World(receiver=False) as w:
            own = (w.pki / "server.pem", w.pki / "server.key")
            port = free_port()
            target = servers.nginx(w, "target", *own, "return 201;", port=port)
            servers.nginx(w, "redirect", *own, f"return {status} https://localhost:{port}$request_uri;")
            refused(w, r"reason=redirect ")
            equal(target.access.read_text() if target.access.exists() else "", "", "requests that were redirected")


def empty_201():
    """201 without a receipt"""
    with World(receiver=False) as w:
        servers.nginx(w, "empty", w.pki / "server.pem", w.pki / "server.key", "return 201;")
        refused(w, r"receipt.refused|reason=receipt")


def garbage_201():
    """201 with garbage in the receipt's place"""
    with World(receiver=False) as w:
        servers.nginx(w, "garbage", w.pki / "server.pem", w.pki / "server.key",
                      "default_type text/plain; return 201 'thank you, all is well';")
        refused(w, r"receipt.refused|reason=receipt")


def web_page_200():
    """200 with a web page"""
    with World(receiver=False) as w:
        servers.nginx(w, "page", w.pki / "server.pem", w.pki / "server.key",
                      "default_type text/html; return 200 '<html>welcome</html>';")
        refused(w, r"push.failed|receipt.refused")


def errors():
    """403, 404, 500 and 503"""
    for status in (403, 404, 500, 503):
        with World(receiver=False) as w:
            servers.nginx(w, "refuses", w.pki / "server.pem", w.pki / "server.key", f"return {status};")
            refused(w, rf"reason=http-{status}")


def foreign_client():
    """our own certificate is not known to the server: nothing goes, nothing is wiped"""
    with World() as w:
        other = servers.Ca(w.dir / "other")
        pem, key = other.issue("client", kind="client")
        w.config["identity"] = {"certificate": str(pem), "key": str(key)}
        w.write_files()
        w.start_receiver()
        refused(w, r"push.failed")
        equal(list(w.store.rglob("*.cms")), [], "bundles in the store")


def environment():
    """proxy, CA and key log variables of the environment change nothing (I4)"""
    with World() as w:
        keylog = w.dir / "keylog"
        env = {**os.environ, "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
               "ALL_PROXY": "http://127.0.0.1:9", "SSLKEYLOGFILE": str(keylog), "CURL_CA_BUNDLE": "/nonexistent",
               "SSL_CERT_FILE": "/nonexistent", "HOME": str(w.dir)}
        (w.dir / ".netrc").write_text("machine localhost login a password b\n")
        (w.dir / ".curlrc").write_text("insecure\n")
        w.start_receiver()
        w.start_agent(env=env)
        w.write("a.jpg", b"no proxy")
        w.settled()
        check(not keylog.exists(), "TLS keys were logged")


tap.run([other_ca, expired_certificate, not_yet_valid, other_name, client_certificate, pin_mismatch, pin_matches,
         other_address, old_tls, old_tls_of_openssl, redirect, empty_201, garbage_201, web_page_200, errors,
         foreign_client, environment])
