"""Prometheus's own program accepts the figures and the alert rules, and the alerts fire when they should."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from typing import Any

from system_tests.server import REPOSITORY, TIMEOUT, free_port
from system_tests.server_case import ServerCase

PROMTOOL = os.path.join(REPOSITORY, ".venv", "prometheus", "usr", "bin", "promtool")
CONTRIB = os.path.join(REPOSITORY, "contrib")
RULES = os.path.join(CONTRIB, "prometheus", "imapshield-alerts.yml")
QUIET = {
    "up": "1x60",
    'imapshield_reactor_delay_seconds_bucket{le="0.5"}': "0+60x60",
    'imapshield_reactor_delay_seconds_bucket{le="1.0"}': "0+60x60",
    'imapshield_reactor_delay_seconds_bucket{le="+Inf"}': "0+60x60",
    'imapshield_limits_total{limit="backlog",action="reset"}': "0+1x60",
    'imapshield_logins_total{result="accepted"}': "0+5x60",
    'imapshield_logins_total{result="failed"}': "0+5x60",
    'imapshield_logins_total{result="refused"}': "0x60",
    'imapshield_connections{login="yes"}': "500x60",
    'imapshield_connections{login="no"}': "10x60",
    "imapshield_max_connections": "10000x60",
    "imapshield_client_memory_bytes": "1e6x60",
    "imapshield_client_memory_limit_bytes": "256e6x60",
    'imapshield_problems_total{kind="internal_error"}': "3x60",
    "imapshield_certificate_expiry_timestamp_seconds": "5e6x60",
    "imapshield_user_map_up": "1x60",
    'imapshield_node_up{node="mail1"}': "1x60",
    "imapshield_guard_redis_up": "1x60",
    "imapshield_guard_redis_refused_total": "3x60",
}
FIRING = {
    "ImapshieldDown": {"up": "0x60"},
    "ImapshieldSlow": QUIET | {'imapshield_reactor_delay_seconds_bucket{le="0.5"}': "0+30x60"},
    "ImapshieldFlood": {'imapshield_limits_total{limit="backlog",action="reset"}': "0+100x60"},
    "ImapshieldGuessing": {'imapshield_logins_total{result="failed"}': "0+100x60"},
    "ImapshieldNoLogins": {
        'imapshield_logins_total{result="accepted"}': "7x60",
        'imapshield_logins_total{result="refused"}': "0+1x60",
    },
    "ImapshieldConnectionsNearlyFull": QUIET | {'imapshield_connections{login="yes"}': "9900x60"},
    "ImapshieldMemoryNearlyFull": QUIET | {"imapshield_client_memory_bytes": "250e6x60"},
    "ImapshieldCertificateExpires": {"imapshield_certificate_expiry_timestamp_seconds": "5e5x60"},
    "ImapshieldUserMapFails": {"imapshield_user_map_up": "0x60"},
    "ImapshieldNodeDown": QUIET | {'imapshield_node_up{node="mail2"}': "0x60"},
    "ImapshieldSharedGuardFails": {"imapshield_guard_redis_up": "0x60"},
    "ImapshieldReportsRefused": {"imapshield_guard_redis_refused_total": "0+1x60"},
    "ImapshieldInternalErrors": {'imapshield_problems_total{kind="internal_error"}': "0+1x60"},
}
"""Values of a metric, one in a minute, with which each alert fires."""


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

    def test_alerts_fire(self) -> None:
        """Each alert fires for what it is about, and none does for a quiet server."""
        with open(RULES, encoding="utf-8") as file:
            alerts = re.findall(r"- alert: (\w+)", file.read())
        self.assertEqual(sorted(alerts), sorted(FIRING))
        cases = [_case(series, alert, fires=True) for alert, series in FIRING.items()]
        cases += [_case(QUIET, alert, fires=False) for alert in FIRING]
        path = os.path.join(self.base, "alerts.json")  # JSON is YAML
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"rule_files": [RULES], "evaluation_interval": "1m", "tests": cases}, file)
        done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done)


def _case(series: dict[str, str], alert: str, *, fires: bool) -> dict[str, Any]:
    """Return a test of promtool: `alert` fires after an hour of these values, one in a minute, or does not."""
    query = f'sum(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    return {
        "interval": "1m",
        "input_series": [
            {"series": _with_job(metric), "values": values} for metric, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "1h",
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
        ],
    }


def _with_job(metric: str) -> str:
    """Return a metric with the labels that a scrape adds."""
    name, _, labels = metric.rstrip("}").partition("{")
    return f'{name}{{{labels}{"," if labels else ""}job="imapshield",instance="mail"}}'
