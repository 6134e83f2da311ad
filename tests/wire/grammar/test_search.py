"""SEARCH, ESEARCH, SORT, THREAD and CANCELUPDATE, with result options."""

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.fetch import Attribute
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.commands.search import (
    And,
    CancelUpdate,
    DateKey,
    FlagKey,
    MultiSearch,
    Not,
    Search,
    Sort,
    TextKey,
    Thread,
)
from imapshield.wire.grammar import parse
from tests.wire.grammar.typed_parse import parse_as

SEEN, DRAFT = FlagKey(b"\\Seen"), FlagKey(b"\\Draft")
ANSWERED, DELETED = FlagKey(b"\\Answered"), FlagKey(b"\\Deleted")


class ResultOptionTests(SynchronousTestCase):
    def test_result_options_are_parsed(self) -> None:
        """The result options of RFC 4731, 5182 and 9394 are parsed; () is ALL."""
        cases: tuple[tuple[bytes, set[bytes] | None, tuple[int, int] | None], ...] = (
            (b"", None, None),
            (b"RETURN () ", {b"ALL"}, None),
            (b"RETURN (min COUNT) ", {b"MIN", b"COUNT"}, None),
            (b"RETURN (SAVE) ", {b"SAVE"}, None),
            (b"RETURN (update CONTEXT COUNT) ", {b"UPDATE", b"CONTEXT", b"COUNT"}, None),
            (b"RETURN (PARTIAL 500:1 COUNT) ", {b"PARTIAL", b"COUNT"}, (1, 500)),
            (b"RETURN (PARTIAL -1:-100) ", {b"PARTIAL"}, (-1, -100)),
        )
        for text, returns, partial in cases:
            parsed = parse([b"UID SEARCH " + text + b"CHARSET UTF-8 SEEN"])
            options = None if returns is None else frozenset(returns)
            self.assertEqual(parsed, Search(SEEN, True, options, partial))

    def test_invalid_result_options_are_refused(self) -> None:
        """Unknown options, options that cannot be combined, and a charset before RETURN are refused."""
        for text in (
            b"RETURN ALL", b"RETURN (FOO) ALL", b"RETURN ()", b"RETURN (PARTIAL) ALL",
            b"RETURN (PARTIAL 0:1) ALL", b"RETURN (ALL PARTIAL 1:2) ALL",
            b"CHARSET UTF-8 RETURN () ALL", b"CHARSET UTF-8", b"CHARSET", b"RETURN",
            b"RETURN (PARTIAL 1:-2) ALL", b"RETURN (PARTIAL 1) ALL",
            b"RETURN (PARTIAL 1:2 PARTIAL 3:4) ALL", b"RETURN (UPDATE ()) ALL",
            b"RETURN (UPDATE (UID) ALL", b"RETURN (COUNT (UID)) ALL",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [b"SEARCH " + text])

    def test_update_may_have_fetch_items(self) -> None:
        """UPDATE may have FETCH items, with a space as in RFC 5465 section 7, or without as in section 8."""
        for text in (b"UPDATE (UID FLAGS uid)", b"UPDATE(UID FLAGS)"):
            parsed = parse_as(Sort, [b"SORT RETURN (COUNT " + text + b") (DATE) UTF-8 SEEN"])
            self.assertEqual(parsed.returns, {b"COUNT", b"UPDATE"})
            self.assertEqual(parsed.update_items, (Attribute(b"UID"), Attribute(b"FLAGS")))


class CancelUpdateTests(SynchronousTestCase):
    def test_cancelupdate_has_quoted_tags(self) -> None:
        """CANCELUPDATE has at least one tag, in quotes (RFC 5267)."""
        self.assertEqual(parse([b'CANCELUPDATE "B01" "B]02"']), CancelUpdate((b"B01", b"B]02")))
        for line in (
            b"CANCELUPDATE",
            b"CANCELUPDATE B01",
            b'CANCELUPDATE "B01""B02"',
            b"CANCELUPDATE ",
        ):
            self.assertRaises(BadCommand, parse, [line])


ALL = frozenset({b"ALL"})
UNSEEN = Not(FlagKey(b"\\Seen"))


class ESearchTests(SynchronousTestCase):
    def test_esearch_has_filters_options_and_keys(self) -> None:
        """ESEARCH has mailbox filters (by default, the selected mailbox), result options and search keys."""
        for line, command in (
            (b"ESEARCH ALL", MultiSearch((MailboxFilter(b"SELECTED"),), And(()), ALL)),
            (
                b'ESEARCH IN (mailboxes "folder1" subtree "folder2") unseen',
                MultiSearch(
                    (
                        MailboxFilter(b"MAILBOXES", frozenset({"folder1"})),
                        MailboxFilter(b"SUBTREE", frozenset({"folder2"})),
                    ),
                    UNSEEN,
                    ALL,
                ),
            ),
            (
                b"ESEARCH IN (mailboxes (a inbox) personal) RETURN (COUNT PARTIAL 1:9) CHARSET UTF-8 unseen",
                MultiSearch(
                    (
                        MailboxFilter(b"MAILBOXES", frozenset({"a", "INBOX"})),
                        MailboxFilter(b"PERSONAL"),
                    ),
                    UNSEEN,
                    frozenset({b"COUNT", b"PARTIAL"}),
                    (1, 9),
                ),
            ),
        ):
            self.assertEqual(parse([line]), command)

    def test_invalid_filters_are_refused(self) -> None:
        """Unknown filters, and names where none are permitted or some are missing, are refused."""
        for line in (
            b"ESEARCH", b"ESEARCH IN", b"ESEARCH IN () ALL", b"ESEARCH IN (nowhere) ALL",
            b"ESEARCH IN (mailboxes) ALL", b"ESEARCH IN (mailboxes ()) ALL",
            b"ESEARCH IN (personal", b"ESEARCH IN (selected-delayed) ALL",
            b"ESEARCH IN (personal (scope)) ALL", b"ESEARCH IN (personal)",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])

    def test_mailbox_filters_are_limited(self) -> None:
        """Too many mailbox filters are refused (RFC 7377 section 2.4)."""
        error = self.assertRaises(
            CommandRefused, parse, [b"ESEARCH IN (inboxes" + b" personal" * 32 + b") ALL"]
        )
        self.assertEqual(error.code, b"LIMIT")


class SortTests(SynchronousTestCase):
    def test_sort_has_keys_and_a_charset(self) -> None:
        """SORT has sort keys, a charset and search keys; a repeated sort key is dropped."""
        self.assertEqual(
            parse([b"SORT (SUBJECT) UTF-8 SINCE 1-Feb-1994"]),
            Sort(((False, b"SUBJECT"),), DateKey(b"SINCE", date(1994, 2, 1))),
        )
        self.assertEqual(
            parse([b"UID SORT (SUBJECT reverse DATE SUBJECT) US-ASCII ALL"]),
            Sort(((False, b"SUBJECT"), (True, b"DATE")), And(()), uid=True),
        )

    def test_sort_has_the_result_options_of_search(self) -> None:
        """SORT has the result options of SEARCH (RFC 5267)."""
        self.assertEqual(
            parse_as(Sort, [b"SORT RETURN (MIN PARTIAL 1:10) (ARRIVAL) UTF-8 UNDELETED"]).returns,
            {b"MIN", b"PARTIAL"},
        )

    def test_invalid_sort_is_refused(self) -> None:
        """Unknown sort keys and a missing charset are refused."""
        for line in (
            b"SORT", b"SORT ()", b"SORT () UTF-8 ALL", b"SORT (FOO) UTF-8 ALL",
            b"SORT (REVERSE) UTF-8 ALL", b"SORT (REVERSE REVERSE DATE) UTF-8 ALL",
            b"SORT DATE UTF-8 ALL", b"SORT (DATE) UTF-8",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])
        self.assertRaises(CommandRefused, parse, [b"SORT (DATE) ALL ALL"])


class ThreadTests(SynchronousTestCase):
    def test_both_algorithms_are_parsed(self) -> None:
        """Both threading algorithms are parsed."""
        self.assertEqual(
            parse([b'THREAD REFERENCES UTF-8 TEXT "gewp"']),
            Thread(b"REFERENCES", TextKey("gewp", True)),
        )
        self.assertEqual(
            parse([b"UID THREAD orderedsubject US-ASCII SEEN"]),
            Thread(b"ORDEREDSUBJECT", FlagKey(b"\\Seen"), uid=True),
        )

    def test_invalid_thread_is_refused(self) -> None:
        """An unknown algorithm and missing arguments are refused."""
        for line in (
            b"THREAD",
            b"THREAD FOO UTF-8 ALL",
            b"THREAD REFERENCES",
            b"THREAD REFERENCES UTF-8",
        ):
            self.assertRaises(BadCommand, parse, [line])
        self.assertRaises(CommandRefused, parse, [b"THREAD REFERENCES ALL SEEN"])
