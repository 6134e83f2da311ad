"""A test case with messages, an index of their text, and searches."""

from __future__ import annotations

from typing import Any

from imapshield.mailbox.values import NewMessage
from imapshield.maildir import text_search
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import TextKey
from tests.maildir.disk import DiskTestCase, counting_calls, opened_messages
from tests.maildir.test_answer_version import message
from tests.message import mails

FILE = "imapshield.search"
LANGUAGES = (
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
    for text in (
        "Größe und Straße, Äpfel für Österreich; Łódź, İstanbul, ﬁnal e\u0301té 12345 67890",
        "日本語のテキスト。東京都の天気は晴れです。",
        "한국어 텍스트 검색, 한글 자모",
        "Русский текст, поиск по буквам",
        "عربي نص للبحث   with   many   spaces\t\ttabs",
    )
)
ENCODED = (
    (
        b"Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4=?= and =?iso-8859-1?q?M=FCnchen?=\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"R3LDvMOfZSBhdXMgZGVtIGvDvGhsZW4gS8O8Y2hlbg==\r\n"
    ),
    (
        b"Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"<p>Gr=FC=DFe f=FCr=\r\n alle</p>\r\n"
    ),
)
CONTENTS = [*mails.ALL, *LANGUAGES, *ENCODED, *map(message, range(150))]


class TextIndexTestCase(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        # On a busy machine, the last step of the indexing could leave fewer messages than a group has.
        self.patch(text_search, "STEP_SECONDS", 60.0)

    def add(self, *contents: bytes, name: str = "INBOX") -> list[int]:
        new = [NewMessage((), None, MemoryLiteral(content)) for content in contents]
        return list(self.store.append(name, new).uids)

    def add_many(self, count: int = 16, name: str = "INBOX") -> list[int]:
        """Add messages; message i has the words number{i}, sender{i} and field{i}, with a letter in place of i."""
        contents = [
            b"From: sender%c <a@b>\r\nX-Other: field%c\r\n\r\nnumber%c text\r\n" % (i, i, i)
            for i in range(ord("a"), ord("a") + count)
        ]
        return self.add(*contents, name=name)

    def index(self, name: str = "INBOX", **options: Any) -> None:
        """Index a mailbox completely."""
        key = self.store.mailbox_key(name)
        for _ in range(1000):
            if not self.store.index_text(key):
                return
        self.fail("the indexing does not end")

    def reopen(self, **options: Any) -> None:
        self.store.close()
        self.store = self.open_store(**options)

    def search(self, wanted: str, name: str = "INBOX", headers: bool = True) -> list[int]:
        """Return all UIDs that match."""
        key = self.store.mailbox_key(name)
        rest = [row.uid for row in self.store.open(name, False).delta.rows]
        found: list[int] = []
        while rest:
            result = self.store.search(key, rest, TextKey(wanted, headers))
            found += result.matching
            rest = [] if result.examined is None else rest[result.examined :]
        return found

    def read_by(self, wanted: str, name: str = "INBOX", headers: bool = True) -> int:
        """Return how many files a search reads."""
        with counting_calls("open") as calls:
            self.search(wanted, name, headers)
        return len(set(opened_messages(calls)))
