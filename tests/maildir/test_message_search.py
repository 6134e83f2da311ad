"""SEARCH reads the headers of each message once, and does not find messages without a file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import date

from imapshield.maildir import mailbox_status, message_search
from imapshield.testing.store_contract import MAIL, SECOND_MAIL, STRUCTURE
from imapshield.wire.commands.search import DateKey, EnvelopeKey, HeaderKey, SearchKey, TextKey
from tests.maildir.disk import DiskTestCase, counting_calls, opened_messages


class MessageSearchTests(DiskTestCase):
    def search(self, search_key: SearchKey, *uids: int) -> list[int]:
        return self.store.search(self.store.mailbox_key("INBOX"), uids, search_key).matching

    def test_headers_are_read_once(self) -> None:
        """The first search of a field reads each header; later searches, even of other fields, read no file."""
        for _ in range(3):
            self.append()
        self.assertEqual(self.search(EnvelopeKey(b"FROM", "ann"), 1, 2, 3), [1, 2, 3])
        self.append(content=SECOND_MAIL)
        with counting_calls("open") as calls:
            self.assertEqual(self.search(EnvelopeKey(b"SUBJECT", "café"), 1, 2, 3, 4), [4])
        self.assertEqual(len(opened_messages(calls)), 1)
        with counting_calls("open") as calls:
            sent = DateKey(b"ON", date(2023, 11, 13), b"SENT")
            self.assertEqual(self.search(sent, 1, 3), [1, 3])
            self.assertEqual(self.search(EnvelopeKey(b"TO", "x")), [])
        self.assertEqual(opened_messages(calls), [])

    def test_one_call_reads_a_limited_amount(self) -> None:
        """A search stops when it has read much, and says how far it came; together, the calls find everything."""
        self.patch(message_search, "MAX_BODY_BYTES", 2 * len(SECOND_MAIL))
        self.patch(message_search, "MAX_HEADER_BYTES", 1)
        self.patch(message_search, "MIN_COUNTED_BYTES", 1)
        for i in range(7):
            self.append(content=SECOND_MAIL.replace(b"Subject:", b"Subject: %d" % (i % 2)))
        key, uids = self.store.mailbox_key("INBOX"), [1, 2, 3, 4, 5, 6, 7]
        self.search(EnvelopeKey(b"FROM", "zoe"), 3, 6)  # now the index has the fields of the first
        keys: list[tuple[SearchKey, list[int], int]] = [
            (TextKey("a", True), uids, 4),
            (HeaderKey(b"X-None", ""), [], 7),
            (EnvelopeKey(b"SUBJECT", "1 "), [2, 4, 6], 6),
        ]
        for search_key, expected, calls in keys:
            rest, matching, count = uids, list[int](), 0
            while rest:
                result = self.store.search(key, rest, search_key)
                matching += result.matching
                rest = [] if result.examined is None else rest[result.examined :]
                count += 1
            self.assertEqual((matching, count), (expected, calls), search_key)

    def test_one_call_reads_a_limited_number_of_headers(self) -> None:
        """Short headers count as longer ones, so that one call does not open thousands of files."""
        self.patch(message_search, "MAX_HEADER_BYTES", 2 * message_search.MIN_COUNTED_BYTES)
        for _ in range(4):
            self.append(content=b"From: ann\r\n\r\n")
        key = self.store.mailbox_key("INBOX")
        with counting_calls("open") as calls:
            result = self.store.search(key, [1, 2, 3, 4], HeaderKey(b"X-None", ""))
        self.assertEqual((result.examined, len(opened_messages(calls))), (2, 2))

    def test_one_call_measures_a_limited_amount(self) -> None:
        """A call stops measuring when it has read much, and says how far it came."""
        self.patch(mailbox_status, "MAX_MEASURED_AT_ONCE", 1)
        for _ in range(3):
            self.deliver()
        key = self.store.open("INBOX", False).key
        self.assertEqual(self.store.sizes(key, [1, 2, 3])[1:], ([], 1))
        self.assertEqual([uid for uid, _ in self.store.sizes(key, [1, 2, 3]).sizes], [1, 2])

    def test_one_fetch_reads_a_limited_amount(self) -> None:
        """A FETCH of something small from large messages stops when it has read much."""
        for _ in range(4):
            self.append(content=MAIL + b"x" * 100_000)
        key = self.store.mailbox_key("INBOX")
        fetched = self.store.fetch(key, [1, 2, 3, 4], [STRUCTURE], 20_000)
        self.assertEqual(fetched.uids, [1, 2])

    def test_values_of_an_older_index_are_not_used(self) -> None:
        """Values that an older version cached under another name, with comments, are not used."""
        self.append()
        key = self.store.mailbox_key("INBOX")
        with closing(sqlite3.connect(os.path.join(self.root, "imapshield.sqlite"))) as db:
            db.execute("INSERT INTO item (id, text) VALUES (77, ?)", (b"?FROM",))
            db.execute("INSERT INTO answer VALUES (?, 77, 1, ?)", (key, b"\0old (comment)"))
            db.commit()
        for kind in (EnvelopeKey, HeaderKey):
            self.assertEqual(self.search(kind(b"FROM", "comment"), 1), [])
            self.assertEqual(self.search(kind(b"FROM", "ann"), 1), [1])

    def test_message_with_a_missing_file_matches_nothing(self) -> None:
        """A message without a file matches nothing, and the other messages are searched."""
        for _ in range(3):
            self.append()
        key = self.store.mailbox_key("INBOX")
        os.unlink(self.path("cur", self.cur()[1]))
        for leaf in (EnvelopeKey(b"FROM", "ann"), HeaderKey(b"X-None", ""), TextKey("noon")):
            self.assertNotIn(2, self.search(leaf, 1, 2, 3))
        self.assertEqual([uid for uid, _ in self.store.sizes(key, [1, 2, 3]).sizes], [1, 2, 3])
