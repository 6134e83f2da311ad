"""Decodes the text of a message, for SEARCH and for PREVIEW (RFC 8970)."""

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from imapshield.message import transfer_encoding
from imapshield.message.charsets import to_text
from imapshield.message.chunks import CHUNK_SIZE, line_chunks
from imapshield.message.headers import decode_header
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.message.mime_tree import Part

# Bytes of a part that are read for a preview. In HTML messages, tens of kilobytes of style sheets may precede the text.
PREVIEW_BYTES: Final = 1 << 16

_fold = re.compile(rb"\r?\n(?=[ \t])")
# html.parser takes quadratic time for some input. This takes linear time: each alternative matches up to the end of the
# text if its own end is missing, so no character is tried twice.
_markup = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|head|title)\b.*?(?:</\1\s*+>|\Z)|<[^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
# `html.unescape` calls `int`, which refuses more than 4300 digits. No character has a number of eight digits.
_huge_reference = re.compile(r"&#[0-9]{1000,}+;?")
_quoted = re.compile(r"^>.*$", re.MULTILINE)


def searchable_texts(part: Part, data: bytes, headers: bool) -> Iterator[str]:
    """Yield the decoded text of every text part. HTML keeps its tags, as in the search of Dovecot.

    Args:
        part: the MIME tree of the message.
        data: the message.
        headers: also yield the decoded header of every part (the TEXT key).
    """
    for child in part.walk():
        if headers:
            # Encoded words are decoded in the first bytes of a header only, like fields.
            stop = min(child.body_start, child.start + DEFAULT_LIMITS.header)
            yield from map(_header_text, line_chunks(data[child.start : stop]))
            for chunk in line_chunks(data[stop : child.body_start]):
                yield to_text(chunk, b"")
        if child.kind.startswith((b"text/", b"message/")) and child.embedded is None:
            yield _body_text(child, data, child.end)


def _header_text(block: bytes) -> str:
    block = _fold.sub(b"", block.replace(b"\n\t", b"\n "))  # as `headers.unfold` does
    if b"=?" not in block:
        return to_text(block, b"")
    texts = []
    # The header is decoded line by line and not field by field, because it may contain lines that are not fields.
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
    """Maps each character to its case-folded and decomposed form. It is filled on demand, up to 65,536 entries.

    `unicodedata.normalize` of a whole text would sort runs of combining marks in quadratic time, and a message can
    contain a million of them.
    """

    def __missing__(self, code: int) -> str:
        folded = unicodedata.normalize("NFKD", chr(code)).casefold()
        if len(self) < 1 << 16:
            self[code] = folded
        return folded


# RFC 5051 treats one more pair of letters as equal than case folding does: Turkish ı, of which the capital is I, and i.
_case_folding = _CaseFolding({0x131: "i"})


def normalize(text: str) -> str:
    """Return the case-folded and decomposed form of a text, in which SEARCH compares texts."""
    return text.lower() if text.isascii() else text.casefold().translate(_case_folding)


def contains(text: str, needle: str) -> bool:
    """Return whether `needle`, which is normalized, occurs in `text`, which is not.

    Normalizing turns each character into at least one character, so a match never spans more characters of `text` than
    `needle` has.
    """
    step = max(CHUNK_SIZE, len(needle))
    return any(
        needle in normalize(text[start : start + step + len(needle)])
        for start in range(0, len(text) or 1, step)
    )


def preview(part: Part, data: bytes, limit: int = 200) -> str:
    """Return the first words of a message (RFC 8970), or "" if it has no text.

    They come from the first text part that is not empty. Quoted lines are used only if there is no other text.

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
            text = html.unescape(_huge_reference.sub("\ufffd", _markup.sub(" ", text)))
        text = text.replace("\0", "")
        unquoted = " ".join((_quoted.sub("", text) if ">" in text else text).split())
        if unquoted:
            return unquoted[:limit].rstrip()
        fallback = fallback or " ".join(text.split())
    return fallback[:limit].rstrip()
