"""Nodes are a part of the status, and of the figures for Prometheus."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.admin.metrics import _nodes, _user_map
from imapshield.config import Settings
from imapshield.control.request_lines import ControlError, Request
from imapshield.control.status_warnings import status_warnings
from imapshield.operator_ports import OperatorPorts, _no_nodes
from tests.test_node_output import NEW, NODE


class NodeStatusTests(SynchronousTestCase):
    def test_status(self) -> None:
        """The status has the nodes and the user map; without an answer of all workers it has none."""
        operator = OperatorPorts(Settings(), Clock())
        user_map = {"user_map": "file:x", "problem": "file:x: gone; write it"}
        answers: dict[str, Any] = {"nodes": [NODE], "user-map": user_map}

        async def status(_: Request) -> Any:
            return {"version": "1", "login_problems": ["users: no users"]}

        async def answer(request: Request) -> Any:
            if not answers:
                raise ControlError("busy")
            return answers.pop(request.command)

        operator._status_of_connections = status
        operator.add_commands({"nodes": answer, "user-map": answer})
        for expected in (
            {
                "warnings": ["users: no users", "--user-map file:x: gone; write it"],
                "version": "1",
                "login_problems": ["users: no users"],
                "nodes": [NODE],
                "user_map": user_map,
            },
            {
                "warnings": ["users: no users"],
                "version": "1",
                "login_problems": ["users: no users"],
            },
        ):
            found: Any = operator.status(Request("status"))
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(found)), expected)

    def test_worker_that_does_not_answer(self) -> None:
        """All is asked at once, so that the answer takes no longer than one that does not come."""
        operator, asked = OperatorPorts(Settings(), Clock()), dict[str, Deferred[Any]]()

        async def answer(request: Request) -> Any:
            asked[request.command] = Deferred()
            return await asked[request.command] if request.command != "status" else {}

        operator._status_of_connections = answer
        operator.add_commands({"nodes": answer, "user-map": answer})
        found: Any = operator.status(Request("status"))
        status = Deferred.fromCoroutine(found)
        self.assertEqual(sorted(asked), ["nodes", "status", "user-map"])
        for command in ("nodes", "user-map"):
            asked[command].errback(ControlError("busy"))
        self.assertEqual(self.successResultOf(status), {"warnings": []})

    def test_part_that_fails(self) -> None:
        """An error of the program in one part is in the log, and costs no other part, also if the status fails."""
        operator = OperatorPorts(Settings(), Clock())
        for fails in (False, True):
            late: Deferred[Any] = Deferred()

            async def status(_: Request, fails: bool = fails) -> Any:
                if fails:
                    raise ControlError("busy")
                return {"version": "1"}

            async def broken(late: Deferred[Any] = late) -> Any:
                return await late

            async def good() -> Any:
                return {}

            operator._status_of_connections = status
            operator.status_parts |= {"guard_redis": broken, "certificate": good}
            found: Any = operator.status(Request("status"))
            answer = Deferred.fromCoroutine(found)
            late.errback(ZeroDivisionError())
            if fails:
                self.failureResultOf(answer, ControlError)
            else:
                expected = {"warnings": [], "version": "1", "certificate": {}}
                self.assertEqual(self.successResultOf(answer), expected)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_warnings(self) -> None:
        """What is wrong with the map, with Redis and with certificates is said, with what to do."""
        self.assertEqual(status_warnings({"user_map": {"user_map": "", "problem": ""}}), [])
        failing = {**NEW, "state": "failing"}
        lines = status_warnings({"nodes": [NODE, NEW, failing]})
        self.assertEqual(len(lines), 2)
        self.assertIn("node m2 is down: refused; its users cannot log in: see whether", lines[0])
        self.assertIn("node m2 is failing: refused: see whether", lines[1])
        redis = {"problem": "", "refusal": "", "refused": 0}
        self.assertEqual(status_warnings({"guard_redis": redis}), [])
        lines = status_warnings(
            {
                "guard_redis": {"problem": "timeout", "refusal": "wrong signature", "refused": 7},
                "certificate": {"problems": ["renew it"]},
            }
        )
        self.assertIn("timeout; this server decides alone", lines[0])
        self.assertIn("are refused, 7 since the start: wrong signature", lines[1])
        self.assertEqual(lines[2:], ["renew it"])

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
        self.assertEqual([*_user_map(None), *_user_map({"user_map": "", "problem": ""})], [])
        (family,) = _user_map({"user_map": "file:x", "problem": "gone"})
        self.assertEqual([sample.value for sample in family.samples], [0])
