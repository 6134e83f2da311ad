"""Errors that the dispatcher finds before a handler runs."""

from tests.session.session_case import SessionTestCase


class DispatcherTests(SessionTestCase):
    def test_unknown_command(self) -> None:
        """The text says whether the name is unknown or missing, as after two spaces."""
        self.assertEqual(self.client(b"a XYZZY"), b"a BAD Unknown command\r\n")
        for line in (b"a  NOOP", b"a "):
            response = b"a BAD Expected a command name after the tag\r\n"
            self.assertEqual(self.client(line), response, line)
