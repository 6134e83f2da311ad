"""SEARCH TEXT and BODY find the same messages with the text index, without it, and whatever happened to it."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from unittest import mock

from benchmarks.text_search import matching, normalized_texts, random_needle
from imapshield.errors import StoreBusy
from imapshield.mailbox.values import Blob, NewMessage, TextStep
from imapshield.maildir import (
    message_search,
    sqlite_file,
    text_index,
    text_index_file,
    text_search,
)
from imapshield.maildir.fetch_cache import RECORD
from imapshield.message import trigrams
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import Attribute, BodySection, FetchItem, Preview, Section
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey, TextKey
from tests.maildir.disk import counting_calls, opened_messages
from tests.maildir.text_index_case import CONTENTS, FILE, TextIndexTestCase


class AnswerTests(TextIndexTestCase):
    """The indexing of text also makes the answers to FETCH that clients usually ask for."""

    FIELDS = BodySection(Section((), b"HEADER.FIELDS", (b"X-Other",)), peek=True)
    OTHER = BodySection(Section((), b"HEADER.FIELDS", (b"X-Unusual",)), peek=True)
    ITEMS = (Attribute(b"ENVELOPE"), Attribute(b"BODYSTRUCTURE"), Preview(), FIELDS)

    def fetch(self, uid: int, items: tuple[FetchItem, ...] = ITEMS) -> list[list[bytes | Blob]]:
        key = self.store.mailbox_key("INBOX")
        return self.store.fetch(key, [uid], items, 1 << 20).columns

    def test_message_is_read_once(self) -> None:
        """After the indexing no item that clients have asked for opens a file, and the answers are the same."""
        uids = self.add_many()
        self.fetch(uids[0], (*self.ITEMS, self.OTHER))
        expected = [self.fetch(uid) for uid in uids]
        with self.store._account.index.write() as db:
            db.execute("DELETE FROM answer")
            db.execute("UPDATE item SET used = 0 WHERE instr(text, ?)", (b"unusual",))
        with counting_calls("open") as calls:
            self.index()
        self.assertEqual(len(opened_messages(calls)), len(uids))
        key, db = self.store.mailbox_key("INBOX"), self.store._account.index.db
        with counting_calls("open") as calls:
            self.assertEqual([self.fetch(uid) for uid in uids], expected)
            for search_key in (EnvelopeKey(b"FROM", "senderb"), HeaderKey(b"FROM", "senderb")):
                self.assertEqual(self.store.search(key, uids, search_key).matching, [uids[1]])
        self.assertEqual(opened_messages(calls), [])
        items = db.execute("SELECT count(DISTINCT item) FROM answer JOIN item ON id = item")
        self.assertEqual(
            items.fetchone(), (len(self.ITEMS) + 1 + 2,)
        )  # the record, and two searches

    def test_nothing_is_asked_for(self) -> None:
        """In an account that no client has read, the record is all that is made."""
        self.add_many()
        self.index()
        rows = self.store._account.index.db.execute(
            "SELECT DISTINCT text FROM answer JOIN item ON id = item"
        ).fetchall()
        self.assertEqual([text.rpartition(b"/")[0] for (text,) in rows], [RECORD])


class ResultTests(TextIndexTestCase):
    def test_results_are_those_of_a_scan(self) -> None:
        """For 2,000 random texts, the candidates contain every message that has the text, and SEARCH returns these."""
        self.store.append("INBOX", [NewMessage((), None, MemoryLiteral(c)) for c in CONTENTS])
        self.index()
        uids = [row.uid for row in self.store.open("INBOX", False).delta.rows]
        key = self.store.mailbox_key("INBOX")
        known = {
            headers: [normalized_texts(c, headers) for c in CONTENTS] for headers in (True, False)
        }
        choose = random.Random("needles")
        narrowed = 0
        for number in range(2000):
            headers = choose.random() < 0.7
            wanted = random_needle(choose, known[headers])
            expected = matching(uids, known[headers], wanted)
            search_key = TextKey(wanted, headers)
            account = self.store._account
            account.folders.folder("INBOX")
            found, rest = text_search.candidates(account, key, uids, search_key, len(uids))
            self.assertIsNone(rest)
            self.assertEqual(set(expected) - set(found), set(), wanted)
            narrowed += len(found) < len(uids)
            if number % 20 == 0:
                self.assertEqual(self.search(wanted, headers=headers), expected, wanted)
        self.assertGreater(narrowed, 1000)

    def test_only_candidates_are_read(self) -> None:
        """A search reads the messages that have the text, and those that share a row of rare header fields."""
        uids = self.add_many(24)
        self.index()
        self.assertEqual(self.read_by("numberh"), 1)
        self.assertEqual(self.read_by("senderh"), 1)
        self.assertEqual(self.read_by("fieldh"), text_index_file.GROUP)
        self.assertEqual(self.read_by("fieldh", headers=False), 0)
        self.assertEqual(self.read_by("nowhere"), 0)
        self.assertEqual(self.search("FIELDH "), [])
        self.assertEqual(self.search("FIELDH"), [uids[7]])

    def test_blocks_of_a_mailbox_are_looked_up_once(self) -> None:
        """The candidates of a large mailbox are kept from its first block of messages to its last one."""
        uids = self.add_many(24)
        self.index()
        self.patch(text_search, "MANY_MESSAGES", 12)
        account, found = self.store._account, list[int]()
        key = self.store.mailbox_key("INBOX")
        for block, is_kept in ((uids[:12], True), (uids[12:], False)):
            search_key = TextKey("numberh", True)
            found += text_search.candidates(account, key, block, search_key, 24)[0]
            self.assertIs(account.text_index._candidates is not None, is_kept)
        self.assertEqual(found, [uids[7]])

    def test_too_many_candidates_are_none(self) -> None:
        """If more rows have the text than a search may find, all messages are read, with the same result."""
        uids = self.add_many(24)
        self.index()
        self.patch(text_index, "MAX_CANDIDATES", 4)
        self.assertEqual(self.read_by("numberh"), 1)
        self.assertEqual(self.read_by("number"), 24)
        self.assertEqual(self.search("number"), uids)

    def test_short_texts_are_searched_in_all_messages(self) -> None:
        """The index cannot answer texts of less than three characters, or of several lines."""
        uids = self.add_many()
        self.index()
        for wanted in ("rd", "<", "", "\r\nX-Other: fieldd"):
            self.assertEqual(self.read_by(wanted), 16)
        self.assertEqual(self.search("\r\nX-Other: fieldd"), [uids[3]])

    def test_messages_that_are_not_indexed_are_read(self) -> None:
        """Messages that arrived after the last indexing are found, and so are all without any."""
        uids = self.add_many()
        self.assertEqual(self.search("numberf"), [uids[5]])
        self.assertFalse(os.path.exists(self.path(FILE)))
        self.index()
        (uid,) = self.add(b"\r\nnumberf again")
        self.assertEqual(self.search("numberf"), [uids[5], uid])
        self.assertEqual(self.read_by("nowhere"), 1)
        self.add_many(7)
        self.index()
        self.assertEqual(self.read_by("nowhere"), 0)

    def test_large_messages_are_always_read(self) -> None:
        """A message with too much text is not indexed, and is read by each search; it is not tried again."""
        self.patch(trigrams, "MAX_INDEXED_TEXT", 1000)
        uids = self.add_many(15)
        (large,) = self.add(b"\r\n" + b"words " * 300 + b"needle")
        self.index()
        self.reopen()
        with counting_calls("open") as calls:
            self.index()
        self.assertEqual(opened_messages(calls), [])
        self.assertEqual(self.search("needle"), [large])
        self.assertEqual(self.search("numberd"), [uids[3]])
        self.assertEqual(self.read_by("numberd"), 2)

    def test_many_messages_take_several_calls(self) -> None:
        """A call reads a limited number of candidates, and looks up a limited number of messages."""
        with (
            mock.patch("imapshield.maildir.message_search.MAX_MESSAGES_READ", 3),
            mock.patch("imapshield.maildir.text_rows.MESSAGES_PER_LOOK", 5),
        ):
            uids = self.add_many(26)
            self.index()
            self.reopen()
            self.assertEqual(self.search("number"), uids)

            key = self.store.mailbox_key("INBOX")
            self.reopen()
            result = self.store.search(key, uids[20:], TextKey("numberx", True))
            self.assertEqual((result.matching, result.examined), ([], 3))
            result = self.store.search(key, uids, TextKey("number", True))
            self.assertEqual((result.matching, result.examined), (uids[:3], 3))


class ChangeTests(TextIndexTestCase):
    def test_expunged_messages_are_not_found(self) -> None:
        """Rows of expunged messages stay, and lead to no message. New messages get new rows."""
        uids = self.add_many()
        self.index()
        key = self.store.mailbox_key("INBOX")
        self.store.store_flags(key, uids[:8], b"+", [b"\\Deleted"], None, 0)
        self.store.expunge(key, None, 0)
        new = self.add_many(8)
        self.index()
        self.assertEqual(self.search("numberd"), [new[3]])
        self.assertEqual(self.search("numbern"), [uids[13]])
        self.assertEqual(self.read_by("numberd"), 1)

    def test_copies_and_renames_keep_their_rows(self) -> None:
        """Messages that are copied or moved, and mailboxes that are renamed, need not be indexed again."""
        uids = self.add_many()
        self.index()
        self.store.create("A", [])
        key = self.store.mailbox_key("INBOX")
        self.store.copy(key, uids[:8], "A", False, 0)
        self.store.copy(key, uids[8:], "A", True, 0)
        self.store.rename("A", "B/C")
        self.assertEqual(self.search("numberm", "B/C"), [13])
        self.assertEqual(self.read_by("numberm", "B/C"), 1)
        self.assertEqual(self.search("numberm"), [])
        self.store.delete("B/C")
        self.store.create("B/C", [])
        self.assertEqual(self.search("numberm", "B/C"), [])

    def test_other_programs(self) -> None:
        """Mail that another program delivers, moves or removes is found where it is."""
        self.add_many()
        self.index()
        self.store.create("A", [])
        self.deliver(b"\r\nnumberd delivered")
        os.rename(self.path("cur", self.cur()[3]), self.path(".A", "cur", self.cur()[3]))
        os.unlink(self.path("cur", self.cur()[0]))
        self.let_mtimes_age()
        self.assertEqual(self.search("numberd"), [17])
        self.assertEqual(len(self.search("numberd", "A")), 1)
        self.assertEqual(self.search("numbera"), [])

    def test_changed_size_is_noticed(self) -> None:
        """A message whose file has another size than when it was indexed is read, and indexed again."""
        uids = self.add_many()
        self.index()
        with open(self.path("cur", self.cur()[3]), "ab") as file:
            file.write(b"more words\r\n")
        key = self.store.mailbox_key("INBOX")
        self.assertEqual(
            self.store.search(key, [uids[3]], TextKey("numberd", True)).matching, [uids[3]]
        )
        self.reopen()
        self.assertEqual(self.search("more words"), [uids[3]])
        self.add_many(7)
        self.index()
        self.assertEqual(self.search("more words"), [uids[3]])
        self.assertEqual(self.read_by("nowhere"), 0)

    def test_two_processes(self) -> None:
        """Two processes use the same index; each finds what the other has added."""
        uids = self.add_many()
        other = self.open_store()
        self.index()
        key = other.mailbox_key("INBOX")
        search_key = TextKey("numberd", True)
        self.assertEqual(other.search(key, uids, search_key).matching, [uids[3]])
        self.add_many()
        while other.index_text(key):
            pass
        self.assertEqual(self.search("numberd"), [uids[3], uids[3] + 16])
        other.close()
        self.assertEqual(self.read_by("nowhere"), 0)
        self.reopen()
        self.assertEqual(self.read_by("nowhere"), 0)
        other = self.open_store()
        self.addCleanup(other.close)
        self.add_many()
        while other.index_text(key):
            pass
        other.close()
        self.reopen()
        self.assertEqual(self.read_by("nowhere"), 0)

    def test_index_that_is_locked(self) -> None:
        """While another process writes, searches use the index, and the indexing waits."""
        uids = self.add_many()
        self.index()
        self.patch(text_index_file, "BUSY_SECONDS", 0.0)
        self.reopen()
        self.assertEqual(self.search("numberd"), [uids[3]])
        self.add_many(9)
        with closing(sqlite3.connect(self.path(FILE), isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            self.assertRaises(StoreBusy, self.index)
            self.assertEqual(self.search("numberd"), [uids[3], uids[3] + 16])
        self.index()
        self.assertEqual(self.read_by("nowhere"), 0)
        self.assertEqual(self.warnings, [])

    def test_expunged_messages_do_not_accumulate(self) -> None:
        """If most indexed messages are expunged, the file is built again without a warning, in all mailboxes."""
        self.patch(text_index, "MAX_WASTE", 8)
        self.store.create("A", [])
        self.add_many(name="A")
        self.index("A")
        key = self.store.mailbox_key("INBOX")
        sizes: list[int] = []
        steps: list[TextStep] = []
        for _ in range(12):
            self.add(
                *[b"\r\n" + random.Random(i).randbytes(20_000).hex().encode() for i in range(16)]
            )
            steps.append(self.store.index_text(key))
            self.index()
            sizes.append(os.path.getsize(self.path(FILE)))
            self.store.store_flags(key, range(1, 1000), b"+", [b"\\Deleted"], None, 0)
            self.store.expunge(key, None, 0)
            while (step := self.store.index_text(key)) != TextStep.DONE:
                steps.append(step)
            self.index("A")
            self.assertEqual(self.read_by("nowhere", "A"), 0)
        self.assertIn(TextStep.MORE_EVERYWHERE, steps)
        self.assertLess(max(sizes), 4 * sizes[0])
        self.assertEqual(self.search("numberd", "A"), [4])
        self.assertEqual(self.warnings, [])

    def test_single_new_message_opens_no_file(self) -> None:
        """The file stays closed until there are as many new messages as a group has."""
        self.add_many()
        self.index()
        self.store.release_memory()
        opened: list[bool] = []
        for count in (7, 1):
            self.add(*[b"\r\nnew text\r\n"] * count)
            with mock.patch.object(
                text_index_file, "connect", side_effect=sqlite_file.connect
            ) as connect:
                self.index()
            opened.append(connect.called)
        self.assertEqual(opened, [False, True])
        self.assertEqual(len(self.search("new text")), 8)

    def test_result_of_a_search_is_not_kept(self) -> None:
        """What a search that did not end has kept in memory is freed by the next operation that is no search."""
        self.patch(message_search, "MAX_MESSAGES_READ", 2)
        uids = self.add_many()
        self.index()
        key = self.store.mailbox_key("INBOX")
        result = self.store.search(key, uids, TextKey("number", True))
        self.assertEqual(result.examined, 2)
        self.assertIsNotNone(self.store._account.text_index._candidates)
        self.store.mailbox_key("INBOX")
        self.assertIsNone(self.store._account.text_index._candidates)

    def test_foreign_values(self) -> None:
        """A value of another type in the file means that it is damaged; an error of this program is not taken for it."""
        statements = (
            "UPDATE message SET row = 'x'",
            "UPDATE message SET row = 1e99",
            "UPDATE message SET size = 1 << 33, row = 1 << 33",
            "UPDATE state SET next_row = 'x'",
            "UPDATE state SET merged_row = 1.5",
            "DELETE FROM state",
        )
        self.add_many()
        self.patch(text_index_file, "MAX_REBUILDS", len(statements))
        for number, statement in enumerate(statements, 1):
            self.index()
            index = self.store._account.text_index
            index._open_db.execute(statement)
            self.store._account.text_rows.clear()
            self.index()
            self.assertEqual(len(self.warnings), number, statement)
        self.patch(index, "_next_and_merged_row", lambda: int("x"))
        self.assertRaises(ValueError, index.merge)

    def test_index_is_put_in_order(self) -> None:
        """After many additions the trees of FTS5 are merged, and free pages are returned; nothing is lost."""
        self.patch(text_index, "MERGE_ROWS", 0)
        self.patch(text_index, "MERGE_FRACTION", 1 << 30)
        self.patch(text_index, "MERGE_PAGES", 2)
        self.patch(text_search, "MESSAGES_PER_STEP", 8)
        for start in range(0, len(CONTENTS), 40):
            self.add(*CONTENTS[start : start + 40])
            self.index()
        with closing(sqlite3.connect(self.path(FILE))) as db:
            (segments,) = db.execute("SELECT count(DISTINCT segid) FROM text_idx").fetchone()
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
        self.assertEqual(segments, 1)
        self.assertLessEqual(free * 50, pages)
        uids = [row.uid for row in self.store.open("INBOX", False).delta.rows]
        for uid, content in zip(uids, CONTENTS, strict=True):
            for searched in normalized_texts(content, True)[:2]:
                wanted = searched[:40].partition("\n")[0]
                self.assertIn(uid, self.search(wanted))
