"""Answers that do not change are found out once and kept for as long as the message is there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import date

from imapshield.errors import StoreLimitExceeded
from imapshield.mailbox.values import Blob
from imapshield.maildir import account_state, fetch_cache, folders, store
from imapshield.maildir.message_fetch import STEP
from imapshield.testing.store_contract import (
    BUDGET,
    DELETED,
    ENVELOPE,
    MAIL,
    SECOND_MAIL,
    STRUCTURE,
    WHOLE,
)
from imapshield.wire.commands.fetch import Attribute, BodySection, Preview, Section
from imapshield.wire.commands.search_keys import DateKey, EnvelopeKey, HeaderKey, TextKey
from tests.maildir.disk import DiskTestCase, counted


def fields(*names: bytes) -> BodySection:
    return BodySection(Section((), b"HEADER.FIELDS", names), True)


class KeptTests(DiskTestCase):
    ITEMS = (ENVELOPE, STRUCTURE, Attribute(b"BODY"), Preview(), fields(b"Subject", b"From"))

    def setUp(self) -> None:
        super().setUp()
        for i in range(5):
            self.put(content=MAIL if i % 2 else SECOND_MAIL)
        self.key = self.store.key("INBOX")

    def opened(self, calls: list) -> int:
        return len([path for path, *_ in calls if b"/cur/" in path])

    def fetch(self, uids, items=ITEMS, key=None):
        return self.store.fetch(key or self.key, uids, items, BUDGET)

    def test_files_are_read_once(self) -> None:
        """One open file serves all items; the second time no file is opened, also after a restart."""
        with counted("open") as calls:
            first = self.fetch([1, 2, 4])
        self.assertEqual(self.opened(calls), 3)
        self.store = self.open_store()
        self.store.mailboxes()
        with counted("open") as calls:
            self.assertEqual(self.fetch([1, 2, 4]), first)
            self.assertEqual(
                self.fetch([4], [fields(b"FROM", b"subject")]).columns, [first.columns[4][2:]]
            )
        self.assertEqual(self.opened(calls), 0)
        with counted("open") as calls:
            self.assertEqual(self.fetch([1, 2, 3, 4, 5]).columns[0][:2], first.columns[0][:2])
        self.assertEqual(self.opened(calls), 2)

    def test_copied_with_the_message(self) -> None:
        """COPY and MOVE take answers along."""
        first = self.fetch([2, 4, 5])
        self.store.create("A", [])
        self.store.copy(self.key, [2, 4], "A", False, 0)
        self.store.copy(self.key, [5], "A", True, 0)
        with counted("open") as calls:
            self.assertEqual(self.fetch([1, 2, 3], key=self.store.key("A")).columns, first.columns)
        self.assertEqual(self.opened(calls), 0)

    def test_gone_with_the_message(self) -> None:
        """With its message an answer goes."""
        self.fetch([1, 2, 3])
        self.store.store_flags(self.key, [2], b"+", [DELETED], None, 0)
        self.store.expunge(self.key, None, 0)
        fetched = self.fetch([1, 2, 3])
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([1, 3], [2]))
        self.store.create("A", [])
        self.store.copy(self.key, [1], "A", False, 0)
        self.store.delete("A")
        (left,) = self.store._index.db.execute("SELECT count(DISTINCT uid) FROM answer").fetchone()
        self.assertEqual(left, 2)

    def test_lists_are_bounded(self) -> None:
        """Answers are kept for the header lists used last, and for no list of absurd length."""
        for i in range(fetch_cache.LISTS + 5):
            self.clock.later += 10
            self.fetch([1], [fields(b"X-%d" % i)])
        self.fetch([1], [fields(*(b"X-Very-Long-%d" % i for i in range(100)))])
        db = self.store._index.db
        texts = [text for (text,) in db.execute("SELECT text FROM item ORDER BY used")]
        self.assertEqual(
            texts, [b"HEADER.FIELDS x-%d" % i for i in range(5, fetch_cache.LISTS + 5)]
        )
        self.assertEqual(db.execute("SELECT count(*) FROM answer").fetchone(), (fetch_cache.LISTS,))

    def test_budget_of_kept_answers(self) -> None:
        """The budget counts for kept answers as well."""
        for _ in range(300):
            self.put()
        uids = range(1, 306)
        self.fetch(uids)
        short = self.store.fetch(self.key, uids, self.ITEMS, 1000)
        self.assertEqual(len(short.uids), STEP)

    def test_size_decides(self) -> None:
        """A string over the limit is a Blob in a file with LF too, and in one that nobody measured."""
        self.deliver(b"Subject: large\n\n" + b"word\n" * 60_000)
        self.store.open("INBOX", True)
        head, body = b"Subject: large\r\n\r\n", b"word\r\n" * 60_000
        for item, wanted in (
            (WHOLE, head + body),
            (BodySection(Section((), b"TEXT")), body),
            (BodySection(Section(), partial=(5, 300_000)), (head + body)[5:300_005]),
        ):
            blob = self.fetch([6], [item]).columns[0][0]
            self.assertIsInstance(blob, Blob)
            self.assertEqual(blob.size, len(wanted))
            pieces = [
                self.store.read(self.key, 6, item, at, 100_000)
                for at in range(0, blob.size, 100_000)
            ]
            self.assertTrue(b"".join(pieces) == wanted, item)
            self.assertIsNone(self.store._fetching._held)


class SearchTests(DiskTestCase):
    def test_headers_are_read_once(self) -> None:
        """The first search of a field reads each header; later ones, of the other fields too, read none."""
        for _ in range(3):
            self.put()
        key = self.store.key("INBOX")
        self.assertEqual(self.store.search(key, [1, 2, 3], EnvelopeKey(b"FROM", "ann")), [1, 2, 3])
        self.put(content=SECOND_MAIL)
        with counted("open") as calls:
            self.assertEqual(
                self.store.search(key, [1, 2, 3, 4], EnvelopeKey(b"SUBJECT", "café")), [4]
            )
        self.assertEqual(len([path for path, *_ in calls if b"/cur/" in path]), 1)
        with counted("open") as calls:
            self.assertEqual(
                self.store.search(key, [1, 3], DateKey(b"ON", date(2023, 11, 13), b"SENT")), [1, 3]
            )
            self.assertEqual(self.store.search(key, [], EnvelopeKey(b"TO", "x")), [])
        self.assertEqual(calls, [])

    def test_older_index(self) -> None:
        """What an index holds under the name of the rule before, which found comments too, is not looked at."""
        self.put()
        key = self.store.key("INBOX")
        with closing(sqlite3.connect(os.path.join(self.root, "imapshield.sqlite"))) as db:
            db.execute("INSERT INTO item (id, text) VALUES (77, ?)", (b"?FROM",))
            db.execute("INSERT INTO answer VALUES (?, 77, 1, ?)", (key, b"\0old (comment)"))
            db.commit()
        for kind in (EnvelopeKey, HeaderKey):
            self.assertEqual(self.store.search(key, [1], kind(b"FROM", "comment")), [])
            self.assertEqual(self.store.search(key, [1], kind(b"FROM", "ann")), [1])

    def test_gone(self) -> None:
        """A message whose file is gone matches nothing and disturbs nobody."""
        for _ in range(3):
            self.put()
        key = self.store.key("INBOX")
        os.unlink(self.path("cur", self.cur()[1]))
        for leaf in (EnvelopeKey(b"FROM", "ann"), HeaderKey(b"X-None", ""), TextKey("noon")):
            self.assertNotIn(2, self.store.search(key, [1, 2, 3], leaf))
        self.assertEqual([uid for uid, _ in self.store.sizes(key, [1, 2, 3])], [1, 2, 3])


class BoundTests(DiskTestCase):
    def test_keywords(self) -> None:
        """A mailbox takes a thousand keywords and no more."""
        self.patch(account_state, "KEYWORDS", 30)
        self.put(*(b"k%d" % i for i in range(30)))
        self.assertRaises(StoreLimitExceeded, self.put, b"one-more")
        key = self.store.key("INBOX")
        self.assertRaises(
            StoreLimitExceeded, self.store.store_flags, key, [1], b"+", [b"one-more"], None, 0
        )
        self.assertEqual(len(self.flags()[1].split()), 30)
        self.assertEqual(self.put(b"K3"), 2)

    def test_flags_of_a_message(self) -> None:
        """A message takes four KiB of flags and no more, however they come; fewer is always possible."""
        words = [b"k%02d" % i + b"x" * 100 for i in range(60)]
        key = self.store.key("INBOX")
        self.assertRaises(StoreLimitExceeded, self.put, *words)
        self.put(*words[:30])
        for op, some in ((b"+", words[30:]), (b"", words)):
            self.assertRaises(
                StoreLimitExceeded, self.store.store_flags, key, [1], op, some, None, 0
            )
        self.patch(account_state, "FLAG_OCTETS", 100)
        self.store.store_flags(key, [1], b"-", words[:1], None, 0)
        self.assertEqual(len(self.flags()[1].split()), 29)

    def test_mailboxes_and_subscriptions(self) -> None:
        """An account has so many mailboxes and subscriptions and no more."""
        self.patch(folders, "MAILBOXES", 3)
        self.patch(folders, "SUBSCRIPTIONS", 1)
        self.assertRaises(StoreLimitExceeded, self.store.create, "A/B/C", [])
        self.store.create("A/B", [])
        self.store.set_subscribed("A", True)
        self.assertRaises(StoreLimitExceeded, self.store.set_subscribed, "B", True)
        self.assertEqual(len(self.store.mailboxes()), 3)

    def test_status_of_unmeasured(self) -> None:
        """STATUS measures a little, and of much tells an upper bound, as RFC 8438 permits."""
        content = MAIL.replace(b"\r\n", b"\n")
        self.deliver(content)
        self.deliver(content)
        self.patch(store, "MEASURED_FOR_STATUS", len(content))
        self.assertEqual(self.store.status("INBOX").size, 4 * len(content))
        self.store.sizes(self.store.key("INBOX"), [1])
        self.assertEqual(self.store.status("INBOX").size, 2 * len(MAIL))
