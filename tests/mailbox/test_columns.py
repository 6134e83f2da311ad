"""Columns apply deltas, and report what changed."""

import sys
from array import array

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.columns import UNKNOWN_SIZE, Columns
from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.wire.sequence import SequenceSet


def row(uid: int, flags: bytes = b"", modseq: int = 1, size: int | None = 10) -> MessageRow:
    return MessageRow(uid, flags, modseq, size, 1000 + uid)


class ColumnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.columns = Columns()
        self.columns.apply(
            Delta([row(1), row(3, b"\\Seen", 2), row(7, b"", 3, None)], highestmodseq=3, uidnext=8)
        )

    def test_every_array_has_a_row_per_message(self) -> None:
        """Every array has a row for each message, in ascending order of UID."""
        self.assertEqual(list(self.columns.uids), [1, 3, 7])
        self.assertEqual(list(self.columns.sizes), [10, 10, UNKNOWN_SIZE])
        self.assertEqual(list(self.columns.dates), [1001, 1003, 1007])
        self.assertEqual((self.columns.highestmodseq, self.columns.uidnext), (3, 8))
        self.assertEqual(self.columns.row(3), 1)
        self.assertIsNone(self.columns.row(4))

    def test_memory_of_a_message(self) -> None:
        """The columns of an open mailbox take 32 bytes for each message, whether it is opened or grows, and no objects."""
        columns = Columns()
        for first in (1, 5001):
            columns.apply(Delta([row(uid, b"\\Seen", uid) for uid in range(first, first + 5000)]))
        arrays = [value for value in vars(columns).values() if isinstance(value, array)]
        octets = sum(sys.getsizeof(each) - sys.getsizeof(array("I")) for each in arrays)
        self.assertEqual((len(arrays), octets), (5, 32 * 10_000))
        others = [value for value in vars(columns).values() if not isinstance(value, array)]
        self.assertLess(sum(map(sys.getsizeof, others)), 2000)

    def test_change_lists_new_changed_and_vanished_messages(self) -> None:
        """A change distinguishes new, changed and vanished messages."""
        change = self.columns.apply(
            Delta([row(3, b"", 4), row(9, b"", 5)], SequenceSet.from_numbers([1, 2]), 6, 10)
        )
        self.assertEqual(list(map(list, change)), [[9], [3], [1], []])
        self.assertEqual(list(self.columns.uids), [3, 7, 9])

    def test_delta_applied_again_changes_nothing(self) -> None:
        """A delta that was applied before changes nothing."""
        delta = Delta([row(3, b"", 4), row(9, b"", 5)], SequenceSet.from_numbers([1]), 6, 10)
        self.columns.apply(delta)
        self.assertFalse(any(self.columns.apply(delta)))

    def test_uid_arrays_are_replaced_and_never_changed(self) -> None:
        """Arrays of UIDs are replaced and never changed, so that views can share them."""
        before = self.columns.uids
        self.columns.apply(Delta([row(9, b"", 5)], SequenceSet.from_numbers([1]), 6, 10))
        self.assertEqual(list(before), [1, 3, 7])

    def test_equal_flag_lists_have_one_id(self) -> None:
        """Equal flag lists have one id, and flags are found without case."""
        columns = self.columns
        columns.apply(Delta([row(9, b"\\Seen $Junk", 5), row(10, b"\\Seen", 6)]))
        self.assertEqual(columns.flag_ids[1], columns.flag_ids[4])
        self.assertEqual(columns.flag_ids_with(b"$junk"), {columns.flag_ids[3]})
        self.assertEqual(
            columns.flag_ids_with(b"\\SEEN"), {columns.flag_ids[1], columns.flag_ids[3]}
        )

    def test_memory_for_flag_lists_is_bounded(self) -> None:
        """Ten thousand STOREs with different flag lists need memory for a thousand, and every list stays correct."""
        columns = self.columns
        for i in range(10_000):
            columns.apply(Delta([row(1 + i % 2 * 2, b"k%d q%d" % (i % 100, i // 100), 10 + i)]))
            flag_list = columns.flag_lists[columns.flag_ids[i % 2]]
            self.assertEqual(flag_list, b"k%d q%d" % (i % 100, i // 100))
        self.assertLess(len(columns.flag_lists), 1010)
        self.assertEqual(columns.flag_lists[columns.flag_ids[2]], b"")
        self.assertEqual(
            columns.flag_ids_with(b"Q99"), set(columns.flag_ids[:2]) | columns.flag_ids_with(b"q99")
        )
        self.assertEqual(columns.flag_sets[columns.flag_ids[0]], {b"k98", b"q99"})
        self.assertEqual(len(columns.keywords), 200)

    def test_size_measured_later_is_recorded(self) -> None:
        """A size that is measured later is recorded."""
        self.columns.set_sizes([(7, 99), (8, 5)])
        self.assertEqual(list(self.columns.sizes), [10, 10, 99])

    def test_first_row_without_a_flag_is_found_again(self) -> None:
        """The first row without a flag is found again after flags or messages changed."""
        self.assertEqual(self.columns.first_row_without(b"\\Seen"), 0)
        self.columns.apply(Delta([row(1, b"\\Seen", 4)], highestmodseq=4))
        self.assertEqual(self.columns.first_row_without(b"\\Seen"), 2)
        self.columns.apply(Delta([row(7, b"\\Seen", 5)], highestmodseq=5))
        self.assertEqual(self.columns.first_row_without(b"\\Seen"), -1)
