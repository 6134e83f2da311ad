"""Lines and literals become whole commands, and overlong lines are skipped."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import LiteralData, MemoryLiteral
from imapshield.wire.framing import Framer, LiteralAnnounced, MemorySink, OverlongLine, RawCommand
from tests.wire.strategies import LAWS


def feed(framer: Framer, chunks: list[bytes]) -> list[RawCommand]:
    """Pass `chunks` to the framer as the edge does, with a guard that accepts everything."""
    commands: list[RawCommand] = []
    buffer, raw = b"", False
    for chunk in chunks:
        buffer += chunk
        while True:
            if raw:
                if not buffer:
                    break
                rest = framer.receive_literal(buffer)
                buffer = b"" if rest is None else rest
                raw = rest is None
                continue
            line, end, rest_of_buffer = buffer.partition(b"\r\n")
            if not end:
                break
            buffer = rest_of_buffer
            event = framer.receive_line(line)
            if isinstance(event, LiteralAnnounced):
                raw = framer.accept_literal(MemorySink())
            else:
                commands.append(event)
    return commands


class FramerTests(SynchronousTestCase):
    def test_line_is_a_tag_a_name_and_text(self) -> None:
        """A line is a command with a tag, a name, and the text after the tag."""
        command = Framer().receive_line(b"a1 uid fetch 1 FLAGS")
        self.assertEqual(command, RawCommand(b"a1", b"FETCH", (b"uid fetch 1 FLAGS",), 22))

    def test_literal_is_a_part_between_two_texts(self) -> None:
        """A literal is a part between two texts; its announcement is omitted."""
        framer = Framer()
        event = framer.receive_line(b"a LOGIN {5}")
        self.assertEqual(event, LiteralAnnounced(b"a", b"LOGIN", 5, True, (b"LOGIN ",), 0, 0, 13))
        self.assertTrue(framer.accept_literal(MemorySink()))
        self.assertEqual(framer.receive_literal(b"alice x"), b" x")
        command = framer.receive_line(b" x")
        assert isinstance(command, RawCommand)
        self.assertEqual(command.parts, (b"LOGIN ", MemoryLiteral(b"alice"), b" x"))

    @given(st.lists(st.binary(max_size=30), max_size=5))
    @settings(LAWS)
    def test_packed_commands_are_unpacked_unchanged(self, lines: list[bytes]) -> None:
        """Every command is the same after it was packed; one without literals is packed as its line."""
        plain = [
            b"a1 uid fetch 1 FLAGS",
            b"b NOOP",
            b"c  x",
            b"a LOGIN {1+}",
            b"d x {0+}",
            b" x",
            b"*",
        ]
        for line in [*plain, *lines]:
            for command in feed(Framer(), [line + b"\r\n", b"x\r\n"]):
                self.assertEqual(RawCommand.unpacked(command.packed()), command)
        command = RawCommand.unpacked(b"a1 uid fetch 1 FLAGS")
        self.assertEqual(command, RawCommand(b"a1", b"FETCH", (b"uid fetch 1 FLAGS",), 22))
        self.assertEqual(command.packed(), b"a1 uid fetch 1 FLAGS")

    def test_empty_literal_is_complete_at_once(self) -> None:
        """An empty literal is complete at once."""
        framer = Framer()
        framer.receive_line(b"a LOGIN {0+}")
        self.assertFalse(framer.accept_literal(MemorySink()))
        command = framer.receive_line(b"")
        assert isinstance(command, RawCommand)
        self.assertEqual(command.parts, (b"LOGIN ", MemoryLiteral(b""), b""))

    def test_literal8_is_marked_as_binary(self) -> None:
        """A literal8 is marked as binary."""
        command = feed(Framer(), [b"a APPEND x ~{2+}\r\n\0\1\r\n"])[0]
        self.assertEqual(command.parts[1], MemoryLiteral(b"\0\1", binary=True))

    def test_line_without_a_tag_is_rejected(self) -> None:
        """A line without a valid tag is rejected."""
        for line in (
            b"",
            b"+ NOOP",
            b"* NOOP",
            b" NOOP",
            b"a(b NOOP",
            b"\xff NOOP",
            b"x" * 1001 + b" NOOP",
        ):
            command = Framer().receive_line(line)
            assert isinstance(command, RawCommand)
            self.assertIsNone(command.tag)
            self.assertIsInstance(command.rejection, BadCommand)

    def test_line_with_only_a_tag_is_rejected_with_its_tag(self) -> None:
        """A tag without a command is rejected, and the response has the tag (RFC 9051 section 7.1.3)."""
        for line in (b"a1", b"a1 "):
            command = Framer().receive_line(line)
            assert isinstance(command, RawCommand)
            self.assertEqual((command.tag, command.name), (b"a1", b""))
        command = Framer().receive_line(b"a1")
        assert isinstance(command, RawCommand)
        self.assertIsInstance(command.rejection, BadCommand)

    def test_apparent_literal_is_left_to_the_grammar(self) -> None:
        """Text that only looks like a literal announcement is left to the grammar."""
        for marker in (
            b"{-1}",
            b"{+}",
            b"{}",
            b"{0x10}",
            b"{1_0}",
            b"{ 9 }",
            b"{10-}",
            b"{99999999999999999999}",
        ):
            self.assertIsInstance(Framer().receive_line(b"a LOGIN " + marker), RawCommand)

    def test_rejected_synchronizing_literal_ends_the_command(self) -> None:
        """A client that waits for the continuation request gets the rejection, and the next line is a new command."""
        framer = Framer()
        framer.receive_line(b"a APPEND x {9999}")
        rejection = CommandRefused(b"TOOBIG", "no")
        command = framer.reject_literal(rejection, True)
        assert command is not None
        self.assertIs(command.rejection, rejection)
        self.assertEqual(framer.receive_line(b"b NOOP"), RawCommand(b"b", b"NOOP", (b"NOOP",), 8))

    def test_rejected_nonsynchronizing_literal_is_skipped(self) -> None:
        """The rest of a command from a client that does not wait is skipped, and no part of it is executed."""
        framer = Framer()
        framer.receive_line(b"a APPEND x {10+}")
        self.assertIsNone(framer.reject_literal(CommandRefused(b"TOOBIG", "no"), False))
        self.assertEqual(framer.receive_literal(b"x LOGOUT\r\n {3+}\r\n"), b" {3+}\r\n")
        event = framer.receive_line(b" {3+}")
        self.assertIsInstance(event, LiteralAnnounced)
        self.assertTrue(framer.accept_literal(MemorySink()))
        self.assertEqual(framer.receive_literal(b"abc"), b"")
        command = framer.receive_line(b"")
        assert isinstance(command, RawCommand)
        self.assertEqual((command.tag, command.parts), (b"a", ()))
        self.assertIsInstance(command.rejection, CommandRefused)

    def test_nul_in_a_literal_rejects_the_command(self) -> None:
        """A NUL in a literal that is not a literal8 rejects the command (RFC 9051 section 9, CHAR8)."""
        commands = feed(
            Framer(),
            [b"a APPEND x {2+}\r\n\0\1\r\nb APPEND x ~{1+}\r\n\0 {1+}\r\n\0\r\nc NOOP\r\n"],
        )
        self.assertEqual(
            [type(command.rejection) for command in commands], [BadCommand, BadCommand, type(None)]
        )

    def test_full_disk_rejects_the_command(self) -> None:
        """A full sink rejects the command, and the rest of the command is skipped."""

        class Full(MemorySink):
            def write(self, data: bytes) -> None:
                raise CommandRefused(b"OVERQUOTA", "full")

        framer = Framer()
        framer.receive_line(b"a APPEND x {4+}")
        framer.accept_literal(Full())
        self.assertIsNone(framer.receive_literal(b"ab"))
        self.assertEqual(framer.receive_literal(b"cd"), b"")
        command = framer.receive_line(b"")
        assert isinstance(command, RawCommand) and isinstance(command.rejection, CommandRefused)
        self.assertEqual(command.rejection.code, b"OVERQUOTA")

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=30), min_size=1, max_size=6), st.data())
    def test_reads_may_divide_the_stream_anywhere(
        self, literals: list[bytes], data: st.DataObject
    ) -> None:
        """The commands do not depend on where reads divide the stream."""
        stream = b"".join(
            b"t%d APPEND x ~{%d+}\r\n%b\r\nn NOOP\r\n" % (i, len(octets), octets)
            for i, octets in enumerate(literals)
        )
        cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(feed(Framer(), chunks), feed(Framer(), [stream]))
        self.assertEqual(len(feed(Framer(), chunks)), 2 * len(literals))


REJECTION = BadCommand("The line is too long")
LONG = b"a1 SEARCH " + b"SEEN " * 100


class ClosableLiteral(MemorySink):
    """A literal and its sink, which notes that it was closed."""

    binary = False
    closed = False
    size = 1

    def finish(self) -> LiteralData:
        """Return the literal."""
        return self

    def read(self, offset: int, size: int) -> bytes:
        """Return the content."""
        return b"x"[offset : offset + size]

    def close(self) -> None:
        """Note the call."""
        self.closed = True


class OverlongLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.framer = Framer()
        self.line = OverlongLine(self.framer, LONG[:64], REJECTION)

    def test_overlong_line_is_rejected_with_its_tag(self) -> None:
        """An overlong line becomes a rejected command with its tag and name, and the rest of the data is returned."""
        self.assertEqual(self.line.feed(LONG), (b"", None))
        rest, event = self.line.feed(b"SEEN\r\nb NOOP\r\n")
        self.assertEqual(rest, b"b NOOP\r\n")
        assert isinstance(event, RawCommand)
        self.assertEqual((event.tag, event.name, event.parts), (b"a1", b"SEARCH", ()))
        self.assertIs(event.rejection, REJECTION)
        self.assertFalse(self.framer.inside)

    def test_literal_of_an_overlong_line_belongs_to_it(self) -> None:
        """A literal announced at the end of the line is part of the command, and not another command."""
        rest, event = self.line.feed(LONG + b"SUBJECT {11+}\r\nb LOGOUT\r\n! SEEN\r\nc NOOP\r\n")
        assert isinstance(event, LiteralAnnounced)
        self.assertEqual((event.tag, event.size, event.synchronizing), (b"a1", 11, False))
        self.assertIsNone(self.framer.reject_literal(REJECTION, event.synchronizing))
        self.assertEqual(self.framer.receive_literal(rest), b" SEEN\r\nc NOOP\r\n")
        command = self.framer.receive_line(b" SEEN")
        assert isinstance(command, RawCommand)
        self.assertEqual((command.tag, command.rejection), (b"a1", REJECTION))

    def test_announcement_inside_the_line_is_no_literal(self) -> None:
        """Only an announcement at the end of the line announces a literal."""
        line = OverlongLine(self.framer, b"a1 LOGIN {3+} " + b"x" * 50, REJECTION)
        _, event = line.feed(b"a1 LOGIN {3+} " + b"x" * 100 + b"\r\n")
        self.assertIsInstance(event, RawCommand)

    def test_literals_before_the_line(self) -> None:
        """The literals of the rejected command are closed."""
        literal = ClosableLiteral()
        framer = Framer()
        framer.receive_line(b"a1 SEARCH SUBJECT {1}")
        framer.accept_literal(literal)
        framer.receive_literal(b"x")
        line = OverlongLine(framer, b" SEEN" * 10, REJECTION)
        _, event = line.feed(b" SEEN" * 100 + b"\r\n")
        assert isinstance(event, RawCommand)
        self.assertEqual((event.parts, event.rejection), ((), REJECTION))
        self.assertTrue(literal.closed)

    def test_overlong_line_without_a_tag_is_rejected(self) -> None:
        """A line without a valid tag is rejected without a tag."""
        line = OverlongLine(self.framer, b"(" * 64, REJECTION)
        _, event = line.feed(b"(" * 100 + b"\r\n")
        assert isinstance(event, RawCommand)
        self.assertIsNone(event.tag)
        self.assertIs(event.rejection, REJECTION)

    @LAWS
    @given(st.sets(st.integers(0, 560), max_size=8), st.sampled_from([b"", b"{5}", b"~{5+}"]))
    def test_reads_may_divide_the_line_anywhere(self, cuts: set[int], announcement: bytes) -> None:
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
