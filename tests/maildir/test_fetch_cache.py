"""Answers that never change are computed once, and cached as long as the message exists."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, permutations
from unittest import mock

from imapshield.mailbox.message_items import ANSWER_VERSION
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.maildir import fetch_cache
from imapshield.testing.store_contract import (
    BUDGET,
    DELETED,
    ENVELOPE,
    MAIL,
    SECOND_MAIL,
    STRUCTURE,
)
from imapshield.wire.commands.fetch import Attribute, FetchItem, Preview
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey
from tests.maildir.disk import DiskTestCase, counting_calls, fields, opened_messages, traced_peak


class FetchCacheTests(DiskTestCase):
    ITEMS = (ENVELOPE, STRUCTURE, Attribute(b"BODY"), Preview(), fields(b"Subject", b"From"))

    def setUp(self) -> None:
        super().setUp()
        for i in range(5):
            self.append(content=MAIL if i % 2 else SECOND_MAIL)
        self.key = self.store.mailbox_key("INBOX")

    def fetch(
        self, uids: Sequence[int], items: Sequence[FetchItem] = ITEMS, key: int = 0
    ) -> FetchResult:
        return self.store.fetch(key or self.key, uids, items, BUDGET)

    def test_files_are_read_once(self) -> None:
        """A file is opened once for all items; later no file is opened, even after a restart."""
        with counting_calls("open") as calls:
            first = self.fetch([1, 2, 4])
        self.assertEqual(len(opened_messages(calls)), 3)
        self.store = self.open_store()
        self.store.mailboxes()
        with counting_calls("open") as calls:
            self.assertEqual(self.fetch([1, 2, 4]), first)
            self.assertEqual(
                self.fetch([4], [fields(b"FROM", b"subject")]).columns, [first.columns[4][2:]]
            )
        self.assertEqual(len(opened_messages(calls)), 0)
        with counting_calls("open") as calls:
            self.assertEqual(self.fetch([1, 2, 3, 4, 5]).columns[0][:2], first.columns[0][:2])
        self.assertEqual(len(opened_messages(calls)), 2)

    def test_cached_answers_are_copied_with_the_message(self) -> None:
        """COPY and MOVE copy the cached answers."""
        first = self.fetch([2, 4, 5])
        self.store.create("A", [])
        self.store.copy(self.key, [2, 4], "A", False, 0)
        self.store.copy(self.key, [5], "A", True, 0)
        with counting_calls("open") as calls:
            self.assertEqual(
                self.fetch([1, 2, 3], key=self.store.mailbox_key("A")).columns, first.columns
            )
        self.assertEqual(len(opened_messages(calls)), 0)

    def test_answers_of_scattered_messages_are_copied(self) -> None:
        """The answers of more messages than one statement copies, with gaps between them, are copied in order."""
        self.patch(fetch_cache, "_RUNS_PER_INSERT", 2)
        first = self.fetch([1, 2, 3, 4, 5])
        self.store.create("A", [])
        for uids in ([1, 2, 4], [1, 3, 5]):
            self.store.copy(self.key, uids, "A", False, 0)
        with counting_calls("open") as calls:
            copied = self.fetch([1, 2, 3, 4, 5, 6], key=self.store.mailbox_key("A"))
        self.assertEqual(len(opened_messages(calls)), 0)
        for column, original in zip(copied.columns, first.columns, strict=True):
            self.assertEqual(column, [original[uid - 1] for uid in (1, 2, 4, 1, 3, 5)])

    def test_cached_answers_are_removed_with_the_message(self) -> None:
        """The answers of a message are removed with the message, and with its mailbox."""
        self.fetch([1, 2, 3])
        self.store.store_flags(self.key, [2], b"+", [DELETED], None, 0)
        self.store.expunge(self.key, None, 0)
        fetched = self.fetch([1, 2, 3])
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([1, 3], [2]))
        self.store.create("A", [])
        self.store.copy(self.key, [1], "A", False, 0)
        self.store.delete("A")
        (cached,) = self.store._account.index.db.execute(
            "SELECT count(DISTINCT uid) FROM answer"
        ).fetchone()
        self.assertEqual(cached, 2)

    def test_field_lists_are_bounded(self) -> None:
        """Answers are cached for the most recently used lists of header fields, and not for very long lists."""
        lists = fetch_cache.MAX_FIELD_LISTS
        for i in range(lists + 5):
            self.clock.offset += 10
            self.fetch([1], [fields(b"X-%d" % i)])
        self.fetch([1], [fields(*(b"X-Very-Long-%d" % i for i in range(100)))])
        db = self.store._account.index.db
        names = [name for (name,) in db.execute("SELECT text FROM item ORDER BY used")]
        version = ANSWER_VERSION
        expected = [b"HEADER.FIELDS x-%d/%d" % (i, version) for i in range(5, lists + 5)]
        self.assertEqual(names, expected)
        self.assertEqual(db.execute("SELECT count(*) FROM answer").fetchone(), (lists,))

    def test_cached_answers_count_towards_the_budget(self) -> None:
        """A result has cached answers to as few messages as use up the budget, also if some answers are not cached."""
        for _ in range(30):
            self.append()
        uids = range(1, 36)
        self.assertEqual(len(self.fetch(uids).uids), 35)
        for items in (self.ITEMS, (*self.ITEMS, Attribute(b"EMAILID"))):
            for budget in (1, 1000, 5000):
                fetched = self.store.fetch(self.key, uids, items, budget)
                rows = [sum(map(len, row)) for row in zip(*fetched.columns[:5], strict=True)]
                if items == self.ITEMS:
                    self.assertGreaterEqual(sum(rows), budget)
                self.assertLess(sum(rows[:-1]), budget)

    def test_result_of_many_large_cached_answers(self) -> None:
        """The memory of a result depends on the budget, and not on how much is cached; all messages are answered."""
        names = [b"X-Big", *(b"X-%d" % i for i in range(8))]
        mail = b"X-Big: " + b"\r\n ".join([b"a" * 900] * 66) + b"\r\n\r\nbody\r\n"
        uids = [self.append(content=mail) for _ in range(40)]
        items: list[FetchItem] = [fields(b"X-Big", name) for name in names]
        largest = len(items) * (len(mail) + 100)
        done = 0
        while done < len(uids):
            done += self.fetch(uids[done:], items).count
        more: list[FetchItem] = [*items, Attribute(b"EMAILID")]
        for wanted in (items, more, [fields(b"X-Big", b"x-1")]):
            self.store.fetch(self.key, uids[:1], wanted, 1)
            done = 0
            while done < len(uids):
                with traced_peak() as peak:
                    fetched = self.store.fetch(self.key, uids[done:], wanted, 1 << 16)
                self.assertLess(sum(map(len, fetched.columns[0])), (1 << 16) + largest)
                self.assertLess(peak[0], 4 * (1 << 20) + largest)
                self.assertGreater(fetched.count, 0)
                done += fetched.count

    def test_result_of_many_lists_of_the_same_fields(self) -> None:
        """A cached answer is in memory once, also if an item has it in many orders of its fields."""
        self.append(content=b"X-Big: " + b"\r\n ".join([b"a" * 900] * 60) + b"\r\n\r\nbody\r\n")
        names = (b"X-Big", *(b"X-%d" % i for i in range(6)))
        items: list[FetchItem] = [fields(*order) for order in islice(permutations(names), 200)]
        self.fetch([6], items[:1])
        with traced_peak() as peak:
            fetched = self.fetch([6], items)
        self.assertEqual(len({value for (value,) in fetched.columns}), 1)
        self.assertLess(peak[0], 1 << 20)

    def test_search_of_many_large_cached_envelopes(self) -> None:
        """SEARCH has few large cached answers in memory at the same time, and finds everything in some calls."""
        mail = b"From: ann@example.org\r\nTo: " + b",\r\n ".join([b"a" * 60 + b"@b"] * 700)
        uids = [self.append(content=mail + b"\r\n\r\nbody\r\n") for _ in range(128)]
        done = 0
        while done < len(uids):
            done += self.fetch(uids[done:], [ENVELOPE]).count
        key, rest, matching = EnvelopeKey(b"FROM", "ann"), uids, list[int]()
        while rest:
            with traced_peak() as peak:
                result = self.store.search(self.key, rest, key)
            self.assertLess(peak[0], 5 << 20)
            matching += result.matching
            rest = [] if result.examined is None else rest[result.examined :]
        self.assertEqual(matching, uids)


class VersionTests(DiskTestCase):
    """Answers that another version of imapshield has cached."""

    ITEMS = (ENVELOPE, STRUCTURE)

    def setUp(self) -> None:
        super().setUp()
        for _ in range(6):
            self.append()
        self.key = self.store.mailbox_key("INBOX")
        with mock.patch.object(fetch_cache, "_VERSION", b"/0"):
            self.fetch()
            self.store.search(self.key, range(1, 7), HeaderKey(b"SUBJECT", "x"))
        self.store = self.open_store()
        self.store.mailboxes()
        self.db = self.store._account.index.db
        self.db.execute("UPDATE answer SET value = x'6f6c64'")

    def fetch(self, first: int = 1, end: int = 7) -> list[list[bytes | Blob]]:
        return self.store.fetch(self.key, range(first, end), self.ITEMS, BUDGET).columns

    def old_answers(self) -> list[int]:
        """Return the UIDs of the answers of the other version."""
        query = (
            "SELECT uid FROM answer JOIN item ON item = item.id WHERE substr(text, -2) = x'2f30'"
        )
        return [uid for (uid,) in self.db.execute(query)]

    def test_answers_of_another_version_are_not_used(self) -> None:
        """Answers of another version are neither returned, nor searched, nor copied."""
        self.store.create("A", ())
        old = len(self.old_answers())
        self.store.copy(self.key, range(1, 7), "A", False, 0)
        self.assertEqual(len(self.old_answers()), old)
        for column in self.fetch():
            self.assertNotIn(b"old", column)
        found = self.store.search(self.key, range(1, 7), HeaderKey(b"SUBJECT", "old"))
        self.assertEqual(found.matching, [])

    def test_answers_of_another_version_are_removed_a_few_at_a_time(self) -> None:
        """Whenever answers are added, a few answers of another version are removed, until the last item is gone."""
        before = self.old_answers()
        with mock.patch.object(fetch_cache, "MAX_REMOVED_ANSWERS", len(before) - 2):
            self.fetch(1, 2)
            self.assertEqual(len(self.old_answers()), 2)
            self.fetch(1, 2)  # adds nothing
            self.assertEqual(len(self.old_answers()), 2)
            self.fetch(2, 3)
        items = [text for (text,) in self.db.execute("SELECT text FROM item ORDER BY text")]
        version = ANSWER_VERSION
        self.assertEqual(items, [b"BODYSTRUCTURE/%d" % version, b"ENVELOPE/%d" % version])
        self.assertEqual(self.db.execute("SELECT count(*) FROM answer").fetchone(), (4,))

    def test_answers_of_another_version_are_expunged_with_the_message(self) -> None:
        """EXPUNGE removes the answers of every version."""
        self.store.store_flags(self.key, [3], b"+", [DELETED], None, 0)
        self.store.expunge(self.key, None, 0)
        self.assertNotIn(3, self.old_answers())
