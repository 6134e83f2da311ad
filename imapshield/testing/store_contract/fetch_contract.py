"""How a store answers FETCH items."""

from imapshield.errors import StoreIOError
from imapshield.mailbox.values import Blob
from imapshield.testing.in_process import MAIL
from imapshield.testing.store_contract.fixture import (
    BUDGET,
    EMAILID,
    ENVELOPE,
    SECOND_MAIL,
    STRUCTURE,
    WHOLE,
    StoreFixture,
    literal,
)
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey, TextKey


class FetchContract(StoreFixture):
    """How a store answers FETCH items."""

    def test_fetch_returns_a_column_per_item(self) -> None:
        """FETCH returns one column per item, in the order of the items, and the same values the second time."""
        self.append()
        self.append(content=SECOND_MAIL)
        items: list[FetchItem] = [
            ENVELOPE,
            STRUCTURE,
            Attribute(b"BODY"),
            EMAILID,
            Attribute(b"THREADID"),
            WHOLE,
        ]
        first = self.store.fetch(self.key(), [1, 2], items, BUDGET)
        self.assertEqual(first.columns, self.store.fetch(self.key(), [1, 2], items, BUDGET).columns)
        self.assertEqual([len(column) for column in first.columns], [2] * len(items))
        envelope, email_id = first.columns[0][0], first.columns[3][0]
        assert isinstance(envelope, bytes)
        assert isinstance(email_id, bytes)
        self.assertIn(b'"Lunch"', envelope)
        self.assertTrue(email_id.startswith(b"(M"))
        self.assertEqual(first.columns[4], [b"NIL", b"NIL"])

    def test_header_fields_keep_order_and_case(self) -> None:
        """Header fields come in the order and the letter case of the message, whatever the request says."""
        self.append()
        for fields in ((b"Subject", b"FROM"), (b"from", b"subject"), (b"Subject", b"FROM")):
            item = BodySection(Section((), b"HEADER.FIELDS", fields), True)
            expected = b"From: Ann <ann@example.org>\r\nSubject: Lunch\r\n\r\n"
            self.assertEqual(self.fetch_item(1, item), literal(expected))
        others = BodySection(Section((), b"HEADER.FIELDS.NOT", (b"Subject", b"FROM")))
        self.assertNotIn(b"Lunch", self.fetch_bytes(1, others))
        self.assertIn(b"bob@example.org", self.fetch_bytes(1, others))

    def test_missing_section_is_nil(self) -> None:
        """HEADER, TEXT, parts, partials, BINARY and PREVIEW are returned. A part that does not exist is NIL."""
        self.append()
        head, body = MAIL.split(b"\r\n\r\n")
        head += b"\r\n\r\n"
        for item, expected in (
            (BodySection(Section((), b"HEADER")), head),
            (BodySection(Section((), b"TEXT")), body),
            (BodySection(Section((1,))), body),
            (BodySection(Section(), partial=(6, 3)), MAIL[6:9]),
            (BodySection(Section(), partial=(len(MAIL) - 2, 50)), MAIL[-2:]),
            (BodySection(Section(), partial=(5000, 50)), b""),
            (BodySection(Section((), b"TEXT"), partial=(3, 4)), body[3:7]),
            (Binary((1,)), body),
        ):
            self.assertEqual(self.fetch_item(1, item), literal(expected), item)
        self.assertEqual(self.fetch_item(1, BodySection(Section((2,)))), b"NIL")
        self.assertEqual(self.fetch_item(1, Binary((1,), size_only=True)), b"%d" % len(body))
        self.assertEqual(self.fetch_item(1, Preview()), b'"At noon?"')

    def test_savedate_is_the_time_of_storing(self) -> None:
        """SAVEDATE is the time at which the message was stored, whatever its INTERNALDATE."""
        self.append(internaldate=1_000_000_000)
        self.assertRegex(
            self.fetch_bytes(1, Attribute(b"SAVEDATE")),
            rb'\A"[ 0-9][0-9]-[A-Z][a-z]{2}-20[0-9]{2} .*"\Z',
        )
        self.assertNotIn(b"2001", self.fetch_bytes(1, Attribute(b"SAVEDATE")))

    def test_budget_returns_at_least_one(self) -> None:
        """A budget that is too small still returns one message. Repeated calls return the rest."""
        for _ in range(5):
            self.append(content=MAIL + b"x" * 1000)
        uids = [1, 2, 3, 4, 5]
        fetched_uids: list[int] = []
        while len(fetched_uids) < 5:
            fetched = self.store.fetch(self.key(), uids[len(fetched_uids) :], [WHOLE], 1)
            self.assertEqual(len(fetched.uids), 1)
            fetched_uids += fetched.uids
        self.assertEqual(fetched_uids, uids)

    def test_unreadable_message_fails_alone(self) -> None:
        """FETCH and SEARCH answer for the other messages, and name the one that cannot be read."""
        for _ in range(4):
            self.append()
        self.damage(2)
        self.damage(4)
        key = self.key()
        requests: list[list[FetchItem]] = [[WHOLE], [EMAILID, WHOLE], [Preview()]]
        for items in requests:
            uids = [1, 2, 3, 4]
            fetched_uids: list[int] = []
            unreadable: list[int] = []
            while uids:
                fetched = self.store.fetch(key, uids, items, BUDGET)
                self.assertEqual(len(fetched.columns[0]), len(fetched.uids))
                fetched_uids += fetched.uids
                unreadable += fetched.unreadable
                uids = uids[fetched.count :]
            self.assertEqual((fetched_uids, unreadable), ([1, 3], [2, 4]))
        for search_key in (TextKey("noon"), HeaderKey(b"X-None", ""), EnvelopeKey(b"TO", "bob")):
            found = self.store.search(key, [1, 2, 3, 4], search_key)
            matching = [] if isinstance(search_key, HeaderKey) else [1, 3]
            self.assertEqual((found.matching, list(found.unreadable)), (matching, [2, 4]))
        self.assertEqual(self.store.status("INBOX").messages, 4)

    def test_unreadable_blob_raises(self) -> None:
        """`read` of a message that can no longer be read raises `StoreIOError`."""
        self.append(content=b"x: y\r\n\r\n" + bytes(400_000))
        self.assertIsInstance(self.fetch_item(1, WHOLE), Blob)
        self.store.read(self.key(), 1, WHOLE, 0, 100)
        self.damage(1)  # of a string that is being read, a store may still have the rest
        self.assertRaises(StoreIOError, self.store.read, self.key(), 1, WHOLE, 0, 100)

    def test_large_string_is_a_blob(self) -> None:
        """A string over 256 KiB is returned as a `Blob`, and `read` returns its content in chunks."""
        body = b"".join(b"line %d\r\n" % i for i in range(60_000))
        content = b"Subject: large\r\n\r\n" + body
        self.append(content=content)
        for item, expected in (
            (WHOLE, content),
            (BodySection(Section((), b"TEXT")), body),
            (BodySection(Section((1,))), body),
            (Binary((1,)), body),
            (BodySection(Section(), partial=(100, 400_000)), content[100:400_100]),
        ):
            blob = self.fetch_item(1, item)
            assert isinstance(blob, Blob)
            self.assertEqual((blob.uid, blob.item, blob.size), (1, item, len(expected)))
            chunk_size = 100_000
            chunks = [
                self.store.read(self.key(), 1, item, offset, min(chunk_size, blob.size - offset))
                for offset in range(0, blob.size, chunk_size)
            ]
            self.assertTrue(b"".join(chunks) == expected, item)
