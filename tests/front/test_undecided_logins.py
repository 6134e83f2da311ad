"""A backend that gets a password and does not decide: neither an outage nor a guesser gains anything from it."""

from __future__ import annotations

from base64 import b64encode

from imapshield import events
from imapshield.guard.login_failures import FREE_PAIRS
from imapshield.guard.process_guard import NO_NETWORKS
from imapshield.testing.in_process import Client
from tests.front.front_case import FrontCase
from tests.front.test_login import SCRAM, UNAVAILABLE


class UndecidedTests(FrontCase):
    limits = {"max_failed_pairs": 1, "max_login_failures": 1000, "max_login_delay_seconds": 0.1}

    def setUp(self) -> None:
        """Let nobody be trusted, also on this machine."""
        super().setUp()
        self.server.factory.shared.admission.guard.trusted = NO_NETWORKS

    def log_in_with(
        self, client: Client, password: bytes, answer: bytes, user: bytes = b"alice"
    ) -> bytes:
        """Return what a client gets whose login the backend answers so; without an answer the backend leaves."""
        links = len(self.links)
        received = client(b"a LOGIN %b %b" % (user, password))
        if len(self.links) > links:
            self.link.send(answer)
            if not self.link.ended:
                self.link.lose()
            received = client.read()
        return received

    def test_outage(self) -> None:
        """Devices that repeat their password while the backend fails do not count as guessers, however often."""
        for answer in (b"s1 NO [UNAVAILABLE] database\r\n", b"* BYE no service\r\n", b""):
            client = self.server.connect()
            for user in (b"alice", b"bob") * 40:
                received = self.log_in_with(client, b"secret", answer, user)
                self.assertEqual(received, b"a " + UNAVAILABLE)
            client.lose_connection()
        self.assertEqual(self.server.events_of(events.LoginFailed), [])
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.link.send(b"s1 OK in\r\n")
        self.assertEqual(client.read(), b"a OK in\r\n")

    def test_guesser_of_one_user(self) -> None:
        """Who sends many passwords of a user to a backend that says BYE to wrong ones is banned."""
        guesses = 0
        for guesses in range(100):
            client = self.server.connect()
            if b"BYE" in client.greeting or self.log_in_with(
                client, b"x%d" % guesses, b"* BYE no\r\n"
            ) != (b"a " + UNAVAILABLE):
                break
        self.assertEqual(guesses, FREE_PAIRS)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 1)

    def test_guesser_of_many_users(self) -> None:
        """Who tries one password of many users has the rate of guesses."""
        before = 0
        for number in range(200):
            client = self.server.connect()
            self.log_in_with(client, b"1234", b"s1 NO [UNAVAILABLE] no\r\n", b"user%d" % number)
            if len(self.links) == before:
                break
            before = len(self.links)
            client.lose_connection()
        self.assertLess(before, 30)
        reached = self.server.events_of(events.LimitTriggered)
        self.assertEqual({each.limit for each in reached}, {"network_logins_per_minute"})


class SilentClientTests(FrontCase):
    def test_client_that_does_not_answer_a_challenge(self) -> None:
        """A SCRAM client that never answers occupies the backend for the time of a login at most."""
        client = self.server.connect()
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        self.link.send(b"+ eA==\r\n")
        self.assertEqual(client.read(), b"+ eA==\r\n")
        self.clock.advance(self.server.factory.limits.backend_login_seconds)
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertTrue(self.link.ended)
        self.assertEqual((self.nodes.exchanges.running, self.backend.connections), ([], 0))
        self.assertIn(b"BAD", client(b64encode(b"too late")))
        self.assertIn(b"b OK", client(b"b NOOP"))
        client.lose_connection()
        self.assertEqual(self.server.events_of(events.LoginFailed), [])

    def test_backend_that_leaves_during_a_challenge(self) -> None:
        """The client is not asked any longer by a backend that has gone."""
        client = self.server.connect()
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        self.link.send(b"+ eA==\r\n")
        client.read()
        self.link.lose()
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertEqual(self.nodes.exchanges.running, [])
