"""The terminals accept exactly the bytes of RFC 9051; the tests try all 256 bytes."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire import abnf

CTL = set(range(32)) | set(range(127, 256))
SPECIALS = CTL | set(b'(){ %*"\\]')


def accepted(rule: re.Pattern[bytes]) -> set[int]:
    """Return the bytes that `rule` matches as a string of one byte."""
    return {i for i in range(256) if rule.fullmatch(bytes([i]))}


class TerminalTests(SynchronousTestCase):
    def test_character_classes_are_those_of_the_abnf(self) -> None:
        """ATOM-CHAR, ASTRING-CHAR, list-char and the characters of a tag are those of the ABNF."""
        everything = set(range(256))
        self.assertEqual(accepted(abnf.ATOM), everything - SPECIALS)
        self.assertEqual(accepted(abnf.ASTRING_ATOM), everything - SPECIALS | set(b"]"))
        self.assertEqual(accepted(abnf.LIST_ATOM), everything - SPECIALS | set(b"]%*"))
        self.assertEqual(accepted(abnf.TAG), everything - SPECIALS - set(b"+") | set(b"]"))

    def test_tag_has_at_most_1000_bytes(self) -> None:
        """A tag has at most 1000 bytes, and none of them is a line feed."""
        self.assertTrue(abnf.TAG.fullmatch(b"a" * 1000))
        self.assertFalse(abnf.TAG.fullmatch(b"a" * 1001))
        self.assertFalse(abnf.TAG.fullmatch(b"a\n"))

    def test_quoted_string_has_two_escapes(self) -> None:
        """A quoted string has two escapes, and contains no CR, LF or NUL (CVE-2019-11500)."""
        for octets in (b'""', b'"a b"', b'"\\""', b'"\\\\"', b'"\xff"', b'"\t"'):
            self.assertTrue(abnf.QUOTED.fullmatch(octets), octets)
        for octets in (b'"', b'"a', b'"\\a"', b'"\\"', b'"\r"', b'"\n"', b'"\0"', b'"a"b"'):
            self.assertFalse(abnf.QUOTED.fullmatch(octets), octets)
