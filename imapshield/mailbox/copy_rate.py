"""How fast an account may copy from its own messages, as a value. CATENATE copies megabytes for a short command."""

from typing import NamedTuple


class CopyRate(NamedTuple):
    """What an account has copied, as the time at which its rate has made up for that (GCRA).

    Times are in seconds of a monotonic clock, and `per_second` is the rate in bytes per second.
    """

    settled_at: float = 0.0

    def unsettled(self, now: float, per_second: float) -> float:
        """Return the bytes that were copied and that the rate has not made up for yet."""
        return max(0.0, self.settled_at - now) * per_second

    def seconds_until_allowed(self, size: int, now: float, burst: int, per_second: float) -> float:
        """Return after how many seconds `size` more bytes may be copied, 0 for now.

        At most `burst` bytes may be unsettled. A copy that is larger than that is allowed when nothing is unsettled.
        """
        excess = self.unsettled(now, per_second) + min(size, burst) - burst
        return max(0.0, excess) / per_second

    def after(self, size: int, now: float, per_second: float) -> "CopyRate":
        """Return the value after `size` more bytes were copied."""
        return CopyRate(max(self.settled_at, now) + size / per_second)
