"""Limits can be changed while the server runs. What was counted for a limit that stays is kept."""

from dataclasses import replace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bans import Bans
from imapshield.guard.guess_rates import LIMITS_OF_GUESSES
from imapshield.guard.login_failures import LoginFailures
from imapshield.guard.login_queue import LoginQueue
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shares import ConnectionShares
from imapshield.limits import Limits

HERE, THERE = "192.0.2.7", "198.51.100.7"


class SetLimitsTests(SynchronousTestCase):
    def test_shares(self) -> None:
        """Shares are those of the new limits, within the open files that the process has; connections stay."""
        shares = ConnectionShares(Limits(max_connections=100), open_files=300)
        held = [shares.connect(HERE)[0] for _ in range(5)]
        shares.set_limits(Limits(max_connections=6))
        self.assertEqual((shares.max_connections, shares.max_strangers), (6, 3))
        self.assertEqual(shares.connections, 5)
        self.assertEqual(len(shares.connect(HERE)[1]), 3)  # of the address, a network, and all
        shares.set_limits(Limits(max_connections=100_000))
        self.assertLess(shares.max_connections, 300)
        self.assertEqual(len(held), 5)

    def test_rate_of_connections(self) -> None:
        """A new rate begins again; another limit leaves what the rate has counted."""
        guard = ProcessGuard(Limits(connections_per_minute=2), NetworkSet())
        for _ in range(2):
            self.assertIsNotNone(guard.connect(HERE, 0.0).connection)
        guard.set_limits(Limits(connections_per_minute=2, backlog=5))
        self.assertIsNone(guard.connect(HERE, 0.0).connection)
        guard.set_limits(Limits(connections_per_minute=3))
        admitted = [guard.connect(HERE, 0.0).connection is not None for _ in range(4)]
        self.assertEqual(admitted, [True, True, True, False])
        self.assertEqual(guard.limits.connections_per_minute, 3)

    def test_all_parts_of_the_guard_get_the_limits(self) -> None:
        """The guard passes new limits to the shares, the bans and the failed logins."""
        guard = ProcessGuard(Limits(), NetworkSet())
        limits = Limits(max_connections=9, ban_seconds=7, max_failed_pairs=1)
        guard.set_limits(limits)
        self.assertEqual(guard.shares.max_connections, 9)
        self.assertEqual(guard.bans.ban(HERE, "x", 0.0).seconds, 7)
        failed = guard.failures.failed(THERE, b"alice", b"1", 0.0)
        self.assertIsNotNone(failed.banned_for)

    def test_violations(self) -> None:
        """The number of violations that ban changes, and begins again; otherwise the count goes on."""
        bans = Bans(Limits(max_limit_violations=3))
        self.assertFalse(bans.count_violation(HERE, 0.0))
        bans.set_limits(Limits(max_limit_violations=3, ban_seconds=5))
        self.assertEqual([bans.count_violation(HERE, 0.0) for _ in range(2)], [False, True])
        bans.count_violation(HERE, 0.0)
        bans.set_limits(Limits(max_limit_violations=2))
        self.assertEqual([bans.count_violation(HERE, 0.0) for _ in range(2)], [False, True])
        bans.set_limits(Limits(max_limit_violations=20))
        counted = [bans.count_violation(HERE, 0.0) for _ in range(20)]
        self.assertEqual(counted, [False] * 19 + [True])

    def test_present_bans_stay(self) -> None:
        """Bans that exist stay as they are."""
        bans = Bans(Limits())
        bans.ban(HERE, "x", 0.0)
        bans.set_limits(Limits(ban_seconds=1, max_limit_violations=1))
        self.assertIsNotNone(bans.banned(HERE, 599.0))

    def test_failed_logins(self) -> None:
        """The number of failed pairs that ban changes, and begins again; otherwise the count goes on."""
        failures = LoginFailures(Limits(max_failed_pairs=3), b"key")

        def bans(secret: bytes) -> bool:
            return failures.failed(HERE, b"alice", secret, 0.0).banned_for is not None

        self.assertFalse(bans(b"1"))
        failures.set_limits(Limits(max_failed_pairs=3, max_login_delay_seconds=1))
        self.assertEqual([bans(b"2"), bans(b"3")], [False, True])
        bans(b"4")
        failures.set_limits(Limits(max_failed_pairs=12))
        self.assertEqual([bans(b"%d" % i) for i in range(12)], [False] * 11 + [True])

    def test_rates_of_guesses(self) -> None:
        """The rates of guesses begin again only if one of their limits changes."""
        failures = LoginFailures(Limits(), b"key")
        rates = failures.guess_rates
        failures.set_limits(Limits(max_login_delay_seconds=1, backlog=3))
        self.assertIs(failures.guess_rates, rates)
        for name in LIMITS_OF_GUESSES:
            failures.set_limits(replace(Limits(), **{name: cast("Any", 7)}))
            self.assertIsNot(failures.guess_rates, rates)
            rates = failures.guess_rates

    def test_login_queue(self) -> None:
        """More checks may begin at once, and fewer when those that run have ended."""
        queue = LoginQueue(4)
        for number in range(8):
            queue.add(number, f"192.0.{number}.1", known=False)
        begun = [queue.next() for _ in range(5)]
        self.assertIsNone(begun.pop())
        queue.set_max_checks(5)
        begun.append(queue.next())
        self.assertIsNotNone(begun[-1])
        queue.set_max_checks(2)
        for ticket in begun[:3]:
            queue.remove(ticket)
            self.assertIsNone(queue.next())
        queue.remove(begun[3])
        self.assertIsNotNone(queue.next())

    def test_login_queue_of_one_address(self) -> None:
        """An address has a quarter of the checks, and one at least."""
        queue = LoginQueue(1)
        queue.set_max_checks(8)
        for number in range(4):
            queue.add(number, HERE, known=False)
        self.assertEqual([queue.next() is not None for _ in range(3)], [True, True, False])
