"""The requests that `benchmarks.differential` sends: FETCH data items, SEARCH commands, SORT keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate
from itertools import takewhile
from random import Random

from benchmarks.values import Value

MESSAGE_ITEMS = (
    *("UID", "FLAGS", "INTERNALDATE", "ENVELOPE", "BODY", "BODYSTRUCTURE"),
    *("RFC822.SIZE", "RFC822.HEADER", "RFC822.TEXT", "BODY.PEEK[TEXT]", "BODY.PEEK[]"),
)
FIELD_ITEMS = (
    "BODY.PEEK[HEADER.FIELDS (From To Cc Subject Date Message-ID)]",
    "BODY.PEEK[HEADER.FIELDS.NOT (Received From)]",
    "BODY.PEEK[HEADER.FIELDS (X-Nobody)]",
)
PARTIAL_ITEMS = (
    *("BODY.PEEK[]<0.100>", "BODY.PEEK[TEXT]<10.50>", "BODY.PEEK[TEXT]<1000000000.5>"),
    *("BODY.PEEK[HEADER]<20.2000>", "BODY.PEEK[HEADER.FIELDS (From)]<3.9>"),
)
SORT_KEYS = (
    *("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO"),
    *("REVERSE DATE", "REVERSE SUBJECT", "REVERSE FROM", "SUBJECT REVERSE DATE FROM"),
)
KEYWORD = "$Forwarded"
LEAF, COMPOSED, ABSENT = "leaf", "composed", "absent parts"
EMBEDDING = ((b"message", b"rfc822"), (b"message", b"global"))
MAX_PARTS = 60
"""How many parts of one message are requested; some messages have thousands."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SIZES = (0, 300, 1000, 3000, 10_000, 100_000, 10_000_000)
SENT_DAYS = [
    f"{day}-{year}" for year in (1960, 1970, 1995, 2001, 2025) for day in ("1-Jan", "17-May")
]
STORED_DAYS = ("9-Sep-2001", "10-Sep-2001", "2-Oct-2001", "1-Jan-2003")
FLAG_KEYS = (
    *("ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN", "UNANSWERED", "UNDELETED"),
    *("UNDRAFT", "UNFLAGGED", "UNSEEN", "OLD", "NEW", "RECENT", f"KEYWORD {KEYWORD}"),
    *(f"UNKEYWORD {KEYWORD}", "KEYWORD $Nobody", "2:9,4,20:*", "UID 5:30", "NOT 1:50"),
    *("OR SEEN FLAGGED", "NOT (SEEN ANSWERED)", "OR (DRAFT SEEN) NOT OR SEEN FLAGGED"),
    *('OR FROM "a" NOT SUBJECT "re" NOT (BODY "the" TEXT "and")', "OLDER 3600", "YOUNGER 3600"),
    *(
        'BODY "the"',
        'TEXT "the"',
        'NOT TEXT "and"',
        'SUBJECT "a"',
        'HEADER Subject "a"',
        'SUBJECT "ss"',
    ),
    *("UNSEEN SMALLER 2000 SINCE 1-Oct-2001", 'SUBJECT ""', 'FROM ""', 'TO ""', 'BCC ""'),
)
RETURN_OPTIONS = ("MIN", "MAX", "COUNT", "ALL", "MIN MAX", "MIN MAX COUNT ALL", "")
HEADER_FIELDS = (
    *("From", "To", "Cc", "Bcc", "Subject", "Message-ID", "References", "Content-Type", "Date"),
    *("X-Mailer", "Sender", "Reply-To", "List-Id", "Received", "MIME-Version"),
)
ENVELOPE_KEYS = ("FROM", "TO", "CC", "BCC", "SUBJECT")
OTHER_CHARSETS = ("ISO-8859-1", "KOI8-R", "NO-SUCH-CHARSET")

_words = re.compile(r"\w[\w.@'-]{2,24}").findall
_phrases = re.compile(r"\w{2,12}[^\w\s]{0,3} ?\w{2,12}").findall


def part_paths(*structures: Value) -> dict[str, str]:
    """Return the part specifiers in BODYSTRUCTUREs of one message, each with its kind.

    The message itself, with the specifier "", and parts with parts are COMPOSED; others are LEAF. Some
    specifiers are ABSENT: one after the last part of each multipart, and one below each leaf that is no text.
    """
    found = {"": COMPOSED}
    for structure in structures:
        for path, kind in _paths(structure, ""):
            found.setdefault(path, kind)
    return dict(list(found.items())[:MAX_PARTS])


def _paths(part: Value, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(part, list) or not part:
        return
    if isinstance(part[0], list):
        if path:
            yield path, COMPOSED
        children = list(takewhile(lambda child: isinstance(child, list), part))
        for number, child in enumerate(children, 1):
            yield from _paths(child, f"{path}.{number}".lstrip("."))
        yield f"{path}.{len(children) + 1}".lstrip("."), ABSENT
        return
    path = path or "1"
    main, sub = (word.lower() if isinstance(word, bytes) else b"" for word in part[:2])
    embedded = part[8] if (main, sub) in EMBEDDING and len(part) > 8 else None
    yield path, COMPOSED if embedded else LEAF
    if isinstance(embedded, list) and embedded:
        yield from _paths(embedded, path if isinstance(embedded[0], list) else f"{path}.1")
    elif main != b"text":
        yield f"{path}.1", ABSENT


def part_items(path: str) -> list[str]:
    """Return the data items for the sections of one part, some of them partial."""
    texts = ("", ".MIME", ".HEADER", ".TEXT", ".HEADER.FIELDS (Subject From Content-Type)")
    items = [f"BODY.PEEK[{path}{text}]" for text in (*texts, ".HEADER.FIELDS.NOT (Received)")]
    return [*items, f"BODY.PEEK[{path}]<3.40>", f"BODY.PEEK[{path}.MIME]<0.30>"]


def binary_items(path: str) -> list[str]:
    """Return the data items for the decoded content of one part."""
    return [f"BINARY.PEEK[{path}]", f"BINARY.SIZE[{path}]", f"BINARY.PEEK[{path}]<2.50>"]


Question = tuple[str, tuple[bytes, ...]]
"""A category, and a command, in which every second part is a literal."""


def searches(messages: Sequence[bytes], words: int) -> Iterator[Question]:
    """Yield SEARCH commands; `words` of them search for words of the messages."""
    sample = messages[:: len(messages) // 20 + 1]
    yield from _flag_searches()
    yield from _size_searches(sample)
    yield from _date_searches(sample)
    for field in HEADER_FIELDS:
        yield "SEARCH HEADER", (f'SEARCH HEADER {field} ""'.encode(),)
    for charset in OTHER_CHARSETS:
        yield "SEARCH CHARSET", (f"SEARCH CHARSET {charset} SUBJECT ".encode(), b"\xe4")
    for field, word in _search_texts(messages, words):
        yield from _text_searches(field, word.encode("utf-8"))


def _flag_searches() -> Iterator[Question]:
    for key in FLAG_KEYS:
        yield "SEARCH flags and more", (f"SEARCH {key}".encode(),)
    for options in RETURN_OPTIONS:
        yield "SEARCH RETURN", (f"SEARCH RETURN ({options}) UNSEEN".encode(),)
    yield "SEARCH RETURN", (b"UID SEARCH RETURN (ALL) OR SEEN DRAFT",)
    yield "SEARCH RETURN", (b"SEARCH RETURN (PARTIAL 2:5) SEEN",)


def _size_searches(messages: Sequence[bytes]) -> Iterator[Question]:
    sizes = [len(m.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")) for m in messages]
    for size in (*SIZES, *sizes):
        yield "SEARCH sizes", (b"SEARCH LARGER %d" % size,)
        yield "SEARCH sizes", (b"SEARCH SMALLER %d" % size,)


def _date_searches(messages: Sequence[bytes]) -> Iterator[Question]:
    for day in sorted({*SENT_DAYS, *_days(messages)}):
        for key in ("SENTBEFORE", "SENTON", "SENTSINCE"):
            yield f"SEARCH {key}", (f"SEARCH {key} {day}".encode(),)
    for day in STORED_DAYS:
        for key in ("BEFORE", "ON", "SINCE"):
            yield f"SEARCH {key}", (f"SEARCH {key} {day}".encode(),)


def _text_searches(field: str, text: bytes) -> Iterator[Question]:
    """Yield a SEARCH for a text in BODY, TEXT, or a header field; in the latter also by its own key."""
    if field in ("BODY", "TEXT"):
        yield f"SEARCH {field}", (f"SEARCH CHARSET UTF-8 {field} ".encode(), text)
        return
    yield "SEARCH HEADER", (f"SEARCH CHARSET UTF-8 HEADER {field} ".encode(), text)
    key = field.upper()
    if key in ENVELOPE_KEYS:
        yield f"SEARCH {key}", (f"SEARCH CHARSET UTF-8 {key} ".encode(), text)


def _days(messages: Iterable[bytes]) -> Iterator[str]:
    """Yield the days of messages' Date fields in the form of SEARCH."""
    for message in messages:
        sent = parsedate(str(message_from_bytes(message).get("Date", "")))
        if sent is not None and 1000 < sent[0] < 9999:
            yield f"{sent[2]}-{MONTHS[sent[1] - 1]}-{sent[0]}"


def _search_texts(messages: Sequence[bytes], count: int) -> list[tuple[str, str]]:
    """Choose words, phrases and addresses in the messages, always the same ones, each with its field."""
    rng = Random(1999)
    found: dict[tuple[str, str], None] = {}
    while len(found) < count and messages:
        before = len(found)
        for data in rng.sample(messages, min(len(messages), count)):
            for field, text in _texts(data, rng):
                draw = rng.random()
                candidates = _words(text) if draw < 0.7 else _phrases(text)
                foreign = [word for word in candidates if not word.isascii()]
                if foreign and rng.random() < 0.6:
                    candidates = foreign
                if not candidates or len(found) >= count:
                    continue
                word = rng.choice(candidates)
                if draw < 0.1:
                    word = word.upper()
                elif draw < 0.2:
                    word = word[1:]
                found[field, word] = None
        if len(found) == before:
            break
    return list(found)


def _texts(data: bytes, rng: Random) -> Iterator[tuple[str, str]]:
    """Yield some texts of a message, each with the field that contains it, or BODY or TEXT."""
    message = message_from_bytes(data)
    for field in HEADER_FIELDS:
        value = message.get(field)
        if value is None or rng.random() > 0.3:
            continue
        try:
            text = str(make_header(decode_header(value)))
        except (MessageError, LookupError, ValueError):
            continue
        yield field, " ".join(text.encode("utf-8", "ignore").decode().split())
    for part in message.walk():
        if part.get_content_maintype() == "text" and rng.random() < 0.5:
            yield rng.choice(("BODY", "BODY", "BODY", "TEXT")), _text(part)


def _text(part: Message) -> str:
    data = part.get_payload(decode=True)
    try:
        charset = part.get_content_charset() or "ascii"
        return data.decode(charset, "ignore") if isinstance(data, bytes) else ""
    except (LookupError, ValueError):
        return ""
