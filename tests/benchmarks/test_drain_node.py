"""A small drain of `benchmarks.drain_node`: its times are those that its costs add up to."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.drain_node import Account, Costs, accounts, drain, percentile, report

COSTS = Costs(fixed=0.0, pause=0.5, look=0.00001, file=0.0, disk=100.0, network=50.0, user_load=0.0)


class DrainTests(SynchronousTestCase):
    def test_one_user(self) -> None:
        """1,000 MB over a network of 50 MB/s take 20 s, and the pause is the fixed work and a look at 1,000 files."""
        result = drain([Account(1000, 1000.0, 0.0)], 1, 1, COSTS)
        self.assertAlmostEqual(result.pauses[0], 0.51)
        self.assertAlmostEqual(result.seconds, 20.0 + 0.01 + 0.51)
        self.assertAlmostEqual(result.busy["disk of the source"], 10.0)
        self.assertEqual((result.again, result.longer), (0, 0))

    def test_every_user_moves_once(self) -> None:
        users = accounts(30, 50.0, 0.075)
        for at_once in (1, 4):
            self.assertEqual(len(drain(users, at_once, 2, COSTS).pauses), len(users))

    def test_two_moves_share_the_network(self) -> None:
        """Two moves at once take as long as one after the other where only the network is busy."""
        users = [Account(1, 500.0, 0.0)] * 2
        both, each = (drain(users, at_once, 1, COSTS).seconds for at_once in (2, 1))
        self.assertAlmostEqual(both, each, delta=1.1)

    def test_large_account_needs_a_longer_pause(self) -> None:
        """An account of which a copy of nothing takes longer than a pause may last is moved all the same, and counted."""
        result = drain([Account(200_000, 100.0, 0.0)], 1, 1, COSTS)
        self.assertEqual((len(result.pauses), result.longer), (1, 1))
        self.assertGreater(result.pauses[0], 2.0)

    def test_slow_pause_is_undone(self) -> None:
        """A pause in which too much has to be done is counted, and tried again."""
        result = drain([Account(10, 1.0, 0.0)], 1, 1, replace(COSTS, pause=2.5))
        self.assertEqual(len(result.pauses), 1)
        self.assertGreater(result.again, 0)

    def test_report(self) -> None:
        self.assertEqual(percentile([3.0, 1.0, 2.0], 0.5), 2.0)
        cells = report(drain([Account(1000, 1000.0, 0.0)], 1, 1, COSTS), 1).split()
        self.assertEqual((cells[0], cells[2]), ("1", "0.51"))
