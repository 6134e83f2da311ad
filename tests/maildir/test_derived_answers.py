"""Answers are made from other cached answers, and from the header of a file alone."""

from __future__ import annotations

from datetime import date
from unittest import mock

from imapshield.mailbox.in_place import WouldBlock, call_in_place
from imapshield.mailbox.message_items import RECORD_FIELDS
from imapshield.mailbox.values import FetchResult
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.message_file import MessageFiles
from imapshield.message.ordinary import ENVELOPE_FIELDS
from imapshield.testing.store_contract import (
    BUDGET,
    ENVELOPE,
    MAIL,
    SECOND_MAIL,
)
from imapshield.wire.commands.fetch import BodySection, FetchItem, Section
from imapshield.wire.commands.search import DateKey, EnvelopeKey, HeaderKey, SearchKey
from tests.maildir.disk import DiskTestCase, counting_calls, fields, opened_messages


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
