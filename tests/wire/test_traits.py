"""The name of a command determines how its input is treated."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.traits import (
    TRAITS,
    CommandTraits,
    log_sample,
    may_be_long_before_login,
    traits_of,
)


class TraitsTests(SynchronousTestCase):
    def names_with(self, trait: str) -> set[bytes]:
        return {name for name in TRAITS if getattr(traits_of(name), trait)}

    def test_every_command_has_the_traits_that_it_needs(self) -> None:
        """Each trait belongs to the commands that need it, and every command of the table has a trait."""
        self.assertEqual(
            self.names_with("suspends_input"),
            {b"AUTHENTICATE", b"COMPRESS", b"IDLE", b"STARTTLS", b"UNAUTHENTICATE"},
        )
        self.assertEqual(self.names_with("carries_messages"), {b"APPEND", b"REPLACE"})
        self.assertEqual(self.names_with("carries_metadata"), {b"SETMETADATA"})
        self.assertEqual(self.names_with("long_before_login"), {b"ID"})
        self.assertEqual(self.names_with("secret"), {b"AUTHENTICATE", b"LOGIN"})
        self.assertNotIn(CommandTraits(), TRAITS.values())

    def test_unlisted_command_has_no_traits(self) -> None:
        """A command that is not in the table has no traits, and neither has an unreadable command."""
        for name in (b"NOOP", b"FETCH", b"XYZZY", b""):
            self.assertEqual(traits_of(name), CommandTraits())

    def test_only_id_may_be_long_before_login(self) -> None:
        """Only the beginning of an ID command with parameters permits a long line before login."""
        for line in (b"a ID (", b'tag id ("name" "x"'):
            self.assertTrue(may_be_long_before_login(line), line)
        for line in (
            b"",
            b"a",
            b"a ID",
            b"a ID NIL",
            b"a IDLE (",
            b"a NOOP ID (",
            b"ID (",
            b"a  ID (",
        ):
            self.assertFalse(may_be_long_before_login(line), line)

    def test_log_sample(self) -> None:
        """Only the tag and the name of a known command without a password may be logged."""
        self.assertEqual(log_sample(b"a", b"FETCH"), b"a FETCH")
        for tag, name in (
            (b"a", b"LOGIN"),
            (b"a", b"AUTHENTICATE"),
            (b"LOGIN", b"ALICE"),
            (b"secret", b""),
            (None, b"FETCH"),
        ):
            self.assertEqual(log_sample(tag, name), b"", name)
