"""`imapshield move`: its output, its errors, and which node and which move it finds."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from typing import Any
from unittest import mock

from imapshield import cli
from imapshield.control.request_lines import ControlError, NoServer
from imapshield.move import agent, copying, move_command, user_switch
from imapshield.move.journal import GIVEN_UP, new_entry
from imapshield.move.mover import Mover
from imapshield.move.nodes_file import Shield
from imapshield.move.places import MoveError
from tests.move.move_case import MoveCase, TreeCopier


class MoveCommandTests(MoveCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[str, str]] = []
        self.node_of_shield: str | None = "two"
        self.backends = {"one": "up", "two": "up"}
        self.write_nodes()
        self.write("users.map", "# users\nbob one\nAlice one\n")
        self.patch(move_command, "Copier", lambda *_: TreeCopier())
        for module in (agent, user_switch):
            self.patch(module, "ask", self.ask)

    def ask(self, path: str, request: Any) -> Any:
        self.asked.append((path, request.command))
        if request.command == "nodes":
            return [{"node": name, "state": state} for name, state in self.backends.items()]
        return {"node": self.node_of_shield} if request.command == "release" else True

    def write(self, name: str, text: str) -> str:
        path = f"{self.base}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def write_nodes(self, first: str = "") -> None:
        nodes = "".join(
            f'[nodes.{name}]\nmail-root = "{node.mail_root}"\ncontrol = "{name}.control"\n'
            for name, node in self.nodes.items()
        )
        first = first or f'map = "{self.base}/users.map"'
        shields = '[shields]\nedge = { control = "edge.control" }\n'
        self.write("nodes.toml", f"{first}\n{shields}{nodes}")

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        files = ("--nodes", f"{self.base}/nodes.toml", "--journal", f"{self.base}/journal")
        with mock.patch.multiple(sys, stdout=out, stderr=err):
            status = cli.main(["move", *arguments, *files])
        return status, out.getvalue(), err.getvalue()

    def error(self, *arguments: str) -> str:
        """Run a command that fails, and return its line."""
        status, out, err = self.run_command(*arguments)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        return err

    def test_move_and_status(self) -> None:
        """The command finds the node that has the mail, holds, changes the map, and says what it has done."""
        status, out, err = self.run_command("alice", "two")
        self.assertEqual(status, 0, err)
        self.assertRegex(
            out, r"moved alice from one to two in \d+\.\d s, with a pause of \d+\.\d\d s\n"
        )
        self.assertIn("files,", err)
        with open(f"{self.base}/users.map", encoding="utf-8") as file:
            self.assertEqual(file.read(), "# users\nbob one\nAlice two\n")
        could_log_in = [("edge.control", "nodes"), ("two.control", "status")]
        pause = [("edge.control", "hold"), ("one.control", "close-account")]
        asked = [*could_log_in, *could_log_in, *pause, ("edge.control", "release")]
        self.assertEqual(self.asked, asked)
        self.assertEqual(self.dump("two"), self.before)
        _, out, _ = self.run_command("--status")
        self.assertIn("alice  one   two  done", out)
        self.assertRegex(out, r"done +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n")
        _, out, _ = self.run_command("alice", "--status")
        self.assertIn("old copy on one: ", out)

    def test_again_collects(self) -> None:
        self.run_command("alice", "two")
        self.write("one/mail/alice/new/late.mx", "Subject: late\n\n")
        _, out, _ = self.run_command("alice", "two")
        self.assertEqual(out, "alice is on two already; collected 1 messages\n")
        _, out, _ = self.run_command("alice", "--collect")
        self.assertEqual(out, "collected 0 messages\n")

    def test_again_from_the_old_node(self) -> None:
        """A loop over the users of a node comes to those who were moved already: they stay as they are."""
        self.run_command("alice", "two")
        self.write("one/mail/alice/new/late.mx", "Subject: late\n\n")
        _, out, _ = self.run_command("alice", "two", "--from", "one")
        self.assertEqual(out, "alice is on two already; collected 1 messages\n")
        self.assertIn("done", self.run_command("--status")[1])

    def test_journal_that_is_wrong(self) -> None:
        """The nodes are asked before a move counts as done, and before another replaces it in the journal."""
        self.run_command("alice", "two")
        os.rename(self.maildir("two"), self.maildir("two") + "2")
        for arguments in ((), ("--from", "one")):
            self.assertIn("has", self.error("alice", "two", *arguments))
        self.assertIn("done", self.run_command("--status")[1])
        self.assertIn("one has no mail of bob", self.error("bob", "two", "--from", "one"))
        self.assertNotIn("bob", self.run_command("--status")[1])

    def test_late_mail_of_the_last_move(self) -> None:
        """Before the journal forgets a move, what is late of it is collected."""
        self.run_command("alice", "two")
        self.write("one/mail/alice/new/late.mx", "Subject: late\n\n")
        self.node_of_shield = "one"
        collected = []
        collect = Mover.collect
        self.patch(Mover, "collect", lambda mover: collected.append(collect(mover)))
        self.assertEqual(self.run_command("alice", "one")[0], 0)
        self.assertEqual(collected, [1, 0])
        self.assertIn(b"late.mx", self.dump("one")["content"])

    def test_node_that_was_taken_away(self) -> None:
        self.run_command("alice", "two")
        del self.nodes["one"]
        self.write_nodes()
        _, out, _ = self.run_command("alice", "two")
        self.assertEqual(out, "alice is on two already; collected 0 messages\n")

    def test_abort_of_a_move_whose_mail_is_elsewhere(self) -> None:
        """A move that cannot begin, because another one has taken the mail away, can be forgotten."""
        self.run_command("alice", "two")
        self.journal.write(new_entry("alice", "one", "two"))
        self.assertIn("`imapshield move alice --abort` forgets", self.error("alice", "two"))
        _, out, _ = self.run_command("alice", "--abort")
        self.assertEqual(out, "alice has no mail to move on one\n")
        self.assertEqual(self.dump("two"), self.before)
        self.assertIn("alice is on two already", self.run_command("alice", "two")[1])

    def test_delete_old(self) -> None:
        """Old copies are deleted when they are old enough, and nothing else is."""
        self.run_command("alice", "two")
        before = sorted(os.listdir(f"{self.base}/one/mail"))
        self.assertEqual(len(before), 2)
        kept = "and not 1 day; --days 0 deletes it now\n"
        self.assertIn(kept, self.run_command("alice", "--delete-old")[1])
        _, out, _ = self.run_command("alice", "--delete-old", "--days", "7")
        self.assertIn("and not 7 days; ", out)
        self.assertEqual(sorted(os.listdir(f"{self.base}/one/mail")), before)
        _, out, _ = self.run_command("alice", "--delete-old", "--days", "0")
        self.assertIn("deleted ", out)
        self.assertEqual(os.listdir(f"{self.base}/one/mail"), ["alice"])
        self.assertTrue(self.refuses("one"))
        self.assertEqual(self.dump("two"), self.before)

    def test_late_mail_is_not_deleted(self) -> None:
        """An agent that had the old Maildir open can deliver into the old copy: that is collected first."""
        self.run_command("alice", "two")
        (old,) = {*os.listdir(f"{self.base}/one/mail")} - {"alice"}
        self.write(f"one/mail/{old}/new/late.mx", "Subject: late\n\n")
        delete = ("alice", "--delete-old", "--days", "0")
        self.assertIn("has 1 messages that came after the move", self.error(*delete))
        os.rename(f"{self.base}/one/mail/{old}/imapshield.manifest", f"{self.base}/manifest")
        self.assertIn("that came after the move", self.error(*delete))
        os.rename(f"{self.base}/manifest", f"{self.base}/one/mail/{old}/imapshield.manifest")
        self.assertEqual(self.run_command("alice", "--collect")[1], "collected 1 messages\n")
        self.assertIn("deleted ", self.run_command(*delete)[1])
        self.assertIn(b"late.mx", self.dump("two")["content"])

    def test_interrupted_move_goes_on_and_is_not_deleted(self) -> None:
        def fail(*_: object) -> None:
            raise MoveError("no map")

        self.patch(user_switch.UserSwitch, "switch", fail)
        self.assertIn("run the same command again", self.last_line("alice", "two"))
        self.assertIn("is not done", self.error("alice", "--delete-old"))
        self.assertIn("is not done", self.error("alice", "one"))
        self.assertIn("belongs to two", self.error("alice", "--abort"))
        _, out, _ = self.run_command("--status")
        self.assertIn("`imapshield move alice two` goes on", out)
        with self.journal.locked("alice"):
            _, out, _ = self.run_command("--status")
        self.assertEqual(out.splitlines()[2:], ["the move of alice to two runs now"])

    def test_abort_after_the_end(self) -> None:
        self.run_command("alice", "two")
        text = "the move of alice from one to two is done; `imapshield move alice one` moves"
        self.assertIn(text, self.error("alice", "--abort"))

    def test_lost_journal(self) -> None:
        """If the journal is lost after the account was given up, the index of the old node says how to go on."""
        mover = self.mover()
        mover._prepare()
        mover._copy_until_short()
        mover._began = mover._clock()
        mover._give_up()
        entry = self.journal.read("alice")
        assert entry is not None
        self.assertEqual(entry.phase, GIVEN_UP)
        os.unlink(f"{self.base}/journal/alice.json")
        status, _, err = self.run_command("alice", "two")
        self.assertEqual(status, 0, err)
        self.assertEqual(self.dump("two"), self.before)

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

    def test_status_shows_earlier_moves(self) -> None:
        """All moves of the last days are listed, the last ones at the end, and at most some."""
        self.patch(move_command, "MAX_SHOWN", 2)
        for node in ("two", "one", "two"):
            self.node_of_shield = node
            self.assertEqual(self.run_command("alice", node)[0], 0)
        _, out, _ = self.run_command("--status")
        lines = out.splitlines()
        self.assertRegex(lines[1], "alice  two   one  done ")
        self.assertRegex(lines[2], "alice  one   two  done ")
        self.assertEqual(lines[3:], ["and 1 earlier ones: `imapshield move USER --status`"])

    def test_copy_of_a_lost_journal(self) -> None:
        """A copy that no move uses any more is listed, and deleted with the old ones; that of a move that goes on is not."""
        mover = self.mover()
        mover._prepare()
        mover._copy(is_last=False)
        self.assertNotIn("copy on", self.run_command("alice", "--status")[1])
        os.unlink(f"{self.base}/journal/alice.json")
        self.assertIn("unfinished copy on two: ", self.run_command("alice", "--status")[1])
        self.assertIn("deleted ", self.run_command("alice", "--delete-old", "--days", "0")[1])
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])

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

    def last_line(self, *arguments: str) -> str:
        return self.run_command(*arguments)[2].splitlines()[-1]

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

    def test_agent_answers_lines(self) -> None:
        """Over ssh, each request is a line, and an error is an answer."""
        node = self.nodes["one"]
        request = agent._request(node, "alice")
        lines = [
            json.dumps({**request, "side": side, "method": method, "arguments": []}).encode()
            for side, method in (
                ("source", "inspect"),
                ("source", "unlink"),
                ("server", ""),
                ("server", "check"),
            )
        ]
        answers = io.BytesIO()
        agent.serve(lines, answers)
        found = [json.loads(line) for line in answers.getvalue().splitlines()]
        self.assertTrue(found[0]["result"]["has_mail"])
        self.assertIn("unknown step 'unlink'", found[1]["error"])
        self.assertEqual(found[2:], [{"result": False}, {"result": None}])

    def test_remote_agent(self) -> None:
        """The other end is a process; one that is no imapshield is an error that says what to try."""
        command = [sys.executable, "-m", "imapshield", "move", "--agent"]
        remote = agent.RemoteAgent(self.nodes["one"], "alice", command)
        self.addCleanup(remote.close)
        self.assertTrue(remote.call("source", "inspect")["has_mail"])
        self.assertRaises(
            MoveError, remote.call, "target", "prepare", "m", 1 << 60, 1, 0, 0, (0, 0, 448)
        )
        other = agent.RemoteAgent(self.nodes["one"], "alice", ["false"])
        self.addCleanup(other.close)
        self.assertIn("over ssh", str(self.assertRaises(MoveError, other.call, "source", "mark")))


class ShieldOverSshTests(MoveCase):
    def test_hold_over_ssh(self) -> None:
        """A shield on another machine is asked with ssh, and its error is that of the command."""
        shield = Shield("edge", "/run/control", "root@edge")
        runs: list[list[str]] = []
        stdout = b'{"seconds": 12}'

        def run(command: list[str], **_: object) -> Any:
            runs.append(command)
            failed = "release" in command
            return mock.Mock(
                returncode=int(failed), stdout=stdout, stderr=b"imapshield: no map\n" * failed
            )

        self.patch(subprocess, "run", run)
        with copying.Ssh() as ssh:
            shields = user_switch.Shields([shield], "a b", ssh)
            shields.hold(12.0)
            error = self.assertRaises(MoveError, shields.release)
            stdout = b"a b: logins wait"
            self.assertIn("not JSON", str(self.assertRaises(MoveError, shields.hold, 12.0)))
        self.assertEqual(str(error), "shield edge: imapshield: no map")
        self.assertEqual(
            runs[0][-10:],
            [
                "root@edge",
                "--",
                "imapshield",
                "hold",
                "'a b'",
                "--json",
                "--control",
                "/run/control",
                "--seconds",
                "12.0",
            ],
        )
        self.assertEqual(runs[-1][-3:], ["-O", "exit", "root@edge"])
