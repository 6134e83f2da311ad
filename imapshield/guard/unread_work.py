"""`UnreadWork`: bounds the work for clients that send very many commands and may not read the answers.

Whether a client reads shows when its TCP has received more than it opens its window for: about 100 KB on one machine,
which are the answers to 5,000 NOOPs. Until then all such clients together get a small share of the server's time.
"""

SHARE = 0.03
"""Part of the time in which the server works for all of them."""

BURST_SECONDS = 0.2
"""Seconds of work that it does for them at once: as much as one client needs that is alone, until it is trusted."""

COMMAND_SECONDS = 0.0001
"""Seconds that a command counts at least. What it costs to wake the reactor, or a thread, is not measured."""

MAX_DELAY = 10.0
"""Seconds after which a client continues, however many there are."""

TRUSTED_BYTES = 128 << 10
"""Bytes sent to a client after which its window would show that it does not read."""

TRUSTED_SECONDS = BURST_SECONDS
"""Seconds of work after which a client is trusted all the same: its commands are not cheap, so they are few."""


class UnreadWork:
    """The work for all clients of a server that are not known to read."""

    __slots__ = ("_used_until",)

    def __init__(self) -> None:
        self._used_until = 0.0

    def add(self, seconds: float, now: float) -> float:
        """Count `seconds` of work, and return the seconds for which the client waits.

        This is GCRA as in `rates.RateTable`, but what exceeds the rate is counted, too, so that clients that wait
        continue one after the other.
        """
        burst = BURST_SECONDS / SHARE
        used_until = max(self._used_until, now) + seconds / SHARE
        self._used_until = min(used_until, now + burst + MAX_DELAY)
        return max(0.0, self._used_until - now - burst)
