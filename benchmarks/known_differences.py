"""Why two servers' answers differ and imapshield's is meant: the rules that docs/divergences.rst names.

A rule is a function that says whether it explains a difference. Its name is the function's, and the
table of docs/divergences.rst has a row that begins with it; above it stands the sentence that
decides. A rule never asks imapshield's own code, or it would explain its mistakes.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from functools import lru_cache
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Difference:
    """What one message, or none (number 0), made two servers answer.

    `theirs` and `ours` are values of FETCH, or strings where they were refused, True and False where
    a SEARCH found the message or not, None where SORT and THREAD are asked about.
    """

    what: str
    asked: str
    number: int
    mail: bytes
    theirs: object
    ours: object


class Rule(NamedTuple):
    """A name, the sentence that decides, and which differences it explains."""

    name: str
    decides: str
    explains: Callable[[Difference], bool]


_rules: list[Rule] = []
Explains = Callable[[Difference], bool]


def rule(decides: str) -> Callable[[Explains], Explains]:
    """Make a function a rule of its name."""

    def made(explains: Explains) -> Explains:
        _rules.append(Rule(explains.__name__.replace("_", " "), decides, explains))
        return explains

    return made


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# RFC 5322 section 3.3 with the zones and years of section 4.3, in one line.
_date = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun) ?, ?)?(\d{1,2}) (" + "|".join(_MONTHS) + r") (\d{4}|\d\d)"
    r" (?:[01]\d|2[0-3]):[0-5]\d(?::[0-6]\d)?"
    r" (?:[+-]\d{4}|ut|gmt|[ecmp][sd]t|[a-ik-z])(?: ?\(.*\))?"
).fullmatch
_boundary = re.compile(rb"\n--(?=\S)").split
_base64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}").fullmatch
_not_quoted = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n)").search
_encoded_word = re.compile(rb"=\?([^?*]*)(\*[^?]*)?\?([bBqQ])\?([^?]*)\?=")
# Charsets that Python has a codec for and the C library has not.
_PYTHON_ONLY = (b"ks_c_5601-1987", b"iso-8859-8-i", b"koi8_r")
_ENCODINGS = (b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable")
_ADDRESS_FIELDS = ("FROM", "TO", "CC", "BCC")


@lru_cache(maxsize=8)
def _headers(mail: bytes) -> tuple[bytes, ...]:
    """Everything between blank lines: the header first, and then what may be the header of a part."""
    return tuple(re.split(rb"(?<=\n)\r?\n", b"\n" + mail))


@lru_cache(maxsize=64)
def _fields(block: bytes, name: str) -> list[bytes]:
    pattern = rb"(?im)^%b[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)" % re.escape(name.encode())
    return [value.strip(b" \t\r") for value in re.findall(pattern, block)]


def fields(one: Difference, name: str) -> list[bytes]:
    """Return the bodies of a field of the message's own header, folds in them."""
    return _fields(_headers(one.mail)[0], name)


def everywhere(one: Difference, name: str) -> Iterator[list[bytes]]:
    """Yield the bodies of a field in each header, and in what looks like one."""
    for block in _headers(one.mail):
        yield _fields(block, name)


def needle(one: Difference) -> str:
    """Return what was searched for; empty if it was no text."""
    return one.asked.partition('"')[2].rpartition('"')[0]


def field_asked(one: Difference) -> str:
    """Name the header field that a SEARCH, SORT or THREAD is about; empty if none or several."""
    words = one.asked.partition('"')[0].split()
    if "HEADER" in words[:-1]:
        return words[-1]
    if one.what.startswith("SEARCH SENT") or one.what.endswith("DATE"):
        return "Date"
    if one.what.startswith("THREAD") or "SUBJECT" in one.asked:
        return "Subject"
    asked = one.asked.replace("DISPLAY", "").replace("(", " ").replace(")", " ").split()
    return next((name for name in _ADDRESS_FIELDS if name in asked), "")


def of_text(one: Difference) -> bool:
    """Whether it is a SEARCH in the bodies of messages."""
    return one.what.startswith("SEARCH") and bool(re.search(r"\b(?:BODY|TEXT) ", one.asked))


def of_dates(one: Difference) -> bool:
    """Whether the Date field counts."""
    return one.what.startswith(("SEARCH SENT", "THREAD")) or "DATE" in one.what


def dates(one: Difference) -> list[date | None]:
    """Return the days in the Date fields, None for what RFC 5322 does not allow."""
    written = [" ".join(value.decode("latin-1").lower().split()) for value in fields(one, "Date")]
    found: list[date | None] = []
    for match in map(_date, written):
        year = int(match[3]) if match else 0
        year += (0 if year > 99 else 2000 if year < 50 else 1900) if match else 0
        found.append(date(year, _MONTHS.index(match[2]) + 1, int(match[1])) if match else None)
    return found


def sent_as(one: Difference, day: date | None) -> bool:
    """Whether a SEARCH SENT... was answered as for that day, other questions about dates always."""
    if not one.what.startswith("SEARCH SENT"):
        return True
    how, asked_day = one.asked.split()[1:]
    number, month, year = asked_day.lower().split("-")
    asked = date(int(year), _MONTHS.index(month) + 1, int(number))
    if day is None:
        return one.ours is False
    return one.ours is {"SENTON": day == asked, "SENTBEFORE": day < asked}.get(how, day >= asked)


@rule("RFC 2045 section 2: not case-sensitive, so both are right")
def letter_case(one: Difference) -> bool:
    return one.what in ("BODY", "BODYSTRUCTURE") and _lower(one.theirs) == _lower(one.ours)


def _lower(value: object) -> object:
    if isinstance(value, list):
        return [_lower(inner) for inner in value]
    return value.lower() if isinstance(value, bytes) else value


@rule(
    "RFC 9051 section 6.4.5.1: a part that is no multipart and no message has no parts, and HEADER"
    ' and TEXT need one "of type MESSAGE/RFC822 or MESSAGE/GLOBAL"; section 4.4: NIL'
)
def no_such_part(one: Difference) -> bool:
    if one.ours is not None:
        return False
    if one.what == "parts that are not":
        return True
    return (
        one.what == "sections" and one.theirs == b"" and bool(re.search("HEADER|TEXT", one.asked))
    )


@rule('RFC 9051 section 9: media-message = "MESSAGE" SP ("RFC822" / "GLOBAL")')
def message_global(one: Difference) -> bool:
    whats = ("BODY", "BODYSTRUCTURE", "sections", "parts that are not", "BINARY")
    if one.what not in whats and not of_text(one):
        return False
    kinds = [kind.lower() for found in everywhere(one, "Content-Type") for kind in found]
    return any(kind.startswith(b"message/global") for kind in kinds)


@rule('RFC 9051 section 6.4.5.1: no blank line for "a message that has no body and no blank line"')
def blank_line_made_up(one: Difference) -> bool:
    return "HEADER.FIELDS" in one.asked and (
        isinstance(one.ours, bytes) and one.theirs == one.ours + b"\r\n"
    )


@rule("RFC 2046 section 5.1.1: the boundary ends the part")
def header_that_reaches_into_the_next_part(one: Difference) -> bool:
    if not (isinstance(one.theirs, bytes) and isinstance(one.ours, bytes)):
        return False
    return (
        one.what == "sections" and "HEADER.FIELDS" in one.asked and one.theirs.startswith(one.ours)
    )


@rule("RFC 5322 section 3.6.8: names are printable ASCII")
def nul_in_the_name_of_a_field(one: Difference) -> bool:
    if not re.search(rb"(?m)^[^\s:\0]+\0[^:\n]*:", _headers(one.mail)[0]):
        return False
    return one.what in ("ENVELOPE", "HEADER.FIELDS") or field_asked(one) == "Subject"


@rule('RFC 9051 section 6.4.5: "this data item can only be requested for leaf body parts"')
def binary_of_no_leaf(one: Difference) -> bool:
    return one.what == "BINARY, composed"


@rule('RFC 9051 section 6.4.5: "the size to expect in response to the corresponding FETCH BINARY"')
def binary_size(one: Difference) -> bool:
    return one.asked.startswith("BINARY.SIZE") and isinstance(one.ours, int)


@rule(
    'RFC 2045 section 6.8: characters outside the base64 alphabet "must be ignored"; section 6.7: of'
    ' quoted-printable "a robust implementation might" keep what is no escape'
)
def damaged_encoding(one: Difference) -> bool:
    if one.what == "BINARY":
        refused = one.theirs in ("NO [PARSE", "HANGUP") and isinstance(one.ours, bytes)
        return refused and _damaged(one.mail)
    return of_text(one) and _damaged(one.mail)


@lru_cache(maxsize=64)
def _damaged(mail: bytes) -> bool:
    """Whether a text that follows a Content-Transfer-Encoding is broken; `email` reads some otherwise."""
    blocks = _headers(mail)
    for at, block in enumerate(blocks):
        for encoding in _fields(block, "Content-Transfer-Encoding"):
            text = b""
            for following in blocks[at + 1 :]:
                before, *boundary = _boundary(b"\n" + following, 1)
                text += before
                if boundary:
                    break
            bare = b"".join(text.split())
            is_base64 = encoding.lower().startswith(b"base64")
            if is_base64 and (len(bare) % 4 or not _base64(bare)):
                return True
            if encoding.lower().startswith(b"quoted-printable") and _not_quoted(text.rstrip()):
                return True
    return False


@rule(
    "RFC 9051 section 6.4.5: UNKNOWN-CTE where one does not know how to decode; BODYSTRUCTURE of both"
    " shows an encoding that they know"
)
def encoding_written_oddly(one: Difference) -> bool:
    odd = [e for found in everywhere(one, "Content-Transfer-Encoding") for e in found]
    return (
        one.what == "BINARY"
        and one.theirs == "NO [UNKNOWN-CTE"
        and (isinstance(one.ours, bytes) and any(not value or b"\n" in value for value in odd))
    )


@rule("RFC 2045 section 4: without MIME-Version it is no MIME; BODYSTRUCTURE of both says 7bit")
def encoding_without_mime_version(one: Difference) -> bool:
    if not fields(one, "Content-Transfer-Encoding"):
        return False
    is_mime = fields(one, "MIME-Version") or fields(one, "Content-Type")
    return not is_mime and (one.what == "BINARY" or of_text(one))


@rule("RFC 5322 section 3.6: there is one; ENVELOPE and BODYSTRUCTURE show the one that counts")
def field_given_twice(one: Difference) -> bool:
    if of_text(one) or one.what == "BINARY":
        kinds = ("Content-Type", "Content-Transfer-Encoding")
        return any(len(found) > 1 for name in kinds for found in everywhere(one, name))
    if one.what.startswith("SEARCH HEADER"):
        return False
    names = ["Subject", "Date"] if one.what.startswith("THREAD") else [field_asked(one).title()]
    twice = [name for name in names if name in ("Subject", "Date") and len(fields(one, name)) > 1]
    return bool(twice) and ("Date" not in twice or sent_as(one, dates(one)[-1]))


@rule("RFC 5256 section 2.2: the sent date is the date and time in UTC, in any century")
def date_beyond_32_bits(one: Difference) -> bool:
    if not of_dates(one):
        return False
    day = next(iter(dates(one)[-1:]), None)
    return day is not None and not 1970 <= day.year < 2106 and sent_as(one, day)


@rule(
    'RFC 9051 section 6.4.4: messages "whose [RFC5322] Date: header field ... is earlier"; no Date'
    " is not"
)
def no_date(one: Difference) -> bool:
    return one.what.startswith("SEARCH SENT") and not dates(one) and sent_as(one, None)


@rule(
    'RFC 5256 section 2.2: INTERNALDATE if it "cannot be parsed"; how hard one tries is left open'
)
def date_that_is_none(one: Difference) -> bool:
    return of_dates(one) and None in dates(one)


@rule(
    'RFC 5256 section 2.1 (1): "Convert all tabs and continuations to space. Convert all multiple'
    ' spaces to a single space"'
)
def spaces_at_folds(one: Difference) -> bool:
    values = [value.replace(b"\r", b"").replace(b"\n", b"") for value in fields(one, "Subject")]
    return (
        one.what.startswith(("SORT", "THREAD"))
        and field_asked(one) == "Subject"
        and (any(re.search(rb"[ \t]{2}|\t", value) for value in values))
    )


@rule(
    "RFC 5256 section 2.1 (3): *WSP, which is spaces and tabs; what looks like one is collated later"
)
def space_that_is_no_space(one: Difference) -> bool:
    if not one.what.startswith(("SORT", "THREAD")) or field_asked(one) != "Subject":
        return False
    return any(re.search(r"[^\S \t\r\n]", _decoded(value)) for value in fields(one, "Subject"))


@rule(
    "RFC 5051 has no title case for the German sharp s; RFC 9051 section 6.4.4 asks for ASCII only,"
    " and who types ss must find it"
)
def sharp_s(one: Difference) -> bool:
    if not one.what.startswith("SEARCH") or one.ours is not True or "s" not in needle(one).lower():
        return False
    shown = [_decoded(value) for value in fields(one, field_asked(one))]
    if of_text(one):
        shown = [_decoded(_headers(one.mail)[0])]
        shown += [o.decode(c.decode()) for c, o in _texts(one.mail) if c and _is(o, c)]
    return any("ß" in text for text in shown)


def _decoded(value: bytes) -> str:
    try:
        return str(make_header(decode_header(value.decode("utf-8", "replace"))))
    except (MessageError, LookupError, ValueError):
        return ""


@rule("RFC 2231 section 5: encoded words have a language")
def word_with_a_language(one: Difference) -> bool:
    return any(language for _, language, _, _ in _words(one))


@rule("RFC 2047 section 6.2 leaves to the reader what cannot be displayed")
def charset_that_is_odd_or_wrong(one: Difference) -> bool:
    words = [(charset, _unwrapped(encoding, text)) for charset, _, encoding, text in _words(one)]
    texts = [(charset, octets) for charset, octets in _texts(one.mail) if charset]
    return any(
        charset.lower() in _PYTHON_ONLY or not _is(octets, charset)
        for charset, octets in words + texts * of_text(one)
    )


def _words(one: Difference) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Find the encoded words of the field that a SEARCH, SORT or THREAD is about."""
    if not one.what.startswith(("SEARCH", "SORT", "THREAD")):
        return []
    block = _headers(one.mail)[0] if "TEXT" in one.what else b""
    return _encoded_word.findall(block or b"\n".join(fields(one, field_asked(one))))


def _unwrapped(encoding: bytes, text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text) if encoding in b"bB" else quopri.decodestring(text)
    except ValueError:
        return b"\xff"


@lru_cache(maxsize=8)
def _texts(mail: bytes) -> list[tuple[bytes, bytes]]:
    """List the text parts: the charset, empty if none is told or US-ASCII, and the octets."""
    found = []
    for part in message_from_bytes(mail).walk():
        octets = part.get_payload(decode=True)
        if part.get_content_maintype() == "text" and isinstance(octets, bytes):
            charset = str(part.get_param("charset", "us-ascii")).lower().encode()
            found.append((b"" if charset == b"us-ascii" else charset, octets))
    return found


def _is(octets: bytes, charset: bytes) -> bool:
    if charset.lower() == b"iso-8859-1" and re.search(rb"[\x80-\x9f]", octets):
        return False  # Windows-1252 in truth
    try:
        octets.decode(charset.decode("ascii"))
    except (ValueError, LookupError):
        return False
    return True


@rule("RFC 6532 and RFC 2046 section 4.1.2: there are none but UTF-8; of others nothing is said")
def octets_without_a_charset(one: Difference) -> bool:
    if of_text(one):
        blocks = [octets for charset, octets in _texts(one.mail) if not charset]
        blocks.append(_headers(one.mail)[0])
    elif one.what.startswith(("SEARCH", "SORT", "THREAD")):
        blocks = fields(one, field_asked(one))
    else:
        return False
    return not all(_is(octets, b"utf-8") for octets in blocks)


@rule(
    'RFC 9051 section 6.4.4: "contain the specified string in the envelope structure\'s FROM field"'
)
def address_as_the_envelope_has_it(one: Difference) -> bool:
    if field_asked(one) not in _ADDRESS_FIELDS or not one.what.startswith("SEARCH"):
        return False
    empty = not any(fields(one, field_asked(one))) and one.ours is False
    return empty or bool(re.search(r"""["',:;<>()\\]""", needle(one)))


@rule(
    "RFC 2045 section 6.4 has it as octets; RFC 9051 section 6.4.4: BODY allows flexible matching"
)
def text_in_an_unknown_encoding(one: Difference) -> bool:
    return of_text(one) and any(
        encoding.lower() not in _ENCODINGS
        for found in everywhere(one, "Content-Transfer-Encoding")
        for encoding in found
    )


@rule("RFC 2045 section 5.2: plain text where the Content-Type field is syntactically invalid")
def text_of_no_subtype(one: Difference) -> bool:
    return of_text(one) and any(
        re.match(rb"(?i)text\s*(?:;|\Z)", kind)
        for found in everywhere(one, "Content-Type")
        for kind in found
    )


@rule('RFC 9051 section 6.4.4: "Messages that do not match the specified search key"')
def not_of_a_list(one: Difference) -> bool:
    return "NOT (SEEN " in one.asked and one.theirs is False and one.ours is True


RULES = tuple(_rules)
