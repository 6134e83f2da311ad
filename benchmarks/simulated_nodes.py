"""Shield nodes on a simulated clock: each has the real `ProcessGuard` and `LoginQueue`, and clients that are events.

What a node does for a connection and for a login follows `edge/admission.py` and `edge/authentication.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from imapshield.guard.bans import Ban
from imapshield.guard.guess_rates import Guess
from imapshield.guard.login_queue import LoginQueue
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shares import Connection, Eviction
from imapshield.limits import Limits

CHECK_SECONDS = 0.2
"""Seconds of one password check. With `max_login_checks` at once, a node checks 40 passwords per second: an argon2id
hash that takes 50 ms, on two cores."""

DEFAULTS = Limits()

KEY = b"simulated"
"""The secret that all nodes share, so that the hash of a user is the same on each."""


class Clock:
    """Runs callbacks in the order of their times. ``now`` is the time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = count()

    def later(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> None:
        """Call `callback` in so many seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), callback, arguments))

    def run(self, until: float) -> None:
        """Run all callbacks up to a time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, callback, arguments = heapq.heappop(self._events)
            callback(*arguments)
        self.now = until


@dataclass(slots=True)
class Counts:
    """What one node did for attackers, by second."""

    served: list[int]
    refused: list[int]
    checked: list[int]

    @classmethod
    def of(cls, seconds: int) -> Counts:
        """Return counts of zero for so many seconds."""
        return cls(*([0] * (seconds + 1) for _ in range(3)))


@dataclass(slots=True, eq=False)
class Visit:
    """A connection of a client to a node, from its first packet to the end of its login.

    Attributes:
        node: the node.
        connection: as the guard counts it.
        on_end: called once with how it ended: ``ok``, ``wrong``, ``refused`` (NO [UNAVAILABLE]), ``reset`` or ``lost``.
        hostile: whether an attacker makes it.
        user, secret: the user and the digest of the password.
        correct: whether the password is correct.
        is_open: whether the connection is counted.
        is_checked: whether its password check has begun.
    """

    node: Node
    connection: Connection
    on_end: Callable[[str], object]
    hostile: bool
    user: bytes = b""
    secret: bytes = b""
    correct: bool = False
    is_open: bool = True
    is_checked: bool = False

    def end(self, outcome: str) -> None:
        """End the visit, and with it the connection unless the login was correct. May be called again."""
        if self.is_open:
            self.is_open = outcome == "ok"
            if outcome != "ok":
                self.node.close(self)
            on_end, self.on_end = self.on_end, _ignore
            on_end(outcome)


def _ignore(_outcome: str) -> None:
    """Do nothing."""


def limits_of(limits: Limits, nodes: int) -> Limits:
    """Return the limits of one guard that has the connections of so many nodes with `limits`."""
    return replace(
        limits,
        max_connections=limits.max_connections * nodes,
        max_preauth_connections=limits.max_preauth_connections * nodes,
    )


@dataclass(slots=True, eq=False)
class Node:
    """One shield node.

    Attributes:
        name: its name as a member.
        clock: the time.
        seconds: how long the simulation is.
        capacity: of how many nodes it has the processors and connections.
        limits: those of one node.
        on_ban: called with the node and each ban that it makes.
        on_begin: called when the node has come back with a new guard.
        report: called after each ban of this node, which the others should know at once.
        guard: the real guard.
        is_up: whether it runs.
        failed_at, returned_at: when it failed and came back last; the balancer notices both later.
        counts: what it did for attackers.
    """

    name: str
    clock: Clock
    seconds: int
    capacity: int = 1
    limits: Limits = DEFAULTS
    on_ban: Callable[[Node, Ban], object] = lambda _node, _ban: None
    on_begin: Callable[[], object] = lambda: None
    report: Callable[[], object] = lambda: None
    guard: ProcessGuard = field(init=False)
    is_up: bool = True
    failed_at: float = -1e9
    returned_at: float = -1e9
    counts: Counts = field(init=False)
    visits: dict[Visit, None] = field(default_factory=dict)
    _queue: LoginQueue = field(init=False)

    def __post_init__(self) -> None:
        """Make the guard."""
        self.counts = Counts.of(self.seconds)
        self.begin()
        self.returned_at = -1e9

    def begin(self) -> None:
        """Begin with nothing counted, as a new machine does."""
        limits = limits_of(self.limits, self.capacity)
        self.guard = ProcessGuard(limits, NetworkSet(), KEY)
        self._queue = LoginQueue(limits.max_login_checks * self.capacity)
        self.is_up, self.returned_at = True, self.clock.now
        self.on_begin()

    def fail(self) -> None:
        """Lose everything: connections, logins and counts."""
        self.is_up, self.failed_at = False, self.clock.now
        for visit in list(self.visits):
            visit.is_open = False
            visit.on_end("lost")
        self.visits.clear()

    def connect(self, address: str, hostile: bool, on_end: Callable[[str], object]) -> Visit | None:
        """Return a visit; None if the connection is refused."""
        arrival = self.guard.connect(address, self.clock.now)
        self.evict(arrival.evictions)
        if arrival.violations is not None and arrival.ban is not None:
            self.banned(arrival.ban)
        if hostile:
            counted = self.counts.served if arrival.connection else self.counts.refused
            counted[int(self.clock.now)] += 1
        if arrival.connection is None:
            return None
        visit = Visit(self, arrival.connection, on_end, hostile)
        visit.connection.owner = visit
        self.visits[visit] = None
        return visit

    def evict(self, evictions: Iterable[Eviction]) -> None:
        """Reset connections that must make room."""
        for eviction in evictions:
            visit: Visit = eviction.connection.owner
            visit.end("reset")

    def close(self, visit: Visit) -> None:
        """Count the connection of a visit no more."""
        self.visits.pop(visit, None)
        self._queue.remove(visit)
        self.guard.close(visit.connection)

    def exceed(self, visit: Visit, limit: str) -> None:
        """Reset a connection that has exceeded a limit."""
        _, ban = self.guard.violation(visit.connection, limit, self.clock.now)
        if ban is not None:
            self.banned(ban)
        visit.end("reset")

    def banned(self, ban: Ban) -> None:
        """Do what follows from a new ban of this node."""
        self.on_ban(self, ban)
        self.report()
        if not ban.strangers_only:
            self.reset_strangers(ban)

    def reset_strangers(self, ban: Ban) -> None:
        """Reset the connections without a login from a banned network."""
        for connection in self.guard.strangers_of([ban.network]):
            visit: Visit = connection.owner
            visit.end("reset")

    def login(self, visit: Visit, user: bytes, secret: bytes, correct: bool) -> None:
        """Check a password when it is the turn of the client."""
        visit.user, visit.secret, visit.correct = user, secret, correct
        if self.guard.refuse_login(visit.connection, user, self.clock.now) is not None:
            visit.end("refused")
            return
        address = visit.connection.address
        self._queue.add(visit, address, self.guard.failures.is_known(address, user))
        self.clock.later(self.guard.limits.login_queue_seconds, self._give_up, visit, self._queue)
        self._serve()

    def _give_up(self, visit: Visit, queue: LoginQueue) -> None:
        if visit.is_open and not visit.is_checked and queue is self._queue:
            visit.end("refused")

    def _serve(self) -> None:
        while (ticket := self._queue.next()) is not None:
            assert isinstance(ticket, Visit)
            guess = self.guard.begin_login(ticket.connection, ticket.user, self.clock.now)
            if guess is not None and not isinstance(guess, Guess):
                ticket.end("refused")
                continue
            ticket.is_checked = True
            if ticket.hostile:
                self.counts.checked[int(self.clock.now)] += 1
            self.clock.later(CHECK_SECONDS, self._checked, ticket, guess, self.guard)

    def _checked(self, visit: Visit, guess: Guess | None, guard: ProcessGuard) -> None:
        if guard is not self.guard or not self.is_up:
            return  # the node has failed meanwhile
        self._queue.remove(visit)
        now, is_guess = self.clock.now, False
        if visit.correct:
            if visit.is_open:
                self._logged_in(visit)
        else:
            failed, ban = guard.login_failed(visit.connection, visit.user, visit.secret, now)
            is_guess = failed.is_guess
            if ban is not None:
                self.banned(ban)
            visit.end("wrong")  # whoever guesses hangs up, and does not wait for the delayed answer
        if guess is not None and not is_guess:
            guard.not_a_guess(guess, now)
        self._serve()

    def _logged_in(self, visit: Visit) -> None:
        name = visit.user.decode()
        evictions, reached = self.guard.login(visit.connection, name, visit.user, self.clock.now)
        self.evict(evictions)
        visit.end("ok" if reached is None else "refused")
