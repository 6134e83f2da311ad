"""Decodes the text of a message, for SEARCH and for PREVIEW (RFC 8970)."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from imapshield.message import transfer_encoding
from imapshield.message.charsets import text_chunks, to_text
from imapshield.message.chunks import CHUNK_SIZE, chunks
from imapshield.message.headers import decode_header
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.message.mime_tree import Part
from imapshield.message.pauses import pause_point

# Bytes of a part that are read for a preview. In HTML messages, tens of kilobytes of style sheets may precede the text.
PREVIEW_BYTES: Final = 1 << 16

_line_before_field = re.compile(rb"\n(?![ \t])")
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
# Words with characters beyond ASCII. Most texts have few of them, and `str.translate` is slow.
_beyond_ascii = re.compile("[^\0-\x7f](?:[\0-\x7f]?[^\0-\x7f])*")


def searchable_texts(part: Part, data: bytes, headers: bool) -> Iterator[Iterable[str]]:
    """Yield the decoded text of every text part, each in pieces. HTML keeps its tags, as in the search of Dovecot.

    Args:
        part: the MIME tree of the message.
        data: the message.
        headers: also yield the decoded header of every part (the TEXT key).
    """
    for child in part.walk():
        if headers:
            yield _header_texts(child, data)
        if _is_searched(child):
            yield _body_text(child, data, child.end)


def header_texts(part: Part, data: bytes) -> Iterator[Iterable[str]]:
    """Yield the decoded header of every part, each in pieces."""
    return (_header_texts(child, data) for child in part.walk())


def body_texts(part: Part, data: bytes) -> Iterator[Iterable[str]]:
    """Yield the decoded text of every text part, each in pieces."""
    return (_body_text(child, data, child.end) for child in part.walk() if _is_searched(child))


def _is_searched(part: Part) -> bool:
    return part.kind.startswith((b"text/", b"message/")) and part.embedded is None


def _header_texts(part: Part, data: bytes) -> Iterator[str]:
    # Encoded words are decoded in the first bytes of a header only, like fields.
    stop = min(part.body_start, part.start + DEFAULT_LIMITS.header)
    start = part.start
    while start < stop:
        line_end = _line_before_field.search(data, start + CHUNK_SIZE, stop)
        end = stop if line_end is None else line_end.end()
        yield _header_text(data[start:end])
        start = end
    for chunk in chunks(data, stop, part.body_start):
        yield to_text(chunk, b"")


def _header_text(block: bytes) -> str:
    block = _unfolded(block.replace(b"\n\t", b"\n "))
    if b"=?" not in block:
        return to_text(block, b"")
    # The header is decoded line by line and not field by field, because it may contain lines that are not fields.
    if not block.isascii():
        return "\n".join(map(_line_text, block.split(b"\n")))
    texts: list[str] = []
    start = 0
    word = block.find(b"=?")
    while word >= 0:
        line = block.rfind(b"\n", start, word) + 1 or start
        end = block.find(b"\n", word)
        end = len(block) if end < 0 else end
        texts += (block[start:line].decode("ascii"), _line_text(block[line:end]))
        start = end
        word = block.find(b"=?", end)
    texts.append(block[start:].decode("ascii"))
    return "".join(texts)


def _line_text(line: bytes) -> str:
    name, colon, body = line.partition(b":")
    return to_text(name, b"") + colon.decode() + decode_header(body)


def _unfolded(block: bytes) -> bytes:
    """Return a block without the line ends before spaces, as `headers.unfold` does."""
    folds = block.count(b"\n ")
    if not folds:
        return block
    # As in nearly all mail, and to replace them is faster than a pattern.
    if folds == block.count(b"\r\n "):
        return block.replace(b"\r\n ", b" ")
    return _fold.sub(b"", block)


def _body_text(part: Part, data: bytes, end: int) -> Iterator[str]:
    encoding = part.transfer_encoding()
    if encoding not in transfer_encoding.KNOWN:
        encoding = b"binary"

    def read() -> Iterable[bytes]:
        return transfer_encoding.decoded_chunks(data, encoding, part.body_start, end)

    return text_chunks(read, part.parameter(b"charset") or b"us-ascii")


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
    if text.isascii():
        return text.lower()
    if len(text) > CHUNK_SIZE:
        starts = range(0, len(text), CHUNK_SIZE)
        return "".join([normalize(text[start : start + CHUNK_SIZE]) for start in starts])
    return _beyond_ascii.sub(_folded, text.casefold())


def _folded(match: re.Match[str]) -> str:
    return match[0].translate(_case_folding)


def contains(pieces: Iterable[str], needle: str) -> bool:
    """Return whether `needle`, which is normalized, occurs in the text that `pieces` are together, which is not.

    Each character is normalized by itself, so the text can be divided anywhere.
    """
    kept = len(needle) - 1
    end = ""
    for piece in pieces:
        for start in range(0, len(piece), CHUNK_SIZE):
            pause_point()
            searched = end + normalize(piece[start : start + CHUNK_SIZE])
            if needle in searched:
                return True
            end = searched[-kept:] if kept > 0 else ""
    return not needle


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
        stop = min(child.end, child.body_start + PREVIEW_BYTES)
        text = "".join(_body_text(child, data, stop))
        if child.kind == b"text/html":
            text = html.unescape(_huge_reference.sub("\ufffd", _markup.sub(" ", text)))
        text = text.replace("\0", "")
        unquoted = " ".join((_quoted.sub("", text) if ">" in text else text).split())
        if unquoted:
            return unquoted[:limit].rstrip()
        fallback = fallback or " ".join(text.split())
    return fallback[:limit].rstrip()
