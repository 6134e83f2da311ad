"""`WriteTimeout`: resets a connection whose peer does not read its responses.

Progress is a change of `WriteBuffer.progress_marker`: the peer has acknowledged at least one byte. The time since the
last write does not show it, because a slow peer reads one large write for minutes.
"""

from typing import Any

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.guard.verdicts import Reset


class WriteTimeout:
    """Watches the write buffer of `owner` while it is full, and resets if the peer acknowledges no byte for too long.

    The limit is `stalled_seconds` while the backlog is full too, otherwise `unsent_seconds`.
    """

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._delayed_call: Any = None
        owner.write_buffer.on_full = self._start

    def stop(self) -> None:
        """Stop watching, because the connection has ended."""
        if self._is_running():
            self._delayed_call.cancel()

    def _is_running(self) -> bool:
        return self._delayed_call is not None and bool(self._delayed_call.active())

    def _start(self) -> None:
        if not self._owner.closed and not self._is_running():
            self._check_later(self._owner.write_buffer.progress_marker(), 0.0)

    def _check_later(self, acked: tuple[int, ...], waited: float) -> None:
        limits = self._owner.limits
        interval = min(limits.stalled_seconds, limits.unsent_seconds)
        check = self._owner.callLater(interval, lambda: self._check(acked, waited + interval))
        self._delayed_call = check

    def _check(self, acked_before: tuple[int, ...], waited: float) -> None:
        owner = self._owner
        if not owner.write_buffer.full:
            return
        acked = owner.write_buffer.progress_marker()
        limit = "stalled_seconds" if owner.guard.backlog_full() else "unsent_seconds"
        seconds = getattr(owner.limits, limit)
        if acked != acked_before:
            self._check_later(acked, 0.0)
            return
        owner.reporter.note_peak(limit, waited)
        if waited < seconds:
            self._check_later(acked, waited)
        else:
            owner.apply_verdict(Reset(limit, seconds, waited))
