"""The exact numbers of rates, and the memory of the table behind them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.rates import RateTable


class ExactRateTests(SynchronousTestCase):
    def test_what_is_given_back_can_be_taken_again(self) -> None:
        """Giving a cost back undoes exactly that cost, whatever the rate is."""
        for per_second, cost in ((2.0, 1.0), (2.0, 2.0), (0.25, 3.0), (4.0, 0.5)):
            table = RateTable(per_second, 5, 10)
            self.assertEqual(table.take("a", 100.0, 5), 0.0)
            table.give_back("a", 100.0, cost)
            self.assertAlmostEqual(table.take("a", 100.0, cost + 1), 1 / per_second)
            self.assertEqual(table.take("a", 100.0, cost), 0.0)
            self.assertAlmostEqual(table.take("a", 100.0, 1), 1 / per_second)

    def test_giving_back_too_much(self) -> None:
        """More than was taken cannot be given back, and an unknown key has nothing to give back."""
        table = RateTable(1.0, 5, 10)
        table.take("a", 0.0, 2)
        table.give_back("a", 0.0, 4)
        self.assertEqual(table.take("a", 0.0, 5), 0.0)
        self.assertEqual(table.take("a", 0.0, 1), 1.0)
        table.give_back("b", 0.0, 4)
        self.assertEqual(len(table), 1)


class TableMemoryTests(SynchronousTestCase):
    def test_removed_keys_take_no_memory(self) -> None:
        """The entries of keys that were removed are dropped when there are a hundred more of them than of others."""
        table: BoundedTable[int, float] = BoundedTable(1000, float)
        for key in range(10):
            table.put(key, 1.0)
        largest = 0
        for key in range(100, 2000):
            table.put(key, 2.0)
            table.pop(key)
            largest = max(largest, len(table._heap))
        self.assertEqual(largest, 2 * 10 + 100)
        self.assertEqual(sorted(table), list(range(10)))
