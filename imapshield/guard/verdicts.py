"""Verdicts: what the guard decides about an event, for the edge to carry out."""

from dataclasses import dataclass

from imapshield.errors import BadCommand, CommandRefused
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
class Reset:
    """Reset the connection (TCP RST) because `observed` is above `value`, the limit named `limit` in `Limits`."""

    limit: str
    value: float
    observed: float


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Send BYE with `text` and close the connection. For limits that correct clients may reach too."""

    limit: str
    value: float
    observed: float
    text: str


Verdict = Accepted | AcceptLiteral | RejectLiteral | Reset | Disconnect
