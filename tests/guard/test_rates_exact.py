"""The exact numbers of rates, and the memory of the table behind them."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.rates import RateTable, RecentItems


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


class RecentItemsModel:
    """What `RecentItems` says about one key, with a list."""

    def __init__(self, seconds: int, max_items: int) -> None:
        self.seconds, self.max_items = seconds, max_items
        self.items: list[tuple[bytes, int]] = []

    def count(self, now: int) -> int:
        self.items = [(item, at) for item, at in self.items if at > now - self.seconds]
        return len(self.items)

    def has(self, item: bytes, now: int) -> bool:
        self.count(now)
        return item in [known for known, _ in self.items]

    def add(self, item: bytes, now: int) -> int:
        self.count(now)
        self.items = [*((i, at) for i, at in self.items if i != item), (item, now)]
        self.items = self.items[-self.max_items :]
        return len(self.items)


class RecentItemsTests(SynchronousTestCase):
    def test_recent_items_are_those_of_a_list(self) -> None:
        """Adding, asking, counting and expiring agree with a list, for hundreds of random sequences."""
        draw = random.Random(1)
        for _ in range(300):
            max_items = draw.randrange(1, 6)
            items, model, now = RecentItems(50, 10, max_items), RecentItemsModel(50, max_items), 0
            for _ in range(40):
                now += draw.choice((0, 0, 1, 7, 30, 50, 51))
                item = b"item%4d" % draw.randrange(7)
                self.assertEqual(items.has("a", item, now), model.has(item, now))
                self.assertEqual(items.count("a", now), model.count(now))
                if draw.random() < 0.7:
                    self.assertEqual(items.add("a", item, now), model.add(item, now))
                else:
                    fits = model.has(item, now) or model.count(now) < max_items
                    expected = model.add(item, now) if fits else 0
                    self.assertEqual(items.add_if_room("a", item, now), expected)


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
