"""Answers → transport: one write a turn of the reactor, and no more than the peer is willing to read."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

_BYTES_ACKED = 120  # tcpi_bytes_acked of Linux's struct tcp_info, a 64-bit number, since 4.1


class Disconnected(Exception):
    """The connection has ended while a command was being answered: there is nobody to answer."""


@implementer(IPushProducer)
class WriteBuffer:
    """The way out of one connection.

    `call_later` is a reactor's; `unread` the octets the transport may hold before it is `full`. Who waited for room
    goes on `in_turn`, which is given what to do.
    """

    def __init__(
        self, transport: Any, call_later: Callable[[float, Callable[[], object]], Any], unread: int
    ) -> None:
        self.full = False
        self.octets = 0
        self._transport = transport
        self._call_later = call_later
        self._fragments: list[bytes] = []
        self._held = 0
        self._flush_due = False
        self._closed = False
        self._waiting: list[Deferred[None]] = []
        self.compress: Callable[[bytes], bytes] | None = None
        self.on_full: Callable[[], object] = _nothing
        self.on_room: Callable[[], object] = _nothing
        self.schedule: Callable[[Callable[[], object]], object] = lambda work: call_later(0, work)
        transport.registerProducer(self, True)
        self.set_limit(unread)

    def set_limit(self, unread: int) -> None:
        """Let the transport hold `unread` octets, which Twisted calls its buffer size."""
        self._limit = unread
        _lowest(self._transport).bufferSize = unread

    def write(self, data: bytes) -> None:
        """Send `data`, after what was written before, in this turn of the reactor or the next."""
        if self._closed:
            return
        self._fragments.append(data)
        self._held += len(data)
        if not self._flush_due:
            self._flush_due = True
            self._call_later(0, self.flush)

    @property
    def flush_due(self) -> bool:
        """Whether as much waits for `flush` as the transport may hold."""
        return self._held >= self._limit

    def defer_flush(self) -> None:
        """Let `write` schedule nothing: the caller will `flush`."""
        self._flush_due = True

    def flush(self) -> None:
        """Hand what was written to the transport, as one write."""
        self._flush_due = False
        if self._fragments and not self._closed:
            data = b"".join(self._fragments)
            self._fragments.clear()
            self._held = 0
            if self.compress is not None:
                data = self.compress(data)
            self.octets += len(data)
            self._transport.write(data)

    def drain(self) -> Deferred[None]:
        """Fire in a later turn, when the peer is willing to read more. `Disconnected` if it is cut off before."""
        self.flush()
        ready: Deferred[None] = Deferred()
        self._waiting.append(ready)
        if not self.full:
            self.schedule(self._release)
        return ready

    def _release(self) -> None:
        if not self.full:
            waiting, self._waiting = self._waiting, []
            for ready in waiting:
                ready.callback(None)

    def close(self, *, lost: bool = False) -> None:
        """Write nothing more. What waits in `drain` is told `Disconnected`.

        A connection that is `lost` is not touched: behind STARTTLS its transport has lost its protocol too, and raises.
        """
        if self._closed:
            return
        if not lost:
            self.flush()
            self._transport.unregisterProducer()
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.errback(Disconnected())

    def pauseProducing(self) -> None:
        """The transport holds as much as it may."""
        self.full = True
        self.on_full()

    def resumeProducing(self) -> None:
        """The transport has sent all it held."""
        self.full = False
        if self._waiting:
            self.schedule(self._release)
        self.on_room()

    def stopProducing(self) -> None:
        """The connection is gone; `connectionLost` follows and closes."""
        self.full = True

    def send_tcp_ack(self) -> None:
        """Let TCP acknowledge now what has come.

        A client that sends a literal and its line end apart, without TCP_NODELAY, as Python's imaplib does, holds the
        second back until the first is acknowledged, which the kernel puts off for 40 ms.
        """
        handle = getattr(_lowest(self._transport), "socket", None)
        if handle is not None and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):  # a UNIX socket
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def acked_bytes(self) -> tuple[int, ...]:
        """A value that differs whenever the peer has taken a single octet more.

        `resumeProducing` will not do: it comes when all is sent, which on a slow line is minutes later.
        """
        handle = getattr(_lowest(self._transport), "socket", None)
        if handle is None:
            return (self.octets, self.full)
        try:
            info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            if len(info) == _BYTES_ACKED + 8:
                return (self.octets, *struct.unpack_from("Q", info, _BYTES_ACKED))
        except (OSError, AttributeError):  # a UNIX socket, or another system than Linux
            pass
        try:
            queued = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return (self.octets, self.full)
        return (self.octets, *struct.unpack("i", queued))


def _lowest(transport: Any) -> Any:
    """The transport below all wrappers (TLS, PROXY), whose buffer is the one that counts."""
    while not hasattr(transport, "socket") and getattr(transport, "transport", None) is not None:
        transport = transport.transport
    return transport


def _nothing() -> None:
    pass
