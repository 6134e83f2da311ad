"""SORT and THREAD: the examples of RFC 5256 and 5267."""

from __future__ import annotations

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.search_keys import And, DateKey, FlagKey, TextKey
from imapshield.wire.commands.sort_thread import Sort, Thread
from imapshield.wire.grammar import parse


class SortTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Criteria, charset, keys; each criterion decides once."""
        self.assertEqual(
            parse([b"SORT (SUBJECT) UTF-8 SINCE 1-Feb-1994"]),
            Sort(((False, b"SUBJECT"),), DateKey(b"SINCE", date(1994, 2, 1))),
        )
        self.assertEqual(
            parse([b"UID SORT (SUBJECT reverse DATE SUBJECT) US-ASCII ALL"]),
            Sort(((False, b"SUBJECT"), (True, b"DATE")), And(()), uid=True),
        )

    def test_returns(self) -> None:
        """RFC 5267: the result options of SEARCH."""
        self.assertEqual(
            parse([b"SORT RETURN (MIN PARTIAL 1:10) (ARRIVAL) UTF-8 UNDELETED"]).returns,
            {b"MIN", b"PARTIAL"},
        )

    def test_malformed(self) -> None:
        """Sort keys that are none, and a charset left out."""
        for line in (
            b"SORT", b"SORT ()", b"SORT () UTF-8 ALL", b"SORT (FOO) UTF-8 ALL", b"SORT (REVERSE) UTF-8 ALL",
            b"SORT (REVERSE REVERSE DATE) UTF-8 ALL", b"SORT DATE UTF-8 ALL", b"SORT (DATE) UTF-8",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])
        self.assertRaises(CommandRefused, parse, [b"SORT (DATE) ALL ALL"])


class ThreadTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Both algorithms."""
        self.assertEqual(
            parse([b'THREAD REFERENCES UTF-8 TEXT "gewp"']),
            Thread(b"REFERENCES", TextKey("gewp", True)),
        )
        self.assertEqual(
            parse([b"UID THREAD orderedsubject US-ASCII SEEN"]),
            Thread(b"ORDEREDSUBJECT", FlagKey(b"\\Seen"), uid=True),
        )

    def test_malformed(self) -> None:
        """An unknown algorithm, and what is missing."""
        for line in (
            b"THREAD",
            b"THREAD FOO UTF-8 ALL",
            b"THREAD REFERENCES",
            b"THREAD REFERENCES UTF-8",
        ):
            self.assertRaises(BadCommand, parse, [line])
        self.assertRaises(CommandRefused, parse, [b"THREAD REFERENCES ALL SEEN"])
