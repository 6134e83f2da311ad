"""A command lets the shield check its nodes now, and cannot make it do so without bounds."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from imapshield.control.request_lines import Request
from imapshield.front.node_checks import CHECK_SECONDS, REPEAT_SECONDS
from tests.front.node_case import NodeCase


class NodeCheckTests(NodeCase):
    def check(self) -> Deferred[Any]:
        """Begin a check of all nodes."""
        answer: Any = self.commands.nodes(Request("nodes", {"check": True}))
        return Deferred.fromCoroutine(answer)

    def answer(self, *nodes: str) -> None:
        """Let nodes answer a check."""
        for node in nodes:
            link = self.links[node][-1]
            tag = link.received().split()[0]
            link.send(b"* CAPABILITY IMAP4rev1\r\n%b OK done\r\n" % tag)

    def rows(self, answer: Deferred[Any]) -> dict[str, tuple[str, bool]]:
        """Return the state of each node, and whether it has answered."""
        rows = self.successResultOf(answer)
        return {row["node"]: (row["state"], row["answers"]) for row in rows}

    def test_node_that_has_died_since_its_last_check(self) -> None:
        """The answer has what the check has found, also for nodes that nobody has checked yet."""
        self.down.add("mail2")
        answer = self.check()
        self.assertNoResult(answer)
        self.answer("mail1", "mail3")
        self.assertEqual(
            self.rows(answer),
            {"mail1": ("up", True), "mail2": ("failing", False), "mail3": ("up", True)},
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_the_argument_nothing_is_checked(self) -> None:
        self.assertNotIn("answers", self.ask("nodes")[0])
        self.assertEqual(self.links, {"mail1": [], "mail2": [], "mail3": []})

    def test_node_that_hangs(self) -> None:
        """The answer comes in time, and the node gets no second connection while the first one hangs."""
        first = self.check()
        self.answer("mail1", "mail3")
        self.clock.advance(CHECK_SECONDS - 0.1)
        self.assertNoResult(first)
        second = self.check()  # it waits for the same check
        self.clock.advance(0.1)
        for answer in (first, second):
            self.assertEqual(self.rows(answer)["mail2"], ("up", False))
        third = self.check()
        self.answer("mail1", "mail3")
        self.clock.advance(CHECK_SECONDS)
        self.assertEqual(self.rows(third)["mail1"], ("up", True))
        self.assertEqual(len(self.links["mail2"]), 1)

    def test_rate(self) -> None:
        """A command that comes a moment later gets the same result, without another check."""
        first = self.check()
        self.answer("mail1", "mail2", "mail3")
        self.clock.advance(REPEAT_SECONDS - 0.1)
        self.assertEqual(self.rows(self.check()), self.rows(first))
        self.assertEqual(len(self.links["mail1"]), 1)
        self.clock.advance(0.1)
        self.check()
        self.assertEqual(len(self.links["mail1"]), 2)

    def test_checks_of_commands_keep_nobody_out(self) -> None:
        """Only the first failure counts: a loop of commands does not open the circuit breaker of a node that restarts."""
        self.down |= {*self.links}
        for _ in range(5):
            self.assertEqual(self.rows(self.check())["mail1"], ("failing", False))
            self.clock.advance(REPEAT_SECONDS)
        self.nodes.by_name["mail1"].check()
        self.nodes.by_name["mail1"].check()
        self.assertEqual(self.ask("nodes")[0]["state"], "down")

    def test_node_that_a_reload_has_removed(self) -> None:
        """The row of a removed node with users answers no check, also if another node has its name now."""
        old = self.nodes.by_name["mail2"]
        old.connections, old.is_removed = 1, True
        self.nodes._removed.append(old)
        answer = self.check()
        self.answer("mail1", "mail2", "mail3")
        self.assertIn(("removed", False), self.rows(answer).values())
