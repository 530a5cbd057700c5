# SPDX-License-Identifier: Apache-2.0
"""Stock servers in the receiver's place: nginx and openssl s_server as ordinary processes, and
certificates of a CA of the test's own."""

import os
import subprocess

from tap import check

NGINX = "/usr/sbin/nginx"


def openssl(*words, cwd=None):
    done = subprocess.run(["openssl", *map(str, words)], cwd=cwd, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    check(done.returncode == 0, f"openssl {words[0]}: {done.stderr}")
    return done.stdout


class Ca:
    """A CA with EC P-256 keys; issue() makes server certificates for localhost."""

    def __init__(self, folder, name="a CA of the test"):
        self.dir = folder
        folder.mkdir(parents=True)
        self.pem, self.key = folder / "ca.pem", folder / "ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
                "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.pem,
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        (folder / "index").write_text("")
        (folder / "ca.conf").write_text(f"""[ca]
default_ca = own
[own]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[other]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.example
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
""")

    def issue(self, name, start="20260101000000Z", end="20991231000000Z", kind="server"):
        """(certificate, key) paths."""
        pem, key, request = (self.dir / f"{name}.{e}" for e in ("pem", "key", "csr"))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                "/CN=localhost", "-keyout", key, "-out", request)
        openssl("ca", "-batch", "-notext", "-config", self.dir / "ca.conf", "-cert", self.pem, "-keyfile", self.key,
                "-in", request, "-out", pem, "-startdate", start, "-enddate", end, "-extensions", kind)
        os.chmod(key, 0o600)
        return pem, key


def nginx(world, name, certificate, key, inside, protocols="TLSv1.3", client_ca=None, port=None):
    """nginx on the world's port (or another): `inside` is the text of its location."""
    port = port or world.port
    folder = world.dir / name
    (folder / "tmp").mkdir(parents=True)
    verify = f"ssl_client_certificate {client_ca}; ssl_verify_client on;" if client_ca else ""
    conf = folder / "nginx.conf"
    conf.write_text(f"""daemon off;
master_process off;
pid {folder}/pid;
error_log stderr info;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access;
  client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  client_max_body_size 100m;
  server {{
    listen 127.0.0.1:{port} ssl;
    server_name localhost;
    ssl_protocols {protocols};
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    {verify}
    location / {{ {inside} }}
  }}
}}
""")
    check(os.path.exists(NGINX), "nginx is not installed")
    process = world.spawn(name, NGINX, "-p", folder, "-e", "stderr", "-c", conf)
    world.listening(process, port)
    process.access = folder / "access"
    return process


def s_server(world, certificate, key, *options):
    """openssl s_server on the world's port."""
    process = world.spawn("s_server", "openssl", "s_server", "-accept", f"127.0.0.1:{world.port}", "-cert", certificate,
                          "-key", key, "-quiet", *options)
    world.listening(process, world.port)
    return process
