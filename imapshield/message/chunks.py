"""Splits large messages into chunks, so that no single call blocks every thread.

One call of C code for a message of 64 MiB, such as `re.sub` or a decoder, holds the interpreter lock for up to some
seconds. During that time no other thread runs, not even the reactor's. Between two chunks the lock can be released.
"""

from collections.abc import Iterator
from typing import Final

CHUNK_SIZE: Final = 1 << 18


def line_chunks(data: bytes, size: int = CHUNK_SIZE) -> Iterator[bytes]:
    """Yield `data` in chunks that end at line ends and have at least `size` bytes, except for the last one."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + size - 1) + 1 or len(data)
        yield data[start:end] if start or end < len(data) else data
        start = end
