"""A backend that does not answer is given up, and what its silence is."""

from __future__ import annotations

from imapshield import events
from imapshield.testing.in_process import Client
from tests.front.front_case import FrontCase


class SilenceTests(FrontCase):
    BYE = b"* BYE [UNAVAILABLE] The mail server has closed the connection\r\n"

    def cause(self, client: Client) -> str:
        """Return why the connection of a client has ended, as operators see it."""
        client.lose_connection()
        return self.server.events_of(events.ConnectionClosed)[-1].cause

    def test_silent_backend(self) -> None:
        """A backend that does not answer is given up; each sign of life counts."""
        client = self.log_in()
        client(b"a SEARCH TEXT x")
        self.clock.advance(299)
        self.link.send(b"* OK still searching\r\n")
        self.clock.advance(299)
        self.assertEqual(client.read(), b"* OK still searching\r\n")
        self.clock.advance(1)
        self.assertEqual(client.read(), self.BYE)
        self.assertTrue(self.link.ended)
        cause = "the backend was given up: no answer to SEARCH in 300 seconds"
        self.assertEqual(self.cause(client), cause)

    def test_what_nobody_gets_is_no_sign_of_life(self) -> None:
        """A backend that sends a line byte by byte, which is held or dropped, is silent for the client."""
        for start in (b"+ ", b"* CAPABILITY "):
            client = self.log_in()
            client(b"a SEARCH TEXT x")
            self.clock.advance(200)
            self.link.send(start)
            self.clock.advance(90)
            self.link.send(b"x")
            self.clock.advance(10)
            self.assertEqual(client.read(), self.BYE)

    def test_request_for_a_literal_is_a_sign_of_life(self) -> None:
        """After it, the backend has its time again."""
        client = self.log_in()
        client.send(b"a STATUS {1+}\r\nx (MESSAGES)\r\n")
        self.clock.advance(290)
        self.link.send(b"+ go\r\n")
        self.clock.advance(290)
        self.assertFalse(self.link.ended)
        self.clock.advance(10)
        self.assertTrue(self.link.ended)

    def test_request_after_the_answer_is_none(self) -> None:
        """Dovecot repeats text of the client, also CRLF and a plus. What follows does not run as commands."""
        client = self.log_in()
        client.send(b"a SEARCH X {7+}\r\n\r\n+ x\r\n {8+}\r\nb NOOP\r\n\r\n")
        self.link.send(b"+ go\r\n")
        self.link.received()
        self.link.send(b"a BAD Unknown charset \r\n+ x\r\n")
        self.assertEqual(client.read(), b"a BAD Unknown charset \r\n")
        self.assertEqual(self.link.received(), b"")

    def test_client_that_does_not_read_is_no_silence(self) -> None:
        """While the client does not read, the backend is not to blame."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        client.protocol.write_buffer.pauseProducing()
        self.link.send(b"* 1 FETCH (BODY[] {1000}\r\n")
        self.clock.advance(299)
        client.protocol.write_buffer.resumeProducing()
        self.clock.advance(2)
        self.assertFalse(self.link.ended)
