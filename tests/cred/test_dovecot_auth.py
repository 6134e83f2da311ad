"""A running Dovecot checks passwords over its authentication socket."""

import base64
import re
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from imapshield.auth_option import make_checker
from imapshield.config import ConfigError
from imapshield.cred import dovecot_auth
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.cred.dovecot_auth import TIMEOUT_SECONDS, DovecotAuth

GREETING = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t7\nCUID\t1\nCOOKIE\tab\nDONE\n"


class FakeDovecot:
    """An endpoint whose other side is played by the test."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.connections = 0
        self.transport = StringTransport()
        self.protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.error is not None:
            return fail(self.error)
        self.connections += 1
        self.transport = StringTransport()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)

    def says(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def heard(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data


class DovecotAuthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.dovecot = Clock(), FakeDovecot()
        self.checker = DovecotAuth("/auth", reactor=self.clock, endpoint=self.dovecot)
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def ask(self, user: bytes = b"Alice", password: bytes = b"secret") -> Deferred[bytes]:
        return self.checker.requestAvatarId(UsernamePassword(user, password))

    def asked(self) -> Deferred[bytes]:
        """Return the result of a request that Dovecot has received."""
        result = self.ask()
        if self.dovecot.connections == 1 and b"VERSION" in self.dovecot.heard():
            self.dovecot.says(GREETING)
        return result

    def test_dovecot_gets_the_password_and_returns_the_name(self) -> None:
        """The request follows the handshake and has the password; the name is the one that Dovecot returns."""
        verifyObject(ICredentialsChecker, self.checker)
        result = self.ask()
        self.assertRegex(self.dovecot.heard(), rb"^VERSION\t1\t1\nCPID\t\d+\n$")
        self.dovecot.says(GREETING)
        match = re.fullmatch(
            rb"AUTH\t1\tPLAIN\tservice=imap\t.*\tresp=(\S+)\n", self.dovecot.heard()
        )
        assert match is not None
        self.assertEqual(base64.b64decode(match[1]), b"\0Alice\0secret")
        self.assertNoResult(result)
        self.dovecot.says(b"OK\t1\tuser=alice\t\n")
        self.assertEqual(self.successResultOf(result), b"alice")

    def test_answers_come_in_any_order(self) -> None:
        """Several requests share one connection, and each gets its own answer."""
        first, second = self.asked(), self.asked()
        self.dovecot.says(b"OK\t9\tuser=x\nOK\t2\tuser=bo\x01tb\nFAIL\t1\tuser=alice\n")
        self.assertEqual(self.successResultOf(second), b"bo\tb")
        self.failureResultOf(first, UnauthorizedLogin)
        self.assertEqual(self.dovecot.connections, 1)

    def test_refusals(self) -> None:
        """A user who may not log in is refused. A temporary failure is no wrong password."""
        for number, (answer, error) in enumerate(
            (
                (b"FAIL\t%d\tuser=a\tuser_disabled", UnauthorizedLogin),
                (b"OK\t%d\tuser=a\tnologin", UnauthorizedLogin),
                (b"OK\t%d\tuser=a\tproxy=y", UnauthorizedLogin),
                (b"OK\t%d", UnauthorizedLogin),
                (b"CONT\t%d\t", UnauthorizedLogin),
                (b"FAIL\t%d\tuser=a\ttemp", CheckerUnavailable),
            ),
            1,
        ):
            result = self.asked()
            self.dovecot.says(answer % number + b"\n")
            self.failureResultOf(result, error)

    def test_a_lost_connection_is_no_wrong_password(self) -> None:
        """Requests fail as unavailable if the connection ends, and the next one connects again."""
        result, waiting = self.asked(), self.ask()
        self.dovecot.protocol.connectionLost()
        for each in (result, waiting):
            self.failureResultOf(each, CheckerUnavailable)
        early = self.ask()
        self.assertEqual(self.dovecot.connections, 2)
        self.dovecot.protocol.connectionLost()
        self.failureResultOf(early, CheckerUnavailable)

    def test_no_dovecot_is_one_line(self) -> None:
        """While there is no Dovecot, logins are unavailable, and the log says so once."""
        self.dovecot.error = ConnectError(string="No such file")
        for _ in range(2):
            self.failureResultOf(self.ask(), CheckerUnavailable)
        (line,) = [e for e in self.logged if "reason" in e]
        self.assertIn("No such file", line["reason"])

    def test_silence_ends(self) -> None:
        """A Dovecot that does not answer, before or after the handshake, is unavailable after some time."""
        for result in (self.ask(), self.asked()):
            self.clock.advance(TIMEOUT_SECONDS)
            self.failureResultOf(result, CheckerUnavailable)
        self.dovecot.says(b"OK\t1\tuser=alice\nOK\t2\tuser=alice\n")

    def test_odd_lines_end_the_connection(self) -> None:
        """Another major version and an endless line end the connection; unknown lines do nothing."""
        for data in (b"VERSION\t2\t0\n", b"x" * 9000):
            self.checker = DovecotAuth("/auth", reactor=self.clock, endpoint=self.dovecot)
            result = self.ask()
            self.dovecot.says(b"NEW\nOK\n" + data)
            self.assertTrue(self.dovecot.transport.disconnecting)
            self.dovecot.protocol.connectionLost()
            self.failureResultOf(result, CheckerUnavailable)

    def test_requests_are_bounded(self) -> None:
        """More requests than the maximum are refused at once."""
        self.patch(dovecot_auth, "MAX_PENDING", 1)
        self.assertNoResult(self.asked())
        self.failureResultOf(self.asked(), CheckerUnavailable)

    def test_close_ends_the_connection(self) -> None:
        """A checker that is closed closes its connection, if there is one."""
        self.checker.close()
        self.assertNoResult(self.asked())
        self.checker.close()
        self.assertTrue(self.dovecot.transport.disconnecting)

    def test_option(self) -> None:
        """``--auth dovecot:PATH`` needs the path of a socket."""
        self.assertIsInstance(
            make_checker(Clock(), "dovecot:/run/dovecot/auth-client"), DovecotAuth
        )
        with self.assertRaisesRegex(ConfigError, "--auth dovecot:x: needs the path of a socket"):
            make_checker(Clock(), "dovecot:x")
