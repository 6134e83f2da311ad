"""Sequence sets obey the laws of sets, and are never expanded."""

from __future__ import annotations

from array import array
from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.sequence import MAX_NUMBER, SAVED, SequenceSet, compact
from tests.cpu_time import check_cpu_time
from tests.wire.strategies import LAWS, SEQUENCES

parse = SequenceSet.parse

SMALL = st.integers(1, 40)
Item = tuple[int | str, int | str | None]

ITEMS = st.lists(
    st.tuples(SMALL | st.just("*"), st.none() | SMALL | st.just("*")), min_size=1, max_size=8
)


def text(items: list[Item]) -> bytes:
    """Return the sequence set of `items` as a client writes it."""
    return ",".join(str(a) if b is None else f"{a}:{b}" for a, b in items).encode()


def naive(items: list[Item], largest: int) -> set[int]:
    """Return the numbers up to `largest` that RFC 9051 says are in the set, one by one."""
    numbers: set[int] = set()
    for a, b in items:
        first = largest if a == "*" else int(a)
        last = first if b is None else largest if b == "*" else int(b)
        if "*" in (a, b) and not largest:
            continue
        numbers.update(range(min(first, last), max(first, last) + 1))
    return {n for n in numbers if n <= largest}


class LawTests(SynchronousTestCase):
    @LAWS
    @given(ITEMS, st.integers(0, 45))
    def test_resolved_ranges_are_sorted_and_disjoint(self, items: list[Item], largest: int) -> None:
        """The resolved ranges contain the numbers of the RFC, and are sorted, disjoint and not adjacent."""
        intervals = parse(text(items)).resolve(largest)
        numbers = {n for a, b in intervals for n in range(a, b + 1) if n <= largest}
        self.assertEqual(numbers, naive(items, largest))
        for (_, end), (start, _) in pairwise(intervals):
            self.assertGreater(start, end + 1)

    @LAWS
    @given(st.lists(st.integers(1, 12) | st.just(MAX_NUMBER), min_size=1))
    def test_list_of_numbers_is_the_set_of_them(self, numbers: list[int]) -> None:
        """A list of single numbers is the set of them, in whatever order they are, and whether or not they adjoin."""
        parsed = parse(b",".join(b"%d" % number for number in numbers))
        self.assertEqual(parsed, SequenceSet.from_numbers(sorted({*numbers})))
        for wrong in (b"0", b"01", b"4294967296", b"99999999999"):
            self.assertRaises(BadCommand, parse, b"1,3," + wrong)

    @LAWS
    @given(st.sets(SMALL), st.sets(SMALL))
    def test_intersection_has_the_numbers_of_both_sets(
        self, left: set[int], right: set[int]
    ) -> None:
        """`intersection` contains the numbers that are in both sets."""
        both = SequenceSet.from_numbers(sorted(left)).intersection(
            SequenceSet.from_numbers(sorted(right)).ranges
        )
        self.assertEqual(both, SequenceSet.from_numbers(sorted(left & right)))

    @LAWS
    @given(st.sets(SMALL), st.sets(SMALL), st.integers(1, 5))
    def test_intersection_in_parts_has_few_steps_in_each(
        self, left: set[int], right: set[int], size: int
    ) -> None:
        """`intersection_parts` has the ranges of `intersection`, at most one for each of the steps of a part."""
        one, other = (SequenceSet.from_numbers(sorted(numbers)) for numbers in (left, right))
        parts = list(one.intersection_parts(other.ranges, size))
        self.assertEqual(tuple(chain.from_iterable(parts)), one.intersection(other.ranges).ranges)
        self.assertLessEqual(max(map(len, parts), default=0), size)
        self.assertLessEqual(len(parts), (len(one.ranges) + len(other.ranges)) // size + 1)

    @LAWS
    @given(st.sets(SMALL), SMALL)
    def test_complement_has_all_other_numbers(self, present: set[int], end: int) -> None:
        """`complement` contains all other numbers, and is as small as the set itself."""
        present = {number for number in present if number < end}
        expected = SequenceSet.from_numbers(sorted({*range(1, end)} - present))
        self.assertEqual(SequenceSet.complement(sorted(present), end), expected)
        self.assertEqual(len(SequenceSet.complement([7], MAX_NUMBER).ranges), 2)

    @LAWS
    @given(ITEMS, st.sets(SMALL))
    def test_matching_slices_contain_the_uids_of_the_set(
        self, items: list[Item], present: set[int]
    ) -> None:
        """The slices contain the UIDs that are in the set, and are not empty."""
        uids = array("I", sorted(present))
        largest = uids[-1] if uids else 0
        slices = parse(text(items)).matching_slices(uids, largest)
        self.assertTrue(all(start < stop for start, stop in slices))
        matched = [uid for start, stop in slices for uid in uids[start:stop]]
        self.assertEqual(matched, sorted(naive(items, largest) & present))

    @LAWS
    @given(SEQUENCES)
    def test_encoded_set_is_parsed(self, numbers: SequenceSet) -> None:
        """A set that is encoded and parsed again is the same."""
        self.assertEqual(parse(numbers.encode()), numbers)

    @LAWS
    @given(st.sets(SMALL))
    def test_from_numbers(self, uids: set[int]) -> None:
        """The set of some UIDs contains those UIDs and no others."""
        numbers = SequenceSet.from_numbers(sorted(uids))
        self.assertEqual({n for n in range(50) if n in numbers}, uids)
        self.assertEqual(numbers.resolve(99), list(numbers.ranges))

    @LAWS
    @given(st.lists(SMALL, min_size=1))
    def test_compact_list_keeps_the_order(self, numbers: list[int]) -> None:
        """A compact list keeps the order of the numbers."""
        read: list[int] = []
        for item in compact(numbers).decode().split(","):
            first, _, last = item.partition(":")
            read += range(int(first), int(last or first) + 1)
        self.assertEqual(read, numbers)

    @LAWS
    @given(st.binary(max_size=8) | st.text("019*:,", max_size=12).map(str.encode))
    def test_only_bad_command_is_raised(self, octets: bytes) -> None:
        """No bytes raise anything but BadCommand."""
        try:
            parse(octets)
        except BadCommand as error:
            self.assertTrue(error.text.isascii())


class ParseTests(SynchronousTestCase):
    def test_example_of_rfc_9051_is_resolved(self) -> None:
        """RFC 9051: "2,4:7,9,12:*" of 15 messages is 2,4,5,6,7,9,12,13,14,15."""
        numbers = parse(b"2,4:7,9,12:*")
        self.assertEqual(numbers.resolve(15), [(2, 2), (4, 7), (9, 9), (12, 15)])

    def test_reversed_range_is_equivalent(self) -> None:
        """RFC 9051: 2:4 and 4:2 are equivalent."""
        self.assertEqual(parse(b"4:2"), parse(b"2:4"))
        self.assertEqual(parse(b"*:4"), parse(b"4:*"))

    def test_asterisk_includes_the_last_message(self) -> None:
        """RFC 9051: 3291:* includes the last message, even if its UID is less."""
        self.assertEqual(parse(b"3291:*").resolve(7), [(7, 7)])
        self.assertEqual(parse(b"3291:*").matching_slices([5, 7], 7), [(1, 2)])

    def test_overlapping_ranges_become_one(self) -> None:
        """Overlapping and adjacent ranges become one."""
        self.assertEqual(parse(b"5,1:3,4,2:3,1,1,1").ranges, ((1, 5),))

    def test_asterisk_alone_is_the_last_message(self) -> None:
        """``*`` alone is the last message; in an empty mailbox it is no message."""
        self.assertEqual(parse(b"*").matching_slices([3, 9], 9), [(1, 2)])
        self.assertEqual(parse(b"*").resolve(0), [])
        self.assertEqual(parse(b"*:*"), parse(b"*"))
        self.assertEqual(parse(b"*:*").encode(), b"*")

    def test_invalid_numbers_are_refused(self) -> None:
        """1 and 4294967295 are numbers; 0, 4294967296, leading zeros and signs are refused."""
        self.assertEqual(parse(b"1:4294967295").ranges, ((1, MAX_NUMBER),))
        for octets in (
            b"", b"0", b"1:0", b"0:*", b"01", b"00000000001", b"4294967296", b"1:4294967296",
            b"4294967296:*", b"-1", b"+1", b"1_0", b"1,", b",1", b"1,,2", b"1:", b":1", b"1:2:3",
            b"1 ", b" 1", b"$", b"1,$", b"**", b"99999999999999999999", "١".encode(), b"\xb2",
            b"1\n",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, octets)

    def test_highest_ignores_the_asterisk(self) -> None:
        """`highest` is the highest number of the set apart from ``*``."""
        self.assertEqual(parse(b"9,3:5,*").highest, 9)
        self.assertEqual(parse(b"3:*").highest, 0)

    def test_only_the_empty_set_is_false(self) -> None:
        """Only the empty set is false; ``$`` is not empty, and is encoded as ``$``."""
        self.assertFalse(SequenceSet())
        self.assertTrue(parse(b"*"))
        self.assertTrue(SAVED)
        self.assertEqual(SAVED.encode(), b"$")
        self.assertEqual(SAVED.resolve(9), [])


class CostTests(SynchronousTestCase):
    def test_large_range_is_not_expanded(self) -> None:
        """``1:4294967295`` costs as little as ``1``."""
        numbers = parse(b"1:4294967295")
        self.assertEqual(numbers.matching_slices(range(1, 1_000_001), 1_000_000), [(0, 1_000_000)])

    def test_descending_ranges_take_linear_time(self) -> None:
        """Ten thousand descending ranges are sorted in linear time."""
        octets = b",".join(b"%d:%d" % (i, i + 1) for i in range(40_000, 0, -4))
        check_cpu_time(self, 0.3, lambda: self.assertEqual(len(parse(octets).ranges), 10_000))
