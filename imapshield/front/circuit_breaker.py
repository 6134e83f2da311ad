"""`CircuitBreaker`: whether logins may try a backend that has failed."""

from collections.abc import Callable


class CircuitBreaker:
    """Counts consecutive failures. While it is open, only the health check tries the backend.

    So clients of a dead backend get their answer at once, and a backend that comes back is not met by all of them
    before it has answered once.

    Args:
        max_failures: returns how many consecutive failures open it.

    Attributes:
        reason: why the last attempt failed; "" if it did not.
        failures: how often attempts have failed since the last one that has not.
    """

    def __init__(self, max_failures: Callable[[], int]) -> None:
        self.reason = ""
        self.failures = 0
        self._max_failures = max_failures

    @property
    def max_failures(self) -> int:
        """How many consecutive failures open it."""
        return max(1, self._max_failures())

    @property
    def is_open(self) -> bool:
        """Whether the backend has failed so often that logins are refused."""
        return self.failures >= self.max_failures

    def failed(self, reason: str) -> bool:
        """Count a failure, and return whether it has opened the breaker."""
        was_open, self.reason = self.is_open, reason
        self.failures += 1
        return self.is_open and not was_open

    def succeeded(self) -> bool:
        """Forget the failures, and return whether the breaker was open."""
        was_open, self.reason, self.failures = self.is_open, "", 0
        return was_open
