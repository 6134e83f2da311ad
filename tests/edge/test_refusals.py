"""Each command that is refused because of a limit is reported, with the limit, its value and the observed value."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.events import LimitTriggered
from imapshield.testing.in_process import Server


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(
            max_message_size=1000,
            max_append_size=1500,
            max_literal_size=100,
            max_command_size=2000,
            max_command_literals=3,
            max_metadata_size=50,
        )
        self.client = self.server.login()

    def refused(self, data: bytes) -> tuple[str, float, float, str]:
        """Send `data`, which must be answered with NO and must leave the session in sync; return what was reported."""
        self.server.events.clear()
        answer = self.client.send(data)
        self.assertRegex(answer, rb"(?m)^a NO \[")
        self.assertIn(b"z OK", self.client(b"z NOOP"))
        (event,) = self.server.events_of(LimitTriggered)
        self.assertEqual((event.action, event.user), ("refused", "alice"))
        return event.limit, event.value, event.observed, event.sample

    def test_messages(self) -> None:
        """A message that is too large, or messages that are too large together, are reported."""
        append = b"a APPEND INBOX {%d}\r\n"
        self.assertEqual(self.refused(append % 1001), ("max_message_size", 1000, 1001, "a APPEND"))
        literal = b"{%d+}\r\n" % 900 + b"x" * 900
        messages = b"a APPEND INBOX " + literal + b" " + literal + b"\r\n"
        self.assertEqual(self.refused(messages), ("max_append_size", 1500, 1800, "a APPEND"))

    def test_arguments(self) -> None:
        """A literal, a command, a number of literals and a METADATA value above their limits are reported."""
        self.assertEqual(
            self.refused(b"a SELECT {101}\r\n"), ("max_literal_size", 100, 101, "a SELECT")
        )
        literals = b"a SEARCH " + b"".join(b"TEXT {1+}\r\nx " for _ in range(4)) + b"ALL\r\n"
        self.client(b"s SELECT INBOX")
        self.assertEqual(self.refused(literals), ("max_command_literals", 3, 4, "a SEARCH"))
        self.assertEqual(
            self.refused(b'a SETMETADATA "" (/private/comment {51}\r\n'),
            ("max_metadata_size", 50, 51, "a SETMETADATA"),
        )

    def test_valid_commands_report_nothing(self) -> None:
        """Commands at their limits are not reported."""
        self.server.events.clear()
        self.assertIn(b"app OK", self.client.append(b"x" * 1000))
        self.assertEqual(self.server.events_of(LimitTriggered), [])
