"""Who may log in to the status page: the users of a password file, or who has a token of this process.

`Attempts` looks at no password of an address that has sent too many wrong ones, not even whether it is known to be
right: otherwise nothing would limit guesses. If all addresses together have sent too many, those that have logged in
before have a share of their own, and others get in with a token, or with a password that was right a short time ago.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin

from imapshield.admin.web_sessions import LoginRate
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
        """Return whether the password is known to be right, without a check."""

    def may_stay(self, user: str) -> bool:
        """Return whether somebody who has logged in may go on."""


class LoginReports(Protocol):
    """What is remembered of logins. An address is "" for a UNIX socket."""

    def is_banned(self, address: str) -> bool:
        """Return whether an address may not try a password."""

    def succeeded(self, address: str, user: str) -> None:
        """Note a login."""

    def failed(self, address: str, user: str, password: str) -> None:
        """Note a wrong password or token."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a password was not accepted: the status of the answer, a sentence, and whole seconds to wait, or 0."""

    status: int
    text: str
    seconds: int = 0


class Attempts:
    """The attempts to log in to one status page.

    Args:
        login: checks passwords.
        reports: remembers what happens.
        now: returns seconds of a monotonic clock.
    """

    def __init__(self, login: WebLogin, reports: LoginReports, now: Callable[[], float]) -> None:
        self._login, self._reports, self._now = login, reports, now
        self._rate = LoginRate()

    async def refusal(self, address: str, user: str, password: str) -> Refusal | None:
        """Return why a password from an address is not accepted; None if it is right."""
        if self._reports.is_banned(address):
            text = (
                "This address is banned because of wrong passwords. On the server: imapshield unban"
            )
            return Refusal(403, f"{text} {address}")
        now = self._now()
        wait = self._rate.take(address, now)
        if not wait:
            wait = self._rate.take_check(address, now)
            # The attempt stays counted for the address: this limits how often it may guess what is cached.
            if wait and self._rate.take_cached(now) and self._login.is_cached(user, password):
                self._rate.succeeded(address, now)
                return None
        if wait:
            seconds = ceil(wait)
            return Refusal(429, f"Too many attempts. Wait {seconds} seconds.", seconds)
        return await self._check(address, user, password)

    async def _check(self, address: str, user: str, password: str) -> Refusal | None:
        try:
            is_right = await self._login.check(user, password)
        except Unavailable:
            text = "Passwords cannot be checked now; the log of the server says why."
            return Refusal(503, text)
        if not is_right:
            self._reports.failed(address, user, password)
            text = "Wrong token." if self._login.by_token else "Wrong name or password."
            return Refusal(401, text)
        self._rate.give_check_back(address, self._now())
        self._rate.succeeded(address, self._now())
        return None


class FileLogin:
    """The users of a password file.

    Args:
        path: the file.
        reactor: the reactor.
    """

    by_token = False

    def __init__(self, path: str, reactor: Any) -> None:
        self._checker = PasswordFile(path, reactor=reactor, max_pending=MAX_PENDING)
        self._now, self._next_look = reactor.seconds, 0.0

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
        """Return whether the user had this password a short time ago, and the file has not changed since."""
        return self._checker.is_cached(_credentials(user, password))

    def may_stay(self, user: str) -> bool:
        """Return whether the file had this user when it was read last, which is done now and then."""
        if self._now() >= self._next_look:
            self._next_look = self._now() + LOOK_SECONDS
            self._checker.refresh()
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
        """Return whether the password is the token."""
        return hmac.compare_digest(password.encode(errors="replace"), self.token.encode())

    def may_stay(self, user: str) -> bool:  # noqa: ARG002
        """Return True: the token stays valid until the process ends."""
        return True

    def close(self) -> None:
        """Do nothing."""


def _credentials(user: str, password: str) -> UsernamePassword:
    return UsernamePassword(user.encode(errors="replace"), password.encode(errors="replace"))
