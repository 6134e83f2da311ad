"""`UserSessions`: which users have sessions on which nodes, so that the sessions of a user who moves can be ended."""

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from imapshield.front.backend_connection import BackendConnection

MOVED = "Your mail is being moved, connect again"
"""The text of the BYE for a client whose user moves to another node."""


class EndableRelay(Protocol):
    """A relay that can be ended from the outside, as `BackendRelay`."""

    def leave(self) -> None:
        """End the session when no command runs."""

    def cut(self) -> None:
        """End the session now."""


class UserSession:
    """A session of a user on a node, from the moment before its node is looked up.

    Args:
        user: the name of the user in the map.
        sessions: has all sessions.

    Attributes:
        backend: the node, as it is now; a later one may have its name. None until it is known.
        is_leaving: whether the session must not go on, because its user is being moved.
    """

    __slots__ = ("_connection", "_relay", "_sessions", "backend", "is_leaving", "user")

    def __init__(self, user: str, sessions: "UserSessions") -> None:
        self.user, self.is_leaving = user, False
        self.backend: object = None
        self._sessions = sessions
        self._connection: BackendConnection | None = None
        self._relay: EndableRelay | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the session has had a connection to its node."""
        return self._connection is not None

    def connected(self, connection: BackendConnection) -> None:
        """Note the connection to the node: the session ends with it."""
        self._connection = connection
        on_lost = connection.on_lost

        def lost() -> None:
            on_lost()
            self.end()

        connection.on_lost = lost

    def logged_in(self, relay: EndableRelay) -> None:
        """Note that the user has logged in."""
        self._relay = relay
        if self.is_leaving:
            relay.leave()

    def leave(self) -> None:
        """Let the session end when its running command has ended; a login ends when the node has answered."""
        self.is_leaving = True
        if self._relay is not None:
            self._relay.leave()
        elif self._connection is None:
            self.end()

    def cut(self) -> None:
        """End the session now."""
        if self._relay is not None:
            self._relay.cut()
        if self._connection is not None:
            self._connection.reset("its user is being moved")

    def end(self) -> None:
        """Forget the session."""
        self._sessions.forget(self)


class UserSessions:
    """The sessions of all users."""

    def __init__(self) -> None:
        self._of: dict[str, set[UserSession]] = {}
        self._waiters: dict[str, list[Deferred[None]]] = {}

    def begin(self, user: str) -> UserSession:
        """Return a new session, which somebody must `end`."""
        session = UserSession(user, self)
        self._of.setdefault(user, set()).add(session)
        return session

    def forget(self, session: UserSession) -> None:
        """Forget a session, also for the second time."""
        sessions = self._of.get(session.user)
        if sessions is None:
            return
        sessions.discard(session)
        if not sessions:
            del self._of[session.user]
            for waiter in self._waiters.pop(session.user, []):
                if not waiter.called:  # it was not cancelled
                    waiter.callback(None)

    def of(self, user: str) -> Iterable[UserSession]:
        """Return the sessions of a user."""
        return tuple(self._of.get(user, ()))

    def all_ended(self, user: str) -> Deferred[None]:
        """Return a Deferred that fires when the user has no session. It can be cancelled."""
        ended: Deferred[None] = Deferred()
        if user in self._of:
            self._waiters.setdefault(user, []).append(ended)
        else:
            ended.callback(None)
        return ended

    def counts(self) -> dict[object, tuple[int, int]]:
        """Return the numbers of users and of sessions of each `UserSession.backend` that has any."""
        users: dict[object, set[str]] = {}
        sessions: dict[object, int] = {}
        for user, each in self._of.items():
            for session in (session for session in each if session.is_connected):
                users.setdefault(session.backend, set()).add(user)
                sessions[session.backend] = sessions.get(session.backend, 0) + 1
        return {each: (len(users[each]), sessions[each]) for each in users}
