# SPDX-License-Identifier: Apache-2.0
"""The agent's metrics endpoint, read as a monitoring system reads it."""

import contextlib
import http.client
import re
import socket
import urllib.error
import urllib.request

SAMPLE = re.compile(r'^([a-z_:]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.unix = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix)


def get(address, path, headers=()):
    """(status, content type, body) of a page at "127.0.0.1:PORT" or "unix:/PATH"."""
    connection = OverUnix(address[5:]) if address.startswith("unix:") else http.client.HTTPConnection(address, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def parse(text):
    """[(name, {label: value}, number)]"""
    samples = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, number = SAMPLE.match(line).groups()
            samples.append((name, dict(LABEL.findall(labels or "")), float(number)))
    return samples


def metric(w, name, **labels):
    """The sum over all series of this name that have these labels; None if there is none, or no answer."""
    try:
        status, _, text = get(w.config["metrics"], "/metrics")
    except (OSError, http.client.HTTPException):
        return None
    if status != 200:
        return None
    found = [number for n, have, number in parse(text) if n == name and labels.items() <= have.items()]
    return sum(found) if found else None
