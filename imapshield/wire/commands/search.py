"""Search keys, and the commands that use them: SEARCH, ESEARCH, SORT and THREAD."""

from dataclasses import dataclass, field
from datetime import date

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.sequence import SequenceSet


class SearchKey:
    """Base class of all search keys: a condition that a message meets or not (RFC 9051 section 6.4.4)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class And(SearchKey):
    """All of `keys` match. No keys match every message (ALL)."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or(SearchKey):
    """At least one of `keys` matches (OR)."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Not(SearchKey):
    """`key` does not match (NOT)."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class FlagKey(SearchKey):
    r"""The message has `flag`: KEYWORD, and SEEN, RECENT and the like.

    UNSEEN is ``Not(FlagKey(b"\\Seen"))``, and NEW is `And` of RECENT and UNSEEN.
    """

    flag: bytes


@dataclass(frozen=True, slots=True)
class SequenceKey(SearchKey):
    """The message is in a sequence set, or in a set of UIDs when `uid`; ``$`` (RFC 5182) is `sequence.SAVED`."""

    sequence: SequenceSet
    uid: bool = False


@dataclass(frozen=True, slots=True)
class SizeKey(SearchKey):
    """The message is larger than `size` bytes (LARGER), or smaller when `larger` is False (SMALLER)."""

    larger: bool
    size: int


@dataclass(frozen=True, slots=True)
class DateKey(SearchKey):
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
class AgeKey(SearchKey):
    """INTERNALDATE is older than `seconds` ago (OLDER), or younger when `younger` (YOUNGER) (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class HeaderKey(SearchKey):
    """The header field contains `text` (HEADER). `field` is in upper case; an empty `text` matches any such field."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class EnvelopeKey(SearchKey):
    """The field FROM, TO, CC, BCC or SUBJECT contains `text`, which is compared with the decoded value in ENVELOPE."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class TextKey(SearchKey):
    """The body contains `text` (BODY), or the body or the header does when `headers` (TEXT)."""

    text: str
    headers: bool = False


@dataclass(frozen=True, slots=True)
class ModseqKey(SearchKey):
    """The MODSEQ of the message is at least `modseq` (RFC 7162)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class ObjectIdKey(SearchKey):
    """The message has this EMAILID, or this THREADID when `is_thread_id` (RFC 8474)."""

    is_thread_id: bool
    id: bytes


@dataclass(frozen=True, slots=True)
class Search(Command):
    """SEARCH and UID SEARCH.

    Args:
        key: what to search for.
        uid: whether the command was UID SEARCH.
        returns: the result options (RFC 4731) in upper case, never empty: RETURN () is ``{b"ALL"}``. None means that
            there was no RETURN, and the plain SEARCH response is wanted. SAVE (RFC 5182), UPDATE and CONTEXT
            (RFC 5267) and PARTIAL (RFC 9394) are result options too.
        partial: the range of PARTIAL: (1, 500), or (-1, -500) counted from the last message.
        charset: whether the client named a charset. The texts in `key` are decoded already.
        update_items: the FETCH items of UPDATE (RFC 5465).
    """

    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    charset: bool = field(default=False, compare=False)
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelUpdate(Command):
    """CANCELUPDATE (RFC 5267). `tags` are those of the searches that must send no more updates."""

    tags: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MultiSearch(Command):
    """ESEARCH of the mailboxes in `sources`. The other fields are those of `Search`."""

    sources: tuple[MailboxFilter, ...]
    key: SearchKey
    returns: frozenset[bytes]
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Sort(Command):
    """SORT and UID SORT.

    `criteria` are pairs of (reverse, sort key), the sort key in upper case. The other fields are those of `Search`.
    """

    criteria: tuple[tuple[bool, bytes], ...]
    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Thread(Command):
    """THREAD and UID THREAD; `algorithm` is ORDEREDSUBJECT or REFERENCES."""

    algorithm: bytes
    key: SearchKey
    uid: bool = False
