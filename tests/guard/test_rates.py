"""Rates and counts of recent items: compared with simple models, and bounded."""

import math

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.rates import RateNews, RateTable, RecentItems


class TokenBucket:
    """The model of a `RateTable` with one key: `burst` tokens, of which `per_second` come back every second."""

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second, self.burst, self.tokens, self.last = per_second, burst, burst, 0.0

    def take(self, now: float, cost: float) -> float:
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.per_second)
        self.last = now
        if self.tokens + 1e-6 >= cost:
            self.tokens -= cost
            return 0.0
        return math.inf if cost > self.burst else (cost - self.tokens) / self.per_second


class RateTableTests(SynchronousTestCase):
    @given(
        strategies.integers(1, 20),
        strategies.integers(1, 20),
        strategies.lists(
            strategies.tuples(strategies.integers(0, 40), strategies.integers(1, 25)), max_size=60
        ),
    )
    def test_is_a_token_bucket(self, rate: int, burst: int, steps: list[tuple[int, int]]) -> None:
        """A rate table permits exactly what a token bucket permits, and tells the same waiting time."""
        table, bucket, now = RateTable(rate, burst, 10), TokenBucket(rate, burst), 0.0
        for eighths, cost in steps:
            now += eighths / 8
            expected, got = bucket.take(now, cost), table.take("key", now, cost)
            if math.isinf(expected):
                self.assertEqual(got, expected)
            else:
                self.assertAlmostEqual(got, expected, 5)

    @given(strategies.integers(1, 1000), strategies.integers(1, 50), strategies.floats(0, 1e8))
    def test_waiting_as_long_as_told_is_enough(self, rate: int, burst: int, now: float) -> None:
        """The waiting time is enough, in spite of rounding; half of it is not."""
        table = RateTable(rate, burst, 10)
        for _ in range(burst):
            self.assertEqual(table.take("key", now), 0.0)
        wait = table.take("key", now)
        self.assertGreater(wait, 0)
        self.assertGreater(table.take("key", now + wait / 2), 0)
        self.assertEqual(table.take("key", now + wait), 0.0)

    def test_keys_are_independent(self) -> None:
        """What one key has taken does not concern another."""
        table = RateTable(1, 1, 10)
        self.assertEqual(table.take("a", 0.0), 0.0)
        self.assertEqual(table.take("a", 0.0), 1.0)
        self.assertEqual(table.take("b", 0.0), 0.0)

    def test_give_back(self) -> None:
        """What is given back can be taken again, but never more than the burst."""
        table = RateTable(1, 2, 10)
        table.give_back("a", 0.0)
        for _ in range(3):
            table.take("a", 0.0)
        table.give_back("a", 0.0)
        self.assertEqual(table.take("a", 0.0), 0.0)
        self.assertEqual(table.take("a", 0.0), 1.0)
        for _ in range(9):
            table.give_back("a", 0.0)
        self.assertEqual([table.take("a", 0.0) for _ in range(3)], [0.0, 0.0, 1.0])

    def test_the_worst_key_is_not_forgotten(self) -> None:
        """A hundred thousand new keys in a small table do not make it forget the key that has taken most."""
        table = RateTable(1, 100, 50)
        for _ in range(100):
            table.take("flood", 0.0)
        for n in range(100_000):
            table.take(n, n / 10_000)
        self.assertEqual(len(table), 50)
        self.assertGreater(table.take("flood", 10.0, cost=11), 0)


class RateNewsTests(SynchronousTestCase):
    def test_keys_that_have_given_back_all_take_no_place(self) -> None:
        """A part of the news has as many keys as it may, so fewer mean that nothing waits."""
        news: RateNews[str] = RateNews()
        calls: list[None] = []
        news.on_first = lambda: calls.append(None)
        for key, amounts in (("a", (1.0, -1.0)), ("b", (2.0,)), ("c", (3.0,)), ("d", (4.0,))):
            for amount in amounts:
                news.add(key, amount)
        self.assertEqual(news.take(2), [("b", 2.0), ("c", 3.0)])
        self.assertEqual(news.take(2), [("d", 4.0)])
        self.assertEqual(news.take(2), [])
        news.add("a", 1.0)
        self.assertEqual(len(calls), 2)


class RecentItemsTests(SynchronousTestCase):
    def test_an_item_counts_once(self) -> None:
        """An item that is added again counts once, and counts until `seconds` after it was last added."""
        items = RecentItems(100, 10, 5)
        self.assertEqual(items.add("key", b"item   1", 0.0), 1)
        self.assertEqual(items.add("key", b"item   2", 50.0), 2)
        self.assertEqual(items.add("key", b"item   1", 90.0), 2)
        self.assertEqual(items.add("key", b"item   3", 151.0), 2)
        self.assertEqual(items.add("key", b"item   3", 999.0), 1)

    def test_the_oldest_item_is_replaced(self) -> None:
        """A key keeps the latest `max_items` items."""
        items = RecentItems(100, 10, 2)
        counts = [items.add("key", b"item%4d" % n, n) for n in (1, 2, 3, 2, 4, 3)]
        self.assertEqual(counts, [1, 2, 2, 2, 2, 2])
        self.assertEqual(items.add_if_room("key", b"item   4", 7), 2)
        self.assertEqual(items.add_if_room("key", b"item   1", 8), 0)
        self.assertEqual(items.add_if_room("key", b"item   1", 200), 1)

    def test_one_item(self) -> None:
        """A limit of one item works."""
        items = RecentItems(100, 10, 1)
        self.assertEqual([items.add("key", b"item%4d" % n, n) for n in (1, 2)], [1, 1])

    def test_the_key_with_most_items_is_not_forgotten(self) -> None:
        """A hundred thousand keys with one item each do not make a small table forget a key with nine."""
        items = RecentItems(86400, 50, 10)
        for n in range(9):
            items.add("guesser", b"item%4d" % n, 0.0)
        for n in range(100_000):
            items.add(n, b"12345678", n / 10)
        self.assertEqual(len(items), 50)
        self.assertEqual(items.add("guesser", b"item   9", 10_000.0), 10)

    def test_merge(self) -> None:
        """The items of another table are added to the own ones, and each counts once, also if all are known."""
        own, others = RecentItems(100, 10, 3), RecentItems(100, 10, 3)
        for n in (1, 2):
            others.add("key", n.to_bytes(8, "big"), n)
        others.add("other", (300).to_bytes(8, "big"), 5)
        own.add("key", (2).to_bytes(8, "big"), 2)
        own.add("key", (256).to_bytes(8, "big"), 4)
        own.merge(others.rows())
        self.assertEqual((own.count("key", 5), own.count("other", 5)), (3, 1))
        own.merge(own.rows())
        self.assertEqual(own.add("key", (257).to_bytes(8, "big"), 6), 3)
        self.assertFalse(own.has("key", (1).to_bytes(8, "big"), 6))

    def test_what_happened_before(self) -> None:
        """An item with an earlier time counts until that time is too old, beside newer ones, and is replaced first."""
        items = RecentItems(100, 10, 3)
        items.add("key", b"item new", 90)
        self.assertEqual(items.add("key", b"item old", 90, 20.9), 2)
        self.assertEqual(items.add("key", b"item new", 95, 30), 2)  # it is not older for that
        self.assertEqual([items.count("key", now) for now in (119, 120, 189, 190)], [2, 1, 1, 0])
        self.assertEqual(items.add("key", b"itempast", 130, 30), 1)
        self.assertEqual((items.add("none", b"itempast", 130, 30), len(items)), (0, 1))
        for n in range(3):
            items.add("key", b"item  %2d" % n, 131)
        self.assertEqual(items.add("key", b"item old", 131, 90), 3)
        self.assertFalse(items.has("key", b"item old", 131))

    def test_what_happened_before_the_start_of_the_machine(self) -> None:
        """A clock that begins with the machine shows less than nothing for what was before."""
        items = RecentItems(100, 10, 3)
        items.add("key", b"item old", 10, -50.5)
        self.assertEqual([items.count("key", now) for now in (48, 49)], [1, 0])
        self.assertEqual(items.time_of("key", b"item old"), -51)
        self.assertIsNone(items.time_of("key", b"item new"))

    def test_merged_items_expire_by_their_own_times(self) -> None:
        """An item of another table counts no longer than in that table, also beside a newer one, and is dropped first."""
        old, both, new = b"item old", b"itemboth", b"item new"
        own, others = RecentItems(100, 10, 3), RecentItems(100, 10, 3)
        for table, item, time in (
            (own, old, 0),
            (own, both, 10),
            (others, both, 50),
            (others, new, 60),
        ):
            table.add("key", item, time)
        swapped = RecentItems(100, 10, 3)
        swapped.merge(others.rows())
        swapped.merge(own.rows())
        own.merge(others.rows())
        for table in own, swapped:
            self.assertEqual(table.count("key", 99), 3)
            self.assertEqual(table.count("key", 101), 2)
            self.assertEqual(table.count("key", 151), 1)
            self.assertEqual(table.add("key", b"itemlast", 99), 3)
            self.assertEqual([table.has("key", item, 99) for item in (old, both)], [False, True])

    def test_forget(self) -> None:
        """A forgotten key has no items."""
        items = RecentItems(100, 10, 5)
        items.add("key", b"item   1", 0.0)
        items.forget("key")
        items.forget("other")
        self.assertEqual(items.add("key", b"item   2", 0.0), 1)
