"""Sessions that share an account do not interfere while one of them waits for the worker."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.deltas import Change
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import AccountEvent, NewMessage
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
        self.assertIs(self.successResultOf(reopened)[0], mailbox)
        self.worker.step()
        self.successResultOf(shut_down)

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
        self.assertEqual(changes, [Change([1], [], [])])
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
