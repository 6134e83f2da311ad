"""Base subjects and sort keys follow RFC 5256 for any message, and take linear time."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.sort_order import (
    address_key,
    base_subject,
    collation_key,
    date_key,
    display_key,
    message_ids,
    references,
    sort_by_keys,
)
from tests.mailbox.pausing import pause, run


class BaseSubjectTests(SynchronousTestCase):
    def test_prefixes_and_list_names_are_removed(self) -> None:
        """Reply and forward prefixes, list names and spaces are removed; everything else stays."""
        for subject, base, reply in (
            ("Lunch", "Lunch", False),
            ("", "", False),
            ("  two \t\r\n words ", "two words", False),
            ("two\xa0\xa0words\u3000", "two\xa0\xa0words\u3000", False),
            ("Re: Lunch", "Lunch", True),
            ("RE : lunch", "lunch", True),
            ("Re[2]: Lunch", "Lunch", True),
            ("re [x] : Lunch", "Lunch", True),
            ("fw: Fwd: FW: Lunch", "Lunch", True),
            ("[list] Lunch", "Lunch", False),
            ("[list] Re: [list] Lunch", "Lunch", True),
            ("Re: [a] [b] Re: x", "x", True),
            ("[a] [b]", "[b]", False),
            ("[list]", "[list]", False),
            ("Re: [list]", "[list]", True),
            ("Lunch (fwd)", "Lunch", True),
            ("Lunch (fwd) (FWD) ", "Lunch", True),
            ("[fwd: Lunch]", "Lunch", True),
            ("[Fwd: [Fwd: Re: Lunch (fwd)]]", "Lunch", True),
            ("Re:", "", True),
            ("(fwd)", "", True),
            ("Reply: x", "Reply: x", False),
            ("Re x: y", "Re x: y", False),
            ("[unfinished Re: x", "[unfinished Re: x", False),
            ("İ [fwd: x]", "İ [fwd: x]", False),
        ):
            self.assertEqual(base_subject(subject), (base, reply), subject)

    def test_hostile_subject_costs_linear_time(self) -> None:
        """A subject that was designed to be slow takes linear time."""
        for prefix in ("[a]", "re:", "re[a]:", "[fwd:", "(fwd)", "[", "] ", "[a] re", "re [a] "):
            base_subject(prefix * 100_000)
            base_subject(prefix * 100_000 + "]" * 100_000)
            base_subject("x" + prefix * 100_000)

    @given(st.text(alphabet="[]ref wd:()a", max_size=40))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_base_subject_is_idempotent(self, subject: str) -> None:
        """The base subject of a base subject is itself."""
        base, _ = base_subject(subject)
        self.assertEqual(base_subject(base), (base, False))


class SortKeyTests(SynchronousTestCase):
    def test_dates_are_compared_as_instants(self) -> None:
        """Dates are compared as instants. A missing zone is UTC, and an unreadable date is replaced by INTERNALDATE."""
        self.assertEqual(date_key(b"Date: Thu, 1 Jan 1970 01:00:10 +0100\r\n", 5), 10)
        self.assertEqual(date_key(b"date:\r\n 1 Jan 1970 00:00:20\r\n", 5), 20)
        for header in (
            b"",
            b"Date: never\r\n",
            b"Date: 99 Foo 99999999999 00:00\r\n",
            b"Date:\r\n",
            b"Date: 1 Jan 2010 59:10 +0000\r\n",
        ):
            self.assertEqual(date_key(header, 5), 5, header)
        twice = b"Date: 1 Jan 1970 00:00:01\r\nDate: 1 Jan 1970 00 (h) : 00:02\r\n"
        self.assertEqual(date_key(twice, 5), 2)

    def test_address_key_is_the_first_mailbox_or_group(self) -> None:
        """The address key is the first mailbox or group name; the display key is the first display name, or else the
        address."""
        for field, mailbox, display in (
            (b"Ann Lee <ann@x.org>, bob@y.org", "ANN", "ANN LEE"),
            (b"bob@y.org", "BOB", "BOB@Y.ORG"),
            (b"=?utf-8?q?=C3=84nn?= <z@x.org>", "Z", collation_key("Änn")),
            (b"=?utf-8?q??= <zoe@x.org>", "ZOE", "ZOE@X.ORG"),
            (b"Friends: ann@x.org;", "FRIENDS", "FRIENDS"),
            (b"", "", ""),
        ):
            header = b"From: " + field + b"\r\n\r\n"
            self.assertEqual(address_key(header, b"FROM"), mailbox, field)
            self.assertEqual(display_key(header, b"FROM"), display, field)
        self.assertEqual(display_key(b"\r\n", b"TO"), "")

    def test_collation_ignores_case(self) -> None:
        """Case is ignored, an accented letter follows its base letter, and ``_`` follows the letters (RFC 5051)."""
        self.assertEqual(collation_key("aBc"), collation_key("Abc"))
        self.assertEqual(collation_key("É"), collation_key("e\u0301"))
        self.assertLess(collation_key("z"), collation_key("_"))

    def test_message_ids_are_read_in_any_spelling(self) -> None:
        """Message ids are read in any spelling. In-Reply-To counts only without References, and only its first id."""
        self.assertEqual(message_ids(b'Message-ID: <"a\\b"@x>\r\n', b"message-id"), [b"ab@x"])
        self.assertEqual(
            references(b"References: <1@x>\r\n <2@x>\r\nIn-Reply-To: <3@x>\r\n"), [b"1@x", b"2@x"]
        )
        self.assertEqual(
            references(b"References: none\r\nIn-Reply-To: you <3@x> <4@x>\r\n"), [b"3@x"]
        )


class SortTests(SynchronousTestCase):
    def test_equal_messages_keep_the_mailbox_order(self) -> None:
        """Every key has its own direction, and equal messages keep the mailbox's order, reversed or not."""
        numbers = [1, 2, 3, 4]
        self.assertEqual(run(sort_by_keys(numbers, [(True, [1, 2, 1, 2])], pause)), [2, 4, 1, 3])
        keys: list[tuple[bool, list[Any]]] = [(False, ["b", "a", "b", "a"]), (True, [1, 2, 3, 4])]
        self.assertEqual(run(sort_by_keys(numbers, keys, pause)), [4, 2, 3, 1])
