"""One run of the simulation: a flood against shield nodes, and what became of attackers, bans and honest users."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.simulated_clients import Attackers, Balancer, Population, Tally, User
from benchmarks.simulated_nodes import DEFAULTS, Clock, Node
from benchmarks.simulated_redis import Member, SimulatedRedis
from imapshield.guard.bans import Ban
from imapshield.guard.login_news import EventNews
from imapshield.guard.networks import Network, networks_of
from imapshield.limits import Limits

ATTACKED_NETWORKS = 2
"""Networks of 2,048 addresses (/21) that have all attackers of ``networks``. There all are equally loud."""

USED_ADDRESSES = 1800
"""How many addresses of such a network attackers have at most. Some of the others are of honest users."""

QUIET_SECONDS = 5
"""Seconds without a flood before it begins."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        attack: one of `simulated_clients.KINDS`.
        nodes: how many shield nodes.
        shared: whether they exchange reports.
        balancer: the kind of `Balancer`.
        one_guard: whether one guard, with the capacity of all nodes, sees everything.
        redis_fails, nodes_fail: the seconds of the flood from when to when; None for never. A third of the nodes fail.
        addresses: of how many the attackers have.
        loud: the part of the attackers' addresses that makes half of the connections. Botnets are like that: few of the
            machines are always on. Only these come near a limit of one address.
        rate: the connections of all attackers per second.
        seconds: the duration of the flood.
        users: how many honest users there are, about.
        seed: of all random choices.
        limits: of each node.
    """

    attack: str = "noop"
    nodes: int = 20
    shared: bool = True
    balancer: str = "random"
    one_guard: bool = False
    redis_fails: tuple[float, float] | None = None
    nodes_fail: tuple[float, float] | None = None
    addresses: int = 100_000
    loud: float = 0.0025
    rate: float = 400.0
    seconds: int = 36
    users: int = 1500
    seed: int = 0
    limits: Limits = DEFAULTS


@dataclass(slots=True)
class Result:
    """What came of a run.

    Attributes:
        served, refused, checked: connections of attackers that were served and refused, and their passwords that were
            checked, of all nodes: those of a second, in the first and in the last third of the flood.
        total_checked: passwords of attackers, in the whole flood.
        bans: how many addresses were banned.
        before_ban: how many connections of each banned address were served, sorted.
        spread: the seconds from each ban to each other node, sorted.
        returned: the seconds from the return of a node to each ban that was made before, sorted.
        missing: bans that have not reached all nodes at the end.
        wrong: bans of addresses where no attacker is.
        tallies: what honest users got, by group.
        report_bytes: the bytes of reports that all nodes together have published per second.
    """

    served: tuple[float, float]
    refused: tuple[float, float]
    checked: tuple[float, float]
    total_checked: int
    bans: int
    before_ban: list[int]
    spread: list[float]
    returned: list[float]
    missing: int
    wrong: int
    tallies: dict[str, Tally]
    report_bytes: float = 0.0


def random_addresses(rng: random.Random, number: int, networks: int = 0) -> list[str]:
    """Return so many different IPv4 addresses, anywhere or in so many networks of 2,048."""
    if networks:
        starts = rng.sample(range(1 << 24 >> 11, 223 << 24 >> 11), networks)
        places = rng.sample(range(networks << 11), min(number, networks * USED_ADDRESSES))
        numbers = [(starts[n >> 11] << 11) + n % 2048 for n in places]
    else:
        numbers = rng.sample(range(1 << 24, 223 << 24), number)
    return [".".join(map(str, n.to_bytes(4, "big"))) for n in numbers]


def honest_users(
    scenario: Scenario, rng: random.Random, attackers: Sequence[str], elsewhere: Sequence[str]
) -> list[User]:
    """Return the honest users.

    Args:
        scenario: says how many.
        rng: the source of random numbers.
        attackers: addresses of attackers, the loudest first. Some users are behind the same addresses.
        elsewhere: addresses of nobody else, for the other users.
    """
    share, places = scenario.users // 10, iter(elsewhere)
    networks = {networks_of(address)[0]: address for address in attackers}
    groups: list[tuple[str, list[str], int, bool]] = [
        ("at home", [next(places) for _ in range(4 * share)], 4 * share, True),
        ("new address", [next(places) for _ in range(share)], share, False),
        ("office", [next(places)], share, True),
        ("infected office", [attackers[0]], share, True),
        ("carriers' NAT", [next(places) for _ in range(10)], share, True),
        ("carriers' NAT, new there", [next(places) for _ in range(10)], share, False),
        ("NAT with bots", list(attackers[1:11]), share // 2, True),
        ("NAT with bots, new there", list(attackers[1:11]), share // 2, False),
    ]
    if scenario.attack == "networks":
        beside = [_beside(rng, address, networks) for address in attackers[:share]]
        groups.append(("attacked network", beside, share, True))
    return [
        User(f"user{n}".encode(), addresses[i % len(addresses)], group, known)
        for n, (group, addresses, i, known) in enumerate(
            (group, addresses, i, known)
            for group, addresses, number, known in groups
            for i in range(number)
        )
    ]


def _beside(rng: random.Random, address: str, taken: dict[Network, str]) -> str:
    """Return a free address of the same /21 as `address`."""
    start = networks_of(address)[2][2] << 11
    while True:
        number = start + rng.randrange(2048)
        if (4, 32, number) not in taken:
            taken[4, 32, number] = ""
            return ".".join(map(str, number.to_bytes(4, "big")))


@dataclass(slots=True)
class BanSpread:
    """Notes when each ban is made, and when it has reached each other node.

    Attributes:
        seconds: how long each ban took to each node.
        returned: how long each earlier ban took to a node that has come back.
        made: the bans, by network: when the first node made it.
        wrong: the bans of networks that are not hostile.
    """

    nodes: Sequence[Node]
    hostile: frozenset[Network]
    seconds: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    made: dict[Network, float] = field(default_factory=dict)
    wrong: int = 0
    _waiting: dict[str, dict[Network, float]] = field(default_factory=dict)

    def ban_made(self, node: Node, ban: Ban) -> None:
        """Note a new ban of a node."""
        now = node.clock.now
        if ban.network in self.made:
            self._reached(node, ban.network, now)
            return
        self.made[ban.network] = now
        self.wrong += ban.network not in self.hostile
        for other in self.nodes:
            if other is not node and other.is_up:
                self._waiting.setdefault(other.name, {})[ban.network] = now

    def _reached(self, node: Node, network: Network, now: float) -> None:
        since = self._waiting.get(node.name, {}).pop(network, None)
        if since is not None:
            is_older = self.made[network] < node.returned_at
            (self.returned if is_older else self.seconds).append(now - since)

    def merged(self, node: Node) -> None:
        """Note which bans a node has after it has merged a report."""
        now = node.clock.now
        for network in list(self._waiting.get(node.name, ())):
            if node.guard.bans.saved(network, now) is not None:
                self._reached(node, network, now)

    def began(self, node: Node) -> None:
        """Note that a node begins with no bans, and must get all that there are."""
        self._waiting[node.name] = dict.fromkeys(self.made, node.clock.now)

    def failed(self, node: Node) -> None:
        """Note that a node needs no bans any more."""
        self._waiting.pop(node.name, None)

    def missing(self) -> int:
        """Return how many bans have not reached all nodes."""
        return len({network for waiting in self._waiting.values() for network in waiting})


def run(scenario: Scenario) -> Result:
    """Simulate a flood."""
    rng, clock = random.Random(f"{scenario.seed} {scenario.attack}"), Clock()
    end = QUIET_SECONDS + scenario.seconds
    capacity = scenario.nodes if scenario.one_guard else 1
    nodes = [
        Node(f"node{n}", clock, end, capacity, scenario.limits)
        for n in range(scenario.nodes // capacity)
    ]
    networks = ATTACKED_NETWORKS if scenario.attack == "networks" else 0
    attackers = random_addresses(rng, scenario.addresses, networks)
    taken = set(attackers)
    spare = random_addresses(rng, 2 * scenario.users)
    users = honest_users(scenario, rng, attackers, [a for a in spare if a not in taken])
    spread = BanSpread(nodes, frozenset(networks_of(address)[0] for address in attackers))
    for node in nodes:
        node.on_ban = spread.ban_made
    balancer = Balancer(scenario.balancer, nodes, clock, rng)
    redis = SimulatedRedis(clock, rng)
    if scenario.shared and len(nodes) > 1:
        _share(scenario, nodes, spread, redis)
    _log_in_earlier(scenario, users, balancer, nodes)
    if scenario.nodes_fail:
        _fail_nodes(nodes, spread, clock, *scenario.nodes_fail)
    population = Population(users, balancer, clock, rng)
    weights, victims = _weights(scenario, attackers), [user.name for user in users]
    flood = Attackers(scenario.attack, weights, scenario.rate, victims, balancer, clock, rng)
    clock.later(QUIET_SECONDS, flood.begin, scenario.seconds)
    clock.run(end)
    population.finish()
    result = _result(scenario, nodes, spread, population)
    result.before_ban = sorted(flood.served[network] for network in spread.made)
    result.report_bytes = redis.bytes / end
    return result


def _weights(scenario: Scenario, attackers: Sequence[str]) -> dict[str, float]:
    if scenario.attack == "networks":
        return dict.fromkeys(attackers, 1.0)
    loud = max(1, round(len(attackers) * scenario.loud))
    quiet = max(1, len(attackers) - loud)
    return {address: 1 / loud if n < loud else 1 / quiet for n, address in enumerate(attackers)}


def _share(
    scenario: Scenario, nodes: Sequence[Node], spread: BanSpread, redis: SimulatedRedis
) -> None:
    for node in nodes:
        member = Member(node, redis, spread.merged)
        node.on_begin, node.report = member.begin, member.report
        member.begin()
    if scenario.redis_fails:
        for seconds, is_up in zip(scenario.redis_fails, (False, True), strict=True):
            redis.clock.later(QUIET_SECONDS + seconds, redis.set_up, is_up)


def _log_in_earlier(
    scenario: Scenario, users: Sequence[User], balancer: Balancer, nodes: Sequence[Node]
) -> None:
    """Let the known users have logged in on earlier days: on each node, or always on that of their hash."""
    is_everywhere = scenario.shared or scenario.balancer != "hash"
    for user in users:
        if user.known:
            chosen = nodes if is_everywhere else [balancer.pick(user.address, False)[0]]
            for node in chosen:
                node.guard.failures.succeeded(user.address, user.name, 0.0)
    for node in nodes:
        news = node.guard.failures.news
        if news is not None and isinstance(news.logins, EventNews):
            news.logins.take(len(users), 0.0)  # the others know them already


def _fail_nodes(
    nodes: Sequence[Node], spread: BanSpread, clock: Clock, begin: float, end: float
) -> None:
    for node in nodes[: len(nodes) // 3 + 1]:
        clock.later(QUIET_SECONDS + begin, node.fail)
        clock.later(QUIET_SECONDS + begin, spread.failed, node)
        clock.later(QUIET_SECONDS + end, node.begin)
        clock.later(QUIET_SECONDS + end, spread.began, node)


def _result(
    scenario: Scenario, nodes: Sequence[Node], spread: BanSpread, population: Population
) -> Result:
    third, end = scenario.seconds // 3, QUIET_SECONDS + scenario.seconds
    first, last = range(QUIET_SECONDS, QUIET_SECONDS + third), range(end - third, end)

    def rates(counted: Callable[[Node], list[int]]) -> tuple[float, float]:
        totals = [sum(counted(node)[s] for node in nodes for s in part) for part in (first, last)]
        return totals[0] / third, totals[1] / third

    return Result(
        served=rates(lambda node: node.counts.served),
        refused=rates(lambda node: node.counts.refused),
        checked=rates(lambda node: node.counts.checked),
        total_checked=sum(sum(node.counts.checked) for node in nodes),
        bans=len(spread.made),
        before_ban=[],
        spread=sorted(spread.seconds),
        returned=sorted(spread.returned),
        missing=spread.missing(),
        wrong=spread.wrong,
        tallies=population.tallies,
    )
