"""COMPRESS=DEFLATE (RFC 4978): octets of the wire ⇄ octets of the protocol, never more at once than were asked for.

A few octets can inflate to a thousand times as many. So they are inflated in pieces, only while somebody takes them,
and what is left stays as small as it came. What one connection's two streams hold is about 110 KiB: 64 to deflate
(`WINDOW`, `MEMORY`), 40 to inflate, since the peer chooses that window.
"""

from __future__ import annotations

import zlib

PIECE = 16 << 10
"""Octets inflated at a time: the base class splits lines in quadratic time, so its buffer is kept small."""

EMPTY = 16 << 10
"""Octets in a row that inflate to nothing. A flush is five, and the tables of a block are some hundreds."""

ROUNDS = 100
"""Flushes looked at before others have their turn."""

WINDOW = 13
MEMORY = 6
LEVEL = 6


FLUSHED = b"\0\0\xff\xff"
"""What a flush ends with. Octets that are not deflated any more can only follow one (RFC 8437 section 4.1)."""


class BadStream(Exception):
    """What came is no deflated stream, or was ended, after which nothing can follow."""


class Inflater:
    """Inflates what the peer sends."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-15)
        self._waiting = b""
        self._at = self._empty = 0
        self.octets_in = self.octets_out = 0

    def feed(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self.octets_in += len(data)
        keep = max(0, self._at - len(FLUSHED) + 1)  # a flush may be half taken
        self._waiting = self._waiting[keep:] + data
        self._at -= keep

    @property
    def waiting(self) -> bool:
        """Whether there is more to inflate of what has come."""
        return self._at < len(self._waiting)

    def take(self) -> bytes:
        """Inflate up to `PIECE` octets, no further than to the next flush; b"" if so far nothing comes of it.

        Raises:
            BadStream: also when `EMPTY` octets came and nothing of them: blocks can be empty, and cost time.
        """
        for _ in range(ROUNDS):
            before = self._at
            piece = self._some()
            self._empty = 0 if piece else self._empty + self._at - before
            if self._empty > EMPTY:
                raise BadStream
            if piece or not self.waiting:
                return piece
        return b""

    def _some(self) -> bytes:
        if self._stream.eof:
            raise BadStream
        flush = self._waiting.find(FLUSHED, max(0, self._at - len(FLUSHED) + 1))
        stop = len(self._waiting) if flush < 0 else flush + len(FLUSHED)
        stop = min(stop, self._at + PIECE)
        try:
            # Called even with nothing waiting: the stream may hold what there was no room for.
            piece = self._stream.decompress(memoryview(self._waiting)[self._at : stop], PIECE)
        except zlib.error:
            raise BadStream from None
        if self._stream.eof and not piece:
            raise BadStream
        self._at = stop - len(self._stream.unconsumed_tail) - len(self._stream.unused_data)
        self.octets_out += len(piece)
        return piece

    def rest(self) -> bytes:
        """Return what was not taken and is not deflated, the peer having ended that."""
        end = b"\x03\0"  # of the stream, if it was sent
        return self._waiting[self._at :].removeprefix(end)


class Deflater:
    """Deflates what is sent; each call's octets can be read by the peer at once."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW, MEMORY)

    def __call__(self, data: bytes) -> bytes:
        """Return `data` deflated."""
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)
