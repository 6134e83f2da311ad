"""SORT and THREAD: the examples of RFC 5256 and 5267."""

from __future__ import annotations

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import Malformed, Refused
from imapshield.wire.commands import AllOf, DateIs, HasFlag, Sort, TextHas, Thread
from imapshield.wire.grammar import parse


class SortTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Criteria, charset, keys; each criterion decides once."""
        self.assertEqual(
            parse([b"SORT (SUBJECT) UTF-8 SINCE 1-Feb-1994"]),
            Sort(((False, b"SUBJECT"),), DateIs(b"SINCE", date(1994, 2, 1))),
        )
        self.assertEqual(
            parse([b"UID SORT (SUBJECT reverse DATE SUBJECT) US-ASCII ALL"]),
            Sort(((False, b"SUBJECT"), (True, b"DATE")), AllOf(()), uid=True),
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
            self.assertRaises(Malformed, parse, [line])
        self.assertRaises(Refused, parse, [b"SORT (DATE) ALL ALL"])


class ThreadTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Both algorithms."""
        self.assertEqual(
            parse([b'THREAD REFERENCES UTF-8 TEXT "gewp"']),
            Thread(b"REFERENCES", TextHas("gewp", True)),
        )
        self.assertEqual(
            parse([b"UID THREAD orderedsubject US-ASCII SEEN"]),
            Thread(b"ORDEREDSUBJECT", HasFlag(b"\\Seen"), uid=True),
        )

    def test_malformed(self) -> None:
        """An unknown algorithm, and what is missing."""
        for line in (
            b"THREAD",
            b"THREAD FOO UTF-8 ALL",
            b"THREAD REFERENCES",
            b"THREAD REFERENCES UTF-8",
        ):
            self.assertRaises(Malformed, parse, [line])
        self.assertRaises(Refused, parse, [b"THREAD REFERENCES ALL SEEN"])
