"""`LoginNews`: the failed and the successful logins that wait to be sent to other processes."""

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from imapshield.guard.networks import Network

MAX_NEWS = 20_000
"""Failed logins, and successful ones, that wait. More count in this process alone."""


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


class LoginNews:
    """What has happened since the last report, each failed pair and each pair of user and address once.

    Attributes:
        on_first: called with the first of one kind that waits.
    """

    def __init__(self) -> None:
        self.on_first: Callable[[], object] = lambda: None
        self._pairs: dict[FailedPair, None] = {}
        self._logins: dict[tuple[bytes, bytes], None] = {}

    def add_pair(self, pair: FailedPair) -> None:
        """Add a failed login."""
        if not self._pairs:
            self.on_first()
        if len(self._pairs) < MAX_NEWS:
            self._pairs[pair] = None

    def add_login(self, user_hash: bytes, address_hash: bytes) -> None:
        """Add a login of a user from an address."""
        if not self._logins:
            self.on_first()
        if len(self._logins) < MAX_NEWS:
            self._logins[user_hash, address_hash] = None

    def take_pairs(self, number: int) -> tuple[FailedPair, ...]:
        """Remove and return at most `number` failed logins, the oldest first."""
        taken = tuple(islice(self._pairs, number))
        for pair in taken:
            del self._pairs[pair]
        return taken

    def take_logins(self, number: int) -> tuple[tuple[bytes, bytes], ...]:
        """Remove and return at most `number` successful logins, the oldest first."""
        taken = tuple(islice(self._logins, number))
        for login in taken:
            del self._logins[login]
        return taken


class LoginNewsOfTwo(LoginNews):
    """Adds to two others, for a process that tells two groups of processes."""

    def __init__(self, first: LoginNews, second: LoginNews) -> None:
        super().__init__()
        self._both = first, second

    def add_pair(self, pair: FailedPair) -> None:
        """Add a failed login."""
        for each in self._both:
            each.add_pair(pair)

    def add_login(self, user_hash: bytes, address_hash: bytes) -> None:
        """Add a login of a user from an address."""
        for each in self._both:
            each.add_login(user_hash, address_hash)
