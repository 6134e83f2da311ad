"""SEARCH reads the headers of each message once, and does not find messages without a file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import date

from imapshield.testing.store_contract import SECOND_MAIL
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
