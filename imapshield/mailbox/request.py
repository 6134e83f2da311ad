"""Lets a long call of a store stop when its client has left, and counts what calls take.

A call in place (`in_place`) ends before its caller is suspended. So the time that a loop of such calls takes counts as
work of the connection. When the work of a turn is used up, calls run in threads until the next turn.

`Request` is a value that the session and the store share. The session passes it on as a context variable, so that not
every method between them has an argument for it. Only calls that change nothing are stopped.

A command of one session notifies the others, and what these do then begins in the context of that command. So each
coroutine of a session is begun by `run_for`, with the request of its own session.
"""

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from time import monotonic
from typing import Any, Protocol, TypeVar

from imapshield.errors import RequestAbandoned
from imapshield.message.pauses import pause_point

T = TypeVar("T")

CALL_WORK = 100
"""Microseconds of work that a call in the reactor's thread counts at least: about what it takes with its handler."""


class Turn(Protocol):
    """What a connection does in one turn; `session.connection.Connection` describes it."""

    def add_work(self, count: int) -> None: ...

    def count_seconds(self, seconds: float) -> None: ...

    @property
    def turn_is_over(self) -> bool: ...


class Request:
    """What the client of one session waits for.

    Args:
        turn: the turns of its connection. Without it, no call runs in place.

    Attributes:
        is_abandoned: whether the client has left. Set by the reactor's thread, and read by that of the store.
    """

    __slots__ = ("_turn", "is_abandoned")

    def __init__(self, turn: Turn | None = None) -> None:
        self.is_abandoned = False
        self._turn = turn

    def may_run_in_place(self) -> bool:
        """Return whether the connection may do more work in this turn."""
        return self._turn is not None and not self._turn.turn_is_over

    def count_seconds(self, seconds: float) -> None:
        """Count the time for which another thread has computed for the client. To be called in the reactor's thread."""
        if self._turn is not None:
            self._turn.count_seconds(seconds)

    def count_call(self, call: Callable[[], T]) -> T:
        """Return ``call()``, and count the time that it takes as work of the connection."""
        started_at = monotonic()
        try:
            return call()
        finally:
            if self._turn is not None:
                self._turn.add_work(max(CALL_WORK, int((monotonic() - started_at) * 1e6)))


current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)
"""The request for which the code runs, None if nobody can abandon it."""


async def run_for(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` for `request`, whatever request the caller runs for. To be begun by `Deferred.fromCoroutine`."""
    current_request.set(request)  # in a copy of the caller's context
    await work


def check_wanted() -> None:
    """Do nothing while the client waits for the result, except for a pause (`pause_point`).

    Stores call this between messages when they only read.

    Raises:
        RequestAbandoned: the client has left.
    """
    pause_point()
    request = current_request.get()
    if request is not None and request.is_abandoned:
        raise RequestAbandoned
