"""`InputDecoder`: passes on what a client sends, inflated in fair turns while COMPRESS is active (RFC 4978)."""

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
    """What `InputDecoder` needs of the protocol that owns the connection."""

    transport: Any
    reporter: EventReporter
    closed: bool
    paused: Any
    line_mode: Any

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """Call `func` in `period` seconds."""

    def clearLineBuffer(self) -> bytes:
        """Drop and return the received bytes that were not processed yet."""

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes from the transport."""

    def process_input(self, data: bytes) -> None:
        """Process input that is not compressed."""

    def apply_verdict(self, verdict: Reset) -> None:
        """Reset the connection, unless the server only reports."""

    def reset(self) -> None:
        """Reset the connection."""


class InputDecoder:
    """Decodes the input of one connection.

    Args:
        host: the protocol that owns the connection; processes the decoded input.
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
        self._inflater: Inflater | None = None
        self._command_bytes = 0
        self._scheduled = False

    def start_inflating(self) -> None:
        """Take what the peer sends from now on as compressed."""
        self._inflater = Inflater()
        self._command_bytes = 0
        early = self._host.clearLineBuffer()
        if early:  # Compressed already, by a client that did not wait for the OK.
            self._host.callLater(0, lambda: self._host.dataReceived(early))

    def stop_inflating(self) -> None:
        """Take what the peer sends from now on as it is (RFC 8437 section 4.1: neither side compresses any more)."""
        if self._inflater is None:
            return
        rest, self._inflater = self._inflater.rest(), None
        if not self._host.paused:
            self._host.transport.resumeProducing()
        self._host.callLater(0, lambda: self._host.process_input(rest))

    def receive(self, data: bytes) -> None:
        """Decode `data`; b"" when the connection resumes reading after a pause."""
        if self._inflater is None:
            self._host.process_input(data)
            return
        self._inflater.feed(data)
        if not data:  # What was inflated before the pause comes first.
            self._host.process_input(b"")
        self._inflate_later()

    def _inflate_later(self) -> None:
        # Reading stops meanwhile: 64 KiB of the cheapest blocks take longer to inflate than one turn.
        if not self._scheduled and not self._host.closed and not self._host.paused:
            self._scheduled = True
            self._host.transport.pauseProducing()
            self._schedule(self._inflate)

    def _inflate(self) -> None:
        self._scheduled = False
        host, inflater = self._host, self._inflater
        deadline = self._now() + self._limits.turn_seconds
        try:
            while inflater is not None and not host.closed and not host.paused:
                chunk = inflater.take()
                if not chunk and not inflater.has_input:
                    host.transport.resumeProducing()
                    break
                self._check_ratio(len(chunk), inflater.bytes_in)
                host.process_input(chunk)
                if self._now() > deadline:
                    self._inflate_later()
                    break
        except BadStream:
            host.reporter.bad_command(b"", "Invalid compressed data")
            host.reset()

    def _check_ratio(self, inflated_bytes: int, bytes_in: int) -> None:
        if self._host.line_mode:  # literals have limits of their own, and may well be all zeros
            self._command_bytes += inflated_bytes
        ratio = self._command_bytes // max(1, bytes_in)
        max_ratio = self._limits.max_inflate_ratio
        if self._command_bytes > UNCHECKED_BYTES and ratio > max_ratio:
            self._host.apply_verdict(Reset("max_inflate_ratio", max_ratio, ratio))
