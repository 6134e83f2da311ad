"""An account over any `IStore`: runs the blocking store in a worker and shares open mailboxes between sessions.

Rules
-----
* Every awaiting method makes one call in the worker, so a command costs at most one thread hop. A short call of a store
  that permits it runs in the reactor's thread (`in_place`): then the method returns without suspending its caller.
* `watch_mailboxes` makes one call for `MAILBOXES_PER_CALL` mailboxes, and other connections are served between these
  calls.
* Results are applied to the columns of open mailboxes on the reactor's thread. Listeners of a mailbox are notified
  before the method that caused the change returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, TypeVar, cast

from zope.interface import Interface, directlyProvides, implementer

from imapshield.errors import NoSuchMailbox, StoreBusy, StoreError
from imapshield.mailbox import values
from imapshield.mailbox.account_api import IAccount, ICatenate, IMailbox, INotify
from imapshield.mailbox.copy_rate import CopyRate
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.in_place import OCTETS_IN_PLACE
from imapshield.mailbox.prefixed_store import PrefixedStore
from imapshield.mailbox.request import check_wanted, current_request
from imapshield.mailbox.storage import IStore
from imapshield.mailbox.store_helpers import (
    ChangeNotifier,
    ShortKind,
    StoredPart,
    Subscription,
    Worker,
    release_memory_of,
    volumes_of,
)
from imapshield.mailbox.store_mailbox import StoreMailbox
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.fetch import FetchItem

T = TypeVar("T")

MAX_UNUSED_MAILBOXES = 8
"""Mailboxes of an account whose columns are kept after the last session left: most clients return to the same few."""

MAILBOXES_PER_CALL = 100
"""Mailboxes that are watched for NOTIFY at once: some milliseconds of the reactor's thread."""


@implementer(IAccount, INotify, ICatenate)
class StoreAccount:
    """The account of one user, shared by all sessions of that user.

    Args:
        user: the user's name, for logs.
        open_store: makes the store. Called in the worker, before the first store call.
        worker: runs every store call, in order.
        change_notifier: reports mail that other programs deliver. Without it, sessions see such mail when they poll.
        on_idle: called when the last session has closed the account.
        optional_interfaces: the optional interfaces (`IQuota`, `IMetadata`) that this account provides. The store must
            provide the store interface that belongs to each (`IQuotaStore`, `IMetadataStore`).
        namespace: the separator and the prefix of mailbox names, as clients see them.
        on_text_added: called with the account when messages of an open mailbox may not be indexed: `index_text` is then
            to be called until it returns False. The store must provide `ITextIndexStore`.
        on_use: called with the account at each call of the store while `is_in_use` is false.

    Attributes:
        calls: how many calls of the store clients have caused.
        is_in_use: true after each call of the store. Code that sets it to false is called at the next one (`on_use`).
    """

    def __init__(
        self,
        user: str,
        open_store: Callable[[], Any],  # an `IStore`, which mypy knows only with its plugin
        worker: Worker,
        change_notifier: ChangeNotifier | None = None,
        on_idle: Callable[[StoreAccount], object] | None = None,
        optional_interfaces: Iterable[type[Interface]] = (),
        namespace: values.Namespace = values.DEFAULT_NAMESPACE,
        on_text_added: Callable[[StoreAccount], object] | None = None,
        on_use: Callable[[StoreAccount], object] = lambda _: None,
    ) -> None:
        directlyProvides(self, *optional_interfaces)
        self.user = user
        self.namespace = namespace
        self.sessions = 0
        self.calls = 0
        self.is_in_use = False
        self.copy_rate = CopyRate()
        self.change_notifier = change_notifier
        self._listeners: dict[Callable[[values.AccountEvent], None], None] = {}
        self._watches: dict[str, Subscription] = {}
        self._open_store: Callable[[], IStore] = open_store
        self._worker = worker
        self._on_idle = on_idle
        self._on_text_added = on_text_added
        self._on_use = on_use
        self._store: IStore | None = None
        self._run_short: Any = getattr(worker, "run_short", None)
        self._run_in_background: Any = getattr(worker, "run_in_background", worker.run)
        self._open: dict[int, StoreMailbox] = {}
        self._opening: dict[int, StoreMailbox] = {}  # opened by the worker, before its caller knows

    def acquire(self) -> StoreAccount:
        """Count one more session and return this account. The session calls `close` when it ends."""
        self.sessions += 1
        return self

    def close(self) -> None:
        self.sessions -= 1
        if not self.sessions and self._on_idle is not None:
            self._on_idle(self)

    async def shut_down(self) -> None:
        """Close the store and forget all open mailboxes. The next call opens the store again.

        No session may have a mailbox selected: it would no longer be sent changes.
        """

        def close_store() -> None:
            store, self._store = self._store, None
            if store is not None:
                store.close()

        self._open.clear()
        self._opening.clear()
        await self._worker.run(close_store)

    async def release_memory(self) -> None:
        """Let the store free what its next call can do without, if it is an `ICachingStore`."""
        await self._run_in_background(lambda: release_memory_of(self._store))

    def add_listener(self, listener: Callable[[values.AccountEvent], None]) -> None:
        self._listeners[listener] = None

    def remove_listener(self, listener: Callable[[values.AccountEvent], None]) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners:
            for watch in self._watches.values():
                watch.stop()
            self._watches.clear()

    async def watch_mailboxes(self, names: Iterable[str]) -> None:
        if self.change_notifier is None:
            return
        wanted = [name for name in names if name not in self._watches]
        for start in range(0, len(wanted), MAILBOXES_PER_CALL):
            part = wanted[start : start + MAILBOXES_PER_CALL]
            try:
                found = await self.run(methodcaller("mailbox_paths", part))
            except StoreError:  # the next command that uses the store reports it
                return
            for name, paths in found.items():
                if self._listeners and name not in self._watches:
                    self._watches[name] = self.change_notifier.watch(
                        list(paths),
                        partial(self.notify_listeners, "messages", name),
                        must_notify=False,
                    )

    def notify_listeners(
        self, kind: str, name: str, old: str = "", entries: Sequence[bytes] = ()
    ) -> None:
        """Report an `AccountEvent` with these fields to every listener."""
        for listener in list(self._listeners):
            listener(values.AccountEvent(kind, name, old, entries))

    async def run(
        self,
        job: Callable[[IStore], T],
        short_kind: ShortKind = None,
        *,
        writes: bool = False,
        in_background: bool = False,
    ) -> T:
        """Run ``job(store)`` in the worker, opening the store first if necessary.

        Args:
            job: the job.
            short_kind: if the job is short and may run in place (`in_place`): what it does, and with which mailbox.
            writes: whether it writes, so that it cannot run in place.
            in_background: whether no client waits for it.
        """
        run: Callable[[Callable[[], T]], Awaitable[T]] = self._worker.run
        if in_background:
            run = self._run_in_background
        self.calls += not in_background
        if not self.is_in_use:
            self.is_in_use = True
            self._on_use(self)

        def run_job() -> T:
            if self._store is None:
                self._store = self._open_store()
                if self.namespace.prefix:
                    self._store = cast("IStore", PrefixedStore(self._store, self.namespace))
            return job(self._store)

        request = current_request.get()
        volumes = volumes_of(self._store) if short_kind is not None and self._run_short else ()
        if volumes and request is not None and request.may_run_in_place():
            run_short = partial(self._run_short, run_job, short_kind, volumes, writes=writes)
            result: T = await request.count_call(run_short)
            return result
        return await run(run_job)

    async def run_read(self, job: Callable[[IStore], T], short_kind: ShortKind = None) -> T:
        """Run a job that changes nothing; it may stop when the client of the running command has left (`request`).

        The arguments are those of `run`.
        """
        request = current_request.get()

        def run_job(store: IStore) -> T:
            token = current_request.set(request)
            try:
                check_wanted()
                return job(store)
            finally:
                current_request.reset(token)

        return await self.run(run_job, short_kind)

    async def mailboxes(self) -> Iterable[values.MailboxInfo]:
        return await self.run_read(lambda store: store.mailboxes())

    async def subscriptions(self) -> set[str]:
        return await self.run(lambda store: store.subscriptions())

    async def set_subscribed(self, name: str, subscribed: bool) -> None:
        await self.run(lambda store: store.set_subscribed(name, subscribed))
        self.notify_listeners("subscribed" if subscribed else "unsubscribed", name)

    async def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        mailbox_id = await self.run(lambda store: store.create(name, special_use))
        self.notify_listeners("created", name)
        return mailbox_id

    async def delete(self, name: str) -> None:
        await self.run(lambda store: store.delete(name))
        self.notify_listeners("deleted", name)
        for mailbox in list(self._open.values()):
            if mailbox.name == name:
                mailbox.mark_deleted()

    async def rename(self, old: str, new: str) -> None:
        await self.run(lambda store: store.rename(old, new))
        self.notify_listeners("renamed", new, old)
        if old == "INBOX":
            return  # RENAME INBOX moves its messages; INBOX itself stays (RFC 9051 section 6.3.6).
        for mailbox in self._open.values():
            if mailbox.name == old or mailbox.name.startswith(old + "/"):
                mailbox.name = new + mailbox.name[len(old) :]

    async def status(self, name: str) -> values.MailboxStatus:
        return await self.run_read(lambda store: store.status(name), ("status", name))

    async def quota(self) -> values.Quota:
        return await self.run(lambda store: store.quota())  # type: ignore[attr-defined]

    async def metadata(
        self, name: str, entries: Sequence[bytes] | None = None
    ) -> dict[bytes, bytes]:
        return await self.run(lambda store: store.metadata(name, entries))  # type: ignore[attr-defined]

    async def metadata_sizes(self, name: str) -> dict[bytes, int]:
        return await self.run(lambda store: store.metadata_sizes(name))  # type: ignore[attr-defined]

    async def set_metadata(self, name: str, entries: Mapping[bytes, bytes | None]) -> None:
        await self.run(lambda store: store.set_metadata(name, entries))  # type: ignore[attr-defined]
        self.notify_listeners("metadata", name, entries=list(entries))

    async def append(self, name: str, messages: Sequence[values.NewMessage]) -> values.AppendResult:
        octets = sum(message.content.size for message in messages)
        short_kind = ("append", name) if octets <= OCTETS_IN_PLACE else None
        return await self.run_and_sync(name, lambda store: store.append(name, messages), short_kind)

    async def run_and_sync(
        self, name: str, job: Callable[[IStore], T], short_kind: ShortKind = None
    ) -> T:
        """Run a job that adds messages to the mailbox `name`, and return its result.

        The same hop reads the changes for the sessions of the mailbox. Its listeners are notified before this returns.
        """
        selected = [m for m in self._open.values() if m.name == name and m.is_selected]

        def run_job(store: IStore) -> tuple[T, list[Delta | None]]:
            return job(store), [_changes_or_none(mailbox, store) for mailbox in selected]

        result, deltas = await self.run(run_job, short_kind, writes=True)
        for mailbox, delta in zip(selected, deltas, strict=True):
            if delta is not None:
                mailbox.apply_delta(delta)  # This notifies the account's listeners too.
        if all(delta is None for delta in deltas):
            self.notify_listeners("messages", name)
        return result

    def text_added(self) -> None:
        """Note that an open mailbox has messages whose text is not indexed."""
        if self._on_text_added is not None:
            self._on_text_added(self)

    async def index_text(self) -> bool:
        """Let the store index the text of some messages of an open mailbox; return whether there is more to do.

        Raises:
            StoreBusy: another process has locked the account. To be called again later.
        """
        waiting = [mailbox for mailbox in self._open.values() if not mailbox.is_text_indexed]
        if not waiting:
            return False
        mailbox = waiting[-1]
        mailbox.is_text_indexed = True  # unless messages arrive meanwhile
        try:
            step = await self.run(
                lambda store: store.index_text(mailbox.key),  # type: ignore[attr-defined]
                in_background=True,
            )
        except StoreBusy:
            mailbox.is_text_indexed = False
            raise
        except StoreError:
            return len(waiting) > 1  # the next command that uses the mailbox reports it
        if step == values.TextStep.MORE_EVERYWHERE:
            for other in self._open.values():
                other.is_text_indexed = False
        elif step:
            mailbox.is_text_indexed = False
        return True

    def stored_part(self, mailbox: IMailbox, uid: int, item: FetchItem, size: int) -> LiteralData:
        key = cast("StoreMailbox", mailbox).key
        return StoredPart(lambda: self._store, key, uid, item, size)

    async def open(self, name: str, claim_recent: bool) -> tuple[IMailbox, frozenset[int]]:
        deleted: list[StoreMailbox] = []

        def open_or_sync(store: IStore) -> tuple[StoreMailbox, Delta | None]:
            key = store.mailbox_key(name)
            known = self._open.get(key) or self._opening.get(key)
            if known is not None:
                try:
                    return known, store.changes(key, known.columns.highestmodseq, claim_recent)
                except NoSuchMailbox:  # the store was restored from a backup and uses the key again
                    deleted.append(known)
            # The columns are filled here, because that takes the reactor's thread too long. The next call finds them.
            mailbox = StoreMailbox(self, store.open(name, claim_recent))
            self._opening[mailbox.key] = mailbox
            return mailbox, None

        is_open = any(mailbox.name == name for mailbox in self._open.values())
        mailbox, delta = await self.run(open_or_sync, ("open", name) if is_open else None)
        for gone in deleted:
            gone.mark_deleted()
        key = mailbox.key
        if self._opening.get(key) is mailbox:
            del self._opening[key]
        if delta is None:
            recent, mailbox.recent_at_opening = mailbox.recent_at_opening, ()
        else:
            recent = mailbox.apply_delta(delta, claimed_by_caller=True)
        if self._open.get(key) not in (None, mailbox):
            # Another session has opened it again during the hop, because the account had dropped it meanwhile.
            current, more = await self.open(name, claim_recent)
            return current, more | frozenset(recent)
        # Reinserted at the end, so that the least recently opened mailbox is dropped first. During the hop another
        # session may have dropped this one, or shut the account down.
        self._open.pop(key, None)
        self._open[key] = mailbox
        mailbox.name = name
        self._drop_unused_mailboxes()
        if not mailbox.is_text_indexed:
            self.text_added()
        return mailbox, frozenset(recent)

    def _drop_unused_mailboxes(self) -> None:
        unused = [key for key, mailbox in self._open.items() if not mailbox.is_selected]
        for key in unused[: max(0, len(unused) - MAX_UNUSED_MAILBOXES)]:
            del self._open[key]

    def forget_mailbox(self, mailbox: StoreMailbox) -> None:
        """Drop an open mailbox, because the store no longer has it."""
        if self._open.get(mailbox.key) is mailbox:
            del self._open[mailbox.key]


def _changes_or_none(mailbox: StoreMailbox, store: IStore) -> Delta | None:
    """Return what the mailbox's columns do not contain yet, or None if the store cannot read the mailbox.

    The new messages are stored by now. An error from a selected mailbox that was deleted must not turn the response
    into NO: the client would send the messages again.
    """
    try:
        return mailbox.changes(store)
    except StoreError:
        return None
