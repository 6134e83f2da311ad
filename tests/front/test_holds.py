"""A user who moves to another node: sessions end, logins wait, and nobody else notices."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from imapshield.control.request_lines import ControlError, Request
from imapshield.front.node_commands import NodeCommands
from tests.front.front_case import FrontCase
from tests.front.test_login import SCRAM, UNAVAILABLE

MOVED = b"* BYE [UNAVAILABLE] Your mail is being moved, connect again\r\n"


class HoldCase(FrontCase):
    def setUp(self) -> None:
        super().setUp()
        self.commands = NodeCommands(self.nodes)

    def ask(self, command: str, **arguments: Any) -> Deferred[Any]:
        """Return the answer of a command of the control socket."""
        handler = self.commands.handlers[command]
        result: Any = handler(Request(command, arguments))
        return Deferred.fromCoroutine(result)

    def hold(self, user: str = "alice", **arguments: Any) -> Deferred[Any]:
        """Begin to hold a user."""
        return self.ask("hold", user=user, **arguments)


class SessionTests(HoldCase):
    def test_idle_session_ends_at_once(self) -> None:
        """A session in which no command runs gets BYE, and the command returns when the node has ended it."""
        client = self.log_in()
        held = self.hold()
        self.assertEqual(client.read(), MOVED)
        self.assertEqual(self.link.received(), b"s LOGOUT\r\n")
        self.assertNoResult(held)
        self.link.lose()
        answer = self.successResultOf(held)
        self.assertEqual((answer["ended"], answer["cut"], answer["extended"]), (1, 0, False))

    def test_idle_command_is_no_obstacle(self) -> None:
        """A client in IDLE gets BYE at once; the node gets DONE first."""
        client = self.log_in()
        client(b"i IDLE")
        self.link.send(b"+ idling\r\n")
        self.link.received()
        held = self.hold()
        self.assertTrue(client.read().endswith(MOVED))
        self.assertEqual(self.link.received(), b"DONE\r\ns LOGOUT\r\n")
        self.link.lose()
        self.successResultOf(held)

    def test_idle_that_begins(self) -> None:
        """A client whose IDLE begins meanwhile gets BYE when the node has answered."""
        client = self.log_in()
        client(b"i IDLE")
        self.hold()
        self.assertEqual(client.read(), b"")
        self.link.send(b"+ idling\r\n")
        self.assertTrue(client.read().endswith(MOVED))

    def test_running_command_ends_first(self) -> None:
        """The client gets the response to its running command, and BYE after it; the next command is not begun."""
        client = self.log_in()
        client.send(b"a SELECT x\r\nb SELECT y\r\n")
        self.assertEqual(self.link.received(), b"a SELECT x\r\n")
        self.hold()
        self.link.send(b"* OK still here\r\n")
        self.assertEqual(client.read(), b"* OK still here\r\n")
        self.link.send(b"a OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n" + MOVED)
        self.assertEqual(self.link.received(), b"s LOGOUT\r\n")

    def test_commands_that_were_sent_together(self) -> None:
        """Commands that the node has got already are answered, and no further ones are sent."""
        client = self.log_in()
        client.send(b"".join(b"n%d NOOP\r\n" % number for number in range(40)))
        sent = self.link.received().count(b"NOOP")
        self.hold()
        for number in range(sent):
            self.assertEqual(client.read(), b"")
            self.link.send(b"n%d OK done\r\n" % number)
            self.assertIn(b"n%d OK done\r\n" % number, client.read())
        self.assertEqual(self.link.received(), b"s LOGOUT\r\n")

    def test_long_command_is_ended(self) -> None:
        """A command that takes longer than hold_command_seconds ends with BYE; one within a response is reset."""
        first, second = self.log_in(), self.log_in()
        first(b"a SEARCH TEXT x")
        second(b"b FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {100}\r\nhalf")
        held = self.hold()
        self.clock.advance(0.9)
        self.assertNoResult(held)
        self.clock.advance(0.1)
        answer = self.successResultOf(held)
        self.assertEqual((answer["ended"], answer["cut"]), (2, 2))
        self.assertEqual(first.read(), MOVED)
        self.assertTrue(second.transport.aborted)
        self.assertTrue(all(link.transport.aborted for link in self.links))

    def test_node_that_does_not_end_the_session(self) -> None:
        """A node that ignores LOGOUT is reset."""
        self.log_in()
        held = self.hold()
        self.clock.advance(1)
        self.assertTrue(self.link.ended)
        self.assertEqual(self.successResultOf(held)["ended"], 1)

    def test_others_go_on(self) -> None:
        """Sessions and logins of other users go on."""
        client = self.server.connect()
        client(b"l LOGIN bob secret")
        self.link.send(b"s1 OK done\r\n")
        client.read()
        self.successResultOf(self.hold())
        client(b"n NOOP")
        self.link.send(b"n OK done\r\n")
        self.assertEqual(client.read(), b"n OK done\r\n")

    def test_names_of_a_user(self) -> None:
        """Case does not matter, and a master user has a session of the user whose mail it reads."""
        client = self.server.connect()
        client(b"l LOGIN Alice*master secret")
        self.link.send(b"s1 OK done\r\n")
        client.read()
        self.hold("ALICE")
        self.assertEqual(client.read(), MOVED)


class LoginTests(HoldCase):
    def test_login_waits_until_the_release(self) -> None:
        """A login waits while its user is held, and goes on when the user is released."""
        self.successResultOf(self.hold())
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.assertEqual((client.read(), self.links), (b"", []))
        answer = self.successResultOf(self.ask("release", user="alice"))
        self.assertEqual(answer, {"user": "alice", "held": True, "node": "backend"})
        self.link.send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n")
        answer = self.successResultOf(self.ask("release", user="alice"))
        self.assertFalse(answer["held"])

    def test_scram_waits(self) -> None:
        """A login with SCRAM waits, too."""
        self.successResultOf(self.hold())
        client = self.server.connect()
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        self.assertEqual(self.links, [])
        self.ask("release", user="alice")
        self.assertEqual(len(self.links), 1)

    def test_login_that_is_on_its_way(self) -> None:
        """A login that the node accepts during the hold waits for the release, and logs in again."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        held = self.hold()
        self.assertNoResult(held)
        self.link.send(b"s1 OK done\r\n")
        self.assertTrue(self.link.ended)
        self.successResultOf(held)
        self.assertEqual(client.read(), b"")
        self.ask("release", user="alice")
        self.assertEqual(len(self.links), 2)
        self.link.send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n")

    def test_login_that_the_node_does_not_answer(self) -> None:
        """A login that hangs at the node is ended, and waits as all others."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        held = self.hold()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(held)["cut"], 1)
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)

    def test_connection_that_is_being_made(self) -> None:
        """A login whose connection is not made yet does not delay the hold, and waits for the release."""
        connecting: list[tuple[Any, Deferred[Any]]] = []

        def connect(factory: Any) -> Deferred[Any]:
            connecting.append((factory, Deferred()))
            return connecting[-1][1]

        self.backend._connect = connect
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.successResultOf(self.hold())
        self.backend._connect = self._connect
        factory, connected = connecting[0]
        self._connect(factory).chainDeferred(connected)
        self.assertTrue(self.links[0].ended)
        self.ask("release", user="alice")
        self.link.send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n")

    def test_names_that_are_no_user(self) -> None:
        """A name with a star stands for everybody, a domain, or a master user: it can be neither held nor released."""
        for user in ("*", "*admin", "*@example.org", "alice*admin"):
            for command in ("hold", "release"):
                error = self.failureResultOf(self.ask(command, user=user), ControlError).value
                self.assertEqual(str(error), f"{command}: name one user, without *")

    def test_hold_that_nobody_releases(self) -> None:
        """A hold ends by itself, and its logins go on."""
        self.successResultOf(self.hold(seconds=3))
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.clock.advance(3)
        self.assertEqual(len(self.links), 1)
        self.link.send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n")

    def test_hold_that_is_repeated(self) -> None:
        """A hold lasts longer if it is repeated, and says that it was not interrupted; a login waits once that long."""
        self.successResultOf(self.hold(seconds=3))
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.clock.advance(2)
        self.assertTrue(self.successResultOf(self.hold(seconds=3))["extended"])
        self.clock.advance(1)
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.clock.advance(2)
        self.assertFalse(self.successResultOf(self.hold(seconds=3))["extended"])

    def test_client_that_leaves(self) -> None:
        """A client that leaves waits no longer."""
        self.successResultOf(self.hold())
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        client.lose_connection()
        self.ask("release", user="alice")
        self.assertEqual(self.links, [])

    def test_holds_are_bounded(self) -> None:
        """There is a maximum number of users who are held."""
        for number in range(1000):
            self.hold(f"user{number}")
        self.failureResultOf(self.hold("one more"), ControlError)
        self.assertTrue(self.successResultOf(self.hold("user1"))["extended"])
        self.nodes.stop()
        self.assertEqual(len(self.nodes.holds), 0)


class BoundTests(HoldCase):
    limits = {"max_held_logins": 2}

    def test_logins_that_wait_are_bounded(self) -> None:
        """Of many logins of a held user, as many as max_held_logins wait; the others get an answer at once."""
        self.successResultOf(self.hold())
        clients = [self.server.connect() for _ in range(4)]
        answers = [client(b"a LOGIN alice secret") for client in clients]
        self.assertEqual(answers, [b"", b"", b"a " + UNAVAILABLE, b"a " + UNAVAILABLE])
