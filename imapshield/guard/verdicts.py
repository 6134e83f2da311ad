"""What the guard answers; the edge obeys."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.errors import Malformed, Refused


@dataclass(frozen=True, slots=True)
class Queued:
    """It is on the backlog, or was only counted: go on."""


@dataclass(frozen=True, slots=True)
class Go:
    """Let the literal come."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not let the literal come; its command ends in this refusal."""

    refusal: Malformed | Refused


@dataclass(frozen=True, slots=True)
class Abort:
    """Reset the connection: `limit` (a field of `Limits`), whose `value` was passed by `seen`."""

    limit: str
    value: float
    seen: float


@dataclass(frozen=True, slots=True)
class Bye:
    """Say BYE with `text` and close, for a limit that honest people meet too."""

    limit: str
    value: float
    seen: float
    text: str


Verdict = Queued | Go | Refuse | Abort | Bye
