"""`UserHolds`: lets the logins of a user wait while the mail of the user moves to another node."""

from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from imapshield.events import printable
from imapshield.front.backend_connection import BackendUnavailable
from imapshield.front.user_sessions import UserSessions
from imapshield.limits import Limits

RESET_SECONDS = 2.0
"""Seconds in which the connections of a user must be gone that were reset. A reactor that works needs less than one."""

_log = Logger(namespace="imapshield")


@dataclass(frozen=True, slots=True)
class Held:
    """What `UserHolds.hold` has done.

    Attributes:
        ended: how many sessions of the user have ended.
        cut: how many of them within a command.
        extended: whether the user was held already.
    """

    ended: int
    cut: int
    extended: bool


@dataclass(slots=True, eq=False)
class _Hold:
    until: float
    seconds: float
    timer: Any = None
    is_full: bool = False  # and the log says so
    waiting: list[Deferred[None]] = field(default_factory=list)


class UserHolds:
    """The users whose logins wait.

    Args:
        sessions: the sessions of all users.
        reactor: the reactor.
        limits: returns the limits that apply now.
    """

    def __init__(self, sessions: UserSessions, reactor: Any, limits: Any) -> None:
        self._sessions, self._reactor = sessions, reactor
        self._limits = limits
        self._holds: dict[str, _Hold] = {}

    def __len__(self) -> int:
        """Return the number of users who are held."""
        return len(self._holds)

    def is_held(self, user: str) -> bool:
        """Return whether the logins of a user wait."""
        return user in self._holds

    async def hold(self, user: str, seconds: float) -> Held:
        """Let the logins of a user wait from now on, and return when the user has no session.

        Running commands may end in ``hold_command_seconds``. The hold ends after `seconds`, unless it is repeated.

        Raises:
            TimeoutError: a connection does not end.
        """
        extended = user in self._holds
        self._begin(user, seconds)
        sessions = self._sessions.of(user)
        for session in sessions:
            session.leave()
        cut = await self._end_sessions(user)
        return Held(len(tuple(sessions)), cut, extended)

    async def _end_sessions(self, user: str) -> int:
        """Wait until the user has no session, and return how many had to be cut."""
        limits: Limits = self._limits()
        ended = self._sessions.all_ended(user)
        try:
            await ended.addTimeout(limits.hold_command_seconds, self._reactor)
        except TimeoutError:
            left = tuple(self._sessions.of(user))
            for session in left:
                session.cut()
            _log.warn(
                "hold of {user}: {number} connections were ended within a command, which has taken longer than the"
                " limit hold_command_seconds={seconds:g}",
                user=printable(user.encode(), 80),
                number=len(left),
                seconds=limits.hold_command_seconds,
            )
            await self._sessions.all_ended(user).addTimeout(RESET_SECONDS, self._reactor)
            return len(left)
        return 0

    def _begin(self, user: str, seconds: float) -> None:
        now = self._reactor.seconds()
        hold = self._holds.setdefault(user, _Hold(now, seconds))
        hold.until, hold.seconds = now + seconds, seconds
        if hold.timer is not None:
            hold.timer.cancel()
        hold.timer = self._reactor.callLater(seconds, self._expired, user)

    def _expired(self, user: str) -> None:
        _log.warn(
            "hold of {user}: nobody has released it in time; logins go on",
            user=printable(user.encode(), 80),
        )
        self._holds[user].timer = None
        self.release(user)

    def release(self, user: str) -> bool:
        """Let the logins of a user go on, and return whether they were held."""
        hold = self._holds.pop(user, None)
        if hold is None:
            return False
        if hold.timer is not None:
            hold.timer.cancel()
        for waiter in [*hold.waiting]:
            waiter.callback(None)
        return True

    async def wait(self, user: str, waiter: Deferred[None]) -> None:
        """Wait while a user is held, for as long as one hold lasts at most. `waiter` can be cancelled.

        Raises:
            BackendUnavailable: the hold takes longer, or too many logins wait already.
            CancelledError: `waiter` was cancelled.
        """
        hold, limits = self._holds.get(user), self._limits()
        if hold is None:
            return
        if len(hold.waiting) >= limits.max_held_logins:
            if not hold.is_full:
                hold.is_full = True
                _log.warn(
                    "hold of {user}: logins are refused, because so many wait as max_held_logins={most} permits",
                    user=printable(user.encode(), 80),
                    most=limits.max_held_logins,
                )
            raise BackendUnavailable("too many logins of a user who is being moved")
        hold.waiting.append(waiter)
        try:
            await waiter.addTimeout(hold.seconds, self._reactor)
        except TimeoutError:
            raise BackendUnavailable("the user is still being moved") from None
        finally:
            if waiter in hold.waiting:
                hold.waiting.remove(waiter)

    def stop(self) -> None:
        """End all holds."""
        for user in [*self._holds]:
            self.release(user)
