"""Checks the nodes when an operator, or `imapshield move`, wants to know whether they answer now.

The regular checks are ``backend_check_seconds`` apart, so what they know of a node that has just died is wrong.
"""

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from imapshield.front.backend import Backend

CHECK_SECONDS = 3.0
"""Seconds for which a command waits for checks: less than the supervising process waits for a busy worker."""

REPEAT_SECONDS = 1.0
"""Seconds between the begins of two checks. A command that comes sooner gets the result of the last one, so several
moves at once, or a loop of commands, open no more than one connection to a node in a second."""


class NodeChecks:
    """Checks all nodes of a server at the same time.

    Args:
        reactor: an `IReactorTime`.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._began_at = float("-inf")
        self._running: set[Backend] = set()  # a node that hangs gets no second connection
        self._waiting: list[Deferred[None]] = []
        self._timer: Any = None

    async def answered(self, backends: Mapping[str, Backend]) -> dict[str, bool]:
        """Check backends, and return which of them have answered in `CHECK_SECONDS`, by their names."""
        now = self._reactor.seconds()
        if self._timer is None and now - self._began_at >= REPEAT_SECONDS:
            self._began_at = now
            self._timer = self._reactor.callLater(CHECK_SECONDS, self._end)
            checked = [each for each in backends.values() if each not in self._running]
            self._running.update(checked)
            for backend in checked:
                backend.check(is_regular=False).addBoth(self._checked, backend)
        if self._timer is not None and self._running:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter
        return {name: each.has_answered_since(self._began_at) for name, each in backends.items()}

    def _checked(self, _: object, backend: Backend) -> None:
        self._running.discard(backend)
        if not self._running and self._timer is not None:
            self._timer.cancel()
            self._end()

    def _end(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
