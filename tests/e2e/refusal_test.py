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
from liar import Liar, note
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


def of_own_ca(w, *what, **kind):
    """A certificate of a CA that the policy names, made as Ca.issue() is told, and its key."""
    ca = servers.Ca(w.dir / "own")
    w.destination["ca"] = "own/ca.pem"
    w.write_files()
    return ca.issue(*what, **kind)


def expired_certificate():
    """a server certificate that has expired"""
    with World(receiver=False) as w:
        pem, key = of_own_ca(w, "old", "20240101000000Z", "20250101000000Z")
        servers.nginx(w, "expired", pem, key, "return 201;")
        refused(w, r"reason=tls .*expired")


def not_yet_valid():
    """a server certificate that is not valid yet"""
    with World(receiver=False) as w:
        pem, key = of_own_ca(w, "young", "20980101000000Z", "20990101000000Z")
        servers.nginx(w, "young", pem, key, "return 201;")
        refused(w, r"reason=tls ")


def other_name():
    """a server certificate of the right CA for another name"""
    with World(receiver=False) as w:
        pem, key = of_own_ca(w, "elsewhere", kind="other")
        servers.nginx(w, "elsewhere", pem, key, "return 201;")
        refused(w, r"reason=tls ")


def client_certificate():
    """a certificate of the right CA and name, but not for servers"""
    with World(receiver=False) as w:
        pem, key = of_own_ca(w, "client", kind="client")
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


def lies(answer, word=r"receipt.refused|reason=receipt"):
    """answer(world, facts) -> (status, body): refused, and nothing is wiped."""
    with World(receiver=False) as w:
        with Liar(w, lambda facts: answer(w, facts)) as liar:
            refused(w, word)
            check(any(r.startswith("PUT ") for r in liar.requests), "the lie was never told")
        # another server, the real one, takes the same captures after all
        heal(w, w.start_receiver)


def signed(w, facts, key="receipt.key", **other):
    return 201, note(facts.lines(**other), w.pki / key)


def honest_answer():
    """the lying server's truth is taken: what follows is refused for the lie alone"""
    with World(receiver=False) as w:
        with Liar(w, lambda facts: signed(w, facts)):
            w.start_agent()
            for name, content in CAPTURES.items():
                w.write(name, content, want=False)
            w.empty()
            w.idle()
            equal(w.counts()[0]["wiped"], len(CAPTURES), "captures wiped")


def receipt_by_another_key():
    """a receipt signed by another key"""
    lies(lambda w, f: signed(w, f, key="policy.key"))


def receipt_with_a_borrowed_key_id():
    """a receipt that claims the right key and is signed by another"""
    lies(lambda w, f: (201, note(f.lines(), w.pki / "policy.key", key_id_of=w.pki / "receipt.key")))


def receipt_for_another_bundle():
    """a well signed receipt for another bundle"""
    lies(lambda w, f: signed(w, f, bundle="0193577c-0000-7000-8000-000000000000"))


def receipt_with_another_digest():
    """a well signed receipt with another digest"""
    lies(lambda w, f: signed(w, f, sha256="0" * 64))


def receipt_with_another_size():
    """a well signed receipt with another size"""
    lies(lambda w, f: signed(w, f, size=f.size + 1))


def receipt_for_another_host():
    """a well signed receipt for another host"""
    lies(lambda w, f: signed(w, f, host="other-host"))


def statement_of_another_type():
    """a statement of another type, signed by the receipt key"""
    lies(lambda w, f: signed(w, f, type="cede-policy/1"))


def truncated_receipt():
    """a receipt that is cut off"""
    for keep in (0.5, 0.9):
        lies(lambda w, f, keep=keep: (201, (whole := signed(w, f)[1])[:int(len(whole) * keep)]))


def text_changed_after_signing():
    """a receipt whose text was changed after it was signed"""
    lies(lambda w, f: (201, signed(w, f, sha256="0" * 64)[1].replace(b"0" * 64, f.sha256.encode())))


def broken_off_answer():
    """an answer that breaks off"""
    lies(lambda w, f: (201, (4000, signed(w, f)[1][:60])), r"push.failed|receipt.refused")


def random_bytes():
    """201 with random bytes"""
    lies(lambda w, f: (201, os.urandom(5000)))


def endless_receipt():
    """201 with ten megabytes"""
    lies(lambda w, f: (201, signed(w, f)[1] + b"x" * (10 << 20)), r"push.failed|receipt.refused")


def stored_already_with_garbage():
    """412 (stored already), and garbage where the receipt should be"""
    lies(lambda w, f: (412, b"stored already"), r"push.failed|receipt.refused")


tap.run([other_ca, expired_certificate, not_yet_valid, other_name, client_certificate, pin_mismatch, pin_matches,
         other_address, old_tls, old_tls_of_openssl, redirect, empty_201, garbage_201, web_page_200, errors,
         foreign_client, environment, honest_answer, receipt_by_another_key, receipt_with_a_borrowed_key_id,
         receipt_for_another_bundle, receipt_with_another_digest, receipt_with_another_size, receipt_for_another_host,
         statement_of_another_type, truncated_receipt, text_changed_after_signing, broken_off_answer, random_bytes,
         endless_receipt, stored_already_with_garbage], at_once=6)
