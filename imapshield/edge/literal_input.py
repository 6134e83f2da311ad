"""`LiteralInput`: receives the literals that the guard accepts, and skips those it rejects."""

from __future__ import annotations

from typing import Any, Protocol

from imapshield.edge.spool import Spool
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import RejectLiteral, Verdict
from imapshield.limits import Limits
from imapshield.wire.framing import Framer, LiteralAnnounced, LiteralSink, MemorySink, RawCommand
from imapshield.wire.traits import traits_of


class LiteralHost(Protocol):
    """What `LiteralInput` needs of the protocol that owns the connection."""

    def setRawMode(self) -> Any:
        """Receive literal bytes from now on."""

    def setTimeout(self, period: float) -> Any:
        """Close the connection in `period` seconds without input."""

    def apply_verdict(self, verdict: Verdict, event: RawCommand) -> None:
        """Do what the guard has decided about `event`."""


class LiteralInput:
    """The literals of one connection.

    Messages go to a `Spool`, because together they may have the size of a whole APPEND. Other literals are arguments,
    which are small enough for memory.
    """

    def __init__(
        self, host: LiteralHost, framer: Framer, guard: ConnectionGuard, limits: Limits
    ) -> None:
        self._host = host
        self._framer = framer
        self._guard = guard
        self._limits = limits
        self._spool = Spool(0)

    def begin(self, verdict: Verdict, event: LiteralAnnounced) -> bool:
        """Accept or reject the announced literal; returns whether the client waits for a continuation request."""
        if isinstance(verdict, RejectLiteral):
            command = self._framer.reject_literal(verdict.rejection, event.synchronizing)
            if command is not None:
                self._host.apply_verdict(self._guard.check(command), command)
            elif self._framer.literal_bytes_due:
                self._host.setRawMode()
            return False
        if self._framer.accept_literal(self._new_sink(event)):
            self._host.setRawMode()
        return event.synchronizing

    def _new_sink(self, event: LiteralAnnounced) -> LiteralSink:
        if event.literals == 0:
            self._spool = Spool(self._limits.append_memory_bytes)
        return self._spool.new_sink() if traits_of(event.name).carries_messages else MemorySink()

    def receive(self, data: bytes) -> bytes | None:
        """Receive bytes of a literal; returns None, or what follows its last byte."""
        rest = self._framer.receive_literal(data)
        if self._guard.authenticated:
            limits = self._limits
            self._host.setTimeout(limits.literal_seconds if rest is None else limits.idle_seconds)
        return rest
