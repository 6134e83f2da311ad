"""The exact times and paces of addresses that have exceeded a limit or their rate."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import process_guard
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import BANNED, Arrival, ProcessGuard
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

ADDRESS, NEIGHBOUR, TRUSTED = "192.0.2.1", "192.0.2.2", "127.0.0.5"


class ExactTimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.guard = self.new_guard()

    def new_guard(self) -> ProcessGuard:
        limits = Limits(connections_per_minute=6)
        return ProcessGuard(limits, NetworkSet.parse(["127.0.0.0/8"]))

    def violate(self, address: str, now: float) -> None:
        """Have a connection of `address` reset because of its backlog."""
        connection = self.guard.connect(address, now).connection
        assert connection is not None
        self.guard.violation(connection, "backlog", now)
        self.guard.close(connection)

    def exceed_rate(self, address: str, now: float) -> None:
        """Have `address` connect once more than its rate permits."""
        for _ in range(7):
            connection = self.guard.connect(address, now).connection
            if connection is not None:
                self.guard.close(connection)

    def test_probation(self) -> None:
        """After a violation an address has 50 connections per second, for ten seconds, and nobody else is slower."""
        for address in (ADDRESS, "local"):
            self.assertEqual(self.guard.pace(address, -1.0), 0.0)
        self.violate(ADDRESS, 100.0)
        for now, pace in ((100.0, 0.02), (109.9, 0.02), (110.0, 0.0), (111.0, 0.0)):
            self.assertEqual(self.guard.pace(ADDRESS, now), pace)
        for address in (NEIGHBOUR, TRUSTED, "local"):
            for now in (-2.0, 0.0, 0.5, 100.0):
                self.assertEqual(self.guard.pace(address, now), 0.0)
        self.assertEqual(len(self.guard._probations), 1)

    def test_pace_of_a_trusted_address(self) -> None:
        """A trusted address above its rate has 200 connections per second; a violation makes it slower, not faster."""
        self.exceed_rate(TRUSTED, 0.0)
        self.assertEqual(self.guard.pace(TRUSTED, 1.0), 0.005)
        self.violate(TRUSTED, 1.0)
        self.assertEqual(self.guard.pace(TRUSTED, 1.0), 0.02)
        self.exceed_rate(TRUSTED, 2.0)
        self.assertEqual(
            (self.guard.pace(TRUSTED, 11.9), self.guard.pace(TRUSTED, 12.0)), (0.02, 0.0)
        )

    def test_probation_that_ends_first_is_forgotten_first(self) -> None:
        """A full table forgets the probation that ends first, not the mildest."""
        self.patch(process_guard, "MAX_PROBATIONS", 2)
        self.guard = self.new_guard()
        self.violate(ADDRESS, 0.0)
        self.exceed_rate(TRUSTED, 5.0)
        self.violate(NEIGHBOUR, 6.0)
        paces = [self.guard.pace(address, 7.0) for address in (ADDRESS, TRUSTED, NEIGHBOUR)]
        self.assertEqual(paces, [0.0, 0.005, 0.02])

    def test_rates_of_networks(self) -> None:
        """A refusal names the rate of the network that is exhausted: six for an address, eighteen for a /26."""
        for last in (1, 2, 3):
            for _ in range(6):
                connection = self.guard.connect(f"192.0.2.{last}", 0.0).connection
                assert connection is not None
                self.guard.close(connection)
        for last, reached in ((4, (18, 19)), (1, (6, 7)), (5, (18, 19))):
            expected = LimitReached("connections_per_minute", *reached)
            self.assertEqual(self.guard.connect(f"192.0.2.{last}", 0.0).reached, expected)
        arrival = self.guard.connect("192.0.2.64", 0.0)  # of the same /21
        self.assertIsNone(arrival.reached)

    def test_odd_rate(self) -> None:
        """The observed value of a rate is one above it."""
        self.guard = ProcessGuard(Limits(connections_per_minute=7))
        for _ in range(7):
            self.guard.connect(ADDRESS, 0.0)
        reached = self.guard.connect(ADDRESS, 0.0).reached
        self.assertEqual(reached, LimitReached("connections_per_minute", 7, 8))

    def test_refusals_count_every_six_seconds(self) -> None:
        """A client that is refused for its rate is reported, and counted as a violation, once in six seconds."""
        for _ in range(6):
            connection = self.guard.connect(ADDRESS, 0.0).connection
            assert connection is not None
            self.guard.close(connection)
        for now, silent in ((0.0, False), (0.1, True), (5.9, True), (6.0, False), (6.1, True)):
            arrival = self.guard.connect(ADDRESS, now)
            self.assertEqual((arrival.connection, arrival.silent), (None, silent), now)

    def test_rates_recover_in_a_minute(self) -> None:
        """A rate comes back within a minute, and its violations are counted for each address."""
        self.exceed_rate(ADDRESS, 0.0)
        self.assertIsNotNone(self.guard.connect(ADDRESS, 9.9).reached)
        self.assertIsNone(self.guard.connect(ADDRESS, 10.0).reached)
        self.guard = self.new_guard()
        self.exceed_rate(ADDRESS, 0.0)
        self.exceed_rate(NEIGHBOUR, 0.0)
        last = self.guard.connect("192.0.2.3", 0.0)
        self.assertIsNone(last.reached)
        for _ in range(6):
            last = self.guard.connect("192.0.2.3", 0.0)
        self.assertEqual((last.connection, last.silent), (None, False))

    def test_reported_rates_count_for_each_address(self) -> None:
        """In report-only mode, too, two addresses of one network that exceed their rate are two violators."""
        self.guard = ProcessGuard(
            Limits(connections_per_minute=6, max_limit_violations=1, report_only=True)
        )
        for address in (ADDRESS, NEIGHBOUR):
            arrivals = [self.guard.connect(address, 0.0) for _ in range(8)]
            reported = [arrival.violations is not None for arrival in arrivals]
            self.assertEqual(reported, [False] * 6 + [True, False])

    def test_a_connection_is_given_back_once(self) -> None:
        """A client that logs in and out again and again gets one connection of its rate back."""
        arrivals = [self.guard.connect(ADDRESS, 0.0) for _ in range(6)]
        connection = arrivals[0].connection
        assert connection is not None
        for _ in range(5):
            self.guard.login(connection, "bob", b"bob", 0.0)
            self.guard.logout(connection)
        self.assertIsNotNone(self.guard.connect(ADDRESS, 0.0).connection)
        self.assertIsNone(self.guard.connect(ADDRESS, 0.0).connection)

    def test_reported_delay(self) -> None:
        """A delay of failed logins that is only reported is 0; otherwise it is not."""
        for reported, delayed in (
            (frozenset[str](), True),
            (frozenset({"max_login_delay_seconds"}), False),
        ):
            guard = ProcessGuard(Limits(report_only_limits=reported))
            connection = guard.connect(ADDRESS, 0.0).connection
            assert connection is not None
            for n in range(5):
                failed, _ = guard.login_failed(connection, b"bob", b"%d" % n, 0.0)
            self.assertEqual(failed.delay > 0, delayed)
            self.assertEqual(failed.delay == 0, not delayed)

    def test_arrival(self) -> None:
        """An arrival is a small value, and not silent by default."""
        arrival = Arrival(None)
        self.assertEqual((arrival.silent, arrival.reached, arrival.ban), (False, None, None))
        self.assertFalse(hasattr(arrival, "__dict__"))
        self.assertRaises((AttributeError, TypeError), setattr, arrival, "silent", True)
        self.assertEqual(BANNED, LimitReached("ban", 0, 0))
