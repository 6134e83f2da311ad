"""Decompresses the message files of Dovecot's zlib plugin, within limits. No I/O.

A file may be compressed with gzip, bzip2, xz or zstd. zstd needs Python 3.14 or the package backports.zstd
(``pip install 'imapshield[zstd]'``). The beginning of a file alone does not prove that it is compressed, because a
client may append any bytes: `filename.may_be_compressed` is the other condition.

What cannot be decompressed raises an OSError whose ``strerror`` is a text for the operator.
"""

import bz2
import errno
import lzma
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Protocol

from imapshield.extras import install_command
from imapshield.maildir.files import MAX_MESSAGE_SIZE
from imapshield.message.chunks import CHUNK_SIZE

try:
    from compression import zstd

    _zstd: ModuleType | None = zstd
except ImportError:
    try:
        from backports import zstd

        _zstd = zstd
    except ImportError:
        _zstd = None

ANY_RATIO_SIZE = 64 << 20
"""Bytes up to which a message may be compressed at any ratio. That is the default limit of one message of APPEND:
Dovecot stores such a message in 70 KB if it consists of one repeated byte, and it is mail all the same."""

MAX_RATIO = 100
"""The maximum of decompressed bytes for each byte of a file, above `ANY_RATIO_SIZE`. The text of mail is compressed to
a tenth, base64 to three quarters. A file of 100 KB that would become 1 GB is refused at 64 MiB, after 0.2 seconds."""

_MAX_XZ_MEMORY = 80 << 20
"""Bytes that the decoder of xz may allocate before it has decoded anything. ``xz -9`` needs 65 MiB; a file could demand
4 GiB."""

_MAX_STREAMS = 1000
"""The maximum of streams that follow each other in a file. pbzip2 writes one for each 900 KB. A file could consist of
empty ones, of which 256 MiB take minutes."""

_INPUT_SIZE = 64 << 10


class _Decompressor(Protocol):
    """The interface of `bz2.BZ2Decompressor` and its relatives."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """`zlib` with that interface."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length
        return out


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_XZ_MEMORY)


def _zstandard() -> _Decompressor:
    if _zstd is None:
        raise _unreadable(f"it is compressed with zstd; run: {install_command('zstd')}")
    decompressor: _Decompressor = _zstd.ZstdDecompressor()
    return decompressor


def _lz4() -> _Decompressor:
    raise _unreadable(
        "it is compressed with lz4, which is not supported; save it with zlib_save = gz"
    )


_ERRORS: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError, ValueError, OSError)
if _zstd is not None:
    _ERRORS = (*_ERRORS, _zstd.ZstdError)

_FORMATS: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b": ("gzip", _Gzip),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\0": ("xz", _xz),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstandard),
    b"Dovecot-LZ4\r*\x9b\xc5": ("lz4", _lz4),
}
"""The name and the decompressor of each format, by the bytes with which its files begin."""

MAGIC = tuple(_FORMATS)
"""The bytes with which a compressed file begins, for `bytes.startswith`."""


def decompress(octets: bytes) -> bytes:
    """Return the content of a compressed file, which begins with one of `MAGIC`.

    Raises:
        OSError: the file is damaged or incomplete, or its content is larger than the limits allow.
    """
    limit = min(MAX_MESSAGE_SIZE, max(ANY_RATIO_SIZE, MAX_RATIO * len(octets)))
    return _first_bytes(octets, limit, whole=True)


def decompress_head(octets: bytes, size: int) -> bytes:
    """Return at most `size` bytes from the beginning of a compressed file.

    Args:
        octets: the beginning of the file. If it is too short, the result is shorter than `size`.
        size: the size of the result.

    Raises:
        OSError: the file is damaged.
    """
    return _first_bytes(octets, size, whole=False)


def _first_bytes(octets: bytes, size: int, whole: bool) -> bytes:
    """Return at most `size` bytes of the content; if `whole` is true, there must be no more of them."""
    name, new_decompressor = next(f for magic, f in _FORMATS.items() if octets.startswith(magic))
    chunks: list[bytes] = []
    left = size
    try:
        for chunk in _chunks(octets, new_decompressor):
            if whole and len(chunk) > left:
                raise _unreadable(
                    f"it is {len(octets)} bytes that decompress to more than {size}, which is not "
                    "allowed; move it out of the Maildir"
                )
            chunks.append(chunk[:left])
            left -= len(chunks[-1])
            if not (whole or left):
                break
    except EOFError:
        if whole:
            raise _unreadable(f"its {name} data ends early; restore it from a backup") from None
    except _ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _unreadable(f"its {name} data is damaged; restore it from a backup") from error
    return b"".join(chunks)


def _chunks(octets: bytes, new_decompressor: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Yield the content in chunks, between which other threads can run.

    The streams of a file with several, as ``cat a.gz b.gz`` makes it, follow each other without a gap.

    Raises:
        EOFError: `octets` ends in the middle of a stream.
        ValueError: there are more than `_MAX_STREAMS`.
    """
    decompressor = new_decompressor()
    streams = 1
    start = 0
    while start < len(octets):
        part = octets[start : start + _INPUT_SIZE]
        start += len(part)
        while part or not (decompressor.needs_input or decompressor.eof):
            yield decompressor.decompress(part, CHUNK_SIZE)
            part = b""
            if decompressor.eof and start - len(decompressor.unused_data) < len(octets):
                start -= len(decompressor.unused_data)
                streams += 1
                if streams > _MAX_STREAMS:
                    raise ValueError
                decompressor = new_decompressor()
    if not decompressor.eof:
        raise EOFError


def _unreadable(text: str) -> OSError:
    return OSError(errno.EBADMSG, text)
