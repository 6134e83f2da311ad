"""A mailbox written for `twisted.mail`'s own IMAP server as an `IMailbox`; see `legacy`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from email.utils import formatdate, mktime_tz, parsedate_tz
from hashlib import sha256
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.mail import imap4
from twisted.mail.interfaces import IMailboxIMAPListener, IMessageIMAPCopier, IMessageIMAPFile
from zope.interface import implementer

from imapshield.errors import BadCommand, MailboxExists, MessageGone, NoSuchMailbox, NotAllowed
from imapshield.mailbox.account_api import IMailbox, Listener
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Change, Delta, MessageRow
from imapshield.mailbox.message_items import MessageItems
from imapshield.mailbox.values import AppendResult, Blob, CopyResult, FetchResult, NewMessage
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.commands.search_keys import DateKey, ObjectIdKey, SearchKey
from imapshield.wire.flags import DELETED, RECENT, canonical, flag_list
from imapshield.wire.sequence import SequenceSet

LARGEST_STRING = 256 << 10
PIECE = 50

_BARE_LF = re.compile(rb"\r?\n")


async def ask(call: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    """Call a method that returns a value or a Deferred; its exceptions become ours."""
    try:
        return await maybeDeferred(call, *args, **kwargs)
    except imap4.NoSuchMailbox:
        raise NoSuchMailbox from None
    except imap4.MailboxCollision:
        raise MailboxExists from None
    except imap4.MailboxException:
        raise NotAllowed from None


@implementer(IMailbox, IMailboxIMAPListener)
class TwistedMailMailbox:
    """An `IMailboxIMAP`, called `theirs`, as an `IMailbox`."""

    _log = Logger()

    def __init__(
        self,
        select: Callable[[str, bool], Awaitable[Any]],
        name: str,
        theirs: Any,
        now: Callable[[], float],
    ) -> None:
        self.name = name
        self.theirs = theirs
        self.uidvalidity = int(theirs.getUIDValidity())
        self.mailbox_id = mailbox_id(name)
        self.columns = Columns()
        self.recent: set[int] = set()
        self._select = select
        self._now = now
        self._listeners: dict[Listener, bool] = {}
        self._heard = False

    def subscribe(self, listener: Listener, claim_recent: bool) -> None:
        """See `IMailbox`, also for what follows."""
        self._listeners[listener] = claim_recent

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners and self._heard:
            self._heard = False
            self.theirs.removeListener(self)

    async def watch_for_changes(self) -> None:
        if not self._heard:
            self._heard = True
            self.theirs.addListener(self)

    def modeChanged(self, writeable: bool) -> None:
        """See `IMailboxIMAPListener`, also for what follows: whatever it is, we look ourselves."""

    def flagsChanged(self, newFlags: object) -> None:
        self._look()

    def newMessages(self, exists: object, recent: object) -> None:
        self._look()

    def _look(self) -> None:
        looked = Deferred.fromCoroutine(self.poll())
        looked.addErrback(lambda failure: self._log.failure("legacy mailbox", failure=failure))

    async def poll(self) -> None:
        columns = self.columns
        modseq = max(int(self._now() * 1000), columns.highestmodseq + 1)
        rows: list[MessageRow] = []
        there: set[int] = set()
        for message in await self._messages(imap4.MessageSet(1, None), uid=False):
            uid = int(message.getUID())
            there.add(uid)
            flags, recent = _flags(message)
            if recent:
                self.recent.add(uid)
            row = columns.row(uid)
            if row is None or columns.flag_lists[columns.flag_ids[row]] != flags:
                rows.append(MessageRow(uid, flags, modseq, None, _date(message, modseq // 1000)))
        vanished = SequenceSet.from_uids(uid for uid in columns.uids if uid not in there)
        uidnext = max(int(await ask(self.theirs.getUIDNext)), max(there, default=0) + 1)
        first = columns.highestmodseq == 1
        highest = modseq if rows or vanished or first else columns.highestmodseq
        rows.sort(key=lambda row: row.uid)
        change = columns.apply(Delta(rows, vanished, highest, uidnext))
        if change.added or change.changed or change.vanished:
            for listener, claims in list(self._listeners.items()):
                fresh = [uid for uid in change.added if claims and uid in self.recent]
                listener(Change(change.added, change.changed, change.vanished, fresh))

    async def vanished(self, since: int) -> SequenceSet:
        return SequenceSet.missing(self.columns.uids, self.columns.uidnext)

    async def _messages(self, which: Any, *, uid: bool) -> list[Any]:
        if not await ask(self.theirs.getMessageCount):
            return []
        return [message for _, message in await ask(self.theirs.fetch, which, uid)]

    async def _by_uid(self, uids: Sequence[int]) -> dict[int, Any]:
        found = await self._messages(_set(uids), uid=True)
        return {int(message.getUID()): message for message in found}

    async def fetch(
        self, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        found: list[int] = []
        gone: list[int] = []
        columns: list[list[bytes | Blob]] = [[] for _ in items]
        messages = await self._by_uid(uids[:PIECE])
        for uid in uids[:PIECE]:
            if budget <= 0:
                break
            if uid not in messages:
                gone.append(uid)
                continue
            found.append(uid)
            opened = MessageItems(await _octets(messages[uid]))
            for column, item in zip(columns, items, strict=True):
                value = self._answer(uid, opened, item)
                budget -= 100 if isinstance(value, Blob) else len(value) + 100
                column.append(value)
        return FetchResult(found, columns, gone)

    def _answer(self, uid: int, opened: MessageItems, item: FetchItem) -> bytes | Blob:
        match item:
            case Attribute(b"SAVEDATE" | b"THREADID"):
                return b"NIL"
            case Attribute(b"EMAILID"):
                return b"(%b-%d-%d)" % (self.mailbox_id, self.uidvalidity, uid)
            case Binary(size_only=False) | BodySection():
                octets = opened.content(item)
                if octets is not None and len(octets) > LARGEST_STRING:
                    return Blob(uid, item, len(octets))
        return opened.value(item)

    async def read(self, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        messages = await self._by_uid([uid])
        if uid not in messages:
            raise MessageGone
        octets = MessageItems(await _octets(messages[uid])).content(item) or b""
        return octets[offset : offset + size]

    async def load_sizes(self, uids: Sequence[int]) -> None:
        # not getSize(): it need not be that of the lines which go out
        for start in range(0, len(uids), PIECE):
            found = await self._by_uid(uids[start : start + PIECE])
            self.columns.set_sizes([(uid, len(await _octets(m))) for uid, m in found.items()])

    async def store_flags(
        self, uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> list[int]:
        await self.poll()
        columns = self.columns
        rows = [(uid, columns.row(uid)) for uid in uids]
        failed = [
            uid
            for uid, row in rows
            if row is not None
            and unchanged_since is not None
            and columns.modseqs[row] > unchanged_since
        ]
        left_alone = set(failed)
        chosen = [uid for uid, row in rows if row is not None and uid not in left_alone]
        if chosen:
            mode = {b"+": 1, b"-": -1, b"": 0}[op]
            names = [flag.decode("ascii") for flag in flags]
            await ask(self.theirs.store, _set(chosen), names, mode, True)
        await self.poll()
        return failed

    async def expunge(self, uids: Sequence[int] | None) -> None:
        await self.poll()
        columns = self.columns
        deleted = columns.flag_ids_with(DELETED)
        marked = [uid for uid, f in zip(columns.uids, columns.flag_ids, strict=True) if f in deleted]
        # theirs has no UID EXPUNGE: what is to stay loses its mark meanwhile
        spared = [] if uids is None else sorted(set(marked) - set(uids))
        if spared:
            await ask(self.theirs.store, _set(spared), ["\\Deleted"], -1, True)
        try:
            await ask(self.theirs.expunge)
        finally:
            if spared:
                await ask(self.theirs.store, _set(spared), ["\\Deleted"], 1, True)
        await self.poll()

    async def copy(self, uids: Sequence[int], target: str, move: bool) -> CopyResult:
        there = await self._select(target, True)
        to = TwistedMailMailbox(self._select, target, there, self._now)
        messages = await self._by_uid(uids)
        went = [uid for uid in uids if uid in messages]
        if IMessageIMAPCopier.providedBy(there):
            came = await to.added(
                lambda: _each([lambda m=m: ask(there.copy, m) for m in messages.values()])  # type: ignore[misc]
            )
        else:
            rows = {uid: self.columns.row(uid) for uid in went}
            came = (
                await to.add(
                    [
                        (
                            await _octets(messages[uid]),
                            _flags(messages[uid])[0],
                            None if (row := rows[uid]) is None else self.columns.dates[row],
                        )
                        for uid in went
                    ]
                )
            ).uids
        if move:
            await ask(self.theirs.store, _set(went), ["\\Deleted"], 1, True)
            await self.expunge(went)
        else:
            await self.poll()
        return CopyResult(to.uidvalidity, went, came, Delta())

    async def replace(self, uid: int, target: str, message: NewMessage) -> AppendResult:
        if uid not in await self._by_uid([uid]):
            raise MessageGone
        there = await self._select(target, True)
        to = TwistedMailMailbox(self._select, target, there, self._now)
        appended = await to.add([as_added(message)])
        await ask(self.theirs.store, _set([uid]), ["\\Deleted"], 1, True)
        await self.expunge([uid])
        return appended

    async def add(self, messages: Sequence[tuple[bytes, bytes, int | None]]) -> AppendResult:
        """Store octets, flags and INTERNALDATE of each of `messages`."""
        calls = [
            lambda one=one: ask(
                self.theirs.addMessage,
                BytesIO(one[0]),
                tuple(one[1].decode("ascii").split()),
                None if one[2] is None else formatdate(one[2]),
            )
            for one in messages
        ]
        return AppendResult(self.uidvalidity, await self.added(lambda: _each(calls)))

    async def added(self, work: Callable[[], Awaitable[None]]) -> list[int]:
        """Do `work` and return the UIDs that it added."""
        await self.poll()
        before = set(self.columns.uids)
        await work()
        await self.poll()
        return [uid for uid in self.columns.uids if uid not in before]

    async def search(self, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        if isinstance(leaf, ObjectIdKey) or (isinstance(leaf, DateKey) and leaf.field == b"SAVED"):
            return []
        found = await self._by_uid(uids)
        return [
            uid
            for uid in uids
            if uid in found and MessageItems(await _octets(found[uid])).matches(leaf)
        ]


def as_added(message: NewMessage) -> tuple[bytes, bytes, int | None]:
    """A new message as `TwistedMailMailbox.add` takes it."""
    content = message.content
    return content.read(0, content.size), flag_list(message.flags), message.internaldate


async def _each(calls: Iterable[Callable[[], Awaitable[object]]]) -> None:
    for call in calls:
        await call()


def _set(uids: Iterable[int]) -> Any:
    chosen = imap4.MessageSet()
    for uid in uids:
        chosen.add(uid)
    return chosen


async def _octets(message: Any) -> bytes:
    """A message as it goes out, from its file if it has one, or else put together."""
    if IMessageIMAPFile.providedBy(message):
        data = (await ask(message.open)).read()
    else:
        fields = message.getHeaders(True)
        head = "".join(f"{text(name)}: {text(value)}\r\n" for name, value in fields.items())
        body = (await ask(message.getBodyFile)).read()
        data = head.encode("utf-8", "surrogateescape") + b"\r\n" + body
    return _BARE_LF.sub(b"\r\n", data)


def _flags(message: Any) -> tuple[bytes, bool]:
    r"""The flags of a message, and whether it is \Recent. What cannot be a flag is left out."""
    found = []
    for flag in message.getFlags():
        try:
            found.append(canonical(text(flag).encode("utf-8", "replace")))
        except BadCommand:
            continue
    return flag_list(flag for flag in found if flag != RECENT), RECENT in found


def _date(message: Any, default: int) -> int:
    try:
        parsed = parsedate_tz(text(message.getInternalDate()))
        return default if parsed is None else int(mktime_tz(parsed))
    except (ValueError, TypeError, OverflowError, IndexError):
        return default


def text(value: str | bytes) -> str:
    """Return what old code may give as either."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def mailbox_id(name: str) -> bytes:
    """Make up a MAILBOXID (RFC 8474); that of another name is another."""
    return b"L" + sha256(name.encode("utf-8", "replace")).hexdigest()[:24].encode("ascii")
