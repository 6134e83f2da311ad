"""SEARCH, key by key, over the store in memory."""

from datetime import date
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox import query
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.query import Query
from imapshield.mailbox.values import NewMessage
from imapshield.mailbox.view import View
from imapshield.testing.in_process import NOW, MemoryRealm
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search_keys import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    Or,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
)
from imapshield.wire.sequence import SequenceSet

DAY = 86400
LETTERS = [
    (
        (b"\\Seen",),
        10 * DAY,
        b"Subject: Caf\xc3\xa9\r\nDate: Sat, 1 Jan 2000 23:00:00 -0800\r\n\r\nalpha\r\n",
    ),
    (
        (),
        10 * DAY + DAY - 1,
        b"Subject: =?utf-8?q?caf=C3=A9?= beta\r\nFrom: a@b\r\n\r\nALPHA beta\r\n",
    ),
    ((b"\\Flagged", b"$Junk"), 11 * DAY, b"Subject: x\r\n\r\n" + b"y" * 1000),
    ((b"\\Seen", b"\\Deleted"), int(NOW) - 50, b"X-Empty:\r\n\r\n"),
]


class Search(SynchronousTestCase):
    def setUp(self) -> None:
        self.account = MemoryRealm().account()
        for flags, at, content in LETTERS:
            self.wait(self.account.append("INBOX", [NewMessage(flags, at, MemoryLiteral(content))]))
        self.mailbox, recent = self.wait(self.account.open("INBOX", True))
        self.view = View(self.mailbox.columns, recent)

    def wait(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def found(self, key: SearchKey, **more: Any) -> list[int]:
        return list(self.wait(Query(self.mailbox, self.view, now=NOW, **more).run(key)))

    def test_flags(self) -> None:
        """Flags and keywords, without case."""
        self.assertEqual(self.found(FlagKey(b"\\Seen")), [1, 4])
        self.assertEqual(self.found(Not(FlagKey(b"\\Seen"))), [2, 3])
        self.assertEqual(self.found(FlagKey(b"$junk")), [3])
        self.assertEqual(self.found(FlagKey(b"\\Recent")), [1, 2, 3, 4])

    def test_logic(self) -> None:
        """AND, OR and NOT, and none of them."""
        self.assertEqual(self.found(And(())), [1, 2, 3, 4])
        self.assertEqual(self.found(And((FlagKey(b"\\Seen"), FlagKey(b"\\Deleted")))), [4])
        self.assertEqual(self.found(Or((FlagKey(b"\\Flagged"), FlagKey(b"\\Deleted")))), [3, 4])
        self.assertEqual(
            self.found(Not(And((FlagKey(b"\\Seen"), Not(FlagKey(b"\\Deleted")))))), [2, 3, 4]
        )

    def test_sets(self) -> None:
        """Numbers, UIDs and the saved result; what lies beyond the last message matches nothing."""
        self.assertEqual(self.found(SequenceKey(SequenceSet.parse(b"2:9"))), [2, 3, 4])
        self.assertEqual(self.found(SequenceKey(SequenceSet.parse(b"*"))), [4])
        self.assertEqual(self.found(SequenceKey(SequenceSet.parse(b"1,4:99"), uid=True)), [1, 4])
        self.assertEqual(self.found(SequenceKey(None), saved=[3]), [3])

    def test_sizes(self) -> None:
        """LARGER and SMALLER are strict."""
        size = len(LETTERS[2][2])
        self.assertEqual(self.found(SizeKey(True, size)), [])
        self.assertEqual(self.found(SizeKey(True, size - 1)), [3])
        self.assertEqual(self.found(SizeKey(False, size)), [1, 2, 4])

    def test_dates(self) -> None:
        """Internal dates by day; the Date field by the day that is written there, whatever its zone."""
        day = date(1970, 1, 11)
        self.assertEqual(self.found(DateKey(b"ON", day)), [1, 2])
        self.assertEqual(self.found(DateKey(b"BEFORE", day)), [])
        self.assertEqual(self.found(DateKey(b"SINCE", date(1970, 1, 12))), [3, 4])
        self.assertEqual(self.found(DateKey(b"ON", date(2000, 1, 1), b"SENT")), [1])
        self.assertEqual(self.found(DateKey(b"SINCE", date(2000, 1, 2), b"SENT")), [])

    def test_ages(self) -> None:
        """YOUNGER and OLDER."""
        self.assertEqual(self.found(AgeKey(True, 60)), [4])
        self.assertEqual(self.found(AgeKey(False, 60)), [1, 2, 3])

    def test_text(self) -> None:
        """Headers and bodies are compared decoded and without case."""
        self.assertEqual(self.found(HeaderKey(b"subject", "CAFÉ")), [1, 2])
        self.assertEqual(self.found(HeaderKey(b"X-Empty", "")), [4])
        self.assertEqual(self.found(TextKey("alpha")), [1, 2])
        self.assertEqual(self.found(TextKey("café", headers=True)), [1, 2])
        self.assertEqual(self.found(TextKey("café")), [])

    def test_addresses(self) -> None:
        """FROM finds an address as ENVELOPE shows it, however it was written; HEADER FROM as it was written."""
        content = b"From: <ann (home)@ (work) example.org>\r\nTo: Team: bob@example.org;\r\n\r\n"
        self.wait(self.account.append("INBOX", [NewMessage((), None, MemoryLiteral(content))]))
        self.wait(self.mailbox.poll())
        self.view.take_updates(expunge=True)
        self.assertEqual(self.found(EnvelopeKey(b"FROM", "Ann@example.org")), [5])
        self.assertEqual(self.found(EnvelopeKey(b"TO", "bob@example.org")), [5])
        self.assertEqual(self.found(EnvelopeKey(b"TO", "team")), [5])
        self.assertEqual(self.found(EnvelopeKey(b"FROM", "home")), [])
        self.assertEqual(self.found(HeaderKey(b"FROM", "home")), [5])
        self.assertEqual(self.found(HeaderKey(b"FROM", "Ann@example.org")), [])

    def test_modseq(self) -> None:
        """MODSEQ n is at or after n."""
        modseq = self.view.columns.modseqs[2]
        self.assertEqual(self.found(ModseqKey(modseq)), [3, 4])

    def test_cheap_first(self) -> None:
        """What the columns know narrows the search before any message is read."""
        asked: list[list[int]] = []
        search = self.mailbox.search

        def spy(uids: Any, leaf: Any) -> Any:
            asked.append(list(uids))
            return search(uids, leaf)

        self.mailbox.search = spy
        self.found(And((TextKey("alpha"), FlagKey(b"\\Seen"))))
        self.assertEqual(asked, [[1, 4]])

    def test_pieces(self) -> None:
        """A text search goes piece by piece, with a pause between them."""
        pauses: list[tuple[int, int]] = []

        async def pause(done: int, total: int) -> None:
            pauses.append((done, total))

        self.patch(query, "TEXT_PIECE", 2)
        self.assertEqual(self.found(TextKey("alpha"), pause=pause), [1, 2])
        self.assertEqual(len(pauses), 1)

    def test_sizes_in_pieces(self) -> None:
        """Sizes that nobody has measured are measured piece by piece too, since that reads the messages."""
        self.patch(query, "TEXT_PIECE", 2)
        columns = self.view.columns
        for row in range(3):
            columns.sizes[row] = UNKNOWN_SIZE
        asked: list[list[int]] = []
        pauses: list[tuple[int, int]] = []
        sizes = self.mailbox.load_sizes

        async def pause(done: int, total: int) -> None:
            pauses.append((done, total))

        def spy(uids: list[int]) -> Any:
            asked.append(uids)
            return sizes(uids)

        self.mailbox.load_sizes = spy
        self.assertEqual(self.found(SizeKey(larger=True, size=1000), pause=pause), [3])
        self.assertEqual((asked, pauses), ([[1, 2], [3]], [(2, 3)]))

    def test_many_keys(self) -> None:
        """A search of many keys pauses between them too, though each is answered from the columns at once."""
        pauses: list[None] = []

        async def pause() -> None:
            pauses.append(None)

        self.patch(query, "STRIDE", 40)
        for key in (And, Or):
            keys = tuple(SizeKey(larger=True, size=9999 * (key is Or)) for _ in range(100))
            self.found(key(keys), pause=pause)
            self.assertIn(len(pauses), (9, 10))
            pauses.clear()

    def test_gone(self) -> None:
        """A message that vanished unbeknown to the client is not found."""
        self.mailbox.subscribe(self.view.on_change, False)
        self.wait(self.mailbox.expunge(None))
        self.assertEqual(self.found(FlagKey(b"\\Seen")), [1])
        self.assertEqual(len(self.view.uids), 4)
