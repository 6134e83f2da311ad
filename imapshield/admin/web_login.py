"""Who may log in to the status page: the users of a password file, or who has a token of this process."""

import hmac
import secrets
from collections.abc import Callable
from typing import Any, Protocol

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.threads import deferToThread

from imapshield.cred.checkers import PasswordFile
from imapshield.cred.users import user_name

MAX_PENDING = 8
"""Password checks that run or wait at the same time; each takes 0.1 s and up to 64 MiB of one of two threads."""


LOOK_SECONDS = 2.0
"""Seconds after which the file is looked at again while somebody uses the page."""


class Unavailable(Exception):
    """It cannot be decided now whether a password is right."""


class WebLogin(Protocol):
    """Decides who may log in."""

    by_token: bool
    """Whether there is only a token, and no name."""

    async def check(self, user: str, password: str) -> bool:
        """Return whether the password is right.

        Raises:
            Unavailable: that cannot be decided now.
        """

    def is_cached(self, user: str, password: str) -> bool:
        """Return whether `check` is true without work."""

    def may_stay(self, user: str) -> bool:
        """Return whether somebody who has logged in may go on."""


class FileLogin:
    """The users of a password file.

    Args:
        path: the file.
        reactor: the reactor.
        run_in_thread: calls a function in a thread.
    """

    by_token = False

    def __init__(
        self,
        path: str,
        reactor: Any,
        run_in_thread: Callable[[Callable[[], None]], object] = deferToThread,
    ) -> None:
        self._checker = PasswordFile(path, reactor=reactor, max_pending=MAX_PENDING)
        self._now, self._next_look = reactor.seconds, 0.0
        self._run_in_thread = run_in_thread

    async def check(self, user: str, password: str) -> bool:
        """Return whether the user has this password; it is verified in a thread."""
        try:
            await self._checker.requestAvatarId(_credentials(user, password))
        except UnauthorizedLogin:
            return False
        except LoginFailed:
            raise Unavailable from None
        return True

    def is_cached(self, user: str, password: str) -> bool:
        """Return whether the password was right a short time ago."""
        return self._checker.is_cached(_credentials(user, password))

    def may_stay(self, user: str) -> bool:
        """Return whether the file had this user when it was read last, which is done now and then."""
        if self._now() >= self._next_look:
            self._next_look = self._now() + LOOK_SECONDS
            self._run_in_thread(self._checker.load)  # the disk may be slow
        return self._checker.can_log_in(user_name(user.encode()))

    def close(self) -> None:
        """Stop the threads."""
        self._checker.close()


class TokenLogin:
    """A random token, as the password of any user name.

    Attributes:
        token: the token. It is not in the log, which others may read.
    """

    by_token = True

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)

    async def check(self, user: str, password: str) -> bool:
        """Return whether the password is the token."""
        return self.is_cached(user, password)

    def is_cached(self, user: str, password: str) -> bool:  # noqa: ARG002
        """Return the same: to compare costs nothing."""
        return hmac.compare_digest(password.encode(errors="replace"), self.token.encode())

    def may_stay(self, user: str) -> bool:  # noqa: ARG002
        """Return True: the token stays valid until the process ends."""
        return True

    def close(self) -> None:
        """Do nothing."""


def _credentials(user: str, password: str) -> UsernamePassword:
    return UsernamePassword(user.encode(errors="replace"), password.encode(errors="replace"))
