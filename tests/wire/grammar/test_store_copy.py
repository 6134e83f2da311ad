"""STORE, COPY, MOVE and EXPUNGE."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.store_copy import Copy, Expunge, Store
from imapshield.wire.grammar import parse
from imapshield.wire.sequence import SAVED, SequenceSet
from tests.wire.grammar.typed_parse import parse_as

numbers = SequenceSet.parse


class StoreTests(SynchronousTestCase):
    def test_forms(self) -> None:
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

    def test_unchangedsince(self) -> None:
        """UNCHANGEDSINCE comes before the operation, and may be 0 (RFC 7162)."""
        self.assertEqual(
            parse([b"UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)"]),
            Store(numbers(b"4,6,8"), b"+", (b"\\Deleted",), True, True, 12121230045),
        )
        self.assertEqual(
            parse_as(Store, [b"STORE 1 (UNCHANGEDSINCE 0) FLAGS ()"]).unchanged_since, 0
        )

    def test_malformed(self) -> None:
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
    def test_forms(self) -> None:
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
    def test_forms(self) -> None:
        """EXPUNGE removes all deleted messages, and UID EXPUNGE those with the given UIDs."""
        self.assertEqual(parse([b"EXPUNGE"]), Expunge())
        self.assertEqual(parse([b"UID EXPUNGE 3000:3002"]), Expunge(numbers(b"3000:3002")))
        self.assertEqual(parse([b"UID EXPUNGE $"]), Expunge(SAVED))
        for line in (b"EXPUNGE 1", b"UID EXPUNGE", b"UID EXPUNGE x"):
            self.assertRaises(BadCommand, parse, [line])
