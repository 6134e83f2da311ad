"""Guards agree in the end, although their reports are late, repeated or lost."""

from __future__ import annotations

import random
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import remote_counts, shared_guard
from imapshield.guard.guard_report import GuardReport
from imapshield.guard.networks import networks_of
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shares import Connection
from imapshield.limits import Limits
from tests.guard.shared_guard_case import ADDRESS, OTHER, Member, exchange, members


class DeliveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.one, self.two = members(connections_per_minute=100)
        self.reports = []
        for _ in range(3):
            self.one.connect()
            self.reports.append(self.one.report())

    def merge(self, report: GuardReport) -> bool:
        return self.two.shared.merge_report("m0", report, 0.0).is_complete

    def taken(self) -> tuple[float, int]:
        remote = self.two.guard.shares.remote
        assert remote is not None
        return self.two.guard.rate_taken(ADDRESS, 0.0), remote.networks[networks_of(ADDRESS)[0]]

    def test_repeated_reports_count_once(self) -> None:
        """A report that arrives twice counts once."""
        for report in self.reports * 2:
            self.assertTrue(self.merge(report))
        self.assertEqual(self.taken(), (3, 3))

    def test_late_reports_count_but_not_their_connections(self) -> None:
        """Reports in another order take the same; the number of connections is that of the newest."""
        for report in reversed(self.reports):
            self.assertFalse(self.merge(report))
        self.assertEqual(self.taken(), (3, 3))

    def test_a_lost_report_is_noticed_until_all_is_told_again(self) -> None:
        """After a gap the counts are not complete; `tell_all` heals them."""
        self.assertTrue(self.merge(self.reports[0]))
        self.assertFalse(self.merge(self.reports[2]))
        self.assertFalse(self.merge(self.one.report()))
        self.one.shared.tell_all()
        self.assertTrue(self.merge(self.one.report()))
        self.assertEqual(self.taken(), (2, 3))

    def test_much_too_late_reports_are_ignored(self) -> None:
        """A report that is older than the last 64 is ignored, because nobody knows whether it was counted."""
        for report in self.reports[:2]:
            self.merge(report)
        for _ in range(70):
            self.merge(self.one.report())
        self.merge(self.reports[2])
        self.assertEqual(self.taken()[0], 2)

    def test_nothing_to_tell(self) -> None:
        """A process to which nothing happens has no report, unless it must show that it is alive."""
        self.assertIsNone(self.one.shared.take_report(0.0, always=False))
        self.assertTrue(self.one.report().is_empty)

    def test_too_many_processes(self) -> None:
        """The reports of more processes than the table has room for are ignored."""
        self.patch(shared_guard, "MAX_MEMBERS", 1)
        self.merge(self.reports[0])
        self.two.shared.merge_report("m2", self.reports[1], 0.0)
        self.assertEqual(self.taken(), (1, 1))

    def test_remote_counts_have_a_maximum_size(self) -> None:
        """Of more addresses and users than the tables have room for, nothing is counted."""
        self.patch(remote_counts, "MAX_COUNTS", 2)
        hosts = tuple((networks_of(f"192.0.2.{n}")[0], 1) for n in range(5))
        users = tuple((bytes([n]) * 8, 1) for n in range(5))
        self.two.shared.merge_report("m0", GuardReport(1, 0.0, connections=hosts, users=users), 0.0)
        remote = self.two.guard.shares.remote
        assert remote is not None
        self.assertEqual((remote.networks[networks_of(ADDRESS)[1]], len(remote.users)), (2, 2))
        self.two.shared.forget_member("m0")
        self.assertEqual((remote.networks, remote.users), ({}, {}))

    def test_all_counts_are_told_again(self) -> None:
        """Counts that are told again count until all have arrived; then those are gone that were not among them."""
        self.patch(shared_guard, "MAX_ENTRIES", 2)
        one, two = members()
        held = [one.connect(f"203.0.113.{n}") for n in range(5)]
        one.login("alice", OTHER)
        exchange(one, two)
        remote = two.guard.shares.remote
        assert remote is not None
        network = held[0].networks[1]
        self.assertEqual((remote.networks[network], len(remote.users)), (5, 1))
        one.guard.close(held[0])
        one.shared.tell_all()
        for _ in range(2):
            two.merge(one)
            self.assertEqual((remote.networks[network], len(remote.users)), (5, 1))
        two.merge(one)
        self.assertEqual((remote.networks[network], len(remote.users)), (4, 1))

    def test_changes_beyond_the_maximum_are_told_with_all_others(self) -> None:
        """When more has changed than is remembered, all counts are told again."""
        self.patch(remote_counts, "MAX_CHANGES", 2)
        for host in range(1, 6):
            self.one.connect(f"198.51.100.{host}")
        report = self.one.report()
        self.assertEqual((report.is_first, len(report.connections)), (True, 6))


EVENTS = ("connect", "connect", "login", "close", "fail", "violation", "ban", "unban", "succeed")
HOSTS = [f"192.0.2.{n}" for n in range(1, 5)] + ["2001:db8::1", "198.51.100.9"]


class _Sent(NamedTuple):
    teller: str
    listener: Member
    report: GuardReport
    begun: float  # when what it tells began


class Single:
    """One guard that sees what happened in all processes, in the order in which it happened."""

    def __init__(self, limits: Limits) -> None:
        self.guard = ProcessGuard(limits, key=b"key")
        self.connections: dict[Connection, Connection] = {}


class AgreementTests(SynchronousTestCase):
    """Random events in some processes, with reports in any order, late, repeated and lost."""

    # So large that no limit triggers, because a process that does not know yet may admit what one guard refuses.
    LIMITS = Limits(
        max_failed_pairs=60,
        max_limit_violations=60,
        max_preauth_per_address=500,
        max_connections_per_user=500,
        connections_per_minute=300,
    )

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 1 << 32), st.integers(2, 4), st.sampled_from((0.0, 0.2)))
    def test_all_agree_when_all_is_told(self, seed: int, number: int, loss: float) -> None:
        """All members have the bans, counts, known users of one guard, and no more failures and rates than that."""
        chance = random.Random(seed)
        team = [Member(f"m{i}", self.LIMITS) for i in range(number)]
        single = Single(self.LIMITS)
        open_connections: list[list[Connection]] = [[] for _ in team]
        waiting: list[_Sent] = []
        now, self.delay, self.told = 0.0, 0.0, dict[str, float]()
        for _ in range(120):
            now += chance.random() * 0.1
            i = chance.randrange(number)
            self.happen(chance, team[i], single, open_connections[i], now)
            if chance.random() < 0.5:
                self.tell(team[i], team, waiting, chance, loss, now)
            chance.shuffle(waiting)
            while waiting and chance.random() < 0.6:
                self.deliver(waiting, chance, now)
        while waiting:
            self.deliver(waiting, chance, now)
        self.delay = max([self.delay, *[now - told for told in self.told.values()]])
        for member in team:
            member.shared.tell_all(now)
        exchange(*team, now=now)
        self.compare(team, single, now, loss)

    def tell(
        self,
        member: Member,
        team: list[Member],
        waiting: list[_Sent],
        chance: random.Random,
        loss: float,
        now: float,
    ) -> None:
        report, begun = member.report(now), self.told.get(member.name, 0.0)
        self.told[member.name] = now
        for other in team:
            if other is not member and chance.random() >= loss:
                sent = _Sent(member.name, other, report, begun)
                waiting.extend([sent] * chance.randint(1, 2))

    def deliver(self, waiting: list[_Sent], chance: random.Random, now: float) -> None:
        name, listener, report, begun = waiting.pop(chance.randrange(len(waiting)))
        listener.shared.merge_report(name, report, now)
        self.delay = max(self.delay, now - begun)

    def happen(
        self,
        chance: random.Random,
        member: Member,
        single: Single,
        connections: list[Connection],
        now: float,
    ) -> None:
        """Let the same happen to one member and to the single guard."""
        event, host = chance.choice(EVENTS), chance.choice(HOSTS)
        user, secret = f"user{chance.randrange(3)}", b"%d" % chance.randrange(40)
        one, guard = single.guard, member.guard
        if event in ("ban", "unban"):
            network = chance.choice(("203.0.113.1", "203.0.113.2"))
            for each in (guard, one):
                if event == "ban":
                    each.bans.ban(network, "operator", now, seconds=100.0 + now)
                else:
                    each.bans.unban(network)
            return
        if event == "connect" or not connections:
            connection = guard.connect(host, now).connection
            assert connection is not None
            twin = one.connect(host, now).connection
            assert twin is not None
            single.connections[connection] = twin
            connections.append(connection)
            return
        connection = chance.choice(connections)
        twin = single.connections[connection]
        if event == "close":
            connections.remove(connection)
            guard.close(connection)
            one.close(twin)
        elif event == "fail" and not connection.logged_in:
            guard.login_failed(connection, user.encode(), secret, now)
            one.login_failed(twin, user.encode(), secret, now)
        elif event == "violation" and not connection.logged_in:
            guard.violation(connection, "backlog", now)
            one.violation(twin, "backlog", now)
        elif event in ("login", "succeed") and not connection.logged_in:
            guard.login(connection, user, user.encode(), now)
            one.login(twin, user, user.encode(), now)

    def compare(self, team: list[Member], single: Single, now: float, loss: float) -> None:
        one = single.guard
        deviation = 1 + self.delay * self.LIMITS.connections_per_minute / 60
        for member in team:
            guard, remote = member.guard, member.guard.shares.remote
            assert remote is not None
            for host in HOSTS:
                for network in networks_of(host):
                    total = guard.shares._strangers.count(network) + remote.networks[network]
                    self.assertEqual(total, one.shares._strangers.count(network))
                taken, exact = guard.rate_taken(host, now), one.rate_taken(host, now)
                self.assertLessEqual(taken, exact + deviation)
                pairs, exact_pairs = (
                    guard.failures.pairs_of(host, now),
                    one.failures.pairs_of(host, now),
                )
                violations = guard.bans.violations(host, now), one.bans.violations(host, now)
                self.assertLessEqual(violations[0], violations[1])
                if not loss:
                    self.assertEqual(violations[0], violations[1])
                    self.assertLessEqual(abs(pairs - exact_pairs), 9)
                    self.assertGreaterEqual(taken, exact - deviation)
                for n in range(3):
                    user = b"user%d" % n
                    self.assertEqual(
                        guard.failures.is_known(host, user), one.failures.is_known(host, user)
                    )
            for n in range(3):
                name = f"user{n}"
                self.assertEqual(guard.shares.held_by(name), one.shares.held_by(name))
            first = team[0].guard.bans
            self.assertEqual(set(guard.bans), set(first))
            for network in first:
                mine, theirs = guard.bans.saved(network, now), first.saved(network, now)
                assert mine is not None
                assert theirs is not None
                self.assertAlmostEqual(mine.remaining, theirs.remaining, places=3)
