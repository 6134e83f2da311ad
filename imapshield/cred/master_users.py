"""`MasterUserChain`: administrators log in as their users, to move mail: ``alice*admin`` with the password of admin."""

import json
from collections.abc import Sequence
from typing import Any

from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imapshield.cred.checker_chain import CheckerChain, check_refreshed
from imapshield.cred.user_names import EXACT, UserNames


class MasterUserChain(CheckerChain):
    """A `CheckerChain` that also accepts ``USER*MASTER`` with the password of a master user, as Dovecot does.

    With AUTHENTICATE PLAIN, USER may also be the authorization identity, and MASTER the authentication identity.

    Other names with a ``*`` are those of users, and so is one that a user has exactly. USER must exist in a checker
    that knows its users, where it may be disabled; or in one that finds them: its method ``find_user(name)`` returns a
    Deferred with the avatar id, or with None. Wrong passwords count for the master user, whichever USER is named.

    Args:
        checkers: as for `CheckerChain`.
        master: checks the passwords of the master users, and knows who they are.
        names: as for `CheckerChain`.
    """

    _log = Logger(namespace="imapshield")

    def __init__(self, checkers: Sequence[Any], master: Any, names: UserNames = EXACT) -> None:
        super().__init__(checkers, names)
        self.masters = (master,)
        self._master = master

    def resolve(self, name: bytes) -> bytes:
        """Return the name under which logins with `name` are counted: for a master user ``*MASTER``."""
        split = self._split(name)
        return super().resolve(name) if split is None else b"*" + split[1]

    def master_name(self, names: tuple[bytes, bytes]) -> bytes | None:
        """Return the name for a login with an authorization identity of SASL; None if it would mean somebody else.

        If both identities are one user, this is a login of that user, who may be a master user, too.

        Args:
            names: the master user, whose password is given, and the user.
        """
        master, user = names
        if super().resolve(master) == super().resolve(user):
            return user
        name = user + b"*" + master
        # Not `_split`: the answer would tell who is a master user.
        return None if b"*" in master or self._knows(name) else name

    def master_of(self, name: bytes) -> str:
        """Return the master user in the name of a login, or ""."""
        split = self._split(name)
        return "" if split is None else split[1].decode("utf-8", "replace")

    def is_cached(self, credentials: Any) -> bool:
        """Return whether the password is accepted without work."""
        split = self._split(credentials.username)
        if split is None:
            return super().is_cached(credentials)
        given = UsernamePassword(split[1], credentials.password)
        return bool(self._master.is_cached(given)) and self._knows(split[0])

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the avatar id, which for a master user is that of the other user."""
        if IUsernamePassword.providedBy(credentials) and b"*" in credentials.username:
            return Deferred.fromCoroutine(self._check_master(credentials))
        return super().requestAvatarId(credentials)

    def _split(self, name: bytes) -> tuple[bytes, bytes] | None:
        """Return the user and the master user of a name; None if it is the name of one user."""
        user, _, master = name.rpartition(b"*")
        master = self.names.resolve(master, [self._master])
        if not user or self._knows(name) or not self._master.has_user(master):
            return None
        return super().resolve(user), master

    def _knows(self, user: bytes) -> bool:
        return any(each.has_user(user) for each in self.checkers if hasattr(each, "has_user"))

    async def _find(self, name: bytes) -> bytes:
        """Return the user of a checker that finds users; empty if there is none."""
        for checker in (each for each in self.checkers if hasattr(each, "find_user")):
            for candidate in self.names.candidates(name):
                found: bytes | None = await checker.find_user(candidate)
                if found:
                    return found
        return b""

    async def _check_master(self, credentials: Any) -> Any:
        await self.refresh()
        split = self._split(credentials.username)
        if split is None:
            return await super().requestAvatarId(credentials)
        user, master = split
        given = UsernamePassword(master, credentials.password)
        await check_refreshed(self._master, given)
        names = {"user": _json(user), "master": _json(master)}
        if not self._knows(user):
            user = await self._find(credentials.username.rpartition(b"*")[0])
        if not user:
            self._log.warn("master user {master} is right, but there is no user {user}", **names)
            raise UnauthorizedLogin
        return user


def can_find_users(checker: Any) -> bool:
    """Return whether a master user can log in as a user of this checker.

    An attribute ``finds_users`` that is False says that the method ``find_user`` works with other settings only.
    """
    finds = hasattr(checker, "find_user") and getattr(checker, "finds_users", True)
    return hasattr(checker, "has_user") or finds


def master_checkers(portal: Any) -> tuple[Any, ...]:
    """Return the checkers of the master users of a portal."""
    return tuple(getattr(portal.checkers.get(IUsernamePassword), "masters", ()))


def _json(name: bytes) -> str:
    return json.dumps(name.decode("utf-8", "replace"))
