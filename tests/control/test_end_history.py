"""`imapshield why` knows why each connection has ended, and a flood makes it forget nobody."""

from dataclasses import fields
from sys import getsizeof
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.control import end_history
from imapshield.control.end_history import End, EndHistory
from imapshield.control.request_lines import ControlError, Request
from imapshield.operator_commands import _show_why
from imapshield.testing.in_process import Server


class EndHistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = 1_700_000_000.0
        self.history = EndHistory(lambda: self.time)
        self.server = Server(observers=[self.history], max_bad_commands=3, preauth_seconds=60)

    def why(self, who: str = "") -> list[dict[str, Any]]:
        answer = Deferred.fromCoroutine(self.history.why(Request("why", {"who": who})))
        found = self.successResultOf(answer)
        return list(found.get("ends") or found["networks"])

    def end(self, *, user: bool = False) -> tuple[str, str, tuple[str, ...]]:
        """End all connections, and return cause, action and last commands of the last end."""
        for connection in list(self.server.factory.connections):
            connection.connectionLost(Failure(ConnectionDone()))
        (end, *_) = self.why("alice" if user else "192.0.2.7")
        return end["cause"], end["action"], tuple(end["commands"])

    def test_ways_to_end_with_a_login(self) -> None:
        """A logout, a client that leaves, and invalid commands are told apart, with the last commands."""
        self.server.login()(b"a LOGOUT")
        self.assertEqual(self.end(user=True), ("logged out", "", ("LOGIN", "LOGOUT")))
        self.time += 1
        client = self.server.login()
        for name in (b"NOOP", b"CAPABILITY", b"NAMESPACE"):
            client(b"a " + name)
        self.assertEqual(
            self.end(user=True), ("closed by the client", "", ("NOOP", "CAPABILITY", "NAMESPACE"))
        )
        self.time += 1
        client = self.server.login()
        for _ in range(3):
            client(b"a FETCH")
        self.assertEqual(self.end(user=True)[:2], ("max_bad_commands", "bye"))

    def test_ways_to_end_without_a_login(self) -> None:
        """A flood, a timeout and a client that leaves are told apart, with the limit and the option that changes it."""
        self.server.connect("192.0.2.7").send(b"a NOOP\r\n" * 101)
        self.assertEqual(self.end()[:2], ("backlog", "reset"))
        (flood,) = self.why("192.0.2.7")
        values = flood["value"], flood["observed"], flood["setting"]
        self.assertEqual(values, (100, 101, "--backlog=N,--limit=preauth_commands=N"))
        self.time += 1
        self.server.connect("192.0.2.7")
        self.server.clock.advance(60)
        self.assertEqual(self.end()[:2], ("preauth_seconds", "bye"))
        self.time += 1
        self.server.connect("192.0.2.7")
        self.assertEqual(self.end()[:2], ("closed by the client", ""))

    def test_shutdown(self) -> None:
        """The connections that the server closes when it stops have ended for that reason."""
        self.server.connect("192.0.2.7")
        self.server.factory.shutdown()
        self.assertEqual(self.end()[:2], ("Server is shutting down", "bye"))

    def test_internal_error_is_found_by_its_reference(self) -> None:
        """The reference in the answer to a command that failed finds the error."""
        self.history(events.CommandFailed(7, "192.0.2.7", "0123abcd", "FETCH", "Traceback"))
        (error,) = self.why("0123abcd")
        self.assertEqual((error["cause"], error["connection"]), ("internal error in FETCH", 7))

    def test_bans_refusals_and_failures_of_tls(self) -> None:
        """What ends a connection before it is one is in the history, too."""
        for event, cause in (
            (
                events.AddressBanned(0, "192.0.2.7", "192.0.2.7/32", "backlog", 10, 10, 600),
                "banned: backlog",
            ),
            (events.ConnectionsRefused(0, "192.0.2.7/32", 12, 60), "banned"),
            (events.LoginFailed(0, "192.0.2.7", "x", "LOGIN"), "login failed"),
            (events.LoginRefused(0, "192.0.2.7", "x", "LOGIN", "no-tls"), "login refused: no-tls"),
            (events.ProxyHeaderRejected(0, "192.0.2.7", "no header"), "no header"),
            (events.TLSFailed(0, "192.0.2.7", "old version"), "old version"),
            (
                events.LimitTriggered(0, "192.0.2.7", "max_connections", 9, 10, "refused"),
                "max_connections",
            ),
        ):
            self.time += 1
            self.history(event)
            self.assertEqual(self.end()[0], cause)

    def test_repeated_ends_are_one_entry(self) -> None:
        """A thousand floods are one entry with a count and two times."""
        for _ in range(1000):
            self.history.add(End("backlog", "reset", "192.0.2.7"))
            self.time += 1
        (entry,) = self.why("192.0.2.7")
        self.assertEqual((entry["count"], entry["last"] - entry["first"]), (1000, 999))

    def test_flood_from_one_network_does_not_erase_others(self) -> None:
        """The addresses of a network that floods take their share of the table, and the network has one entry."""
        self.history.add(End("preauth_seconds", "bye", "198.51.100.1"))
        self.history.add(End("closed", "", "203.0.113.9", user="alice"))
        for number in range(2000):
            address = f"192.0.{number // 250}.{number % 250}"
            self.history.add(End("backlog", "reset", address))
        self.assertEqual(
            len(self.history.of_network((4, 21, (192 << 24) >> 11))), end_history.MAX_OF_NETWORK
        )
        self.assertEqual(self.why()[0]["count"], 2000)
        self.assertEqual(self.why()[0]["network"], "192.0.0.0/21")
        self.assertEqual(len(self.why("198.51.100.1")), 1)
        self.assertEqual(len(self.why("alice")), 1)

    def test_an_address_of_which_nothing_is_known(self) -> None:
        """The answer is about its network, and says so: nobody bans an innocent host for what its neighbours did."""
        for number in range(40):
            self.history.add(End("backlog", "reset", f"192.0.2.{number}"))
        answer = self.successResultOf(
            Deferred.fromCoroutine(self.history.why(Request("why", {"who": "192.0.7.249"})))
        )
        self.assertEqual((answer["unknown"], answer["networks"][0]["count"]), ("192.0.7.249", 40))
        lines = list(_show_why(answer))
        self.assertEqual(lines[0], "nothing known of 192.0.7.249; of its network 192.0.0.0/21:")
        self.assertIn("network 192.0.0.0/21, last 192.0.2.39", lines[2])
        self.assertNotIn("unknown", self.why("192.0.2.7")[0])

    def test_flood_from_everywhere_does_not_erase_users(self) -> None:
        """However many addresses come, the table of addresses is bounded and that of users keeps its entries."""
        self.patch(end_history, "MAX_ADDRESSES", 50)
        history = EndHistory(lambda: self.time)
        history.add(End("closed", "", "203.0.113.9", user="alice"))
        for number in range(500):
            self.time += 1
            history.add(End("backlog", "reset", f"10.{number // 250}.{number % 250}.1"))
        self.assertEqual(len(history.of_user("alice")), 1)
        self.assertEqual(len(history.of_network((4, 8, 10))), 50)

    def test_failed_logins_of_a_user(self) -> None:
        """`why USER` has the failures of the user's own devices and those of others apart, during a flood, too."""
        self.patch(end_history, "MAX_UNKNOWN_NAMES", 20)
        self.history = EndHistory(lambda: self.time)
        self.history(events.LoggedIn(1, "192.0.2.7", "alice", "LOGIN", True))
        self.history.add(End("idle_seconds", "bye", "192.0.2.7", user="alice"))
        self.history(events.LoginFailed(0, "192.0.2.9", "Alice", "LOGIN"))
        for number in range(5000):
            self.time += 1
            address = f"10.{number // 250}.{number % 250}.1"
            self.history(events.LoginFailed(0, address, "alice", "LOGIN"))
            self.history(events.LoginFailed(0, address, f"name{number}", "LOGIN"))
        found = {(end["cause"], end["detail"]): end["count"] for end in self.why("alice")}
        self.assertEqual(
            found,
            {
                ("idle_seconds", ""): 1,
                ("login failed", "as Alice, where the user logs in"): 1,
                ("login failed", "as alice, where the user has not logged in"): 5000,
            },
        )
        (unknown,) = self.why("name4999")
        self.assertEqual(
            unknown["detail"], "as name4999, a name with which nobody has logged in since the start"
        )
        self.assertEqual(len(self.history._unknown), 20)

    def test_failed_login_of_a_disabled_user(self) -> None:
        """`why` says that the user is disabled, so that nobody looks for a wrong password."""
        for _ in range(2):
            event = events.LoginFailed(0, "192.0.2.9", "Bob", "LOGIN", is_disabled=True)
            self.history(event)
        (end,) = self.why("bob")
        self.assertEqual((end["detail"], end["count"]), ("as Bob, a disabled user", 2))

    def test_logins_that_a_node_refuses(self) -> None:
        """`why USER` has the logins that were refused because a node cannot be used, with its name."""
        self.history(events.LoggedIn(1, "192.0.2.7", "alice", "LOGIN", True))
        for _ in range(3):
            event = events.LoginRefused(0, "192.0.2.7", "Alice", "LOGIN", "unavailable", "mail1")
            self.history(event)
        self.history(events.LoginFailed(0, "192.0.2.7", "alice", "LOGIN"))
        self.history(events.LoginRefused(0, "192.0.2.7", "", "LOGIN", "no-tls"))
        found = {(end["cause"], end["detail"]): end["count"] for end in self.why("alice")}
        where = "where the user logs in"
        self.assertEqual(
            found,
            {
                ("login refused: unavailable", f"as Alice, {where}, node mail1"): 3,
                ("login failed", f"as alice, {where}"): 1,
            },
        )

    def test_networks_of_a_user_are_bounded(self) -> None:
        """Of a user who travels, the networks of the last logins are kept."""
        for number in range(10):
            self.history(events.LoggedIn(1, f"192.0.{8 * number}.7", "alice", "LOGIN", True))
        places = self.history._places.get("alice")
        assert places is not None
        self.assertEqual(len(places[1]), end_history.PLACES)

    def test_memory(self) -> None:
        """Full tables take at most 32 MB with the longest texts that events have."""
        peer, user, detail, commands = "x" * 40, "x" * 64, "x" * 120, ("x" * 20,) * 3
        end = End("backlog", "reset", peer, user, 1.5, 2.5, "", 1 << 40, commands, detail)
        size = getsizeof(end) + sum(map(getsizeof, (peer, user, detail, commands))) + 5 * 32
        entry = size + getsizeof(("", "")) + 200  # of the dict and the heap
        entries = end_history.MAX_USERS + end_history.MAX_ADDRESSES + end_history.MAX_NETWORKS
        entries += end_history.MAX_PLACES + end_history.MAX_UNKNOWN_NAMES
        network = 4, 21, 1 << 20
        places = 0.5, (network,) * end_history.PLACES
        place = sum(map(getsizeof, (user, places, *places))) + 4 * getsizeof(network) + 4 * 28 + 200
        self.assertLess(entry * entries + place * end_history.MAX_PLACES, 32_000_000)
        self.assertEqual(len(fields(End)), 13)

    def test_unknown(self) -> None:
        """What is not known is an error that says what to type."""
        answer = Deferred.fromCoroutine(self.history.why(Request("why", {"who": "nobody"})))
        error = self.failureResultOf(answer, ControlError).value
        self.assertIn("`imapshield why`", str(error))
