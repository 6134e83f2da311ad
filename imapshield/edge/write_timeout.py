"""`WriteTimeout`: resets a connection whose peer does not read its responses.

Progress is measured in bytes that the peer has acknowledged, not in time since the last write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imapshield.edge.write_buffer import WriteBuffer
from imapshield.guard.verdicts import Reset
from imapshield.limits import Limits


class WriteTimeout:
    """Watches a write buffer while it is full, and resets if the peer acknowledges no byte for too long.

    Args:
        write_buffer: the connection's; its `on_full` is set here.
        call_later: the reactor's `callLater`.
        limits: `stalled_seconds` applies while the backlog is full too, otherwise `unsent_seconds`.
        backlog_full: returns whether the connection's backlog is full.
        apply_verdict: called with the `Reset`.
    """

    def __init__(
        self,
        write_buffer: WriteBuffer,
        call_later: Callable[[float, Callable[[], object]], Any],
        limits: Limits,
        backlog_full: Callable[[], bool],
        apply_verdict: Callable[[Reset], object],
    ) -> None:
        self._write_buffer = write_buffer
        self._call_later = call_later
        self._limits = limits
        self._backlog_full = backlog_full
        self._apply_verdict = apply_verdict
        self._delayed_call: Any = None
        write_buffer.on_full = self._start

    def stop(self) -> None:
        """Stop watching, because the connection has ended."""
        self._write_buffer.on_full = _do_nothing
        if self._is_running():
            self._delayed_call.cancel()

    def _is_running(self) -> bool:
        return self._delayed_call is not None and bool(self._delayed_call.active())

    def _start(self) -> None:
        if not self._is_running():
            self._check_later(self._write_buffer.acked_bytes(), 0.0)

    def _check_later(self, acked: tuple[int, ...], waited: float) -> None:
        interval = self._limits.stalled_seconds
        self._delayed_call = self._call_later(
            interval, lambda: self._check(acked, waited + interval)
        )

    def _check(self, acked_before: tuple[int, ...], waited: float) -> None:
        if not self._write_buffer.full:
            return
        acked = self._write_buffer.acked_bytes()
        if acked != acked_before:
            self._check_later(acked, 0.0)
            return
        limit = "stalled_seconds" if self._backlog_full() else "unsent_seconds"
        seconds = getattr(self._limits, limit)
        if waited < seconds:
            self._check_later(acked, waited)
        else:
            self._apply_verdict(Reset(limit, seconds, waited))


def _do_nothing() -> None:
    pass
