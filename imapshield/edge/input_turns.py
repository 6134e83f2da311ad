"""`InputTurns`: keeps one turn of the reactor short when very many connections have input at the same time.

Commands run in the fair queue, but Twisted passes input to all connections that have some in one turn. A thousand
connections with a hundred commands each took 0.7 seconds, in which nobody else was served.
"""

from collections.abc import Callable
from typing import Any

MAX_SECONDS = 0.01
"""Seconds in which the connections of the server process input in one turn of the reactor. Then each continues in the
fair queue, with what it has received."""

FREE_PARTIAL_READS = 16
"""Reads of a client without a login that complete no line and do not delay the next read. Each costs as much as a
command, so a client that sends single bytes could otherwise cause a hundred times the work of its allowance."""

MAX_PARTIAL_READ_DELAY = 1.0
"""Seconds between two reads of such a client at most. A person who types sends each character, and waits for the
answer anyway."""


class InputTurns:
    """Measures how long the connections of a server have processed input in the present turn of the reactor.

    Args:
        call_later: the reactor's `callLater`.
        now: the reactor's `seconds`.
    """

    def __init__(
        self, call_later: Callable[[float, Callable[[], object]], Any], now: Callable[[], float]
    ) -> None:
        self._call_later = call_later
        self._now = now
        self._end: float | None = None

    def is_over(self) -> bool:
        """Return whether connections have processed input for `MAX_SECONDS` in this turn."""
        if self._end is None:
            self._end = self._now() + MAX_SECONDS
            self._call_later(0, self._next_turn)
            return False
        return self._now() > self._end

    def _next_turn(self) -> None:
        self._end = None


def partial_read_delay(count: int) -> float:
    """Return the seconds until the next read of a client without a login after `count` reads that completed no line."""
    excess = count - FREE_PARTIAL_READS
    return 0.0 if excess <= 0 else min(0.01 * 2.0 ** min(excess - 1, 16), MAX_PARTIAL_READ_DELAY)
