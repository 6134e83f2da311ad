"""`Pauses`: lets a call of a store that runs in a thread pause while others should compute."""

from collections.abc import Callable
from threading import Lock

from imapshield.maildir.job_queue import JobQueue, Share

SECONDS_BETWEEN_PAUSES = 0.0005
"""Time that a long call computes before it looks again whether it should pause."""

MAX_SHORT_PAUSE = 0.003
"""Time that a long call waits while short ones run: it has at least a seventh of the processor."""

MAX_LONG_PAUSE = 0.05
"""Time that a long call waits while an earlier one computes. The sum of their work does not change by that."""

PAUSE_STEP = 0.001
"""Seconds between two looks whether a pause is over."""


class Pauses:
    """The pauses of one call, in which others have the interpreter lock; used in the thread of the call."""

    def __init__(
        self,
        queue: JobQueue,
        share: Share,
        now: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self._queue = queue
        self._share = share
        self._sleep = sleep
        self._next = 0.0
        self.now = now
        self.slept = 0.0

    def pause(self) -> None:
        """Wait while others should compute, if the call is long. Called often (`message.pauses`)."""
        now = self.now()
        if now < self._next:
            return
        self._share.computed_at = now
        if self._share.is_long(now):
            self._wait_while(self._queue.others_compute, MAX_LONG_PAUSE)
            self._wait_while(self._queue.is_short_running, MAX_SHORT_PAUSE)
        self._next = self.now() + SECONDS_BETWEEN_PAUSES

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """Wait for a lock, for `seconds` at most, as in a pause; return whether it came."""
        began = self.now()
        try:
            return lock.acquire(timeout=seconds)
        finally:
            self.slept += self.now() - began

    def _wait_while(self, condition: Callable[[Share, float], bool], seconds: float) -> None:
        """Wait in steps, whose number does not depend on a clock."""
        for _ in range(round(seconds / PAUSE_STEP)):
            if not condition(self._share, self.now()):
                return
            self._sleep(PAUSE_STEP)
            self.slept += PAUSE_STEP
