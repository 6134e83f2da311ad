"""The busiest are found, with an error that is bounded, in bounded memory, whatever addresses come."""

import sys
from random import Random
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.observe import talkers
from imapshield.observe.space_saving import Summary
from imapshield.observe.talkers import CAPACITY, Source, Talkers, Work, headline

BATCHES = st.lists(
    st.dictionaries(st.integers(0, 60), st.integers(1, 1000), max_size=40), max_size=20
)


class SummaryTests(SynchronousTestCase):
    @given(BATCHES, BATCHES, st.integers(1, 20))
    def test_guarantee(
        self, first: list[dict[int, int]], second: list[dict[int, int]], capacity: int
    ) -> None:
        """No count is too high, or too low by more than the error, which is at most a share; also after a merge."""
        truth: dict[int, int] = {}
        summaries = Summary[int](capacity), Summary[int](capacity)
        for summary, batches in zip(summaries, (first, second), strict=True):
            for batch in batches:
                summary.add(batch)
                for key, count in batch.items():
                    truth[key] = truth.get(key, 0) + count
        summary = summaries[0]
        summary.merge(summaries[1])
        total = sum(truth.values())
        self.assertEqual(summary.total, total)
        self.assertLessEqual(summary.error, total / (capacity + 1))
        self.assertLessEqual(len(summary), capacity)
        found = {share.key: share.amount for share in summary.top(capacity)}
        for key, count in truth.items():
            self.assertLessEqual(found.get(key, 0), count)
            self.assertGreaterEqual(found.get(key, 0), count - summary.error)


class TalkersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.talkers = Talkers(self.now)

    def run_seconds(self, seconds: int, *works: tuple[Source, Work]) -> None:
        for _ in range(seconds):
            for source, work in works:
                self.talkers.add(source, work, self.now)
            self.now += 1
            self.talkers.end_second(self.now)

    def test_shares_of_every_subject_and_measure(self) -> None:
        """Each connection, address, network and user has its share of commands, octets, time and resets."""
        source = Source("7", "192.0.2.1", "192.0.2.0/26", "alice")
        stranger = Source("8", "198.51.100.1", "198.51.100.0/26", "")
        self.run_seconds(2, (source, Work(3, 100, 0.5, 0)), (stranger, Work(1, 0, 0, 1)))
        for subject, key in zip(("connection", "address", "network", "user"), source, strict=True):
            report = self.talkers.report("minute", subject, "commands", self.now)
            self.assertEqual((report.shares[0].key, report.shares[0].amount), (key, 6))
        self.assertEqual(self.talkers.report("minute", "user", "commands", self.now).total, 6)
        resets = self.talkers.report("minute", "address", "resets", self.now)
        self.assertEqual([(s.key, s.amount) for s in resets.shares], [("198.51.100.1", 2)])

    def test_periods_count_everything_once(self) -> None:
        """Each period has what was done in it, counted once, while shorter periods end."""
        source = Source("7", "192.0.2.1", "", "")
        for second in range(1, 4000):
            self.run_seconds(1, (source, Work(1)))
            for name, length in (("minute", 60), ("ten minutes", 600), ("day", 86400)):
                if second % 97 == 0:
                    report = self.talkers.report(name, "address", "commands", self.now)
                    self.assertEqual(report.total, report.seconds)
                    self.assertGreaterEqual(report.seconds, min(second, length / 2))
                    self.assertLessEqual(report.seconds, length + 60)

    def test_flooders_are_found_among_a_hundred_thousand_addresses(self) -> None:
        """Everyone above a thousandth is listed, with an error of at most a thousandth, whoever else comes."""
        random = Random(7)
        total = 0
        for _ in range(50):
            for host in range(3):
                self.talkers.add(Source("", f"192.0.2.{host}", "", ""), Work(40 + host), self.now)
                total += 40 + host
            for _ in range(2500):
                address = (
                    f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}"
                )
                self.talkers.add(Source("", address, "", ""), Work(1), self.now)
                total += 1
            self.now += 1
            self.talkers.end_second(self.now)
        report = self.talkers.report("ten minutes", "address", "commands", self.now)
        self.assertEqual(report.total, total)
        self.assertEqual(
            [share.key for share in report.shares[:3]], [f"192.0.2.{h}" for h in (2, 1, 0)]
        )
        for host, share in zip((2, 1, 0), report.shares, strict=False):
            self.assertLessEqual(share.amount, 50 * (40 + host))
            self.assertGreaterEqual(share.amount + total / CAPACITY, 50 * (40 + host))

    @given(
        st.lists(
            st.tuples(st.integers(0, 400), st.dictionaries(st.integers(0, 40), st.integers(1, 50))),
            max_size=30,
        )
    )
    def test_guarantee_in_each_period(self, steps: list[tuple[int, dict[int, int]]]) -> None:
        """Whatever the times are, everyone above the share is listed, and an error is at most that share."""
        capacity = 10
        with mock.patch.object(talkers, "CAPACITY", capacity):
            counted, now = Talkers(0.0), 0.0
            truth: dict[str, int] = {}
            for seconds, batch in steps:
                for key, amount in batch.items():
                    counted.add(Source("", f"host{key}", "", ""), Work(amount), now)
                    truth[f"host{key}"] = truth.get(f"host{key}", 0) + amount
                now += seconds
                counted.end_second(now)
            report = counted.report("day", "address", "commands", now, 1000)
        self.assertEqual(report.total, sum(truth.values()))
        found = {share.key: share for share in report.shares}
        share = report.total / capacity
        for name, amount in truth.items():
            self.assertTrue(amount <= share or name in found)
            if name in found:
                self.assertLessEqual(found[name].amount, amount)
                self.assertLessEqual(amount, found[name].amount + share)

    def test_memory_is_bounded(self) -> None:
        """With all summaries full, their tables and numbers take at most 10 MB; keys are shared strings."""
        summary = Summary[str](CAPACITY)
        for start in range(0, 40000, 2000):
            summary.add({str(n): 1.0 + n for n in range(start, start + 2000)})
        counts = summary._counts
        each = sys.getsizeof(counts) + sum(map(sys.getsizeof, counts.values()))
        self.assertLess(each * 16 * 6, 10_000_000)


class HeadlineTests(SynchronousTestCase):
    def headline(self, *counts: float, total: float) -> str:
        summary = Summary[str](CAPACITY)
        summary.add({str(n): count for n, count in enumerate(counts)})
        return headline(summary.top(10), total, "address", "commands")

    def test_few_who_have_most_are_named(self) -> None:
        """The line says how many addresses have most of it, and none is said if nobody has."""
        self.assertEqual(self.headline(30, 28, 27, 1, 1, total=100), "3 hosts, 85 % of commands")
        self.assertEqual(self.headline(90, 1, total=100), "1 host, 90 % of commands")
        self.assertEqual(self.headline(*[1] * 100, total=100), "")
        self.assertEqual(self.headline(total=0), "")
