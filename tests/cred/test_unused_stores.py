"""The store of an account that is not used frees memory, and is there again at the next call."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.realm import MaildirRealm
from imapshield.cred.text_indexing import FIRST_DELAY, MAX_PAUSE
from imapshield.cred.unused_stores import RELEASE_SECONDS, UNUSED_SECONDS, UnusedStores
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import NewMessage
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import TextKey
from tests.cred.fakes import FakePool, FakeReactor


class FakeAccount:
    """An account that notes when its store frees memory; the Deferreds of that are in `running`."""

    user = "alice"

    def __init__(self, stores: UnusedStores) -> None:
        self.is_in_use = False
        self.released = 0
        self.running: list[Deferred[None]] = []
        self._stores: Any = stores

    def use(self) -> None:
        """Do what `StoreAccount` does at each call of its store."""
        if not self.is_in_use:
            self.is_in_use = True
            self._stores.used(self)

    async def release_memory(self) -> None:
        self.released += 1
        self.running.append(Deferred())
        await self.running[-1]


class UnusedStoresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.trims: list[Callable[[], object]] = []
        self.stores = UnusedStores(self.clock, self.trims.append)

    def look(self, times: int = 1) -> None:
        self.clock.pump([UNUSED_SECONDS] * times)

    def test_memory_is_freed_once_after_some_seconds_without_a_call(self) -> None:
        """A store frees memory when it was not called for some seconds, once; then nothing is looked at any more."""
        account = FakeAccount(self.stores)
        for number in range(3):
            for _ in range(4):
                account.use()
                account.use()
                self.look()
            self.assertEqual(account.released, number)
            self.look()
            self.assertEqual(account.released, number + 1)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            account.running[-1].callback(None)

    def test_one_store_frees_memory_at_a_time(self) -> None:
        """If many clients become idle at once, their stores free memory one after another. Then the system gets it
        back, in a thread, once."""
        accounts = [FakeAccount(self.stores) for _ in range(3)]
        for account in accounts:
            account.use()
        self.look(2)
        for number, account in enumerate(accounts):
            self.assertEqual(
                [each.released for each in accounts], [1] * (number + 1) + [0] * (2 - number)
            )
            self.assertEqual(self.trims, [])
            if number == 1:
                accounts[0].use()
                self.look(2)
            account.running[0].callback(None)
        self.assertEqual((accounts[0].released, self.trims), (2, []))
        accounts[0].running[1].callback(None)
        self.assertEqual(len(self.trims), 1)
        self.trims[0]()

    def test_store_that_hangs_does_not_stop_the_others(self) -> None:
        """A store whose disk hangs keeps its memory, and those that are idle later free theirs."""
        hanging, other = FakeAccount(self.stores), FakeAccount(self.stores)
        hanging.use()
        self.look(2)
        self.clock.advance(RELEASE_SECONDS)
        other.use()
        self.look(2)
        self.assertEqual((hanging.released, other.released), (1, 1))

    def test_store_that_is_used_again_is_left_alone(self) -> None:
        """A store that is used while it waits for its turn does not free memory then."""
        first, second = FakeAccount(self.stores), FakeAccount(self.stores)
        first.use()
        second.use()
        self.look(2)
        second.use()
        first.running[0].callback(None)
        self.assertEqual(second.released, 0)
        self.look(2)
        self.assertEqual(second.released, 1)

    def test_strings_are_closed_while_there_are_some(self) -> None:
        """What was being read by a client that has left is closed, also if no store is used any more."""
        left = [2, 1, 0]
        self.stores = UnusedStores(self.clock, self.trims.append, lambda: left.pop(0))
        FakeAccount(self.stores).use()
        self.look(3)
        self.assertEqual((left, self.clock.getDelayedCalls()), ([], []))

    def test_error_is_logged(self) -> None:
        """A store that raises an error is logged, and the others go on."""
        accounts = [FakeAccount(self.stores) for _ in range(2)]
        for account in accounts:
            account.use()
        self.look(2)
        with capturedLogs() as events:
            accounts[0].running[0].errback(RuntimeError())
        self.assertEqual(
            [formatEvent(event) for event in events], ["cannot free memory of the mail of alice"]
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(accounts[1].released, 1)

    def test_stop(self) -> None:
        """When the server stops, nothing is looked at any more, and no other store frees memory."""
        accounts = [FakeAccount(self.stores) for _ in range(2)]
        for account in accounts:
            account.use()
        self.look(2)
        accounts[0].use()
        self.stores.stop()
        accounts[0].running[0].callback(None)
        accounts[1].use()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((accounts[1].released, self.trims), (0, []))
        self.stores.stop()


class RealmTests(SynchronousTestCase):
    """The stores of the accounts of a realm."""

    def setUp(self) -> None:
        self.root = self.mktemp()
        os.mkdir(self.root)
        self.reactor = FakeReactor()
        realm = MaildirRealm(self.root, reactor=self.reactor, pool=FakePool())
        self.addCleanup(lambda: self.wait(realm.close()))
        self.account: StoreAccount = self.successResultOf(
            realm.requestAvatar(b"alice", None, IAccount)
        )[1]

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def open_files(self) -> set[str]:
        """Return the names of the account's files that the process has open."""
        found = set()
        for number in os.listdir("/proc/self/fd"):
            try:
                path = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
            if os.path.dirname(path) == os.path.realpath(os.path.join(self.root, "alice")):
                found.add(os.path.basename(path))
        return found

    def test_text_index_is_open_only_while_it_is_used(self) -> None:
        """After all mail is indexed, and after a search, the text index is closed; no search is another one by that."""
        new = [NewMessage((), None, MemoryLiteral(b"\r\nword%c\r\n" % i)) for i in range(97, 113)]
        self.wait(self.account.append("INBOX", new))
        mailbox, _ = self.wait(self.account.open("INBOX", False))
        self.reactor.pump([FIRST_DELAY, *[MAX_PAUSE] * 5])
        self.assertIn("imapshield.search", self.open_files())
        for _ in range(3):
            self.reactor.pump([UNUSED_SECONDS] * 2)
            self.assertNotIn("imapshield.search", self.open_files())
            self.assertIn("imapshield.sqlite", self.open_files())
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            found = self.wait(mailbox.search(mailbox.columns.uids, TextKey("wordc", True)))
            self.assertEqual(found.matching, [3])
            self.assertIn("imapshield.search", self.open_files())

    def test_account_that_was_never_opened(self) -> None:
        """An account whose store is not open has nothing to free."""
        self.wait(self.account.release_memory())
        self.assertEqual(self.open_files(), set())
