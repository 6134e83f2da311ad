"""APPEND, REPLACE, STORE, COPY, MOVE and EXPUNGE."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.messages import Append, AppendMessage, Copy, Expunge, Replace, Store
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import parse
from imapshield.wire.sequence import SAVED, SequenceSet
from tests.wire.grammar.typed_parse import parse_as
from tests.wire.part_writer import Parts

MAIL = MemoryLiteral(b"Subject: x\r\n\r\n")
DATE = b'"17-Jul-1996 02:44:25 -0700"'


class AppendTests(SynchronousTestCase):
    def test_flags_and_date_are_optional(self) -> None:
        """Flags and date of APPEND are both optional."""
        for text, message in (
            (b"APPEND saved ", AppendMessage((), None, MAIL)),
            (b"APPEND saved () ", AppendMessage((), None, MAIL)),
            (b"APPEND saved (\\seen $Junk) ", AppendMessage((b"\\Seen", b"$Junk"), None, MAIL)),
            (b"APPEND saved " + DATE + b" ", AppendMessage((), 837596665, MAIL)),
            (
                b"APPEND saved (\\Seen) " + DATE + b" ",
                AppendMessage((b"\\Seen",), 837596665, MAIL),
            ),
        ):
            self.assertEqual(parse([text, MAIL, b""]), Append("saved", (message,)))

    def test_recent_is_ignored(self) -> None:
        r"""\Recent, which copying tools send, is ignored."""
        parsed = parse_as(Append, [b"APPEND x (\\Recent \\Seen) ", MAIL, b""])
        self.assertEqual(parsed.messages[0].flags, (b"\\Seen",))

    def test_multiappend_has_several_messages(self) -> None:
        """APPEND has several messages (RFC 3502), up to the limit."""
        parsed = parse_as(
            Append, [b"APPEND x (\\Seen) ", MAIL, b" (\\Flagged) ", MemoryLiteral(b"2"), b""]
        )
        self.assertEqual(
            [message.flags for message in parsed.messages], [(b"\\Seen",), (b"\\Flagged",)]
        )
        limits = GrammarLimits(max_append_messages=1)
        self.assertRaises(BadCommand, parse, [b"APPEND x ", MAIL, b" ", MAIL, b""], limits=limits)

    def test_mailbox_name_may_be_a_literal(self) -> None:
        """The mailbox name may be a literal too."""
        parsed = parse([b"APPEND ", MemoryLiteral(b"inbox"), b" ", MAIL, b""])
        self.assertEqual(parsed, Append("INBOX", (AppendMessage((), None, MAIL),)))

    def test_literal8_is_a_message(self) -> None:
        """A literal8 with NUL is a message, alone or as UTF8 data (RFC 3516, RFC 6855)."""
        mail = MemoryLiteral(b"a\0", binary=True)
        commands: list[Parts] = [
            [b"APPEND x ", mail, b""],
            [b"APPEND x (\\Seen) UTF8 (", mail, b")"],
        ]
        for parts in commands:
            self.assertIs(parse_as(Append, parts).messages[0].content, mail)

    def test_invalid_append_is_refused(self) -> None:
        """No message, no space, an invalid date, and text after the message are refused."""
        for parts in (
            [b"APPEND x"], [b"APPEND x (\\Seen)"], [b'APPEND x "hello"'], [b"APPEND x hello"],
            [b"APPEND x (\\Seen)", MAIL, b""], [b"APPEND x " + DATE, MAIL, b""],
            [b"APPEND x ", MAIL, b"x"], [b'APPEND x "17-Jul-96" ', MAIL, b""],
            [b"APPEND x (\\Foo) ", MAIL, b""], [b"APPEND x ", MAIL, b"", MAIL, b""],
            [b"APPEND ", MemoryLiteral(b"x"), b""], [b"APPEND x UTF8 (", MAIL, b""],
            [b"APPEND x ", MAIL, b" (\\Seen)"],
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, parts)


class ReplaceTests(SynchronousTestCase):
    def test_replace_has_a_number_a_mailbox_and_a_message(self) -> None:
        """REPLACE has a number or ``*``, a mailbox, and one message as in APPEND (RFC 8508)."""
        message = AppendMessage((b"\\Draft",), 837596665, MAIL)
        parts: Parts = [b"REPLACE 4 Drafts (\\Draft) " + DATE + b" ", MAIL, b""]
        self.assertEqual(parse(parts), Replace(4, "Drafts", message))
        parsed = parse([b"UID REPLACE * inbox ", MAIL, b""])
        self.assertEqual(parsed, Replace(None, "INBOX", AppendMessage((), None, MAIL), uid=True))

    def test_invalid_replace_is_refused(self) -> None:
        """REPLACE of no message or several messages, and several new messages, are refused."""
        for start in (
            b"REPLACE 1:2 x ",
            b"REPLACE 1,2 x ",
            b"REPLACE 0 x ",
            b"REPLACE $ x ",
            b"REPLACE x ",
        ):
            self.assertRaises(BadCommand, parse, [start, MAIL, b""])
        self.assertRaises(BadCommand, parse, [b"REPLACE 1 x ", MAIL, b" ", MAIL, b""])


class CatenateTests(SynchronousTestCase):
    def test_parts_make_one_message(self) -> None:
        """Literals, UTF8 data and URLs make one message of several (RFC 3502)."""
        mail = MemoryLiteral(b"a\0", binary=True)
        parsed = parse_as(
            Append,
            [b"APPEND x (\\Seen) CATENATE (text ", MAIL, b' URL "/a" Utf8 (', mail, b") URL ",
             MemoryLiteral(b";UID=1"), b") ", MAIL, b""]
        )  # fmt: skip
        parts = (MAIL, b"/a", mail, b";UID=1")
        self.assertEqual([message.content for message in parsed.messages], [parts, MAIL])

    def test_invalid_parts_are_refused(self) -> None:
        """Other parts, no parts, and more URLs than FETCH items are permitted are refused."""
        for parts in (
            [b"APPEND x CATENATE ()"], [b"APPEND x CATENATE (MAIL ", MAIL, b")"],
            [b"APPEND x CATENATE (TEXT ", MAIL, b""], [b"APPEND x CATENATE (TEXT a)"],
            [b"APPEND x CATENATE ", MAIL, b""],
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, parts)
        parse([b"APPEND x CATENATE (URL a URL b)"], limits=GrammarLimits(max_fetch_items=2))
        limits = GrammarLimits(max_fetch_items=1)
        self.assertRaises(BadCommand, parse, [b"APPEND x CATENATE (URL a URL b)"], limits=limits)


numbers = SequenceSet.parse


class StoreTests(SynchronousTestCase):
    def test_store_has_three_operations(self) -> None:
        """STORE has three operations, silent or not, with flags in parentheses or without."""
        one = numbers(b"1")
        for line, store in (
            (b"STORE 1 FLAGS (\\Seen)", Store(one, b"", (b"\\Seen",))),
            (b"STORE 1 FLAGS \\Seen", Store(one, b"", (b"\\Seen",))),
            (b"STORE 1 flags ()", Store(one, b"", ())),
            (
                b"STORE 1 +FLAGS.SILENT (\\deleted a)",
                Store(one, b"+", (b"\\Deleted", b"a"), silent=True),
            ),
            (b"STORE 1 -Flags \\Seen foo", Store(one, b"-", (b"\\Seen", b"foo"))),
            (b"UID STORE $ +FLAGS (x x)", Store(SAVED, b"+", (b"x",), uid=True)),
        ):
            self.assertEqual(parse([line]), store)

    def test_unchangedsince_precedes_the_operation(self) -> None:
        """UNCHANGEDSINCE comes before the operation, and may be 0 (RFC 7162)."""
        self.assertEqual(
            parse([b"UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)"]),
            Store(numbers(b"4,6,8"), b"+", (b"\\Deleted",), True, True, 12121230045),
        )
        self.assertEqual(
            parse_as(Store, [b"STORE 1 (UNCHANGEDSINCE 0) FLAGS ()"]).unchanged_since, 0
        )

    def test_invalid_store_is_refused(self) -> None:
        r"""Unknown operations and modifiers, missing flags, and \Recent are refused."""
        for line in (
            b"STORE", b"STORE 1", b"STORE 1 FLAGS", b"STORE 1 FLAGS ", b"STORE 1 FOO (\\Seen)",
            b"STORE 1 ++FLAGS (x)", b"STORE 1 FLAGS.LOUD (x)", b"STORE 1 FLAGSX (x)",
            b"STORE 1 FLAGS(x)", b"STORE 1 FLAGS (\\Recent)", b"STORE 1 FLAGS (\\Foo)",
            b"STORE 1 FLAGS (\\*)", b"STORE 0 FLAGS (x)", b"STORE 1 (FOO 1) FLAGS (x)",
            b"STORE 1 () FLAGS (x)", b"STORE 1 (UNCHANGEDSINCE 1 UNCHANGEDSINCE 2) FLAGS (x)",
            b"STORE 1 (UNCHANGEDSINCE -1) FLAGS (x)", b'STORE 1 FLAGS ("x")',
            b"STORE 1 FLAGS (x) y", b"STORE x FLAGS (x)",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])


class CopyTests(SynchronousTestCase):
    def test_copy_and_move_take_a_message_set(self) -> None:
        """COPY and MOVE take sequence numbers, UIDs or the saved result."""
        self.assertEqual(parse([b"COPY 2:4 MEETING"]), Copy(numbers(b"2:4"), "MEETING"))
        self.assertEqual(
            parse([b"UID MOVE 42:69 inbox"]),
            Copy(numbers(b"42:69"), "INBOX", uid=True, is_move=True),
        )
        self.assertEqual(parse([b"UID COPY $ x"]), Copy(SAVED, "x", uid=True))
        self.assertEqual(parse([b"MOVE * x"]), Copy(numbers(b"*"), "x", is_move=True))
        for line in (b"COPY", b"COPY 1", b"COPY 1 a b", b"COPY a 1", b"COPY $1 a"):
            self.assertRaises(BadCommand, parse, [line])


class ExpungeTests(SynchronousTestCase):
    def test_expunge_takes_uids_or_nothing(self) -> None:
        """EXPUNGE removes all deleted messages, and UID EXPUNGE removes those with the given UIDs."""
        self.assertEqual(parse([b"EXPUNGE"]), Expunge())
        self.assertEqual(parse([b"UID EXPUNGE 3000:3002"]), Expunge(numbers(b"3000:3002")))
        self.assertEqual(parse([b"UID EXPUNGE $"]), Expunge(SAVED))
        for line in (b"EXPUNGE 1", b"UID EXPUNGE", b"UID EXPUNGE x"):
            self.assertRaises(BadCommand, parse, [line])
