"""Whose turn it is: users one after another, however many connections and commands each of them has.

A hundred connections of one user, each with a backlog of searches, made everybody else wait for all of them: the
reactor ran a turn of each before it came back to its sockets. Now it comes back after `seconds`, and between two turns
of one user every other who has something to do has had one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any

Work = Callable[[], object]


class FairQueue:
    """The work that waits, by whose it is.

    Args:
        call_later: a reactor's.
        now: that reactor's seconds.
        seconds: after which the reactor sees to its sockets again.
    """

    def __init__(
        self, call_later: Callable[[float, Work], Any], now: Callable[[], float], seconds: float
    ) -> None:
        self._call_later = call_later
        self._now = now
        self._seconds = seconds
        self._waiting: OrderedDict[Hashable, deque[Work]] = OrderedDict()
        self._due = False

    def add(self, whose: Hashable, work: Work) -> None:
        """Have `work` done in a later turn of the reactor, after what waits already."""
        self._waiting.setdefault(whose, deque()).append(work)
        if not self._due:
            self._due = True
            self._call_later(0, self._run)

    def _run(self) -> None:
        end = self._now() + self._seconds
        # What comes while this runs is for a later turn: it may wait for what its connection has to send first.
        left = sum(map(len, self._waiting.values()))
        try:
            while left and self._waiting:
                left -= 1
                whose, queue = self._waiting.popitem(last=False)
                work = queue.popleft()
                if queue:
                    self._waiting[whose] = queue
                work()
                if self._now() >= end:
                    break
        finally:
            self._due = bool(self._waiting)
            if self._due:
                self._call_later(0, self._run)
