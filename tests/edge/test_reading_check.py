"""The commands of a user whose client does not read the answers wait, long before the write buffer is full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.edge.reading_check import MAX_PAUSE, PROVEN_BYTES, UNCHECKED_COMMANDS
from imapshield.events import LimitTriggered
from imapshield.guard import unread_work
from imapshield.guard.peer_window import MIN_UNREAD
from imapshield.guard.unread_work import BURST_SECONDS, COMMAND_SECONDS, SHARE
from imapshield.testing.in_process import Server
from tests.edge import test_loopback
from tests.edge.test_loopback import Peer

WINDOW = 65536


class ReadingCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()
        self.clock = self.server.clock
        buffer = self.client.protocol.write_buffer
        self.unread = self.read_until = 0

        def peer_window() -> tuple[int, int]:
            if not self.unread:
                self.read_until = buffer.bytes_written
            return (
                buffer.bytes_written,
                WINDOW - self.unread - buffer.bytes_written + self.read_until,
            )

        buffer.peer_window = peer_window  # type: ignore[method-assign]

    @property
    def started(self) -> int:
        return self.client.protocol._runner.started

    def send(self, commands: int) -> int:
        """Send NOOPs, and return how many were answered at once."""
        return self.client.send(b"a NOOP\r\n" * commands).count(b"a OK")

    def stop_reading(self) -> None:
        """Read nothing from now on. The server has seen the window as it was before."""
        self.send(2 * UNCHECKED_COMMANDS)
        self.unread = 2 * MIN_UNREAD

    def test_client_that_reads_nothing(self) -> None:
        """It gets the answers to few commands, and then to some after each pause, which becomes longer each time."""
        self.stop_reading()
        answered = self.send(1000)
        self.assertLess(answered, 4 * UNCHECKED_COMMANDS)
        pauses: list[int] = []
        for _ in range(6):
            started, pause = self.started, 0
            while self.started == started:
                self.clock.advance(0.01)
                self.client.read()
                pause += 1
            self.assertLess(self.started, started + 4 * UNCHECKED_COMMANDS)
            pauses.append(pause)
        expected = [min(4**i, 100 * MAX_PAUSE) for i in range(6)]
        for found, steps in zip(pauses, expected, strict=True):
            self.assertLessEqual(abs(found - steps), 1)  # the steps are no exact numbers

    def test_client_that_reads_again(self) -> None:
        """All its commands are answered as soon as its window shows that it reads."""
        self.stop_reading()
        answered = self.send(1000)
        self.unread = 0
        self.clock.advance(0.01)
        self.assertEqual(answered + self.client.read().count(b"a OK"), 1000)

    def test_window_that_stays_smaller(self) -> None:
        """A client that reads, and whose window has become smaller, waits for one short pause at most."""
        self.send(2 * UNCHECKED_COMMANDS)
        buffer = self.client.protocol.write_buffer
        buffer.peer_window = lambda: (buffer.bytes_written, WINDOW // 2)  # type: ignore[method-assign]
        answered = self.send(5000)
        self.clock.advance(0.01)
        self.assertEqual(answered + self.client.read().count(b"a OK"), 5000)

    def test_client_that_reads_is_never_held(self) -> None:
        """Any number of commands are answered in one go if the client reads, or if nothing is known about it."""
        self.assertEqual(self.send(1000), 1000)
        self.client.protocol.write_buffer.peer_window = lambda: None  # type: ignore[method-assign]
        self.assertEqual(self.send(1000), 1000)

    def flood(self, commands: int) -> int:
        """Send NOOPs while very many more wait in the kernel, and return how many were answered at once."""
        self.client.protocol.write_buffer.unread_input = lambda: 1 << 20  # type: ignore[method-assign]
        return self.send(commands)

    def use_up_burst(self) -> None:
        """Let another client that may not read use up what such clients get at once, as if they were many."""
        self.patch(unread_work, "FEW_CLIENTS", 0)
        self.client.protocol.shared.unread_work.add("another", BURST_SECONDS, self.clock.seconds())

    def test_flood_before_its_window_shows_anything(self) -> None:
        """Clients with very many commands waiting share a little time while nothing shows whether they read."""
        self.use_up_burst()
        self.assertLess(self.flood(3000), 3 * UNCHECKED_COMMANDS)
        answered = 0
        for _ in range(15):  # then it is trusted
            self.clock.advance(0.1)
            answered += self.client.read().count(b"a OK")
        expected = 1.5 * SHARE / COMMAND_SECONDS
        self.assertLess(abs(answered - expected), 2 * UNCHECKED_COMMANDS)

    def test_long_commands_of_a_client_that_pauses(self) -> None:
        """A client that has not read for a moment does not wait because its commands took long."""
        self.stop_reading()
        self.send(1000)
        self.client.protocol._runner.busy_seconds += 60
        self.clock.advance(0.01)
        self.unread = 0
        self.clock.advance(1.0)
        self.client.read()
        self.assertFalse(self.client.protocol.guard.busy)

    def test_client_that_has_read_much(self) -> None:
        """A client that has acknowledged a megabyte never waits because of others, also after it has paused."""
        self.use_up_burst()
        buffer = self.client.protocol.write_buffer
        buffer.peer_window = lambda: (PROVEN_BYTES, WINDOW)  # type: ignore[method-assign]
        self.assertEqual(self.flood(10_000), 10_000)

    def test_flood_of_one_client(self) -> None:
        """A client never waits if it is the only one with very many commands waiting."""
        self.assertEqual(self.flood(10_000), 10_000)

    def test_flood_that_is_trusted(self) -> None:
        """A client with very many commands waits no more when the server has worked for it for long."""
        self.use_up_burst()
        trusted = int(BURST_SECONDS / COMMAND_SECONDS)
        self.flood(trusted + 1000)
        while self.client.protocol.guard.busy:
            self.clock.advance(0.1)
        self.client.read()
        self.assertEqual(self.send(3000), 3000)

    def test_many_commands_at_once(self) -> None:
        """A client whose commands have all arrived is not held, however many they are."""
        self.client.protocol.write_buffer.unread_input = lambda: 0  # type: ignore[method-assign]
        self.assertEqual(self.send(10_000), 10_000)

    def test_hundred_commands(self) -> None:
        """Nor is one whose backlog is not full, such as one that sends a large message."""
        self.client.protocol.write_buffer.unread_input = lambda: 1 << 20  # type: ignore[method-assign]
        for _ in range(100):
            self.assertEqual(self.send(99), 99)

    def test_continuation_request(self) -> None:
        """A held client that has no commands left gets the continuation request for its literal."""
        self.stop_reading()
        self.client(b"a NOOP")
        while self.client.protocol.guard.busy:
            self.clock.advance(0.01)
        self.client.read()
        self.assertEqual(self.client(b"b APPEND INBOX {20}"), b"+ Go ahead\r\n")

    def test_flood_that_is_never_read(self) -> None:
        """A client with a full backlog that reads nothing for 30 seconds is reset."""
        self.stop_reading()
        self.send(5000)
        self.clock.pump([0.1] * 290)
        self.assertFalse(self.client.transport.aborted)
        self.clock.pump([0.1] * 30)
        self.assertTrue(self.client.transport.aborted)
        limits = [event.limit for event in self.server.events_of(LimitTriggered)]
        self.assertEqual(limits[-1], "stalled_seconds")

    def test_end_of_the_connection(self) -> None:
        """Nothing is left to do when a held connection ends."""
        self.stop_reading()
        self.send(300)
        self.client.lose_connection()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LoopbackTests(test_loopback.LoopbackCase):
    async def test_a_client_that_does_not_read_is_held(self) -> None:
        """Over TCP and TLS, the commands of a client that has stopped reading wait before all have run."""
        servers: list[ShieldedIMAP4Server] = []
        made = ShieldedIMAP4Server.connectionMade

        def connection_made(server: ShieldedIMAP4Server) -> None:
            made(server)
            servers.append(server)

        def script(connect: Callable[[], Peer]) -> Peer:
            peer = connect()
            peer.command(b"LOGIN alice secret")
            for _ in range(3):
                peer.send(b"a NOOP\r\n" * 1000)
                for _ in range(1000):
                    assert b"a OK" in peer.line()
            peer.send(b"a NAMESPACE\r\n" * 5000)
            return peer

        self.patch(ShieldedIMAP4Server, "connectionMade", connection_made)
        for connect in self.ways_to_connect():
            peer: Any = await self.client(script, connect)
            runner = servers[-1]._runner
            while not (
                runner.started > 8000
                or servers[-1].write_buffer.full
                or (runner._reading is not None and runner._reading._timer is not None)
            ):
                await deferLater(reactor, 0.01)
            # How soon the window shows it depends on the kernel; at the latest, the write buffer is full.
            self.assertLess(runner.started, 8000)
            peer.close()
