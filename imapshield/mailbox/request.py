"""Lets a long call of a store stop when the client that asked for it has left.

`Request` is a value that the session and the store share. The session passes it on as a context variable, so that not
every method between them has an argument for it. Only calls that change nothing are stopped.

A command of one session notifies the others, and what these do then begins in the context of that command. So each
coroutine of a session is begun by `run_for`, with the request of its own session.
"""

from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from imapshield.errors import RequestAbandoned
from imapshield.message.pauses import pause_point


class Request:
    """What the client of one session waits for.

    Attributes:
        is_abandoned: whether the client has left. Set by the reactor's thread, and read by that of the store.
    """

    __slots__ = ("is_abandoned",)

    def __init__(self) -> None:
        self.is_abandoned = False


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
