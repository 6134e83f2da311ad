"""`CompressedInput`: feeds a connection that uses COMPRESS with inflated input, in fair turns (RFC 4978)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from imapshield.edge.compress import BadStream, Inflater
from imapshield.edge.event_reporter import EventReporter
from imapshield.guard.verdicts import Reset
from imapshield.limits import Limits

UNCHECKED_BYTES = 1 << 20
"""How many bytes of commands may be inflated before `Limits.max_inflate_ratio` applies."""


class InputHost(Protocol):
    """What `CompressedInput` needs of the protocol that owns the connection."""

    transport: Any
    reporter: EventReporter
    closed: bool
    paused: Any
    line_mode: Any

    def process_input(self, data: bytes) -> None:
        """Process inflated input."""

    def apply_verdict(self, verdict: Reset) -> None:
        """Reset the connection, unless the server only reports."""

    def reset(self) -> None:
        """Reset the connection."""


class CompressedInput:
    """Inflates the input of one connection.

    Args:
        host: receives the inflated input.
        limits: `max_inflate_ratio` and `turn_seconds`.
        now: the reactor's `seconds`.
        schedule: runs work when it is this connection's turn.
    """

    def __init__(
        self,
        host: InputHost,
        limits: Limits,
        now: Callable[[], float],
        schedule: Callable[[Callable[[], object]], object],
    ) -> None:
        self._host = host
        self._limits = limits
        self._now = now
        self._schedule = schedule
        self._inflater = Inflater()
        self._command_bytes = 0
        self._scheduled = False
        self._stopped = False

    def receive(self, data: bytes) -> None:
        """Take compressed input; b"" when the connection resumes reading after a pause."""
        self._inflater.feed(data)
        if not data:  # What was inflated before the pause comes first.
            self._host.process_input(b"")
        self._inflate_later()

    def stop(self) -> bytes:
        """Stop inflating, and return the input that was not inflated."""
        self._stopped = True
        return self._inflater.rest()

    def _inflate_later(self) -> None:
        # Reading stops meanwhile: 64 KiB of the cheapest blocks take longer to inflate than one turn.
        if not self._scheduled and not self._host.closed and not self._host.paused:
            self._scheduled = True
            self._host.transport.pauseProducing()
            self._schedule(self._inflate)

    def _inflate(self) -> None:
        self._scheduled = False
        deadline = self._now() + self._limits.turn_seconds
        try:
            while not self._stopped and not self._host.closed and not self._host.paused:
                chunk = self._inflater.take()
                if not chunk and not self._inflater.has_input:
                    self._host.transport.resumeProducing()
                    break
                self._check_ratio(chunk)
                self._host.process_input(chunk)
                if self._now() > deadline:
                    self._inflate_later()
                    break
        except BadStream:
            self._host.reporter.bad_command(b"", "Invalid compressed data")
            self._host.reset()

    def _check_ratio(self, chunk: bytes) -> None:
        if self._host.line_mode:  # literals have limits of their own, and may well be all zeros
            self._command_bytes += len(chunk)
        ratio = self._command_bytes // max(1, self._inflater.bytes_in)
        max_ratio = self._limits.max_inflate_ratio
        if self._command_bytes > UNCHECKED_BYTES and ratio > max_ratio:
            self._host.apply_verdict(Reset("max_inflate_ratio", max_ratio, ratio))
