"""Nodes are a part of the status, and of the figures for Prometheus."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.admin.metrics import _nodes
from imapshield.config import Settings
from imapshield.control.request_lines import ControlError, Request
from imapshield.operator_ports import OperatorPorts, _no_nodes
from tests.test_node_output import NEW, NODE


class NodeStatusTests(SynchronousTestCase):
    def test_status(self) -> None:
        """The status has a row for each node; without an answer of all workers it has none."""
        operator = OperatorPorts(Settings(), Clock())
        answers: list[Any] = [[NODE]]

        async def status(_: Request) -> Any:
            return {"version": "1"}

        async def nodes(_: Request) -> Any:
            if not answers:
                raise ControlError("busy")
            return answers.pop()

        operator.handlers["status"] = status
        operator.add_commands({"nodes": nodes})
        for expected in ([NODE], []):
            found: Any = operator.status(Request("status"))
            answer = self.successResultOf(Deferred.fromCoroutine(found))
            self.assertEqual(answer, {"version": "1", "nodes": expected})

    def test_server_without_nodes(self) -> None:
        """A mail node that is asked about nodes says where to ask."""
        asked = Deferred.fromCoroutine(_no_nodes(Request("drain", {"node": "mail1"})))
        error = self.failureResultOf(asked, ControlError).value
        self.assertIn("drain: this server has no mail nodes", str(error))

    def test_figures(self) -> None:
        """Each node has figures with its name as the label."""
        samples = {
            (sample.name, sample.labels["node"]): sample.value
            for family in _nodes([NODE, NEW])
            for sample in family.samples
        }
        self.assertEqual(samples["imapshield_node_up", "mail1"], 1)
        self.assertEqual(samples["imapshield_node_up", "m2"], 0)
        self.assertEqual(samples["imapshield_node_users", "mail1"], 2)
        self.assertEqual(samples["imapshield_node_failures_total", "m2"], 1)
        self.assertEqual(len(samples), 10)
        self.assertEqual([*_nodes([])], [])
