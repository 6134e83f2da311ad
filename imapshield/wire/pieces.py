"""Long responses in pieces: they are encoded while the client reads them, and are never in memory as a whole."""

from collections.abc import Iterable, Iterator
from itertools import islice

PIECE_SIZE = 16 << 10
"""Bytes of a response that are encoded at once; of long strings more, once the client reads (`gathered`).

Up to twice as many are unsent beyond the limit on unsent output.
"""

LONG_LINE = 1 << 10
"""Bytes of a line of which the parts are joined into a piece. To write shorter ones one by one takes less time."""

NUMBERS_PER_PIECE = PIECE_SIZE // 12
"""Numbers that fit in a piece: ten digits and a separator each. They take some tenths of a millisecond."""


def joined(parts: Iterable[bytes], per_piece: int) -> Iterator[bytes]:
    """Yield `parts` in order, joined into pieces of `per_piece` parts."""
    rest = iter(parts)
    while piece := b"".join(islice(rest, per_piece)):
        yield piece


def gathered(
    begins: Iterable[bytes], values: Iterable[bytes], end: bytes, size: int
) -> Iterator[bytes]:
    """Yield lines joined into pieces of at most `size` bytes, so that they are copied once.

    A value that is longer is a piece alone, which is not copied.

    Args:
        begins: the begin of each line.
        values: the rest of each line without `end`, which is often a whole message.
        end: the end of all lines.
        size: bytes of a piece.

    Raises:
        ValueError: there are more begins than values, or fewer.
    """
    piece: list[bytes] = []
    left = size
    for begin, value in zip(begins, values, strict=True):
        octets = len(begin) + len(value) + len(end)
        if octets > left and piece:
            yield b"".join(piece)
            piece.clear()
            left = size
        if octets > size:
            yield begin
            yield value
            piece.append(end)
            left = size - len(end)
        else:
            left -= octets
            piece += begin, value, end
    if piece:
        yield b"".join(piece)


def separated(parts: Iterable[bytes], separator: bytes, per_piece: int) -> Iterator[bytes]:
    """Yield `parts` with `separator` between them, joined into pieces of `per_piece` parts."""
    rest = iter(parts)
    before = b""
    while batch := list(islice(rest, per_piece)):
        yield before + separator.join(batch)
        before = separator
