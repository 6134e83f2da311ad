"""Several guards that exchange reports decide nearly like one guard that sees everything."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import login_news
from imapshield.guard.bans import SavedBan
from imapshield.guard.guard_report import GuardReport
from imapshield.guard.login_news import LOGIN_SECONDS
from imapshield.guard.networks import NetworkSet, networks_of
from imapshield.guard.process_guard import BANNED
from imapshield.guard.shares import Connection
from imapshield.limits import Limits
from tests.guard.shared_guard_case import ADDRESS, OTHER, Member, exchange, members


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
        one.shared.tell_all(0.0)
        three.merge(one)
        self.assertTrue(three.guard.failures.is_known(ADDRESS, b"u"))

    def test_a_login_is_sent_once(self) -> None:
        """A login of the same user from the same address is sent again after ten minutes, and when all is sent again."""
        one = members(1)[0]
        for again, count in ((0.0, 1), (1.0, 0), (LOGIN_SECONDS - 1, 0), (LOGIN_SECONDS, 1)):
            one.login("u", now=again)
            self.assertEqual(len(one.report(again).logins), count, again)
        one.login("u", OTHER, now=LOGIN_SECONDS + 2)
        self.assertEqual(len(one.report(LOGIN_SECONDS + 2).logins), 1)
        one.shared.tell_all()
        one.login("u", now=LOGIN_SECONDS + 3)
        self.assertEqual(len(one.report(LOGIN_SECONDS + 3).logins), 1)

    def test_logins_that_are_remembered_as_sent_have_a_maximum(self) -> None:
        """After more, each may be sent again."""
        self.patch(login_news, "MAX_SENT", 2)
        one = members(1)[0]
        for number in (1, 2, 3, 4):
            one.login(str(number))
            one.report()
        one.login("1")
        self.assertEqual(len(one.report().logins), 1)

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
        address = networks_of(ADDRESS)[0]
        violations = tuple(((address, b"violate%d" % n), 0.0) for n in range(2))
        report = GuardReport(1, 0.0, violations=violations)
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
