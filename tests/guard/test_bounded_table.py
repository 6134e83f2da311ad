"""A bounded table drops the key with the lowest score, and removed keys take no memory."""

from __future__ import annotations

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bounded_table import BoundedTable


class BoundedTableTests(SynchronousTestCase):
    @given(
        strategies.integers(1, 5),
        strategies.lists(
            strategies.tuples(strategies.integers(0, 9), strategies.integers(-8, 20)), max_size=80
        ),
    )
    def test_drops_the_lowest_score(self, size: int, steps: list[tuple[int, int]]) -> None:
        """A full table drops the key with the lowest score, if scores only grow; a negative growth removes a key."""
        table: BoundedTable[int, float] = BoundedTable(size, lambda value: value / 3)
        model: dict[int, float] = {}
        for key, growth in steps:
            if growth < 0:
                self.assertEqual(table.pop(key), model.pop(key, None))
                continue
            value = model.get(key, 0.0) + growth
            table.put(key, value)
            if key not in model and len(model) == size:
                lowest = min(model.values())
                (dropped,) = set(model) - set(table)
                self.assertEqual(model.pop(dropped), lowest)
            model[key] = value
            self.assertEqual({k: table.get(k) for k in table}, model)

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
        for key in range(990):  # the table is full, and drops the lowest one nevertheless
            table.put(-1 - key, 2.0)
        self.assertIn(table.put(-1000, 2.0), range(10))
        self.assertEqual(len(table), 1000)

    def test_a_removed_key_that_is_put_again(self) -> None:
        """A key that was removed and put again is dropped once, and the table stays within its maximum."""
        table: BoundedTable[str, float] = BoundedTable(2, float)
        for key, value in (("a", 1.0), ("b", 5.0)):
            table.put(key, value)
            table.pop(key)
            table.put(key, value)
        self.assertEqual([table.put("c", 6.0), table.put("d", 7.0)], ["a", "b"])
        self.assertEqual(sorted(table), ["c", "d"])

    def test_keys_are_not_compared(self) -> None:
        """Keys of any type have a place; of those with the same score the oldest is dropped."""
        table: BoundedTable[object, float] = BoundedTable(3, float)
        keys = ["text", None, b"bytes", 4]
        self.assertEqual([table.put(key, 1.0) for key in keys], [None, None, None, "text"])

    def test_a_score_that_falls(self) -> None:
        """A key whose score has fallen is dropped at the latest when its former score is the lowest."""
        table: BoundedTable[str, float] = BoundedTable(2, float)
        table.put("a", 3.0)
        table.put("b", 5.0)
        table.put("a", 1.0)
        self.assertEqual(table.put("c", 6.0), "a")
