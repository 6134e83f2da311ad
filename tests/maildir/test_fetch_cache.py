"""Answers that never change are computed once, and cached as long as the message exists."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import islice, permutations
from unittest import mock

from imapshield.mailbox.in_place import WouldBlock, call_in_place
from imapshield.mailbox.message_items import ANSWER_VERSION, RECORD_FIELDS
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.maildir import fetch_cache
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.message_file import MessageFiles
from imapshield.message.ordinary import ENVELOPE_FIELDS
from imapshield.testing.store_contract import (
    BUDGET,
    DELETED,
    ENVELOPE,
    MAIL,
    SECOND_MAIL,
    STRUCTURE,
    WHOLE,
)
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Attribute, BodySection, FetchItem, Preview, Section
from imapshield.wire.commands.search import DateKey, EnvelopeKey, HeaderKey, SearchKey
from tests.maildir.disk import DiskTestCase, counting_calls, opened_messages


def fields(*names: bytes) -> BodySection:
    return BodySection(Section((), b"HEADER.FIELDS", names), True)


@contextmanager
def traced_peak() -> Iterator[list[int]]:
    """Yield a list that gets the most bytes of memory that the block has taken at the same time."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


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


class DerivedAnswerTests(DiskTestCase):
    """Answers are made from other answers, without the file."""

    SEARCHES: tuple[SearchKey, ...] = (
        *(EnvelopeKey(field, "o") for field in (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT")),
        *(HeaderKey(field, "o") for field in (b"FROM", b"SUBJECT", b"MESSAGE-ID")),
        DateKey(b"SINCE", date(2023, 11, 13), b"SENT"),
    )

    def setUp(self) -> None:
        super().setUp()
        for i in range(4):
            self.append(content=MAIL if i % 2 else SECOND_MAIL)
        self.key = self.store.mailbox_key("INBOX")
        self.uids = [1, 2, 3, 4]

    def fetch(self, *items: FetchItem) -> FetchResult:
        return self.store.fetch(self.key, self.uids, items, BUDGET)

    def search(self, search_key: SearchKey) -> list[int]:
        return self.store.search(self.key, self.uids, search_key).matching

    def answers(self) -> list[object]:
        """Return the answers to what is usually asked of headers."""
        fetched: list[object] = [
            self.fetch(item)
            for item in (ENVELOPE, fields(b"From", b"DATE"), fields(b"References", b"To"))
        ]
        return fetched + [self.search(key) for key in self.SEARCHES]

    def forget(self) -> None:
        """Forget all cached answers."""
        with self.store._account.index.write() as db:
            db.execute("DELETE FROM answer")

    def test_one_search_reads_for_all(self) -> None:
        """After one search, ENVELOPE, usual fields and other searches open no file, and are the same."""
        expected = self.answers()
        self.forget()
        self.search(EnvelopeKey(b"FROM", "x"))
        with counting_calls("open") as calls:
            self.assertEqual(self.answers(), expected)
        self.assertEqual(opened_messages(calls), [])

    def test_envelopes_are_searched(self) -> None:
        """After ENVELOPE, the searches of what ENVELOPE shows open no file, and find the same."""
        keys = self.SEARCHES[:5]
        self.uids = [2, 4]  # the name in the others is a literal
        expected = [self.search(key) for key in keys]
        self.forget()
        self.fetch(ENVELOPE)
        with counting_calls("open") as calls:
            self.assertEqual([self.search(key) for key in keys], expected)
        self.assertEqual(opened_messages(calls), [])

    def test_fields_are_searched_and_sorted(self) -> None:
        """After a list of fields, a search for one of them, and one of them alone, open no file."""
        expected = self.search(HeaderKey(b"SUBJECT", "o")), self.fetch(fields(b"from"))
        self.forget()
        self.fetch(fields(b"Date", b"From", b"Subject", b"X-Other"))
        with counting_calls("open") as calls:
            found = self.search(HeaderKey(b"SUBJECT", "o")), self.fetch(fields(b"from"))
        self.assertEqual((found, opened_messages(calls)), (expected, []))

    def test_fields_with_nul_are_read_again(self) -> None:
        """FETCH sends another byte in place of a NUL, so ENVELOPE, which sends U+FFFD, is not made from that."""
        self.append(content=b"Subject: a\0b\r\n\r\n")
        self.uids = [5]
        self.fetch(fields(b"Subject", *map(bytes, sorted(RECORD_FIELDS))))
        self.assertIn(b"a\xef\xbf\xbdb", self.fetch(ENVELOPE).columns[0][0])

    def test_fields_beyond_the_limit_are_not_searched(self) -> None:
        """SEARCH reads half a mebibyte of a header, also if HEADER.FIELDS has found a field behind that."""
        self.append(content=b"X: " + b"x" * (1 << 19) + b"\r\nSubject: far\r\n\r\n")
        self.uids = [5]
        self.assertIn(b"far", self.fetch(fields(b"Subject")).columns[0][0])
        self.assertEqual(self.search(HeaderKey(b"SUBJECT", "far")), [])

    def test_cached_headers_use_up_the_budget(self) -> None:
        """A call makes no more answers from cached headers than it makes from those in files: both are parsed."""
        for _ in range(20):
            self.append(content=b"To: a@b\r\nCc: " + b" " * 30_000 + b"\r\n\r\n")
        self.uids = list(range(5, 25))
        counts = []
        for _ in range(2):
            fetched = self.store.fetch(self.key, self.uids, [ENVELOPE], 20_000)
            counts.append(len(fetched.uids))
            self.forget()
            self.fetch(fields(b"X-Other", *ENVELOPE_FIELDS))
        self.assertEqual(counts[1], counts[0])
        self.assertLess(counts[0], 10)

    def test_header_that_is_not_needed_is_not_counted(self) -> None:
        """A message whose answers are cached uses up the budget only by their size, although its header is cached."""
        self.append(content=b"To: a@b\r\nCc: " + b" " * 30_000 + b"\r\n\r\n")
        self.append(content=MAIL)
        self.uids = [5]
        self.fetch(ENVELOPE)
        self.uids = [5, 6]
        self.fetch(fields(b"X-Other", *ENVELOPE_FIELDS))
        fetched = self.store.fetch(self.key, [5, 6], [ENVELOPE], 2_000)
        self.assertEqual(fetched.uids, [5, 6])

    def test_cached_headers_are_read_in_a_thread(self) -> None:
        """A call in place reads no cached headers to answer from them: there can be many large ones."""
        self.fetch(fields(b"Subject"))
        self.forget()
        self.fetch(fields(b"Subject", b"X-Other"))
        with (
            mock.patch.object(FetchCache, "headers") as headers,
            self.assertRaises(WouldBlock),
        ):
            call_in_place(lambda: self.fetch(fields(b"Subject")), lambda: None)
        headers.assert_not_called()

    def test_name_with_a_space_is_no_two_names(self) -> None:
        """A list that has a name with a space has an answer of its own."""
        self.assertNotIn(b"Subject", self.fetch(fields(b"from subject")).columns[0][0])
        self.assertIn(b"Subject", self.fetch(fields(b"from", b"subject")).columns[0][0])


class SmallHeaderTests(DiskTestCase):
    """The header is read alone if the file is as the index has it."""

    def test_header_equals_that_of_the_whole_message(self) -> None:
        """ENVELOPE and all fields are the same for files with LF, CRLF and both, in whatever way they are read."""
        contents = [
            MAIL,
            MAIL.replace(b"\r\n", b"\n"),
            b"A: b\n\r\nc\n\nd",
            b"\n",
            b"",
            b"A: b",
            b"A: b\r\r\n\r\nx",
        ]
        contents.append(b"X: " + b"y" * 9000 + b"\r\n\r\n")
        contents += [content + b"z" * 9000 for content in contents]
        for i, content in enumerate(contents):
            self.append(content=content)
            self.deliver(content, name=f"{1800000000 + i}.mx")
        key = self.store.mailbox_key("INBOX")
        self.store.changes(key, 0, False)
        uids = range(1, 2 * len(contents) + 1)
        items = (BodySection(Section((), b"HEADER")), ENVELOPE)
        found = self.store.fetch(key, uids, items, 1 << 30)
        with self.store._account.index.write() as db:
            db.execute("DELETE FROM answer")
        with mock.patch.object(MessageFiles, "small_header", return_value=None):
            expected = self.store.fetch(key, uids, items, 1 << 30)
        self.assertEqual(found, expected)
        self.assertEqual(len(found.uids), len(uids))

    def test_file_that_was_changed_is_read_whole(self) -> None:
        """A message that was stored with LF, and whose file has grown, is converted, as for all other items."""
        self.append(content=b"A: b\n\nbody\n")
        with open(self.path("cur", *self.cur()), "ab") as file:
            file.write(b"more")
        key = self.store.mailbox_key("INBOX")
        found = self.store.fetch(key, [1], [BodySection(Section((), b"HEADER"))], BUDGET)
        self.assertEqual(found.columns, [[b"{8}\r\nA: b\r\n\r\n"]])


class BlobTests(DiskTestCase):
    def test_header_with_line_feeds(self) -> None:
        """The header of a large message that a client has stored with LF line ends is only its header."""
        head = b"Subject: large\nX-Filler: %b\n\n" % (b"x" * 70_000)
        self.append(content=head + b"To: me\n\n" + b"word\n" * 60_000)
        item = BodySection(Section((), b"HEADER"))
        fetched = self.store.fetch(self.store.mailbox_key("INBOX"), [1], [item], BUDGET)
        self.assertEqual(fetched.columns, [[strings.literal(head)]])

    def test_large_string_is_a_blob(self) -> None:
        """A large string is a Blob, also if the file has LF line ends and was not measured."""
        self.deliver(b"Subject: large\n\n" + b"word\n" * 60_000)
        key = self.store.open("INBOX", True).key
        head, body = b"Subject: large\r\n\r\n", b"word\r\n" * 60_000
        for item, content in (
            (WHOLE, head + body),
            (BodySection(Section((), b"TEXT")), body),
            (BodySection(Section(), partial=(5, 300_000)), (head + body)[5:300_005]),
        ):
            blob = self.store.fetch(key, [1], [item], BUDGET).columns[0][0]
            assert isinstance(blob, Blob)
            self.assertEqual(blob.size, len(content))
            chunks = [
                self.store.read(key, 1, item, offset, 100_000)
                for offset in range(0, blob.size, 100_000)
            ]
            self.assertTrue(b"".join(chunks) == content, item)
            account = self.store._account
            self.assertEqual(account.large_messages.file_count(account), 0)

    def test_many_pieces_of_one_message(self) -> None:
        """The pieces of one message that are in memory have a limit together; the other pieces are Blobs."""
        content = b"Subject: %b\r\n\r\n" % (b"x" * 7000) + b"word\r\n" * 10_000
        self.append(content=content)
        key = self.store.mailbox_key("INBOX")
        names = [b"X-%d" % i for i in range(300)]
        pieces: list[FetchItem] = [BodySection(Section(), partial=(i, 50_000)) for i in range(300)]
        headers: list[FetchItem] = [fields(b"Subject", name) for name in names]
        for items, parts in (
            (pieces, [content[i : i + 50_000] for i in range(300)]),
            (headers, [content[:7013]] * 300),
        ):
            self.store.fetch(key, [1], items[:1], BUDGET)
            with traced_peak() as peak:
                fetched = self.store.fetch(key, [1], items, 1)
            self.assertLess(peak[0], 2 << 20)
            for (value,), item, part in zip(fetched.columns, items, parts, strict=True):
                if isinstance(value, Blob):
                    self.assertEqual((value.item, value.size), (item, len(part)))
                else:
                    self.assertEqual(value, strings.literal(part))
            self.assertIsInstance(value, Blob)
            self.assertEqual(self.store.read(key, 1, item, 0, len(part)), part)

    def test_some_pieces_of_one_message(self) -> None:
        """As many of the largest strings as a client usually asks for are in memory, and small ones in any case."""
        self.append(content=b"x" * 300_000)
        key = self.store.mailbox_key("INBOX")
        sizes = [260_000] * 6 + [90] * 20
        items = [BodySection(Section(), partial=(i, size)) for i, size in enumerate(sizes)]
        kinds = [type(value) for (value,) in self.store.fetch(key, [1], items, BUDGET).columns]
        self.assertEqual(kinds, [bytes] * 4 + [Blob] * 2 + [bytes] * 20)
