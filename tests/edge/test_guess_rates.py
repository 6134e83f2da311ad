"""Guessers who hang up, or have many addresses, are slowed before their passwords are looked at."""

import base64
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.cred.sasl import Scram, ScramChecker, challengers
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.events import AddressBanned, LimitTriggered, LoginFailed
from imapshield.guard.process_guard import ProcessGuard
from imapshield.testing.in_process import Client, Server
from tests.edge.test_login_checks import SlowChecker

OTHER = "127.99.0.50"
USERS = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret", bob=b"word")


class GuessRateTests(SynchronousTestCase):
    """A server that trusts no network."""

    def setUp(self) -> None:
        self.start(USERS)

    def start(self, *checkers: Any, **limits: Any) -> None:
        checker = CheckerChain([*checkers, ScramChecker(lambda _user: None)])
        self.server = Server(checker=checker, **limits)
        factory = self.server.factory
        self.server.factory = ShieldedIMAP4Factory(
            factory.portal,
            limits=factory.limits,
            observers=factory.observers,
            reactor=self.server.clock,
            challengers=challengers(checker.checkers),
            guard=ProcessGuard(factory.limits, key=b"key"),
        )

    def guess(self, host: str, number: int) -> Client:
        """Send a wrong password, and do not wait for the answer."""
        client = self.server.connect(host)
        client(b"a LOGIN alice wrong%d" % number)
        return client

    def test_guesser_who_hangs_up_is_slowed(self) -> None:
        """Of a /26 that sends each guess on a new connection and hangs up, 38 are looked at; then not even the right one."""
        for n in range(100):
            self.guess(f"127.0.0.{n % 60}", n).lose_connection()
        self.assertEqual(len(self.server.events_of(LoginFailed)), 38)
        answer = self.server.connect("127.0.0.61")(b"a LOGIN alice secret")
        self.assertIn(b"a NO [UNAVAILABLE] Too many failed logins of your network", answer)
        reached = self.server.events_of(LimitTriggered)
        self.assertEqual(
            {(event.limit, event.action) for event in reached},
            {("network_logins_per_minute", "refused")},
        )
        self.assertIn(b"a OK", self.server.connect(OTHER)(b"a LOGIN alice secret"))
        self.server.clock.advance(20)
        answer = self.server.connect("127.0.0.62")(b"a LOGIN alice secret")
        self.assertIn(b"a OK", answer)

    def test_known_user_in_the_network_of_a_guesser(self) -> None:
        """A user who has logged in from an address before is not refused there because of guesses of its network."""
        self.server.connect("127.0.0.61")(b"a LOGIN alice secret")
        for n in range(60):
            self.guess(f"127.0.0.{n}", n)
        self.assertIn(b"a OK", self.server.connect("127.0.0.61")(b"a LOGIN alice secret"))
        answer = self.server.connect("127.0.0.61")(b"a LOGIN bob word")
        self.assertIn(b"a NO [UNAVAILABLE]", answer)

    def test_rate_is_only_reported(self) -> None:
        """With `report_only_limits` every guess of a network is looked at, and each above the rate is reported once."""
        self.start(USERS, report_only_limits=frozenset(["network_logins_per_minute"]))
        for n in range(50):
            self.guess(f"127.0.0.{n}", n)
        self.assertEqual(len(self.server.events_of(LoginFailed)), 50)
        reached = self.server.events_of(LimitTriggered)
        self.assertEqual([event.action for event in reached], ["none"] * 12)

    def test_successes_use_no_rate_up(self) -> None:
        """Any number of new users of a network can log in."""
        for n in range(200):
            host = f"127.0.0.{n % 60}"
            self.assertIn(b"a OK", self.server.connect(host)(b"a LOGIN alice secret"))

    def test_repeated_password_uses_no_rate_up(self) -> None:
        """A phone with an old password and a new address for each poll uses up nothing after the first poll."""
        for n in range(200):
            answer = self.server.connect(f"127.0.0.{n % 60}")(b"a LOGIN alice old")
            self.assertNotIn(b"UNAVAILABLE", answer)
        self.assertIn(b"a OK", self.server.connect("127.0.0.61")(b"a LOGIN alice secret"))

    def test_scram_is_refused_before_the_proof(self) -> None:
        """A SCRAM proof above the rate is not verified: a correct one gets the answer of a wrong one."""
        for n in range(60):
            self.guess(f"127.0.0.{n}", n)
        verified: list[bytes] = []
        self.patch(Scram, "_client_final", lambda _self, message: verified.append(message))
        client = self.server.connect("127.0.0.61")
        client(b"a AUTHENTICATE SCRAM-SHA-256")
        client(base64.b64encode(b"n,,n=bob,r=nonce"))
        self.assertIn(b"a NO [UNAVAILABLE]", client(base64.b64encode(b"c=biws,r=x,p=x")))
        self.assertEqual(verified, [])

    def test_checks_without_a_result_use_nothing_up(self) -> None:
        """Logins that the checker could not check, because of an error or in time, do not count."""
        slow = SlowChecker()
        self.start(slow, network_logins_per_minute=0.01)
        for n in range(100):
            client = self.server.connect(f"127.0.0.{n % 60}")
            client(b"a LOGIN alice secret")
            if n % 2:
                slow.checks.pop()[1].errback(CheckerUnavailable())
            else:
                self.server.clock.advance(30)
            self.assertIn(b"a NO [UNAVAILABLE] Cannot check", client.read())

    def test_parallel_guesses_of_one_address(self) -> None:
        """Of thirty guesses that wait for their checks at the same time, at most eleven are looked at before the ban.

        One may be in progress when another one bans. That is so for an address of many users, too.
        """
        for users in (0, 5):
            slow = SlowChecker()
            self.start(slow)
            for n in range(users):
                self.server.factory.guard.failures.succeeded(  # type: ignore[union-attr]
                    "127.0.0.9", b"user%d" % n, 0.0
                )
            clients = [self.guess("127.0.0.9", n) for n in range(30)]
            looked_at = 0
            while slow.checks:
                slow.checks.pop(0)[1].errback(UnauthorizedLogin())
                looked_at += 1
                for client in clients:
                    client.read()
            self.assertEqual(looked_at, 11)
            self.assertEqual(len(self.server.events_of(AddressBanned)), 1)
