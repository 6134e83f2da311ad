"""The name of a command determines how its input is treated."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.traits import (
    TRAITS,
    CommandTraits,
    may_be_logged,
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

    def test_line_with_a_password_may_not_be_logged(self) -> None:
        """A line that may hold a password may not be logged."""
        for line in (b"a login alice secret", b"a LOGIN", b"a AUTHENTICATE PLAIN AGFs"):
            self.assertFalse(may_be_logged(line), line)
        for line in (b"a NOOP", b"login", b"", b"a b LOGIN"):
            self.assertTrue(may_be_logged(line), line)
