"""Several guards that exchange reports decide nearly like one guard that sees everything."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import remote_counts, shared_guard
from imapshield.guard.bans import SavedBan
from imapshield.guard.guard_report import GuardReport
from imapshield.guard.networks import NetworkSet, networks_of
from imapshield.guard.process_guard import BANNED, ProcessGuard
from imapshield.guard.shared_guard import Merged, SharedGuard
from imapshield.guard.shares import Connection
from imapshield.limits import Limits

ADDRESS, NEIGHBOUR, OTHER = "192.0.2.1", "192.0.2.2", "198.51.100.1"


@dataclass
class Member:
    """One process: its guard, and what it is told."""

    name: str
    limits: Limits = field(default_factory=Limits)
    trusted: NetworkSet = field(default_factory=NetworkSet)

    def __post_init__(self) -> None:
        self.guard = ProcessGuard(self.limits, self.trusted, b"key")
        self.shared = SharedGuard(self.guard, self.name)

    def connect(self, address: str = ADDRESS, now: float = 0.0) -> Connection:
        connection = self.guard.connect(address, now).connection
        assert connection is not None
        return connection

    def login(self, user: str, address: str = ADDRESS, now: float = 0.0) -> Connection:
        connection = self.connect(address, now)
        assert self.guard.login(connection, user, user.encode(), now)[1] is None
        return connection

    def report(self, now: float = 0.0) -> GuardReport:
        report = self.shared.take_report(now)
        assert report is not None
        return GuardReport.decode(report.encode())

    def merge(self, other: Member, now: float = 0.0) -> Merged:
        return self.shared.merge_report(other.name, other.report(now), now)


def members(number: int = 2, **limits: float) -> list[Member]:
    return [Member(f"m{i}", Limits(**limits)) for i in range(number)]  # type: ignore[arg-type]


def exchange(*all_members: Member, now: float = 0.0) -> None:
    """Every member tells every other all that it has not told yet."""
    while True:
        reports = [(m, m.shared.take_report(now, always=False)) for m in all_members]
        if not any(report for _, report in reports):
            return
        for teller, report in reports:
            for listener in all_members:
                if report is not None and listener is not teller:
                    listener.shared.merge_report(teller.name, report, now)


class SharesTests(SynchronousTestCase):
    def test_a_user_has_one_limit_in_all_processes(self) -> None:
        """The connections of a user in other processes count, until they end."""
        one, two = members(max_connections_per_user=3)
        held = [one.login("alice"), one.login("alice"), two.login("alice")]
        exchange(one, two)
        for member in (one, two):
            reached = member.guard.login(member.connect(), "alice", b"alice", 0.0)[1]
            assert reached is not None
            self.assertEqual(
                (reached.limit, reached.value, reached.observed), ("max_connections_per_user", 3, 4)
            )
            member.login("bob")
        one.guard.close(held[0])
        exchange(one, two)
        two.login("alice")

    def test_an_address_has_one_share_in_all_processes(self) -> None:
        """What an address has above its share, all processes give up in parts, but nobody loses the newest."""
        one, two, three = members(3, max_preauth_per_address=10, connections_per_minute=1000)
        for member in (one, two):
            for _ in range(10):
                member.connect()
        evicted = [len(two.merge(one).evictions), len(one.merge(two).evictions)]
        self.assertEqual(evicted[0], 5)  # a half of what two has
        for _ in range(5):
            exchange(one, two, three)
        self.assertLessEqual(one.guard.shares.strangers_at(ADDRESS), 10)
        arrival = three.guard.connect(ADDRESS, 0.0)
        self.assertEqual((arrival.connection is None, list(arrival.evictions)), (False, []))
        self.assertEqual(len(three.guard.connect(ADDRESS, 0.0).evictions), 1)

    def test_a_wider_network_has_one_share(self) -> None:
        """An attacker with many addresses in one network has one share; an honest neighbour is admitted anywhere."""
        one, two = members(max_preauth_per_address=2, connections_per_minute=1000)
        for host in range(1, 7):
            one.connect(f"192.0.2.{host}")
        exchange(one, two)
        arrival = two.guard.connect("192.0.2.50", 0.0)
        self.assertIsNotNone(arrival.connection)
        self.assertEqual(len(one.merge(two).evictions), 1)

    def test_report_only_evicts_nothing(self) -> None:
        """In report-only mode what another process tells resets no connection."""
        one = Member("one", Limits(max_preauth_per_address=2, report_only=True))
        two = Member("two", Limits(max_preauth_per_address=2))
        for member in (one, two):
            for _ in range(2):
                member.connect()
        self.assertEqual(one.merge(two).evictions, [])

    def test_the_counts_of_a_dead_process_vanish(self) -> None:
        """A process that is forgotten has no connections any more."""
        one, two = members(max_connections_per_user=1)
        two.login("alice")
        two.connect()
        exchange(one, two)
        one.shared.forget_member("m1")
        one.shared.forget_member("never seen")
        one.login("alice")
        remote = one.guard.shares.remote
        assert remote is not None
        self.assertEqual((remote.networks, remote.users), ({}, {}))

    def test_a_connection_of_a_unix_socket_is_not_told(self) -> None:
        """A client without an address counts in its own process only."""
        one, _ = members()
        one.connect("local")
        self.assertEqual(one.report().connections, ())
        one.shared.tell_all()
        self.assertEqual(one.report().connections, ())


class BanTests(SynchronousTestCase):
    def test_a_ban_applies_everywhere_and_ends_everywhere(self) -> None:
        """Others learn of a ban, and of its end; what an older report says does not bring it back."""
        one, two = members()
        one.guard.bans.ban(ADDRESS, "test", 10.0, seconds=100.0)
        old = one.report(20.0)
        merged = two.shared.merge_report("m0", old, 25.0)
        self.assertEqual([ban.until for ban in merged.bans], [110.0])  # the delay does not count
        self.assertEqual(two.guard.connect(ADDRESS, 109.0).reached, BANNED)
        two.guard.bans.unban(ADDRESS)
        self.assertEqual(one.merge(two, 30.0).unbans, ["192.0.2.1/32"])
        self.assertIsNone(one.guard.ban_of(ADDRESS, 30.0))
        three = Member("m2")
        three.merge(two, 31.0)
        two.shared.tell_all()
        three.merge(two, 31.0)
        self.assertEqual(three.shared.merge_report("m0", old, 32.0).bans, [])
        one.guard.bans.ban(ADDRESS, "test", 40.0)
        self.assertEqual(len(three.merge(one, 40.0).bans), 1)
        self.assertEqual(one.merge(two, 41.0).unbans, [])

    def test_an_end_that_is_not_told_yet_wins(self) -> None:
        """An operator ends a ban; before this is told, another process tells of the ban again."""
        one, two = members()
        one.guard.bans.ban(ADDRESS, "test", 0.0)
        two.merge(one)
        two.guard.bans.unban(ADDRESS)
        one.shared.tell_all()
        self.assertEqual(two.merge(one).bans, [])

    def test_the_longer_ban_wins_and_an_operator_may_shorten_one(self) -> None:
        """Of two bans the one that ends last applies; a shorter one by an operator replaces a longer one everywhere."""
        one, two = members()
        one.guard.bans.ban(ADDRESS, "long", 0.0, seconds=1000.0)
        two.guard.bans.ban(ADDRESS, "short", 0.0, seconds=100.0)
        exchange(one, two)
        for member in (one, two):
            ban = member.guard.ban_of(ADDRESS, 0.0)
            assert ban is not None
            self.assertEqual((ban.reason, ban.until), ("long", 1000.0))
        one.guard.bans.ban(ADDRESS, "operator", 10.0, seconds=50.0)
        exchange(one, two, now=10.0)
        ban = two.guard.ban_of(ADDRESS, 10.0)
        assert ban is not None
        self.assertEqual((ban.reason, ban.until), ("operator", 60.0))

    def test_processes_may_have_different_clocks(self) -> None:
        """With the offset to a common clock, a ban ends everywhere at the same moment."""
        one, two = members()
        one.shared.clock_offset, two.shared.clock_offset = 1000.0, 990.0
        one.guard.bans.ban(ADDRESS, "test", 0.0, seconds=60.0)
        two.shared.merge_report("m0", one.report(1.0), 13.0)
        ban = two.guard.ban_of(ADDRESS, 13.0)
        assert ban is not None
        self.assertEqual(ban.until, 70.0)

    def test_a_ban_of_another_process_is_no_longer_than_the_limit(self) -> None:
        """Whatever is told, a ban takes at most `max_ban_seconds`, and a trusted network has none."""
        one = Member("one", Limits(max_ban_seconds=1000.0), NetworkSet.parse(["198.51.100.0/24"]))
        bans = tuple(SavedBan(a, "lie", 1e9, 1e9, 1, False) for a in (ADDRESS, OTHER))
        one.shared.merge_report("liar", GuardReport(1, 0.0, bans=bans), 0.0)
        ban = one.guard.ban_of(ADDRESS, 0.0)
        assert ban is not None
        self.assertEqual(ban.until, 1000.0)
        self.assertIsNone(one.guard.ban_of(OTHER, 0.0))


class LoginTests(SynchronousTestCase):
    def guess(self, member: Member, password: int) -> bool:
        connection = Connection(ADDRESS, networks_of(ADDRESS))
        return member.guard.login_failed(connection, b"u", b"%d" % password, 0.0)[1] is not None

    def test_failed_logins_in_several_processes_ban_together(self) -> None:
        """The tenth wrong password bans the address, wherever the others were; a repeated one counts once."""
        one, two = members(max_failed_pairs=10)
        for password in range(5):
            self.guess(one, password)
            self.guess(two, 100 + password)
            self.guess(two, 4)
        merged = two.merge(one)
        self.assertEqual([new.reached.limit for new in merged.new_bans], ["max_failed_pairs"])
        again = one.merge(two)
        self.assertEqual((len(again.bans), again.new_bans), (1, []))
        self.assertEqual(one.guard.connect(ADDRESS, 0.0).reached, BANNED)

    def test_a_ban_forgets_the_pairs_everywhere(self) -> None:
        """After a ban for failed logins, an address begins again in all processes."""
        one, two = members(max_failed_pairs=4, ban_seconds=10.0)
        for password in range(3):
            self.guess(one, password)
        exchange(one, two)
        self.assertTrue(self.guess(one, 9))
        exchange(one, two)
        for member in (one, two):
            self.assertEqual(member.guard.failures.pairs_of(ADDRESS, 11.0), 0)

    def test_a_user_is_known_everywhere(self) -> None:
        """A login makes a user known in all processes, and its old passwords are free there; also in a new process."""
        one, two = members(max_failed_pairs=4)
        one.login("u")
        exchange(one, two)
        self.assertTrue(two.guard.failures.is_known(ADDRESS, b"u"))
        self.guess(two, 1)
        exchange(one, two)
        self.assertEqual(one.guard.failures.pairs_of(ADDRESS, 0.0), 0)
        three = Member("m2")
        one.shared.tell_all(logins=True)
        three.merge(one)
        self.assertTrue(three.guard.failures.is_known(ADDRESS, b"u"))

    def test_scram_failures_of_two_processes_are_different(self) -> None:
        """What exceeds the rate of failed SCRAM logins counts in all processes, and not as the same pair."""
        one, two = members(max_failed_pairs=50)
        connection = Connection(ADDRESS, networks_of(ADDRESS))
        for member in (one, two):
            for _ in range(12):
                member.guard.login_failed(connection, b"u", None, 0.0)
        exchange(one, two)
        for member in (one, two):
            self.assertEqual(member.guard.failures.pairs_of(ADDRESS, 0.0), 5)
            self.assertEqual(member.guard.failures.scram_rate.taken(self.source(member), 0.0), 20)

    def source(self, member: Member) -> bytes:
        failures = member.guard.failures
        return failures._hash(b"user", b"u") + failures._address_hash(networks_of(ADDRESS))

    def test_violations_count_together(self) -> None:
        """The tenth violation bans, wherever the others were."""
        one, two = members(max_limit_violations=10)
        for member in (one, two):
            for _ in range(5):
                connection = member.connect()
                member.guard.violation(connection, "backlog", 0.0)
        merged = one.merge(two)
        self.assertEqual([new.reached.limit for new in merged.new_bans], ["max_limit_violations"])
        self.assertEqual(one.merge(two).new_bans, [])

    def test_what_is_only_reported_bans_nobody(self) -> None:
        """A process whose limit is report-only makes no ban of what others tell."""
        two = Member("two", Limits(max_limit_violations=2))
        one = Member("one", Limits(max_limit_violations=2, report_only=True))
        report = GuardReport(1, 0.0, violations=((networks_of(ADDRESS)[0], 5),))
        self.assertEqual(one.shared.merge_report("x", report, 0.0).new_bans, [])
        self.assertEqual(len(two.shared.merge_report("x", report, 0.0).new_bans), 1)
        self.assertEqual(two.shared.merge_report("y", report, 0.0).new_bans, [])


class RateTests(SynchronousTestCase):
    def test_connections_have_one_rate(self) -> None:
        """What an address has taken in one process is taken in all; a login gives it back in all."""
        one, two = members(connections_per_minute=6)
        held = [one.connect() for _ in range(6)]
        exchange(one, two)
        self.assertIsNone(two.guard.connect(ADDRESS, 0.0).connection)
        one.guard.login(held[0], "alice", b"alice", 0.0)
        exchange(one, two)
        two.connect()
        two.guard.close(two.connect(now=20.0))

    def test_guesses_have_one_rate(self) -> None:
        """The guesses of a network and of a user count in all processes."""
        one, two = members(max_failed_pairs=1, max_login_checks=1)
        connection = Connection(ADDRESS, networks_of(ADDRESS))
        while one.guard.refuse_login(connection, b"u", 0.0) is None:
            one.guard.begin_login(connection, b"u", 0.0)
        exchange(one, two)
        reached = two.guard.refuse_login(connection, b"u", 0.0)
        assert reached is not None
        self.assertEqual(reached.limit, "network_logins_per_minute")

    def test_bursts_count_as_two(self) -> None:
        """An address that takes a burst in each of three processes at once waits as after two."""
        team = members(3, connections_per_minute=6)
        for member in team:
            for _ in range(6):
                member.connect()
        exchange(*team)
        for member in team:
            self.assertEqual(member.guard.rate_taken(ADDRESS, 0.0), 12)
        self.assertIsNone(team[0].guard.connect(ADDRESS, 69.0).connection)
        team[0].connect(now=70.0)

    def test_the_rate_in_the_long_run_is_that_of_one_guard(self) -> None:
        """An address that floods three processes for ten minutes gets one rate, and not three."""
        team = members(3, connections_per_minute=6)
        admitted, now = 0, 0.0
        while now < 600.0:
            now += 0.5
            for member in team:
                connection = member.guard.connect(ADDRESS, now).connection
                if connection is not None:
                    admitted += 1
                    member.guard.close(connection)
            exchange(*team, now=now)
        self.assertLessEqual(admitted, 3 * 6 + 60)


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
            member.shared.tell_all(logins=True)
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
