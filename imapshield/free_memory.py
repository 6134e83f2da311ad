"""Gives memory back to the system after a flood.

The C library keeps memory that is freed, except at the end of its heap. Measured with 1,000 clients over TLS that had
each sent half of a long ID: of 72 MB, 72 MB stayed with the process when they had left, and 2 MB after `malloc_trim`.
Giving 135 MB back took 50 ms, and looking in vain takes less than 1 ms.

The objects of a connection refer to each other, so that only Python's garbage collector frees them, which an idle
server does not start. A collection after 2,000 connections takes some 100 ms. So it is done once, when a minute has
passed without another peak.
"""

import ctypes
import gc
from collections.abc import Callable

ENDED_CONNECTIONS = 200
"""How many connections must have ended since the last peak."""

FREED_BYTES = 16 << 20
"""Or how many bytes must have been released that were held for connections."""

CALLS = 6
"""How often memory is then given back, before the last time after a garbage collection."""


def trim() -> None:
    """Give free memory back to the system, if the C library can (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class FreeMemory:
    """Calls `trim` after connections have ended or have released what they held.

    Args:
        measure: returns the number of connections and the bytes that are held for them.
        trim: gives memory back.
        collect: collects garbage.
    """

    def __init__(
        self,
        measure: Callable[[], tuple[int, int]],
        trim: Callable[[], object] = trim,
        collect: Callable[[], object] = gc.collect,
    ) -> None:
        self._measure = measure
        self._trim = trim
        self._collect = collect
        self._peak = 0, 0
        self._calls_left = 0

    def check(self) -> None:
        """Give memory back if there is probably much. Call this every few seconds."""
        connections, held = self._measure()
        peak_connections, peak_held = self._peak
        if peak_connections - connections >= ENDED_CONNECTIONS or peak_held - held >= FREED_BYTES:
            self._peak = connections, held
            self._calls_left = CALLS
        else:
            self._peak = max(peak_connections, connections), max(peak_held, held)
        if self._calls_left:
            self._calls_left -= 1
            if not self._calls_left:
                self._collect()
            self._trim()
