"""SEARCH TEXT and BODY have the same result with and without the text index, also through `Query`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from unittest import mock

from twisted.internet.defer import Deferred

from benchmarks.text_search import matching, normalized_texts, random_needle
from imapshield.mailbox.query import Query
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.view import View
from imapshield.maildir.store import MaildirStore
from imapshield.testing.in_process import InlineWorker
from imapshield.wire.commands.search import TextKey
from tests.maildir.text_index_case import CONTENTS, TextIndexTestCase


class QueryTests(TextIndexTestCase):
    def query(
        self, store: MaildirStore, search_key: TextKey, among: Sequence[int] | None = None
    ) -> list[int]:
        """Search INBOX of a store as a session does."""
        account = StoreAccount("user", lambda: store, InlineWorker())
        mailbox, recent = self.successResultOf(Deferred.fromCoroutine(account.open("INBOX", False)))
        query = Query(mailbox, View(mailbox.columns, recent), now=0.0)
        found = self.successResultOf(Deferred.fromCoroutine(query.run(search_key, among)))
        self.assertEqual(query.unreadable, set())
        return list(found)

    def test_search_that_begins_anywhere(self) -> None:
        """A search from any message on finds all, although one call learns the rows of few messages."""
        uids = self.add_many(24)
        self.index()
        with mock.patch("imapshield.maildir.text_rows.MESSAGES_PER_LOOK", 5):
            for start in range(24):
                self.reopen()
                found = self.query(self.store, TextKey("number", True), uids[start:])
                self.assertEqual(found, uids[start:])

    def test_results_do_not_depend_on_the_index(self) -> None:
        """For 200 random texts and parts of the mailbox, the result is that of a scan and of a store without index."""
        self.add(*CONTENTS)
        self.index()
        self.add(*CONTENTS)
        contents = [*CONTENTS, *CONTENTS]
        plain = self.open_store(has_text_index=False)
        self.addCleanup(plain.close)
        uids = [row.uid for row in self.store.open("INBOX", False).delta.rows]
        texts = {
            headers: [normalized_texts(c, headers) for c in contents] for headers in (True, False)
        }
        choose = random.Random("query")
        with mock.patch("imapshield.maildir.text_rows.MESSAGES_PER_LOOK", 37):
            for number in range(200):
                headers = choose.random() < 0.7
                wanted = random_needle(choose, texts[headers])
                start = choose.randrange(len(uids))
                stop = choose.randrange(start, len(uids)) + 1
                if choose.random() < 0.3:
                    self.store._account.text_rows.clear()
                search_key = TextKey(wanted, headers)
                expected = matching(uids[start:stop], texts[headers][start:stop], wanted)
                found = self.query(self.store, search_key, uids[start:stop])
                self.assertEqual(found, expected, wanted)
                if number % 20 == 0:
                    self.assertEqual(self.query(plain, search_key, uids[start:stop]), expected)
