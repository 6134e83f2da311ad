"""PAM checks passwords in threads, and its errors are either refusals or no answer."""

from types import SimpleNamespace
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from imapshield.auth_option import make_checker
from imapshield.config import ConfigError
from imapshield.cred import pam_checker
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.cred.pam_checker import PamChecker
from tests.cred.fakes import FakePool, FakeReactor


class FakeError(Exception):
    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


class PamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.error = 0
        self.calls: list[tuple[Any, ...]] = []
        fake = SimpleNamespace(
            authenticate=self.authenticate,
            PAMError=FakeError,
            PAM_USER=2,
            pam_end=lambda handle: self.calls.append(("end", handle)),
        )
        self.patch(pam_checker, "_pamela", fake)
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.checker = PamChecker("imap", reactor=self.reactor, pool=self.pool)
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def authenticate(self, user: bytes, passwords: list[bytes], service: str, close: bool) -> Any:
        self.calls.append((user, passwords, service, close))
        if self.error == -1:
            raise ValueError("broken")
        if self.error:
            raise FakeError(self.error)
        return SimpleNamespace(get_item=lambda item: "alice")

    def check(self, user: bytes = b"Alice", password: bytes = b"secret") -> Deferred[bytes]:
        return self.checker.requestAvatarId(UsernamePassword(user, password))

    def test_pam_decides_and_names_the_user(self) -> None:
        """PAM is asked with the name of the service; the user is the one that PAM names, and the handle is freed."""
        verifyObject(ICredentialsChecker, self.checker)
        self.assertEqual(self.successResultOf(self.check()), b"alice")
        self.assertEqual(self.calls[0], (b"Alice", [b"secret"], "imap", False))
        self.assertEqual(self.calls[1][0], "end")

    def test_refusals_and_failures(self) -> None:
        """A wrong password, an unknown user and an expired account are refused; other errors are unavailable, in one line."""
        for self.error in (7, 10, 13, 12):
            self.failureResultOf(self.check(), UnauthorizedLogin)
        for self.error in (4, 4, 9, -1):
            self.failureResultOf(self.check(), CheckerUnavailable)
        reasons = [event["reason"] for event in self.logged if "reason" in event]
        self.assertEqual(reasons, ["error 4", "error 9", "broken"])

    def test_nul_never_reaches_pam(self) -> None:
        """A name or password with NUL is refused, because PAM would see its beginning only."""
        for user, password in ((b"alice\0x", b"secret"), (b"alice", b"secret\0x")):
            self.failureResultOf(self.check(user, password), UnauthorizedLogin)
        self.assertEqual(self.calls, [])

    def test_checks_are_bounded_and_end_with_the_server(self) -> None:
        """More checks than the maximum, and checks after the end, are refused as unavailable."""
        self.pool.paused = True
        self.patch(pam_checker, "MAX_PENDING", 1)
        self.checker = PamChecker("imap", reactor=self.reactor, pool=self.pool)
        first = self.check()
        self.failureResultOf(self.check(), CheckerUnavailable)
        self.pool.run_pending()
        self.assertEqual(self.successResultOf(first), b"alice")
        self.reactor.triggers[0]()
        self.assertEqual(self.pool.state, "stopped")
        self.failureResultOf(self.check(), CheckerUnavailable)
        PamChecker("imap", reactor=self.reactor, pool=FakePool()).close()

    def test_option(self) -> None:
        """``--auth pam`` uses the service imap, ``--auth pam:NAME`` another one; without pamela it says what to install."""
        for text, service in (("pam", "imap"), ("pam:dovecot", "dovecot")):
            self.assertEqual(make_checker(self.reactor, text)._service, service)
        with self.assertRaisesRegex(ConfigError, "--auth pam:a/b: name a file of /etc/pam.d"):
            make_checker(self.reactor, "pam:a/b")
        self.patch(pam_checker, "_pamela", None)
        with self.assertRaisesRegex(ConfigError, r"pamela is not installed: .*imapshield\[pam\]"):
            make_checker(self.reactor, "pam")
