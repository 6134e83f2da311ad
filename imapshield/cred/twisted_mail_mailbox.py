"""Adapts an `IMailboxIMAP` of `twisted.mail` to `IMailbox`. `twisted_mail_account` describes the compromises."""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from email.utils import formatdate, mktime_tz, parsedate_tz
from functools import partial
from hashlib import sha256
from io import BytesIO
from math import inf
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.mail import imap4
from twisted.mail.interfaces import IMailboxIMAPListener, IMessageIMAPCopier, IMessageIMAPFile
from zope.interface import implementer

from imapshield.errors import (
    BadCommand,
    CommandRefused,
    MailboxExists,
    MessageExpunged,
    NoSuchMailbox,
    NotAllowed,
)
from imapshield.mailbox import values
from imapshield.mailbox.account_api import IMailbox, Listener
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Change, Delta, MessageRow
from imapshield.mailbox.message_items import MessageItems
from imapshield.mailbox.values import AppendResult, Blob, CopyResult, FetchResult, NewMessage
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.commands.search import DateKey, ObjectIdKey, SearchKey
from imapshield.wire.flags import DELETED, RECENT, canonical_flag, flag_list
from imapshield.wire.sequence import SequenceSet

MAX_STRING_SIZE = 256 << 10
"""Body sections with more bytes are streamed."""

BATCH_SIZE = 50
"""Number of messages that are fetched from the wrapped mailbox at once."""

_LINE_END = re.compile(rb"\r?\n")


async def call(function: Callable[..., Any], *args: object) -> Any:
    """Call a method that returns a value or a Deferred, and convert the exceptions of `twisted.mail` to `errors`."""
    try:
        return await maybeDeferred(function, *args)
    except imap4.NoSuchMailbox:
        raise NoSuchMailbox from None
    except imap4.MailboxCollision:
        raise MailboxExists from None
    except imap4.MailboxException:
        raise NotAllowed from None


class AddedMessage(NamedTuple):
    """A message to add: its bytes, its flag list, and INTERNALDATE in seconds since the epoch or None."""

    content: bytes
    flags: bytes
    internaldate: int | None


OpenMailbox = Callable[[str], Awaitable["TwistedMailMailbox"]]


@implementer(IMailbox, IMailboxIMAPListener)
class TwistedMailMailbox:
    """An `IMailbox` that wraps an `IMailboxIMAP`.

    Args:
        name: the name of the mailbox.
        wrapped: the `IMailboxIMAP`.
        open_mailbox: opens another mailbox of the account for writing; used for the target of COPY.
        now: returns seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self, name: str, wrapped: Any, open_mailbox: OpenMailbox, now: Callable[[], float]
    ) -> None:
        self.name = name
        self.wrapped = wrapped
        self.uidvalidity = int(wrapped.getUIDValidity())
        self.mailbox_id = mailbox_id(name)
        self.columns = Columns()
        self.deleted = False
        self.recent: set[int] = set()
        self._open_mailbox = open_mailbox
        self._now = now
        self._listeners: dict[Listener, bool] = {}
        self._watching = False

    def add_listener(self, listener: Listener, claim_recent: bool) -> None:
        """Report changes to `listener` (`IMailbox.add_listener`)."""
        self._listeners[listener] = claim_recent

    def remove_listener(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners and self._watching:
            self._watching = False
            self.wrapped.removeListener(self)

    async def watch_for_changes(self) -> None:
        if not self._watching:
            self._watching = True
            self.wrapped.addListener(self)

    def modeChanged(self, writeable: bool) -> None:
        """Ignore the change (`IMailboxIMAPListener`). A session keeps the mode in which it selected the mailbox."""

    def flagsChanged(self, *changes: object) -> None:
        """Poll the mailbox (`IMailboxIMAPListener`). The arguments of the notification are not used."""
        polled = Deferred.fromCoroutine(self.poll())
        polled.addErrback(
            lambda failure: self._log.failure("cannot poll {name}", failure=failure, name=self.name)
        )

    newMessages = flagsChanged

    async def poll(self) -> None:
        try:
            await self._poll()
        except NoSuchMailbox:
            self.deleted = True
            for listener in list(self._listeners):
                listener(Change((), (), ()))
            raise

    async def _poll(self) -> None:
        columns = self.columns
        modseq = max(int(self._now() * 1000), columns.highestmodseq + 1)
        rows: list[MessageRow] = []
        uids: set[int] = set()
        for message in await self._messages(imap4.MessageSet(1, None), uid=False):
            uid = int(message.getUID())
            uids.add(uid)
            flags, recent = _flags(message)
            if recent:
                self.recent.add(uid)
            row = columns.row(uid)
            if row is None or columns.flag_lists[columns.flag_ids[row]] != flags:
                rows.append(MessageRow(uid, flags, modseq, None, _date(message, modseq // 1000)))
        vanished = SequenceSet.from_numbers(uid for uid in columns.uids if uid not in uids)
        uidnext = max(int(await call(self.wrapped.getUIDNext)), max(uids, default=0) + 1)
        first = columns.highestmodseq == 1
        highest = modseq if rows or vanished or first else columns.highestmodseq
        rows.sort(key=lambda row: row.uid)
        change = columns.apply(Delta(rows, vanished, highest, uidnext))
        if change.added or change.changed or change.vanished:
            for listener, claims_recent in list(self._listeners.items()):
                recent_uids = [uid for uid in change.added if claims_recent and uid in self.recent]
                listener(Change(change.added, change.changed, change.vanished, recent_uids))

    async def vanished(self, since: int) -> SequenceSet:
        return SequenceSet.complement(self.columns.uids, self.columns.uidnext)

    async def _messages(self, messages: Any, *, uid: bool) -> list[Any]:
        if not await call(self.wrapped.getMessageCount):
            return []
        return [message for _, message in await call(self.wrapped.fetch, messages, uid)]

    async def _messages_by_uid(self, uids: Sequence[int]) -> dict[int, Any]:
        messages = await self._messages(_message_set(uids), uid=True)
        return {int(message.getUID()): message for message in messages}

    async def fetch(
        self, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        fetched: list[int] = []
        expunged: list[int] = []
        unreadable: list[int] = []
        columns: list[list[bytes | Blob]] = [[] for _ in items]
        messages = await self._messages_by_uid(uids[:BATCH_SIZE])
        for uid in uids[:BATCH_SIZE]:
            if budget <= 0:
                break
            if uid not in messages:
                expunged.append(uid)
                continue
            message = MessageItems(await _content(messages[uid]))
            try:
                values = [self._item(uid, message, item) for item in items]
            except CommandRefused:
                raise
            except Exception:
                self._log_undecodable(uid)
                unreadable.append(uid)
                continue
            fetched.append(uid)
            for column, value in zip(columns, values, strict=True):
                budget -= 100 if isinstance(value, Blob) else len(value) + 100
                column.append(value)
        return FetchResult(fetched, columns, expunged, unreadable)

    def _item(self, uid: int, message: MessageItems, item: FetchItem) -> bytes | Blob:
        match item:
            case Attribute(b"SAVEDATE" | b"THREADID"):
                return b"NIL"
            case Attribute(b"EMAILID"):
                return b"(%b-%d-%d)" % (self.mailbox_id, self.uidvalidity, uid)
            case Binary(size_only=False) | BodySection():
                octets = message.content(item)
                if octets is not None and len(octets) > MAX_STRING_SIZE:
                    return Blob(uid, item, len(octets))
        return message.value(item)

    async def read(self, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        messages = await self._messages_by_uid([uid])
        if uid not in messages:
            raise MessageExpunged
        octets = MessageItems(await _content(messages[uid])).content(item) or b""
        return octets[offset : offset + size]

    async def load_sizes(self, uids: Sequence[int]) -> Sequence[int]:
        # getSize() may differ from the size of what FETCH sends, with CRLF line endings.
        for start in range(0, len(uids), BATCH_SIZE):
            messages = await self._messages_by_uid(uids[start : start + BATCH_SIZE])
            self.columns.set_sizes([(uid, len(await _content(m))) for uid, m in messages.items()])
        return ()

    async def store_flags(
        self, uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> values.StoreResult:
        await self.poll()
        rows = [(uid, self.columns.row(uid)) for uid in uids]
        modseqs = {uid: self.columns.modseqs[row] for uid, row in rows if row is not None}
        limit = inf if unchanged_since is None else unchanged_since
        failed = [uid for uid, modseq in modseqs.items() if modseq > limit]
        mode = {b"+": 1, b"-": -1, b"": 0}[op]
        await self._store(modseqs.keys() - failed, [flag.decode("ascii") for flag in flags], mode)
        await self.poll()
        return values.StoreResult(Delta(), failed)

    async def expunge(self, uids: Sequence[int] | None) -> Sequence[int]:
        await self.poll()
        columns = self.columns
        deleted = columns.flag_ids_with(DELETED)
        flags_of_uids = zip(columns.uids, columns.flag_ids, strict=True)
        marked = {uid for uid, flags in flags_of_uids if flags in deleted}
        # IMailboxIMAP has no UID EXPUNGE, so \Deleted is removed temporarily from messages that must stay.
        spared = set() if uids is None else marked.difference(uids)
        await self._store(spared, ["\\Deleted"], -1)
        try:
            await call(self.wrapped.expunge)
        finally:
            await self._store(spared, ["\\Deleted"], 1)
        await self.poll()
        return ()

    async def _store(self, uids: Collection[int], flags: Sequence[str], mode: int) -> None:
        if uids:
            await call(self.wrapped.store, _message_set(uids), flags, mode, True)

    async def copy(self, uids: Sequence[int], target: str, move: bool) -> CopyResult:
        destination = await self._open_mailbox(target)
        messages = await self._messages_by_uid(uids)
        source_uids = [uid for uid in uids if uid in messages]
        if not move and len(source_uids) < len(uids):
            raise MessageExpunged
        if IMessageIMAPCopier.providedBy(destination.wrapped):
            copy = destination.wrapped.copy
            copies = [partial(call, copy, messages[uid]) for uid in source_uids]
            new_uids = await destination.added_uids(copies)
        else:
            added = [await self._added_message(uid, messages[uid]) for uid in source_uids]
            new_uids = (await destination.add(added)).uids
        if move:
            await self._remove(source_uids)
        else:
            await self.poll()
        return CopyResult(destination.uidvalidity, source_uids, new_uids, Delta())

    async def _added_message(self, uid: int, message: Any) -> AddedMessage:
        row = self.columns.row(uid)
        date = None if row is None else self.columns.dates[row]
        return AddedMessage(await _content(message), _flags(message)[0], date)

    async def replace(self, uid: int, target: str, message: NewMessage) -> AppendResult:
        if uid not in await self._messages_by_uid([uid]):
            raise MessageExpunged
        appended = await (await self._open_mailbox(target)).append([message])
        await self._remove([uid])
        return appended

    async def _remove(self, uids: Sequence[int]) -> None:
        await self._store(uids, ["\\Deleted"], 1)
        await self.expunge(uids)

    async def append(self, messages: Sequence[NewMessage]) -> AppendResult:
        """Add `messages` to the wrapped mailbox, and return their UIDs, or no UIDs if they are not known."""
        return await self.add(
            [
                AddedMessage(m.content.read(0, m.content.size), flag_list(m.flags), m.internaldate)
                for m in messages
            ]
        )

    async def add(self, messages: Sequence[AddedMessage]) -> AppendResult:
        """Add `messages` to the wrapped mailbox, and return their UIDs, or no UIDs if they are not known."""
        calls = [
            partial(
                call,
                self.wrapped.addMessage,
                BytesIO(message.content),
                tuple(message.flags.decode("ascii").split()),
                None if message.internaldate is None else formatdate(message.internaldate),
            )
            for message in messages
        ]
        return AppendResult(self.uidvalidity, await self.added_uids(calls))

    async def added_uids(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> list[int]:
        """Run `calls` one after another, and return the UIDs that they added to this mailbox.

        The list is empty if another session changed the mailbox meanwhile, because it is then unknown which are new.
        """
        await self.poll()
        before = set(self.columns.uids)
        for add in calls:
            await add()
        await self.poll()
        added = [uid for uid in self.columns.uids if uid not in before]
        return added if len(added) == len(calls) else []

    async def search(self, uids: Sequence[int], search_key: SearchKey) -> values.SearchResult:
        if isinstance(search_key, ObjectIdKey) or (
            isinstance(search_key, DateKey) and search_key.field == b"SAVED"
        ):
            return values.SearchResult([])
        messages = await self._messages_by_uid(uids)
        matching: list[int] = []
        unreadable: list[int] = []
        for uid in filter(messages.__contains__, uids):
            content = MessageItems(await _content(messages[uid]))
            try:
                if content.matches(search_key):
                    matching.append(uid)
            except Exception:
                self._log_undecodable(uid)
                unreadable.append(uid)
        return values.SearchResult(matching, unreadable)

    def _log_undecodable(self, uid: int) -> None:
        self._log.failure("cannot decode UID {uid} of {name}", uid=uid, name=self.name)


def _message_set(uids: Iterable[int]) -> Any:
    message_set = imap4.MessageSet()
    for uid in uids:
        message_set.add(uid)
    return message_set


async def _content(message: Any) -> bytes:
    """Return the bytes of a message: those of its file if it has one, else assembled from header fields and body."""
    if IMessageIMAPFile.providedBy(message):
        data = (await call(message.open)).read()
    else:
        fields = message.getHeaders(True)
        header = "".join(f"{as_text(name)}: {as_text(value)}\r\n" for name, value in fields.items())
        body = (await call(message.getBodyFile)).read()
        data = header.encode("utf-8", "surrogateescape") + b"\r\n" + body
    return _LINE_END.sub(b"\r\n", data)


def _flags(message: Any) -> tuple[bytes, bool]:
    r"""Return the flag list of a message, without invalid flags, and whether it is \Recent."""
    flags = []
    for flag in message.getFlags():
        try:
            flags.append(canonical_flag(as_text(flag).encode("utf-8", "replace")))
        except BadCommand:
            continue
    return flag_list(flag for flag in flags if flag != RECENT), RECENT in flags


def _date(message: Any, default: int) -> int:
    try:
        parsed = parsedate_tz(as_text(message.getInternalDate()))
        return default if parsed is None else int(mktime_tz(parsed))
    except (ValueError, TypeError, OverflowError, IndexError):
        return default


def as_text(value: str | bytes) -> str:
    """Return a value as text. Implementations of the interfaces of `twisted.mail` return str or bytes."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def mailbox_id(name: str) -> bytes:
    """Return a MAILBOXID (RFC 8474) that is derived from the mailbox name. Different names have different ids."""
    return b"L" + sha256(name.encode("utf-8", "replace")).hexdigest()[:24].encode("ascii")
