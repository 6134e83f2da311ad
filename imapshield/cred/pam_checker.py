"""`PamChecker`: asks the operating system (PAM) whether a password is correct, in threads.

It needs pamela, the PAM package of JupyterHub, which also checks whether the account has expired.
"""

from types import ModuleType
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from imapshield.cred.checkers import CheckerUnavailable

try:
    import pamela
except (ImportError, OSError, AttributeError):  # the last two: a system without libpam
    _pamela: ModuleType | None = None
else:
    _pamela = pamela

THREADS = 8
"""Checks at the same time: PAM takes two seconds for a wrong password. The server lets no more begin by default."""

MAX_PENDING = 32

_REFUSALS = frozenset({6, 7, 8, 10, 11, 12, 13})
"""PAM_PERM_DENIED, PAM_AUTH_ERR, PAM_CRED_INSUFFICIENT, PAM_USER_UNKNOWN, PAM_MAXTRIES, PAM_NEW_AUTHTOK_REQD and
PAM_ACCT_EXPIRED of Linux. All other errors mean that PAM could not decide."""


def is_available() -> bool:
    """Return whether pamela is installed."""
    return _pamela is not None


@implementer(ICredentialsChecker)
class PamChecker:
    """Checks passwords with PAM.

    The avatar id is the name that PAM has at the end: a module may change it.

    Args:
        service: the name of the file in ``/etc/pam.d``.
        reactor: the reactor.
        pool: the threads, for tests.
    """

    credentialInterfaces = (IUsernamePassword,)
    _log = Logger(namespace="imapshield")

    def __init__(self, service: str, *, reactor: Any, pool: ThreadPool | None = None) -> None:
        self._service, self._reactor = service, reactor
        self._pool = pool or ThreadPool(0, THREADS, "pam")
        self._started = self._closed = False
        self._pending = 0
        self._logged = ""

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the name of the user.

        It fails with `UnauthorizedLogin`, or with `CheckerUnavailable` if PAM cannot decide.
        """
        user, password = credentials.username, credentials.password
        if b"\0" in user + password:  # C would see their beginnings only
            return fail(UnauthorizedLogin())
        if self._closed or self._pending >= MAX_PENDING:
            return fail(CheckerUnavailable("too many checks"))
        if not self._started:
            self._started = True
            self._pool.start()
            self._reactor.addSystemEventTrigger("during", "shutdown", self.close)
        self._pending += 1
        checked = deferToThreadPool(self._reactor, self._pool, self._check, user, password)
        return checked.addBoth(self._checked)

    def _check(self, user: bytes, password: bytes) -> bytes | int:
        """Return the name of the user, or the error of PAM. Runs in a thread."""
        assert _pamela is not None
        try:
            handle = _pamela.authenticate(user, [password], service=self._service, close=False)
        except _pamela.PAMError as error:
            return int(error.errno or 0)
        name = handle.get_item(_pamela.PAM_USER)
        _pamela.pam_end(handle)
        return str(name).encode()

    def _checked(self, result: Any) -> bytes:
        self._pending -= 1
        if isinstance(result, bytes):
            self._logged = ""
            return result
        if result in _REFUSALS:
            raise UnauthorizedLogin
        reason = f"error {result}" if isinstance(result, int) else result.getErrorMessage()
        if reason != self._logged:
            self._logged = reason
            self._log.warn(
                "--auth pam:{service}: {reason}; nobody can log in with it; check /etc/pam.d/{service}, and whether the"
                " user of the server may check passwords (pam_unix needs root or the group shadow)",
                service=self._service,
                reason=reason,
            )
        raise CheckerUnavailable(reason)

    def close(self) -> None:
        """Stop the threads."""
        if not self._closed:
            self._closed = True
            if self._started:
                self._pool.stop()
