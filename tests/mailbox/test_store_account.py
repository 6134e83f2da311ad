"""Sessions that share an account do not disturb each other during a hop to the worker."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL, NOW, InlineWorker, SlowWorker
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.commands.base import MemoryLiteral

T = TypeVar("T")


class StoreAccountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.worker = SlowWorker()
        self.account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), self.worker)

    def test_mailbox_dropped_during_open_is_opened(self) -> None:
        """A mailbox that is dropped while it is being opened again is opened nevertheless."""
        first = Deferred.fromCoroutine(self.account.open("INBOX", False))
        self.worker.step()
        mailbox, _ = self.successResultOf(first)
        again = Deferred.fromCoroutine(self.account.open("INBOX", False))
        shut = Deferred.fromCoroutine(self.account.shut_down())
        self.worker.step()
        self.assertIs(self.successResultOf(again)[0], mailbox)
        self.worker.step()
        self.successResultOf(shut)

    def test_append_succeeds_beside_a_deleted_mailbox(self) -> None:
        """APPEND succeeds although a session has a deleted mailbox of the same name selected."""
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())

        def wait(work: Coroutine[Any, Any, T]) -> T:
            result: T = self.successResultOf(Deferred.fromCoroutine(work))
            return result

        wait(account.create("Work", ()))
        mailbox, _ = wait(account.open("Work", False))
        mailbox.subscribe(lambda change: None, False)
        # Without the account's knowledge, as when another program removes the folder.
        wait(account.run(lambda store: store.delete("Work")))
        wait(account.create("Work", ()))
        appended = wait(account.append("Work", [NewMessage((), None, MemoryLiteral(MAIL))]))
        self.assertEqual(len(appended.uids), 1)
