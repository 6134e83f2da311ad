"""A turn of the reactor stays short however many connections have input; single bytes cost a client its own time."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.input_turns import FREE_PARTIAL_READS, InputTurns, partial_read_delay
from imapshield.events import ConnectionClosed
from imapshield.testing.in_process import Client, Server


class TurnTests(SynchronousTestCase):
    def test_a_turn_is_over_after_ten_milliseconds(self) -> None:
        """A turn is over after ten milliseconds of input, and the next turn begins again."""
        clock = Clock()
        now = [0.0]
        turns = InputTurns(clock.callLater, lambda: now[0])
        self.assertFalse(turns.is_over())
        now[0] = 0.009
        self.assertFalse(turns.is_over())
        now[0] = 0.011
        self.assertTrue(turns.is_over())
        clock.advance(0)
        self.assertFalse(turns.is_over())

    def test_a_connection_continues_in_the_fair_queue(self) -> None:
        """When the turn is over, the rest of the input waits, reading pauses, and every command is answered later."""
        server = Server()
        client = server.login()
        self.patch(server.factory.shared.input_turns, "is_over", lambda: True)
        client.protocol.dataReceived(b"".join(b"t%d NOOP\r\n" % i for i in range(50)))
        self.assertTrue(client.transport.paused_reading)
        self.assertEqual(client.protocol.guard.pending, 1)
        answers = client.read()
        while (more := client.read()) or client.transport.paused_reading:
            answers += more
        self.assertEqual(
            [line.split()[0] for line in answers.splitlines()], [b"t%d" % i for i in range(50)]
        )

    def test_a_flood_is_reset_all_the_same(self) -> None:
        """Before login the 101st pending command resets, also if the turn is over after each command. None of them is executed."""
        server = Server()
        client = server.connect("192.0.2.1")
        self.patch(server.factory.shared.input_turns, "is_over", lambda: True)
        client.send(b"a NOOP\r\n" * 300)
        for _ in range(300):
            client.read()
        self.assertTrue(client.transport.aborted)
        client.lose_connection()
        (closed,) = server.events_of(ConnectionClosed)
        self.assertEqual((closed.commands, closed.executed), (101, 0))

    def test_a_stranger_is_answered_all_the_same(self) -> None:
        """Before login all commands are answered, also if the turn is over after each command."""
        server = Server()
        client = server.connect("192.0.2.1")
        self.patch(server.factory.shared.input_turns, "is_over", lambda: True)
        client.protocol.dataReceived(
            b"".join(b"t%d NOOP\r\n" % i for i in range(20)) + b"l LOGIN alice secret\r\nz NO"
        )
        answers = client.read()
        while more := client.read():
            answers += more
        tags = [line.split()[0] for line in answers.splitlines()]
        self.assertEqual(tags, [*(b"t%d" % i for i in range(20)), b"l"])


class PartialReadTests(SynchronousTestCase):
    def drip(self, client: Client, data: bytes) -> int:
        """Send single bytes as long as the server reads; return how many it has read."""
        for i in range(len(data)):
            if client.transport.paused_reading:
                return i
            client.protocol.dataReceived(data[i : i + 1])
        return len(data)

    def test_delay_grows(self) -> None:
        """The first reads are free; then the delay doubles up to a second."""
        delays = [partial_read_delay(FREE_PARTIAL_READS + i) for i in range(10)]
        self.assertEqual(delays[:4], [0.0, 0.01, 0.02, 0.04])
        self.assertEqual(delays[-1], 1.0)
        self.assertEqual(partial_read_delay(10**9), 1.0)

    def test_single_bytes_are_read_slowly(self) -> None:
        """A client without a login that sends single bytes is read less and less often, and answered."""
        server = Server()
        client = server.connect("192.0.2.1")
        command, reads = b"tag NOOP " + b" " * 40 + b"\r\n", 0
        sent = self.drip(client, command)
        self.assertEqual(sent, FREE_PARTIAL_READS + 1)
        while sent < len(command):
            server.clock.advance(1)
            sent += self.drip(client, command[sent:])
            reads += 1
        self.assertGreater(reads, 20)
        self.assertIn(b"tag ", client.read())

    def test_a_user_is_not_delayed(self) -> None:
        """After login, single bytes are read at once."""
        client = Server().login()
        self.assertEqual(self.drip(client, b"tag NOOP" + b" " * 100 + b"\r\n"), 110)

    def test_complete_lines_are_not_delayed(self) -> None:
        """Reads that complete their line do not count."""
        server = Server()
        client = server.connect("192.0.2.1")
        for _ in range(50):
            client.send(b"a NOOP\r\n")
        self.assertFalse(client.transport.paused_reading)
