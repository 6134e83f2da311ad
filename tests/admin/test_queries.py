"""The Grafana dashboard and the alert rules of ``contrib`` ask for figures that exist, by labels that they have."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from imapshield import events
from imapshield.control.request_lines import Request
from tests.admin.web_case import WebCase
from tests.test_node_output import NODE

CONTRIB = os.path.join(os.path.dirname(__file__), "..", "..", "contrib")
SCRAPE_LABELS = {"instance", "job"}
"""Labels that Prometheus adds."""


def values_of(node: Any, key: str) -> Iterator[Any]:
    """Yield the value of each `key` in a document of JSON, however deep."""
    if isinstance(node, dict):
        yield from [node[key]] if key in node else []
        for value in node.values():
            yield from values_of(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(value, key)


class QueryTests(WebCase):
    def setUp(self) -> None:
        super().setUp()
        self.server.login()
        self.counters(events.LimitTriggered(1, "192.0.2.1", "backlog", 1, 1, "reset"))
        self.counters(events.AddressBanned(0, "192.0.2.1", "192.0.2.1/32", "x", 1, 1, 1))
        self.counters(events.ConnectionClosed(1, "192.0.2.1", "logged out"))
        ask = self.monitor._handlers["status"]

        async def status(request: Request) -> Any:
            redis = {"connected": True, "reports": 0, "refused": 0, "others": ()}
            return {
                **await ask(request),
                "nodes": [NODE],
                "user_map": {"user_map": "file:x", "problem": ""},
                "guard_redis": redis,
                "certificate": {"expires": 1.0},
            }

        self.monitor._handlers = {**self.monitor._handlers, "status": status}
        for _ in range(2):
            self.clock.advance(1)
        text = self.request("GET", "/metrics", site=self.open_site).body.decode()
        self.labels: dict[str, set[str]] = {}
        self.values: set[str] = {"bye"}
        for name, labels in re.findall(r"^(\w+)(\{.*\})? ", text, re.MULTILINE):
            pairs = re.findall(r'(\w+)="([^"]*)"', labels)
            self.labels.setdefault(name, set()).update(key for key, _ in pairs)
            self.values.update(value for _, value in pairs)

    def check(self, query: str) -> None:
        """Check the names, the labels and the values of labels in a query."""
        names = re.findall(r"\b(?:imapshield|process)_\w+", query)
        self.assertTrue(names or query.startswith("up{"), query)
        known = set(SCRAPE_LABELS)
        for name in names:
            self.assertIn(name, self.labels, query)
            known |= self.labels[name]
        for label, sign, value in re.findall(r'(\w+)(=~?)"([^"]*)"', query):
            self.assertIn(label, known, query)
            if label not in SCRAPE_LABELS:
                choices = set(value.split("|") if sign == "=~" else [value])
                self.assertLessEqual(choices, self.values, query)
        for group in re.findall(r"(?:by|without|ignoring) \(([^)]*)\)", query):
            self.assertLessEqual(set(group.split(", ")), known, query)

    def test_dashboard(self) -> None:
        """The dashboard is JSON. Each panel has queries, and each query asks for figures that exist."""
        with open(os.path.join(CONTRIB, "grafana", "imapshield.json"), encoding="utf-8") as file:
            dashboard = json.load(file)
        self.assertTrue(all([*values_of(panel, "expr")] for panel in dashboard["panels"]))
        for query in values_of(dashboard, "expr"):
            self.check(query)

    def test_alert_rules(self) -> None:
        """Each alert asks for figures that exist."""
        path = os.path.join(CONTRIB, "prometheus", "imapshield-alerts.yml")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        queries = re.findall(r"expr: (?:>-\n)?((?:.+\n)(?: {10,}and .*\n)?)", text)
        self.assertEqual(len(queries), text.count("- alert:"))
        for query in queries:
            self.check(query.strip())
