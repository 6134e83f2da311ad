"""The values that a client's wishes become."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.commands.base import MemoryLiteral, Secret
from imapshield.wire.commands.login import Login


class ValueTests(SynchronousTestCase):
    def test_secret(self) -> None:
        """No repr shows a password."""
        self.assertNotIn("hunter2", repr(Login(b"me", Secret(b"hunter2"))))
        self.assertNotIn("hunter2", str(Secret(b"hunter2")))

    def test_frozen(self) -> None:
        """A command cannot be changed."""
        self.assertRaises(AttributeError, setattr, Login(b"", Secret(b"")), "user", b"root")

    def test_memory(self) -> None:
        """Octets in memory are read by offset, and fewer at the end; closing them is harmless."""
        octets = MemoryLiteral(b"abcdef")
        self.assertEqual((octets.size, octets.binary), (6, False))
        self.assertEqual(octets.read(0, 3), b"abc")
        self.assertEqual(octets.read(4, 9), b"ef")
        self.assertEqual(octets.read(9, 9), b"")
        octets.close()
        self.assertEqual(octets.content, b"abcdef")
