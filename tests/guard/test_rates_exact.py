"""The exact numbers of rates and of recent items."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

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
            max_items = draw.choice((1, 2, 3, 4, 5, 30))
            items, model, now = RecentItems(50, 10, max_items), RecentItemsModel(50, max_items), 0
            for _ in range(40 + 2 * max_items):
                now += draw.choice((0, 0, 1, 7, 30, 50, 51) if max_items < 30 else (0, 0, 1))
                item = b"item%4d" % draw.randrange(7 if max_items < 30 else 60)
                self.assertEqual(items.has("a", item, now), model.has(item, now))
                self.assertEqual(items.count("a", now), model.count(now))
                if draw.random() < 0.7:
                    self.assertEqual(items.add("a", item, now), model.add(item, now))
                else:
                    fits = model.has(item, now) or model.count(now) < max_items
                    expected = model.add(item, now) if fits else 0
                    self.assertEqual(items.add_if_room("a", item, now), expected)

    def test_thirty_items_expire_together(self) -> None:
        """A key has no items `seconds` after the last of many was added, and counts are whole numbers."""
        items = RecentItems(50, 10, 30)
        counts = [items.add("a", b"item%4d" % n, 0.0) for n in range(30)]
        self.assertEqual(repr(counts), repr(list(range(1, 31))))
        self.assertEqual(items.add_if_room("a", b"item  30", 0.0), 0)
        self.assertEqual(repr([items.count("a", now) for now in (49.0, 50.0)]), "[30, 0]")

    def test_bytes_that_look_like_an_item(self) -> None:
        """Neither the parts of two items nor an item and its time are taken for an item."""
        items = RecentItems(1e6, 10, 5)
        items.add("a", b"1" + bytes(7), 5.0)
        items.add("a", b"2" + bytes(7), 5.0)
        self.assertFalse(items.has("a", bytes(3) + b"2" + bytes(4), 5.0))
        self.assertFalse(items.has("a", bytes(8), 5.0))
        self.assertEqual(items.add("a", bytes(8), 5.0), 3)
        self.assertTrue(items.has("a", bytes(8), 5.0))

    def test_the_forgotten_key_is_worth_least(self) -> None:
        """A full table forgets the key with the lowest sum: the time of its latest item, and for each item a share of
        `seconds`, of which `max_items` are a whole."""
        draw = random.Random(1)
        for _ in range(300):
            items, now, worth = RecentItems(20, 3, 7), 0, {}
            for _ in range(draw.randrange(3, 20)):
                key = draw.choice("abc")
                now += draw.choice((0, 0, 1))
                count = items.add(key, draw.randbytes(8), now)
                worth[key] = now + 20 * count / 7
            for key in sorted({*"abc"} - {*worth}):
                worth[key] = now + 20 / 7 * items.add(key, bytes(8), now)
            items.add("new", bytes(8), now)
            (forgotten,) = (key for key in "abc" if not items.count(key, now))
            self.assertAlmostEqual(worth[forgotten], min(worth.values()))
