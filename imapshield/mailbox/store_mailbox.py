"""An open mailbox of a `StoreAccount`: one set of columns, shared by every session that has the mailbox selected.

Rules
-----
* Every awaiting method makes one call in the store's worker. The delta that the call returns is applied to the columns
  on the reactor's thread, and listeners are notified before the method returns.
* The store identifies the mailbox by `key`. A rename changes `name`; it does not change `key`.
* Once the store no longer knows `key`, the mailbox is `deleted` for good: its columns are never used again, even if the
  store later has a mailbox of that name or key.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from zope.interface import implementer

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox import values
from imapshield.mailbox.account_api import IMailbox, Listener
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Change, Delta
from imapshield.mailbox.storage import IStore
from imapshield.mailbox.store_helpers import ChangeNotifier, ShortKind, Subscription
from imapshield.wire.commands.fetch import Binary, BodySection, FetchItem
from imapshield.wire.commands.search import SearchKey, TextKey
from imapshield.wire.sequence import SequenceSet

T = TypeVar("T")

MESSAGES_IN_PLACE = 100
"""Messages of a FETCH or SEARCH that may run in place: some tenths of a millisecond of work, if they are cached."""


class MailboxOwner(Protocol):
    """What a `StoreMailbox` needs of its owner, the account that opened it."""

    change_notifier: ChangeNotifier | None

    async def run(
        self,
        job: Callable[[IStore], T],
        short_kind: ShortKind = None,
        *,
        writes: bool = False,
    ) -> T:
        """Run ``job(store)`` in the worker; in place if calls of `short_kind` are short, and it writes nothing."""

    async def run_read(self, job: Callable[[IStore], T], short_kind: ShortKind = None) -> T:
        """Run a job that changes nothing, and may stop when the client has left."""

    async def run_and_sync(
        self, name: str, job: Callable[[IStore], T], short_kind: ShortKind = None
    ) -> T:
        """Run a job that adds messages to the mailbox `name`, and sync that mailbox if a session has it selected."""

    def notify_listeners(self, kind: str, name: str) -> None:
        """Report an `AccountEvent` to the account's listeners."""

    def text_added(self) -> None:
        """Note that an open mailbox has messages whose text is not indexed."""

    def forget_mailbox(self, mailbox: "StoreMailbox") -> None:
        """Drop an open mailbox, because the store no longer has it."""


@implementer(IMailbox)
class StoreMailbox:
    r"""An open mailbox of a store (`IMailbox`).

    Args:
        account: the account that opened it.
        opened: what the store returned. The constructor applies its delta, and may run in the worker.

    Attributes:
        recent_at_opening: the UIDs that are \Recent to the session that opens the mailbox, until it has opened it.
        is_text_indexed: whether the store has indexed the text of its messages (`ITextIndexStore`).
    """

    def __init__(self, account: MailboxOwner, opened: values.OpenedMailbox) -> None:
        self.name = opened.name
        self.uidvalidity = opened.uidvalidity
        self.mailbox_id = opened.mailbox_id
        self.columns = Columns()
        self.recent_at_opening = self.columns.apply(opened.delta).recent
        self.deleted = False
        self.is_text_indexed = False
        self.key = opened.key
        self._account = account
        self._listeners: dict[Listener, bool] = {}
        self._watch: Subscription | None = None
        self._watched_paths: Sequence[str] = ()

    @property
    def is_selected(self) -> bool:
        """Whether any session has the mailbox selected."""
        return bool(self._listeners)

    def add_listener(self, listener: Listener, claim_recent: bool) -> None:
        self._listeners[listener] = claim_recent

    def remove_listener(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners and self._watch is not None:
            self._watch.stop()
            self._watch = None

    async def watch_for_changes(self) -> None:
        notifier = self._account.change_notifier
        if notifier is None or self._watch is not None:
            return
        paths = await self._run(lambda store: store.watch_paths(self.key), "watch_paths")
        if self._watch is None and self._listeners:
            self._watch_paths(notifier, paths)

    def _watch_paths(self, notifier: ChangeNotifier, paths: Sequence[str]) -> None:
        self._watched_paths = paths
        self._watch = notifier.watch(list(paths), partial(self._poll_watched, notifier))

    async def _poll_watched(self, notifier: ChangeNotifier) -> None:
        """Take in changes after a notification, and watch other directories if the mailbox was renamed."""

        def changes_and_paths(store: IStore) -> tuple[Delta, Sequence[str]]:
            return self.changes(store), store.watch_paths(self.key)

        try:
            # In a thread: a thousand users may be notified in one turn of the reactor.
            delta, paths = await self._run(changes_and_paths)
        except NoSuchMailbox:
            return  # `_run` has notified the sessions
        self.apply_delta(delta)
        if self._watch is not None and paths != self._watched_paths:
            self._watch.stop()
            self._watch_paths(notifier, paths)

    def mark_deleted(self) -> None:
        """Notify the sessions that the store no longer has the mailbox."""
        if self.deleted:
            return
        self.deleted = True
        self._account.forget_mailbox(self)
        for listener in list(self._listeners):
            listener(Change((), (), ()))

    def apply_delta(self, delta: Delta, *, claimed_by_caller: bool = False) -> Sequence[int]:
        r"""Apply `delta` to the columns, notify the listeners, and return the UIDs that became \Recent.

        A message is \Recent to one session only (RFC 3501 section 2.3.2).

        Args:
            delta: what the store returned.
            claimed_by_caller: whether the messages of ``delta.recent`` are \Recent to the caller's session. Otherwise
                they are to the session of the first listener that claims messages.
        """
        change = self.columns.apply(delta)
        if not any(change):
            return ()
        claimers = (listener for listener, claims in self._listeners.items() if claims)
        claimer = None if claimed_by_caller else next(claimers, None)
        if change.added:
            self.is_text_indexed = False
            self._account.text_added()
        without_recent = Change(change.added, change.changed, change.vanished)
        if any(without_recent):
            kind = "messages" if change.added or change.vanished else "flags"
            self._account.notify_listeners(kind, self.name)
        for listener in list(self._listeners):
            own_change = change if listener is claimer else without_recent
            if any(own_change):
                listener(own_change)
        return change.recent

    async def poll(self) -> None:
        self.apply_delta(await self._run(self.changes, "changes"))

    def changes(self, store: IStore) -> Delta:
        """Return what the columns do not contain yet. Runs in the worker."""
        claim = any(list(self._listeners.values()))
        return self._changes_since(store, self.columns.highestmodseq, claim)

    def _changes_since(self, store: IStore, since: int, claim: bool) -> Delta:
        delta = store.changes(self.key, since, claim)
        if not claim:
            delta.recent = []  # They will be \Recent to a session that claims them.
        return delta

    async def vanished(self, since: int) -> SequenceSet:
        def changes_since(store: IStore) -> Delta:
            known = self.columns.highestmodseq
            delta = self._changes_since(store, since, False)
            # The columns have the other rows. To apply all of a large mailbox takes the reactor's thread too long.
            delta.rows = [row for row in delta.rows if row.modseq > known]
            return delta

        delta = await self._run(changes_since)
        self.apply_delta(delta)
        return delta.vanished

    async def fetch(
        self, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> values.FetchResult:
        short_kind = _fetch_kind(items) if len(uids) <= MESSAGES_IN_PLACE else ""
        return await self._read(
            lambda store: store.fetch(self.key, uids, items, budget), short_kind
        )

    async def read(self, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        return await self._read(lambda store: store.read(self.key, uid, item, offset, size))

    async def load_sizes(self, uids: Sequence[int]) -> Sequence[int]:
        unreadable: list[int] = []
        while uids:
            part = uids
            measured = await self._read(lambda store: store.sizes(self.key, part))  # noqa: B023
            self.columns.set_sizes(measured.sizes)
            unreadable += measured.unreadable
            uids = uids[values.count_examined(measured, len(uids)) :]
        return unreadable

    async def store_flags(
        self, uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> values.StoreResult:
        since = self.columns.highestmodseq
        stored = await self._write(
            "store" if len(uids) <= MESSAGES_IN_PLACE else "",
            lambda store: store.store_flags(self.key, uids, op, flags, unchanged_since, since),
        )
        self.apply_delta(stored.delta)
        return stored

    async def expunge(self, uids: Sequence[int] | None) -> Sequence[int]:
        since = self.columns.highestmodseq
        expunged = await self._write("expunge", lambda store: store.expunge(self.key, uids, since))
        self.apply_delta(expunged.delta)
        return expunged.failed

    async def copy(self, uids: Sequence[int], target: str, move: bool) -> values.CopyResult:
        since = self.columns.highestmodseq
        copied = await self._run_with_target(
            target,
            lambda store: store.copy(self.key, uids, target, move, since),
            ("copy", (target, self.key)) if len(uids) <= MESSAGES_IN_PLACE else None,
        )
        self.apply_delta(copied.delta)
        return copied

    async def replace(
        self, uid: int, target: str, message: values.NewMessage
    ) -> values.AppendResult:
        since = self.columns.highestmodseq
        replaced = await self._run_with_target(
            target, lambda store: store.replace(self.key, uid, target, message, since)
        )
        self.apply_delta(replaced.delta)
        return replaced.appended

    async def search(self, uids: Sequence[int], search_key: SearchKey) -> values.SearchResult:
        is_short = len(uids) <= MESSAGES_IN_PLACE and not isinstance(search_key, TextKey)
        return await self._read(
            lambda store: store.search(self.key, uids, search_key), "search" if is_short else ""
        )

    def _run(self, job: Callable[[IStore], T], short_kind: str = "") -> Awaitable[T]:
        return self._with(self._account.run, job, short_kind)

    def _read(self, job: Callable[[IStore], T], short_kind: str = "") -> Awaitable[T]:
        return self._with(self._account.run_read, job, short_kind)

    async def _with(
        self,
        run: Callable[[Callable[[IStore], T], ShortKind], Awaitable[T]],
        job: Callable[[IStore], T],
        short_kind: str,
    ) -> T:
        try:
            return await run(job, (short_kind, self.key) if short_kind else None)
        except NoSuchMailbox:
            self.mark_deleted()
            raise

    def _write(self, short_kind: str, job: Callable[[IStore], T]) -> Awaitable[T]:
        return self._with(partial(self._account.run, writes=True), job, short_kind)

    async def _run_with_target(
        self,
        target: str,
        job: Callable[[IStore], T],
        short_kind: ShortKind = None,
    ) -> T:
        """Run a job that adds messages to the mailbox `target`. It fails if either mailbox does not exist."""
        try:
            return await self._account.run_and_sync(target, job, short_kind)
        except NoSuchMailbox:
            await self.poll()  # raises NoSuchMailbox, too, if it is this one that does not exist
            raise


def _fetch_kind(items: Sequence[FetchItem]) -> str:
    """Return what a FETCH does. Answers that a store keeps are computed once, which takes longer than strings do."""
    has_strings_only = all(
        isinstance(item, Binary) or (isinstance(item, BodySection) and not item.section.fields)
        for item in items
    )
    return "fetch strings" if has_strings_only else "fetch answers"
