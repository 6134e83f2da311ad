"""What the shield itself sends to a client waits for the end of the response that the backend has begun."""

from __future__ import annotations

from imapshield.testing.in_process import Client
from tests.front.front_case import FrontCase

HALF = b"* 1 FETCH (BODY[] {3}\r\nab"
REST = b"c)\r\n"


class WholeResponseTests(FrontCase):
    def client_within_a_response(self) -> Client:
        """Return a client that has got half a response, as NOTIFY sends them, while no command runs."""
        client = self.log_in()
        self.link.send(HALF)
        self.assertEqual(client.read(), HALF)
        return client

    def test_answers_of_the_shield_wait(self) -> None:
        """The answer to a command that ends at the shield follows the whole response."""
        for command, answer in (
            (b"a STARTTLS", b"a BAD Not permitted after the login\r\n"),
            (b"a COMPRESS DEFLATE", b"a OK Begin compression now\r\n"),
            (b"a APPEND x {1000000000}", b"a NO [TOOBIG] "),
        ):
            client = self.client_within_a_response()
            self.assertEqual(client(command), b"")
            self.link.send(REST)
            self.assertTrue(client.read().startswith(REST + answer))

    def test_continuation_request_waits(self) -> None:
        """So does the request for a literal."""
        client = self.client_within_a_response()
        self.assertEqual(client(b"a APPEND x {3}"), b"")
        self.link.send(REST)
        self.assertEqual(client.read(), REST + b"+ Go ahead\r\n")

    def test_command_waits(self) -> None:
        """A command for the backend begins when the response is whole, too."""
        client = self.client_within_a_response()
        client(b"a NOOP")
        self.assertEqual(self.link.received(), b"")
        self.link.send(REST)
        client.read()
        self.assertEqual(self.link.received(), b"a NOOP\r\n")

    def test_response_that_does_not_end(self) -> None:
        """A backend that stops within a response is given up, although no command waits for it."""
        client = self.client_within_a_response()
        client(b"a NOOP")
        self.clock.advance(300)
        self.assertTrue(self.link.ended)
        self.assertTrue(client.transport.aborted)

    def test_idle_user_is_not_ended(self) -> None:
        """A user without a command, whose responses are whole, is not."""
        client = self.client_within_a_response()
        self.link.send(REST)
        self.clock.advance(900)
        self.assertEqual(client.read(), REST)
        self.assertFalse(self.link.ended)
