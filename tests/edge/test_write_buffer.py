"""The way out: one write a turn, and no more than the peer reads."""

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.write_buffer import Disconnected, WriteBuffer
from imapshield.testing.in_process import Transport


class Writing(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.writes: list[bytes] = []
        self.transport.write = self.writes.append  # type: ignore[method-assign]
        self.outbox = WriteBuffer(self.transport, self.clock.callLater, 4096)

    def test_one_write(self) -> None:
        """What is written in one turn goes out as one write, in order."""
        for data in (b"a", b"b", b"c"):
            self.outbox.write(data)
        self.assertEqual(self.writes, [])
        self.clock.advance(0)
        self.assertEqual(self.writes, [b"abc"])
        self.assertEqual(self.outbox.bytes_written, 3)

    def test_unread(self) -> None:
        """The transport is told how many octets it may hold."""
        self.assertEqual(self.transport.bufferSize, 4096)
        self.outbox.set_high_water_mark(65536)
        self.assertEqual(self.transport.bufferSize, 65536)

    def test_drain(self) -> None:
        """`drain` fires in a later turn, when the peer is willing to read."""
        ready = self.outbox.drain()
        self.assertNoResult(ready)
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(ready))
        self.outbox.pauseProducing()
        ready = self.outbox.drain()
        self.clock.advance(100)
        self.assertNoResult(ready)
        self.outbox.resumeProducing()
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(ready))

    def test_full_in_between(self) -> None:
        """Who waited while there was room, and then there was none, waits on."""
        ready = self.outbox.drain()
        self.outbox.pauseProducing()
        self.clock.advance(1)
        self.assertNoResult(ready)

    def test_close(self) -> None:
        """Closing sends what was written, tells who waits, and takes nothing more."""
        self.outbox.pauseProducing()
        ready = self.outbox.drain()
        self.outbox.write(b"last")
        self.outbox.close()
        self.failureResultOf(ready, Disconnected)
        self.outbox.write(b"more")
        self.clock.advance(1)
        self.assertEqual(self.writes, [b"last"])
        self.assertIsNone(self.transport.producer)

    def test_acknowledge(self) -> None:
        """TCP is told to acknowledge at once; what is not TCP has nothing to be told."""
        told: list[tuple[int, ...]] = []

        class Handle:
            def setsockopt(self, *option: int) -> None:
                told.append(option)
                raise OSError("not TCP")

        self.outbox.send_tcp_ack()
        self.transport.socket = Handle()  # type: ignore[attr-defined]
        self.outbox.send_tcp_ack()
        self.assertEqual(told, [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)])
