"""One mailbox and one message of a `MemoryStore`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.mailbox.message_items import MessageItems, date_matches, utc_day
from imapshield.mailbox.values import Blob
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.commands.search import DateKey, ObjectIdKey, SearchKey
from imapshield.wire.dates import encode_internaldate
from imapshield.wire.sequence import SequenceSet

MAX_STRING_SIZE = 256 << 10
"""The longest string, in bytes, that a FETCH item returns whole; a longer one is a `Blob`."""


@dataclass(slots=True)
class StoredMessage:
    """A message, with its flags as a FETCH response shows them and its dates in seconds since the epoch."""

    uid: int
    flags: bytes
    modseq: int
    internaldate: int
    savedate: int
    content: bytes
    email_id: bytes

    def has(self, flag: bytes) -> bool:
        """Return whether the message has `flag`. The letter case must be that of the stored flag."""
        return flag in self.flags.split()

    def row(self) -> MessageRow:
        """The message as a row of `Columns`."""
        return MessageRow(self.uid, self.flags, self.modseq, len(self.content), self.internaldate)

    def item_values(self, parsed: MessageItems, items: Sequence[FetchItem]) -> list[bytes | Blob]:
        """The values of FETCH items; `parsed` is this message's content."""
        return [self.item_value(parsed, item) for item in items]

    def item_value(self, parsed: MessageItems, item: FetchItem) -> bytes | Blob:
        """The value of a FETCH item; `parsed` is this message's content."""
        match item:
            case Attribute(b"SAVEDATE"):
                return encode_internaldate(self.savedate)
            case Attribute(b"EMAILID"):
                return b"(%b)" % self.email_id
            case Attribute(b"THREADID"):
                return b"NIL"
            case Binary(size_only=False) | BodySection():
                octets = parsed.content(item)
                if octets is not None and len(octets) > MAX_STRING_SIZE:
                    return Blob(self.uid, item, len(octets))
        return parsed.value(item)

    def matches(self, parsed: MessageItems, leaf: SearchKey) -> bool:
        """Whether a search key that needs the message's content, `parsed`, or its identifiers matches."""
        match leaf:
            case ObjectIdKey(thread, object_id):
                return not thread and self.email_id == object_id
            case DateKey(comparison, day, b"SAVED"):
                return date_matches(comparison, day, utc_day(self.savedate))
        return parsed.matches(leaf)


@dataclass(slots=True)
class MemoryMailbox:
    """A mailbox: its messages by UID, and which UIDs vanished at which MODSEQ."""

    key: int
    uidvalidity: int
    special_use: tuple[bytes, ...] = ()
    messages: dict[int, StoredMessage] = field(default_factory=dict)
    vanished: list[tuple[int, int]] = field(default_factory=list)  # (modseq, uid)
    modseq: int = 1
    uidnext: int = 1
    recent_from: int = 1  # UIDs from here on are \Recent to the session that claims them
    metadata: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def id(self) -> bytes:
        """The MAILBOXID (RFC 8474)."""
        return b"F%d" % self.key

    def existing(self, uids: Iterable[int]) -> Iterator[StoredMessage]:
        """The messages of those `uids` that exist, in the order of `uids`."""
        return (self.messages[uid] for uid in uids if uid in self.messages)

    def remove(self, uid: int) -> None:
        """Remove a message and remember that it vanished."""
        del self.messages[uid]
        self.modseq += 1
        self.vanished.append((self.modseq, uid))

    def delta(self, since: int, recent: Sequence[int] = ()) -> Delta:
        """Everything that changed after MODSEQ `since`."""
        messages = sorted(self.messages.items()) if self.modseq > since else []
        vanished = sorted(uid for modseq, uid in self.vanished if modseq > since)
        return Delta(
            rows=[message.row() for _, message in messages if message.modseq > since],
            vanished=SequenceSet.from_numbers(vanished),
            highestmodseq=self.modseq,
            uidnext=self.uidnext,
            recent=list(recent),
        )
