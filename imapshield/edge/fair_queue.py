"""`FairQueue`: runs the work of all connections round-robin by user, or before login by address.

With a queue for each connection, a hundred connections of one user, each with a backlog of searches, made every other
user wait for all of them: the reactor ran one batch of each connection before it returned to its sockets. `FairQueue`
returns to the reactor after a few milliseconds, and runs one batch of every other user between two batches of one user.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any

Work = Callable[[], object]


class FairQueue:
    """Queues of work, one for each key, served round-robin.

    Args:
        call_later: the reactor's `callLater`.
        now: the reactor's `seconds`.
        max_seconds: how long the queue may work before the reactor handles its sockets again.

    Attributes:
        call_later: as above.
    """

    def __init__(
        self, call_later: Callable[[float, Work], Any], now: Callable[[], float], max_seconds: float
    ) -> None:
        self.call_later = call_later
        self._now = now
        self._max_seconds = max_seconds
        self._queues: OrderedDict[Hashable, deque[Work]] = OrderedDict()
        self._scheduled = False

    def add(self, key: Hashable, work: Work) -> None:
        """Run `work` in a later iteration of the reactor, after the work already queued under `key`.

        An exception that `work` raises goes to the reactor, which logs it. The rest of the queue runs in the next
        iteration.
        """
        self._queues.setdefault(key, deque()).append(work)
        if not self._scheduled:
            self._scheduled = True
            self.call_later(0, self._run)

    def _run(self) -> None:
        deadline = self._now() + self._max_seconds
        # Work added during this run is left for the next one: its connection may have to send or receive first.
        remaining = sum(map(len, self._queues.values()))
        try:
            while remaining and self._queues:
                remaining -= 1
                key, queue = self._queues.popitem(last=False)
                work = queue.popleft()
                if queue:
                    self._queues[key] = queue
                work()
                if self._now() >= deadline:
                    break
        finally:
            self._scheduled = bool(self._queues)
            if self._scheduled:
                self.call_later(0, self._run)
