"""Lines and literals become whole commands."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import Framer, LiteralAnnounced, MemorySink, RawCommand


def feed(framer: Framer, chunks: list[bytes]) -> list[RawCommand]:
    """What the edge does, with a guard that lets everything in."""
    frames: list[RawCommand] = []
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
                frames.append(event)
    return frames


class Framing(SynchronousTestCase):
    def test_line(self) -> None:
        """A line is a command: tag, name, and what follows the tag."""
        frame = Framer().receive_line(b"a1 uid fetch 1 FLAGS")
        self.assertEqual(frame, RawCommand(b"a1", b"FETCH", (b"uid fetch 1 FLAGS",), 22))

    def test_literal(self) -> None:
        """A literal is a part between two texts, whose marker is left out."""
        framer = Framer()
        event = framer.receive_line(b"a LOGIN {5}")
        self.assertEqual(event, LiteralAnnounced(b"a", b"LOGIN", 5, True, (b"LOGIN ",), 0, 0, 13))
        self.assertTrue(framer.accept_literal(MemorySink()))
        self.assertEqual(framer.receive_literal(b"alice x"), b" x")
        frame = framer.receive_line(b" x")
        assert isinstance(frame, RawCommand)
        self.assertEqual(frame.parts, (b"LOGIN ", MemoryLiteral(b"alice"), b" x"))

    def test_empty_literal(self) -> None:
        """An empty literal is complete at once."""
        framer = Framer()
        framer.receive_line(b"a LOGIN {0+}")
        self.assertFalse(framer.accept_literal(MemorySink()))
        frame = framer.receive_line(b"")
        assert isinstance(frame, RawCommand)
        self.assertEqual(frame.parts, (b"LOGIN ", MemoryLiteral(b""), b""))

    def test_literal8(self) -> None:
        """A literal8 is known as one."""
        frame = feed(Framer(), [b"a APPEND x ~{2+}\r\n\0\1\r\n"])[0]
        self.assertEqual(frame.parts[1], MemoryLiteral(b"\0\1", binary=True))

    def test_no_tag(self) -> None:
        """Without a tag a line is refused, and so is what a literal of it holds."""
        for line in (
            b"",
            b"+ NOOP",
            b"* NOOP",
            b" NOOP",
            b"a(b NOOP",
            b"\xff NOOP",
            b"x" * 1001 + b" NOOP",
        ):
            frame = Framer().receive_line(line)
            assert isinstance(frame, RawCommand)
            self.assertIsNone(frame.tag)
            self.assertIsInstance(frame.rejection, BadCommand)

    def test_only_a_tag(self) -> None:
        """A tag without a command is refused, and that can be said to the tag (RFC 9051 section 7.1.3)."""
        for line in (b"a1", b"a1 "):
            frame = Framer().receive_line(line)
            assert isinstance(frame, RawCommand)
            self.assertEqual((frame.tag, frame.name), (b"a1", b""))
        self.assertIsInstance(Framer().receive_line(b"a1").rejection, BadCommand)  # type: ignore[union-attr]

    def test_lying_sizes(self) -> None:
        """What only looks like a literal is left to the grammar."""
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

    def test_refused_waiting(self) -> None:
        """A client that waits is told at once, and the next line is a new command."""
        framer = Framer()
        framer.receive_line(b"a APPEND x {9999}")
        refusal = CommandRefused(b"TOOBIG", "no")
        frame = framer.reject_literal(refusal, True)
        assert frame is not None
        self.assertIs(frame.rejection, refusal)
        self.assertEqual(framer.receive_line(b"b NOOP"), RawCommand(b"b", b"NOOP", (b"NOOP",), 8))

    def test_refused_sent(self) -> None:
        """One that does not wait has its command skipped, so that nothing in it is taken for a command."""
        framer = Framer()
        framer.receive_line(b"a APPEND x {10+}")
        self.assertIsNone(framer.reject_literal(CommandRefused(b"TOOBIG", "no"), False))
        self.assertEqual(framer.receive_literal(b"x LOGOUT\r\n {3+}\r\n"), b" {3+}\r\n")
        event = framer.receive_line(b" {3+}")
        self.assertIsInstance(event, LiteralAnnounced)
        self.assertTrue(framer.accept_literal(MemorySink()))
        self.assertEqual(framer.receive_literal(b"abc"), b"")
        frame = framer.receive_line(b"")
        assert isinstance(frame, RawCommand)
        self.assertEqual((frame.tag, frame.parts), (b"a", ()))
        self.assertIsInstance(frame.rejection, CommandRefused)

    def test_nul(self) -> None:
        """A NUL in a literal that is no literal8 refuses the command (RFC 9051 section 9, CHAR8)."""
        frames = feed(
            Framer(),
            [b"a APPEND x {2+}\r\n\0\1\r\nb APPEND x ~{1+}\r\n\0 {1+}\r\n\0\r\nc NOOP\r\n"],
        )
        self.assertEqual(
            [type(frame.rejection) for frame in frames], [BadCommand, BadCommand, type(None)]
        )

    def test_full_disk(self) -> None:
        """A sink that can take no more refuses the command; the rest of it is skipped."""

        class Full(MemorySink):
            def write(self, data: bytes) -> None:
                raise CommandRefused(b"OVERQUOTA", "full")

        framer = Framer()
        framer.receive_line(b"a APPEND x {4+}")
        framer.accept_literal(Full())
        self.assertIsNone(framer.receive_literal(b"ab"))
        self.assertEqual(framer.receive_literal(b"cd"), b"")
        frame = framer.receive_line(b"")
        assert isinstance(frame, RawCommand) and isinstance(frame.rejection, CommandRefused)
        self.assertEqual(frame.rejection.code, b"OVERQUOTA")

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=30), min_size=1, max_size=6), st.data())
    def test_any_split(self, literals: list[bytes], data: st.DataObject) -> None:
        """However a stream is cut into reads, it frames alike."""
        stream = b"".join(
            b"t%d APPEND x ~{%d+}\r\n%b\r\nn NOOP\r\n" % (i, len(octets), octets)
            for i, octets in enumerate(literals)
        )
        cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(feed(Framer(), pieces), feed(Framer(), [stream]))
        self.assertEqual(len(feed(Framer(), pieces)), 2 * len(literals))
