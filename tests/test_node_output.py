"""What the commands about mail nodes print."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.node_output import NODE_COMMANDS, node_lines

NODE: dict[str, Any] = {
    "node": "mail1", "address": "mail1=tls:mail1.example:993", "state": "up", "users": 2, "sessions": 3,
    "connections": 4, "max_connections": 500, "failures": 1,
    "consecutive_failures": 0, "max_consecutive_failures": 3, "checked": 3.0, "latency": 0.0123, "reason": "",
}  # fmt: skip
NEW = {**NODE, "node": "m2", "state": "down", "checked": None, "latency": None, "reason": "refused"}


def shown(name: str, answer: Any) -> list[str]:
    """Return the lines of a command."""
    show = next(show for each, show, _, _ in NODE_COMMANDS if each == name)
    return [" ".join(line.split()) for line in show(answer)]


class NodeOutputTests(SynchronousTestCase):
    def test_nodes(self) -> None:
        """Each node has a line, and one that fails says why."""
        lines = shown("nodes", [NODE, NEW])
        self.assertEqual(lines[1], "mail1 up 2 3 4 of 500 1 3s ago 12.3 ms")
        self.assertEqual(lines[2], "m2 down 2 3 4 of 500 1 never -")
        self.assertEqual(lines[3:], ["m2: refused"])
        self.assertEqual(
            list(node_lines([NODE])),
            ["node mail1   up, 2 users, 4 of 500 connections, 1 failure"],
        )

    def test_node_that_fails(self) -> None:
        """A node that has failed says so before it is down, and how many failures make it that."""
        node = {**NEW, "state": "failing", "consecutive_failures": 1}
        self.assertEqual(shown("nodes", [node])[1], "m2 failing (1 of 3) 2 3 4 of 500 1 never -")
        (line,) = node_lines([node])
        self.assertTrue(line.startswith("node m2      failing (1 of 3), 2 users"), line)
        self.assertTrue(line.endswith("1 failure: refused"), line)

    def test_check(self) -> None:
        """A node that has not answered a check has a line that says so, unless there is a reason already."""
        silent, gone = {**NODE, "answers": False}, {**NODE, "answers": False, "state": "removed"}
        self.assertEqual(shown("nodes", [silent])[2:], ["mail1: no answer to a check now"])
        self.assertEqual(shown("nodes", [{**NODE, "answers": True}, gone])[3:], [])
        self.assertEqual(shown("nodes", [{**silent, "reason": "refused"}])[2:], ["mail1: refused"])

    def test_changes(self) -> None:
        """The other commands say what they have done."""
        self.assertEqual(
            shown("drain", {**NODE, "unchanged": False}),
            ["mail1: no further logins; 3 sessions of 2 users go on"],
        )
        again = {**NODE, "sessions": 1, "users": 1, "unchanged": True}
        self.assertEqual(
            shown("drain", again),
            ["mail1: no further logins, as before; 1 session of 1 user goes on"],
        )
        self.assertEqual(
            shown("undrain", again), ["mail1: logins are possible, as before; it is up"]
        )
        held = {"user": "alice", "seconds": 10, "ended": 5, "cut": 0, "extended": False}
        held["node"] = "mail1"
        self.assertEqual(
            shown("hold", held),
            ["alice: logins wait for 10s; 5 connections ended; the node is mail1"],
        )
        self.assertIn("1 of them within a command", shown("hold", {**held, "cut": 1})[0])
        self.assertIn("does not know this user", shown("hold", {**held, "node": ""})[1])
        released = {"user": "alice", "held": True, "node": "mail2"}
        self.assertEqual(shown("release", released), ["alice: logins go on, on mail2"])
        self.assertIn("with the password", shown("release", {**released, "node": None})[0])
        self.assertEqual(
            shown("release", {"user": "bob", "held": False, "node": ""}),
            ["bob: was not held, unknown to the user map"],
        )
