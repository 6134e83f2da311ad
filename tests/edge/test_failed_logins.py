"""Failed logins are counted, answered late, and end in a ban; correct logins are never delayed."""

from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.sasl import challengers
from imapshield.edge import peer
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.events import AddressBanned, CommandFailed, ConnectionClosed, LoginFailed
from imapshield.guard.process_guard import ProcessGuard
from imapshield.testing.in_process import Client, Server
from tests.cred.test_sasl import TokenChecker

ATTACKER, OTHER = "127.0.0.9", "127.99.0.50"


class FailedLoginTests(SynchronousTestCase):
    """A server that trusts no network."""

    def setUp(self) -> None:
        self.start()

    def start(self, **limits: Any) -> None:
        self.server = Server(checker=self.checker(), max_login_failures=1000, **limits)
        factory = self.server.factory
        self.server.factory = ShieldedIMAP4Factory(
            factory.portal,
            limits=factory.limits,
            observers=factory.observers,
            reactor=self.server.clock,
            challengers=challengers([TokenChecker()]),
            guard=ProcessGuard(factory.limits, key=b"key"),
        )

    def checker(self) -> Any:
        users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret", bob=b"word")
        return CheckerChain([users, users, TokenChecker()])

    def guess(self, client: Client, count: int, first: int = 0) -> list[bytes]:
        """Try `count` different passwords, and return the answers that come at once."""
        return [client(b"a LOGIN alice wrong%d" % (first + i)) for i in range(count)]

    def test_third_wrong_password_is_answered_late(self) -> None:
        """The answer to the third different wrong password comes a second late, that to the fourth two seconds late."""
        client = self.server.connect(ATTACKER)
        for answer in self.guess(client, 2):
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", answer)
        for number, delay in ((2, 1), (3, 2)):
            self.assertEqual(self.guess(client, 1, number), [b""])
            self.server.clock.advance(delay - 0.1)
            self.assertEqual(client.read(), b"")
            self.server.clock.advance(0.1)
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", client.read())
        delays = [event.delay for event in self.server.events_of(LoginFailed)]
        self.assertEqual(delays, [0, 0, 1, 2])

    def test_correct_password_is_not_delayed(self) -> None:
        """A correct password is accepted at once, however many failed logins its address and its user have."""
        self.guess(self.server.connect(ATTACKER), 3)
        for host in (ATTACKER, OTHER):
            self.assertIn(b"a OK", self.server.connect(host)(b"a LOGIN alice secret"))

    def test_delay_blocks_no_other_connection(self) -> None:
        """While an answer is delayed, other connections of the same address are served; own commands wait."""
        client = self.server.connect(ATTACKER)
        self.guess(client, 3)
        self.assertEqual(client(b"b NOOP"), b"")
        self.assertIn(b"c OK", self.server.connect(ATTACKER)(b"c NOOP"))
        self.server.clock.advance(1)
        self.assertRegex(client.read(), rb"(?s)^a NO .*b OK ")

    def test_same_password_again_counts_once(self) -> None:
        """A device that repeats an old password is neither delayed nor banned; the event says that it is a repetition."""
        client = self.server.connect(ATTACKER)
        for _ in range(20):
            self.assertIn(b"a NO", client(b"a LOGIN alice old"))
        repeated = [event.repeated for event in self.server.events_of(LoginFailed)]
        self.assertEqual(repeated, [False] + [True] * 19)
        self.assertEqual(self.server.events_of(AddressBanned), [])

    def test_chain_of_checkers_counts_one_failure(self) -> None:
        """A wrong password that several checkers refuse is one failed login."""
        self.guess(self.server.connect(ATTACKER), 2)
        self.assertEqual(len(self.server.events_of(LoginFailed)), 2)

    def test_tenth_guess_bans(self) -> None:
        """The tenth different guess gets BYE, and the other connections of the address without a login are reset."""
        user = self.server.connect(ATTACKER)
        user(b"a LOGIN bob word")
        idle = self.server.connect(ATTACKER)
        for number in range(9):
            self.guess(self.server.connect(ATTACKER), 1, number)
        client = self.server.connect(ATTACKER)
        (answer,) = self.guess(client, 1, 9)
        self.assertRegex(answer, rb"^\* BYE [^\r]*\r\n$")
        self.assertTrue(client.transport.disconnecting)
        self.assertTrue(idle.transport.aborted)
        self.assertIn(b"b OK", user(b"b NOOP"))
        self.assertEqual([event.peer for event in self.server.events_of(AddressBanned)], [ATTACKER])
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_tokens_count_too(self) -> None:
        """Wrong bearer tokens count like wrong passwords."""
        client = self.server.connect(ATTACKER)
        for number in range(3):
            client(b"a AUTHENTICATE OAUTHBEARER")
            message = b"n,a=alice,\1auth=Bearer token%d\1\1" % number
            answer = client(_base64(message))
            if number < 2:
                self.assertIn(b"a NO", client(b"AQ=="))
        self.assertEqual(answer, b"")

    def test_client_that_disconnects_is_released(self) -> None:
        """A client that disconnects before its answer leaves nothing behind."""
        client = self.server.connect(ATTACKER)
        self.guess(client, 3)
        client.lose_connection()
        self.assertEqual(self.server.events_of(CommandFailed), [])
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_client_that_has_left_unnoticed_is_released(self) -> None:
        """A client that has left while nothing is read from it is released within two seconds."""
        client = self.server.connect(ATTACKER)
        self.guess(client, 3)
        self.server.clock.advance(1)
        self.guess(client, 1, 3)
        self.server.clock.advance(2)
        self.guess(client, 1, 4)
        self.patch(peer, "has_left", lambda transport: transport is client.transport)
        self.server.clock.advance(2)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_shutdown_does_not_wait(self) -> None:
        """A client whose answer is delayed gets BYE at shutdown."""
        client = self.server.connect(ATTACKER)
        self.guess(client, 3)
        self.server.factory.shutdown()
        self.assertIn(b"* BYE", client.read())
        client.lose_connection()
        self.assertEqual(len(self.server.events_of(ConnectionClosed)), 1)
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_report_only(self) -> None:
        """In report-only mode no answer is delayed and nobody is banned."""
        self.start(report_only=True)
        client = self.server.connect(ATTACKER)
        for answer in self.guess(client, 12):
            self.assertIn(b"a NO", answer)

    def test_user_who_is_known_comes_first(self) -> None:
        """The queue of password checks asks whether the user has logged in from the address before."""
        client = self.server.connect(ATTACKER)
        is_known = self.server.factory.guard.failures.is_known  # type: ignore[union-attr]
        self.assertFalse(is_known(ATTACKER, b"alice"))
        client(b"a LOGIN alice secret")
        self.assertTrue(client.protocol.shared.login_checks.is_known(ATTACKER, b"alice"))


def _base64(message: bytes) -> bytes:
    import base64

    return base64.b64encode(message)
