"""Commands that a client sends together are sent together to the backend, where that is safe."""

from __future__ import annotations

from imapshield import events
from imapshield.front.relay import MAX_BYTES_AHEAD, MAX_SENT_AHEAD
from tests.front.front_case import FrontCase


class PipeliningTests(FrontCase):
    def test_commands_that_come_together_are_sent_together(self) -> None:
        """Fifty commands need a few round trips, and are answered and counted one by one."""
        client = self.log_in()
        lines = [b"n%d NOOP\r\n" % number for number in range(50)]
        client.send(b"".join(lines))
        received, trips = [], 0
        while sent := self.link.received().splitlines(keepends=True):
            self.assertLessEqual(len(sent), MAX_SENT_AHEAD + 1)
            received += sent
            trips += 1
            pending = client.protocol.guard.pending
            answers = [line.replace(b"NOOP", b"OK") for line in sent]
            self.link.send(b"".join(answers))
            self.assertEqual(client.read(), b"".join(answers))
            self.assertEqual(client.protocol.guard.pending, pending - len(sent))
        self.assertEqual((received, trips), (lines, 2))
        client.lose_connection()
        (closed,) = self.server.events_of(events.ConnectionClosed)
        self.assertEqual((closed.commands, closed.executed), (51, 51))

    def test_others_wait(self) -> None:
        """A command that changes what others mean, has a literal or is unknown waits, and so does all after it."""
        client = self.log_in()
        for line in (
            *(b"SELECT x", b"IDLE x", b"LOGOUTX", b"XYZZY", b"UID MOVE 1 x", b"APPEND x {1+}\r\ny"),
            *(b"LOGIN a b", b'STATUS "x (MESSAGES)', b"STATUS {1+}\r\nx (MESSAGES)", b"NOOP \0"),
        ):
            client.send(b"a NOOP\r\nb %b\r\nc NOOP\r\n" % line)
            self.assertEqual(self.link.received(), b"a NOOP\r\n", line)
            self.link.send(b"a OK\r\n")
            client.run_due_calls()
            sent = self.link.received()
            if sent != b"c NOOP\r\n":  # the shield has not refused it
                self.assertTrue(sent.startswith(b"b " + line.replace(b"+", b"").split(b"\r")[0]))
                self.link.send(b"b NO\r\n")
                client.run_due_calls()
                self.assertEqual(self.link.received(), b"c NOOP\r\n", line)
            self.link.send(b"c OK\r\n")
            client.read()

    def test_late_answers(self) -> None:
        """What comes while the first command runs is sent with the next one; refused commands keep their place."""
        client = self.log_in()
        client.send(b"a NOOP\r\nb UID FETCH 1 FLAGS\r\nc NOOP\nx NOOP\r\nd NOOP\r\n")
        self.assertEqual(self.link.received(), b"a NOOP\r\nb UID FETCH 1 FLAGS\r\n")
        self.link.send(b"a OK\r\n* 1 FETCH (FLAGS ())\r\n")
        self.assertEqual(client.read(), b"a OK\r\n* 1 FETCH (FLAGS ())\r\n")
        client.send(b"e NOOP\r\n")
        self.assertEqual(self.link.received(), b"")
        self.link.send(b"b NO x\r\n")
        self.assertIn(b"b NO x\r\nc BAD ", client.read())
        self.assertEqual(self.link.received(), b"d NOOP\r\ne NOOP\r\n")

    def test_response_of_the_next_command_before_its_turn(self) -> None:
        """A command whose response has begun before it runs is not cut, and ends when the response is complete."""
        client = self.log_in()
        client.send(b"a NOOP\r\nb FETCH 1 BODY[]\r\nc NOOP\r\n")
        self.link.send(b"a OK\r\n* 1 FETCH (BODY[] {3}\r\nab")
        self.assertEqual(client.read(), b"a OK\r\n* 1 FETCH (BODY[] {3}\r\nab")
        self.clock.advance(299)
        self.link.send(b"c)\r\nb OK\r\nc OK\r\n")
        self.assertEqual(client.read(), b"c)\r\nb OK\r\nc OK\r\n")
        self.assertEqual(client.protocol.guard.pending, 0)
        client(b"d NOOP")
        self.assertIn(b"d NOOP", self.link.received())

    def test_silence_after_some_answers(self) -> None:
        """A backend that answers a part of the commands and then nothing is given up."""
        client = self.log_in()
        client.send(b"a NOOP\r\nb NOOP\r\n")
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), b"a OK\r\n")
        self.clock.advance(300)
        self.assertEqual(
            client.read(), b"* BYE [UNAVAILABLE] The mail server has closed the connection\r\n"
        )
        self.assertTrue(self.link.ended)

    def test_backend_that_does_not_read(self) -> None:
        """What is sent ahead is bounded in bytes, and no more is while the backend does not read."""
        client = self.log_in()
        self.link.transport.high_water_mark = 1000
        line = b"a SEARCH TEXT %b\r\n" % (b"x" * 1000)
        client.send(line * 30)
        self.assertEqual(
            len(self.link.transport.value()) // len(line), 1 + MAX_BYTES_AHEAD // len(line)
        )
        self.link.send(b"a OK\r\n" * 5)
        client.run_due_calls()
        self.assertEqual(len(self.link.received()) // len(line), 1 + MAX_BYTES_AHEAD // len(line))

    def test_invalid_commands_end_the_connection(self) -> None:
        """BAD counts for each command, whenever it was sent."""
        client = self.log_in()
        most = self.server.factory.limits.max_bad_commands
        client.send(b"a NOOP\r\n" * most)
        while sent := self.link.received():
            self.link.send(b"a BAD\r\n" * sent.count(b"\n"))
            received = client.read()
        self.assertTrue(received.endswith(b"* BYE Disconnected: Too many invalid commands\r\n"))
