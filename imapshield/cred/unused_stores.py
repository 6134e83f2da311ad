"""Lets the stores of accounts free memory that no client needs at the moment.

The caches of an account's two databases take a megabyte, and a client that is idle, or polls every few minutes, needs
none of it: the next command reads some pages again, and the next SEARCH opens the text index again (2 ms).

One store frees memory at a time. That takes some milliseconds, and more if the log of the text index is written into
its file.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imapshield.free_memory import trim
from imapshield.mailbox.store_account import StoreAccount

UNUSED_SECONDS = 5
"""Seconds between two looks: a store that was not called between them frees memory."""


RELEASE_SECONDS = 30.0
"""Seconds for which one store may free memory before the next does: one whose disk hangs must not stop the others."""


class UnusedStores:
    """The accounts whose stores were called since they have freed memory.

    Args:
        reactor: an `IReactorTime`.
        run_in_thread: calls a function in a thread.
        close_strings: closes what was being read from the stores, if that is not so any more; returns how many remain.
        trim: gives free memory back to the system. That takes some hundredths of a second if much was freed.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        run_in_thread: Callable[[Callable[[], object]], object],
        close_strings: Callable[[], int] = lambda: 0,
        trim: Callable[[], object] = trim,
    ) -> None:
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self._close_strings = close_strings
        self._trim = trim
        self._used: dict[StoreAccount, None] = {}
        self._unused: dict[StoreAccount, None] = {}
        self._delayed_call: Any = None
        self._is_stopped = self._is_releasing = False
        self._began_at = 0.0

    def used(self, account: StoreAccount) -> None:
        """Note the first call of an account's store, ever or since the last look."""
        self._used[account] = None
        self._continue()

    def stop(self) -> None:
        """Look no more."""
        self._is_stopped = True
        self._unused.clear()
        if self._delayed_call is not None:
            self._delayed_call.cancel()
            self._delayed_call = None

    def _continue(self) -> None:
        if self._delayed_call is None and not self._is_stopped:
            self._delayed_call = self._reactor.callLater(UNUSED_SECONDS, self._look)

    def _look(self) -> None:
        self._delayed_call = None
        accounts, self._used = self._used, {}
        for account in accounts:
            if account.is_in_use:
                account.is_in_use = False
                self._used[account] = None
            else:
                self._unused[account] = None
        if self._close_strings() or self._used:
            self._continue()
        hangs = self._reactor.seconds() - self._began_at > RELEASE_SECONDS
        if self._unused and (hangs or not self._is_releasing):
            self._is_releasing = True
            Deferred.fromCoroutine(self._release())

    async def _release(self) -> None:
        while self._unused:
            account = next(iter(self._unused))
            del self._unused[account]
            if account.is_in_use:  # again; it is looked at later
                self.used(account)
                continue
            self._began_at = self._reactor.seconds()
            try:
                await account.release_memory()
            except Exception:
                self._log.failure("cannot free memory of the mail of {user}", user=account.user)
        self._is_releasing = False
        if not self._is_stopped:
            self._run_in_thread(self._trim)
