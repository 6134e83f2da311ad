"""`FlowControlReport`: reports a logged-in client whose commands wait for long, because it floods or does not read.

Flow control ends no connection, so without this report nobody would see such a client until it disconnects.
"""

from typing import Any

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.guard.verdicts import LimitReached

RECENT_SECONDS = 1.0
"""A client whose backlog was full this recently floods: the backlog is refilled as soon as it is half empty."""


class FlowControlReport:
    """Reports the client of `owner` once when its commands have waited for `held_seconds`, until it has recovered.

    They wait while the backlog is full again and again, or while the write buffer is full and the client acknowledges
    no byte. A client that reads slowly is not reported.
    """

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._timer: Any = None
        self._backlog_full_at = -RECENT_SECONDS
        self._acked: tuple[int, ...] = ()
        self._reported = False
        on_full = owner.write_buffer.on_full

        def buffer_is_full() -> None:
            on_full()
            self.held()

        owner.write_buffer.on_full = buffer_is_full

    def held(self) -> None:
        """Note that the commands of the client must wait. This is called often, so it must be cheap."""
        owner = self._owner
        if self._timer is None and owner.guard.authenticated and not owner.closed:
            self._start()

    def backlog_is_full(self) -> None:
        """Note that the backlog of the client is full, so that its commands must wait."""
        self._backlog_full_at = self._owner.now()
        self.held()

    def stop(self) -> None:
        """Stop watching, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._acked = self._owner.write_buffer.progress_marker()
        self._timer = self._owner.callLater(self._owner.limits.held_seconds, self._check)

    def _check(self) -> None:
        owner, self._timer = self._owner, None
        guard, buffer, limits = owner.guard, owner.write_buffer, owner.limits
        reached = None
        if buffer.full and buffer.progress_marker() == self._acked:
            limit = limits.max_unsent_bytes
            reached = LimitReached("max_unsent_bytes", limit, buffer.unsent_bytes)
        elif guard.backlog_full() or self._is_flooded():
            pending = max(guard.pending, limits.backlog)  # it was full a moment ago
            reached = LimitReached("backlog", limits.backlog, pending)
        if reached is not None and not self._reported:
            owner.reporter.limit_triggered("paused", reached)
        self._reported = reached is not None
        if self._reported:
            self._start()

    def _is_flooded(self) -> bool:
        owner = self._owner
        return owner.guard.busy and owner.now() - self._backlog_full_at < RECENT_SECONDS
