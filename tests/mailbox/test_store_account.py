"""Sessions that share an account do not interfere while one of them waits for the worker."""

from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.deltas import Change, Delta
from imapshield.mailbox.store_account import MAILBOXES_PER_CALL, StoreAccount
from imapshield.mailbox.values import AccountEvent, NewMessage, OpenedMailbox
from imapshield.testing.in_process import MAIL, NOW, InlineWorker, SlowWorker
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.commands.base import MemoryLiteral

T = TypeVar("T")


class StoreAccountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.worker = SlowWorker()
        self.account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), self.worker)

    def test_mailbox_dropped_during_open_is_opened(self) -> None:
        """A mailbox that the account drops while a session opens it is opened all the same."""
        first = Deferred.fromCoroutine(self.account.open("INBOX", False))
        self.worker.step()
        mailbox, _ = self.successResultOf(first)
        reopened = Deferred.fromCoroutine(self.account.open("INBOX", False))
        shut_down = Deferred.fromCoroutine(self.account.shut_down())
        self.worker.step()
        self.assertEqual(self.successResultOf(reopened)[0].mailbox_id, mailbox.mailbox_id)
        self.worker.step()
        self.successResultOf(shut_down)

    def test_thousands_of_mailboxes_are_watched_in_a_few_calls(self) -> None:
        """NOTIFY on 9,000 mailboxes takes one call of the store for some hundreds, between which others have a turn."""
        watched: list[str] = []

        class Notifier:
            def watch(self, paths: list[str], *_: object, must_notify: bool) -> Any:
                watched.append(paths[0])
                assert not must_notify
                return SimpleNamespace(stop=lambda: None)

        store: Any = MemoryStore(lambda: NOW)
        self.patch(store, "mailbox_paths", lambda names: {name: [name] for name in names})
        account = StoreAccount("alice", lambda: store, self.worker, cast("Any", Notifier()))
        account.add_listener(lambda event: None)
        names = [str(i) for i in range(9000)]
        watching = Deferred.fromCoroutine(account.watch_mailboxes(names))
        steps = 0
        while not watching.called:
            self.worker.step()
            steps += 1
        self.assertEqual((steps, watched), (9000 // MAILBOXES_PER_CALL, names))

    def test_mailbox_that_many_sessions_open_at_once_is_read_once(self) -> None:
        """Of ten sessions that open a mailbox at the same time, the first reads it, and the others share it."""
        opens: list[str] = []
        store: Any = MemoryStore(lambda: NOW)
        original = store.open

        def spy(name: str, claim: bool) -> OpenedMailbox:
            opens.append(name)
            opened: OpenedMailbox = original(name, claim)
            return opened

        self.patch(store, "open", spy)
        account = StoreAccount("alice", lambda: store, self.worker)
        opening = [Deferred.fromCoroutine(account.open("INBOX", False)) for _ in range(10)]
        for _ in opening:
            self.worker.step()
        mailboxes = {self.successResultOf(done)[0] for done in opening}
        self.assertEqual((opens, len(mailboxes), account._opening), (["INBOX"], 1, {}))

    def test_recent_messages_are_not_kept(self) -> None:
        r"""Which messages are \Recent to the session that opens a mailbox is passed on, and not kept for ever."""
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())
        append = account.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))] * 3)
        self.successResultOf(Deferred.fromCoroutine(append))
        for expected in ({1, 2, 3}, set()):
            opening: Any = Deferred.fromCoroutine(account.open("INBOX", True))
            mailbox, recent = self.successResultOf(opening)
            self.assertEqual((recent, mailbox.recent_at_opening), (expected, ()))

    def test_vanished_messages_need_no_rows(self) -> None:
        """QRESYNC with an old MODSEQ applies only the rows that the columns lack, not those of the whole mailbox."""
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())

        def wait(work: Coroutine[Any, Any, T]) -> T:
            result: T = self.successResultOf(Deferred.fromCoroutine(work))
            return result

        message = NewMessage((), None, MemoryLiteral(MAIL))
        for _ in range(5):
            wait(account.append("INBOX", [message]))
        mailbox: Any = wait(account.open("INBOX", False))[0]
        wait(account.run(lambda store: store.append("INBOX", [message])))
        wait(account.run(lambda store: store.expunge(mailbox.key, [2], 1)))
        applied: list[Delta] = []
        apply = mailbox.columns.apply

        def spy(delta: Delta) -> Change:
            applied.append(delta)
            change: Change = apply(delta)
            return change

        self.patch(mailbox.columns, "apply", spy)
        vanished = wait(mailbox.vanished(1))
        self.assertEqual([row.uid for row in applied[0].rows], [6])
        self.assertEqual(list(vanished), [])

    def test_recent_is_not_claimed_by_a_poll(self) -> None:
        r"""Polls of an EXAMINEd mailbox, and QRESYNC, neither report nor give away the \Recent of new messages."""
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())
        changes: list[Change] = []
        events: list[AccountEvent] = []

        def wait(work: Coroutine[Any, Any, T]) -> T:
            result: T = self.successResultOf(Deferred.fromCoroutine(work))
            return result

        def on_change(change: Change) -> None:
            changes.append(change)

        message = NewMessage((), None, MemoryLiteral(MAIL))
        mailbox, _ = wait(account.open("INBOX", False))
        mailbox.add_listener(on_change, False)
        wait(account.run(lambda store: store.append("INBOX", [message])))
        account.add_listener(events.append)
        for _ in range(3):
            wait(mailbox.poll())
        wait(account.open("INBOX", False))
        self.assertEqual([list(map(list, change)) for change in changes], [[[1], [], [], []]])
        self.assertEqual([event.kind for event in events], ["messages"])
        mailbox.remove_listener(on_change)
        mailbox.add_listener(on_change, True)
        wait(mailbox.vanished(1))
        self.assertEqual(len(changes), 1)
        self.assertEqual(wait(account.open("INBOX", True))[1], {1})

    def test_append_succeeds_beside_a_deleted_mailbox(self) -> None:
        """APPEND succeeds although a session has a deleted mailbox of the same name selected."""
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())

        def wait(work: Coroutine[Any, Any, T]) -> T:
            result: T = self.successResultOf(Deferred.fromCoroutine(work))
            return result

        wait(account.create("Work", ()))
        mailbox, _ = wait(account.open("Work", False))
        mailbox.add_listener(lambda change: None, False)
        # Without the account's knowledge, as when another program removes the folder.
        wait(account.run(lambda store: store.delete("Work")))
        wait(account.create("Work", ()))
        appended = wait(account.append("Work", [NewMessage((), None, MemoryLiteral(MAIL))]))
        self.assertEqual(len(appended.uids), 1)

    def test_restored_mailbox_is_opened_anew(self) -> None:
        """After a restore that uses a key again, a new session sees the restored mailbox, and the old ones learn it."""
        restored = RestoredStore(lambda: NOW)
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())

        def wait(work: Coroutine[Any, Any, T]) -> T:
            result: T = self.successResultOf(Deferred.fromCoroutine(work))
            return result

        message = NewMessage((), None, MemoryLiteral(MAIL))
        wait(account.append("INBOX", [message, message]))
        restored.append("INBOX", [message])
        old, _ = wait(account.open("INBOX", False))
        changes: list[Change] = []

        def on_change(change: Change) -> None:
            changes.append(change)

        old.add_listener(on_change, False)
        account._store = restored
        for _ in range(2):
            opened, _ = wait(account.open("INBOX", False))
            self.assertEqual(list(opened.columns.uids), [1])
        self.assertEqual((old.deleted, opened.deleted), (True, False))
        self.assertEqual(changes, [Change((), (), ())])


class RestoredStore(MemoryStore):
    """A store that was restored from a backup: it knows a key only after its mailbox was opened."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.opened: set[int] = set()

    def open(self, name: str, claim_recent: bool) -> OpenedMailbox:
        self.opened.add(self.mailbox_key(name))
        return super().open(name, claim_recent)

    def changes(self, key: int, since: int, claim_recent: bool) -> Delta:
        if key not in self.opened:
            raise NoSuchMailbox
        return super().changes(key, since, claim_recent)
