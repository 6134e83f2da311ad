"""SORT and THREAD: the examples of RFC 5256 and 5267."""

from __future__ import annotations

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.search_keys import And, DateKey, FlagKey, TextKey
from imapshield.wire.commands.sort_thread import Sort, Thread
from imapshield.wire.grammar import parse
from tests.wire.grammar.typed_parse import parse_as


class SortTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """SORT has sort keys, a charset and search keys; a repeated sort key is dropped."""
        self.assertEqual(
            parse([b"SORT (SUBJECT) UTF-8 SINCE 1-Feb-1994"]),
            Sort(((False, b"SUBJECT"),), DateKey(b"SINCE", date(1994, 2, 1))),
        )
        self.assertEqual(
            parse([b"UID SORT (SUBJECT reverse DATE SUBJECT) US-ASCII ALL"]),
            Sort(((False, b"SUBJECT"), (True, b"DATE")), And(()), uid=True),
        )

    def test_result_options(self) -> None:
        """SORT has the result options of SEARCH (RFC 5267)."""
        self.assertEqual(
            parse_as(Sort, [b"SORT RETURN (MIN PARTIAL 1:10) (ARRIVAL) UTF-8 UNDELETED"]).returns,
            {b"MIN", b"PARTIAL"},
        )

    def test_malformed(self) -> None:
        """Unknown sort keys and a missing charset are refused."""
        for line in (
            b"SORT", b"SORT ()", b"SORT () UTF-8 ALL", b"SORT (FOO) UTF-8 ALL",
            b"SORT (REVERSE) UTF-8 ALL", b"SORT (REVERSE REVERSE DATE) UTF-8 ALL",
            b"SORT DATE UTF-8 ALL", b"SORT (DATE) UTF-8",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])
        self.assertRaises(CommandRefused, parse, [b"SORT (DATE) ALL ALL"])


class ThreadTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Both threading algorithms are parsed."""
        self.assertEqual(
            parse([b'THREAD REFERENCES UTF-8 TEXT "gewp"']),
            Thread(b"REFERENCES", TextKey("gewp", True)),
        )
        self.assertEqual(
            parse([b"UID THREAD orderedsubject US-ASCII SEEN"]),
            Thread(b"ORDEREDSUBJECT", FlagKey(b"\\Seen"), uid=True),
        )

    def test_malformed(self) -> None:
        """An unknown algorithm and missing arguments are refused."""
        for line in (
            b"THREAD",
            b"THREAD FOO UTF-8 ALL",
            b"THREAD REFERENCES",
            b"THREAD REFERENCES UTF-8",
        ):
            self.assertRaises(BadCommand, parse, [line])
        self.assertRaises(CommandRefused, parse, [b"THREAD REFERENCES ALL SEEN"])
