# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus with the shipped rules."""

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request

from tap import Skip, check


def fetch_here(url):
    """The answer, or None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except (urllib.error.URLError, ConnectionError):
        return None


class Prometheus:
    """folder: for its files. spawn(words): starts it, gives something with alive()."""

    def __init__(self, folder, rules, target, port, spawn, fetch=fetch_here):
        if shutil.which("prometheus") is None:
            raise Skip("prometheus is not here")
        self.port, self.fetch = port, fetch
        # the shipped rules; only the waiting is shorter, or the test would take an hour
        (folder / "rules.yml").write_text(re.sub(r"^( +for: ).*$", r"\g<1>1s", rules.read_text(), flags=re.M))
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{folder}/rules.yml]\n"
            f"scrape_configs: [{{job_name: cede, static_configs: [{{targets: ['{target}']}}]}}]\n")
        self.process = spawn(["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                              f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"])

    def ask(self, path, **query):
        said = self.fetch(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}")
        if said is None:
            check(self.process.alive(), "prometheus ended")
            return None
        return json.loads(said)["data"]

    def value(self, expression):
        data = self.ask("query", query=expression)
        return [float(r["value"][1]) for r in data["result"]] if data else []

    def firing(self):
        data = self.ask("alerts")
        return {a["labels"]["alertname"] for a in data["alerts"] if a["state"] == "firing"} if data else set()
