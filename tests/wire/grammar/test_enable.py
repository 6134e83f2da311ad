"""ID, ENABLE and COMPRESS."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.enable import Compress, Enable, Id
from imapshield.wire.grammar import parse


class EnableTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Names in upper case, each once; at least one."""
        self.assertEqual(
            parse([b"ENABLE condstore X-FOO CONDSTORE"]), Enable((b"CONDSTORE", b"X-FOO"))
        )
        self.assertEqual(parse([b"ENABLE UTF8=ACCEPT"]), Enable((b"UTF8=ACCEPT",)))
        for line in (b"ENABLE", b"ENABLE ", b"ENABLE (CONDSTORE)", b"ENABLE A  B"):
            self.assertRaises(BadCommand, parse, [line])


class IdTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """RFC 2971's example, NIL, and an empty list."""
        self.assertEqual(
            parse([b'ID ("name" "sodr" "version" "19.34" "vendor" NIL)']),
            Id(((b"name", b"sodr"), (b"version", b"19.34"), (b"vendor", None))),
        )
        self.assertEqual(parse([b"ID NIL"]), Id(()))
        self.assertEqual(parse([b"ID ()"]), Id(()))
        self.assertEqual(parse([b'ID ( "name" "aioimaplib" )']), Id(((b"name", b"aioimaplib"),)))

    def test_malformed(self) -> None:
        """A name without its value, a name that is NIL, 31 fields, parentheses without end."""
        self.assertEqual(len(parse([b"ID (" + b" ".join([b'"a" NIL'] * 30) + b")"]).fields), 30)
        for line in (
            b"ID", b'ID ("a")', b"ID (NIL NIL)", b"ID (" + b" ".join([b'"a" NIL'] * 31) + b")",
            b"ID ((((", b"ID (" * 4000,
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])


class CompressTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """An atom in any case; whether it is known is not the grammar's business."""
        self.assertEqual(parse([b"COMPRESS deflate"]), Compress(b"DEFLATE"))
        for line in (b"COMPRESS", b"COMPRESS ", b"COMPRESS (DEFLATE)", b"COMPRESS DEFLATE 9"):
            self.assertRaises(BadCommand, parse, [line])
