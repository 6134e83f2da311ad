"""Large strings of FETCH are read in pieces."""

from __future__ import annotations

from imapshield.mailbox.values import Blob
from imapshield.testing.store_contract import (
    BUDGET,
    WHOLE,
)
from imapshield.wire import strings
from imapshield.wire.commands.fetch import BodySection, FetchItem, Section
from tests.maildir.disk import DiskTestCase, fields, traced_peak


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
