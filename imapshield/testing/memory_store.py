"""Mail in memory: the reference that says, in the fewest lines, what a store does. For tests, examples and demos."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from zope.interface import implementer

from imapshield.errors import (
    BadMailboxName,
    MailboxExists,
    MessageExpunged,
    NoSuchMailbox,
    NotAllowed,
    QuotaExceeded,
    TooMuchMetadata,
)
from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.mailbox.message_items import MessageItems, date_matches, utc_day
from imapshield.mailbox.storage import IMetadataStore, IQuotaStore, IStore
from imapshield.mailbox.values import (
    MAX_METADATA_ENTRIES,
    AppendResult,
    Blob,
    CopyResult,
    FetchResult,
    MailboxInfo,
    MailboxStatus,
    NewMessage,
    OpenedMailbox,
    Quota,
    ReplaceResult,
)
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.commands.search import DateKey, ObjectIdKey, SearchKey
from imapshield.wire.dates import encode_internaldate
from imapshield.wire.flags import flag_list
from imapshield.wire.names import parent_names
from imapshield.wire.sequence import SequenceSet

LARGEST_STRING = 256 << 10


@dataclass(slots=True)
class _Message:
    uid: int
    flags: bytes
    modseq: int
    internaldate: int
    savedate: int
    content: bytes
    email_id: bytes

    def row(self) -> MessageRow:
        return MessageRow(self.uid, self.flags, self.modseq, len(self.content), self.internaldate)


@dataclass(slots=True)
class _Mailbox:
    key: int
    uidvalidity: int
    special_use: tuple[bytes, ...] = ()
    messages: dict[int, _Message] = field(default_factory=dict)
    vanished: list[tuple[int, int]] = field(default_factory=list)
    modseq: int = 1
    uidnext: int = 1
    recent_from: int = 1
    metadata: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def id(self) -> bytes:
        return b"F%d" % self.key


@implementer(IStore, IQuotaStore, IMetadataStore)
class MemoryStore:
    """A user's mail that is gone with the process.

    Args:
        now: gives seconds since the epoch.
        most_octets, most_messages: the quota; None is no limit.
    """

    def __init__(
        self,
        now: Callable[[], float],
        most_octets: int | None = None,
        most_messages: int | None = None,
    ) -> None:
        self._now = now
        self._most = (most_octets, most_messages)
        self._metadata: dict[bytes, bytes] = {}
        self._numbers = count(1)
        self._uidvalidity = int(now())
        self._boxes: dict[str, _Mailbox] = {}
        self._subscribed: set[str] = set()
        self._add("INBOX")

    def _add(self, name: str, special_use: Sequence[bytes] = ()) -> _Mailbox:
        self._uidvalidity += 1
        box = _Mailbox(next(self._numbers), self._uidvalidity, tuple(special_use))
        self._boxes[name] = box
        return box

    def _box(self, name: str) -> _Mailbox:
        if name not in self._boxes:
            raise NoSuchMailbox
        return self._boxes[name]

    def _by_key(self, key: int) -> _Mailbox:
        for box in self._boxes.values():
            if box.key == key:
                return box
        raise NoSuchMailbox

    def mailboxes(self) -> Iterable[MailboxInfo]:
        """See `IStore`, also for what follows."""
        infos = {n: MailboxInfo(n, True, box.special_use) for n, box in self._boxes.items()}
        for name in self._boxes:
            for parent in parent_names(name):
                infos.setdefault(parent, MailboxInfo(parent, False))
        return [infos[name] for name in sorted(infos)]

    def subscriptions(self) -> set[str]:
        return set(self._subscribed)

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        if subscribed:
            self._subscribed.add(name)
        else:
            self._subscribed.discard(name)

    def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        if not name or "" in name.split("/") or any(ord(c) < 32 for c in name):
            raise BadMailboxName
        if name in self._boxes:
            raise MailboxExists
        for parent in parent_names(name):
            if parent not in self._boxes:
                self._add(parent)
        return self._add(name, special_use).id

    def delete(self, name: str) -> None:
        if name == "INBOX":
            raise NotAllowed
        self._box(name)
        del self._boxes[name]

    def rename(self, old: str, new: str) -> None:
        going = [n for n in self._boxes if n == old or n.startswith(old + "/")]
        if not going:
            raise NoSuchMailbox
        if new in self._boxes:
            raise MailboxExists
        if not new or "" in new.split("/"):
            raise BadMailboxName
        if old == "INBOX":
            box = self._box(old)
            self.create(new, ())
            self._box(new).metadata = dict(box.metadata)
            self.copy(box.key, sorted(box.messages), new, True, 0)
            return
        if new.startswith(old + "/"):
            raise BadMailboxName
        for parent in parent_names(new):
            if parent not in self._boxes:
                self._add(parent)
        for name in going:
            self._boxes[new + name[len(old) :]] = self._boxes.pop(name)

    def status(self, name: str) -> MailboxStatus:
        box = self._box(name)
        flags = [m.flags.split() for m in box.messages.values()]
        return MailboxStatus(
            messages=len(flags),
            recent=sum(uid >= box.recent_from for uid in box.messages),
            unseen=sum(b"\\Seen" not in f for f in flags),
            deleted=sum(b"\\Deleted" in f for f in flags),
            uidnext=box.uidnext,
            uidvalidity=box.uidvalidity,
            highestmodseq=box.modseq,
            size=sum(len(m.content) for m in box.messages.values()),
            mailbox_id=box.id,
            deleted_size=sum(
                len(m.content) for m in box.messages.values() if b"\\Deleted" in m.flags.split()
            ),
        )

    def key(self, name: str) -> int:
        return self._box(name).key

    def open(self, name: str, claim_recent: bool) -> OpenedMailbox:
        box = self._box(name)
        delta = self.changes(box.key, 0, claim_recent)
        return OpenedMailbox(box.key, name, box.uidvalidity, box.id, delta)

    def changes(self, key: int, since: int, claim_recent: bool) -> Delta:
        box = self._by_key(key)
        recent = [u for u in range(box.recent_from, box.uidnext) if u in box.messages]
        if claim_recent:
            box.recent_from = box.uidnext
        return _delta(box, since, recent)

    def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        box = self._box(name)
        self._need(len(messages), sum(new.content.size for new in messages))
        return self._append(box, messages)

    def _append(self, box: _Mailbox, messages: Sequence[NewMessage]) -> AppendResult:
        contents = [new.content.read(0, new.content.size) for new in messages]
        uids = []
        for new, content in zip(messages, contents, strict=True):
            at = int(self._now())
            date = at if new.internaldate is None else new.internaldate
            uids.append(self._put(box, flag_list(new.flags), date, content))
        return AppendResult(box.uidvalidity, uids)

    def _put(
        self, box: _Mailbox, flags: bytes, date: int, content: bytes, email_id: bytes | None = None
    ) -> int:
        uid, box.uidnext = box.uidnext, box.uidnext + 1
        box.modseq += 1
        email_id = email_id or b"M%d" % next(self._numbers)
        box.messages[uid] = _Message(
            uid, flags, box.modseq, date, int(self._now()), content, email_id
        )
        return uid

    def fetch(
        self, key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        box = self._by_key(key)
        found: list[int] = []
        gone: list[int] = []
        columns: list[list[bytes | Blob]] = [[] for _ in items]
        for uid in uids:
            if budget <= 0:
                break
            if uid not in box.messages:
                gone.append(uid)
                continue
            found.append(uid)
            opened = MessageItems(box.messages[uid].content)
            for column, item in zip(columns, items, strict=True):
                value = _answer(box.messages[uid], opened, item)
                budget -= 100 if isinstance(value, Blob) else len(value) + 100
                column.append(value)
        return FetchResult(found, columns, gone)

    def read(self, key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        message = self._by_key(key).messages.get(uid)
        if message is None:
            raise MessageExpunged
        octets = MessageItems(message.content).content(item) or b""
        return octets[offset : offset + size]

    def sizes(self, key: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        messages = self._by_key(key).messages
        return [(uid, len(messages[uid].content)) for uid in uids if uid in messages]

    def store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> tuple[Delta, list[int]]:
        box = self._by_key(key)
        failed = []
        for message in _those(box, uids):
            if unchanged_since is not None and message.modseq > unchanged_since:
                failed.append(message.uid)
                continue
            now = message.flags.split()
            given = {flag.lower() for flag in flags}
            if op == b"+":
                after = flag_list([*now, *flags])
            elif op == b"-":
                after = flag_list([flag for flag in now if flag.lower() not in given])
            else:
                after = flag_list(flags)
            if after != message.flags:
                box.modseq += 1
                message.flags, message.modseq = after, box.modseq
        return _delta(box, since), failed

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> Delta:
        box = self._by_key(key)
        for message in list(_those(box, sorted(box.messages) if uids is None else uids)):
            if b"\\Deleted" in message.flags.split():
                _remove(box, message.uid)
        return _delta(box, since)

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        source, box = self._by_key(key), self._box(target)
        those = list(_those(source, uids))
        if not move:
            if len(those) < len(uids):
                raise MessageExpunged
            self._need(len(those), sum(len(m.content) for m in those))
        went, came = [], []
        for message in those:
            went.append(message.uid)
            came.append(
                self._put(
                    box, message.flags, message.internaldate, message.content, message.email_id
                )
            )
            if move:
                _remove(source, message.uid)
        return CopyResult(box.uidvalidity, went, came, _delta(source, since))

    def replace(
        self, key: int, uid: int, target: str, message: NewMessage, since: int
    ) -> ReplaceResult:
        source, box = self._by_key(key), self._box(target)
        old = next(_those(source, [uid]), None)
        if old is None:
            raise MessageExpunged
        self._need(0, message.content.size - len(old.content))
        appended = self._append(box, [message])
        _remove(source, uid)
        return ReplaceResult(appended, _delta(source, since))

    def search(self, key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        box = self._by_key(key)
        return [message.uid for message in _those(box, uids) if _matches(message, leaf)]

    def watch_paths(self, key: int) -> Sequence[str]:
        self._by_key(key)
        return ()

    def quota(self) -> Quota:
        """See `IQuotaStore`."""
        boxes = self._boxes.values()
        octets = sum(len(m.content) for box in boxes for m in box.messages.values())
        return Quota(octets, sum(len(box.messages) for box in boxes), *self._most)

    def _need(self, messages: int, octets: int) -> None:
        used = self.quota()
        for more, now, most in (
            (octets, used.octets, used.max_octets),
            (messages, used.messages, used.max_messages),
        ):
            if more > 0 and most is not None and now + more > most:
                raise QuotaExceeded

    def metadata(self, name: str) -> dict[bytes, bytes]:
        """See `IMetadataStore`, also for what follows."""
        return dict(self._box(name).metadata if name else self._metadata)

    def set_metadata(self, name: str, values: Mapping[bytes, bytes | None]) -> None:
        kept = {**self.metadata(name), **values}
        after = {entry: value for entry, value in kept.items() if value is not None}
        if len(after) > MAX_METADATA_ENTRIES:
            raise TooMuchMetadata
        if name:
            box = self._box(name)
            box.modseq += after != box.metadata
            box.metadata = after
        else:
            self._metadata = after

    def close(self) -> None:
        """Nothing is held."""


def _those(box: _Mailbox, uids: Iterable[int]) -> Iterator[_Message]:
    return (box.messages[uid] for uid in uids if uid in box.messages)


def _remove(box: _Mailbox, uid: int) -> None:
    del box.messages[uid]
    box.modseq += 1
    box.vanished.append((box.modseq, uid))


def _delta(box: _Mailbox, since: int, recent: Sequence[int] = ()) -> Delta:
    news = box.modseq > since
    return Delta(
        rows=[m.row() for _, m in sorted(box.messages.items()) if m.modseq > since] if news else [],
        vanished=SequenceSet.from_uids(sorted(uid for at, uid in box.vanished if at > since)),
        highestmodseq=box.modseq,
        uidnext=box.uidnext,
        recent=list(recent),
    )


def _answer(message: _Message, opened: MessageItems, item: FetchItem) -> bytes | Blob:
    match item:
        case Attribute(b"SAVEDATE"):
            return encode_internaldate(message.savedate)
        case Attribute(b"EMAILID"):
            return b"(%b)" % message.email_id
        case Attribute(b"THREADID"):
            return b"NIL"
        case Binary(size_only=False) | BodySection():
            octets = opened.content(item)
            if octets is not None and len(octets) > LARGEST_STRING:
                return Blob(message.uid, item, len(octets))
    return opened.value(item)


def _matches(message: _Message, leaf: SearchKey) -> bool:
    match leaf:
        case ObjectIdKey(thread, wanted):
            return not thread and message.email_id == wanted
        case DateKey(how, day, b"SAVED"):
            return date_matches(how, day, utc_day(message.savedate))
    return MessageItems(message.content).matches(leaf)
