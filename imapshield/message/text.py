"""The words of a message: for SEARCH, and for PREVIEW (RFC 8970)."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from imapshield.message import transfer_encoding
from imapshield.message.charsets import to_text
from imapshield.message.chunks import CHUNK_SIZE, line_chunks
from imapshield.message.headers import decode_header
from imapshield.message.mime_tree import Part

# Octets of a part that a preview is looked for in: HTML mails begin with style sheets of up to some
# ten kilobytes.
PREVIEW_BYTES: Final = 1 << 16

_fold = re.compile(rb"\r?\n(?=[ \t])")
# Not html.parser, which needs quadratic time for some input. Each alternative reads to the end if
# its own end is missing, so no octet is tried twice.
_markup = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|head|title)\b.*?(?:</\1\s*+>|\Z)|<[^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_quoted = re.compile(r"^>.*$", re.MULTILINE)


def searchable_texts(part: Part, data: bytes, headers: bool) -> Iterator[str]:
    """Yield the decoded text of every text part, HTML with its tags, as Dovecot searches it.

    Args:
        part: the tree of the message.
        data: the message.
        headers: yield the decoded header of every part too (the TEXT key).
    """
    for each in part.walk():
        if headers:
            yield from map(_header, line_chunks(data[each.start : each.body_start]))
        if each.kind.startswith((b"text/", b"message/")) and each.embedded is None:
            yield _decoded(each, data, each.end)


def _header(block: bytes) -> str:
    block = _fold.sub(b"", block.replace(b"\n\t", b"\n "))  # as `unfold` does
    if b"=?" not in block:
        return to_text(block, b"")
    shown = []
    # Line by line, not field by field: what is no field stands in the header all the same.
    for line in block.split(b"\n"):
        name, colon, body = line.partition(b":")
        shown.append(to_text(name, b"") + colon.decode() + decode_header(body))
    return "\n".join(shown)


def _decoded(part: Part, data: bytes, end: int) -> str:
    encoding = part.transfer_encoding()
    octets = data[part.body_start : end]
    if encoding in transfer_encoding.KNOWN:
        octets = transfer_encoding.decode(octets, encoding)
    return to_text(octets, part.parameter(b"charset") or b"us-ascii")


class _Folding(dict[int, str]):
    """Characters to their decomposed form, filled as they come, up to what living languages need.

    Character by character, not `unicodedata.normalize` of the whole: that sorts runs of combining
    marks in quadratic time, and a mail can hold a million of them.
    """

    def __missing__(self, code: int) -> str:
        shown = unicodedata.normalize("NFKD", chr(code)).casefold()
        if len(self) < 1 << 16:
            self[code] = shown
        return shown


# The one letter that RFC 5051 holds for another and case folding does not: Turkish ı has the capital I.
_folding = _Folding({0x131: "i"})


def normalize(text: str) -> str:
    """Return the form in which needle and haystack are compared: no case, decomposed."""
    if text.isascii():
        return text.lower()
    return text.casefold().translate(_folding)


def contains(text: str, needle: str) -> bool:
    """Whether `needle`, which is normalized, is in `text`, which is not.

    Every character becomes one or more, so that of a needle no more characters of the text than it has can be in it.
    """
    step = max(CHUNK_SIZE, len(needle))
    return any(
        needle in normalize(text[start : start + step + len(needle)])
        for start in range(0, len(text) or 1, step)
    )


def preview(part: Part, data: bytes, limit: int = 200) -> str:
    """Return the first words of the message, at most `limit` characters; "" when it has no text.

    The first text part that says anything is shown; lines quoted from others only if there is
    nothing else.
    """
    fallback = ""
    for each in part.walk():
        if not each.kind.startswith(b"text/"):
            continue
        text = _decoded(each, data, min(each.end, each.body_start + PREVIEW_BYTES))
        if each.kind == b"text/html":
            text = html.unescape(_markup.sub(" ", text))
        text = text.replace("\0", "")
        own = " ".join((_quoted.sub("", text) if ">" in text else text).split())
        if own:
            return own[:limit].rstrip()
        fallback = fallback or " ".join(text.split())
    return fallback[:limit].rstrip()
