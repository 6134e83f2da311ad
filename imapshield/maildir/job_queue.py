"""Decides which account's call runs next in the threads that all accounts share. Pure: time is an argument.

Rules
-----
* At most one call of an account runs at a time.
* The account that has used the threads least recently is next. So an account waits for each of the others at most once.
* An account that has used more than `SLOW_SECONDS` recently is slow. Slow accounts use at most `SLOW_THREADS` threads,
  and the others are free for short calls.
* A call cannot be stopped. While one runs for longer than `SLOW_SECONDS`, it counts as slow, and a call of an account
  that is not slow gets a thread in addition, up to `EXTRA_THREADS`.
* Long calls compute one after another, and let short ones go first (`others_compute`, `is_short_running`).
* A call in the background lets short ones go first too, and no other call waits for it. It is not counted as use of its
  account: that did not ask for it.
"""

import heapq
from dataclasses import dataclass
from math import log2

THREADS = 4
"""Calls that run at the same time."""

SLOW_THREADS = 2
"""Calls of slow accounts that run at the same time. A disk may answer several at once; but each thread that computes
delays the reactor's thread by up to `service.SWITCH_SECONDS` whenever that needs the interpreter."""

EXTRA_THREADS = 12
"""Calls that may run in addition, while as many others run for long. With 4, the first calls of ten users with hostile
mail took all threads for a second, before it was known that these users are slow."""

SLOW_SECONDS = 0.1
"""Time in the threads, recently, that makes an account slow: thirty times that of a usual call."""

HALF_LIFE = 1.0
"""Seconds in which half of the used time is forgotten: an account that uses a seventh of a thread is slow."""

COMPUTING_SECONDS = 0.005
"""Time since its last pause point (`message.pauses`) for which a call is assumed to compute, and not to wait for a
file."""

MAX_USED_SECONDS = 8.0
"""Used time that is remembered at most. It bounds how long others can be first, to some ten seconds."""

_LEAST = 2.0**-20


@dataclass(slots=True, eq=False)
class Share:
    """What one account has used of the threads.

    `level` is the logarithm of the used seconds, plus the time in half-lives: all levels decay alike, so that their
    order does not change with time.
    """

    level: float = float("-inf")
    is_slow: bool = False
    started_at: float = 0.0
    computed_at: float = float("-inf")
    is_background: bool = False

    def is_long(self, now: float) -> bool:
        """Return whether the running call of this account is long, or probably becomes so."""
        return self.is_slow or self.is_background or now - self.started_at > SLOW_SECONDS

    def used(self, now: float) -> float:
        """Return the seconds that were used recently."""
        return float(2.0 ** max(-64.0, self.level - now / HALF_LIFE))

    def add(self, seconds: float, now: float) -> None:
        """Count `seconds` of use."""
        used = min(self.used(now) + max(seconds, _LEAST), MAX_USED_SECONDS)
        self.level = log2(used) + now / HALF_LIFE


class JobQueue:
    """The accounts that wait for a thread, and those that have one.

    Attributes:
        is_in_place: whether a call runs in the reactor's thread (`in_place_rules`), so that long calls pause.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Share]] = []
        self._running: tuple[Share, ...] = ()  # replaced as a whole: other threads read it
        self._count = 0
        self.is_in_place = False

    @property
    def is_waiting(self) -> bool:
        """Whether an account waits."""
        return bool(self._waiting)

    @property
    def is_running(self) -> bool:
        """Whether a call runs in a thread."""
        return bool(self._running)

    def wait(self, share: Share) -> None:
        """Let an account wait for a thread. It neither waits nor runs."""
        self._count += 1
        heapq.heappush(self._waiting, (share.level, self._count, share))

    def start_next(self, now: float) -> Share | None:
        """Return the account whose call is to start now, which counts as running; None if none may start yet."""
        if not self._waiting:
            return None
        share = self._waiting[0][2]
        share.is_slow = share.used(now) > SLOW_SECONDS
        long = sum(now - other.started_at > SLOW_SECONDS for other in self._running)
        slow = sum(other.is_long(now) for other in self._running)
        room = THREADS + min(long, EXTRA_THREADS)
        if share.is_slow and slow >= SLOW_THREADS:
            room = 0
        elif share.is_slow:
            room = THREADS
        if len(self._running) >= room:
            return None
        heapq.heappop(self._waiting)
        share.started_at = now
        share.is_background = False
        self._running = (*self._running, share)
        return share

    def others_compute(self, share: Share, now: float) -> bool:
        """Return whether a long call that has started before that of `share` computes. May be called in any thread."""
        return not share.is_background and any(
            not other.is_background
            and other.started_at < share.started_at
            and now - other.computed_at < COMPUTING_SECONDS
            and other.is_long(now)
            for other in self._running
        )

    def is_short_running(self, share: Share, now: float) -> bool:
        """Return whether a short call runs besides that of `share`. May be called in any thread."""
        return self.is_in_place or not all(
            other is share or other.is_long(now) for other in self._running
        )

    def finish(self, share: Share, seconds: float, now: float) -> None:
        """Note that the call of an account has ended, which took `seconds`."""
        self._running = tuple(other for other in self._running if other is not share)
        share.add(0.0 if share.is_background else seconds, now)
