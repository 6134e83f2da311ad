"""Search keys: the tree of values that SEARCH, SORT, THREAD and ESEARCH search by (RFC 9051 section 6.4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class And:
    """All of `keys` match. No keys match every message (ALL)."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of `keys` matches (OR)."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`key` does not match (NOT)."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class FlagKey:
    r"""The message has `flag`: SEEN, KEYWORD and so on, RECENT (``\Recent``) too.

    UNSEEN is ``Not(FlagKey(b"\\Seen"))``, and NEW is `And` of RECENT and UNSEEN.
    """

    flag: bytes


@dataclass(frozen=True, slots=True)
class SequenceKey:
    """The message is in a sequence set, or in a set of UIDs when `uid`. None is ``$``, the saved result (RFC 5182)."""

    sequence: SequenceSet | None
    uid: bool = False


@dataclass(frozen=True, slots=True)
class SizeKey:
    """The message is larger than `size` bytes (LARGER), or smaller when `larger` is False (SMALLER)."""

    larger: bool
    size: int


@dataclass(frozen=True, slots=True)
class DateKey:
    """A date of the message compared with `day`.

    Args:
        comparison: b"BEFORE", b"ON" or b"SINCE".
        day: the day; times and time zones are disregarded.
        field: b"INTERNAL" for INTERNALDATE, b"SENT" for the Date field (SENTBEFORE …), b"SAVED" for the save date
            (SAVEDBEFORE …, RFC 8514).
    """

    comparison: bytes
    day: date
    field: bytes = b"INTERNAL"


@dataclass(frozen=True, slots=True)
class AgeKey:
    """INTERNALDATE is older than `seconds` ago (OLDER), or younger when `younger` (YOUNGER) (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """The header field contains `text` (HEADER). `field` is in upper case; an empty `text` matches any such field."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class EnvelopeKey:
    """FROM, TO, CC, BCC or SUBJECT (`field`) contains `text`. Compared with what ENVELOPE shows, decoded."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class TextKey:
    """The body contains `text` (BODY), or the body or the header does when `headers` (TEXT)."""

    text: str
    headers: bool = False


@dataclass(frozen=True, slots=True)
class ModseqKey:
    """The MODSEQ of the message is at least `modseq` (RFC 7162)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class ObjectIdKey:
    """The message has this EMAILID, or this THREADID when `is_thread_id` (RFC 8474)."""

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
