"""Prometheus's own program accepts the figures and the alert rules, and the dashboard names figures that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request

from system_tests.server import REPOSITORY, TIMEOUT, free_port
from system_tests.server_case import ServerCase

PROMTOOL = os.path.join(REPOSITORY, ".venv", "prometheus", "usr", "bin", "promtool")
CONTRIB = os.path.join(REPOSITORY, "contrib")
RULES = os.path.join(CONTRIB, "prometheus", "imapshield-alerts.yml")
DASHBOARD = os.path.join(CONTRIB, "grafana", "imapshield.json")


class MetricsTests(ServerCase):
    def prepare(self) -> None:
        self.address = f"127.0.0.1:{(port := free_port())}"
        self.options = ("--metrics", f"tcp:{port}:interface=127.0.0.1")

    def get(self, path: str) -> bytes:
        """Return what the server has at a path."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=TIMEOUT) as reply:
            body: bytes = reply.read()
            return body

    def promtool(self, *arguments: str, text: bytes = b"") -> None:
        """Run promtool, which must find nothing wrong."""
        done = subprocess.run(
            [PROMTOOL, *arguments], input=text, capture_output=True, timeout=TIMEOUT, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""), done.stdout)

    def test_scrape(self) -> None:
        """promtool accepts a scrape and the alert rules."""
        self.login().noop()
        self.assertEqual(self.get("/health"), b"ok\n")
        self.promtool("check", "metrics", text=self.get("/metrics"))
        done = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done)

    def test_rules_and_dashboard_name_figures_that_exist(self) -> None:
        """Each name in the alert rules and in the dashboard is in a scrape."""
        known = {*re.findall(r"^# TYPE (\w+)", self.get("/metrics").decode(), re.MULTILINE)}
        for path in (RULES, DASHBOARD):
            with open(path, encoding="utf-8") as file:
                text = file.read()
            used = {*re.findall(r"\b((?:imapshield|process)_\w+)\{?", text)} - {"imapshield_alerts"}
            unknown = {name for name in used if name.removesuffix("_bucket") not in known}
            self.assertEqual(unknown, set())
        with open(DASHBOARD, encoding="utf-8") as file:
            self.assertTrue(json.load(file)["panels"])
