"""Overlong lines are skipped with the literal that they announce."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.framing import Framer, LiteralAnnounced, MemorySink, RawCommand
from imapshield.wire.overlong_line import OverlongLine
from tests.wire.strategies import LAWS

REJECTION = BadCommand("The line is too long")
LONG = b"a1 SEARCH " + b"SEEN " * 100


class OverlongLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.framer = Framer()
        self.line = OverlongLine(self.framer, LONG[:64], REJECTION)

    def test_rejected_with_its_tag(self) -> None:
        """An overlong line becomes a rejected command with its tag and name, and what follows the line is returned."""
        self.assertEqual(self.line.feed(LONG), (b"", None))
        rest, event = self.line.feed(b"SEEN\r\nb NOOP\r\n")
        self.assertEqual(rest, b"b NOOP\r\n")
        assert isinstance(event, RawCommand)
        self.assertEqual((event.tag, event.name, event.parts), (b"a1", b"SEARCH", ()))
        self.assertIs(event.rejection, REJECTION)
        self.assertFalse(self.framer.inside)

    def test_literal_belongs_to_the_command(self) -> None:
        """A literal announced at the end of the line is part of the command, and is not taken for another command."""
        rest, event = self.line.feed(LONG + b"SUBJECT {11+}\r\nb LOGOUT\r\n! SEEN\r\nc NOOP\r\n")
        assert isinstance(event, LiteralAnnounced)
        self.assertEqual((event.tag, event.size, event.synchronizing), (b"a1", 11, False))
        self.assertIsNone(self.framer.reject_literal(REJECTION, event.synchronizing))
        self.assertEqual(self.framer.receive_literal(rest), b" SEEN\r\nc NOOP\r\n")
        command = self.framer.receive_line(b" SEEN")
        assert isinstance(command, RawCommand)
        self.assertEqual((command.tag, command.rejection), (b"a1", REJECTION))

    def test_announcement_inside_the_line(self) -> None:
        """Only an announcement at the end of the line announces a literal."""
        line = OverlongLine(self.framer, b"a1 LOGIN {3+} " + b"x" * 50, REJECTION)
        _, event = line.feed(b"a1 LOGIN {3+} " + b"x" * 100 + b"\r\n")
        self.assertIsInstance(event, RawCommand)

    def test_without_a_tag(self) -> None:
        """A line without a valid tag is rejected without a tag."""
        line = OverlongLine(self.framer, b"(" * 64, REJECTION)
        _, event = line.feed(b"(" * 100 + b"\r\n")
        assert isinstance(event, RawCommand)
        self.assertIsNone(event.tag)
        self.assertIs(event.rejection, REJECTION)

    @LAWS
    @given(st.sets(st.integers(0, 560), max_size=8), st.sampled_from([b"", b"{5}", b"~{5+}"]))
    def test_any_split(self, cuts: set[int], announcement: bytes) -> None:
        """The result does not depend on where reads divide the line."""
        framer = Framer()
        line = OverlongLine(framer, LONG[:64], REJECTION)
        stream = LONG + announcement + b"\r\nhello NOOP\r\n"
        bounds = [0, *sorted(cut for cut in cuts if cut < len(LONG + announcement)), len(stream)]
        for start, stop in pairwise(bounds):
            rest, event = line.feed(stream[start:stop])
        self.assertEqual(rest, b"hello NOOP\r\n")
        self.assertIsInstance(event, LiteralAnnounced if announcement else RawCommand)
        if isinstance(event, LiteralAnnounced):
            framer.accept_literal(MemorySink())
            self.assertEqual(framer.receive_literal(rest), b" NOOP\r\n")
