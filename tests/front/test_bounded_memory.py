"""Memory is bounded in both directions, whatever the backend sends and whether or not the client reads."""

from __future__ import annotations

from imapshield.front.backend_connection import MAX_LOGIN_BYTES
from imapshield.front.relay import CHUNK_SIZE, MAX_BYTES_AHEAD
from imapshield.front.response_stream import MAX_HELD_LINE
from imapshield.testing.in_process import Client
from tests.front.front_case import FrontCase
from tests.front.test_login import UNAVAILABLE

READ_SIZE = 1 << 16
"""Bytes that a transport of Twisted reads at once."""

FLOODS = (
    # What the backend sends first, and then without end.
    (b"", b"* 1 EXISTS\r\n"),
    (b"", b"* OK still here\r\n"),
    (b"", b"* CAPABILITY IMAP4rev1 STARTTLS\r\n"),
    (b"", b"* 1 FETCH (BODY[] {1}\r\nx)\r\n"),
    (b"* SEARCH", b" 12345678"),
    (b"* OK ", b"x"),
    (b"* OK ", b"\r"),
    (b"* 1 FETCH (", b"{1"),
    (b"* 1 FETCH (BODY[] {9999999999999999999}\r\n", b"x\r\n"),
    (b"a NO ", b"x"),
)


class BackendFloodTests(FrontCase):
    limits = {"max_unsent_bytes": 64 << 10}

    def flood(self, client: Client, data: bytes) -> None:
        """Send 3 MB while the shield reads, for a client that reads nothing."""
        chunk = data * (READ_SIZE // len(data))
        for _ in range(50):
            if self.link.transport.paused_reading or self.link.ended:
                break
            self.link.send(chunk)
            if len(client.transport.value()) > client.transport.bufferSize:
                client.protocol.write_buffer.pauseProducing()
            client.run_due_calls()

    def test_flood_for_a_client_that_reads_nothing(self) -> None:
        """The shield stops reading, holds little, and ends both connections when the client has had its time."""
        for start, data in FLOODS:
            with self.subTest(start=start, data=data):
                client = self.log_in()
                client.send(b"a FETCH 1 BODY[]\r\n")
                self.link.send(start)
                self.flood(client, data)
                held = len(client.transport.value()) + client.protocol.write_buffer.unsent_bytes
                self.assertLessEqual(held, client.transport.bufferSize + 2 * READ_SIZE)
                connection = self.link.protocol
                self.assertEqual(connection._buffer, b"")
                assert connection._relay is not None
                self.assertLess(len(connection._relay._stream._held), MAX_HELD_LINE)
                self.assertEqual(self.link.transport.paused_reading, held > 1000)
                limits = self.server.factory.limits
                seconds = max(limits.unsent_seconds, limits.backend_silent_seconds)
                self.clock.pump([10] * (int(seconds) // 10 + 6))
                if held > 1000:  # what the client does not get is the backend's own time
                    self.assertTrue(client.transport.aborted and self.link.ended)
                client.lose_connection()
                self.assertEqual(self.backend.connections, 0)

    def test_what_the_client_does_not_get(self) -> None:
        """Capabilities or continuation requests without an end, and what is no response, end the connection."""
        for start, data in (
            (b"* CAPABILITY", b" X"),
            (b"", b"+ \r\n"),
            (b"+ ", b"x"),
            (b"", b"\0"),
        ):
            client = self.log_in()
            self.link.send(start)
            self.flood(client, data)
            self.assertTrue(self.link.ended)
            self.assertIn(b"* BYE [UNAVAILABLE]", client.read())

    def test_flood_during_the_login(self) -> None:
        """A backend that sends without end instead of an answer to the login, or nothing, is given up."""
        for data in (b"x", b"* OK hello\r\n", b"+ \r\n", b""):
            client = self.server.connect()
            client(b"a LOGIN alice secret")
            for _ in range(2 * MAX_LOGIN_BYTES // READ_SIZE + 1):
                if data and not self.link.ended:
                    self.link.send(data * (READ_SIZE // len(data)))
            self.clock.advance(self.server.factory.limits.backend_login_seconds)
            self.assertEqual(client.read(), b"a " + UNAVAILABLE)
            self.assertTrue(self.link.ended)
            client.lose_connection()


class ClientFloodTests(FrontCase):
    def test_backend_that_reads_nothing(self) -> None:
        """The shield stops reading from the client, and holds little on both sides."""
        line = b"a SEARCH TEXT %b\r\n" % (b"x" * 60_000)
        append = b"a APPEND x {60000+}\r\n" + b"x" * 60_000 + b"\r\n"
        for command in (b"a NOOP\r\n", line, append, b"a STATUS {1+}\r\nx (MESSAGES)\r\n"):
            client = self.log_in()
            self.link.transport.high_water_mark = CHUNK_SIZE
            for _ in range(1000):
                if client.transport.paused_reading:
                    break
                client.send(command * (READ_SIZE // len(command)))
            self.assertTrue(client.transport.paused_reading, command[:20])
            limits = self.server.factory.limits
            waiting = len(self.link.transport.value())
            self.assertLessEqual(waiting, CHUNK_SIZE + MAX_BYTES_AHEAD + len(line))
            self.assertLess(client.protocol.guard.memory, limits.max_backlog_bytes + READ_SIZE * 2)
            self.clock.advance(limits.backend_silent_seconds)
            self.assertIn(b"* BYE [UNAVAILABLE]", client.read())
            client.lose_connection()
            self.assertEqual(self.backend.connections, 0)
