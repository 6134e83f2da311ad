"""Flags have one spelling, and nothing else is a flag."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.flags import MAX_KEYWORD_LENGTH, SYSTEM_FLAGS, canonical_flag, flag_list
from tests.wire.strategies import FLAGS, LAWS


class FlagTests(SynchronousTestCase):
    def test_system_flags(self) -> None:
        r"""System flags are known in any case, \Recent among them."""
        for flag in (*SYSTEM_FLAGS, b"\\Recent"):
            self.assertEqual(canonical_flag(flag.lower()), flag)
            self.assertEqual(canonical_flag(flag.upper()), flag)

    def test_keywords(self) -> None:
        """Keywords stay as they were written."""
        for flag in (b"$Junk", b"junk", b"NonJunk", b"$MDNSent", b"a" * MAX_KEYWORD_LENGTH):
            self.assertEqual(canonical_flag(flag), flag)

    def test_no_flags(self) -> None:
        """What RFC 9051 does not let a server send back is refused."""
        for flag in (
            b"", b"\\", b"\\*", b"\\Foo", b"a b", b"a]", b"(", b"a\r\n", b"\xe9", b'"a"', b"a\\b",
            b"a" * (MAX_KEYWORD_LENGTH + 1),
        ):  # fmt: skip
            self.assertRaises(BadCommand, canonical_flag, flag)

    def test_list_order(self) -> None:
        """System flags come first, in their order, then keywords; none twice."""
        flags = [b"$Junk", b"\\Seen", b"$junk", b"\\Answered", b"$Forwarded"]
        self.assertEqual(flag_list(flags), b"\\Answered \\Seen $Forwarded $Junk")
        self.assertEqual(flag_list([]), b"")

    @LAWS
    @given(FLAGS)
    def test_list_is_canonical(self, flags: tuple[bytes, ...]) -> None:
        """A list of a list is itself, in whatever order it was given."""
        joined = flag_list(flags)
        self.assertEqual(flag_list(joined.split()), joined)
        once = {flag.lower(): flag for flag in reversed(flags)}
        self.assertEqual(flag_list(sorted(once.values(), reverse=True)), joined)
