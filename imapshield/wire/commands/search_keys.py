"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class And:
    """Every one of `keys`; of none, everything (ALL)."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """OR."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """NOT."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class FlagKey:
    r"""SEEN, KEYWORD x and so on; \Recent too.

    UNSEEN is Not(HasFlag(…)); NEW is AllOf(RECENT, UNSEEN).
    """

    flag: bytes


@dataclass(frozen=True, slots=True)
class SequenceKey:
    """A sequence set, or UID set when `uid`. A `sequence` of None is ``$`` (RFC 5182)."""

    sequence: SequenceSet | None
    uid: bool = False


@dataclass(frozen=True, slots=True)
class SizeKey:
    """LARGER (`more`) or SMALLER than `octets`."""

    larger: bool
    size: int


@dataclass(frozen=True, slots=True)
class DateKey:
    """BEFORE ON SINCE, of `field` INTERNAL, SENT (SENTBEFORE …) or SAVED (SAVEDBEFORE …).

    `how` is b"BEFORE", b"ON" or b"SINCE".
    """

    comparison: bytes
    day: date
    field: bytes = b"INTERNAL"


@dataclass(frozen=True, slots=True)
class AgeKey:
    """OLDER or YOUNGER (`younger`) than `seconds` (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """HEADER field text: in the field as it was written. `field` is in upper case.

    An empty `text` asks that the field be there.
    """

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class EnvelopeKey:
    """FROM TO CC BCC SUBJECT (`field`) text: in what ENVELOPE shows, decoded."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class TextKey:
    """BODY text, or TEXT (`headers` too)."""

    text: str
    headers: bool = False


@dataclass(frozen=True, slots=True)
class ModseqKey:
    """MODSEQ n: changed at or after (RFC 7162)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class ObjectIdKey:
    """EMAILID or THREADID (RFC 8474)."""

    is_thread_id: bool
    id: bytes


SearchKey = (
    And
    | Or
    | Not
    | FlagKey
    | SequenceKey
    | SizeKey
    | DateKey
    | AgeKey
    | HeaderKey
    | EnvelopeKey
    | TextKey
    | ModseqKey
    | ObjectIdKey
)
