"""A store that keeps one user's mail in memory: the shortest complete implementation of `IStore`.

Use it in tests and examples, and read it to learn what a store does. It parses a message again for each command and
never forgets which messages vanished, so it is neither fast nor small.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

from zope.interface import implementer

from imapshield.errors import (
    BadMailboxName,
    CommandRefused,
    MailboxExists,
    MessageExpunged,
    NoSuchMailbox,
    NotAllowed,
    QuotaExceeded,
    StoreIOError,
    TooMuchMetadata,
)
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.message_items import MessageItems
from imapshield.mailbox.query import MESSAGE_BODIES_PER_CALL
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
    SearchResult,
    SizesResult,
    StoreResult,
)
from imapshield.testing.memory_mailbox import MemoryMailbox, StoredMessage
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search import SearchKey, TextKey
from imapshield.wire.flags import flag_list
from imapshield.wire.names import parent_names


def _check_name(name: str) -> None:
    """Raise `BadMailboxName` if no mailbox can have this name."""
    if "" in name.split("/") or any(ord(c) < 32 for c in name):
        raise BadMailboxName


@implementer(IStore, IQuotaStore, IMetadataStore)
class MemoryStore:
    """One user's mail, which is lost with the object. Each method is documented where its interface declares it.

    Args:
        now: returns the time in seconds since the epoch.
        max_bytes: the quota in bytes; None for no limit.
        max_messages: the quota in messages; None for no limit.

    Attributes:
        damaged: UIDs of messages that cannot be read, changed or copied, in any mailbox. A test adds them.
    """

    def __init__(
        self,
        now: Callable[[], float],
        max_bytes: int | None = None,
        max_messages: int | None = None,
    ) -> None:
        self._now = now
        self.damaged: set[int] = set()
        self._quota_limits = (max_bytes, max_messages)
        self._metadata: dict[bytes, bytes] = {}
        self._ids = count(1)
        self._uidvalidity = int(now())
        self._mailboxes: dict[str, MemoryMailbox] = {}
        self._subscribed: set[str] = set()
        self._add("INBOX")

    def _add(self, name: str, special_use: Sequence[bytes] = ()) -> MemoryMailbox:
        self._uidvalidity += 1
        mailbox = MemoryMailbox(next(self._ids), self._uidvalidity, tuple(special_use))
        self._mailboxes[name] = mailbox
        return mailbox

    def _add_parents(self, name: str) -> None:
        for parent in parent_names(name):
            if parent not in self._mailboxes:
                self._add(parent)

    def _by_name(self, name: str) -> MemoryMailbox:
        if name not in self._mailboxes:
            raise NoSuchMailbox
        return self._mailboxes[name]

    def _by_key(self, key: int) -> MemoryMailbox:
        for mailbox in self._mailboxes.values():
            if mailbox.key == key:
                return mailbox
        raise NoSuchMailbox

    # IStore: mailboxes

    def mailboxes(self) -> Iterable[MailboxInfo]:
        infos = {n: MailboxInfo(n, True, m.special_use) for n, m in self._mailboxes.items()}
        for name in self._mailboxes:
            for parent in parent_names(name):
                infos.setdefault(parent, MailboxInfo(parent, False))
        return [infos[name] for name in sorted(infos)]

    def subscriptions(self) -> set[str]:
        return set(self._subscribed)

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        if subscribed:
            _check_name(name)
            self._subscribed.add(name)
        else:
            self._subscribed.discard(name)

    def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        _check_name(name)
        if name in self._mailboxes:
            raise MailboxExists
        self._add_parents(name)
        return self._add(name, special_use).id

    def delete(self, name: str) -> None:
        if name == "INBOX":
            raise NotAllowed
        self._by_name(name)
        del self._mailboxes[name]

    def rename(self, old: str, new: str) -> None:
        _check_name(new)
        affected = [name for name in self._mailboxes if name == old or name.startswith(old + "/")]
        if not affected:
            raise NoSuchMailbox
        if old == "INBOX":
            inbox = self._by_name(old)
            self.create(new, ())
            self._by_name(new).metadata = dict(inbox.metadata)
            self.copy(inbox.key, sorted(inbox.messages), new, True, 0)
            return
        if new.startswith(old + "/"):
            raise BadMailboxName
        renames = {name: new + name[len(old) :] for name in affected}
        if not self._mailboxes.keys().isdisjoint([new, *renames.values()]):
            raise MailboxExists
        self._add_parents(new)
        for name, renamed in renames.items():
            self._mailboxes[renamed] = self._mailboxes.pop(name)

    def status(self, name: str) -> MailboxStatus:
        mailbox = self._by_name(name)
        messages = mailbox.messages.values()
        deleted = [message for message in messages if message.has(b"\\Deleted")]
        return MailboxStatus(
            messages=len(messages),
            recent=sum(uid >= mailbox.recent_from for uid in mailbox.messages),
            unseen=sum(not message.has(b"\\Seen") for message in messages),
            deleted=len(deleted),
            uidnext=mailbox.uidnext,
            uidvalidity=mailbox.uidvalidity,
            highestmodseq=mailbox.modseq,
            size=sum(len(message.content) for message in messages),
            mailbox_id=mailbox.id,
            deleted_size=sum(len(message.content) for message in deleted),
        )

    def mailbox_key(self, name: str) -> int:
        return self._by_name(name).key

    def open(self, name: str, claim_recent: bool) -> OpenedMailbox:
        mailbox = self._by_name(name)
        delta = self.changes(mailbox.key, 0, claim_recent)
        return OpenedMailbox(mailbox.key, name, mailbox.uidvalidity, mailbox.id, delta)

    def changes(self, key: int, since: int, claim_recent: bool) -> Delta:
        mailbox = self._by_key(key)
        recent = [
            uid for uid in range(mailbox.recent_from, mailbox.uidnext) if uid in mailbox.messages
        ]
        if claim_recent:
            mailbox.recent_from = mailbox.uidnext
        return mailbox.delta(since, recent)

    # IStore: messages

    def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        mailbox = self._by_name(name)
        self._check_quota(len(messages), sum(new.content.size for new in messages))
        return self._append(mailbox, messages)

    def _append(self, mailbox: MemoryMailbox, messages: Sequence[NewMessage]) -> AppendResult:
        contents = [new.content.read(0, new.content.size) for new in messages]
        uids = []
        for new, content in zip(messages, contents, strict=True):
            date = int(self._now()) if new.internaldate is None else new.internaldate
            uids.append(self._add_message(mailbox, flag_list(new.flags), date, content))
        return AppendResult(mailbox.uidvalidity, uids)

    def _add_message(
        self,
        mailbox: MemoryMailbox,
        flags: bytes,
        date: int,
        content: bytes,
        email_id: bytes | None = None,
    ) -> int:
        uid, mailbox.uidnext = mailbox.uidnext, mailbox.uidnext + 1
        mailbox.modseq += 1
        email_id = email_id or b"M%d" % next(self._ids)
        mailbox.messages[uid] = StoredMessage(
            uid, flags, mailbox.modseq, date, int(self._now()), content, email_id
        )
        return uid

    def fetch(
        self, key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        mailbox = self._by_key(key)
        found: list[int] = []
        gone: list[int] = []
        unreadable: list[int] = []
        columns: list[list[bytes | Blob]] = [[] for _ in items]
        for uid in uids:
            if budget <= 0:
                break
            if uid not in mailbox.messages:
                gone.append(uid)
                continue
            message = mailbox.messages[uid]
            try:
                values = message.item_values(self._content(message), items)
            except CommandRefused:
                raise
            except Exception:
                unreadable.append(uid)
                continue
            found.append(uid)
            for column, value in zip(columns, values, strict=True):
                budget -= 100 if isinstance(value, Blob) else len(value) + 100
                column.append(value)
        return FetchResult(found, columns, gone, unreadable)

    def _content(self, message: StoredMessage) -> MessageItems:
        """The content of a message, or a `StoreIOError` if it is damaged."""
        if message.uid in self.damaged:
            raise StoreIOError
        return MessageItems(message.content)

    def read(self, key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        message = self._by_key(key).messages.get(uid)
        if message is None:
            raise MessageExpunged
        octets = self._content(message).content(item) or b""
        return octets[offset : offset + size]

    def sizes(self, key: int, uids: Sequence[int]) -> SizesResult:
        messages = self._by_key(key).existing(uids)
        return SizesResult([(message.uid, len(message.content)) for message in messages])

    def store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> StoreResult:
        mailbox = self._by_key(key)
        modified = []
        failed = []
        lowered = {flag.lower() for flag in flags}
        for message in mailbox.existing(uids):
            if unchanged_since is not None and message.modseq > unchanged_since:
                modified.append(message.uid)
                continue
            if message.uid in self.damaged:
                failed.append(message.uid)
                continue
            before = message.flags.split()
            if op == b"+":
                after = flag_list([*before, *flags])
            elif op == b"-":
                after = flag_list([flag for flag in before if flag.lower() not in lowered])
            else:
                after = flag_list(flags)
            if after != message.flags:
                mailbox.modseq += 1
                message.flags, message.modseq = after, mailbox.modseq
        return StoreResult(mailbox.delta(since), modified, failed)

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> StoreResult:
        mailbox = self._by_key(key)
        for message in list(mailbox.existing(sorted(mailbox.messages) if uids is None else uids)):
            if message.has(b"\\Deleted"):
                mailbox.remove(message.uid)
        return StoreResult(mailbox.delta(since))

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        source, destination = self._by_key(key), self._by_name(target)
        found = list(source.existing(uids))
        messages = [message for message in found if message.uid not in self.damaged]
        failed = [message.uid for message in found if message.uid in self.damaged]
        if not move:
            if len(found) < len(uids):
                raise MessageExpunged
            self._check_quota(len(messages), sum(len(message.content) for message in messages))
        target_uids = []
        for m in messages:
            target_uids.append(
                self._add_message(destination, m.flags, m.internaldate, m.content, m.email_id)
            )
            if move:
                source.remove(m.uid)
        source_uids = [message.uid for message in messages]
        return CopyResult(
            destination.uidvalidity, source_uids, target_uids, source.delta(since), failed
        )

    def replace(
        self, key: int, uid: int, target: str, message: NewMessage, since: int
    ) -> ReplaceResult:
        source, destination = self._by_key(key), self._by_name(target)
        old = source.messages.get(uid)
        if old is None:
            raise MessageExpunged
        self._check_quota(0, message.content.size - len(old.content))
        appended = self._append(destination, [message])
        source.remove(uid)
        return ReplaceResult(appended, source.delta(since))

    def search(self, key: int, uids: Sequence[int], search_key: SearchKey) -> SearchResult:
        matching: list[int] = []
        unreadable: list[int] = []
        part = uids[:MESSAGE_BODIES_PER_CALL] if isinstance(search_key, TextKey) else uids
        for message in self._by_key(key).existing(part):
            try:
                if message.matches(self._content(message), search_key):
                    matching.append(message.uid)
            except Exception:
                unreadable.append(message.uid)
        return SearchResult(matching, unreadable, None if part is uids else len(part))

    def watch_paths(self, key: int) -> Sequence[str]:
        self._by_key(key)
        return ()

    def mailbox_paths(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {}

    def close(self) -> None:
        """Do nothing: the store holds no files."""

    # IQuotaStore and IMetadataStore

    def quota(self) -> Quota:
        messages = [m for mailbox in self._mailboxes.values() for m in mailbox.messages.values()]
        used_bytes = sum(len(message.content) for message in messages)
        return Quota(used_bytes, len(messages), *self._quota_limits)

    def _check_quota(self, messages: int, octets: int) -> None:
        quota = self.quota()
        for added, used, limit in (
            (octets, quota.octets, quota.max_octets),
            (messages, quota.messages, quota.max_messages),
        ):
            if added > 0 and limit is not None and used + added > limit:
                raise QuotaExceeded

    def metadata(self, name: str, entries: Sequence[bytes] | None = None) -> dict[bytes, bytes]:
        stored = self._by_name(name).metadata if name else self._metadata
        return {e: v for e, v in stored.items() if entries is None or e in entries}

    def metadata_sizes(self, name: str) -> dict[bytes, int]:
        return {entry: len(value) for entry, value in sorted(self.metadata(name).items())}

    def set_metadata(self, name: str, entries: Mapping[bytes, bytes | None]) -> None:
        merged = {**self.metadata(name), **entries}
        after = {entry: value for entry, value in merged.items() if value is not None}
        if len(after) > MAX_METADATA_ENTRIES:
            raise TooMuchMetadata
        if name:
            mailbox = self._by_name(name)
            mailbox.modseq += after != mailbox.metadata
            mailbox.metadata = after
        else:
            self._metadata = after
