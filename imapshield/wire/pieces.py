"""Long responses in pieces: they are encoded while the client reads them, and are never in memory as a whole."""

from collections.abc import Iterable, Iterator
from itertools import islice

PIECE_SIZE = 16 << 10
"""Bytes of a response that are encoded at once. Up to twice as many are unsent beyond the limit on unsent output."""

NUMBERS_PER_PIECE = PIECE_SIZE // 12
"""Numbers that fit in a piece: ten digits and a separator each. They take some tenths of a millisecond."""


def joined(parts: Iterable[bytes], per_piece: int) -> Iterator[bytes]:
    """Yield `parts` in order, joined into pieces of `per_piece` parts."""
    rest = iter(parts)
    while piece := b"".join(islice(rest, per_piece)):
        yield piece


def sliced(data: bytes) -> Iterable[bytes]:
    """Divide `data` into pieces of at most `PIECE_SIZE`, which are copied one at a time."""
    if len(data) <= PIECE_SIZE:
        return (data,)
    return (data[i : i + PIECE_SIZE] for i in range(0, len(data), PIECE_SIZE))


def separated(parts: Iterable[bytes], separator: bytes, per_piece: int) -> Iterator[bytes]:
    """Yield `parts` with `separator` between them, joined into pieces of `per_piece` parts."""
    rest = iter(parts)
    before = b""
    while batch := list(islice(rest, per_piece)):
        yield before + separator.join(batch)
        before = separator
