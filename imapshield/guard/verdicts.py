"""Verdicts: what the guard decides about an event, for the edge to carry out."""

from dataclasses import dataclass

from imapshield.errors import BadCommand, CommandRefused
from imapshield.limits import LimitReached as LimitReached  # noqa: PLC0414 - it is one of the verdicts
from imapshield.wire.framing import LiteralAnnounced, RawCommand

CommandEvent = LiteralAnnounced | RawCommand
"""What the guard decides about: a command that has begun, or one that is complete."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event was counted; a complete command is now on the backlog."""


@dataclass(frozen=True, slots=True)
class AcceptLiteral:
    """Receive the announced literal."""


@dataclass(frozen=True, slots=True)
class RejectLiteral:
    """Do not store the announced literal, and answer its command with `rejection`."""

    rejection: BadCommand | CommandRefused


@dataclass(frozen=True, slots=True)
class Reset(LimitReached):
    """Reset the connection (TCP RST). For limits that correct clients do not exceed.

    In report-only mode the limit is reported, and `instead` is applied.
    """

    instead: Accepted | AcceptLiteral | RejectLiteral = Accepted()


@dataclass(frozen=True, slots=True)
class Disconnect(LimitReached):
    """Send BYE with `text` and close the connection. For limits that correct clients may reach too."""

    text: str


Admission = Accepted | AcceptLiteral | RejectLiteral | Reset
"""What the guard decides about a `CommandEvent`."""

Verdict = Admission | Disconnect
