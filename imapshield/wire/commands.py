"""What a client can ask for: one frozen value per command, built by `wire.grammar` and by tests.

Names are RFC 9051's. Mailbox names are `str`, already decoded from modified UTF-7 or UTF-8 and with
INBOX folded (`wire.names`). Flags are canonical `bytes` (`wire.flags`). Dates are `datetime.date`,
instants are integer seconds since the epoch plus the zone they were written in, where the zone
matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from imapshield.wire.sequence import SequenceSet


class Octets(Protocol):
    """A literal's content, wherever the edge put it: in memory, or in a file for a large APPEND."""

    binary: bool
    """Whether it came as literal8, ``~{n}`` (RFC 3516), and may hold NUL."""

    @property
    def size(self) -> int:
        """How many octets there are."""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` octets from `offset`; fewer only at the end."""

    def close(self) -> None:
        """Release what holds them; they cannot be read any more."""


@dataclass(slots=True)
class Memory:
    """Octets held in memory; `content` is all of them."""

    content: bytes
    binary: bool = False

    @property
    def size(self) -> int:
        """How many octets there are."""
        return len(self.content)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` octets from `offset`; fewer only at the end."""
        return self.content[offset : offset + size]

    def close(self) -> None:
        """Do nothing: memory needs no release."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Bytes that no log, repr or traceback may show."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"


class Command:
    """Base of all commands. ``UID FETCH`` is ``FETCH`` with `uid` set.

    Where a command takes a `SequenceSet`, ``$`` (RFC 5182) is `sequence.SAVED`.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Simple(Command):
    """A command without arguments: CAPABILITY NOOP LOGOUT STARTTLS NAMESPACE CHECK CLOSE IDLE."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Id(Command):
    """ID (RFC 2971): field names and values; None is NIL."""

    fields: tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Enable(Command):
    """ENABLE (RFC 5161): capability names, upper case."""

    capabilities: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Login(Command):
    """LOGIN user password."""

    user: bytes
    password: Secret


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """AUTHENTICATE; the initial response is decoded, ``=`` is empty, None is absent."""

    mechanism: bytes
    initial: Secret | None


@dataclass(frozen=True, slots=True)
class Qresync:
    """The QRESYNC parameter of SELECT (RFC 7162 section 3.2.5)."""

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None = None
    match_sequence: SequenceSet | None = None
    match_uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT, or EXAMINE when `readonly`."""

    mailbox: str
    readonly: bool = False
    condstore: bool = False
    qresync: Qresync | None = None


@dataclass(frozen=True, slots=True)
class Create(Command):
    """CREATE; `special_use` are the USE attributes of RFC 6154."""

    mailbox: str
    special_use: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """DELETE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RENAME old new."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """SUBSCRIBE, or UNSUBSCRIBE when not `on`."""

    mailbox: str
    on: bool = True


@dataclass(frozen=True, slots=True)
class List(Command):
    r"""LIST, with RFC 5258's selection and return options (upper case); LSUB when `lsub`.

    `patterns` are decoded like names, wildcards kept. `status_items` belongs to RETURN (STATUS (…))
    of RFC 5819. `extended` says that the extended syntax was used, in which case \HasChildren and
    friends follow RFC 5258.
    """

    reference: str
    patterns: tuple[str, ...]
    lsub: bool = False
    selection: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status_items: tuple[bytes, ...] = ()
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Status(Command):
    """STATUS mailbox (items), items in upper case."""

    mailbox: str
    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND.

    `internaldate` in epoch seconds with `zone` minutes east of UTC, None is now. `content` of
    CATENATE (RFC 4469) are its parts: octets, and URLs as `bytes`.
    """

    flags: tuple[bytes, ...]
    internaldate: int | None
    content: Octets | tuple[Octets | bytes, ...]
    zone: int = 0


@dataclass(frozen=True, slots=True)
class Append(Command):
    """APPEND, several messages with MULTIAPPEND (RFC 3502)."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class Replace(Command):
    """REPLACE and UID REPLACE (RFC 8508) of the one message `number`; None is ``*``."""

    number: int | None
    mailbox: str
    message: AppendMessage
    uid: bool = False


@dataclass(frozen=True, slots=True)
class Compress(Command):
    """COMPRESS (RFC 4978)."""

    algorithm: bytes


@dataclass(frozen=True, slots=True)
class GetQuota(Command):
    """GETQUOTA (RFC 9208)."""

    root: bytes


@dataclass(frozen=True, slots=True)
class GetQuotaRoot(Command):
    """GETQUOTAROOT."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class SetQuota(Command):
    """SETQUOTA: the limits of resources, named in upper case."""

    root: bytes
    limits: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class GetMetadata(Command):
    """GETMETADATA (RFC 5464); `mailbox` "" is the server.

    `entries` in lower case; `most` is MAXSIZE; `depth` None is infinity.
    """

    mailbox: str
    entries: tuple[bytes, ...]
    most: int | None = None
    depth: int | None = 0


@dataclass(frozen=True, slots=True)
class SetMetadata(Command):
    """SETMETADATA: values by entry, None removes."""

    mailbox: str
    values: tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Expunge(Command):
    """EXPUNGE, or UID EXPUNGE of `uids` (RFC 4315)."""

    uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """What stands between the brackets of BODY[…]: part numbers, a text, header fields.

    `text` is b"" (all of the part), HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME.
    `fields` are as the client wrote them; compare them without case.
    """

    path: tuple[int, ...] = ()
    text: bytes = b""
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribute:
    """A FETCH item of one word.

    UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE MODSEQ …

    RFC822, RFC822.HEADER and RFC822.TEXT are `BodySection` with `label` set.
    """

    name: bytes


@dataclass(frozen=True, slots=True)
class BodySection:
    """BODY[section]<partial> and its PEEK.

    `label` is how the answer names it when that is not BODY[…].
    """

    section: Section
    peek: bool = False
    partial: tuple[int, int] | None = None
    label: bytes | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    """BINARY[part], BINARY.PEEK[part] or BINARY.SIZE[part] (RFC 3516)."""

    path: tuple[int, ...]
    peek: bool = False
    partial: tuple[int, int] | None = None
    size_only: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """PREVIEW [(LAZY)] (RFC 8970)."""

    lazy: bool = False


FetchItem = Attribute | BodySection | Binary | Preview


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """FETCH and UID FETCH; macros are expanded.

    CHANGEDSINCE and VANISHED are RFC 7162, PARTIAL is RFC 9394.
    """

    sequence: SequenceSet
    items: tuple[FetchItem, ...]
    uid: bool = False
    changed_since: int | None = None
    vanished: bool = False
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Store(Command):
    """STORE and UID STORE; `op` is b"+", b"-" or b"" (replace)."""

    sequence: SequenceSet
    op: bytes
    flags: tuple[bytes, ...]
    silent: bool = False
    uid: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """COPY and UID COPY, or MOVE (RFC 6851) when `move`."""

    sequence: SequenceSet
    mailbox: str
    uid: bool = False
    move: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of `keys`; of none, everything (ALL)."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """OR."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """NOT."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class HasFlag:
    r"""SEEN, KEYWORD x and so on; \Recent too.

    UNSEEN is Not(HasFlag(…)); NEW is AllOf(RECENT, UNSEEN).
    """

    flag: bytes


@dataclass(frozen=True, slots=True)
class InSet:
    """A sequence set, or UID set when `uid`. A `sequence` of None is ``$`` (RFC 5182)."""

    sequence: SequenceSet | None
    uid: bool = False


@dataclass(frozen=True, slots=True)
class SizeIs:
    """LARGER (`more`) or SMALLER than `octets`."""

    more: bool
    octets: int


@dataclass(frozen=True, slots=True)
class DateIs:
    """BEFORE ON SINCE, of `field` INTERNAL, SENT (SENTBEFORE …) or SAVED (SAVEDBEFORE …).

    `how` is b"BEFORE", b"ON" or b"SINCE".
    """

    how: bytes
    day: date
    field: bytes = b"INTERNAL"


@dataclass(frozen=True, slots=True)
class AgeIs:
    """OLDER or YOUNGER (`younger`) than `seconds` (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class HeaderHas:
    """HEADER field text: in the field as it was written. `field` is in upper case.

    An empty `text` asks that the field be there.
    """

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class EnvelopeHas:
    """FROM TO CC BCC SUBJECT (`field`) text: in what ENVELOPE shows, decoded."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class TextHas:
    """BODY text, or TEXT (`headers` too)."""

    text: str
    headers: bool = False


@dataclass(frozen=True, slots=True)
class ModseqIs:
    """MODSEQ n: changed at or after (RFC 7162)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class ObjectIs:
    """EMAILID or THREADID (RFC 8474)."""

    thread: bool
    id: bytes


SearchKey = (
    AllOf
    | AnyOf
    | Not
    | HasFlag
    | InSet
    | SizeIs
    | DateIs
    | AgeIs
    | HeaderHas
    | EnvelopeHas
    | TextHas
    | ModseqIs
    | ObjectIs
)


@dataclass(frozen=True, slots=True)
class Search(Command):
    """SEARCH and UID SEARCH.

    `returns` None is the plain form, otherwise RFC 4731's options in upper case.

    RETURN () is ``frozenset({b"ALL"})``. SAVE (RFC 5182) is one of `returns`, and so are UPDATE and
    CONTEXT (RFC 5267) and PARTIAL (RFC 9394), whose range is `partial`: (1, 500), or (-1, -500) from
    the last message back. `update` are the FETCH items of UPDATE (RFC 5465).
    `charset` says that there was one; what it was is gone into the texts.
    """

    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    charset: bool = field(default=False, compare=False)
    update: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelUpdate(Command):
    """CANCELUPDATE (RFC 5267): the tags of searches with UPDATE."""

    tags: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MailboxFilter:
    """Which mailboxes a NOTIFY or an ESEARCH means: `kind` in upper case, and `names` where it takes some."""

    kind: bytes
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EventGroup:
    """What a NOTIFY wants to be told of some mailboxes: `events` in upper case, none for NONE.

    `items` are those of MessageNew, to be fetched of what is new in the selected mailbox.
    """

    which: MailboxFilter
    events: frozenset[bytes]
    items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Notify(Command):
    """NOTIFY SET (RFC 5465), with STATUS when `status`; NOTIFY NONE without `groups`."""

    groups: tuple[EventGroup, ...]
    status: bool = False


@dataclass(frozen=True, slots=True)
class MultiSearch(Command):
    """ESEARCH (RFC 7377); see `Search`."""

    sources: tuple[MailboxFilter, ...]
    key: SearchKey
    returns: frozenset[bytes]
    partial: tuple[int, int] | None = None
    update: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Sort(Command):
    """SORT and UID SORT (RFC 5256): `criteria` are (reverse, key) pairs, key in upper case; see `Search`."""

    criteria: tuple[tuple[bool, bytes], ...]
    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Thread(Command):
    """THREAD and UID THREAD (RFC 5256): `algorithm` in upper case."""

    algorithm: bytes
    key: SearchKey
    uid: bool = False
