"""Divides the work on large messages, so that no single call blocks every thread.

One call of C code for a message of 64 MiB, such as `re.sub` or a decoder, holds the interpreter lock for up to some
seconds. During that time no other thread runs, not even the reactor's. Between two chunks the lock can be released.
"""

from collections.abc import Iterator
from typing import Final

from imapshield.message.pauses import pause_point

CHUNK_SIZE: Final = 1 << 14
"""Bytes or characters that one call decodes or folds, which takes up to half a millisecond."""

SCAN_SIZE: Final = 1 << 19
"""Bytes that one call searches or counts, which takes about as long."""


def chunks(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """Yield ``data[start:stop]`` in chunks of about `CHUNK_SIZE` bytes, but never divide CR and LF."""
    stop = len(data) if stop is None else stop
    while start < stop:
        end = min(start + CHUNK_SIZE, stop)
        if end < stop and data[end - 1] == 0x0D:
            end -= 1
        pause_point()
        yield data[start:end]
        start = end


def find(data: bytes, needle: bytes, start: int, stop: int) -> int:
    """Return what ``data.find(needle, start, stop)`` returns, for a `start` that is not negative."""
    while stop - start > SCAN_SIZE:
        found = data.find(needle, start, start + SCAN_SIZE)
        if found >= 0:
            return found
        start += SCAN_SIZE - len(needle) + 1
        pause_point()
    return data.find(needle, start, stop)


def count_lines(data: bytes, start: int, stop: int) -> int:
    """Return the number of LFs in ``data[start:stop]``."""
    if stop - start <= SCAN_SIZE:
        return data.count(b"\n", start, max(start, stop))
    lines = 0
    for position in range(start, stop, SCAN_SIZE):
        pause_point()
        lines += data.count(b"\n", position, min(position + SCAN_SIZE, stop))
    return lines
