"""Who connects to the simulated nodes: attackers, honest users, and the balancer that chooses a node for each."""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from benchmarks.simulated_nodes import Clock, Node, Visit
from imapshield.guard.networks import Network

NOTICE_SECONDS = 3.0
"""Seconds after which HAProxy takes a node for failed, or for recovered (``inter 1s fall 3 rise 3``)."""

LOOK_SECONDS = 0.25
"""Seconds for which the balancer remembers which nodes it takes for up."""

RESOLVED_SECONDS = 60.0
"""Seconds for which a client of a DNS name with many addresses keeps the one that it has chosen."""

CONNECT_SECONDS = 3.0
"""Seconds after which a client that gets no answer from one address tries the next."""

ROUND_TRIP = 0.03
"""Seconds of a round trip between a client and a node. A login takes three: TCP, the greeting, LOGIN."""

PREAUTH_SECONDS = 60.0
"""Seconds after which a connection without a login ends (`preauth_seconds`)."""


class Balancer:
    """Chooses a node for each connection.

    Args:
        kind: ``dns`` (a client keeps a node for a minute, attackers take any), ``hash`` (HAProxy, ``balance source``,
            ``hash-type consistent``) or ``random`` (HAProxy, ``balance random``).
        nodes: all nodes.
        clock: the time.
        rng: the source of random numbers.
    """

    def __init__(self, kind: str, nodes: Sequence[Node], clock: Clock, rng: random.Random) -> None:
        self.kind, self._nodes, self._clock, self._rng = kind, nodes, clock, rng
        self._rings: dict[tuple[str, ...], list[tuple[int, Node]]] = {}
        self._resolved: dict[str, tuple[float, Node]] = {}
        self._looked_at = -1e9
        self._taken_for_up: list[Node] = []

    def pick(self, address: str, hostile: bool) -> tuple[Node, float]:
        """Return the node for a client at `address`, and the seconds that the client has lost before it."""
        if self.kind == "dns":
            return self._resolve(address, hostile)
        if self._clock.now >= self._looked_at + LOOK_SECONDS:
            self._looked_at = self._clock.now
            self._taken_for_up = [node for node in self._nodes if self._is_taken_for_up(node)]
        nodes, lost = self._taken_for_up, 0.0
        while True:
            node = self._hashed(address, nodes) if self.kind == "hash" else self._rng.choice(nodes)
            if node.is_up or len(nodes) == 1 or self.kind == "hash":
                return node, lost
            # HAProxy tries another node after a second (``option redispatch``), which a hash does not have.
            nodes, lost = [other for other in nodes if other is not node], lost + 1.0

    def _is_taken_for_up(self, node: Node) -> bool:
        now = self._clock.now
        since = now - (node.returned_at if node.is_up else node.failed_at)
        return node.is_up == (since >= NOTICE_SECONDS)

    def _hashed(self, address: str, nodes: Sequence[Node]) -> Node:
        key = tuple(node.name for node in nodes)
        if key not in self._rings:
            points = [
                (random.Random(f"{node.name} {n}").getrandbits(32), node)
                for node in nodes
                for n in range(100)
            ]
            self._rings[key] = sorted(points, key=lambda point: point[0])
        ring = self._rings[key]
        number = int.from_bytes(bytes(map(int, address.split("."))), "big")
        at = bisect.bisect(ring, number * 2654435761 % (1 << 32), key=lambda point: point[0])
        return ring[at % len(ring)][1]

    def _resolve(self, address: str, hostile: bool) -> tuple[Node, float]:
        if hostile:
            return self._rng.choice(self._nodes), 0.0
        now, lost = self._clock.now, 0.0
        until, node = self._resolved.get(address, (0.0, self._nodes[0]))
        while now >= until or not node.is_up:
            lost += CONNECT_SECONDS if now < until else 0.0
            until, node = now + RESOLVED_SECONDS, self._rng.choice(self._nodes)
        self._resolved[address] = until, node
        return node, lost


@dataclass(slots=True)
class Tally:
    """What the users of one group of honest users got.

    Attributes:
        first: logins that succeeded at the first attempt.
        later: those that succeeded after some more.
        failed: those that did not, up to the end of the simulation.
        delays: the seconds that each successful login took.
    """

    first: int = 0
    later: int = 0
    failed: int = 0
    delays: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class User:
    """An honest user.

    Attributes:
        name: the name.
        address: where the user is.
        group: the name of the group.
        known: whether the user has logged in from there before.
        session: the visit whose login was the last; None without one.
    """

    name: bytes
    address: str
    group: str
    known: bool
    session: Visit | None = None
    begun: float = -1.0
    attempts: int = 0


class Population:
    """Honest users, each of whom logs in about once a minute, and again when the connection is lost.

    Args:
        users: the users.
        balancer: chooses their nodes.
        clock: the time.
        rng: the source of random numbers.

    Attributes:
        tallies: by group.
    """

    interval = 60.0
    retry = 2.0

    def __init__(
        self, users: Sequence[User], balancer: Balancer, clock: Clock, rng: random.Random
    ) -> None:
        self.users, self._balancer, self._clock, self._rng = users, balancer, clock, rng
        self.tallies = {user.group: Tally() for user in users}
        for user in users:
            clock.later(rng.uniform(0, self.interval), self._due, user)

    def _due(self, user: User) -> None:
        self._clock.later(self._rng.expovariate(1 / self.interval), self._due, user)
        self._begin(user)

    def _begin(self, user: User) -> None:
        if user.begun >= 0:
            return  # the last login is still being tried
        if user.session is not None:
            session, user.session = user.session, None
            session.is_open = False
            session.node.close(session)
        user.begun, user.attempts = self._clock.now, 0
        self._attempt(user)

    def _attempt(self, user: User) -> None:
        user.attempts += 1
        node, lost = self._balancer.pick(user.address, hostile=False)
        self._clock.later(lost + 2 * ROUND_TRIP, self._connect, user, node)

    def _connect(self, user: User, node: Node) -> None:
        visit = None
        if node.is_up:
            visit = node.connect(
                user.address, False, lambda outcome: self._ended(user, visit, outcome)
            )
        if visit is None:
            self._failed(user)
        else:
            node.login(visit, user.name, b"right", True)

    def _ended(self, user: User, visit: Visit | None, outcome: str) -> None:
        if outcome != "ok":
            self._failed(user)
            return
        assert visit is not None
        tally = self.tallies[user.group]
        tally.delays.append(self._clock.now + ROUND_TRIP - user.begun)
        tally.first += user.attempts == 1
        tally.later += user.attempts > 1
        user.begun, user.session = -1.0, visit
        visit.on_end = lambda _outcome: self._lost(user)

    def _failed(self, user: User) -> None:
        self._clock.later(self._rng.uniform(0.5, 1.5) * self.retry, self._attempt, user)

    def _lost(self, user: User) -> None:
        """Connect again, because the node has failed."""
        user.session = None
        self._clock.later(self._rng.uniform(0, 5), self._begin, user)

    def finish(self) -> None:
        """Count the logins that are still being tried."""
        for user in self.users:
            if user.begun >= 0 and user.attempts > 1:
                self.tallies[user.group].failed += 1


Secret = Callable[[], tuple[bytes, bytes]]


class Attackers:
    """All attackers. Their connections come at random, each from an address in proportion to its weight.

    Args:
        kind: one of `KINDS`.
        addresses: the addresses with their weights.
        rate: connections per second, of all together.
        victims: the users whose passwords are tried by ``spray``.
        balancer: chooses a node for each connection.
        clock: the time.
        rng: the source of random numbers.

    Attributes:
        tried: the connections so far, also those that a node has not answered.
        served: how many of them were served, by address.
    """

    def __init__(
        self,
        kind: str,
        addresses: dict[str, float],
        rate: float,
        victims: Sequence[bytes],
        balancer: Balancer,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._rate, self._victims = rate, victims
        self._balancer, self._clock, self._rng = balancer, clock, rng
        self._act = KINDS[kind]
        self._addresses = list(addresses)
        self._weights = list(accumulate(addresses.values()))
        self._next = self._choices()
        self.tried = 0
        self.served: Counter[Network] = Counter()

    def _choices(self) -> Iterator[str]:
        while True:
            yield from self._rng.choices(self._addresses, cum_weights=self._weights, k=4096)

    def begin(self, seconds: float) -> None:
        """Attack for so many seconds from now on."""
        self._until = self._clock.now + seconds
        self._arrive()

    def _arrive(self) -> None:
        if self._clock.now >= self._until:
            return
        self._clock.later(self._rng.expovariate(self._rate), self._arrive)
        self.tried += 1
        address = next(self._next)
        node, _ = self._balancer.pick(address, hostile=True)
        if node.is_up:
            visit = node.connect(address, True, _ignore)
            if visit is not None:
                self.served[visit.connection.networks[0]] += 1
                self._act(self, visit)

    def noop(self, visit: Visit) -> None:
        """Send more commands than are permitted before the login."""
        visit.node.exceed(visit, "preauth_commands")

    def hold(self, visit: Visit) -> None:
        """Send nothing, and hold the connection as long as the server lets it."""
        self._clock.later(PREAUTH_SECONDS, visit.end, "reset")

    def guess(self, visit: Visit) -> None:
        """Try a password of one user."""
        visit.node.login(visit, b"director", b"%d" % self.tried, False)

    def spray(self, visit: Visit) -> None:
        """Try a password of any user."""
        user = self._victims[self._rng.randrange(len(self._victims))]
        visit.node.login(visit, user, b"%d" % self.tried, False)


def _ignore(_outcome: str) -> None:
    """Do nothing."""


KINDS: dict[str, Callable[[Attackers, Visit], None]] = {
    "noop": Attackers.noop,
    "networks": Attackers.noop,
    "guess": Attackers.guess,
    "spray": Attackers.spray,
    "slow": Attackers.hold,
}
"""What an attacker does with a connection, by the name of the attack."""
