"""How long a peer may leave its answers unread: told in octets taken, not in time since the last write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imapshield.edge.write_buffer import WriteBuffer
from imapshield.guard.verdicts import Reset
from imapshield.limits import Limits


class WriteTimeout:
    """Watches an outbox that is full, and runs out when the peer takes not one octet for long enough.

    Args:
        outbox: of the connection.
        call_later: a reactor's.
        limits: `stalled_seconds` if `stalled()` says that the backlog is full too, otherwise `unsent_seconds`.
        obey: told the verdict.
    """

    def __init__(
        self,
        outbox: WriteBuffer,
        call_later: Callable[[float, Callable[[], object]], Any],
        limits: Limits,
        stalled: Callable[[], bool],
        obey: Callable[[Reset], object],
    ) -> None:
        self._outbox = outbox
        self._call_later = call_later
        self._limits = limits
        self._stalled = stalled
        self._obey = obey
        self._check: Any = None
        outbox.on_full = self._begin

    def stop(self) -> None:
        """The connection has ended."""
        self._outbox.on_full = _nothing
        if self._check is not None and self._check.active():
            self._check.cancel()

    def _begin(self) -> None:
        if self._check is None or not self._check.active():
            self._wait(self._outbox.acked_bytes(), 0.0)

    def _wait(self, before: tuple[int, ...], waited: float) -> None:
        step = self._limits.stalled_seconds
        self._check = self._call_later(step, lambda: self._look(before, waited + step))

    def _look(self, before: tuple[int, ...], waited: float) -> None:
        if not self._outbox.full:
            return
        now = self._outbox.acked_bytes()
        if now != before:
            self._wait(now, 0.0)
            return
        limit = "stalled_seconds" if self._stalled() else "unsent_seconds"
        value = getattr(self._limits, limit)
        if waited < value:
            self._wait(now, waited)
        else:
            self._obey(Reset(limit, value, waited))


def _nothing() -> None:
    pass
