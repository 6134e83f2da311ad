"""What `benchmarks.beside` asks: FETCH items, SEARCH keys, SORT keys."""

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

WHOLE = (
    *("UID", "FLAGS", "INTERNALDATE", "ENVELOPE", "BODY", "BODYSTRUCTURE"),
    *("RFC822.SIZE", "RFC822.HEADER", "RFC822.TEXT", "BODY.PEEK[TEXT]", "BODY.PEEK[]"),
)
FIELDS = (
    "BODY.PEEK[HEADER.FIELDS (From To Cc Subject Date Message-ID)]",
    "BODY.PEEK[HEADER.FIELDS.NOT (Received From)]",
    "BODY.PEEK[HEADER.FIELDS (X-Nobody)]",
)
PARTIALS = (
    *("BODY.PEEK[]<0.100>", "BODY.PEEK[TEXT]<10.50>", "BODY.PEEK[TEXT]<1000000000.5>"),
    *("BODY.PEEK[HEADER]<20.2000>", "BODY.PEEK[HEADER.FIELDS (From)]<3.9>"),
)
SORTS = (
    *("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO"),
    *("REVERSE DATE", "REVERSE SUBJECT", "REVERSE FROM", "SUBJECT REVERSE DATE FROM"),
)
KEYWORD = "$Forwarded"
LEAF, COMPOSED, NOWHERE = "leaf", "composed", "parts that are not"
EMBEDDING = ((b"message", b"rfc822"), (b"message", b"global"))
PATHS = 60
"""Parts of one message that are asked for, of those that have thousands."""
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
RETURNS = ("MIN", "MAX", "COUNT", "ALL", "MIN MAX", "MIN MAX COUNT ALL", "")
HEADER_FIELDS = (
    *("From", "To", "Cc", "Bcc", "Subject", "Message-ID", "References", "Content-Type", "Date"),
    *("X-Mailer", "Sender", "Reply-To", "List-Id", "Received", "MIME-Version"),
)
ENVELOPE_KEYS = ("FROM", "TO", "CC", "BCC", "SUBJECT")
OTHER_CHARSETS = ("ISO-8859-1", "KOI8-R", "NO-SUCH-CHARSET")

_words = re.compile(r"\w[\w.@'-]{2,24}").findall
_phrases = re.compile(r"\w{2,12}[^\w\s]{0,3} ?\w{2,12}").findall


def part_paths(*structures: Value) -> dict[str, str]:
    """Give the numbers of all parts in what BODYSTRUCTUREs tell: LEAF, COMPOSED of others, NOWHERE.

    With them come the message itself, whose number is empty, and numbers of parts that there are
    not: one beyond the last of each multipart, and one inside of what is neither text nor composed.
    """
    found = {"": COMPOSED}
    for structure in structures:
        for path, kind in _paths(structure, ""):
            found.setdefault(path, kind)
    return dict(list(found.items())[:PATHS])


def _paths(part: Value, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(part, list) or not part:
        return
    if isinstance(part[0], list):
        if path:
            yield path, COMPOSED
        inner = list(takewhile(lambda child: isinstance(child, list), part))
        for number, child in enumerate(inner, 1):
            yield from _paths(child, f"{path}.{number}".lstrip("."))
        yield f"{path}.{len(inner) + 1}".lstrip("."), NOWHERE
        return
    path = path or "1"
    main, sub = (word.lower() if isinstance(word, bytes) else b"" for word in part[:2])
    inside = part[8] if (main, sub) in EMBEDDING and len(part) > 8 else None
    yield path, COMPOSED if inside else LEAF
    if isinstance(inside, list) and inside:
        yield from _paths(inside, path if isinstance(inside[0], list) else f"{path}.1")
    elif main != b"text":
        yield f"{path}.1", NOWHERE


def part_items(path: str) -> list[str]:
    """List the sections of one part, some of them cut."""
    texts = ("", ".MIME", ".HEADER", ".TEXT", ".HEADER.FIELDS (Subject From Content-Type)")
    whole = [f"BODY.PEEK[{path}{text}]" for text in (*texts, ".HEADER.FIELDS.NOT (Received)")]
    return [*whole, f"BODY.PEEK[{path}]<3.40>", f"BODY.PEEK[{path}.MIME]<0.30>"]


def binary_items(path: str) -> list[str]:
    """List the ways to ask for the content of one part."""
    return [f"BINARY.PEEK[{path}]", f"BINARY.SIZE[{path}]", f"BINARY.PEEK[{path}]<2.50>"]


def searches(mails: Sequence[bytes], words: int) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """Yield SEARCH commands, each with what it is counted as; `words` of them for words of the mails."""
    for key in FLAG_KEYS:
        yield "SEARCH flags and more", (f"SEARCH {key}".encode(),)
    for form in RETURNS:
        yield "SEARCH RETURN", (f"SEARCH RETURN ({form}) UNSEEN".encode(),)
    yield "SEARCH RETURN", (b"UID SEARCH RETURN (ALL) OR SEEN DRAFT",)
    yield "SEARCH RETURN", (b"SEARCH RETURN (PARTIAL 2:5) SEEN",)
    sizes = [
        len(mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        for mail in mails[:: len(mails) // 20 + 1]
    ]
    for size in (*SIZES, *sizes):
        yield "SEARCH sizes", (b"SEARCH LARGER %d" % size,)
        yield "SEARCH sizes", (b"SEARCH SMALLER %d" % size,)
    for day in sorted({*SENT_DAYS, *_days(mails[:: len(mails) // 20 + 1])}):
        for key in ("SENTBEFORE", "SENTON", "SENTSINCE"):
            yield f"SEARCH {key}", (f"SEARCH {key} {day}".encode(),)
    for day in STORED_DAYS:
        for key in ("BEFORE", "ON", "SINCE"):
            yield f"SEARCH {key}", (f"SEARCH {key} {day}".encode(),)
    for field in HEADER_FIELDS:
        yield "SEARCH HEADER", (f'SEARCH HEADER {field} ""'.encode(),)
    for charset in OTHER_CHARSETS:
        yield "SEARCH CHARSET", (f"SEARCH CHARSET {charset} SUBJECT ".encode(), b"\xe4")
    for field, word in _needles(mails, words):
        needle = word.encode("utf-8")
        if field in ("BODY", "TEXT"):
            yield f"SEARCH {field}", (f"SEARCH CHARSET UTF-8 {field} ".encode(), needle)
            continue
        yield "SEARCH HEADER", (f"SEARCH CHARSET UTF-8 HEADER {field} ".encode(), needle)
        if field.upper() in ENVELOPE_KEYS:
            key = field.upper()
            yield f"SEARCH {key}", (f"SEARCH CHARSET UTF-8 {key} ".encode(), needle)


def _days(mails: Iterable[bytes]) -> Iterator[str]:
    """Yield days that mails are from, as SEARCH writes them."""
    for mail in mails:
        sent = parsedate(str(message_from_bytes(mail).get("Date", "")))
        if sent is not None and 1000 < sent[0] < 9999:
            yield f"{sent[2]}-{MONTHS[sent[1] - 1]}-{sent[0]}"


def _needles(mails: Sequence[bytes], count: int) -> list[tuple[str, str]]:
    """Take words, phrases and addresses out of the mails, always the same ones."""
    lot = Random(1999)
    found: dict[tuple[str, str], None] = {}
    while len(found) < count and mails:
        before = len(found)
        for data in lot.sample(mails, min(len(mails), count)):
            for field, text in _texts(data, lot):
                kind = lot.random()
                every = _words(text) if kind < 0.7 else _phrases(text)
                foreign = [one for one in every if not one.isascii()]
                if foreign and lot.random() < 0.6:
                    every = foreign
                if not every or len(found) >= count:
                    continue
                word = lot.choice(every)
                if kind < 0.1:
                    word = word.upper()
                elif kind < 0.2:
                    word = word[1:]
                found[field, word] = None
        if len(found) == before:
            break
    return list(found)


def _texts(data: bytes, lot: Random) -> Iterator[tuple[str, str]]:
    """Yield some texts of a mail, each with the field it comes from, or BODY or TEXT."""
    message = message_from_bytes(data)
    for field in HEADER_FIELDS:
        value = message.get(field)
        if value is None or lot.random() > 0.3:
            continue
        try:
            text = str(make_header(decode_header(value)))
        except (MessageError, LookupError, ValueError):
            continue
        yield field, " ".join(text.encode("utf-8", "ignore").decode().split())
    for part in message.walk():
        if part.get_content_maintype() == "text" and lot.random() < 0.5:
            yield lot.choice(("BODY", "BODY", "BODY", "TEXT")), _text(part)


def _text(part: Message) -> str:
    octets = part.get_payload(decode=True)
    try:
        charset = part.get_content_charset() or "ascii"
        return octets.decode(charset, "ignore") if isinstance(octets, bytes) else ""
    except (LookupError, ValueError):
        return ""
