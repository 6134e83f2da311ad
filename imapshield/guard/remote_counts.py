"""`RemoteCounts`: how many connections the other processes have, which serve the same users or share one guard."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from imapshield.guard.networks import Network, wider_networks

K = TypeVar("K", bound=Hashable)

MAX_COUNTS = 200_000
"""Addresses, and users, of which all other processes together may tell. More are not counted. Full tables take at most
100 MB, but a process only tells of open connections."""

MAX_CHANGES = 20_000
"""Keys of one kind that wait to be sent to other processes. After more, all counts are sent again."""


class CountNews(Generic[K]):
    """The counts of one process that the others do not know yet.

    Args:
        most: the keys that wait at most; None for `MAX_CHANGES`.

    Attributes:
        is_lost: whether more have changed than are remembered, so that all counts must be sent again.
        on_first: called with the first change that waits.
    """

    def __init__(self, most: int | None = None) -> None:
        self.is_lost, self._most = False, most
        self.on_first: Callable[[], object] = lambda: None
        self._told: dict[K, int] = {}
        self._changes: dict[K, int] = {}

    def changed(self, key: K, count: int) -> None:
        """Note that `key` has `count` connections now."""
        if not self._changes:
            self.on_first()
        if key in self._changes or len(self._changes) < (self._most or MAX_CHANGES):
            self._changes[key] = count
        else:
            self.is_lost = True

    def restart(self, counts: Iterable[tuple[K, int]]) -> None:
        """Tell all `counts` again, to processes that have forgotten all earlier ones."""
        self.is_lost = False
        self._told.clear()
        self._changes = dict(counts)

    def take(self, number: int) -> list[tuple[K, int]]:
        """Remove and return at most `number` counts that have changed since they were last sent."""
        taken: list[tuple[K, int]] = []
        while self._changes and len(taken) < number:
            for key in list(islice(self._changes, number - len(taken))):
                count = self._changes.pop(key)
                if count != self._told.get(key, 0):
                    taken.append((key, count))
                if count:
                    self._told[key] = count
                else:
                    self._told.pop(key, None)
        return taken


@dataclass(slots=True)
class _Member:
    addresses: dict[Network, int] = field(default_factory=dict)
    users: dict[bytes, int] = field(default_factory=dict)
    # those that a process has not told again yet that tells all
    old_addresses: set[Network] = field(default_factory=set)
    old_users: set[bytes] = field(default_factory=set)


class RemoteCounts:
    """The counts of all other processes.

    Attributes:
        networks: the connections without a login of each address and each wider network.
        users: the connections with a login by the hash of the user.
        on_change: called with a process and an address or a user whose count has changed in it.
    """

    def __init__(self) -> None:
        self.networks: Counter[Network] = Counter()
        self.users: Counter[bytes] = Counter()
        self._members: dict[str, _Member] = {}
        self._addresses = 0
        self.on_change: Callable[[str, Network | bytes], object] = lambda _member, _key: None

    def set_addresses(self, member: str, counts: Iterable[tuple[Network, int]]) -> set[Network]:
        """Set how many connections without a login some addresses have in the process `member`.

        Returns:
            the networks whose numbers have changed.
        """
        known = self._members.setdefault(member, _Member())
        own, changed = known.addresses, set[Network]()
        for address, count in counts:
            known.old_addresses.discard(address)
            before = own.get(address, 0)
            if not before and self._addresses >= MAX_COUNTS:
                continue
            self._addresses += bool(count) - bool(before)
            _set(own, address, count)
            for network in (address, *wider_networks(address)):
                _add(self.networks, network, count - before)
                changed.add(network)
            self.on_change(member, address)
        return changed

    def set_users(self, member: str, counts: Iterable[tuple[bytes, int]]) -> None:
        """Set how many connections some users have in the process `member`."""
        known = self._members.setdefault(member, _Member())
        own = known.users
        for user, count in counts:
            known.old_users.discard(user)
            before = own.get(user, 0)
            if before or len(self.users) < MAX_COUNTS:
                _set(own, user, count)
                _add(self.users, user, count - before)
                self.on_change(member, user)

    def held(self, members: Iterable[str], key: Network | bytes) -> int:
        """Return how many connections an address or a user has in some processes together."""
        known = [self._members[member] for member in members if member in self._members]
        if isinstance(key, bytes):
            return sum(each.users.get(key, 0) for each in known)
        return sum(each.addresses.get(key, 0) for each in known)

    def sums(self, is_counted: Callable[[str], bool]) -> tuple[Counter[Network], Counter[bytes]]:
        """Return the connections of all addresses and users in the processes that are counted together."""
        addresses, users = Counter[Network](), Counter[bytes]()
        for name, known in self._members.items():
            if is_counted(name):
                addresses.update(known.addresses)
                users.update(known.users)
        return addresses, users

    def begin_again(self, member: str) -> None:
        """The process `member` tells all its counts again. Until it has, those of before count."""
        known = self._members.setdefault(member, _Member())
        known.old_addresses, known.old_users = set(known.addresses), set(known.users)

    def told_all(self, member: str) -> None:
        """The process `member` has told all its counts: what it has not told again is no more."""
        known = self._members.setdefault(member, _Member())
        self.set_addresses(member, [(address, 0) for address in [*known.old_addresses]])
        self.set_users(member, [(user, 0) for user in [*known.old_users]])

    def forget(self, member: str) -> None:
        """Forget all counts of the process `member`."""
        forgotten = self._members.get(member)
        if forgotten is not None:
            self.set_addresses(member, [(address, 0) for address in forgotten.addresses])
            self.set_users(member, [(user, 0) for user in forgotten.users])
            del self._members[member]


def _set(counts: dict[K, int], key: K, count: int) -> None:
    if count:
        counts[key] = count
    else:
        counts.pop(key, None)


def _add(counts: Counter[K], key: K, change: int) -> None:
    counts[key] += change
    if not counts[key]:
        del counts[key]
