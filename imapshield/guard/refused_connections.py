"""`RefusedConnections`: how many connections bans have refused, for the log."""

from heapq import nlargest
from operator import itemgetter
from typing import NamedTuple

from imapshield.guard.bans import Bans
from imapshield.guard.networks import Network, describe

MAX_REFUSED = 50
"""Banned networks about which the log says every ten seconds how many connections were refused; those with most."""


class Refused(NamedTuple):
    """How many `connections` the ban of a `network` has refused, and the seconds until it ends."""

    network: str
    connections: int
    remaining: float


class RefusedConnections:
    """The connections of banned networks that were refused since the last `take`."""

    def __init__(self) -> None:
        self._counts: dict[Network, int] = {}

    def add(self, network: Network) -> None:
        """Count a connection that the ban of `network` refuses."""
        self._counts[network] = self._counts.get(network, 0) + 1

    def take(self, bans: Bans, now: float) -> list[Refused]:
        """Return how many connections were refused since the last call, for the `MAX_REFUSED` largest networks.

        The others are one entry more. If they were kept for later, there could be ever more of them.
        """
        counts, self._counts = self._counts, {}
        most = nlargest(MAX_REFUSED, counts.items(), key=itemgetter(1))
        others = sum(counts.values()) - sum(count for _, count in most)
        saved = [(bans.saved(network, now), network, count) for network, count in most]
        found = [
            Refused(describe(network), count, max(0.0, ban.remaining) if ban else 0.0)
            for ban, network, count in saved
        ]
        return [*found, Refused("others", others, 0.0)] if others else found
