"""The comparison of counted commands with the stored file."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.counted_server import Snapshot
from benchmarks.counted_work import OPERATIONS
from benchmarks.counts import STORED as STORED_FILE
from benchmarks.counts import Counts, differences, load, median_counts, stored_text

STORED = Counts(1, 400, 200, {"epoll_wait": 3, "read": 1, "stat": 100})


def changed(hops: int = 1, calls: int = 400, own: int = 200, **system: int) -> list[list[str]]:
    found = Counts(hops, calls, own, {**STORED.system, **system})
    return [*differences("NOOP", STORED, found)]


class DifferenceTests(SynchronousTestCase):
    def test_the_same_counts_are_no_difference(self) -> None:
        """A command that costs what is stored is neither more nor less."""
        self.assertEqual(changed(), [[], []])

    def test_one_more_hop_or_read_is_noticed(self) -> None:
        """A single additional hop to a thread, or one additional system call, is a difference."""
        self.assertEqual(changed(hops=2), [["NOOP: hops 1 -> 2"], []])
        self.assertEqual(changed(read=2), [["NOOP: read 1 -> 2"], []])
        self.assertEqual(changed(fsync=1), [["NOOP: fsync 0 -> 1"], []])

    def test_less_is_reported_but_is_not_more(self) -> None:
        """A command that has become cheaper is reported, so that the lower counts can be stored."""
        self.assertEqual(changed(hops=0), [[], ["NOOP: hops 1 -> 0"]])
        self.assertEqual(changed(own=100), [[], ["NOOP: calls in imapshield 200 -> 100"]])

    def test_polls_and_calls_may_differ_a_little(self) -> None:
        """Two polls, two hundredths of many system calls, and a twentieth of the calls are tolerated, but not more."""
        self.assertEqual(changed(epoll_wait=5, stat=102, calls=422, own=212), [[], []])
        more, _ = changed(epoll_wait=6, stat=103, calls=423, own=213)
        self.assertEqual(len(more), 4)

    def test_an_operation_that_is_not_stored_is_a_difference(self) -> None:
        """A new operation fails until its counts are stored."""
        self.assertEqual(differences("NEW", None, STORED)[0], ["NEW: not in counts.json"])

    def test_the_median_ignores_a_disturbed_round(self) -> None:
        """A timer that fires in one of three rounds does not count."""
        usual = Snapshot(1, Counter({"imapshield/a.py:f": 5, "twisted/b.py:g": 2}))
        disturbed = Snapshot(2, Counter({"imapshield/a.py:f": 50}))
        rounds = [
            (usual, Counter({"read": 1})),
            (disturbed, Counter({"read": 1, "fsync": 1})),
            (usual, Counter({"read": 1})),
        ]
        self.assertEqual(median_counts(rounds), Counts(1, 7, 5, {"read": 1}))

    def test_every_operation_is_stored(self) -> None:
        """The stored file has all operations and no other, and storing what it contains changes nothing."""
        stored = load()
        self.assertEqual(list(stored), [operation.name for operation in OPERATIONS])
        self.assertEqual(stored_text(stored), STORED_FILE.read_text())
