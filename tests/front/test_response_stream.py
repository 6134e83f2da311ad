"""`ResponseStream` finds the ends of commands, and nothing inside a literal is taken for one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.front.response_stream import (
    MAX_HELD_LINE,
    ProtocolViolation,
    ResponseStream,
)

RESPONSES = (
    b"* 1 FETCH (FLAGS (\\Seen) BODY[] {25}\r\na1 OK this is only data\r\n)\r\n"
    b"* 2 FETCH (BODY[] ~{3}\r\n\0{5 UID 7)\r\n"
    b"* 3 FETCH (BODY[1] {0}\r\n BODY[2] {1}\r\nx)\r\n"
    b'* LIST () "/" {4}\r\na1 B\r\n'
    b"* OK the end of a text is no literal {50}\r\n"
    b"* 4 EXISTS\r\n* FLAGS (a})\r\n* SEARCH 1 2\r\n"
    b"+ go on {9}\r\n"
    b"a1 OK [COPYUID 1 2 3] done {7}\r\n"
)
PASSED = RESPONSES.replace(b"+ go on {9}\r\n", b"")


def rewrite(line: bytes) -> bytes:
    return line.replace(b"STARTTLS", b"X")


def stream(tag: bytes | None = b"a1") -> ResponseStream:
    made = ResponseStream(rewrite)
    if tag is not None:
        made.expect(tag)
    return made


class PassingTests(SynchronousTestCase):
    def test_result_does_not_depend_on_how_the_bytes_are_divided(self) -> None:
        """Two or many pieces give the same bytes and the same end as one."""
        for size in (1, 2, 3, 7, 40):
            found = stream()
            passed = [
                found.feed(RESPONSES[at : at + size]) for at in range(0, len(RESPONSES), size)
            ]
            self.assertEqual(b"".join(passed), PASSED, size)
            self.assertEqual((found.awaited, found.ended, found.continuations), ([], 1, 1))
            self.assertTrue(found.at_line_start)
        for at in range(1, len(RESPONSES)):
            found = stream()
            self.assertEqual(found.feed(RESPONSES[:at]) + found.feed(RESPONSES[at:]), PASSED, at)
            self.assertEqual(found.awaited, [])

    def test_command_ends_with_its_tagged_response_only(self) -> None:
        """The command runs on until its tagged response is complete."""
        found = stream()
        found.feed(RESPONSES[:-2])
        self.assertEqual([each.tag for each in found.awaited], [b"a1"])
        found.feed(b"\r\n")
        self.assertEqual(found.awaited, [])

    def test_bytes_are_passed_on_as_they_arrive(self) -> None:
        """A long literal and a long line are not collected."""
        found = stream()
        found.feed(b"* 1 FETCH (BODY[] {1000000}\r\n")
        self.assertEqual(found.feed(b"x" * 5000), b"x" * 5000)
        self.assertFalse(found.at_line_start)
        found.feed(b"x" * 995_000 + b")\r\n")
        self.assertTrue(found.at_line_start)
        line = found.feed(b"* SEARCH" + b" 12345" * 10_000)
        self.assertGreater(len(line), 59_000)
        self.assertFalse(found.at_line_start)

    def test_long_tagged_line_is_not_collected(self) -> None:
        """A tagged response with a long code is passed on in pieces."""
        found = stream(None)
        awaited = found.expect(b"a1")
        self.assertEqual(found.feed(b"a1 NO [X " + b"1" * 20_000)[:9], b"a1 NO [X ")
        self.assertEqual(awaited.condition, b"")
        self.assertEqual((found.feed(b"] no\r\n"), awaited.condition), (b"] no\r\n", b"NO"))

    def test_bye_is_noticed(self) -> None:
        """BYE is passed on, and remembered."""
        found = stream(None)
        self.assertEqual(found.feed(b"* bye later\r\n"), b"* bye later\r\n")
        self.assertTrue(found.said_bye)
        other = stream(None)
        other.feed(b"* BYEBYE 1\r\n* OK BYE\r\n")
        self.assertFalse(other.said_bye)


class PipeliningTests(SynchronousTestCase):
    def test_several_commands(self) -> None:
        """Several commands may be awaited; each ends with its own tagged response, in any order."""
        found = stream(None)
        first, second, third = map(found.expect, (b"a", b"bbbb", b"c"))
        found.feed(b"bbbb NO x\r\n* 1 EXISTS\r\na OK\r\n")
        self.assertEqual((first.condition, second.condition, third.condition), (b"OK", b"NO", b""))
        self.assertEqual(found.awaited, [third])

    def test_same_tag_twice(self) -> None:
        """Of two commands with one tag, the first one has ended first."""
        found = stream(None)
        first, second = found.expect(b"a"), found.expect(b"a")
        found.feed(b"a BAD\r\n")
        self.assertEqual((first.condition, second.condition), (b"BAD", b""))
        found.feed(b"a OK\r\n")
        self.assertEqual(second.condition, b"OK")
        self.assertRaises(ProtocolViolation, found.feed, b"a OK\r\n")


class CapabilityTests(SynchronousTestCase):
    def test_lines_with_capabilities_are_rewritten(self) -> None:
        """Each line with capabilities is rewritten, also a tagged one, however it is divided."""
        lines = b"* CAPABILITY A STARTTLS\r\n* OK [CAPABILITY STARTTLS] x\r\na1 OK [capability STARTTLS] y\r\n"
        for at in range(1, len(lines)):
            found = stream()
            self.assertEqual(found.feed(lines[:at]) + found.feed(lines[at:]), rewrite(lines))
            self.assertEqual(found.awaited, [])

    def test_endless_line_that_is_held_is_a_violation(self) -> None:
        """What is held has a maximum length, complete or not."""
        for start in (b"* CAPABILITY ", b"+ "):
            line = start + b"A" * MAX_HELD_LINE
            for end in (b"", b"\r\n"):
                self.assertRaises(ProtocolViolation, stream().feed, line + end)


class ViolationTests(SynchronousTestCase):
    def test_tagged_response_of_no_command(self) -> None:
        """A tagged response that belongs to no command, or a line that is none, is a violation."""
        for line in (b"a2 OK done\r\n", b"a1 PERHAPS\r\n", b"HTTP/1.1 400 Bad\r\n", b"a1\r\n"):
            self.assertRaises(ProtocolViolation, stream().feed, line)
        self.assertRaises(ProtocolViolation, stream(None).feed, b"a1 OK done\r\n")

    def test_second_response_to_one_command(self) -> None:
        """A command has one tagged response."""
        self.assertRaises(ProtocolViolation, stream().feed, b"a1 OK done\r\na1 OK again\r\n")

    def test_line_without_an_end_is_not_held(self) -> None:
        """Whatever the backend sends, only a few bytes are held back."""
        for start in (b"* 1 ", b"* LIST ", b"* OK ", b"a1 OK "):
            found = stream()
            passed = found.feed(start + b"x" * 100_000)
            passed += found.feed(b"x" * 100_000)
            self.assertLess(len(found._held), 100)
