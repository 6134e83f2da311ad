"""`EventNews`: what has happened and waits to be sent to other processes, with the time at which it happened.

What waits for long, because the others cannot be reached, counts there no longer than here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

from imapshield.guard.networks import Network

K = TypeVar("K")
K_contra = TypeVar("K_contra", contravariant=True)

MAX_NEWS = 20_000
"""Events, or keys, of one kind that wait. More count in this process alone."""

LOGIN_SECONDS = 600.0
"""Seconds in which a login of the same user from the same address is not sent again: the others know it, and a client
that polls logs in every few minutes."""

MAX_SENT = 16_384
"""Logins that are remembered as sent. After more, all may be sent again."""


class FailedPair(NamedTuple):
    """A failed login as `LoginFailures` counts it. All but `network` are keyed hashes.

    Attributes:
        network: the address.
        user: the user.
        pair: user and password, for the address.
        wide_pair: user and password, for the wider networks and for the user.
        is_free: whether it does not count for the address and its networks.
    """

    network: Network
    user: bytes
    pair: bytes
    wide_pair: bytes
    is_free: bool


class News(Protocol[K_contra]):
    """Collects something for other processes: `EventNews` with a time, `RateNews` with an amount."""

    def add(self, key: K_contra, value: float, /) -> None:
        """Add something."""


class NewsOfTwo(Generic[K]):
    """Adds to two others, for a process that reports to two groups of processes."""

    def __init__(self, first: News[K], second: News[K]) -> None:
        self._both = first, second

    def add(self, key: K, value: float, /) -> None:
        """Add to both."""
        for each in self._both:
            each.add(key, value)


class EventNews(Generic[K]):
    """What has happened since the last report, each event once, with its latest time.

    Args:
        every: seconds in which an event is not sent again when it happens again.

    Attributes:
        on_first: called with the first that waits.
    """

    def __init__(self, every: float = 0.0) -> None:
        self.on_first: Callable[[], object] = lambda: None
        self._times: dict[K, float] = {}
        self._every, self._sent = every, dict[K, float]()

    def add(self, key: K, time: float, /) -> None:
        """Add an event."""
        sent = self._sent.get(key)
        if sent is not None and time < sent + self._every:
            return
        if not self._times:
            self.on_first()
        known = self._times.get(key)
        if known is not None or len(self._times) < MAX_NEWS:
            self._times[key] = time if known is None else max(known, time)

    def take(self, number: int, now: float) -> list[tuple[K, float]]:
        """Remove and return at most `number` events, the first ones, and how many seconds ago each has happened."""
        keys = list(islice(self._times, number))
        if self._every:
            if len(self._sent) > MAX_SENT:
                self._sent.clear()
            self._sent.update((key, self._times[key]) for key in keys)
        return [(key, round(max(0.0, now - self._times.pop(key)), 3)) for key in keys]

    def send_again(self) -> None:
        """Send events again that were sent, because another process may not have got them."""
        self._sent.clear()


@dataclass(frozen=True)
class LoginNews:
    """Collects the failed logins, and those that succeed: the hashes of the user and of the address."""

    pairs: News[FailedPair]
    logins: News[tuple[bytes, bytes]]
