"""What the guard answers; the edge obeys."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.errors import BadCommand, CommandRefused


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is on the backlog, or was only counted: go on."""


@dataclass(frozen=True, slots=True)
class AcceptLiteral:
    """Let the literal come."""


@dataclass(frozen=True, slots=True)
class RejectLiteral:
    """Do not let the literal come; its command ends in this refusal."""

    rejection: BadCommand | CommandRefused


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection: `limit` (a field of `Limits`), whose `value` was passed by `seen`."""

    limit: str
    value: float
    observed: float


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Say BYE with `text` and close, for a limit that honest people meet too."""

    limit: str
    value: float
    observed: float
    text: str


Verdict = Accepted | AcceptLiteral | RejectLiteral | Reset | Disconnect
