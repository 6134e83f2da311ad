"""What observers keep of a connection is gone with it, also if something is reported after its end."""

from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.control.advisor import Advisor
from imapshield.control.end_history import EndHistory
from imapshield.control.work_meter import WorkMeter
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.guard.process_guard import ProcessGuard
from imapshield.testing.in_process import Client, Server
from tests.edge.test_login_checks import SlowChecker

GUESSER = "127.0.0.9"


class EndedConnectionTests(SynchronousTestCase):
    """The check of a password goes on when its client has left."""

    def setUp(self) -> None:
        clock, self.checker = Clock(), SlowChecker()
        self.history = EndHistory(lambda: 1_700_000_000 + clock.seconds())
        self.advisor, self.meter = Advisor(clock), WorkMeter(clock)
        observers: Any = [self.history, self.advisor, self.meter]
        self.server = Server(checker=self.checker, clock=clock, max_failed_pairs=1)
        factory = self.server.factory = ShieldedIMAP4Factory(
            self.server.factory.portal,
            limits=self.server.factory.limits,
            observers=[self.server.events.append, *observers],
            reactor=clock,
            guard=ProcessGuard(self.server.factory.limits, key=b"key"),
        )
        for observer in (self.advisor, self.meter):
            observer.start(factory)
            self.addCleanup(observer.stop)

    def leave(self) -> Client:
        """Return a client that has left while its password is checked."""
        client = self.server.connect(GUESSER)
        client(b"a LOGIN alice wrong")
        client.lose_connection()
        return client

    def assert_nothing_kept(self) -> None:
        """Check the tables whose keys are numbers of open connections."""
        tables = (
            *(self.history._explained, self.advisor._undecided, self.advisor._guests),
            self.meter._counted,
        )
        self.assertEqual([len(table) for table in tables], [0, 0, 0, 0])

    def test_ban(self) -> None:
        """A guesser that has left before it is banned: a botnet would otherwise fill the memory."""
        self.leave()
        self.checker.checks.pop()[1].errback(UnauthorizedLogin())
        (ban,) = self.server.events_of(events.AddressBanned)
        self.assertEqual((ban.peer, ban.connection), (GUESSER, 0))
        self.assert_nothing_kept()

    def test_limit(self) -> None:
        """A limit that is reached after the end counts at once, as one of a stranger."""
        self.leave()
        self.server.clock.advance(30)
        (reached,) = self.server.events_of(events.LimitTriggered)
        self.assertEqual((reached.limit, reached.connection), ("login_check_seconds", 0))
        self.assert_nothing_kept()
        self.assertEqual(self.advisor._peaks.limits["login_check_seconds"].strangers, 1)

    def test_internal_error(self) -> None:
        """An internal error after the end is found by its reference only."""
        self.leave().protocol.session_failed(Failure(RuntimeError("a bug")), "LOGIN")
        (failed,) = self.server.events_of(events.CommandFailed)
        self.assertEqual(failed.connection, 0)
        self.assertIsNotNone(self.history.of_reference(failed.reference))
        self.assert_nothing_kept()
