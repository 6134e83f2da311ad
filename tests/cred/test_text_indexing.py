"""Accounts take turns to index the text of messages, in the background."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.text_indexing import FIRST_DELAY, MAX_PAUSE, TextIndexing


class FakeAccount:
    """An account that has `steps` to do; the Deferred of the step that runs is `running`."""

    def __init__(self, user: str, log: list[str], steps: int) -> None:
        self.user = user
        self.sessions = 1
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
            self.end_step(account)
            self.clock.advance(MAX_PAUSE)
        self.assertEqual(self.log, ["alice", "bob", "alice", "bob", "bob"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pause_is_half_of_a_step(self) -> None:
        """After a step that took long there is a pause, in which others use the thread."""
        alice = self.account("alice", 2)
        self.clock.advance(FIRST_DELAY)
        self.end_step(alice, 0.2)
        self.clock.advance(0.09)
        self.assertEqual(len(self.log), 1)
        self.clock.advance(0.02)
        self.assertEqual(len(self.log), 2)

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
