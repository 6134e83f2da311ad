"""`imapshield move`: its output, and which node and which move it finds."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any
from unittest import mock

from imapshield.move import agent, copying, move_command, user_switch
from imapshield.move.journal import GIVEN_UP, new_entry
from imapshield.move.mover import Mover
from imapshield.move.nodes_file import Shield
from imapshield.move.places import MoveError
from tests.move.command_case import MoveCommandCase
from tests.move.move_case import MoveCase


class MoveCommandTests(MoveCommandCase):
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
    def test_check_over_ssh(self) -> None:
        """A shield whose command does not know the option is asked for its last check."""
        runs: list[list[str]] = []

        def run(command: list[str], **_: object) -> Any:
            runs.append(command)
            is_unknown = "--check" in command
            error = b"usage: imapshield\nimapshield: unrecognized arguments: --check; usage: x\n"
            return mock.Mock(
                returncode=2 * is_unknown,
                stdout=b'[{"node": "two", "state": "up"}]',
                stderr=error * is_unknown,
            )

        self.patch(subprocess, "run", run)
        reports: list[str] = []
        with copying.Ssh() as ssh:
            shield = Shield("edge", "/run/control", "root@edge")
            shields = user_switch.Shields([shield], "alice", ssh, reports.append)
            shields.check("two")
            shields.check("two")
        asked = [run[-4:] for run in runs if "nodes" in run]
        last = ["nodes", "--json", "--control", "/run/control"]
        self.assertEqual(asked, [["--check", *last[1:]], last, last])
        self.assertEqual(len(reports), 1)

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
