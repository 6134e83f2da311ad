"""The password checks of all connections are few, fair and bounded in time."""

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.cred.sasl import Bearer, IBearerToken
from imapshield.edge import peer
from imapshield.events import CommandFailed, LimitTriggered, LoggedIn, LoginFailed, LoginRefused
from imapshield.testing.in_process import Client, Server

FLOOD, HONEST = "127.0.0.9", "127.99.0.50"


@implementer(ICredentialsChecker)
class SlowChecker:
    """Answers when the test says so.

    Attributes:
        checks: the checks that have begun, as (credentials, Deferred of the result), oldest first.
    """

    credentialInterfaces = (IUsernamePassword, IBearerToken)

    def __init__(self) -> None:
        self.checks: list[tuple[Any, Deferred[bytes]]] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        """Begin a check."""
        result: Deferred[bytes] = Deferred()
        self.checks.append((credentials, result))
        return result

    def is_cached(self, credentials: Any) -> bool:
        """Return whether the password is "cached"."""
        return bool(credentials.password == b"cached")

    def answer(self, user: bytes) -> None:
        """Accept the password of the oldest check of `user`."""
        for index, (credentials, result) in enumerate(self.checks):
            if credentials.username == user:
                del self.checks[index]
                result.callback(user)
                return
        raise AssertionError(f"no check of {user!r}")

    @property
    def users(self) -> list[bytes]:
        """The users whose passwords are being checked."""
        return [credentials.username for credentials, _ in self.checks]


class LoginChecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.checker = SlowChecker()
        self.server = Server(checker=self.checker, max_login_checks=4)

    def flood(self, count: int = 40) -> list[Client]:
        """Connect `count` clients of one address, which all send a LOGIN."""
        clients = [self.server.connect(FLOOD) for _ in range(count)]
        for client in clients:
            client(b"a LOGIN mallory wrong")
        return clients

    def test_flood_of_one_address_leaves_places_to_others(self) -> None:
        """However many clients of one address wait for a check, that of another address begins at once."""
        self.flood()
        self.assertEqual(self.checker.users, [b"mallory"])
        honest = self.server.connect(HONEST)
        honest(b"a LOGIN alice secret")
        self.checker.answer(b"alice")
        self.assertIn(b"a OK", honest.read())

    def test_next_check_begins_when_one_has_ended(self) -> None:
        """When a check has ended, another begins: as often as clients wait."""
        clients = self.flood(3)
        for client in clients:
            self.checker.checks.pop()[1].errback(UnauthorizedLogin())
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", client.read())
        self.assertEqual(self.checker.users, [])

    def test_wait_is_bounded(self) -> None:
        """A login that waits too long is NO [UNAVAILABLE], and one event names the holder of the checks."""
        for number in range(4):
            self.server.connect(f"127.0.{number * 8}.9")(b"a LOGIN mallory wrong")
        client = self.server.connect(HONEST)
        client(b"a LOGIN alice secret")
        self.server.clock.advance(5)
        self.flood()
        self.server.clock.advance(15)
        self.assertIn(b"a NO [UNAVAILABLE]", client.read())
        (event,) = self.server.events_of(LimitTriggered)
        self.assertEqual((event.limit, event.action), ("login_queue_seconds", "refused"))
        self.assertEqual((event.value, event.observed), (20, 20))
        self.assertEqual((event.peer, event.holder), (HONEST, FLOOD))
        self.assertIn(b"b OK", client(b"b NOOP"))

    def test_checker_that_never_answers(self) -> None:
        """A check that takes too long is NO [UNAVAILABLE] and gives its place to the next; a late success is undone."""
        first, second = self.flood(2)
        self.server.clock.advance(19)
        self.server.clock.advance(11)
        self.assertIn(b"a NO [UNAVAILABLE]", first.read())
        self.assertIn(b"a NO [UNAVAILABLE]", second.read())
        third = self.server.connect(FLOOD)
        third(b"a LOGIN alice secret")
        self.assertEqual(self.checker.users, [b"mallory", b"alice"])
        self.checker.answer(b"mallory")
        self.assertNotIn(b"OK", first.read())
        self.assertEqual(self.server.realm.account(b"mallory").sessions, 0)
        self.assertEqual(self.server.events_of(LoggedIn), [])
        limits = [event.limit for event in self.server.events_of(LimitTriggered)]
        self.assertEqual(limits, ["login_queue_seconds", "login_check_seconds"])

    def test_report_only(self) -> None:
        """With report-only limits, logins wait as long as it takes; each is reported once."""
        only = frozenset({"login_queue_seconds", "login_check_seconds"})
        self.server = Server(checker=self.checker, max_login_checks=4, report_only_limits=only)
        first, second = self.flood(2)
        self.server.clock.advance(40)
        for client in (first, second):
            self.checker.answer(b"mallory")
            self.assertIn(b"a OK", client.read())
        reported = {(event.limit, event.action) for event in self.server.events_of(LimitTriggered)}
        self.assertEqual(reported, {(limit, "none") for limit in only})

    def test_late_failure_is_not_an_error(self) -> None:
        """A checker that fails after its time causes no unhandled error."""
        self.flood(1)
        self.server.clock.advance(30)
        self.checker.checks.pop()[1].errback(UnauthorizedLogin())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_disconnected_client_gives_up_its_turn(self) -> None:
        """No password is checked for a client that has disconnected while it waited."""
        first, second, third = self.flood(3)
        second.lose_connection()
        self.checker.answer(b"mallory")
        first.read()
        self.assertEqual(len(self.checker.checks), 1)
        self.checker.answer(b"mallory")
        self.assertIn(b"a OK", third.read())
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_client_that_has_left_unnoticed_gives_up_its_turn(self) -> None:
        """If the reactor has not noticed that a client has left, because it reads nothing, no password is checked."""
        first, second, _ = self.flood(3)
        self.patch(peer, "has_left", lambda transport: transport is second.transport)
        self.checker.answer(b"mallory")
        first.read()
        self.assertTrue(second.transport.aborted)
        self.assertEqual(len(self.checker.checks), 1)
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_shutdown_does_not_wait(self) -> None:
        """At shutdown clients that wait get BYE, and no further check begins."""
        clients = self.flood(3)
        self.server.factory.shutdown()
        self.checker.answer(b"mallory")
        for client in clients:
            self.assertIn(b"* BYE", client.read())
        self.assertEqual(self.checker.checks, [])

    def test_checker_that_raises_loses_no_place(self) -> None:
        """The place of a check is free again if the call of the checker raises."""
        for _ in range(9):
            client = self.server.connect(FLOOD)
            self.patch(client.protocol, "authenticateLogin", self.raise_error)
            client(b"a LOGIN alice secret")
        self.assertEqual(len(self.server.events_of(CommandFailed)), 9)

    def raise_error(self, user: bytes, password: bytes) -> None:
        raise RuntimeError("bug in a checker")

    def test_cached_password_does_not_wait(self) -> None:
        """A correct password that the checker has cached is accepted without a turn."""
        self.server = Server(checker=CheckerChain([self.checker]), max_login_checks=4)
        self.flood()
        client = self.server.connect(FLOOD)
        client(b"a LOGIN alice cached")
        self.checker.answer(b"alice")
        self.assertIn(b"a OK", client.read())

    def test_bearer_tokens_wait_too(self) -> None:
        """Tokens are checked in turn, like passwords."""
        self.server.factory.challengers = {b"OAUTHBEARER": Bearer}
        for _ in range(3):
            client = self.server.connect(FLOOD)
            client(b"a AUTHENTICATE OAUTHBEARER")
            client(b"bixhPWFsaWNlLAFhdXRoPUJlYXJlciB0b2tlbgEB")
        self.assertEqual(self.checker.users, [b"alice"])

    def test_client_that_left_during_its_check_is_not_reported(self) -> None:
        """A check that cannot be decided after its client has left is reported neither as refused nor as failed."""
        (client,) = self.flood(1)
        client.lose_connection()
        self.checker.checks.pop()[1].errback(CheckerUnavailable())
        kinds = {type(event) for event in self.server.events}
        self.assertFalse(kinds & {LoginRefused, LoginFailed, CommandFailed}, kinds)
