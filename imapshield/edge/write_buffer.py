"""`WriteBuffer`: collects responses into one write, and stops when the peer does not read."""

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from imapshield.edge.event_reporter import Tap
from imapshield.edge.peer import innermost
from imapshield.wire.pieces import PIECE_SIZE

_BYTES_ACKED = 120
"""Offset of tcpi_bytes_acked, a 64-bit number, in struct tcp_info of Linux since 4.1."""


_PEER_WINDOW = 228
"""Offset of tcpi_snd_wnd, a 32-bit number, in it, since 5.4."""

UNSENT_IN_KERNEL = 64 << 10
"""Unsent bytes in the kernel above which it takes no more (TCP_NOTSENT_LOWAT).

Without it, the kernel held 2 to 3 MB for each client that did not read the response of a FETCH, and with it less than
0.1 MB. A client that reads is as fast: what is sent and not acknowledged does not count.
"""

UNREAD_BYTES = 384 << 10
"""More bytes than the kernels of both sides take of a client that reads nothing and has usual buffers (about 200 KB).

Until a client was sent more, few bytes wait for it here. A thousand clients that read nothing otherwise hold 100 MB.
"""

WORK_PER_TURN = 2000
"""Lines of responses, or messages that are looked at, after which a session lets other connections run.

Each takes about a microsecond. They are counted and not timed, so that the turns of a command do not depend on what
else the machine does.
"""


class Disconnected(Exception):
    """The connection has ended while a command was running, so nobody can receive the response."""


class _Ciphertext:
    """Stands in for the transport of a TLS layer, and keeps what the layer writes.

    Attributes:
        written: the octets that the layer has written.
    """

    def __init__(self, transport: Any) -> None:
        self.written: list[bytes] = []
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Keep `data`."""
        self.written.append(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _encrypt(tls: TLSMemoryBIOProtocol, data: bytes) -> bytes:
    """Pass `data` to a TLS layer, and return what it would write to its transport.

    Not by the method of `BufferingTLSTransport`: that keeps up to 64,000 bytes until the next iteration of the reactor,
    and only then notices a slow peer. The layer may call `WriteBuffer.pauseProducing` meanwhile, and so `on_full`.
    """
    layer: Any = tls
    transport = layer.transport
    layer.transport = ciphertext = _Ciphertext(transport)
    try:
        TLSMemoryBIOProtocol.write(tls, data)
    finally:
        layer.transport = transport
    return b"".join(ciphertext.written)


def send_at_once(transport: Any, data: bytes) -> bytes:
    """Pass to the kernel what it takes of `data`, if nothing waits before it, and return the rest.

    A transport would wait for the reactor to say that the socket is writable, which takes two more system calls and
    another turn for each response.
    """
    if not isinstance(transport, Connection) or transport.disconnecting:
        return data
    if transport.dataBuffer or transport._tempDataBuffer or not transport.connected:
        return data
    sent = transport.writeSomeData(data)
    return data[sent:] if isinstance(sent, int) and sent > 0 else data


@implementer(IPushProducer)
class WriteBuffer:
    """The output of one connection: a producer for the transport, with back-pressure for the commands.

    Args:
        transport: sends the bytes; this object registers itself as its producer.
        call_later: the reactor's `callLater`.
        schedule: runs work when it is this connection's turn; a command that waits in `drain` continues in it.
        high_water_mark: how many bytes the transport may hold before the buffer is `full`.

    Attributes:
        client_reads: whether the peer was sent more than `UNREAD_BYTES`, so that it must have read some of them. Until
            then the high-water mark is `PIECE_SIZE`, if it is not lower.
        full: whether the transport holds more than the high-water mark and waits for the peer to read.
        within_response: whether what was written ends within a response. Only its rest may follow, so no command
            begins, and there is no BYE.
        turns: how many turns of the session have begun.
        work: lines and messages that the session has counted since its turn began.
        bytes_written: how many bytes were handed to the transport, after compression.
        tap: is called with each write while the connection is traced, see `EventReporter`.
        compress: applied to each write while it is set (RFC 4978).
        on_flushed: called when bytes were handed to the transport, with whether it has sent all of its data.
        on_full: called when the buffer becomes full. It must not write: that can be within a write.
        on_drained: called when the transport has sent all of its data.
    """

    def __init__(
        self,
        transport: Any,
        call_later: Callable[[float, Callable[[], object]], Any],
        schedule: Callable[[Callable[[], object]], object],
        high_water_mark: int,
    ) -> None:
        self.full = self.client_reads = self.within_response = False
        self.bytes_written = self.work = self.turns = 0
        self.compress: Callable[[bytes], bytes] | None = None
        self.tap: Tap | None = None
        self.on_flushed: Callable[[bool], object] = lambda _: None
        self.on_full: Callable[[], object] = lambda: None
        self.on_drained: Callable[[], object] = lambda: None
        self._transport = transport
        self._innermost = innermost(transport)
        self._tls = transport if isinstance(transport, TLSMemoryBIOProtocol) else None
        self._call_later = call_later
        self._schedule = schedule
        self._unflushed: list[bytes | memoryview] = []
        self._unflushed_bytes = 0
        self._flush_scheduled = False
        self._closed = False
        self._drain_waiters: list[Deferred[None]] = []
        # Responses must not wait for the acknowledgement of earlier ones. A UNIX socket has no such option.
        getattr(transport, "setTcpNoDelay", lambda _: None)(True)
        handle = getattr(self._innermost, "socket", None)
        if handle is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):  # a UNIX socket
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_IN_KERNEL)
        transport.registerProducer(self, True)
        self.set_high_water_mark(high_water_mark)

    def set_high_water_mark(self, high_water_mark: int) -> None:
        """Let the transport hold `high_water_mark` bytes, once `client_reads`."""
        self._high_water_mark = high_water_mark
        self._chunk_size = min(PIECE_SIZE, high_water_mark)
        self.set_buffer_size()

    def set_buffer_size(self, *, large: bool = False) -> None:
        """Set what Twisted calls the buffer size: the high-water mark, and how many bytes are read at once.

        Args:
            large: whether many bytes are to be read, those of a literal.
        """
        size = self._high_water_mark if large or self.client_reads else self._chunk_size
        self._innermost.bufferSize = size

    def write(self, data: bytes | memoryview) -> None:
        """Send `data` after everything written before, at the latest in the next iteration of the reactor.

        A piece (`wire.pieces.PIECE_SIZE`) or more goes to the transport at once, which thereby notices when it holds
        too much. So the unsent bytes exceed the high-water mark by two pieces at most, if `data` is no longer than
        `room`, and the caller waits in `drain` while there is none. While the transport holds nothing and the client
        reads, as many bytes as it may hold are one write.
        """
        if self._closed:
            return
        if self.tap is not None:
            self.tap.output(bytes(data))
        self._unflushed.append(data)
        self._unflushed_bytes += len(data)
        if self._unflushed_bytes >= self._chunk_size and not self._may_collect():
            self._pass_on()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._call_later(0, self.flush)

    def write_at_once(self, data: bytes) -> None:
        """Send `data` after everything written before, without a wait for the next iteration of the reactor."""
        if not self._closed:
            if self.tap is not None:
                self.tap.output(data)
            self._unflushed.append(data)
            self._pass_on()

    @property
    def piece_size(self) -> int:
        """How many bytes of a response to encode at once: what the transport may hold, once `client_reads`."""
        return self._high_water_mark if self.client_reads else PIECE_SIZE

    @property
    def room(self) -> int:
        """How many bytes a session may write at once, unless the buffer is `full`: as many as are collected."""
        if self._may_collect():
            return max(PIECE_SIZE, self._high_water_mark - self._unflushed_bytes)
        return PIECE_SIZE

    def _may_collect(self) -> bool:
        """Whether to collect more than a piece: writes of a piece each take twice the time of larger ones."""
        transport = self._innermost
        if not self.client_reads or not isinstance(transport, Connection):
            return False
        is_empty = not (transport.dataBuffer or transport._tempDataLen)
        return is_empty and self._unflushed_bytes < self._high_water_mark

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait here and in the transport until the kernel takes them, after compression."""
        tls, transport = self._tls, self._innermost
        held = 0 if tls is None else sum(map(len, tls._appSendBuffer))  # during a handshake
        held += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
        return self._unflushed_bytes + held + int(getattr(transport, "_tempDataLen", 0))

    def begin_turn(self) -> None:
        """Keep `write` from scheduling a flush: the caller is about to write several times and will `flush`."""
        self._flush_scheduled = True
        self.turns += 1
        self.work = 0

    def flush(self) -> None:
        """Pass everything written so far to the transport, as one write."""
        self._flush_scheduled = False
        self._pass_on()

    def _pass_on(self) -> None:
        if self._unflushed and not self._closed:
            data = b"".join(self._unflushed)
            self._unflushed.clear()
            self._unflushed_bytes = 0
            if self.compress is not None:
                data = self.compress(data)
            self.bytes_written += len(data)
            transport, tls = self._transport, self._tls
            if tls is not None:
                transport = tls.transport
                data = _encrypt(tls, data)
            data = send_at_once(self._innermost, data)
            if data:
                transport.write(data)
            else:
                self._note_that_client_reads()
            self.on_flushed(not data)

    def _note_that_client_reads(self) -> None:
        """Use the whole high-water mark from now on if the peer must have read something: nothing waits for it."""
        if not self.client_reads and self.bytes_written > UNREAD_BYTES:
            self.client_reads = True
            self.set_buffer_size()

    def start_tls(self, context: Any) -> None:
        """Flush, and start TLS with an OpenSSL context factory."""
        self.flush()
        self._transport.startTLS(context)
        layer = getattr(self._transport, "protocol", None)
        self._tls = layer if isinstance(layer, TLSMemoryBIOProtocol) else None

    def drain(self) -> Deferred[None]:
        """Flush, and wait until the buffer is not full and other connections have had their turn.

        Returns:
            A Deferred that never fires at once. It fails with `Disconnected` if the connection ends first.
        """
        self.flush()
        waiter: Deferred[None] = Deferred()
        self._drain_waiters.append(waiter)
        if not self.full:
            self._schedule(self._resume_waiters)
        return waiter

    def _resume_waiters(self) -> None:
        if not self.full:
            waiters, self._drain_waiters = self._drain_waiters, []
            self.work = 0
            for waiter in waiters:
                waiter.callback(None)

    def close(self, *, lost: bool = False) -> None:
        """Flush, ignore later writes, and fail the Deferreds of `drain` with `Disconnected`.

        Args:
            lost: whether the connection is lost. The transport is then not used: after STARTTLS, the methods of a
                transport that has lost its connection raise.
        """
        if self._closed:
            return
        if not lost:
            self.flush()
            self._transport.unregisterProducer()
        self._closed = True
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            waiter.errback(Disconnected())

    def pauseProducing(self) -> None:
        """Called by the transport when it holds more than the high-water mark."""
        self.full = True
        self.on_full()

    def resumeProducing(self) -> None:
        """Called by the transport when it has sent all of its data."""
        self.full = False
        self._note_that_client_reads()
        if self._drain_waiters:
            self._schedule(self._resume_waiters)
        self.on_drained()

    def stopProducing(self) -> None:
        """Called by the transport when the connection is lost; `connectionLost` follows and closes the buffer."""
        self.full = True

    def send_tcp_ack(self) -> None:
        """Acknowledge the received bytes at once (TCP_QUICKACK).

        A client that sends a literal and the CRLF after it separately, without TCP_NODELAY, as Python's imaplib does,
        holds the CRLF back until the literal is acknowledged. The kernel delays that acknowledgement by 40 ms.
        """
        handle = getattr(self._innermost, "socket", None)
        if handle is not None and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):  # a UNIX socket
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def progress_marker(self) -> tuple[int, ...]:
        """Return a value that changes whenever the peer has acknowledged at least one more byte.

        `resumeProducing` does not show this progress: the transport calls it when everything is sent, which takes
        minutes on a slow line.
        """
        info = self._tcp_info(_BYTES_ACKED + 8)
        if info:
            return (self.bytes_written, *struct.unpack_from("Q", info, _BYTES_ACKED))
        handle = getattr(self._innermost, "socket", None)
        if handle is not None:
            with suppress(OSError):
                unsent = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
                return (self.bytes_written, *struct.unpack("i", unsent))
        return (self.bytes_written, self.full)

    def unread_input(self) -> int:
        """Return how many received bytes wait in the kernel, 0 if unknown."""
        handle = getattr(self._innermost, "socket", None)
        if handle is not None:
            with suppress(OSError):
                waiting: int = struct.unpack(
                    "i", fcntl.ioctl(handle.fileno(), termios.FIONREAD, b"\0" * 4)
                )[0]
                return waiting
        return 0

    def peer_window(self) -> tuple[int, int] | None:
        """Return how many bytes the peer has acknowledged, and how many more it is ready to receive; None if unknown.

        They are those of TCP, so with TLS and compression included. A peer that is a proxy reads for its client.
        """
        info = self._tcp_info(_PEER_WINDOW + 4)
        if not info:
            return None
        return *struct.unpack_from("Q", info, _BYTES_ACKED), *struct.unpack_from(
            "I", info, _PEER_WINDOW
        )

    def _tcp_info(self, size: int) -> bytes:
        """Return the beginning of the struct tcp_info of Linux, b"" if there is none or it is shorter than `size`."""
        handle = getattr(self._innermost, "socket", None)
        if handle is not None and sys.platform == "linux":  # others have another struct tcp_info
            with suppress(OSError):  # a UNIX socket
                info: bytes = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
                return info if len(info) == size else b""
        return b""
