"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.quota import GetQuota, GetQuotaRoot, SetQuota
from imapshield.wire.grammar import parse


class QuotaTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """Roots are strings; resources are atoms in any case with limits of 63 bits."""
        self.assertEqual(parse([b'GETQUOTA "!partition/sda4"']), GetQuota(b"!partition/sda4"))
        self.assertEqual(parse([b"GETQUOTAROOT inbox"]), GetQuotaRoot("INBOX"))
        self.assertEqual(
            parse([b'SETQUOTA "" (STORAGE 510 x-annotation 9)']),
            SetQuota(b"", ((b"STORAGE", 510), (b"X-ANNOTATION", 9))),
        )
        self.assertEqual(parse([b"SETQUOTA r ()"]), SetQuota(b"r", ()))

    def test_malformed(self) -> None:
        """Missing arguments, limits that are no numbers, and limits that are too large are refused."""
        for line in (
            b"GETQUOTA", b"GETQUOTAROOT", b"SETQUOTA", b'SETQUOTA ""', b'SETQUOTA "" STORAGE 1',
            b'SETQUOTA "" (STORAGE)', b'SETQUOTA "" (STORAGE x)',
            b'SETQUOTA "" (STORAGE 9223372036854775808)', b"GETQUOTA a b",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])
