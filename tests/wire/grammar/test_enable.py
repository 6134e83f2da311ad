"""ID, ENABLE and COMPRESS."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.enable import Compress, Enable, Id
from imapshield.wire.grammar import parse
from tests.wire.grammar.typed_parse import parse_as


class EnableTests(SynchronousTestCase):
    def test_names(self) -> None:
        """ENABLE has at least one capability name; they are returned in upper case, each once."""
        self.assertEqual(
            parse([b"ENABLE condstore X-FOO CONDSTORE"]), Enable((b"CONDSTORE", b"X-FOO"))
        )
        self.assertEqual(parse([b"ENABLE UTF8=ACCEPT"]), Enable((b"UTF8=ACCEPT",)))
        for line in (b"ENABLE", b"ENABLE ", b"ENABLE (CONDSTORE)", b"ENABLE A  B"):
            self.assertRaises(BadCommand, parse, [line])


class IdTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """RFC 2971's example, NIL, an empty list, and spaces inside the parentheses are parsed."""
        self.assertEqual(
            parse([b'ID ("name" "sodr" "version" "19.34" "vendor" NIL)']),
            Id(((b"name", b"sodr"), (b"version", b"19.34"), (b"vendor", None))),
        )
        self.assertEqual(parse([b"ID NIL"]), Id(()))
        self.assertEqual(parse([b"ID ()"]), Id(()))
        self.assertEqual(parse([b'ID ( "name" "aioimaplib" )']), Id(((b"name", b"aioimaplib"),)))

    def test_malformed(self) -> None:
        """A name without its value, NIL as a name, 31 fields, and parentheses without end are refused."""
        self.assertEqual(
            len(parse_as(Id, [b"ID (" + b" ".join([b'"a" NIL'] * 30) + b")"]).fields), 30
        )
        for line in (
            b"ID", b'ID ("a")', b"ID (NIL NIL)", b"ID (" + b" ".join([b'"a" NIL'] * 31) + b")",
            b"ID ((((", b"ID (" * 4000,
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])


class CompressTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """The algorithm is an atom in any case; the session decides whether it is supported."""
        self.assertEqual(parse([b"COMPRESS deflate"]), Compress(b"DEFLATE"))
        for line in (b"COMPRESS", b"COMPRESS ", b"COMPRESS (DEFLATE)", b"COMPRESS DEFLATE 9"):
            self.assertRaises(BadCommand, parse, [line])
