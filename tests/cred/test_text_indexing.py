"""Accounts take turns to index the text of messages, in the background."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.realm import MaildirRealm
from imapshield.cred.text_indexing import (
    BUSY_DELAY,
    FIRST_DELAY,
    MAX_PAUSE,
    MAX_POSTPONED,
    QUIET_SECONDS,
    TURN_SECONDS,
    TextIndexing,
)
from imapshield.cred.unused_stores import UnusedStores
from imapshield.errors import StoreBusy
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import text_index_file
from imapshield.maildir.worker import SerialWorker
from imapshield.wire.commands.base import MemoryLiteral
from tests.cred.fakes import FakePool, FakeReactor


class FakeAccount:
    """An account that has `steps` to do; the Deferred of the step that runs is `running`."""

    def __init__(self, user: str, log: list[str], steps: int) -> None:
        self.user = user
        self.sessions = 1
        self.calls = 0
        self.steps = steps
        self.running: Deferred[None] | None = None
        self._log = log

    async def index_text(self) -> bool:
        self._log.append(self.user)
        self.running = Deferred()
        await self.running
        self.steps -= 1
        return self.steps > 0


class TextIndexingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.indexing = TextIndexing(self.clock)
        self.log: list[str] = []

    def account(self, user: str, steps: int) -> Any:
        account: Any = FakeAccount(user, self.log, steps)
        self.indexing.add(account)
        return account

    def end_step(self, account: FakeAccount, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        running, account.running = account.running, None
        assert running is not None
        running.callback(None)

    def test_accounts_take_turns(self) -> None:
        """One step of one account runs at a time, and the accounts take turns until all are done."""
        alice, bob = self.account("alice", 2), self.account("bob", 3)
        self.assertEqual(self.log, [])
        self.clock.advance(FIRST_DELAY)
        self.clock.advance(10)
        self.assertEqual(self.log, ["alice"])
        for account in (alice, bob, alice, bob, bob):
            self.end_step(account, TURN_SECONDS)
            self.clock.advance(MAX_PAUSE)
        self.assertEqual(self.log, ["alice", "bob", "alice", "bob", "bob"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turn_of_an_account(self) -> None:
        """An account does steps for half a second before it is another one's turn, so that few fill their caches."""
        accounts = {user: self.account(user, 9) for user in ("alice", "bob")}
        self.clock.advance(FIRST_DELAY)
        while len(self.log) < 18:
            self.end_step(accounts[self.log[-1]], TURN_SECONDS / 4)
            self.clock.advance(TURN_SECONDS / 8)  # the pause
        turns = ["alice"] * 3 + ["bob"] * 3
        self.assertEqual(self.log, turns * 3)

    def test_pause_is_half_of_a_step(self) -> None:
        """After a step that took long there is a pause, in which others use the thread."""
        alice = self.account("alice", 2)
        self.clock.advance(FIRST_DELAY)
        self.end_step(alice, 0.2)
        self.clock.advance(0.09)
        self.assertEqual(len(self.log), 1)
        self.clock.advance(0.02)
        self.assertEqual(len(self.log), 2)

    def test_commands_go_first(self) -> None:
        """While clients send commands, the next step waits, but not for ever; other accounts go on meanwhile."""
        alice = self.account("alice", 3)
        for _ in range(3):
            alice.calls += 1
            self.clock.advance(FIRST_DELAY if alice.calls == 1 else QUIET_SECONDS)
        self.assertEqual(self.log, [])
        bob = self.account("bob", 1)
        self.clock.advance(QUIET_SECONDS)
        self.assertEqual(self.log, ["alice"])
        self.end_step(alice)
        alice.calls += 1
        self.clock.pump([MAX_PAUSE] * 2)
        self.assertEqual(self.log, ["alice", "bob"])
        self.end_step(bob)
        for _ in range(round(MAX_POSTPONED / QUIET_SECONDS) + 2):
            alice.calls += 1
            self.clock.advance(QUIET_SECONDS)
        self.assertEqual(self.log, ["alice", "bob", "alice"])
        self.end_step(alice)
        self.clock.pump([MAX_PAUSE] * 3)
        self.end_step(alice)
        self.clock.pump([MAX_PAUSE] * 3)
        self.assertEqual(self.log, ["alice", "bob", "alice", "alice"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_account_without_a_session_is_left_alone(self) -> None:
        """An account whose last session has ended is not indexed, until it is added again."""
        alice = self.account("alice", 5)
        self.clock.advance(FIRST_DELAY)
        alice.sessions = 0
        self.end_step(alice)
        self.clock.advance(10)
        self.assertEqual(len(self.log), 1)
        alice.sessions = 1
        self.indexing.add(alice)
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(len(self.log), 2)

    def test_account_that_is_locked(self) -> None:
        """An account that another process has locked is tried again after a pause; the others go on meanwhile."""
        alice, bob = self.account("alice", 1), self.account("bob", 2)
        self.clock.advance(FIRST_DELAY)
        alice.running.errback(StoreBusy())
        self.clock.advance(MAX_PAUSE)
        self.end_step(bob)
        self.clock.advance(MAX_PAUSE)
        self.end_step(bob)
        self.assertEqual(self.log, ["alice", "bob", "bob"])
        self.clock.pump([BUSY_DELAY, FIRST_DELAY])
        self.assertEqual(self.log, ["alice", "bob", "bob", "alice"])
        alice.running.errback(StoreBusy())
        self.indexing.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failure_is_logged(self) -> None:
        """An unexpected error is logged, and the other accounts go on."""
        alice, bob = self.account("alice", 1), self.account("bob", 1)
        self.clock.advance(FIRST_DELAY)
        alice.running.errback(ZeroDivisionError())
        self.clock.advance(MAX_PAUSE)
        self.end_step(bob)
        self.assertEqual(self.log, ["alice", "bob"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        """After the end of the server no step begins, not even if one was running."""
        alice = self.account("alice", 2)
        self.clock.advance(FIRST_DELAY)
        self.indexing.stop()
        self.end_step(alice)
        self.account("bob", 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        other = TextIndexing(self.clock)
        other.add(alice)
        other.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RealmTests(SynchronousTestCase):
    """The text index of accounts in a realm."""

    def setUp(self) -> None:
        self.root = self.mktemp()
        os.mkdir(self.root)
        self.reactor = FakeReactor()
        self.patch(UnusedStores, "used", lambda *_: None)  # its delayed calls

    def account(self, **options: Any) -> StoreAccount:
        """Log in alice, in a realm with these options, append 16 messages, and open INBOX."""
        realm = MaildirRealm(self.root, reactor=self.reactor, pool=FakePool(), **options)
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(realm.close())))
        account: StoreAccount = self.successResultOf(realm.requestAvatar(b"alice", None, IAccount))[
            1
        ]
        new = [NewMessage((), None, MemoryLiteral(b"\r\nword%c\r\n" % i)) for i in range(97, 113)]
        self.wait(account.append("INBOX", new))
        self.wait(account.open("INBOX", False))
        return account

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def is_indexed(self) -> bool:
        return os.path.exists(os.path.join(self.root, "alice", "imapshield.search"))

    def test_mail_is_indexed_in_the_background(self) -> None:
        """An APPEND or SELECT is answered before anything is indexed; then the messages are, until all are."""
        account = self.account()
        self.assertFalse(self.is_indexed())
        self.reactor.pump([FIRST_DELAY, *[MAX_PAUSE] * 5])
        self.assertTrue(self.is_indexed())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(self.wait(account.index_text()))
        self.wait(account.append("INBOX", [NewMessage((), None, MemoryLiteral(b"\r\nnew\r\n"))]))
        self.wait(account.open("INBOX", False))
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_lock_of_another_process(self) -> None:
        """If another process has locked the text index for a moment, all mail is indexed nevertheless, later."""
        self.patch(text_index_file, "BUSY_SECONDS", 0.0)
        account = self.account()
        self.reactor.pump([FIRST_DELAY, *[MAX_PAUSE] * 5])
        new = [NewMessage((), None, MemoryLiteral(b"\r\nnew\r\n"))] * 16
        self.wait(account.append("INBOX", new))
        self.wait(account.open("INBOX", False))
        path = os.path.join(self.root, "alice", "imapshield.search")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            self.reactor.pump([FIRST_DELAY, MAX_PAUSE])
            db.execute("ROLLBACK")
            self.reactor.pump([BUSY_DELAY, FIRST_DELAY, *[MAX_PAUSE] * 5])
            self.assertEqual(db.execute("SELECT count(*) FROM message").fetchone(), (32,))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_new_index_concerns_all_mailboxes(self) -> None:
        """If the text index was built again, all open mailboxes are indexed, not only the one that has new mail."""
        account = self.account()
        self.wait(account.create("A", []))
        new = [NewMessage((), None, MemoryLiteral(b"\r\nnew %d\r\n" % i)) for i in range(16)]
        self.wait(account.append("A", new))
        self.wait(account.open("A", False))
        self.reactor.pump([FIRST_DELAY, *[MAX_PAUSE] * 9])
        path = os.path.join(self.root, "alice", "imapshield.search")
        os.unlink(path)
        self.wait(account.append("A", new[:1]))
        self.wait(account.open("A", False))
        self.reactor.pump([FIRST_DELAY, *[MAX_PAUSE] * 9])
        with closing(sqlite3.connect(path)) as db:
            self.assertEqual(db.execute("SELECT count(*) FROM message").fetchone(), (33,))

    def test_indexing_does_not_make_the_account_slow(self) -> None:
        """The calls of the indexing run in the background of the worker, so that they do not count for the account."""
        ran: list[object] = []
        run_in_background = SerialWorker.run_in_background

        def spy(worker: SerialWorker, function: Any) -> Any:
            ran.append(function)
            return run_in_background(worker, function)

        self.patch(SerialWorker, "run_in_background", spy)
        self.account()
        self.assertEqual(ran, [])
        self.reactor.pump([FIRST_DELAY, *[MAX_PAUSE] * 5])
        self.assertTrue(ran)
        self.assertTrue(self.is_indexed())

    def test_option_turns_it_off(self) -> None:
        """Without a text index, nothing is done in the background."""
        self.account(has_text_index=False)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_sqlite_without_fts5_is_logged_once(self) -> None:
        """If SQLite lacks what the text index needs, the log has one line, and there is no index."""
        self.patch(text_index_file, "is_available", lambda: False)
        with capturedLogs() as events:
            self.account()
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len([line for line in lines if "FTS5" in line]), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
