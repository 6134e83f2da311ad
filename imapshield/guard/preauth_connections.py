"""`PreauthConnections`: the connections without a login, the oldest of all, and that of the address that has most."""

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from imapshield.guard.networks import Network
from imapshield.guard.remote_counts import CountNews


class HasNetworks(Protocol):
    """A connection. `networks`: the networks that contain its address, the smallest first."""

    networks: Sequence[Network]


T = TypeVar("T", bound=HasNetworks)


class _ByCount:
    """Addresses by the number of their connections. It finds one that has most at once."""

    __slots__ = ("_addresses", "most")

    def __init__(self) -> None:
        self._addresses: dict[int, dict[Network, None]] = {}
        self.most = 0

    def move(self, address: Network, before: int, now: int) -> None:
        """Note that the number of `address` has changed by one."""
        if before:
            addresses = self._addresses[before]
            del addresses[address]
            if not addresses:
                del self._addresses[before]
        if now:
            self._addresses.setdefault(now, {})[address] = None
        self.most = max(self.most, now)
        if self.most not in self._addresses:
            self.most = now  # A number changes by one, so this is the next smaller one.

    def largest(self) -> Network:
        """Return the address that has most. If several have as many, it is the one that has had them longest."""
        return next(iter(self._addresses[self.most]))


class PreauthConnections(Generic[T]):
    """All connections without a login.

    Attributes:
        total: their number.
        news: collects the addresses whose number changes. None collects nothing.
    """

    def __init__(self) -> None:
        self.total = 0
        self.news: CountNews[Network] | None = None
        self._by_age: dict[T, None] = {}  # the oldest first
        self._by_address: dict[Network, dict[T, None]] = {}
        self._totals: dict[Network, int] = {}  # of all networks
        self._all = _ByCount()
        self._in_network: dict[
            Network, _ByCount
        ] = {}  # of the networks that are wider than an address

    def count(self, network: Network) -> int:
        """Return how many connections `network` has."""
        return self._totals.get(network, 0)

    def addresses(self) -> Iterator[tuple[Network, int]]:
        """Yield the addresses with their numbers of connections."""
        return ((address, len(held)) for address, held in self._by_address.items() if address[0])

    def of_address(self, address: Network) -> Sequence[T]:
        """Return the connections of `address`, the oldest first."""
        return tuple(self._by_address.get(address, ()))

    def inside(self, network: Network) -> Sequence[T]:
        """Return the connections of an address or a network. For a network, it looks at all connections."""
        if network in self._by_address:
            return self.of_address(network)
        return [c for held in self._by_address.values() for c in held if network in c.networks]

    @property
    def most(self) -> int:
        """The number of connections of the address that has most."""
        return self._all.most

    def oldest(self) -> T | None:
        """Return the oldest connection of all; None if there is none."""
        return next(iter(self._by_age), None)

    def oldest_of_largest(self, network: Network | None = None) -> T | None:
        """Return the oldest connection of the address that has most, in `network` or of all; None if there is none."""
        if network in self._by_address:
            return next(iter(self._by_address[network]))
        counts = self._all if network is None else self._in_network.get(network)
        if counts is None or not counts.most:
            return None
        return next(iter(self._by_address[counts.largest()]))

    def add(self, connection: T) -> None:
        """Add `connection` as the newest one of its address."""
        address = connection.networks[0]
        held = self._by_address.setdefault(address, {})
        held[connection] = self._by_age[connection] = None
        self._changed(connection, len(held) - 1, len(held))

    def remove(self, connection: T) -> None:
        """Remove `connection`, which was added."""
        address = connection.networks[0]
        held = self._by_address[address]
        del held[connection], self._by_age[connection]
        self._changed(connection, len(held) + 1, len(held))
        if not held:
            del self._by_address[address]

    def _changed(self, connection: T, before: int, now: int) -> None:
        address, *wider = connection.networks
        self.total += now - before
        if self.news is not None and address[0]:  # not those of a UNIX socket
            self.news.changed(address, now)
        self._all.move(address, before, now)
        for network in wider:
            counts = self._in_network.get(network)
            if counts is None:
                counts = self._in_network[network] = _ByCount()
            counts.move(address, before, now)
            if not counts.most:
                del self._in_network[network]
        for network in connection.networks:
            total = self._totals.pop(network, 0) + now - before
            if total:
                self._totals[network] = total
