"""The commands about mailboxes and quotas: examples of RFC 9051, 5258, 5819, 6154, 7162 and 9208."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.mailboxes import (
    Create,
    Delete,
    GetQuota,
    GetQuotaRoot,
    List,
    Qresync,
    Rename,
    Select,
    SetQuota,
    Status,
    Subscribe,
)
from imapshield.wire.grammar import parse
from imapshield.wire.sequence import SequenceSet
from tests.wire.grammar.typed_parse import parse_as


class NameTests(SynchronousTestCase):
    def test_commands_have_one_or_two_names(self) -> None:
        """DELETE, SUBSCRIBE, UNSUBSCRIBE and RENAME have one or two names."""
        self.assertEqual(parse([b"DELETE blurdybloop"]), Delete("blurdybloop"))
        self.assertEqual(
            parse([b'SUBSCRIBE "#news.comp.mail.mime"']), Subscribe("#news.comp.mail.mime")
        )
        self.assertEqual(parse([b"UNSUBSCRIBE x"]), Subscribe("x", subscribe=False))
        self.assertEqual(parse([b"RENAME INBOX old-mail"]), Rename("INBOX", "old-mail"))
        self.assertEqual(parse([b"RENAME old new/"]), Rename("old", "new"))
        for line in (b"DELETE", b"DELETE a b", b"RENAME a", b"RENAME a b c", b"SUBSCRIBE  a"):
            self.assertRaises(BadCommand, parse, [line])

    def test_undecodable_name_is_refused_with_cannot(self) -> None:
        """A name that no mailbox can have is refused with CANNOT; it is not a syntax error."""
        for name in (b"&A-", b"&AOk", b'"\xff"'):
            error = self.assertRaises(CommandRefused, parse, [b"CREATE " + name])
            self.assertEqual(error.code, b"CANNOT")

    def test_create_returns_canonical_names_and_special_uses(self) -> None:
        """A delimiter at the end of a name is dropped; special uses are returned in canonical spelling."""
        self.assertEqual(parse([b"CREATE owatagusiam/"]), Create("owatagusiam"))
        self.assertEqual(parse([b"CREATE /"]), Create(""))
        self.assertEqual(
            parse([b"CREATE MySpecial (USE (\\drafts \\Sent))"]),
            Create("MySpecial", (b"\\Drafts", b"\\Sent")),
        )
        self.assertEqual(parse([b"CREATE x (USE ())"]), Create("x"))

    def test_unsupported_special_use_is_refused(self) -> None:
        """A special use that is unknown, or needs a view of other mailboxes, is refused with USEATTR (RFC 6154)."""
        for use in (b"\\Foo", b"\\All", b"\\Drafts \\Flagged"):
            error = self.assertRaises(CommandRefused, parse, [b"CREATE x (USE (%b))" % use])
            self.assertEqual(error.code, b"USEATTR")
        for line in (
            b"CREATE x (FOO)",
            b"CREATE x ()",
            b"CREATE x USE (\\Sent)",
            b"CREATE x (USE \\Sent)",
        ):
            self.assertRaises(BadCommand, parse, [line])


class ListTests(SynchronousTestCase):
    def test_plain_forms_are_parsed(self) -> None:
        """The forms of RFC 3501 are parsed; atoms may contain wildcards and brackets."""
        self.assertEqual(parse([b'LIST "" ""']), List("", ("",)))
        self.assertEqual(parse([b"LIST ~/Mail/ %"]), List("~/Mail/", ("%",)))
        self.assertEqual(parse([b'LIST "" a]*%']), List("", ("a]*%",)))
        self.assertEqual(
            parse([b'LIST "" ', MemoryLiteral(b"inbox/*"), b""]), List("", ("inbox/*",))
        )
        self.assertEqual(parse([b'LSUB "#news." "comp.*"']), List("#news.", ("comp.*",)))
        self.assertEqual(parse([b'LIST "" "&AOk-*"']), List("", ("é*",)))

    def test_extended_forms_are_parsed(self) -> None:
        """The options and pattern lists of RFC 5258 and the STATUS of RFC 5819 are parsed."""
        self.assertEqual(
            parse([b'LIST (SUBSCRIBED recursivematch) "" "*" RETURN (CHILDREN)']),
            List(
                "",
                ("*",),
                selection=frozenset({b"SUBSCRIBED", b"RECURSIVEMATCH"}),
                returns=frozenset({b"CHILDREN"}),
                extended=True,
            ),
        )
        self.assertEqual(
            parse([b'LIST "" (INBOX "Drafts" Sent/%)']),
            List("", ("INBOX", "Drafts", "Sent/%"), extended=True),
        )
        self.assertEqual(
            parse([b'LIST "" % RETURN (STATUS (MESSAGES UNSEEN) SPECIAL-USE)']),
            List(
                "",
                ("%",),
                returns=frozenset({b"STATUS", b"SPECIAL-USE"}),
                status_items=(b"MESSAGES", b"UNSEEN"),
                extended=True,
            ),
        )
        for line in (b'LIST () "" x', b'LIST "" (x)', b'LIST "" x RETURN ()'):
            self.assertEqual(parse([line]), List("", ("x",), extended=True))

    def test_invalid_patterns_are_accepted(self) -> None:
        """A pattern that is not modified UTF-7 is used literally, and a pattern that is too long matches no mailbox."""
        self.assertEqual(parse([b'LIST "" &A*']), List("", ("&A*",)))
        self.assertEqual(parse([b'LIST "" ' + b"*" * 1001]), List("", ("\0",)))
        self.assertEqual(parse([b"LIST " + b"a" * 1001 + b" x"]), List("\0", ("x",)))

    def test_invalid_lists_are_refused(self) -> None:
        """Unknown options, combinations without meaning, and too many patterns are refused."""
        for line in (
            b"LIST", b'LIST ""', b'LIST "" ()', b'LIST "" x y', b'LIST "" x RETURN',
            b'LIST "" x RETURN (FOO)', b'LIST (FOO) "" x', b'LIST (RECURSIVEMATCH) "" x',
            b'LIST (REMOTE RECURSIVEMATCH) "" x', b'LIST "" x RETURN (STATUS)',
            b'LIST "" x RETURN (STATUS (BOGUS))', b'LSUB "" (x)', b'LSUB "" x RETURN ()',
            b'LIST "" (' + b"x " * 40 + b"x)",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])


class StatusTests(SynchronousTestCase):
    def test_items_are_upper_case_and_unique(self) -> None:
        """Only known STATUS items are accepted; they are returned in upper case, each once."""
        self.assertEqual(
            parse([b"STATUS blurdybloop (uidnext MESSAGES UIDNEXT)"]),
            Status("blurdybloop", (b"UIDNEXT", b"MESSAGES")),
        )
        for line in (
            b"STATUS x",
            b"STATUS x ()",
            b"STATUS x (BOGUS)",
            b"STATUS x MESSAGES",
            b"STATUS x (MESSAGES",
        ):
            self.assertRaises(BadCommand, parse, [line])


numbers = SequenceSet.parse


class SelectTests(SynchronousTestCase):
    def test_select_takes_a_name_in_any_form(self) -> None:
        """SELECT and EXAMINE have a mailbox name in any form."""
        self.assertEqual(parse([b"SELECT INBOX"]), Select("INBOX"))
        self.assertEqual(parse([b'EXAMINE "inbox"']), Select("INBOX", readonly=True))
        self.assertEqual(parse([b"SELECT ", MemoryLiteral(b"a/b"), b""]), Select("a/b"))

    def test_condstore_is_a_parameter(self) -> None:
        """CONDSTORE is a parameter (RFC 7162 section 3.1.8)."""
        self.assertEqual(parse([b"SELECT INBOX (CONDSTORE)"]), Select("INBOX", condstore=True))

    def test_qresync_values_are_parsed(self) -> None:
        """The values of QRESYNC are parsed in their four forms (RFC 7162 section 3.2.5)."""
        head = b"SELECT INBOX (QRESYNC (67890007 20050715194045000"
        forms: tuple[tuple[bytes, tuple[SequenceSet | None, ...]], ...] = (
            (b"", ()),
            (b" 41,43:211,214:541", (numbers(b"41,43:211,214:541"),)),
            (b" (1 2)", (None, numbers(b"1"), numbers(b"2"))),
            (b" 41 (1,5 2,9)", (numbers(b"41"), numbers(b"1,5"), numbers(b"2,9"))),
        )
        for tail, sets in forms:
            expected = Qresync(67890007, 20050715194045000, *sets)
            self.assertEqual(parse_as(Select, [head + tail + b"))"]).qresync, expected)

    def test_invalid_parameters_are_refused(self) -> None:
        """Unknown and damaged parameters are refused; a client cannot know ``*`` or ``$``."""
        for line in (
            b"SELECT", b"SELECT a b", b"SELECT INBOX ()", b"SELECT INBOX (FOO)",
            b"SELECT INBOX (QRESYNC)", b"SELECT INBOX (QRESYNC (1))",
            b"SELECT INBOX (QRESYNC (0 1))", b"SELECT INBOX (QRESYNC (1 2 *))",
            b"SELECT INBOX (QRESYNC (1 2 $))", b"SELECT INBOX (QRESYNC (1 2 1 (1)))",
            b"SELECT INBOX (QRESYNC (1 2 (1 2) 3))", b"SELECT INBOX (QRESYNC (1 2 ))", b"SELECT *",
            b"SELECT a%",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])

    def test_undecodable_name_is_parsed_as_empty(self) -> None:
        """A name that no mailbox can have is parsed as "", so that the session still deselects the mailbox."""
        for name in (b"&A-", b"&AOk", b'"\xff"'):
            self.assertEqual(parse([b"SELECT " + name]), Select(""))


class QuotaTests(SynchronousTestCase):
    def test_quota_commands_are_parsed(self) -> None:
        """Roots are strings; resources are atoms in any case with limits of 63 bits."""
        self.assertEqual(parse([b'GETQUOTA "!partition/sda4"']), GetQuota(b"!partition/sda4"))
        self.assertEqual(parse([b"GETQUOTAROOT inbox"]), GetQuotaRoot("INBOX"))
        self.assertEqual(
            parse([b'SETQUOTA "" (STORAGE 510 x-annotation 9)']),
            SetQuota(b"", ((b"STORAGE", 510), (b"X-ANNOTATION", 9))),
        )
        self.assertEqual(parse([b"SETQUOTA r ()"]), SetQuota(b"r", ()))

    def test_invalid_quota_commands_are_refused(self) -> None:
        """Missing arguments, limits that are not numbers, and limits that are too large are refused."""
        for line in (
            b"GETQUOTA", b"GETQUOTAROOT", b"SETQUOTA", b'SETQUOTA ""', b'SETQUOTA "" STORAGE 1',
            b'SETQUOTA "" (STORAGE)', b'SETQUOTA "" (STORAGE x)',
            b'SETQUOTA "" (STORAGE 9223372036854775808)', b"GETQUOTA a b",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])
