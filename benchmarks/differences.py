"""A difference between two servers' responses, and what rules need to know about it.

The functions here take a `Difference` and return facts about its message or its request. None of them calls
imapshield's own code: a rule that did so would explain imapshield's mistakes.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from functools import lru_cache
from typing import NamedTuple

ADDRESS_FIELDS = ("FROM", "TO", "CC", "BCC")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# RFC 5322 section 3.3 with the zones and years of section 4.3, on one line.
_date = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun) ?, ?)?(\d{1,2}) (" + "|".join(_MONTHS) + r") (\d{4}|\d\d)"
    r" (?:[01]\d|2[0-3]):[0-5]\d(?::[0-6]\d)?"
    r" (?:[+-]\d{4}|ut|gmt|[ecmp][sd]t|[a-ik-z])(?: ?\(.*\))?"
).fullmatch
_boundary = re.compile(rb"\n--(?=\S)").split
_base64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}").fullmatch
_invalid_escape = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n)").search
_encoded_words = re.compile(rb"=\?([^?*]*)(\*[^?]*)?\?([bBqQ])\?([^?]*)\?=").findall


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the responses of two servers.

    Attributes:
        category: the kind of request, such as "BODYSTRUCTURE" or "SEARCH FROM".
        request: the data item, or the command.
        number: the sequence number of the message; 0 if the difference is not about one message.
        message: the message, empty for number 0.
        theirs: the other server's answer.
        ours: imapshield's answer. Answers are values of FETCH, or strings if the command was refused; True or
            False if a SEARCH did or did not find the message; None for SORT and THREAD.
    """

    category: str
    request: str
    number: int
    message: bytes
    theirs: object
    ours: object

    def describe(self, names: Sequence[str]) -> str:
        """Return a description with the name of the message; of long strings, what is around the difference."""
        theirs, ours = self.theirs, self.ours
        if isinstance(theirs, bytes) and isinstance(ours, bytes):
            pairs = enumerate(zip(theirs, ours, strict=False))
            index = next((i for i, (a, b) in pairs if a != b), min(len(theirs), len(ours)))
            excerpt = slice(max(0, index - 40), index + 160)
            theirs, ours = theirs[excerpt], ours[excerpt]
        name = names[self.number - 1] if self.number else "-"
        return (
            f"{self.category} {self.request}\n  message {self.number}, {name}\n"
            f"  theirs {theirs!r}\n  ours   {ours!r}"
        )


class Rule(NamedTuple):
    """A known difference: its name, the sentence of an RFC that decides, and the differences it explains."""

    name: str
    reason: str
    explains: Callable[[Difference], bool]


@lru_cache(maxsize=8)
def header_blocks(message: bytes) -> tuple[bytes, ...]:
    """Split a message at blank lines: its header, and then blocks that may be the header of a part."""
    return tuple(re.split(rb"(?<=\n)\r?\n", b"\n" + message))


@lru_cache(maxsize=64)
def _fields_of_block(block: bytes, name: str) -> list[bytes]:
    pattern = rb"(?im)^%b[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)" % re.escape(name.encode())
    return [value.strip(b" \t\r") for value in re.findall(pattern, block)]


def fields(difference: Difference, name: str) -> list[bytes]:
    """Return the values of a field of the message's own header, still folded."""
    return _fields_of_block(header_blocks(difference.message)[0], name)


def fields_anywhere(difference: Difference, name: str) -> Iterator[list[bytes]]:
    """Yield the values of a field for each header in the message, and for each block that looks like one."""
    for block in header_blocks(difference.message):
        yield _fields_of_block(block, name)


def search_text(difference: Difference) -> str:
    """Return the text of a SEARCH, or "" if it had none."""
    return difference.request.partition('"')[2].rpartition('"')[0]


def requested_field(difference: Difference) -> str:
    """Return the header field that a SEARCH, SORT or THREAD uses, or "" for none or several."""
    words = difference.request.partition('"')[0].split()
    if "HEADER" in words[:-1]:
        return words[-1]
    if difference.category.startswith("SEARCH SENT") or difference.category.endswith("DATE"):
        return "Date"
    if difference.category.startswith("THREAD") or "SUBJECT" in difference.request:
        return "Subject"
    keys = difference.request.replace("DISPLAY", "").replace("(", " ").replace(")", " ").split()
    return next((name for name in ADDRESS_FIELDS if name in keys), "")


def searches_bodies(difference: Difference) -> bool:
    """Return whether the request is a SEARCH in the bodies of messages."""
    is_search = difference.category.startswith("SEARCH")
    return is_search and bool(re.search(r"\b(?:BODY|TEXT) ", difference.request))


def sorts_subjects(difference: Difference) -> bool:
    """Return whether the request is a SORT or THREAD that uses the Subject field."""
    is_sort = difference.category.startswith(("SORT", "THREAD"))
    return is_sort and requested_field(difference) == "Subject"


def uses_dates(difference: Difference) -> bool:
    """Return whether the request uses the Date field."""
    return (
        difference.category.startswith(("SEARCH SENT", "THREAD")) or "DATE" in difference.category
    )


def sent_days(difference: Difference) -> list[date | None]:
    """Return the days of the Date fields, with None for a date that RFC 5322 does not allow."""
    found: list[date | None] = []
    for value in fields(difference, "Date"):
        match = _date(" ".join(value.decode("latin-1").lower().split()))
        if match is None:
            found.append(None)
            continue
        year = int(match[3])
        if year <= 99:
            year += 2000 if year < 50 else 1900
        found.append(date(year, _MONTHS.index(match[2]) + 1, int(match[1])))
    return found


def is_answer_for_day(difference: Difference, day: date | None) -> bool:
    """Return whether our answer to SEARCH SENT… is right for a message of that day, or of none.

    For all other requests that use dates, return True.
    """
    if not difference.category.startswith("SEARCH SENT"):
        return True
    key, text = difference.request.split()[1:]
    number, month, year = text.lower().split("-")
    limit = date(int(year), _MONTHS.index(month) + 1, int(number))
    if day is None:
        return difference.ours is False
    expected = {"SENTON": day == limit, "SENTBEFORE": day < limit}.get(key, day >= limit)
    return difference.ours is expected


@lru_cache(maxsize=64)
def has_damaged_encoding(message: bytes) -> bool:
    """Return whether a text after a Content-Transfer-Encoding is not valid in it.

    `email` does not help, because it decodes some damaged texts.
    """
    blocks = header_blocks(message)
    for index, block in enumerate(blocks):
        for encoding in _fields_of_block(block, "Content-Transfer-Encoding"):
            text = _text_up_to_boundary(blocks[index + 1 :])
            if _is_damaged(text, encoding.lower()):
                return True
    return False


def _text_up_to_boundary(blocks: tuple[bytes, ...]) -> bytes:
    text = b""
    for block in blocks:
        before, *after = _boundary(b"\n" + block, 1)
        text += before
        if after:
            break
    return text


def _is_damaged(text: bytes, encoding: bytes) -> bool:
    if encoding.startswith(b"base64"):
        digits = b"".join(text.split())
        return len(digits) % 4 != 0 or not _base64(digits)
    return encoding.startswith(b"quoted-printable") and bool(_invalid_escape(text.rstrip()))


def decoded_field(value: bytes) -> str:
    """Return a field with its encoded words decoded, or "" if that fails."""
    try:
        return str(make_header(decode_header(value.decode("utf-8", "replace"))))
    except (MessageError, LookupError, ValueError):
        return ""


class EncodedWord(NamedTuple):
    """An encoded word (RFC 2047): its charset, language (RFC 2231), encoding and text."""

    charset: bytes
    language: bytes
    encoding: bytes
    text: bytes

    def data(self) -> bytes:
        """Return the decoded bytes; an invalid byte if decoding fails."""
        try:
            if self.encoding in b"bB":
                return binascii.a2b_base64(self.text)
            return quopri.decodestring(self.text)
        except ValueError:
            return b"\xff"


def encoded_words(difference: Difference) -> list[EncodedWord]:
    """Return the encoded words of the field that a SEARCH, SORT or THREAD uses; for TEXT, of the header."""
    if not difference.category.startswith(("SEARCH", "SORT", "THREAD")):
        return []
    block = header_blocks(difference.message)[0] if "TEXT" in difference.category else b""
    block = block or b"\n".join(fields(difference, requested_field(difference)))
    return [EncodedWord(*word) for word in _encoded_words(block)]


@lru_cache(maxsize=8)
def text_parts(message: bytes) -> list[tuple[bytes, bytes]]:
    """Return the charset and the bytes of each text part; the charset is b"" for none and for US-ASCII."""
    found = []
    for part in message_from_bytes(message).walk():
        data = part.get_payload(decode=True)
        if part.get_content_maintype() == "text" and isinstance(data, bytes):
            charset = str(part.get_param("charset", "us-ascii")).lower().encode()
            found.append((b"" if charset == b"us-ascii" else charset, data))
    return found


def is_valid(data: bytes, charset: bytes) -> bool:
    """Return whether bytes are valid in a charset that Python knows."""
    if charset.lower() == b"iso-8859-1" and re.search(rb"[\x80-\x9f]", data):
        return False  # in fact Windows-1252
    try:
        data.decode(charset.decode("ascii"))
    except (ValueError, LookupError):
        return False
    return True
