#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes the agent and evaluates the shipped rules: alerts fire, and clear."""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import tap
from prometheus import Prometheus
from tap import check, equal
from world import TOP, World, free_port, until

RULES = TOP / "packaging" / "prometheus" / "cede.rules.yml"


def scrape():
    """Prometheus scrapes the endpoint; the shipped alerts fire when plaintext grows too old and the link is down, and clear"""
    with World(receiver=False, source={"quiet": "0s", "max_age": "20m"}) as w:
        w.config["metrics"] = f"127.0.0.1:{free_port()}"
        w.write_files()
        w.start_agent()
        prometheus = Prometheus(w.dir, RULES, w.config["metrics"], free_port(), lambda words: w.spawn("prometheus", *words))
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
