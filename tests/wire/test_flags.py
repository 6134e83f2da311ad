"""Each flag has one canonical spelling, and nothing else is a flag."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.flags import MAX_KEYWORD_LENGTH, SYSTEM_FLAGS, canonical_flag, flag_list
from tests.wire.strategies import FLAGS, LAWS


class FlagTests(SynchronousTestCase):
    def test_system_flags_are_recognised_in_any_case(self) -> None:
        r"""System flags are recognised in any case, including \Recent."""
        for flag in (*SYSTEM_FLAGS, b"\\Recent"):
            self.assertEqual(canonical_flag(flag.lower()), flag)
            self.assertEqual(canonical_flag(flag.upper()), flag)

    def test_keywords_keep_their_spelling(self) -> None:
        """Keywords keep the spelling of the client."""
        for flag in (b"$Junk", b"junk", b"NonJunk", b"$MDNSent", b"a" * MAX_KEYWORD_LENGTH):
            self.assertEqual(canonical_flag(flag), flag)

    def test_invalid_flags_are_refused(self) -> None:
        """Flags that RFC 9051 does not permit a server to send back are refused."""
        for flag in (
            b"", b"\\", b"\\*", b"\\Foo", b"a b", b"a]", b"(", b"a\r\n", b"\xe9", b'"a"', b"a\\b",
            b"a" * (MAX_KEYWORD_LENGTH + 1),
        ):  # fmt: skip
            self.assertRaises(BadCommand, canonical_flag, flag)

    def test_list_has_system_flags_before_keywords(self) -> None:
        """A flag list has the system flags in a fixed order, then the keywords, each flag once."""
        flags = [b"$Junk", b"\\Seen", b"$junk", b"\\Answered", b"$Forwarded"]
        self.assertEqual(flag_list(flags), b"\\Answered \\Seen $Forwarded $Junk")
        self.assertEqual(flag_list([]), b"")

    @LAWS
    @given(FLAGS)
    def test_list_is_canonical(self, flags: tuple[bytes, ...]) -> None:
        """A flag list is the same list, whatever the order of the flags."""
        joined = flag_list(flags)
        self.assertEqual(flag_list(joined.split()), joined)
        by_lower = {flag.lower(): flag for flag in reversed(flags)}
        self.assertEqual(flag_list(sorted(by_lower.values(), reverse=True)), joined)
