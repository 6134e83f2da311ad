"""Values for SEARCH are kept in rows of many messages, and each is found again."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import message_search
from imapshield.maildir.search_values import (
    MAX_ROW_SIZE,
    ROW_SPAN,
    ValueRow,
    encoded_rows,
    merged_rows,
    row_bounds,
)
from imapshield.testing.store_contract import DELETED, MAIL, SECOND_MAIL
from imapshield.wire.commands.search import EnvelopeKey
from tests.maildir.disk import DiskTestCase, counting_calls, opened_messages

texts = st.lists(st.sampled_from((b"\0", b"a", b"ab", b"b")), max_size=4).map(b"".join)
values = st.dictionaries(st.integers(1, 3 * ROW_SPAN), texts.map(lambda text: b"\0" + text))


class Table:
    """The rows of one item, as the index has them."""

    def __init__(self) -> None:
        self.rows: dict[int, bytes] = {}

    def add(self, found: Sequence[tuple[int, bytes]]) -> None:
        self.rows.update(list(merged_rows(found, self.take)))

    def take(self, low: int, high: int) -> list[bytes]:
        return [self.rows.pop(uid) for uid in sorted(self.rows) if low <= uid <= high]


class ValueRowTests(SynchronousTestCase):
    @given(st.lists(values, max_size=4), st.sampled_from((b"a", b"ab", b"ba", b"\0", b"\0a", b"b")))
    def test_values_that_were_added_are_found(
        self, added: list[dict[int, bytes]], needle: bytes
    ) -> None:
        """Whatever was added, in whatever order, is in the rows, and a search finds each value that has the text."""
        table = Table()
        expected: dict[int, bytes] = {}
        for each in added:
            table.add(sorted(each.items()))
            expected.update(each)
        rows = {uid: ValueRow.decode(row) for uid, row in table.rows.items()}
        found = dict(pair for row in rows.values() for pair in row.values())
        self.assertEqual(found, expected)
        if needle.count(b"\0") < 2 and not needle[1:].count(b"\0"):
            matching = sorted(uid for row in rows.values() for uid in row.containing(needle))
            self.assertEqual(matching, sorted(uid for uid in found if needle in found[uid]))
        for uid, row in rows.items():
            self.assertEqual(row.uids[0], uid)
            low, high = row_bounds(list(row.uids))
            self.assertEqual(high - low, ROW_SPAN - 1)

    def test_a_row_has_a_maximum_size(self) -> None:
        """Large values are in several rows, so that no message that arrives makes the server write much."""
        large = [(uid, b"x" * (MAX_ROW_SIZE // 2)) for uid in range(1, 8)]
        rows = list(encoded_rows(large))
        self.assertEqual([uid for uid, _ in rows], [1, 3, 5, 7])

    @given(st.binary(max_size=64), st.binary(min_size=1, max_size=2))
    def test_a_damaged_row_raises_nothing(self, row: bytes, needle: bytes) -> None:
        decoded = ValueRow.decode(row)
        decoded.containing(needle)
        list(decoded.values())


class SearchValuesTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        for i in range(6):
            self.append(content=MAIL if i % 2 else SECOND_MAIL)
        self.key = self.store.mailbox_key("INBOX")
        self.db = self.store._account.index.db

    def search(self, text: str, uids: Sequence[int]) -> list[int]:
        return self.store.search(self.key, uids, EnvelopeKey(b"FROM", text)).matching

    def rows(self) -> int:
        count: int
        (count,) = self.db.execute(
            "SELECT count(*) FROM answer JOIN item ON item = item.id WHERE substr(text, 1, 1) = x'3f'"
        ).fetchone()
        return count

    def test_values_of_many_messages_are_one_row(self) -> None:
        """However they were searched, the values of messages with similar UIDs are one row."""
        self.assertEqual(self.search("ann", [4]), [4])
        self.assertEqual(self.search("ann", [1, 2, 6]), [2, 6])
        self.assertEqual(self.search("ann", range(1, 7)), [2, 4, 6])
        self.assertEqual(self.rows(), 1)
        self.assertEqual(self.search("ann", [2, 5]), [2])

    def test_values_of_expunged_messages_match_nothing(self) -> None:
        """A value in a row of which the message is expunged is not found, and those that go with it are made again."""
        self.search("ann", range(1, 7))
        for uid, left in ((4, [2, 3, 6]), (2, [3, 6])):
            self.store.store_flags(self.key, [1, uid], b"+", [DELETED], None, 0)
            self.store.expunge(self.key, None, 0)
            with counting_calls("open") as calls:
                self.assertEqual(self.search("ann", left), [each for each in left if each != 3])
            self.assertEqual(opened_messages(calls), [])

    def test_one_call_compares_a_limited_amount(self) -> None:
        """A search of cached values stops between two rows when it has compared much, and says how far it came."""
        self.patch(message_search, "MAX_VALUE_BYTES", 1)
        uids = [uid for uid in range(1, 2 * ROW_SPAN) if uid < 7 or uid > ROW_SPAN]
        for _ in range(7, 2 * ROW_SPAN):
            self.append()
        results = []
        for _ in range(2):
            result = self.store.search(self.key, uids, EnvelopeKey(b"FROM", "ann"))
            results.append((result.matching, result.examined))
        expected = [2, 4, 6, *range(ROW_SPAN + 1, 2 * ROW_SPAN)]
        self.assertEqual(results[0], (expected, None))
        self.assertEqual(results[1], ([2, 4, 6], 6))

    def test_gaps_before_a_limited_call_are_filled(self) -> None:
        """A call that stops early has looked at all messages before, also at hundreds without a value in the cache."""
        self.patch(message_search, "MAX_VALUE_BYTES", 1)
        self.patch(message_search, "FILL_STEP", 8)
        for _ in range(7, 3 * ROW_SPAN):
            self.append()
        uids = list(range(1, 3 * ROW_SPAN))
        late = uids[2 * ROW_SPAN :]
        self.store.search(self.key, late, EnvelopeKey(b"FROM", "ann"))
        early = uids[: ROW_SPAN // 2]
        self.store.search(self.key, early, EnvelopeKey(b"FROM", "ann"))
        matching: list[int] = []
        while uids:
            result = self.store.search(self.key, uids, EnvelopeKey(b"FROM", "ann"))
            matching += result.matching
            uids = [] if result.examined is None else uids[result.examined :]
        self.assertEqual(matching, [2, 4, 6, *range(7, 3 * ROW_SPAN)])
