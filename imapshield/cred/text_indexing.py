"""Indexes the text of messages in the background, for all accounts of a server.

Rules
-----
* One call of one account runs at a time. A call is short, and other calls of the account run before the next one.
* Accounts take turns of `TURN_SECONDS`. So few have caches that are full at the same time, although thousands may have
  mail to index after an upgrade: those that wait free their memory (`unused_stores`).
* It pauses after each call for half of the time that the call took. So all accounts together use at most two thirds
  of a thread.
* An account whose clients send commands waits until they have sent none for `QUIET_SECONDS`. If they never stop, it
  does one call in each `MAX_POSTPONED` seconds. So the first commands after a login are as fast as without an index.
* An account without a session is left alone, until its next session.
* An account that another process has locked is tried again after a pause, in which the others go on.
"""

from collections import OrderedDict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imapshield.errors import StoreBusy
from imapshield.mailbox.store_account import StoreAccount

FIRST_DELAY = 0.5
"""Seconds until the indexing of new messages begins. A client that has just logged in is served first, and messages
that arrive together are indexed together."""

MIN_PAUSE = 0.002
MAX_PAUSE = 1.0
"""Seconds of the shortest and of the longest pause between two calls."""

QUIET_SECONDS = 0.1
"""Seconds without a command after which the clients of an account count as served. A client that reads a mailbox sends
its next command sooner."""

MAX_POSTPONED = 2.0
"""Seconds for which commands keep an account from its next call. With 10,000 messages to index, and a client that never
stops, the last one is indexed after a quarter of an hour."""

TURN_SECONDS = 0.5
"""Seconds of a turn. Some twenty accounts have one before the first of them frees its memory: a megabyte each."""

BUSY_DELAY = 5.0
"""Seconds after which an account is tried again that another process had locked."""


class TextIndexing:
    """The accounts that have messages to index.

    Args:
        reactor: an `IReactorTime`.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: OrderedDict[StoreAccount, None] = OrderedDict()
        self._is_running = self._is_stopped = False
        self._delayed_call: Any = None
        self._busy: dict[StoreAccount, Any] = {}
        # The user whose mail is indexed now, and since when.
        self._turn: tuple[str, float] = "", 0.0
        # How many commands each account had sent at the last look, and when it did the last call.
        self._looks: dict[StoreAccount, tuple[int, float]] = {}

    def add(self, account: StoreAccount) -> None:
        """Index the messages of an account soon."""
        self._wait(account)
        self._continue(FIRST_DELAY)

    def stop(self) -> None:
        """Begin no more calls."""
        self._is_stopped = True
        self._waiting.clear()
        self._looks.clear()
        for delayed_call in self._busy.values():
            delayed_call.cancel()
        self._busy.clear()
        if self._delayed_call is not None:
            self._delayed_call.cancel()
            self._delayed_call = None

    def _continue(self, delay: float) -> None:
        is_idle = self._delayed_call is None and not self._is_running
        if self._waiting and is_idle and not self._is_stopped:
            self._delayed_call = self._reactor.callLater(delay, self._start)

    def _wait(self, account: StoreAccount) -> None:
        self._waiting.setdefault(account)
        self._looks.setdefault(account, (account.calls, self._reactor.seconds()))

    def _start(self) -> None:
        self._delayed_call = None
        account, _ = self._waiting.popitem(last=False)
        calls, since = self._looks.pop(account)
        started_at = self._reactor.seconds()
        if account.calls != calls and started_at - since < MAX_POSTPONED:
            self._waiting[account] = None
            self._looks[account] = account.calls, since
            self._continue(QUIET_SECONDS / len(self._waiting))
            return
        self._is_running = True
        if account.user != self._turn[0]:
            self._turn = account.user, started_at
        step = Deferred.fromCoroutine(self._step(account))
        step.addErrback(
            lambda failure: self._log.failure(
                "cannot index the mail of {user}", failure=failure, user=account.user
            )
        )
        step.addBoth(self._ended, started_at)

    async def _step(self, account: StoreAccount) -> None:
        try:
            if account.sessions and await account.index_text() and not self._is_stopped:
                self._wait(account)
                is_over = self._reactor.seconds() - self._turn[1] >= TURN_SECONDS
                self._waiting.move_to_end(account, last=is_over)
        except StoreBusy:
            if account not in self._busy and not self._is_stopped:
                self._busy[account] = self._reactor.callLater(BUSY_DELAY, self._try_again, account)

    def _try_again(self, account: StoreAccount) -> None:
        del self._busy[account]
        self.add(account)

    def _ended(self, _: object, started_at: float) -> None:
        self._is_running = False
        pause = (self._reactor.seconds() - started_at) / 2
        self._continue(min(max(pause, MIN_PAUSE), MAX_PAUSE))
