"""`imapshield move` stops before it does harm, and says what to type."""

from __future__ import annotations

import os
import time
from typing import Any

from imapshield.control.request_lines import ControlError, NoServer
from imapshield.move import agent, user_switch
from imapshield.move.journal import GIVEN_UP, new_entry
from tests.move.command_case import MoveCommandCase
from tests.move.move_case import TreeCopier


class RefusalTests(MoveCommandCase):
    def test_errors_say_what_to_type(self) -> None:
        for arguments, text in (
            ((), "name the user"),
            (("alice",), "imapshield move alice NODE"),
            (("alice", "three"), "has no node three; it has one, two"),
            (("carol", "two"), "no node has mail of carol"),
            (("alice", "two", "--from", "two"), "alice is on two already"),
            (("alice", "--abort"), "has no move of alice"),
            (("../alice", "two"), "../alice: "),
            (("*", "two"), "*: name one user, without *"),
            (("*@example.org", "two"), "name one user, without *"),
        ):
            with self.subTest(arguments=arguments):
                status, out, err = self.run_command(*arguments)
                self.assertIn(text, out + err)
                self.assertEqual(status, int(not out))

    def test_name_that_the_map_cannot_have(self) -> None:
        """Before the first step, the map must be able to name the user."""
        os.rename(f"{self.base}/one/mail/alice", f"{self.base}/one/mail/ann lee")
        self.assertIn("no line of a map can name the user 'ann lee'", self.error("ann lee", "two"))
        self.assertEqual((self.asked, self.journal.recent()), ([], []))
        with open(f"{self.base}/users.map", encoding="utf-8") as file:
            self.assertEqual(file.read(), "# users\nbob one\nAlice one\n")
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])

    def test_mail_on_two_nodes(self) -> None:
        self.fill("two")
        self.assertIn("name the one that the map has: --from NODE", self.error("alice", "two"))

    def test_abort(self) -> None:
        self.journal.write(new_entry("alice", "one", "two"))
        _, out, _ = self.run_command("alice", "--abort")
        self.assertEqual(out, "alice stays on one\n")
        self.assertIn("alice  one   two  aborted", self.run_command("--status")[1])

    def test_abort_needs_no_map(self) -> None:
        self.journal.write(new_entry("alice", "one", "two"))
        self.write("users.map", "bob\n")
        self.assertIn("line 1: has 1 words", self.error("alice", "two"))
        self.assertEqual(self.run_command("alice", "--abort")[1], "alice stays on one\n")

    def test_two_commands_at_once(self) -> None:
        with self.journal.locked("alice"):
            self.assertIn("another command is moving alice", self.error("alice", "two"))

    def test_shield_that_fails(self) -> None:
        """If a shield cannot hold the user, nothing is changed."""

        def refuse(path: str, request: Any) -> Any:
            if request.command == "nodes":
                return self.ask(path, request)
            raise ControlError(f"{request.command}: no")

        self.patch(user_switch, "ask", refuse)
        self.assertIn("shield edge: hold: no", self.last_line("alice", "two"))
        self.assertEqual(self.dump("one"), self.before)

    def test_shields_are_asked_before_anything_is_copied(self) -> None:
        """Each must answer, and know the node. A move that was given up goes on all the same."""
        self.backends["two"] = "removed"  # and sessions of others are left there
        line = self.error("alice", "two")
        self.assertIn("shield edge: has no --backend with the name two; it has one", line)
        self.assertIn("add it to the configuration of that shield, and reload it", line)

        def no_server(path: str, request: Any) -> None:
            raise NoServer(path)

        self.patch(user_switch, "ask", no_server)
        self.assertIn("shield edge: ", self.error("alice", "two"))
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])
        self.assertEqual(self.run_command("--status")[1], "no moves\n")
        entry = new_entry("alice", "one", "two")._replace(phase=GIVEN_UP)
        self.journal.write(entry)
        self.assertIn("has gone", self.last_line("alice", "two"))

    def test_node_without_logins(self) -> None:
        """Nobody is moved to a node that a shield passes no logins to, and whose users are locked out."""
        self.patch(time, "sleep", self.slept.append)
        for state, advice in (
            ("down", "start its server"),
            ("failing", "start its server"),
            ("draining", "undrain"),
        ):
            self.backends["two"] = state
            line = self.error("alice", "two")
            self.assertIn(f"shield edge: two is {state}, so alice could not log in there; ", line)
            self.assertIn(advice, line)
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])
        self.assertEqual(self.run_command("--status")[1], "no moves\n")
        self.assertEqual(len(self.slept), user_switch.FAILING_LOOKS)
        self.backends["two"] = "new"
        self.assertEqual(self.run_command("alice", "two")[0], 0)

    def test_node_that_starts(self) -> None:
        """A node whose last check has failed may have been started since: the next check decides."""
        self.backends["two"] = "failing"
        self.patch(time, "sleep", lambda _: self.backends.update(two="up"))
        self.assertEqual(self.run_command("alice", "two")[0], 0)

    def test_node_that_has_just_died(self) -> None:
        """The shields check the node now: that their last check has succeeded does not count."""
        answers = iter([False, True, True])
        self.patch(time, "sleep", lambda _: None)

        def check(path: str, request: Any) -> Any:
            answer = self.ask(path, request)
            if request.command != "nodes":
                return answer
            self.assertEqual(request.arguments, {"check": True})
            answers_now = next(answers, False)
            return [{**row, "answers": answers_now} for row in answer]

        self.patch(user_switch, "ask", check)
        self.assertEqual(self.run_command("alice", "two")[0], 0)
        line = self.error("alice", "one")
        self.assertIn("shield edge: one is failing: it does not answer a check, so alice", line)

    def test_shield_of_an_older_version(self) -> None:
        """Its last check counts, and the command says so once."""

        def refuse(path: str, request: Any) -> Any:
            if "check" in request.arguments:
                raise ControlError("nodes: unknown argument 'check'; known are none")
            return self.ask(path, request)

        self.patch(user_switch, "ask", refuse)
        status, _, lines = self.run_command("alice", "two")
        self.assertEqual((status, lines.count("shield edge has an older version")), (0, 1), lines)
        self.backends["one"] = "down"
        self.assertIn("one is down", self.last_line("alice", "one"))

        def fail(path: str, request: Any) -> Any:
            raise ControlError("not all workers answer")

        self.patch(user_switch, "ask", fail)
        self.assertIn("shield edge: not all workers answer", self.last_line("alice", "one"))

    def test_node_that_fails_while_it_is_copied(self) -> None:
        """The shields are asked again right before the pause, which does not begin."""
        copy = TreeCopier.copy

        def fail(copier: TreeCopier, *arguments: Any, **options: Any) -> None:
            copy(copier, *arguments, **options)
            self.backends["two"] = "down"

        self.patch(TreeCopier, "copy", fail)
        self.assertIn("shield edge: two is down", self.last_line("alice", "two"))
        self.assertNotIn(("edge.control", "hold"), self.asked)
        self.assertEqual(self.dump("one"), self.before)

    def test_shield_that_has_another_node(self) -> None:
        """A user is moved when the shields say so; until then, the command fails, and goes on when it is repeated."""
        for node, text in (("one", "shield edge: has one for alice, and not two"), ("", "no node")):
            self.node_of_shield = node
            line = self.last_line("alice", "two")
            self.assertIn(text, line)
            self.assertIn("run the same command again", line)
        self.assertIn("accepted", self.run_command("--status")[1])
        self.node_of_shield = "two"
        self.assertIn("moved alice", self.run_command("alice", "two")[1])
        self.assertEqual(self.dump("two"), self.before)

    def test_shield_that_knows_no_node_without_a_password(self) -> None:
        self.node_of_shield = None
        self.assertEqual(self.run_command("alice", "two")[0], 0)

    def test_server_that_does_not_run(self) -> None:
        """That of the old node has nothing open; that of the new one must run. One that refuses ends the move."""
        gone = "two.control"

        def no_server(path: str, request: Any) -> None:
            if path == gone:
                raise NoServer(f"{path}: gone; is the server running? Try --control")

        self.patch(agent, "ask", no_server)
        line = self.error("alice", "two")
        self.assertIn("node two: its server does not answer; start it", line)
        self.assertTrue(line.endswith("(two.control: gone)\n"), line)
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])
        gone = "one.control"
        self.assertEqual(self.run_command("alice", "two")[0], 0)

        def refuse(path: str, request: Any) -> None:
            if request.command != "status":
                raise ControlError("connections of alice do not end")

        self.patch(agent, "ask", refuse)
        self.assertIn("do not end", self.last_line("alice", "one"))

    def test_unreadable_nodes_and_maps(self) -> None:
        self.write_nodes('switch-command = "false"')
        self.assertIn("switch-command: exit status 1", self.last_line("alice", "two"))
        self.write_nodes('switch-command = "true"')
        self.assertEqual(self.run_command("alice", "two")[0], 0)
        self.write_nodes('map = "/nowhere/map"')
        self.assertIn("/nowhere/map is not a file", self.error("alice", "one"))
        self.write_nodes('switch-command = "a"\nmap = "b"')
        self.assertIn("needs map or switch-command", self.error("alice", "one"))
        os.unlink(f"{self.base}/nodes.toml")
        self.assertIn("--nodes names the file", self.error("alice", "one"))
