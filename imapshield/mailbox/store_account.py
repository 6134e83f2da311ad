"""An account over any `IStore`: keeps the blocking store behind a worker, and its open mailboxes shared and current.

Every method is one hop to the worker. What comes back changes the mailbox's columns on this side, and whoever watches
it hears of that before the method's own caller does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, cast

from zope.interface import Interface, directlyProvides, implementer

from imapshield.errors import NoSuchMailbox, StoreError
from imapshield.mailbox.account_api import IAccount, ICatenate, IMailbox, INotify, Listener
from imapshield.mailbox.columns import Change, Columns, Delta
from imapshield.mailbox.storage import IStore, Worker
from imapshield.mailbox.values import (
    AccountEvent,
    AppendResult,
    CopyResult,
    FetchResult,
    MailboxInfo,
    MailboxStatus,
    NewMessage,
    OpenedMailbox,
    Quota,
)
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey
from imapshield.wire.sequence import SequenceSet

T = TypeVar("T")

KEPT_OPEN = 8
"""Mailboxes of an account whose columns are kept after the last session left: most clients come back to the same."""


class ChangeNotifier(Protocol):
    """Rings when a folder of the file system changes; `maildir.watch` is one."""

    def watch(self, paths: Sequence[str], ring: Callable[[], object]) -> Subscription:
        """Call `ring` whenever something in `paths` may have changed."""


class Subscription(Protocol):
    """What stops a bell."""

    def stop(self) -> None:
        """Ring no more."""


@implementer(IAccount, INotify, ICatenate)
class StoreAccount:
    """One user's account, shared by all the sessions of that user.

    Args:
        user: the name, for logs.
        open_store: makes the store; called in the worker when the first method is.
        worker: where the store lives.
        bell: tells of mail that came from outside; without it clients hear of it when they ask.
        on_idle: called when the last session has left.
        powers: the optional interfaces (`IQuota`, `IMetadata`) whose store interface the store provides.
    """

    def __init__(
        self,
        user: str,
        open_store: Callable[[], IStore],
        worker: Worker,
        bell: ChangeNotifier | None = None,
        on_idle: Callable[[StoreAccount], object] | None = None,
        powers: Iterable[type[Interface]] = (),
    ) -> None:
        directlyProvides(self, *powers)
        self._listeners: dict[Callable[[AccountEvent], None], None] = {}
        self._ropes: dict[str, Subscription] = {}
        self.user = user
        self.sessions = 0
        self.bell = bell
        self._open_store = open_store
        self._worker = worker
        self._on_idle = on_idle
        self._store: IStore | None = None
        self._open: dict[int, StoreMailbox] = {}

    def acquire(self) -> StoreAccount:
        """Another session uses this account."""
        self.sessions += 1
        return self

    def close(self) -> None:
        """A session has left."""
        self.sessions -= 1
        if not self.sessions and self._on_idle is not None:
            self._on_idle(self)

    async def shut_down(self) -> None:
        """Close the store; the account may be used again, and opens it again then."""

        def job() -> None:
            store, self._store = self._store, None
            if store is not None:
                store.close()

        self._open.clear()
        await self._worker.run(job)

    def add_listener(self, listener: Callable[[AccountEvent], None]) -> None:
        """See `INotify`, also for what follows."""
        self._listeners[listener] = None

    def remove_listener(self, listener: Callable[[AccountEvent], None]) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners:
            for rope in self._ropes.values():
                rope.stop()
            self._ropes.clear()

    async def watch_mailboxes(self, names: Iterable[str]) -> None:
        if self.bell is None:
            return
        for name in set(names) - set(self._ropes):
            try:
                paths = await self.run(lambda store, name=name: store.watch_paths(store.key(name)))  # type: ignore[misc]
            except StoreError:  # gone meanwhile, or cannot be read: whoever opens it is told
                continue
            if self._listeners and name not in self._ropes:
                self._ropes[name] = self.bell.watch(
                    list(paths), partial(self.notify_listeners, "messages", name)
                )

    def notify_listeners(
        self, kind: str, name: str, old: str = "", entries: Sequence[bytes] = ()
    ) -> None:
        """Tell the listeners."""
        for listener in list(self._listeners):
            listener(AccountEvent(kind, name, old, entries))

    async def run(self, job: Callable[[IStore], T]) -> T:
        """Run `job` with the store, in the worker."""

        def hop() -> T:
            if self._store is None:
                self._store = self._open_store()
            return job(self._store)

        return await self._worker.run(hop)

    async def mailboxes(self) -> Iterable[MailboxInfo]:
        """See `IAccount`, also for what follows."""
        return await self.run(lambda store: store.mailboxes())

    async def subscriptions(self) -> set[str]:
        return await self.run(lambda store: store.subscriptions())

    async def subscribe(self, name: str, on: bool) -> None:
        await self.run(lambda store: store.subscribe(name, on))
        self.notify_listeners("subscribed" if on else "unsubscribed", name)

    async def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        mailbox_id = await self.run(lambda store: store.create(name, special_use))
        self.notify_listeners("created", name)
        return mailbox_id

    async def delete(self, name: str) -> None:
        await self.run(lambda store: store.delete(name))
        self.notify_listeners("deleted", name)

    async def rename(self, old: str, new: str) -> None:
        await self.run(lambda store: store.rename(old, new))
        self.notify_listeners("renamed", new, old)
        if old == "INBOX":
            return  # stays, emptied
        for mailbox in self._open.values():
            if mailbox.name == old or mailbox.name.startswith(old + "/"):
                mailbox.name = new + mailbox.name[len(old) :]

    async def status(self, name: str) -> MailboxStatus:
        return await self.run(lambda store: store.status(name))

    async def quota(self) -> Quota:
        return await self.run(lambda store: store.quota())  # type: ignore[attr-defined]

    async def metadata(self, name: str) -> dict[bytes, bytes]:
        return await self.run(lambda store: store.metadata(name))  # type: ignore[attr-defined]

    async def set_metadata(self, name: str, values: Mapping[bytes, bytes | None]) -> None:
        await self.run(lambda store: store.set_metadata(name, values))  # type: ignore[attr-defined]
        self.notify_listeners("metadata", name, entries=list(values))

    async def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        return await self.put(name, lambda store: store.append(name, messages))

    async def put(self, name: str, job: Callable[[IStore], T]) -> T:
        """Run a job that brings messages into a mailbox; whoever watches that hears of them in the same hop."""
        watched = [m for m in self._open.values() if m.name == name and m.watched]

        def hop(store: IStore) -> tuple[T, list[Delta | None]]:
            return job(store), [_news(mailbox, store) for mailbox in watched]

        done, deltas = await self.run(hop)
        told = False
        for mailbox, delta in zip(watched, deltas, strict=True):
            if delta is not None:
                mailbox.apply_delta(delta)
                told = True
        if not told:  # as `heard` did
            self.notify_listeners("messages", name)
        return done

    def stored_part(self, mailbox: IMailbox, uid: int, item: FetchItem, size: int) -> LiteralData:
        return StoredPart(self, cast("StoreMailbox", mailbox).key, uid, item, size)

    async def open(self, name: str, claim_recent: bool) -> tuple[IMailbox, frozenset[int]]:
        before = dict(self._open)
        known = {key: mailbox.columns.highestmodseq for key, mailbox in before.items()}

        def job(store: IStore) -> OpenedMailbox | tuple[int, Delta]:
            key = store.key(name)
            if key in known:
                return key, store.changes(key, known[key], claim_recent)
            return store.open(name, claim_recent)

        found = await self.run(job)
        if isinstance(found, OpenedMailbox):
            mailbox = self._open.get(found.key)
            if mailbox is None:
                mailbox = self._open[found.key] = StoreMailbox(self, found)
                recent = mailbox.columns.apply(found.delta).recent
            else:
                recent = mailbox.apply_delta(found.delta, claimed_elsewhere=True)
        else:
            key, delta = found
            # The one used last goes last. Meanwhile another session may have let go of it, or shut the account.
            mailbox = self._open[key] = self._open.pop(key, before[key])
            mailbox.name = name
            recent = mailbox.apply_delta(delta, claimed_elsewhere=True)
        self._let_go()
        return mailbox, frozenset(recent)

    def _let_go(self) -> None:
        idle = [key for key, mailbox in self._open.items() if not mailbox.watched]
        for key in idle[: max(0, len(idle) - KEPT_OPEN)]:
            del self._open[key]

    def lost(self, key: int) -> None:
        """The mailbox was deleted."""
        self._open.pop(key, None)


def _news(mailbox: StoreMailbox, store: IStore) -> Delta | None:
    """What those who watch a mailbox have not heard of, or None where that cannot be said.

    The messages are stored by now: a NO for somebody else's mailbox that has gone would have them sent again.
    """
    try:
        return mailbox.changes(store)
    except StoreError:
        return None


class StoredPart:
    """Part of a stored message as content of a new one (`wire.commands.LiteralData`): read in the worker, by the append."""

    binary = False

    def __init__(
        self, account: StoreAccount, key: int, uid: int, item: FetchItem, size: int
    ) -> None:
        self._account = account
        self._what = key, uid, item
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` octets from `offset`; MessageExpunged."""
        store = self._account._store
        assert store is not None  # it is appending
        return store.read(*self._what, offset, size)

    def close(self) -> None:
        """Nothing is held."""


@implementer(IMailbox)
class StoreMailbox:
    """An open mailbox of a `StoreAccount`."""

    def __init__(self, account: StoreAccount, opened: OpenedMailbox) -> None:
        self.name = opened.name
        self.uidvalidity = opened.uidvalidity
        self.mailbox_id = opened.mailbox_id
        self.columns = Columns()
        self._account = account
        self.key = opened.key
        self._listeners: dict[Listener, bool] = {}
        self._rope: Subscription | None = None
        self._polling = False

    @property
    def watched(self) -> bool:
        """Whether any session has it selected."""
        return bool(self._listeners)

    def subscribe(self, listener: Listener, claim_recent: bool) -> None:
        """See `IMailbox`, also for what follows."""
        self._listeners[listener] = claim_recent

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners and self._rope is not None:
            self._rope.stop()
            self._rope = None

    async def watch_for_changes(self) -> None:
        """Let the account's bell, if it has one, tell of mail from outside while somebody watches."""
        bell = self._account.bell
        if bell is None or self._rope is not None:
            return
        paths = await self._run(lambda store: store.watch_paths(self.key))
        if self._rope is None and self._listeners:
            self._rope = bell.watch(list(paths), self.poll)

    def apply_delta(self, delta: Delta, *, claimed_elsewhere: bool = False) -> Sequence[int]:
        """Take in a delta and tell the listeners; returns what became \\Recent, which `claimed_elsewhere` keeps
        from them."""
        change = self.columns.apply(delta)
        claimer = next((one for one, may in self._listeners.items() if may), None)
        if claimed_elsewhere:
            claimer = None
        if change.added or change.changed or change.vanished or change.recent:
            kind = "messages" if change.added or change.vanished else "flags"
            self._account.notify_listeners(kind, self.name)
            without = Change(change.added, change.changed, change.vanished)
            for listener in list(self._listeners):
                listener(change if listener is claimer else without)
        return change.recent

    async def poll(self) -> None:
        self.apply_delta(await self._run(self.changes))

    def changes(self, store: IStore) -> Delta:
        """Ask `store`, in its worker, for what the columns do not know."""
        claim = any(list(self._listeners.values()))
        return store.changes(self.key, self.columns.highestmodseq, claim)

    async def vanished(self, since: int) -> SequenceSet:
        delta = await self._run(lambda store: store.changes(self.key, since, False))
        self.apply_delta(delta)
        return delta.vanished

    async def fetch(
        self, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        return await self._run(lambda store: store.fetch(self.key, uids, items, budget))

    async def read(self, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        return await self._run(lambda store: store.read(self.key, uid, item, offset, size))

    async def load_sizes(self, uids: Sequence[int]) -> None:
        if uids:
            self.columns.set_sizes(await self._run(lambda store: store.sizes(self.key, uids)))

    async def store_flags(
        self, uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> list[int]:
        since = self.columns.highestmodseq
        delta, failed = await self._run(
            lambda store: store.store_flags(self.key, uids, op, flags, unchanged_since, since)
        )
        self.apply_delta(delta)
        return failed

    async def expunge(self, uids: Sequence[int] | None) -> None:
        since = self.columns.highestmodseq
        self.apply_delta(await self._run(lambda store: store.expunge(self.key, uids, since)))

    async def copy(self, uids: Sequence[int], target: str, move: bool) -> CopyResult:
        since = self.columns.highestmodseq
        # not by _run: NoSuchMailbox says here that the target is not there
        copied = await self._account.put(
            target, lambda store: store.copy(self.key, uids, target, move, since)
        )
        self.apply_delta(copied.delta)
        return copied

    async def replace(self, uid: int, target: str, message: NewMessage) -> AppendResult:
        since = self.columns.highestmodseq
        replaced = await self._account.put(
            target, lambda store: store.replace(self.key, uid, target, message, since)
        )
        self.apply_delta(replaced.delta)
        return replaced.appended

    async def search(self, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        return await self._run(lambda store: store.search(self.key, uids, leaf))

    async def _run(self, job: Callable[[IStore], T]) -> T:
        try:
            return await self._account.run(job)
        except NoSuchMailbox:
            self._account.lost(self.key)
            raise
