"""Prepares the text of a message, and what is searched in it, for an index of trigrams (`maildir.text_index`).

The index answers which messages may contain a text: those that contain all its trigrams. `MessageItems.matches` then
decides. So the index may know too much of a message, and must not know too little: whatever `text.contains` finds is
in the texts of this module, after `fold`.

Eight messages share a row of the index for the fields of their headers that people rarely search, such as Received.
They would take half of the index otherwise. A text in these fields makes all eight messages candidates.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from imapshield.message import text
from imapshield.message.chunks import CHUNK_SIZE
from imapshield.message.mime_tree import Part
from imapshield.message.pauses import pause_point

TEXT_VERSION: Final = 1
"""The version of the texts of this module. An index of another version is built again. Raise it when `index_texts` or
`fold` return something else; ``tests/maildir/test_text_version.py`` fails until then."""

MAX_INDEXED_TEXT: Final = 1 << 18
"""Characters of the longest text of a message that is indexed. SEARCH reads longer messages each time. They are less
than one in a hundred, and it takes some hundredths of a second to index this much."""

MIN_NEEDLE: Final = 3
"""Characters of the shortest text that the index can answer."""

MAX_NEEDLE: Final = 256
"""Characters of a longer text that the index is asked for: its first ones. A client can search for many kilobytes, and
each call of the store computes the trigrams again."""

MAX_TRIGRAMS: Final = 64
"""Trigrams that the index is asked for. They choose the candidates nearly as well as all do."""

_OWN_FIELDS = frozenset({"from", "to", "cc", "bcc", "subject", "reply-to", "sender"})

# The index only has to tell messages apart. ASCII punctuation and control characters become spaces, and pairs of digits
# one digit, which makes the index a quarter smaller.
_FOLDED = {code: " " for code in range(128) if not chr(code).isalnum()}
_FOLDED |= {ord("0") + digit: chr(ord("0") + digit // 2 * 2) for digit in range(10)}
_SPACES = re.compile("  +")


class IndexTexts(NamedTuple):
    """The text of one message, folded.

    Attributes:
        own: the text of its body, and the fields of its headers that people search.
        shared: the other fields.
    """

    own: str
    shared: str


def index_texts(part: Part, data: bytes) -> IndexTexts | None:
    """Return the text of a message for the index; None if it is longer than `MAX_INDEXED_TEXT`.

    A text without a line feed occurs in the message only if it occurs in one line of a header, or in the body.

    Args:
        part: the MIME tree of the message.
        data: the message.
    """
    own: list[str] = []
    shared: list[str] = []
    left = MAX_INDEXED_TEXT
    for pieces in text.header_texts(part, data):
        header = _bounded(pieces, left)
        left -= len(header)
        for line in header.split("\n"):
            is_own = line.partition(":")[0].rstrip() in _OWN_FIELDS
            (own if is_own else shared).append(line)
    for pieces in text.body_texts(part, data):
        own.append(_bounded(pieces, left))
        left -= len(own[-1])
    return IndexTexts(fold("\n".join(own)), fold("\n".join(shared))) if left >= 0 else None


def _bounded(pieces: Iterable[str], limit: int) -> str:
    """Return the normalized text that `pieces` are together, up to somewhat more than `limit` characters."""
    parts: list[str] = []
    for piece in pieces:
        if limit < 0:
            break
        parts.append(text.normalize(piece))
        limit -= len(parts[-1])
    return "".join(parts)


def fold(normalized: str) -> str:
    """Return a normalized text as it is indexed.

    If a text contains another one, its folded form contains that of the other. SQLite would stop at a NUL, and cannot
    store surrogates: both become spaces.
    """
    parts: list[str] = []
    for start in range(0, len(normalized), CHUNK_SIZE):
        pause_point()
        piece = normalized[start : start + CHUNK_SIZE]
        if not piece.isascii():
            piece = piece.encode("utf-8", "replace").decode("utf-8")
        piece = _SPACES.sub(" ", piece.translate(_FOLDED))
        if parts and parts[-1].endswith(" "):
            piece = piece.removeprefix(" ")
        if piece:
            parts.append(piece)
    return "".join(parts)


def trigrams(needle: str) -> list[str] | None:
    """Return the trigrams that the index must have of every message that contains `needle`, which is normalized.

    Returns:
        None if the index cannot tell: `needle` is too short, or may span lines of a header.
    """
    needle = needle[:MAX_NEEDLE]
    folded = fold(needle)
    if len(folded) < MIN_NEEDLE or "\n" in needle:
        return None
    found = list(dict.fromkeys(folded[i : i + 3] for i in range(len(folded) - 2)))
    step = -(-len(found) // MAX_TRIGRAMS)
    return found[::step]
