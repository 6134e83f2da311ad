"""The connections without a login are those of a list, of which the oldest one of the largest address is found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.networks import Network
from imapshield.guard.preauth_connections import PreauthConnections

# Two addresses of each of two networks of each of two wider networks.
ADDRESSES = [((4, 32, n), (4, 26, n // 2), (4, 21, n // 4)) for n in range(8)]
NETWORKS = sorted({network for networks in ADDRESSES for network in networks})


@dataclass(eq=False)
class Connection:
    networks: Sequence[Network]


class Model:
    """What `PreauthConnections` says, with a list."""

    def __init__(self) -> None:
        self.held: list[Connection] = []
        self.changes: list[
            Network
        ] = []  # the addresses whose number has changed, the last one last

    def inside(self, network: Network | None) -> list[Connection]:
        return [c for c in self.held if network is None or network in c.networks]

    def largest(self, network: Network | None) -> Connection | None:
        """Return the oldest connection of the largest address; of equal ones, of that which has been so for longest."""
        by_address: dict[Network, list[Connection]] = {}
        for connection in self.inside(network):
            by_address.setdefault(connection.networks[0], []).append(connection)
        most = max(map(len, by_address.values()), default=0)
        equal = [address for address, held in by_address.items() if len(held) == most]
        latest = list(dict.fromkeys(reversed(self.changes)))
        return by_address[max(equal, key=latest.index)][0] if equal else None


class PreauthConnectionsTests(SynchronousTestCase):
    def test_connections_are_those_of_a_list(self) -> None:
        """Counts, lists and the victim agree with a list, for thousands of random additions and removals."""
        draw = random.Random(1)
        tested: PreauthConnections[Connection] = PreauthConnections()
        model = Model()
        for step in range(3000):
            if model.held and draw.random() < (0.6 if step // 100 % 2 else 0.4):
                connection = draw.choice(model.held)
                tested.remove(connection)
                model.held.remove(connection)
            else:
                connection = Connection(draw.choice(ADDRESSES))
                tested.add(connection)
                model.held.append(connection)
            model.changes.append(connection.networks[0])
            self.assertEqual(tested.total, len(model.held))
            self.assertIs(tested.oldest_of_largest(), model.largest(None))
            self.assertIs(tested.oldest(), model.held[0] if model.held else None)
            numbers = Counter(c.networks[0] for c in model.held)
            self.assertEqual(tested.most, max(numbers.values(), default=0))
            network = draw.choice(NETWORKS)
            self.assertEqual(tested.count(network), len(model.inside(network)))
            self.assertIs(tested.oldest_of_largest(network), model.largest(network))
            inside = tested.inside(network)
            self.assertEqual({*inside}, {*model.inside(network)})
            if network[1] == 32:
                self.assertEqual(list(inside), model.inside(network))
                self.assertEqual(tested.of_address(network), tuple(inside))

    def test_nothing_is_left(self) -> None:
        """Connections that were removed leave nothing behind, for any of their networks."""
        tested: PreauthConnections[Connection] = PreauthConnections()
        self.assertIsNone(tested.oldest_of_largest())
        for held in [[Connection(networks) for networks in ADDRESSES * 3]] * 2:
            for connection in held:
                tested.add(connection)
            for connection in held:
                tested.remove(connection)
        self.assertEqual((tested.total, tested.oldest_of_largest()), (0, None))
        tables = (tested._by_address, tested._totals, tested._in_network, tested._all._addresses)
        self.assertEqual([len(table) for table in tables], [0] * 4)
