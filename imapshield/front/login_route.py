"""`LoginRoute`: finds the node for one login, and waits while its user is being moved."""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from imapshield.cred.unavailable import CheckerUnavailable
from imapshield.edge.login_checks import Check, LoginAttempt, RunsChecks
from imapshield.front.backend import Backend
from imapshield.front.backend_connection import BackendUnavailable
from imapshield.front.nodes import Nodes
from imapshield.front.user_map import Answer, LookUpFailed, Query
from imapshield.front.user_sessions import UserSession

MAX_ROUTES = 3
"""How often the node of one login is looked up, because a move of its user begins before the login has ended."""


class LoginRerouted(CheckerUnavailable):
    """A login must begin again, because its user is being moved. The argument is for the log."""


class LoginRoute:
    """The node of one login.

    Args:
        nodes: all nodes.
        query: who logs in.
        wait: waits while a user is held.

    Attributes:
        session: the session of the user, which begins with the login.
        backend: the backend that is asked.
        is_known: whether the map has the user. If not, the backend is asked for an answer that looks like any other.
    """

    backend: Backend

    def __init__(self, nodes: Nodes, query: Query, wait: Callable[[str], Awaitable[None]]) -> None:
        self._nodes, self._query, self._wait = nodes, query, wait
        self.session = UserSession(query.user, nodes.sessions)  # until `find` begins one
        self.is_known = False

    async def find(self, in_turn: Callable[[Check], Awaitable[Any]] | None) -> None:
        """Find the node. `in_turn` runs a look-up when it is the turn of the client; None does not wait for that.

        Raises:
            BackendUnavailable: nobody knows the node now, or the user is held for too long.
        """
        nodes, user = self._nodes, self._query.user
        for _ in range(MAX_ROUTES):
            if nodes.holds.is_held(user):
                await self._wait(user)
            self.end()
            # Before the look-up: a move that begins after it must know of this login.
            session = self.session = nodes.sessions.begin(user)
            # No map has a name that is not UTF-8. One backend for everybody may have it.
            answer = nodes.known(user) if user or nodes.source is None else Answer("")
            if answer is None:
                answer = await self._look_up(in_turn)
            if answer.problem:
                raise BackendUnavailable(answer.problem)
            if not session.is_leaving:
                self.is_known = bool(answer.node)
                self.backend = nodes.backend_of(answer, user)
                session.backend = self.backend
                return
        raise BackendUnavailable("the user is moved again and again")

    async def _look_up(self, in_turn: Callable[[Check], Awaitable[Any]] | None) -> Answer:
        try:
            if in_turn is None:
                return await self._nodes.look_up(self._query)
            _, answer, _ = await in_turn(lambda: Deferred.fromCoroutine(self._answer()))
        except LookUpFailed as error:
            raise BackendUnavailable(f"the node of the user is not known: {error}") from None
        assert isinstance(answer, Answer)
        return answer

    async def _answer(self) -> tuple[None, Answer, Callable[[], None]]:
        """Return the answer in the form of a result of a password check, as `LoginChecks` expects it."""
        return None, await self._nodes.look_up(self._query), lambda: None

    def end(self) -> None:
        """Forget the session, unless it has a connection, with which it ends."""
        if not self.session.is_connected:
            self.session.end()


class RoutedChecks:
    """The queue of a login: that of its node, after a look-up in that of the server.

    So users of a node that does not answer wait for each other, and nobody else does.

    Args:
        route: finds the node.
        queue: the queue of the server.
    """

    def __init__(self, route: LoginRoute, queue: RunsChecks) -> None:
        self._route, self._queue = route, queue

    async def run(self, attempt: LoginAttempt, check: Check) -> Any:
        """Find the node, and run the check in its queue.

        Raises:
            BackendUnavailable: as for `LoginRoute.find`.
            LoginNotChecked, Disconnected: as for `LoginChecks.run`.
        """
        for last in range(MAX_ROUTES):
            await self._route.find(lambda look_up: self._queue.run(attempt, look_up))
            try:
                return await self._route.backend.login_checks.run(attempt, check)
            except LoginRerouted:
                if last == MAX_ROUTES - 1:
                    raise
        raise AssertionError
