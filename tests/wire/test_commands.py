"""The base classes of commands keep literals and hide secrets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.commands.base import MemoryLiteral, Secret
from imapshield.wire.commands.login import Login


class CommandBaseTests(SynchronousTestCase):
    def test_no_repr_shows_a_password(self) -> None:
        """No repr shows a password."""
        self.assertNotIn("hunter2", repr(Login(b"me", Secret(b"hunter2"))))
        self.assertNotIn("hunter2", str(Secret(b"hunter2")))

    def test_command_cannot_be_changed(self) -> None:
        """A command cannot be changed."""
        self.assertRaises(AttributeError, setattr, Login(b"", Secret(b"")), "user", b"root")

    def test_memory_literal_is_read_by_offset(self) -> None:
        """A literal in memory is read by offset, with fewer bytes at its end; closing it is harmless."""
        literal = MemoryLiteral(b"abcdef")
        self.assertEqual((literal.size, literal.binary), (6, False))
        self.assertEqual(literal.read(0, 3), b"abc")
        self.assertEqual(literal.read(4, 9), b"ef")
        self.assertEqual(literal.read(9, 9), b"")
        literal.close()
        self.assertEqual(literal.content, b"abcdef")
