"""The write buffer: one write per reactor turn, and back-pressure from a peer that does not read."""

import socket
import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.write_buffer import UNREAD_BYTES, UNSENT_IN_KERNEL, Disconnected, WriteBuffer
from imapshield.testing.in_process import Server, Transport
from imapshield.wire.pieces import PIECE_SIZE


class WriteBufferTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.writes: list[bytes] = []
        self.transport.write = self.writes.append  # type: ignore[method-assign]
        self.write_buffer = WriteBuffer(
            self.transport, self.clock.callLater, lambda work: self.clock.callLater(0, work), 4096
        )

    def test_output_of_one_reactor_turn_is_one_write(self) -> None:
        """All output of one reactor turn is one write to the transport, in order."""
        for data in (b"a", b"b", b"c"):
            self.write_buffer.write(data)
        self.assertEqual(self.writes, [])
        self.clock.advance(0)
        self.assertEqual(self.writes, [b"abc"])
        self.assertEqual(self.write_buffer.bytes_written, 3)

    def test_high_water_mark_is_the_transport_buffer_size(self) -> None:
        """The high-water mark is the transport's buffer size."""
        self.assertEqual(self.transport.bufferSize, 4096)

    def test_high_water_mark_is_low_until_the_peer_reads(self) -> None:
        """The buffer is small until the peer was sent more than it can leave unread; then it has its full size."""
        buffer = self.write_buffer
        buffer.set_high_water_mark(65536)
        self.assertEqual((self.transport.bufferSize, buffer.client_reads), (PIECE_SIZE, False))
        buffer.write(b"x" * UNREAD_BYTES)
        buffer.pauseProducing()
        buffer.resumeProducing()
        self.assertEqual((self.transport.bufferSize, buffer.client_reads), (PIECE_SIZE, False))
        self.assertEqual((buffer.piece_size, buffer.room), (PIECE_SIZE, PIECE_SIZE))
        buffer.write(b"x" * PIECE_SIZE)
        buffer.pauseProducing()
        buffer.resumeProducing()
        self.assertEqual((self.transport.bufferSize, buffer.client_reads), (65536, True))
        self.assertEqual(buffer.piece_size, 65536)

    def test_literals_are_read_in_large_pieces(self) -> None:
        """While a literal arrives, much of it is read at once, whether the peer has read anything or not."""
        client = Server().login()
        sizes = [client.transport.bufferSize]
        for data in (b"a APPEND INBOX {20+}\r\n", b"Subject: x\r\n\r\n12", b"3456\r\n"):
            client.send(data)
            sizes.append(client.transport.bufferSize)
        self.assertEqual(sizes, [PIECE_SIZE, 65536, 65536, PIECE_SIZE])

    def test_kernel_takes_little_of_a_peer_that_does_not_read(self) -> None:
        """The kernel takes no more data while it holds 64 KiB of unsent data."""
        transport = Transport()
        with socket.socket() as handle:
            vars(transport)["socket"] = handle
            WriteBuffer(transport, self.clock.callLater, lambda _: None, 4096)
            option = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        self.assertEqual(option, UNSENT_IN_KERNEL)

    def test_drain_fires_once_the_buffer_is_not_full(self) -> None:
        """`drain` fires in a later reactor turn, once the buffer is not full."""
        drained = self.write_buffer.drain()
        self.assertNoResult(drained)
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(drained))
        self.write_buffer.pauseProducing()
        drained = self.write_buffer.drain()
        self.clock.advance(100)
        self.assertNoResult(drained)
        self.write_buffer.resumeProducing()
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(drained))

    def test_drain_waits_if_the_buffer_becomes_full_again(self) -> None:
        """A `drain` that has not fired when the buffer becomes full waits until the buffer is drained."""
        drained = self.write_buffer.drain()
        self.write_buffer.pauseProducing()
        self.clock.advance(1)
        self.assertNoResult(drained)

    def test_close_sends_output_and_fails_a_pending_drain(self) -> None:
        """Closing sends the pending output, fails a pending `drain`, and drops later writes."""
        self.write_buffer.pauseProducing()
        drained = self.write_buffer.drain()
        self.write_buffer.write(b"last")
        self.write_buffer.close()
        self.failureResultOf(drained, Disconnected)
        self.write_buffer.write(b"more")
        self.clock.advance(1)
        self.assertEqual(self.writes, [b"last"])
        self.assertIsNone(self.transport.producer)

    def test_only_tcp_is_asked_to_acknowledge_at_once(self) -> None:
        """TCP is asked to acknowledge at once; other kinds of transport are not changed."""
        options: list[tuple[int, ...]] = []

        class UnixSocket:
            def setsockopt(self, *option: int) -> None:
                options.append(option)
                raise OSError("not TCP")

        self.write_buffer.send_tcp_ack()
        self.transport.socket = UnixSocket()  # type: ignore[attr-defined]
        self.write_buffer.send_tcp_ack()
        self.assertEqual(options, [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)])

    def test_unread_input(self) -> None:
        """What waits in the kernel is known of a socket, and of nothing else."""
        self.assertEqual(self.write_buffer.unread_input(), 0)
        own, peer = socket.socketpair()
        self.addCleanup(own.close)
        self.addCleanup(peer.close)
        peer.sendall(b"a NOOP\r\n")
        self.transport.socket = own  # type: ignore[attr-defined]
        self.assertEqual(self.write_buffer.unread_input(), 8)

    def test_progress_marker_of_other_systems(self) -> None:
        """Only Linux is asked for TCP_INFO, because the offset of the field is that of Linux."""
        options: list[int] = []

        class TCPSocket:
            def getsockopt(self, level: int, option: int, size: int) -> bytes:
                options.append(option)
                return bytes(120) + b"\x07" + bytes(7)

            def fileno(self) -> int:
                raise OSError("not a socket")

        self.transport.socket = TCPSocket()  # type: ignore[attr-defined]
        self.patch(sys, "platform", "linux")
        self.assertEqual(self.write_buffer.progress_marker(), (0, 7))
        self.patch(sys, "platform", "freebsd14")
        self.assertEqual(self.write_buffer.progress_marker(), (0, False))
        self.assertEqual(options, [socket.TCP_INFO])
