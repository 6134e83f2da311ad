"""SEARCH finds the right messages for every key. It evaluates cheap keys first, and works in bounded steps."""

from collections.abc import Awaitable, Coroutine, Sequence
from datetime import date
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox import query
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.query import Query
from imapshield.mailbox.values import NewMessage, SearchResult, SizesResult
from imapshield.mailbox.view import View
from imapshield.testing import memory_store
from imapshield.testing.in_process import NOW, MemoryRealm
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import (
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
from imapshield.wire.sequence import SAVED, SequenceSet

T = TypeVar("T")

DAY = 86400
MESSAGES = [
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


class QueryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.account = MemoryRealm().account()
        for flags, internaldate, content in MESSAGES:
            self.wait(
                self.account.append(
                    "INBOX", [NewMessage(flags, internaldate, MemoryLiteral(content))]
                )
            )
        self.mailbox, recent = self.wait(self.account.open("INBOX", True))
        self.view = View(self.mailbox.columns, recent)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(work))
        return result

    def found(self, key: SearchKey, **options: Any) -> list[int]:
        return list(self.wait(Query(self.mailbox, self.view, now=NOW, **options).run(key)))

    def test_flags_are_found_without_case(self) -> None:
        """Flags and keywords are found without case."""
        self.assertEqual(self.found(FlagKey(b"\\Seen")), [1, 4])
        self.assertEqual(self.found(Not(FlagKey(b"\\Seen"))), [2, 3])
        self.assertEqual(self.found(FlagKey(b"$junk")), [3])
        self.assertEqual(self.found(FlagKey(b"\\Recent")), [1, 2, 3, 4])

    def test_and_or_and_not_combine_keys(self) -> None:
        """AND, OR and NOT combine keys; no key at all matches every message."""
        self.assertEqual(self.found(And(())), [1, 2, 3, 4])
        self.assertEqual(self.found(And((FlagKey(b"\\Seen"), FlagKey(b"\\Deleted")))), [4])
        self.assertEqual(self.found(Or((FlagKey(b"\\Flagged"), FlagKey(b"\\Deleted")))), [3, 4])
        self.assertEqual(
            self.found(Not(And((FlagKey(b"\\Seen"), Not(FlagKey(b"\\Deleted")))))), [2, 3, 4]
        )

    def test_sequence_sets_match_existing_messages(self) -> None:
        """Sequence numbers, UIDs and ``$`` are found; numbers beyond the last message match nothing."""
        self.assertEqual(self.found(SequenceKey(SequenceSet.parse(b"2:9"))), [2, 3, 4])
        self.assertEqual(self.found(SequenceKey(SequenceSet.parse(b"*"))), [4])
        self.assertEqual(self.found(SequenceKey(SequenceSet.parse(b"1,4:99"), uid=True)), [1, 4])
        self.assertEqual(self.found(SequenceKey(SAVED), saved=[3]), [3])

    def test_larger_and_smaller_are_strict(self) -> None:
        """LARGER and SMALLER exclude messages of exactly that size."""
        size = len(MESSAGES[2][2])
        self.assertEqual(self.found(SizeKey(True, size)), [])
        self.assertEqual(self.found(SizeKey(True, size - 1)), [3])
        self.assertEqual(self.found(SizeKey(False, size)), [1, 2, 4])

    def test_dates_are_compared_by_day(self) -> None:
        """INTERNALDATE is compared by UTC day, and the Date field by its own day, whatever its zone."""
        day = date(1970, 1, 11)
        self.assertEqual(self.found(DateKey(b"ON", day)), [1, 2])
        self.assertEqual(self.found(DateKey(b"BEFORE", day)), [])
        self.assertEqual(self.found(DateKey(b"SINCE", date(1970, 1, 12))), [3, 4])
        self.assertEqual(self.found(DateKey(b"ON", date(2000, 1, 1), b"SENT")), [1])
        self.assertEqual(self.found(DateKey(b"SINCE", date(2000, 1, 2), b"SENT")), [])

    def test_younger_and_older_use_the_current_time(self) -> None:
        """YOUNGER and OLDER compare INTERNALDATE with the current time."""
        self.assertEqual(self.found(AgeKey(True, 60)), [4])
        self.assertEqual(self.found(AgeKey(False, 60)), [1, 2, 3])

    def test_text_is_searched_decoded_and_without_case(self) -> None:
        """Headers and bodies are searched decoded and without case."""
        self.assertEqual(self.found(HeaderKey(b"subject", "CAFÉ")), [1, 2])
        self.assertEqual(self.found(HeaderKey(b"X-Empty", "")), [4])
        self.assertEqual(self.found(TextKey("alpha")), [1, 2])
        self.assertEqual(self.found(TextKey("café", headers=True)), [1, 2])
        self.assertEqual(self.found(TextKey("café")), [])

    def test_from_finds_addresses_as_in_envelope(self) -> None:
        """FROM searches the address that ENVELOPE returns, and HEADER FROM searches the original field."""
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

    def test_modseq_key_matches_equal_and_greater(self) -> None:
        """MODSEQ n matches messages with a MODSEQ of n or greater."""
        modseq = self.view.columns.modseqs[2]
        self.assertEqual(self.found(ModseqKey(modseq)), [3, 4])

    def test_cheap_keys_narrow_the_search_first(self) -> None:
        """Keys that the columns answer narrow the search before any message is read."""
        searched: list[list[int]] = []
        search = self.mailbox.search

        def spy(uids: Sequence[int], key: SearchKey) -> Awaitable[SearchResult]:
            searched.append(list(uids))
            return search(uids, key)

        self.patch(self.mailbox, "search", spy)
        self.found(And((TextKey("alpha"), FlagKey(b"\\Seen"))))
        self.assertEqual(searched, [[1, 4]])

    def test_store_may_stop_early(self) -> None:
        """If the store examines fewer messages than it was given, the search continues with the next one."""
        asked: list[list[int]] = []

        async def search(uids: Sequence[int], key: SearchKey) -> SearchResult:
            asked.append(list(uids))
            return SearchResult([uid for uid in uids[:2] if uid % 2], (), 2)

        self.patch(self.mailbox, "search", search)
        self.assertEqual(self.found(TextKey("x")), [1, 3])
        self.assertEqual(asked, [[1, 2, 3, 4], [3, 4]])

    def test_blocks_find_the_same_messages(self) -> None:
        """A search in blocks of messages finds the same as a search of all at once, also after an expunge."""
        keys: list[SearchKey] = [
            And(()),
            FlagKey(b"\\Seen"),
            Not(FlagKey(b"\\Seen")),
            Or((FlagKey(b"\\Seen"), SizeKey(larger=True, size=500))),
            SequenceKey(SequenceSet.parse(b"2:3,*")),
            SequenceKey(SequenceSet.parse(b"1,3:9"), uid=True),
            Not(SequenceKey(SAVED)),
            And((Not(TextKey("alpha")), DateKey(b"SINCE", date(1970, 1, 12), b"INTERNAL"))),
            ModseqKey(3),
        ]
        for _ in range(2):
            expected = [list(self.found(key, saved=[2, 4])) for key in keys]
            for size in (1, 2, 3):
                self.patch(query, "MESSAGES_PER_BLOCK", size)
                self.assertEqual([list(self.found(key, saved=[2, 4])) for key in keys], expected)
            self.patch(query, "MESSAGES_PER_BLOCK", 10_000)
            self.wait(self.mailbox.store_flags([2], b"+", [b"\\Deleted"], None))
            self.wait(self.mailbox.expunge([2]))

    def test_text_search_pauses(self) -> None:
        """A text search is made in several calls of the store, with a pause between them."""
        pauses: list[tuple[int, int]] = []

        async def pause(done: int, total: int) -> None:
            pauses.append((done, total))

        self.patch(memory_store, "MESSAGE_BODIES_PER_CALL", 2)
        self.assertEqual(self.found(TextKey("alpha"), pause=pause), [1, 2])
        self.assertEqual(len(pauses), 1)

    def test_store_that_examines_nothing(self) -> None:
        """A store that examines no message breaks its contract: that is an error, and no message is left out."""
        store: Any = self.account._store
        searched: list[Sequence[int]] = []

        def search(key: int, uids: Sequence[int], search_key: SearchKey) -> SearchResult:
            searched.append(uids)
            return SearchResult([], (), 0)

        self.patch(store, "search", search)
        self.patch(store, "sizes", lambda key, uids: SizesResult([], (), 0))
        work = Query(self.mailbox, self.view, now=NOW).run(TextKey("alpha"))
        self.failureResultOf(Deferred.fromCoroutine(work), ValueError)
        self.assertEqual(len(searched), 1)
        measuring = self.mailbox.load_sizes([1, 2])
        self.failureResultOf(Deferred.fromCoroutine(measuring), ValueError)

    def test_measuring_pauses(self) -> None:
        """Unknown sizes are measured in several calls with pauses too, because the store has to read the messages."""
        self.patch(query, "MESSAGE_BODIES_PER_CALL", 2)
        columns = self.view.columns
        for row in range(3):
            columns.sizes[row] = UNKNOWN_SIZE
        measured: list[Sequence[int]] = []
        pauses: list[tuple[int, int]] = []
        load_sizes = self.mailbox.load_sizes

        async def pause(done: int, total: int) -> None:
            pauses.append((done, total))

        def spy(uids: Sequence[int]) -> Awaitable[Sequence[int]]:
            measured.append(uids)
            return load_sizes(uids)

        self.patch(self.mailbox, "load_sizes", spy)
        self.assertEqual(self.found(SizeKey(larger=True, size=1000), pause=pause), [3])
        self.assertEqual((measured, pauses), ([[1, 2], [3]], [(2, 4)]))

    def test_many_keys_pause(self) -> None:
        """A search with many keys pauses between them too, although the columns answer each at once."""
        pauses: list[None] = []

        async def pause() -> None:
            pauses.append(None)

        self.patch(query, "MESSAGES_PER_PAUSE", 40)
        for key in (And, Or):
            keys = tuple(SizeKey(larger=True, size=9999 * (key is Or)) for _ in range(100))
            self.found(key(keys), pause=pause)
            self.assertIn(len(pauses), (9, 10))
            pauses.clear()

    def test_expunged_message_is_not_found(self) -> None:
        """A message that was expunged is not found, although the client still knows it."""
        self.mailbox.add_listener(self.view.on_change, False)
        self.wait(self.mailbox.expunge(None))
        self.assertEqual(self.found(FlagKey(b"\\Seen")), [1])
        self.assertEqual(len(self.view.uids), 4)
