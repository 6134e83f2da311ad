"""Gives memory back to the system after a flood.

The C library keeps memory that is freed, except at the end of its heap. Measured with 1,000 clients over TLS that had
each sent half of a long ID: of 72 MB, 72 MB stayed with the process when they had left, and 2 MB after `malloc_trim`.
Giving 135 MB back took 50 ms, and looking in vain takes less than 1 ms.

The objects of a connection refer to each other, so that only Python's garbage collector frees them, which an idle
server does not start. A collection after 2,000 connections takes some 100 ms. So it is done once, when some seconds
have passed without another peak; if more connections are left than have ended, when a minute has passed.

Not everything that takes memory is counted for a connection: calls of the store, sorting, objects in cycles. So the
memory of the process is compared with what is counted, too (on Linux). If it has grown much more since the last
collection, garbage is collected, at most once a minute.

A collection stops everything for as long as it takes to look at each object: 50 ms while users sort 100,000 messages,
and 100 ms with 2,000 connections. If it may be long, it waits for a second in which the server does little.
"""

import ctypes
import gc
from collections.abc import Callable
from resource import getpagesize

ENDED_CONNECTIONS = 200
"""How many connections must have ended since the last peak."""

FREED_BYTES = 8 << 20
"""Or how many bytes must have been released that were held for connections: half of what one user may hold."""

UNCOUNTED_BYTES = 32 << 20
"""Or how many bytes more than are counted the process must have taken since then, in `ABOVE_CALLS` calls."""

CHECK_SECONDS = 1.0
"""Seconds between two calls of `FreeMemory.check`."""

CALLS = 60
"""How often memory is then given back, the last time after a garbage collection."""

SOON_CALLS = 3
"""The same, if at least as many connections have ended as are left: the collection does not take long."""

ABOVE_CALLS = 20
"""Calls one after the other in which the process must have taken `UNCOUNTED_BYTES` more."""

QUIET_WORK = 50
"""How often the connections have their turn in a second in which a collection disturbs few."""

POSTPONED_CALLS = 600
"""Calls in which a collection that is due waits for such a second: ten minutes."""


def resident() -> int | None:
    """Return how many bytes of memory the process takes; None if the system does not say (not Linux)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def trim() -> None:
    """Give free memory back to the system, if the C library can (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class FreeMemory:
    """Calls `trim` after connections have ended or have released what they held, or if the process takes much memory.

    Args:
        measure: returns the number of connections and the bytes that are held for them.
        work: returns how many turns the connections had since the server has started.
        trim: gives memory back.
        collect: collects garbage.
        resident: returns the bytes that the process takes, or None.
    """

    def __init__(
        self,
        measure: Callable[[], tuple[int, int]],
        work: Callable[[], int],
        trim: Callable[[], object] = trim,
        collect: Callable[[], object] = gc.collect,
        resident: Callable[[], int | None] = resident,
    ) -> None:
        self._measure = measure
        self._work = work
        self._work_before, self._is_busy = work(), False
        self._is_postponed, self._calls_postponed = False, 0
        self._trim = trim
        self._collect = collect
        self._resident = resident
        self._uncounted = resident()  # the least since the last such collection
        self._calls_above, self._calls_since_collection = 0, CALLS
        self._peak = 0, 0
        self._ended = 0
        self._calls_left = 0

    def check(self) -> None:
        """Give memory back if there is probably much. Call this every `CHECK_SECONDS`."""
        connections, held = self._measure()
        self._note_work()
        peak_connections, peak_held = self._peak
        ended = peak_connections - connections
        if ended >= ENDED_CONNECTIONS or peak_held - held >= FREED_BYTES:
            self._peak = connections, held
            self._ended = ended
            self._calls_left = SOON_CALLS if ended >= connections else CALLS
        else:
            self._peak = max(peak_connections, connections), max(peak_held, held)
        is_long = connections > self._ended
        if self._calls_left > 1 or (self._calls_left and self._may_collect(is_long=is_long)):
            self._calls_left -= 1
            self._give_back(collect=not self._calls_left)
        self._check_resident(held)

    def _note_work(self) -> None:
        work = self._work()
        self._is_busy = work - self._work_before > QUIET_WORK
        self._work_before = work
        self._calls_postponed = self._calls_postponed + 1 if self._is_postponed else 0
        self._is_postponed = False

    def _may_collect(self, *, is_long: bool) -> bool:
        """Whether a collection that is due is not postponed: `POSTPONED_CALLS` count from the call in which it was."""
        self._is_postponed = is_long and self._is_busy and self._calls_postponed < POSTPONED_CALLS
        return not self._is_postponed

    def _give_back(self, *, collect: bool) -> None:
        if collect:
            self._collect()
            self._calls_since_collection = 0
        self._trim()

    def _check_resident(self, held: int) -> None:
        """Give memory back if the process takes much more than is counted, compared with the least until now."""
        resident = self._resident()
        if resident is None:
            return
        uncounted = resident - held
        least = self._uncounted = min(uncounted, self._uncounted or uncounted)
        self._calls_since_collection += 1
        self._calls_above = self._calls_above + 1 if uncounted - least >= UNCOUNTED_BYTES else 0
        is_due = self._calls_above >= ABOVE_CALLS and self._calls_since_collection >= CALLS
        if is_due and self._may_collect(is_long=True):
            self._give_back(collect=True)
            self._uncounted, self._calls_above = (self._resident() or resident) - held, 0
