"""`PamChecker`: asks the operating system (PAM) whether a password is correct, in threads.

It needs pamela, the PAM package of JupyterHub, which also checks whether the account has expired.
"""

from types import ModuleType
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from imapshield.cred.checker_threads import CheckerThreads
from imapshield.cred.unavailable import Outages

try:
    import pamela
except (ImportError, OSError, AttributeError):  # the last two: a system without libpam
    _pamela: ModuleType | None = None
else:
    _pamela = pamela

THREADS = 8
"""Checks at the same time: PAM takes two seconds for a wrong password. The server lets no more begin by default."""

MAX_PENDING = 32
"""Checks that run or wait; more are refused. Only checks that the server has given up let so many come together."""

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

    def __init__(self, service: str, *, reactor: Any, pool: ThreadPool | None = None) -> None:
        self._service = service
        self._threads = CheckerThreads(reactor, "pam", THREADS, MAX_PENDING, pool)
        self._outages = Outages(
            f"pam:{service}",
            f"check /etc/pam.d/{service}, and whether the user of the server may check passwords"
            " (pam_unix needs root or the group shadow)",
        )

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the name of the user.

        It fails with `UnauthorizedLogin`, or with `CheckerUnavailable` if PAM cannot decide.
        """
        user, password = credentials.username, credentials.password
        if b"\0" in user + password:  # C would see their beginnings only
            return fail(UnauthorizedLogin())
        return self._threads.run(self._check, user, password).addCallbacks(
            self._checked, self._outages.failed
        )

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

    def _checked(self, result: bytes | int) -> bytes:
        if isinstance(result, int) and result not in _REFUSALS:
            self._outages.fail(f"error {result}")
        self._outages.over()
        if isinstance(result, int):
            raise UnauthorizedLogin
        return result

    def close(self) -> Deferred[None]:
        """Stop the threads. Fires when no check runs, or is waited for no longer."""
        return self._threads.close()
