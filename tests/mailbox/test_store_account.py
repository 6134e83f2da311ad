"""What sessions that share an account do to each other between a question and its answer."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL, NOW, InlineWorker, SlowWorker
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.commands.base import MemoryLiteral


class Together(SynchronousTestCase):
    def setUp(self) -> None:
        self.worker = SlowWorker()
        self.account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), self.worker)

    def test_let_go_meanwhile(self) -> None:
        """A mailbox that is forgotten while it is opened again is opened all the same."""
        first = Deferred.fromCoroutine(self.account.open("INBOX", False))
        self.worker.step()
        mailbox, _ = self.successResultOf(first)
        again = Deferred.fromCoroutine(self.account.open("INBOX", False))
        shut = Deferred.fromCoroutine(self.account.shut_down())
        self.worker.step()
        self.assertIs(self.successResultOf(again)[0], mailbox)
        self.worker.step()
        self.successResultOf(shut)

    def test_stored_is_stored(self) -> None:
        """An APPEND is OK although somebody watches a mailbox of that name that is there no more."""
        account = StoreAccount("alice", lambda: MemoryStore(lambda: NOW), InlineWorker())

        def done(coroutine):  # type: ignore[no-untyped-def]
            return self.successResultOf(Deferred.fromCoroutine(coroutine))

        done(account.create("Work", ()))
        mailbox, _ = done(account.open("Work", False))
        mailbox.subscribe(lambda change: None, False)
        # Behind the account's back, as when another program removes the folder.
        done(account.run(lambda store: store.delete("Work")))
        done(account.create("Work", ()))
        appended = done(account.append("Work", [NewMessage((), None, MemoryLiteral(MAIL))]))
        self.assertEqual(len(appended.uids), 1)
