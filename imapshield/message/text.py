"""The text of a message, decoded: for SEARCH, and for PREVIEW (RFC 8970)."""

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

# Bytes of a part that are read for a preview. HTML mails begin with style sheets of some ten kilobytes at most.
PREVIEW_BYTES: Final = 1 << 16

_fold = re.compile(rb"\r?\n(?=[ \t])")
# Not html.parser, which needs quadratic time for some input. Each alternative matches up to the end of the text if
# its own end is missing, so no character is tried twice.
_markup = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|head|title)\b.*?(?:</\1\s*+>|\Z)|<[^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_quoted = re.compile(r"^>.*$", re.MULTILINE)


def searchable_texts(part: Part, data: bytes, headers: bool) -> Iterator[str]:
    """Yield the decoded text of every text part. HTML keeps its tags, as in Dovecot's search.

    Args:
        part: the MIME tree of the message.
        data: the message.
        headers: also yield the decoded header of every part (the TEXT key).
    """
    for child in part.walk():
        if headers:
            yield from map(_header_text, line_chunks(data[child.start : child.body_start]))
        if child.kind.startswith((b"text/", b"message/")) and child.embedded is None:
            yield _body_text(child, data, child.end)


def _header_text(block: bytes) -> str:
    block = _fold.sub(b"", block.replace(b"\n\t", b"\n "))  # as `headers.unfold` does
    if b"=?" not in block:
        return to_text(block, b"")
    texts = []
    # Line by line and not field by field, because lines that are no fields are part of the header too.
    for line in block.split(b"\n"):
        name, colon, body = line.partition(b":")
        texts.append(to_text(name, b"") + colon.decode() + decode_header(body))
    return "\n".join(texts)


def _body_text(part: Part, data: bytes, end: int) -> str:
    encoding = part.transfer_encoding()
    content = data[part.body_start : end]
    if encoding in transfer_encoding.KNOWN:
        content = transfer_encoding.decode(content, encoding)
    return to_text(content, part.parameter(b"charset") or b"us-ascii")


class _CaseFolding(dict[int, str]):
    """Maps each character to its folded and decomposed form. Filled on demand, up to what living languages need.

    It works character by character. `unicodedata.normalize` of a whole text sorts runs of combining marks in
    quadratic time, and a mail can contain a million of them.
    """

    def __missing__(self, code: int) -> str:
        folded = unicodedata.normalize("NFKD", chr(code)).casefold()
        if len(self) < 1 << 16:
            self[code] = folded
        return folded


# RFC 5051 equates one pair of letters that case folding does not: Turkish ı, whose capital is I, and i.
_case_folding = _CaseFolding({0x131: "i"})


def normalize(text: str) -> str:
    """Return the form of a text in which SEARCH compares it: case-folded and decomposed."""
    if text.isascii():
        return text.lower()
    return text.casefold().translate(_case_folding)


def contains(text: str, needle: str) -> bool:
    """Whether `needle`, which is normalized, occurs in `text`, which is not.

    Normalizing turns every character into one or more, so a match never takes more characters of `text` than the
    needle has.
    """
    step = max(CHUNK_SIZE, len(needle))
    return any(
        needle in normalize(text[start : start + step + len(needle)])
        for start in range(0, len(text) or 1, step)
    )


def preview(part: Part, data: bytes, limit: int = 200) -> str:
    """Return the first words of a message (RFC 8970), or "" if it has no text.

    They come from the first text part that contains any. Quoted lines are used only if there is nothing else.

    Args:
        part: the MIME tree of the message.
        data: the message.
        limit: the maximum number of characters.
    """
    fallback = ""
    for child in part.walk():
        if not child.kind.startswith(b"text/"):
            continue
        text = _body_text(child, data, min(child.end, child.body_start + PREVIEW_BYTES))
        if child.kind == b"text/html":
            text = html.unescape(_markup.sub(" ", text))
        text = text.replace("\0", "")
        unquoted = " ".join((_quoted.sub("", text) if ">" in text else text).split())
        if unquoted:
            return unquoted[:limit].rstrip()
        fallback = fallback or " ".join(text.split())
    return fallback[:limit].rstrip()
