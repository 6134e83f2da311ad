"""`imapshield advise` tells what honest clients need from what strangers do, also over a restart."""

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.advise_command import show_advice
from imapshield.control import advisor
from imapshield.control.advisor import Advisor
from imapshield.control.request_lines import Request
from imapshield.testing.in_process import Server
from tests.state_case import Run

HERE = "192.0.2.7"


class AdvisorTests(SynchronousTestCase):
    def serve(self, **limits: Any) -> None:
        self.clock = Clock()
        self.advisor = Advisor(self.clock, lambda: 1_700_000_000 + self.clock.seconds())
        self.server = Server(clock=self.clock, observers=[self.advisor], **limits)
        self.advisor.start(self.server.factory)
        self.addCleanup(self.advisor.stop)

    def answer(self, **arguments: Any) -> dict[str, Any]:
        done = Deferred.fromCoroutine(self.advisor.advise(Request("advise", arguments)))
        return self.successResultOf(done)

    def limit(self, name: str) -> dict[str, Any]:
        return next(each for each in self.answer()["limits"] if each["limit"] == name)

    def text(self) -> str:
        return "\n".join(show_advice(self.answer()))

    def test_user_above_limits_before_login(self) -> None:
        """A client that sends more than the limits, and then logs in, is honest: its values are exact."""
        self.serve(report_only=True)
        client = self.server.connect()
        client.send(b"a NOOP\r\n" * 150 + b"b LOGIN alice secret\r\n")
        client.read()
        for name in ("backlog", "preauth_commands"):
            row = self.limit(name)
            self.assertEqual((row["reached"], row["strangers"]), (1, 0), name)
            self.assertEqual(row["clients"][0]["name"], "alice")
        self.assertEqual(self.limit("preauth_commands")["observed"], 151)
        text = self.text()
        self.assertIn("preauth_commands: reached by 1 honest connection of 1 client", text)
        self.assertIn("alice: 1 time, up to 151", text)
        self.assertIn("to set them: --backlog=130 --limit=preauth_commands=190", text)

    def test_strangers_are_counted_apart(self) -> None:
        """A flood of a stranger changes no maximum, and the answer says who it was."""
        self.serve(report_only=True)
        client = self.server.connect(HERE)
        client.send(b"a NOOP\r\n" * 150)
        client.read()
        client.lose_connection()
        row = self.limit("backlog")
        self.assertEqual((row["observed"], row["reached"], row["strangers"]), (0, 0, 1))
        self.assertIn(f"reached by strangers 1 time, most often by {HERE}", self.text())
        self.assertIn("nothing to set: no honest client needs another value so far", self.text())

    def test_address_of_users_is_honest(self) -> None:
        """A connection without a login counts if users log in from its address."""
        self.serve(report_only_limits=frozenset({"preauth_seconds"}))
        self.server.login()
        late = self.server.connect("127.0.0.1")
        self.clock.advance(61)
        late.lose_connection()
        row = self.limit("preauth_seconds")
        self.assertEqual((row["reached"], row["clients"][0]["name"]), (1, "127.0.0.1"))
        self.assertEqual((row["enforced"], row["at_least"]), (False, True))

    def test_what_a_user_does_after_the_login(self) -> None:
        """Idle time, invalid commands, connections and memory are measured."""
        self.serve(report_only=True)
        client = self.server.login()
        other = self.server.login()
        self.clock.advance(1700)
        client(b"a NOOP")
        for _ in range(7):
            client(b"a FETCH")
        client(b"a NOOP")
        client.send(b"a APPEND INBOX {20000}\r\n" + b"x" * 15000)
        client.read()
        self.clock.advance(1)
        other(b"a LOGOUT")
        client.lose_connection()
        for name, least, most in (
            *(("idle_seconds", 1700, 1700), ("max_bad_commands", 7, 7)),
            *(("max_user_bytes", 15000, 40000), ("max_memory_bytes", 15000, 40000)),
            *(("preauth_commands", 1, 1), ("max_preauth_per_address", 1, 1)),
        ):
            self.assertTrue(least <= self.limit(name)["observed"] <= most, name)

    def test_failed_logins(self) -> None:
        """The pairs and delays of an address are measured if users log in there."""
        self.serve(report_only=True)
        for address in (HERE, "127.0.0.1"):
            client = self.server.connect(address)
            client(b"a LOGIN alice wrong")
            client.lose_connection()
        self.assertEqual(self.limit("max_failed_pairs")["observed"], 0)
        self.server.login()
        event = events.LoginFailed(9, "127.0.0.1", "alice", "LOGIN", delay=4)
        self.advisor(event)
        self.assertEqual(self.limit("max_login_delay_seconds")["observed"], 4)

    def test_bans_of_addresses_and_limits_of_networks(self) -> None:
        """An enforced ban counts, and a limit of a wider network is scaled to that of one address."""
        self.serve(max_preauth_per_address=100)
        self.server.login()
        ban = events.AddressBanned(0, "127.0.0.1", "127.0.0.1/32", "max_failed_pairs", 10, 10, 600)
        wide = events.LimitTriggered(
            0, "127.0.0.1", "max_preauth_per_address", 300, 330, "reset", holder="127.0.0.1"
        )
        for event in (ban, wide):
            self.advisor(event)
        self.assertEqual(self.limit("max_failed_pairs")["reached"], 1)
        self.assertEqual(self.limit("max_preauth_per_address")["observed"], 110)
        self.assertIn("--report-only-limit max_preauth_per_address", self.text())
        self.assertIn("--report-only-limit max_failed_pairs", self.text())

    def test_no_more_connections_wait_for_a_decision_than_there_is_room(self) -> None:
        """A flood of connections that have reached a limit takes bounded memory."""
        self.patch(advisor, "MAX_UNDECIDED", 3)
        self.serve(report_only=True)
        for number in range(1, 11):
            self.advisor(events.LimitTriggered(number, HERE, "backlog", 100, 101, "none"))
        self.assertEqual(len(self.advisor._undecided), 3)
        self.assertEqual(self.limit("backlog")["strangers"], 7)

    def test_pauses_after_a_login_are_told_apart(self) -> None:
        """A client that flow control lets wait has reached no limit, and the answer says that this is not counted."""
        self.serve()
        client = self.server.login()
        self.advisor(events.LimitTriggered(1, HERE, "backlog", 100, 100, "paused", user="alice"))
        client(b"a NOOP")
        self.assertEqual(self.limit("backlog")["reached"], 0)
        self.assertIn("backlog: reading has paused 1 time, which is not counted", self.text())

    def test_quota_of_one_user(self) -> None:
        """A quota in the line of a user changes no advice about the limit."""
        self.serve()
        binding = "the line of alice in /etc/imapshield/users"
        self.advisor(
            events.LimitTriggered(
                1, HERE, "quota_bytes", 9, 10, "refused", user="alice", binding=binding
            )
        )
        self.assertNotIn("quota_bytes", [each["limit"] for each in self.answer()["limits"]])

    def test_forget(self) -> None:
        """An operator can begin again, such as after a change."""
        self.serve(report_only=True)
        self.server.login()
        self.assertEqual(self.answer(forget=True)["logins"], 1)
        self.assertEqual(self.answer()["logins"], 0)
        self.assertIsNotNone(self.advisor.changed())

    def test_restart_with_a_state_file(self) -> None:
        """What was observed is in the state file, without names, and a later run adds to it."""
        folder = self.mktemp()
        os.makedirs(folder)
        path = os.path.join(folder, "guard.sqlite")
        for run_number in (1, 2):
            self.serve(report_only=True)
            run = Run(None, 0.0)
            run.state._path = path
            run.state.on_peaks, run.state.changed_peaks = (
                self.advisor.restore,
                lambda stopping: self.advisor.changed(force=stopping),
            )
            run.state.start()
            client = self.server.connect()
            client.send(b"a NOOP\r\n" * 150 + b"b LOGIN alice secret\r\n")
            client.read()
            self.clock.advance(advisor.SAVE_SECONDS)
            run.advance(2)
            self.assertTrue(run.stop())
            row = self.limit("backlog")
            self.assertEqual(row["reached"], run_number)
            self.assertEqual([client["name"] for client in row["clients"]], ["alice"])
        self.assertEqual(self.answer()["logins"], 2)
        with open(path, "rb") as file:
            self.assertNotIn(b"alice", file.read())
