"""`FairQueue`: runs the work of all connections round-robin by user, or before login by address.

With a queue for each connection, a hundred connections of one user, each with a backlog of searches, made every other
user wait for all of them: the reactor ran one batch of each connection before it returned to its sockets. `FairQueue`
returns to the reactor after a few milliseconds, and runs one batch of every other user between two batches of one user.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any

Work = Callable[[], object]

LONG_WORK = 2
"""Work that takes longer than this many times `max_seconds` makes its key rest as long as it took, if other keys have
work now and then. A command of another user returns to the queue several times, and would meet such work each time."""

MAX_REST = 0.05
"""Seconds that a key rests at most."""

OTHERS_SECONDS = 1.0
"""Seconds after which other keys no longer count as active."""


class FairQueue:
    """Queues of work, one for each key, served round-robin.

    Args:
        call_later: the reactor's `callLater`.
        now: the reactor's `seconds`.
        max_seconds: how long the queue may work before the reactor handles its sockets again.

    Attributes:
        call_later: as above.
        max_seconds: as above. It may be changed.
        begun: how many pieces of work have begun since the start, so that others can see whether there is much to do.
    """

    def __init__(
        self, call_later: Callable[[float, Work], Any], now: Callable[[], float], max_seconds: float
    ) -> None:
        self.call_later = call_later
        self.begun = 0
        self._now = now
        self.max_seconds = max_seconds
        self._queues: OrderedDict[Hashable, deque[Work]] = OrderedDict()
        # Of all queues together: to add them up takes long with a thousand clients.
        self._length = 0
        self._resting: dict[Hashable, deque[Work]] = {}
        self._scheduled = False
        self._last_key: Hashable = None
        self._last_change = now() - OTHERS_SECONDS

    def add(self, key: Hashable, work: Work) -> None:
        """Run `work` in a later iteration of the reactor, after the work already queued under `key`.

        An exception that `work` raises goes to the reactor, which logs it. The rest of the queue runs in the next
        iteration.
        """
        if key in self._resting:
            self._resting[key].append(work)
            return
        self._queues.setdefault(key, deque()).append(work)
        self._length += 1
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.call_later(0, self._run)

    def _run(self) -> None:
        now = self._now()
        deadline = now + self.max_seconds
        # Work added during this run is left for the next one: its connection may have to send or receive first.
        remaining = self._length
        try:
            while remaining and self._queues:
                remaining -= 1
                self._length -= 1
                key, queue = self._queues.popitem(last=False)
                work = queue.popleft()
                if queue:
                    self._queues[key] = queue
                if key != self._last_key:
                    self._last_change = now if self._last_key else self._last_change
                    self._last_key = key
                self.begun += 1
                work()
                before, now = now, self._now()
                if now - before > LONG_WORK * self.max_seconds:
                    self._rest(key, before, now)
                if now >= deadline:
                    break
        finally:
            self._scheduled = bool(self._queues)
            if self._scheduled:
                self.call_later(0, self._run)

    def _rest(self, key: Hashable, before: float, now: float) -> None:
        """Let `key` rest after work that took from `before` to `now`, unless no other key has work."""
        if before - self._last_change < OTHERS_SECONDS:
            resting = self._resting[key] = self._queues.pop(key, deque())
            self._length -= len(resting)
            self.call_later(min(now - before, MAX_REST), lambda: self._end_rest(key))

    def _end_rest(self, key: Hashable) -> None:
        queue = self._resting.pop(key)
        if queue:
            self._queues[key] = queue
            self._length += len(queue)
            self._schedule()
