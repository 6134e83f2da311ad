"""A simulated Redis, through which the members of a shield exchange the real reports of `SharedGuard`."""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.simulated_nodes import Clock, Node
from imapshield.guard.guard_report import GuardReport
from imapshield.guard.shared_guard import SharedGuard

LATENCY = 0.0005
"""Seconds from a node to Redis, and from Redis to a node, at least. On average it is twice as long."""

LOSS = 0.01
"""The part of all deliveries that is lost, for example because a node was too slow to read it."""

SHARE_SECONDS = 0.25
"""Seconds between two reports of a member. A ban is reported at once."""

SILENT_SECONDS = 5.0
"""Seconds without a report after which the connections of a member count no more."""

_SAMPLES = 20
"""One report of so many is written as bytes, to see how large they are."""


class SimulatedRedis:
    """Delivers each report to all other members, a little later, and not all of them.

    Args:
        clock: the time.
        rng: the source of random numbers.

    Attributes:
        rng: as above.
        is_up: whether it delivers anything.
        members: those that receive reports.
        reports, bytes: how many reports were published, and about how many bytes they had.
    """

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock, self.rng = clock, rng
        self.is_up = True
        self.members: list[Member] = []
        self.reports = self.bytes = 0

    def set_up(self, is_up: bool) -> None:
        """Fail, or come back."""
        self.is_up = is_up

    def publish(self, sender: Member, report: GuardReport) -> None:
        """Deliver a report to all members but its sender."""
        self.reports += 1
        if self.reports % _SAMPLES == 1:
            self.bytes += len(report.encode()) * _SAMPLES
        for member in self.members:
            if member is not sender and self.rng.random() >= LOSS:
                self._deliver(member.receive, sender, report)

    def ask(self, member: Member, logins: bool) -> None:
        """Ask a member for all counts, with `logins` also for the known users."""
        self._deliver(member.tell_all, logins)

    def _deliver(self, receive: Callable[..., object], *arguments: object) -> None:
        delay = 2 * LATENCY + self.rng.expovariate(1 / (2 * LATENCY))
        self.clock.later(delay, receive, *arguments)


class Member:
    """A node that shares its guard with others.

    Args:
        node: the node.
        redis: through which it exchanges reports.
        on_merge: called with the node after each report that it has merged.
    """

    def __init__(
        self, node: Node, redis: SimulatedRedis, on_merge: Callable[[Node], object]
    ) -> None:
        self.node, self._redis, self._on_merge = node, redis, on_merge
        self._starts = 0
        self._is_connected = True
        redis.members.append(self)

    def begin(self) -> None:
        """Take part, with the guard that the node has now."""
        self._starts += 1
        self.name = f"{self.node.name} {self._starts}"
        self.shared = SharedGuard(self.node.guard, self.name)
        self._heard: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._redis.clock.later(
            self._redis.rng.uniform(0, SHARE_SECONDS), self._share, self.node.guard
        )

    def tell_all(self, logins: bool) -> None:
        """Tell all counts in the next reports, with `logins` also the known users."""
        if self.node.is_up:
            self.shared.tell_all(self._redis.clock.now if logins else None)

    def _share(self, guard: object) -> None:
        """Publish a report, and do it again soon, as long as the node has this guard."""
        if guard is not self.node.guard or not self.node.is_up:
            return
        clock = self._redis.clock
        clock.later(SHARE_SECONDS, self._share, guard)
        for name, heard in list(self._heard.items()):
            if clock.now - heard > SILENT_SECONDS:
                del self._heard[name]
                self.shared.forget_member(name)
        self.report()

    def report(self) -> None:
        """Publish what there is to tell."""
        if not self._redis.is_up:
            self._is_connected = False
            return
        if not self._is_connected:
            self._is_connected = True
            self.tell_all(logins=False)
        report = self.shared.take_report(self._redis.clock.now)
        assert report is not None
        self._redis.publish(self, report)

    def receive(self, sender: Member, report: GuardReport) -> None:
        """Merge a report, and do what follows from it."""
        if not self.node.is_up or not self._redis.is_up:
            return
        now, name = self._redis.clock.now, sender.name
        self._heard[name] = now
        merged = self.shared.merge_report(name, report, now)
        if not merged.is_complete and now - self._asked.get(name, -SILENT_SECONDS) > 1:
            self._asked[name] = now
            # One of the others tells a new member the known users: they are the same everywhere.
            self._redis.ask(sender, logins=self._starts > 1 and len(self._asked) == 1)
        for new_ban in merged.new_bans:
            self.node.banned(new_ban.ban)
        for ban in merged.bans:
            if not ban.strangers_only:
                self.node.reset_strangers(ban)
        self.node.evict(merged.evictions)
        self._on_merge(self.node)
