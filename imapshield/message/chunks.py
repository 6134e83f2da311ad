"""Large octets in pieces.

One call of C over a message of 64 MiB, be it `re.sub` or a decoder, holds the interpreter for up to seconds, and no
other thread runs, the reactor's neither. Between two pieces it lets go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CHUNK_SIZE: Final = 1 << 18


def line_chunks(octets: bytes, size: int = CHUNK_SIZE) -> Iterator[bytes]:
    """Yield `octets` in pieces of at least `size` octets, but for the last, that end where a line does."""
    at = 0
    while at < len(octets):
        end = octets.find(b"\n", at + size - 1) + 1 or len(octets)
        yield octets[at:end] if at or end < len(octets) else octets
        at = end
