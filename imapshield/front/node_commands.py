"""The commands of the control socket about nodes, and about users who move from one to another."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.control.request_lines import ControlError, Request
from imapshield.front.node_checks import NodeChecks
from imapshield.front.nodes import Nodes
from imapshield.front.sasl_user import mailbox_user
from imapshield.front.user_map import LookUpFailed, Query

HOLD_SECONDS = 10.0
"""Seconds of a hold that names none. Mail clients wait for 20 to 60 s for the answer to a login."""

MAX_HOLDS = 1000
"""Users who are held at once. Each move of a user is one, and moves take turns at the disks."""

_log = Logger(namespace="imapshield")


class NodeCommands:
    """The commands about the nodes of one server.

    Args:
        nodes: the nodes.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._checks = NodeChecks(nodes.reactor)

    @property
    def handlers(self) -> Mapping[str, Callable[[Request], Awaitable[Any]]]:
        """The commands by their names."""
        names = ("nodes", "drain", "undrain", "hold", "release")
        return {**{name: getattr(self, name) for name in names}, "user-map": self.user_map}

    async def nodes(self, request: Request) -> list[dict[str, Any]]:
        """Return all nodes. With the argument `check`, they are checked first: `answers` says which have answered."""
        if not request.get("check"):
            return self._nodes.described()
        answered = await self._checks.answered(self._nodes.by_name)
        rows = self._nodes.described()
        # A row may have the name of a node, and be that of the one that had it before a reload.
        return [
            {**row, "answers": row["state"] != "removed" and answered.get(row["node"], False)}
            for row in rows
        ]

    async def user_map(self, request: Request) -> dict[str, str]:  # noqa: ARG002
        """Return the ``--user-map``, and what is wrong with it now; both are "" without one."""
        source = self._nodes.source
        if source is None:
            return {"user_map": "", "problem": ""}
        return {"user_map": source.text, "problem": source.problem}

    async def drain(self, request: Request) -> dict[str, Any]:
        """Let the argument `node` have no further logins. Its sessions go on."""
        return self._set_draining(request, is_draining=True)

    async def undrain(self, request: Request) -> dict[str, Any]:
        """Let it have logins again."""
        return self._set_draining(request, is_draining=False)

    def _set_draining(self, request: Request, *, is_draining: bool) -> dict[str, Any]:
        name = request.get("node")
        backend = self._nodes.by_name.get(name)
        if backend is None:
            known = ", ".join(self._nodes.by_name)
            raise ControlError(f"no --backend has the name {name}; known are {known}")
        unchanged = backend.is_draining is is_draining
        backend.is_draining = is_draining
        (row,) = (row for row in self._nodes.described() if row["node"] == name)
        return {**row, "unchanged": unchanged}

    async def hold(self, request: Request) -> dict[str, Any]:
        """Let the logins of the argument `user` wait for `seconds`, and return when no session of the user is left.

        Repeated, it lasts for `seconds` from then on. The node of the answer is "" if the map does not know the user,
        and None if nobody can say that.
        """
        holds, user = self._nodes.holds, _user(request)
        if len(holds) >= MAX_HOLDS and not holds.is_held(user):
            raise ControlError(f"{MAX_HOLDS} users are held already; release one of them first")
        seconds = request.get("seconds", HOLD_SECONDS)
        # The hold does not wait for it: a worker that starts must hold the user before its first connection.
        looking_up = Deferred.fromCoroutine(self._node(user)).addErrback(_log_failure)
        try:
            held = await holds.hold(user, seconds)
        except TimeoutError:
            raise ControlError(f"{user}: a connection does not end; look at the log") from None
        return {
            "user": user,
            "seconds": seconds,
            "ended": held.ended,
            "cut": held.cut,
            "extended": held.extended,
            "node": await looking_up,
        }

    async def _node(self, user: str) -> str | None:
        """Return the node of a user before a hold; "" if the map does not know the user, and None if nobody can say."""
        source = self._nodes.source
        if source is not None and source.asks_password:
            return None
        # A user with a session exists, and the answer to neither that hold nor one that is extended waits for it.
        if self._nodes.holds.is_held(user) or any(self._nodes.sessions.of(user)):
            known = self._nodes.known(user)
            return None if known is None or known.problem else known.node
        try:
            answer = await self._nodes.look_up(Query(user))
        except LookUpFailed:
            return None
        return None if answer.problem else answer.node

    async def release(self, request: Request) -> dict[str, Any]:
        """Look the argument `user` up again, and let the logins of the user go on.

        The node of the answer is None if only a login says it.
        """
        user = _user(request)
        try:
            was_held = await self._nodes.release(user)
            if self._nodes.source is not None and self._nodes.source.asks_password:
                return {"user": user, "held": was_held, "node": None}
            answer = await self._nodes.look_up(Query(user))
        except LookUpFailed as error:
            raise ControlError(f"{user}: the user map: {error}") from None
        return {"user": user, "held": was_held, "node": answer.node}


def _log_failure(failure: Failure) -> None:
    """Log an error of this program. Nobody waits for the look-up if the hold fails first."""
    _log.failure("hold: a look-up failed", failure)


def _user(request: Request) -> str:
    """Return the user of a request, as the map has the name.

    Raises:
        ControlError: it is no name of a user, but one that stands for many, or has a master user.
    """
    if "*" in request.get("user"):
        raise ControlError(f"{request.command}: name one user, without *")
    return mailbox_user(request.get("user").encode("utf-8", "replace"))
