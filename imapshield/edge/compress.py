"""COMPRESS=DEFLATE (RFC 4978): compresses and decompresses one connection's data in bounded memory and time.

A few bytes can inflate to a thousand times as many. Input is therefore inflated in chunks, only while the connection
processes them, and the rest stays as small as it arrived. The two streams of one connection hold about 110 KiB: 64 for
deflating (`DEFLATE_WINDOW_BITS`, `MEMORY_LEVEL`), 40 for inflating, where the peer chooses the window.
"""

import zlib

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.guard.verdicts import Reset

CHUNK_SIZE = 16 << 10
"""Bytes inflated at a time. The base class splits lines in quadratic time, so its buffer is kept small."""

MAX_EMPTY_BYTES = 16 << 10
"""How many consecutive bytes of input may inflate to nothing.

A flush is an empty block of five bytes. The code tables at the beginning of a block have a few hundred bytes.
"""

UNCHECKED_BYTES = 1 << 20
"""How many bytes of commands one connection may inflate before `Limits.max_inflate_ratio` applies."""

FLUSHES_PER_TAKE = 100
"""Flushes processed before `Inflater.take` returns, so that other connections have their turn."""

INFLATE_WINDOW_BITS = 15
"""The largest window, 32 KiB, because the peer may use any (RFC 1951)."""

DEFLATE_WINDOW_BITS = 13
"""A window of 8 KiB. zlib's default, 15, takes four times the memory."""

MEMORY_LEVEL = 6
"""zlib takes 2^(6 + 9) bytes for this level, as many as for the window. Its default is 8."""

DEFLATE_LEVEL = 6
"""zlib's default balance of speed and size."""

STREAM_BYTES = 104 << 10
"""Bytes of memory that the two streams of one connection take together."""

FLUSH_MARK = b"\0\0\xff\xff"
"""The last bytes of a flush. Input without compression can begin only after a flush (RFC 8437 section 4.1)."""

_END_OF_STREAM = b"\x03\0"
"""An empty last block, with which a peer may end its stream."""


class BadStream(Exception):
    """The input is not a deflate stream, or the peer has ended the stream, after which nothing can follow."""


class Inflater:
    """Inflates what the peer sends, a chunk at a time."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-INFLATE_WINDOW_BITS)  # negative: without a zlib header
        self._input = b""
        self._position = 0  # of the first byte of _input that was not inflated yet
        self._empty_bytes = 0

    def feed(self, data: bytes) -> None:
        """Add `data` to the input."""
        consumed = max(0, self._position - len(FLUSH_MARK) + 1)  # a mark may be half inflated
        self._input = self._input[consumed:] + data
        self._position -= consumed

    @property
    def input_size(self) -> int:
        """The bytes of input that are held."""
        return len(self._input)

    @property
    def has_input(self) -> bool:
        """Whether some of the input was not inflated yet."""
        return self._position < len(self._input)

    def take(self) -> bytes:
        """Return up to `CHUNK_SIZE` inflated bytes, but none from behind the next flush.

        The result is empty if the input received so far yields nothing, or after `FLUSHES_PER_TAKE` empty flushes; then
        `has_input` may still be true.

        Raises:
            BadStream: the input is invalid, or more than `MAX_EMPTY_BYTES` of it have yielded nothing. Empty blocks
                cost time.
        """
        for _ in range(FLUSHES_PER_TAKE):
            before = self._position
            chunk = self._inflate_to_flush()
            self._empty_bytes = 0 if chunk else self._empty_bytes + self._position - before
            if self._empty_bytes > MAX_EMPTY_BYTES:
                raise BadStream
            if chunk or not self.has_input:
                return chunk
        return b""

    def _inflate_to_flush(self) -> bytes:
        if self._stream.eof:
            raise BadStream
        mark = self._input.find(FLUSH_MARK, max(0, self._position - len(FLUSH_MARK) + 1))
        stop = len(self._input) if mark < 0 else mark + len(FLUSH_MARK)
        stop = min(stop, self._position + CHUNK_SIZE)
        try:
            # Called even without input: the stream may hold output that the last chunk had no room for.
            data = memoryview(self._input)[self._position : stop]
            chunk = self._stream.decompress(data, CHUNK_SIZE)
        except zlib.error:
            raise BadStream from None
        if self._stream.eof and not chunk:
            raise BadStream
        self._position = stop - len(self._stream.unconsumed_tail) - len(self._stream.unused_data)
        return chunk

    def rest(self) -> bytes:
        """Return the input that was not inflated, when the peer has stopped compressing."""
        return self._input[self._position :].removeprefix(_END_OF_STREAM)


class Deflater:
    """Deflates what the server sends. The peer can inflate the result of each call at once."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(
            DEFLATE_LEVEL, zlib.DEFLATED, -DEFLATE_WINDOW_BITS, MEMORY_LEVEL
        )

    def __call__(self, data: bytes) -> bytes:
        """Return `data` compressed and flushed."""
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)


class InputDecoder:
    """Passes the input of one connection on to its owner, inflated in fair turns while COMPRESS is active.

    `Limits.max_inflate_ratio` applies to everything that the connection sends compressed. A client that ends the
    compression with UNAUTHENTICATE and starts it again after another login continues the same count.
    """

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._inflater: Inflater | None = None
        self._bytes_in = 0
        self._command_bytes = 0
        self._scheduled = False

    def start_inflating(self) -> None:
        """Inflate what the peer sends from now on."""
        self._inflater = Inflater()
        self._owner.memory.inflating = STREAM_BYTES
        early = self._owner.clearLineBuffer()
        if early:  # Already compressed, by a client that did not wait for the OK.
            self.receive(early)

    def stop_inflating(self) -> None:
        """Inflate nothing from now on (RFC 8437 section 4.1: neither side compresses any more)."""
        if self._inflater is None:
            return
        rest, self._inflater = self._inflater.rest(), None
        self._owner.memory.inflating = 0
        if not self._owner.paused:
            self._owner.transport.resumeProducing()
        self._owner.receive_again(rest)

    def receive(self, data: bytes) -> None:
        """Decode `data`; b"" when the connection resumes reading after a pause."""
        if self._inflater is None:
            self._owner.process_input(data)
            return
        self._bytes_in += len(data)
        self._inflater.feed(data)
        self._owner.memory.inflating = STREAM_BYTES + self._inflater.input_size
        if not data:  # Process the bytes that were inflated before the pause first.
            self._owner.process_input(b"")
        self._inflate_later()

    def _inflate_later(self) -> None:
        # Reading stops until then: 64 KiB of the cheapest blocks take longer to inflate than one turn.
        if not self._scheduled and not self._owner.closed and not self._owner.paused:
            self._scheduled = True
            self._owner.transport.pauseProducing()
            self._owner.schedule(self._inflate)

    def _inflate(self) -> None:
        self._scheduled = False
        owner, inflater = self._owner, self._inflater
        deadline = owner.now() + owner.limits.turn_seconds
        try:
            while inflater is not None and not owner.closed and not owner.paused:
                chunk = inflater.take()
                if not chunk and not inflater.has_input:
                    owner.transport.resumeProducing()
                    break
                self._check_ratio(len(chunk))
                owner.process_input(chunk)
                if owner.now() > deadline:
                    self._inflate_later()
                    break
        except BadStream:
            owner.reporter.bad_command(b"", "Invalid compressed data")
            owner.reset("invalid compressed data")

    def _check_ratio(self, inflated_bytes: int) -> None:
        if self._owner.line_mode:  # Literals have limits of their own, and may well be all zeros.
            self._command_bytes += inflated_bytes
        ratio = self._command_bytes // self._bytes_in
        max_ratio = self._owner.limits.max_inflate_ratio
        if self._command_bytes > UNCHECKED_BYTES and ratio > max_ratio:
            self._owner.apply_verdict(Reset("max_inflate_ratio", max_ratio, ratio))
