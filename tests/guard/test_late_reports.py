"""What is reported late, or with another clock, counts no longer and no more often than for one guard."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bans import VIOLATION_SECONDS
from imapshield.guard.login_failures import PAIR_SECONDS, SHARED_SECONDS, SHARED_USERS
from tests.guard.shared_guard_case import ADDRESS, OTHER, Member, exchange, members

HOUR = 3600.0


class LateTests(SynchronousTestCase):
    """One process cannot reach the other for some time."""

    def setUp(self) -> None:
        self.one, self.two = members()

    def pairs(self, now: float) -> list[int]:
        return [each.guard.failures.pairs_of(ADDRESS, now) for each in (self.one, self.two)]

    def test_failed_logins(self) -> None:
        """A failed login counts for a day after it was, for the address, its networks and the user."""
        self.one.guard.login_failed(self.one.connect(), b"bob", b"1", 0.0)
        exchange(self.one, self.two, now=23 * HOUR)
        self.assertEqual(self.pairs(23 * HOUR), [1, 1])
        self.assertEqual(self.pairs(PAIR_SECONDS + 0.0), [0, 0])
        for name in ("networks", "users"):
            table = self.two.guard.failures.pair_tables()[name]
            (key, _), *_ = table.rows()
            self.assertEqual(table.count(key, PAIR_SECONDS + 0.0), 0)

    def test_failed_logins_that_are_too_old(self) -> None:
        """A failed login that waits for more than a day counts nowhere else."""
        for n in range(9):
            self.one.guard.login_failed(self.one.connect(), b"bob", b"%d" % n, 0.0)
        exchange(self.one, self.two, now=25 * HOUR)
        self.assertEqual(self.pairs(25 * HOUR), [0, 0])

    def test_a_password_that_is_repeated(self) -> None:
        """The last time of a password that a device repeats counts, also if an earlier one arrives later."""
        for time in (0.0, 5 * HOUR):
            self.one.guard.login_failed(self.one.connect(now=time), b"bob", b"old", time)
        reports = [self.one.report(6 * HOUR)]
        self.one.guard.login_failed(self.one.connect(now=7 * HOUR), b"bob", b"old", 7 * HOUR)
        reports.append(self.one.report(8 * HOUR))
        for report in reversed(reports):
            self.two.shared.merge_report("m0", report, 8 * HOUR)
        self.assertEqual(self.pairs(30 * HOUR), [1, 1])
        self.assertEqual(self.pairs(31 * HOUR), [0, 0])

    def test_violations(self) -> None:
        """A violation counts for an hour after it was, also where the machine has started later."""
        connection = self.one.connect()
        for _ in range(3):
            self.one.guard.violation(connection, "backlog", 0.0)
        self.two.shared.clock_offset = VIOLATION_SECONDS - 110.0
        report = self.one.report(VIOLATION_SECONDS - 100.0)
        self.two.shared.merge_report("m0", report, 10.0)
        bans = self.two.guard.bans
        self.assertEqual([bans.violations(ADDRESS, now) for now in (10.0, 111.0)], [3, 0])

    def test_the_end_of_a_ban(self) -> None:
        """An end that is reported late does not end a ban that was made meanwhile."""
        self.one.guard.bans.ban(ADDRESS, "backlog", 0.0, seconds=100.0)
        exchange(self.one, self.two, now=0.0)
        self.one.guard.bans.unban(ADDRESS, 10.0)
        self.two.guard.bans.ban(ADDRESS, "backlog", 200.0, seconds=9000.0)
        exchange(self.one, self.two, now=300.0)
        for member in (self.one, self.two):
            self.assertIsNotNone(member.guard.bans.banned(ADDRESS, 300.0))

    def test_known_users_that_are_told_again(self) -> None:
        """Known users whom a server asks for are not renewed: an address is shared for a month after the logins."""
        for n in range(SHARED_USERS):
            self.one.login(f"user{n}", now=0.0)
        exchange(self.one, self.two, now=0.0)
        later = SHARED_SECONDS - 5.0
        self.one.shared.tell_all(later)
        exchange(self.one, self.two, now=later)
        shared = [self.two.guard.failures.is_shared(ADDRESS, t) for t in (later, later + 5)]
        self.assertEqual(shared, [True, False])
        three = Member("m2")
        self.one.shared.tell_all(2 * later)
        three.merge(self.one, 2 * later)
        self.assertTrue(three.guard.failures.is_known(ADDRESS, b"user1"))
        self.assertFalse(three.guard.failures.is_shared(ADDRESS, 2 * later))


class ClockTests(SynchronousTestCase):
    """The clock that the processes share is set."""

    def setUp(self) -> None:
        self.one, self.two = members()
        self.set_clock(10_000.0)

    def set_clock(self, offset: float) -> None:
        self.one.shared.clock_offset = self.two.shared.clock_offset = offset

    def test_a_ban_after_the_clock_was_set_back(self) -> None:
        """A ban that was ended by hand can be made again, and ended again, when the clock was set back."""
        bans, others = self.one.guard.bans, self.two.guard.bans
        bans.ban(ADDRESS, "backlog", 0.0, seconds=100.0)
        exchange(self.one, self.two, now=0.0)
        bans.unban(ADDRESS)
        exchange(self.one, self.two, now=1.0)
        self.set_clock(0.0)
        bans.ban(ADDRESS, "backlog", 2.0, seconds=100.0)
        exchange(self.one, self.two, now=2.0)
        self.assertIsNotNone(others.banned(ADDRESS, 2.0))
        bans.unban(ADDRESS)
        exchange(self.one, self.two, now=3.0)
        self.assertIsNone(others.banned(ADDRESS, 3.0))

    def test_an_old_ban_after_the_clock_was_set_forward(self) -> None:
        """A ban that was ended by hand is not brought back by a process that missed the end."""
        self.one.guard.bans.ban(ADDRESS, "backlog", 0.0, seconds=1000.0)
        exchange(self.one, self.two, now=0.0)
        self.one.guard.bans.unban(ADDRESS)
        self.one.report(1.0)  # is lost
        self.set_clock(20_000.0)
        self.two.shared.tell_all()
        self.one.merge(self.two, 2.0)
        self.assertIsNone(self.one.guard.bans.banned(ADDRESS, 2.0))

    def test_bans_that_are_being_sent(self) -> None:
        """A ban that is sent while the clock is set back is not longer elsewhere, nor after it was told back."""
        self.one.guard.bans.ban(ADDRESS, "backlog", 0.0, seconds=100.0)
        self.two.shared.clock_offset -= 50.0
        self.two.merge(self.one, 0.0)
        self.set_clock(9_950.0)
        self.two.shared.tell_all()
        self.one.merge(self.two, 0.0)
        for member in (self.one, self.two):
            ban = member.guard.bans.banned(ADDRESS, 0.0)
            assert ban is not None
            self.assertEqual(ban.until, 100.0)


class ManyProcessesTests(SynchronousTestCase):
    def test_a_burst_is_one_violation(self) -> None:
        """A burst of one address above its rate is one violation every six seconds, in however many processes."""
        team = members(8, connections_per_minute=60, max_limit_violations=4)

        def burst(now: float) -> None:
            for member in team:
                while (arrival := member.guard.connect(OTHER, now)).connection is not None:
                    member.guard.close(arrival.connection)
            exchange(*team, now=now)

        for second in (0.0, 1.0, 3.0, 7.0, 13.0):
            burst(second)
        counts = {member.guard.bans.violations(OTHER, 13.0) for member in team}
        self.assertEqual(counts, {3})
        burst(20.0)
        for member in team:
            self.assertIsNotNone(member.guard.bans.banned(OTHER, 20.0))

    def test_other_violations_all_count(self) -> None:
        """Of those that a correct client never commits, each counts, also if two processes report it at once."""
        one, two = members()
        for member in (one, two):
            member.guard.violation(member.connect(), "backlog", 0.0)
        exchange(one, two)
        self.assertEqual([m.guard.bans.violations(ADDRESS, 0.0) for m in (one, two)], [2, 2])
