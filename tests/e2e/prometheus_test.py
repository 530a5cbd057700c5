#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes the agent and evaluates the shipped rules: alerts fire, and clear."""

import json
import os
import pathlib
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from tap import Skip, check, equal
from world import TOP, World, free_port, until

RULES = TOP / "packaging" / "prometheus" / "cede.rules.yml"


class Prometheus:
    def __init__(self, w, target):
        if shutil.which("prometheus") is None:
            raise Skip("prometheus is not here")
        self.port = free_port()
        # the shipped rules; only the waiting is shorter, or the test would take an hour
        rules = re.sub(r"^( +for: ).*$", r"\g<1>1s", RULES.read_text(), flags=re.M)
        (w.dir / "rules.yml").write_text(rules)
        (w.dir / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{w.dir}/rules.yml]\n"
            f"scrape_configs: [{{job_name: cede, static_configs: [{{targets: ['{target}']}}]}}]\n")
        self.process = w.spawn("prometheus", "prometheus", f"--config.file={w.dir}/prometheus.yml", f"--storage.tsdb.path={w.dir}/tsdb",
                               f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn")

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError):
            check(self.process.alive(), "prometheus ended")
            return None

    def value(self, expression):
        data = self.ask("query", query=expression)
        return [float(r["value"][1]) for r in data["result"]] if data else []

    def firing(self):
        data = self.ask("alerts")
        return {a["labels"]["alertname"] for a in data["alerts"] if a["state"] == "firing"} if data else set()


def scrape():
    """Prometheus scrapes the endpoint; the shipped alerts fire when plaintext grows too old and the link is down, and clear"""
    with World(receiver=False, source={"quiet": "0s", "max_age": "20m"}) as w:
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        w.start_agent()
        prometheus = Prometheus(w, w.config["metrics"])
        until(lambda: prometheus.value('up{job="cede"}') == [1], 60, "the agent is scraped")
        equal(prometheus.firing() & {"CedePlaintextTooOld", "CedeDown"}, set(), "alerts while all is well")
        kind = prometheus.ask("metadata", metric="cede_receipts_total") or prometheus.ask("metadata", metric="cede_receipts")
        check(kind and next(iter(kind.values()))[0]["type"] == "counter", f"it knows the types: {kind}")
        old = w.dir / "old.jpg"
        old.write_bytes(b"picture")
        os.utime(old, (time.time() - 6000, time.time() - 6000))
        os.rename(old, w.capture / "old.jpg")
        w.expect("old.jpg", b"picture")
        wanted = {"CedePlaintextTooOld", "CedeDestinationDown", "CedeViolation"}
        until(lambda: wanted <= prometheus.firing(), 60, lambda: f"{wanted} fire: {prometheus.firing()}")
        check(prometheus.value("max(cede:plaintext_age:ratio)")[0] > 1, "the recorded ratio")
        w.start_receiver()
        w.settled()
        gone = {"CedePlaintextTooOld", "CedeDestinationDown"}
        until(lambda: not gone & prometheus.firing(), 60, lambda: f"{gone} clear: {prometheus.firing()}")
        w.agent.stop()
        until(lambda: "CedeDown" in prometheus.firing(), 60, "the agent is down")
        w.start_agent()
        until(lambda: "CedeDown" not in prometheus.firing(), 60, "it is back")


if __name__ == "__main__":
    tap.run([scrape])
