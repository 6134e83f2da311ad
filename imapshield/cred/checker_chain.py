"""`CheckerChain`: tries several checkers, and several ways to write a user name, in a fixed order."""

from collections.abc import Iterable, Iterator, Sequence
from inspect import isawaitable
from itertools import chain
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from imapshield.cred.user_names import EXACT, UserNames


@implementer(ICredentialsChecker)
class CheckerChain:
    """Tries several checkers in order. The first one that accepts the credentials decides.

    If none accepts them, the login fails with `CheckerUnavailable` if a checker could not decide, and otherwise with
    `UnauthorizedLogin`.

    A checker that knows its users has a method ``has_user(name)``, and a method ``refresh()`` that returns a Deferred
    if it must first read them again. It is asked once, whatever the name, so that a login takes the same time for a
    user who exists and for one who does not. Other checkers are asked for each candidate of `names`; one with a true
    attribute ``ignores_case`` not again in another letter case, because a directory may lock an account after a few
    wrong passwords. If one of them cannot decide about a candidate, later candidates are not tried: they may be other
    users.

    Args:
        checkers: the checkers.
        names: the ways to write a user name.

    Attributes:
        masters: the checkers of master users (`MasterUserChain`).
    """

    masters: tuple[Any, ...] = ()

    def __init__(self, checkers: Sequence[Any], names: UserNames = EXACT) -> None:
        self.checkers = tuple(checkers)
        self.names = names
        interfaces = chain.from_iterable(checker.credentialInterfaces for checker in checkers)
        self.credentialInterfaces = tuple(dict.fromkeys(interfaces))

    def resolve(self, name: bytes) -> bytes:
        """Return the name under which logins with `name` are counted (`UserNames.resolve`)."""
        return self.names.resolve(name, self.checkers)

    def outages(self) -> list[str]:
        """Return why users cannot log in, and what to do: one line for each password file."""
        checkers = (*self.checkers, *self.masters)
        return [outage for each in checkers if (outage := getattr(each, "outage", ""))]

    def master_name(self, names: tuple[bytes, bytes]) -> bytes | None:
        """Return the name for a login with an authorization identity of SASL; None if nobody may act for another user.

        The two identities may be one name in two forms. Then the password must be that of the authorization identity.
        Who exists does not matter here, because the answer would tell.

        Args:
            names: the authentication identity, whose password is given, and the authorization identity.
        """
        given, user = names
        is_same = self.names.candidates(given)[-1] == self.names.candidates(user)[-1]
        return user if is_same else None

    def is_disabled(self, name: bytes) -> bool:
        """Return whether a password file has a disabled user of this name, for the log."""
        resolved = self.resolve(name)
        asked = [checker for checker in self.checkers if hasattr(checker, "is_disabled")]
        return any(checker.is_disabled(resolved) for checker in asked)

    def _attempts(self, name: bytes) -> Iterable[list[tuple[Any, bytes]]]:
        """Return, for each candidate that is tried, the checkers that are asked and the name for each."""
        names = self.names.candidates(name)
        checkers = [c for c in self.checkers if IUsernamePassword in c.credentialInterfaces]
        if len(names) == 1:
            return [[(checker, name) for checker in checkers]] if checkers else []
        return self._attempts_of(name, names, checkers)

    def _attempts_of(
        self, name: bytes, names: tuple[bytes, ...], checkers: list[Any]
    ) -> Iterator[list[tuple[Any, bytes]]]:
        resolved = self.resolve(name)
        last = names.index(resolved)
        for number, candidate in enumerate(names[: last + 1]):
            is_known = candidate.lower() in {each.lower() for each in names[:number]}
            attempt = [
                (checker, candidate)
                for checker in checkers
                if candidate == resolved or not hasattr(checker, "has_user")
                if not (is_known and getattr(checker, "ignores_case", False))
            ]
            if attempt:
                yield attempt

    async def refresh(self) -> None:
        """Let the checkers that know their users read them again, if these have changed."""
        for checker in (*self.checkers, *self.masters):
            reading = checker.refresh() if hasattr(checker, "refresh") else None
            if reading is not None:
                await reading

    async def _check_password(self, credentials: Any) -> Any:
        await self.refresh()
        failure: Exception = UnauthorizedLogin()
        for attempt in self._attempts(credentials.username):
            for checker, name in attempt:
                try:
                    return await check_refreshed(checker, _renamed(credentials, name))
                except UnauthorizedLogin:
                    continue
                except LoginFailed as error:
                    failure = error
            if not isinstance(failure, UnauthorizedLogin):
                break
        raise failure

    async def _try_all(self, credentials: Any) -> Any:
        failure: Exception = UnauthorizedLogin()
        for checker in self.checkers:
            if any(accepted.providedBy(credentials) for accepted in checker.credentialInterfaces):
                try:
                    return await maybeDeferred(checker.requestAvatarId, credentials)
                except UnauthorizedLogin:
                    continue
                except LoginFailed as error:
                    failure = error
        raise failure

    def is_cached(self, credentials: Any) -> bool:
        """Return whether the first checker that is asked accepts a password without work (`PasswordFile.is_cached`)."""
        for (first, name), *_ in self._attempts(credentials.username):
            return hasattr(first, "is_cached") and bool(
                first.is_cached(_renamed(credentials, name))
            )
        return False

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the avatar id of the first checker that accepts the credentials."""
        has_password = IUsernamePassword.providedBy(credentials)
        check = self._check_password if has_password else self._try_all
        return Deferred.fromCoroutine(check(credentials))


async def check_refreshed(checker: Any, credentials: Any) -> Any:
    """Return the avatar id of credentials; fails as ``requestAvatarId``. The users of the checker were just read."""
    check = getattr(checker, "check_refreshed", checker.requestAvatarId)
    result = check(credentials)
    # Deferreds first, because `isawaitable` takes longer than many a check.
    return await result if isinstance(result, Deferred) or isawaitable(result) else result


def _renamed(credentials: Any, name: bytes) -> Any:
    """Return the credentials with another name, if it is another one."""
    if name == credentials.username:
        return credentials
    return UsernamePassword(name, credentials.password)
