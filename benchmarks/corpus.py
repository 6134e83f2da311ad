"""Ten thousand realistic messages, or any number, always the same ones for the same seed.

A message is a pure function of its index and the seed, so that a test may ask for number 4711
alone. It comes in its CRLF form; `write_maildir` stores some in the LF form, as delivery agents do.

Some words are planted where a search must find them, and nowhere else: `planted` says in which
messages, so that a SEARCH can be checked and not merely timed.
"""

from __future__ import annotations

import base64
import os
import quopri
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

LineEnding = Literal["mixed", "lf", "crlf"]

SEED = 1999
LARGEST = 1_000_000
FIRST_DATE = 1_577_880_000  # 2020-01-01 12:00 UTC
SECONDS_BETWEEN = 9_137

# (word, every how many messages): primes, so that the sets overlap in every combination.
PLANTED_FROM = ("Quillfeather", 89)
PLANTED_SUBJECT = ("platypus", 83)
PLANTED_BODY = ("quincunx", 97)

VOCABULARY = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from"
    " or had an they which one you were all her she there would their we him been has when who"
    " will no more if out so up said what its about than into them can only other time new some"
    " could these two may first then do any like my now over such our man me even most made after"
    " also did many off before must well back through years much where your way down should"
    " because long each just state people those too mister how little good world make very year"
    " still see own work men day get here old life both between being under three never know same"
    " last another while us might great go come since against right came take used himself few"
    " house use place during high without again home around small however found mrs part school"
    " thought went say general once upon every war does got united number hand course water until"
    " always away public something fact less though far put head think called set almost enough"
    " end took government night yet system better four nothing told eyes city going president why"
    " days present point didn't look find asked second group later next room social business knew"
    " program give half side face toward meeting invoice deadline release server mailbox"
    " attachment schedule budget review ticket draft"
)
WORDS = VOCABULARY.split()

PEOPLE = (
    ("Ada Lindqvist", "ada.lindqvist@nordwind.example"),
    ("Bertrand Okafor", "bertrand@okafor-consulting.example"),
    ("Chen Xiulan", "chen.xiulan@harbour.example"),
    ("Dora Márquez", "dora.marquez@correo.example"),
    ("Émile Fournier", "emile.fournier@courriel.example"),
    ("Jürgen Weiß", "juergen.weiss@kanzlei.example"),
    ("Kowalski, Jan", "jan@kowalski.example"),
    ("Laszlo Nagy", "laszlo.nagy@posta.example"),
    ("", "noreply@notifications.example"),
    ("Build Robot", "ci@builds.example"),
    ("O'Neill (Accounts)", "accounts@oneill.example"),
    ("Priya Raman", "priya.raman@lists.example"),
    ("Søren Ågård", "soren@aagaard.example"),
    ("山田 太郎", "yamada@yubin.example"),
    ("Owner of the list", "users-bounces@lists.example"),
    ("Zoë \"Zed\" Baker", "zoe.baker@workshop.example"),
)  # fmt: skip

FOREIGN = (
    "Grüße aus München – schöne Aussicht, größere Füße",
    "Réunion reportée à jeudi : ça ira, après-midi",
    "Отчёт за третий квартал готов",
    "会議の議事録を送ります",
    "Zażółć gęślą jaźń",
    "Überraschung: 100 € für Ölförderung",
)


class Planted(NamedTuple):
    """Which planted words a message holds."""

    sender: bool
    subject: bool
    body: bool


def planted(index: int) -> Planted:
    """Say which of the planted words message `index` holds."""
    return Planted(
        *(index % every == 0 for _, every in (PLANTED_FROM, PLANTED_SUBJECT, PLANTED_BODY))
    )


def flags(index: int, seed: int = SEED) -> str:
    """Give message `index` its Maildir flags, in the order that Maildir wants; "" is unseen."""
    lot = _lot(index, seed, "flags")
    letters = {"F": lot % 100 < 6, "R": lot // 100 % 100 < 22, "S": lot // 10_000 % 100 < 78}
    return "".join(letter for letter, present in letters.items() if present)


def messages(count: int, seed: int = SEED) -> Iterator[bytes]:
    """Make the first `count` messages of a seed, each with CRLF line ends throughout."""
    return (message(index, seed) for index in range(count))


def message(index: int, seed: int = SEED) -> bytes:
    """Make message `index` with CRLF line ends: 1 KB to 1 MB, about 10 KB on average."""
    lot = random.Random(f"{seed}:{index}")
    text = _text(lot, planted(index).body)
    top, body = _draw_shape(index, lot)(lot, text)
    return (_header(index, seed, lot, top) + "\r\n").encode("utf-8", "surrogateescape") + body


def write_maildir(
    path: str | os.PathLike[str],
    count: int,
    seed: int = SEED,
    line_ending: LineEnding = "mixed",
) -> int:
    """Write the first `count` messages into the Maildir at `path`, made if missing.

    Names sort in the order of the indexes, so that every server gives the same UIDs. Three in a
    hundred are still in new/. About half of the names carry Dovecot's sizes. The files' times are
    the messages' dates, which is what servers tell as INTERNALDATE. Out: the octets written.
    """
    root = Path(path)
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True, exist_ok=True)
    octets = 0
    for index, data in enumerate(messages(count, seed)):
        lot = _lot(index, seed, "file")
        as_lf = line_ending == "lf" or (line_ending == "mixed" and lot % 2 == 0)
        stored = data.replace(b"\r\n", b"\n") if as_lf else data
        when = date_of(index)
        name = f"{when}.M{lot % 1_000_000:06d}P{1000 + index}.mx{lot % 3}.example"
        if lot // 2 % 2:
            name += f",S={len(stored)},W={len(data)}"
        letters = flags(index, seed)
        fresh = not letters and lot // 4 % 100 < 15
        file = root / "new" / name if fresh else root / "cur" / f"{name}:2,{letters}"
        file.write_bytes(stored)
        os.utime(file, (when, when))
        octets += len(stored)
    return octets


def date_of(index: int) -> int:
    """Tell when message `index` was sent, in seconds since 1970."""
    return FIRST_DATE + index * SECONDS_BETWEEN


def _lot(index: int, seed: int, what: str) -> int:
    """One number out of a hat, the same for the same question; cheaper than a `Random`."""
    return zlib.crc32(f"{seed}/{index}/{what}".encode())


def _message_id(index: int, seed: int) -> str:
    return f"<{_lot(index, seed, 'id'):08x}.{index:06d}@mua{index % 7}.example>"


def _parent(index: int, seed: int) -> int | None:
    """Find the message that this one answers: one in sixteen belongs to a thread of up to sixty."""
    if index % 16 == 5:
        return index - 16 if index // 16 % 60 else None
    lot = _lot(index, seed, "parent")
    answered = index - 1 - lot // 100 % 40
    return answered if lot % 100 < 45 and answered >= 0 else None


def _references(index: int, seed: int) -> list[int]:
    """List the thread above message `index`, oldest first."""
    chain: list[int] = []
    while (parent := _parent(chain[-1] if chain else index, seed)) is not None:
        chain.append(parent)
    return chain[::-1]


@lru_cache(maxsize=1)
def _sentences() -> tuple[str, ...]:
    """Sentences to build every text from: making each anew would take a minute in all."""
    lot = random.Random(SEED)
    return tuple(
        " ".join(lot.choices(WORDS, k=lot.randint(6, 18))).capitalize() for _ in range(3000)
    )


def _text(lot: random.Random, plant: bool, paragraphs: int = 0) -> str:
    """Write some paragraphs in lines of about 76 columns, CRLF between them."""
    lines: list[str] = []
    for _ in range(paragraphs or 1 + int(lot.expovariate(0.35))):
        column = 0
        line: list[str] = []
        for word in ". ".join(lot.sample(_sentences(), lot.randint(2, 7))).split(" "):
            if column + len(word) > 75:
                lines.append(" ".join(line))
                column, line = 0, []
            line.append(word)
            column += len(word) + 1
        lines += [" ".join(line) + ".", ""]
    if plant:
        lines.insert(len(lines) // 2, f"P.S. Plant them in a {PLANTED_BODY[0]}, as always.")
    return "\r\n".join(lines)


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _word(text: str, charset: str = "utf-8") -> str:
    """RFC 2047 encoded words, each of at most 75 octets, folded."""
    pieces = (text[start : start + 14] for start in range(0, len(text), 14))
    return "\r\n ".join(
        f"=?{charset}?B?{base64.b64encode(piece.encode(charset)).decode()}?=" for piece in pieces
    )


def _raw(text: str, charset: str) -> str:
    """8-bit text as it stands, in a charset of its sender's; surrogates carry it to the octets."""
    return text.encode(charset, "replace").decode("ascii", "surrogateescape")


def _address(person: tuple[str, str], lot: random.Random) -> str:
    name, address = person
    if not name:
        return address
    if name.isascii():
        return f"{name if name.replace(' ', '').isalpha() else _quoted(name)} <{address}>"
    if lot.random() < 0.25:
        return f"{_raw(_quoted(name), 'utf-8')} <{address}>"
    return f"{_word(name)} <{address}>"


def _subject(index: int, lot: random.Random) -> str:
    plain = lot.choice(_sentences())[:60]
    if planted(index).subject:
        plain = f"The {PLANTED_SUBJECT[0]} and {plain}"
    draw = lot.random()
    if draw < 0.12:
        return _word(f"{plain} – {lot.choice(FOREIGN)}")
    if draw < 0.15:
        return _raw(f"{plain} {lot.choice(FOREIGN)}", "utf-8")
    if draw < 0.17:
        return _raw(f"{plain} {FOREIGN[0].replace('–', '-')}", "latin-1")
    if draw < 0.20:
        return f"=?iso-8859-1?Q?{lot.choice(('Gr=FC=DFe', 'r=E9union', 'ma=F1ana'))}?= {plain}"
    return plain


def _rfc_date(seconds: int, zone: str = "+0000") -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S ", time.gmtime(seconds)) + zone


def _header(index: int, seed: int, lot: random.Random, top: str) -> str:
    """Everything above the blank line, `top` (the MIME fields) included."""
    when = date_of(index)
    sender = lot.choice(PEOPLE)
    if planted(index).sender:
        sender = (f"Harriet {PLANTED_FROM[0]}", "harriet@library.example")
    domain = sender[1].partition("@")[2]
    thread = _references(index, seed)
    lines = [f"Return-Path: <{sender[1]}>", "Delivered-To: alice@shield.example"]
    for hop in range(lot.randint(3, 6)):
        lines += [
            f"Received: from relay{hop}.{domain} (relay{hop} [192.0.2.{lot.randint(1, 254)}])",
            f"\tby mx{hop}.shield.example (Postfix) with ESMTPS id {lot.getrandbits(44):X}",
            "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))",
            f"\tfor <alice@shield.example>; {_rfc_date(when - hop)}",
        ]
    if lot.random() < 0.7:
        lines += [
            f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain};",
            f"\ts=s{lot.randint(2019, 2026)}; t={when}; h=from:to:subject:date:message-id;",
            f"\tbh={base64.b64encode(lot.randbytes(32)).decode()};",
            *_folded("\tb=" + base64.b64encode(lot.randbytes(256)).decode(), 70),
        ]
    subject = _subject(index, lot)
    recipients = [
        _address(person, lot) for person in lot.sample(PEOPLE, 1 + int(lot.expovariate(1.2)) % 9)
    ]
    lines += [
        f"From: {_address(sender, lot)}",
        "To: Alice <alice@shield.example>" + "".join(f",\r\n\t{one}" for one in recipients[1:]),
        *([f"Cc: {recipients[0]}"] if lot.random() < 0.3 else []),
        f"Subject: {'Re: ' if thread else ''}{subject}",
        f"Date: {_rfc_date(when, lot.choice(('+0000', '+0200', '-0500', '+0530')))}",
        f"Message-ID: {_message_id(index, seed)}",
    ]
    if thread:
        lines += [f"In-Reply-To: {_message_id(thread[-1], seed)}"]
        lines += ["References: " + "\r\n ".join(_message_id(one, seed) for one in thread)]
    if lot.random() < 0.2:
        lines += [
            "List-Id: Users who talk <users.lists.example>",
            "List-Unsubscribe: <https://lists.example/leave>,\r\n\t<mailto:leave@lists.example>",
            "Precedence: list",
        ]
    lines += [
        f"X-Mailer: Corpus {lot.randint(1, 9)}.{lot.randint(0, 20)}",
        "MIME-Version: 1.0",
        top,
    ]
    return "\r\n".join(lines)


def _folded(text: str, width: int) -> list[str]:
    return [
        ("\t  " if start else "") + text[start : start + width]
        for start in range(0, len(text), width)
    ]


@dataclass(frozen=True, slots=True)
class _Part:
    """One MIME part: its fields with CRLF between them and after the last, and its body."""

    fields: str
    body: bytes

    def octets(self) -> bytes:
        return self.fields.encode("utf-8", "surrogateescape") + b"\r\n" + self.body


# The MIME fields that go on top, each line ended, and the body under the blank line.
_Shaped = tuple[str, bytes]
_Shape = Callable[[random.Random, str], _Shaped]


def _multipart(lot: random.Random, kind: str, parts: list[_Part], extra: str = "") -> _Shaped:
    boundary = f"=_{lot.getrandbits(64):016x}_{kind}"
    line = f"--{boundary}".encode()
    inside = b"".join(line + b"\r\n" + part.octets() + b"\r\n" for part in parts)
    preamble = b"This is a message in several parts.\r\n" if lot.random() < 0.3 else b""
    top = f'Content-Type: multipart/{kind};\r\n\tboundary="{boundary}"{extra}\r\n'
    return top, preamble + inside + line + b"--\r\n"


def _plain_part(lot: random.Random, text: str) -> _Part:
    """Make a text/plain in one of the four encodings that are met."""
    draw = lot.random()
    if draw < 0.55:
        fields = "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n"
        return _Part(fields, text.encode())
    text = f"{lot.choice(FOREIGN)}\r\n\r\n{text}"
    fields = 'Content-Type: text/plain; charset="utf-8"'
    if draw < 0.70:
        return _Part(f"{fields}\r\nContent-Transfer-Encoding: 8bit\r\n", text.encode())
    if draw < 0.88:
        encoded = _quoted_printable(text)
        return _Part(
            f"{fields}; format=flowed\r\nContent-Transfer-Encoding: quoted-printable\r\n", encoded
        )
    return _Part(f"{fields}\r\nContent-Transfer-Encoding: base64\r\n", _base64(text.encode()))


def _html_part(lot: random.Random, text: str) -> _Part:
    """Make a text/html, quoted-printable, three or four times as long as what it says."""
    style = "font-family:Helvetica,Arial,sans-serif;font-size:14px;color:#333333;margin:0 0 16px 0"
    rows = "".join(
        f'<tr><td style="{style}"><p>{line}</p></td></tr>\r\n'
        for line in text.split("\r\n")
        if line
    )
    page = (
        '<!DOCTYPE html>\r\n<html><head><meta charset="utf-8"></head><body>\r\n'
        f'<table width="100%" cellpadding="0">\r\n{rows}</table>\r\n'
        f'<img src="https://pixel.example/{lot.getrandbits(80):x}.gif" width=1 height=1>\r\n'
        "</body></html>\r\n"
    )
    fields = (
        "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
    )
    return _Part(fields, _quoted_printable(page))


def _quoted_printable(text: str) -> bytes:
    encoded = quopri.encodestring(text.replace("\r\n", "\n").encode())
    return encoded.replace(b"\n", b"\r\n")


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def _attachment(lot: random.Random, size: int) -> _Part:
    draw = lot.random()
    if draw < 0.15:  # RFC 2231: a name in another charset, in two pieces
        name = "filename*0*=UTF-8''%E2%82%AC%20invoice%20;\r\n\tfilename*1*=M%C3%A4rz.pdf"
        kind = "application/pdf"
    elif draw < 0.25:  # what Outlook does instead
        name, kind = f'filename="{_word("Übersicht März.xlsx")}"', "application/vnd.ms-excel"
    else:
        suffix, kind = lot.choice(
            (("pdf", "application/pdf"), ("jpg", "image/jpeg"), ("zip", "application/zip"))
        )
        name = f'filename="{lot.choice(WORDS)}-{lot.randint(1, 99)}.{suffix}"'
    fields = (
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment; {name}; size={size}\r\n"
        f"Content-ID: <part{lot.randint(1, 9)}.{lot.getrandbits(40):x}@mua.example>\r\n"
    )
    return _Part(fields, _base64(lot.randbytes(size)))


def _inner(shaped: _Shaped) -> _Part:
    return _Part(*shaped)


def _plain(lot: random.Random, text: str) -> _Shaped:
    part = _plain_part(lot, text)
    return part.fields, part.body


def _bare(_: random.Random, text: str) -> _Shaped:
    """No MIME fields but the version: RFC 822 mail as cron writes it."""
    return "X-Cron-Env: <SHELL=/bin/sh>\r\n", text.encode()


def _html(lot: random.Random, text: str) -> _Shaped:
    part = _html_part(lot, text)
    return part.fields, part.body


def _alternative(lot: random.Random, text: str) -> _Shaped:
    return _multipart(lot, "alternative", [_plain_part(lot, text), _html_part(lot, text)])


def _related(lot: random.Random, text: str) -> _Shaped:
    """Alternatives whose HTML brings its pictures along: three levels."""
    related = _multipart(
        lot,
        "related",
        [_html_part(lot, text), _attachment(lot, lot.randint(600, 9000))],
        '; type="text/html"',
    )
    return _multipart(lot, "alternative", [_plain_part(lot, text), _inner(related)])


def _mixed(lot: random.Random, text: str) -> _Shaped:
    first = _inner(_alternative(lot, text)) if lot.random() < 0.5 else _plain_part(lot, text)
    sizes = (
        min(int(lot.lognormvariate(9.3, 1.2)), 400_000) for _ in range(lot.choice((1, 1, 1, 2, 3)))
    )
    return _multipart(lot, "mixed", [first, *(_attachment(lot, size) for size in sizes)])


def _huge(lot: random.Random, text: str) -> _Shaped:
    """Close to the largest: base64 makes 78 octets of 57, and some room is left for headers."""
    return _multipart(
        lot, "mixed", [_plain_part(lot, text), _attachment(lot, (LARGEST - 40_000) * 57 // 78)]
    )


def _forward(lot: random.Random, text: str) -> _Shaped:
    """Put a message/rfc822 within, which may hold a multipart of its own."""
    top, body = lot.choice((_plain, _alternative, _mixed))(lot, _text(lot, plant=False))
    sender, recipient = lot.sample(PEOPLE, 2)
    inner = (
        f"From: {_address(sender, lot)}\r\nTo: {_address(recipient, lot)}\r\n"
        f"Subject: {lot.choice(_sentences())[:50]}\r\n"
        f"Date: {_rfc_date(lot.randint(10**9, FIRST_DATE))}\r\n"
        f"Message-ID: <{lot.getrandbits(60):x}@inner.example>\r\nMIME-Version: 1.0\r\n"
    )
    nested = _Part(inner + top, body)
    fields = "Content-Type: message/rfc822\r\nContent-Disposition: inline\r\n"
    return _multipart(lot, "mixed", [_plain_part(lot, text), _Part(fields, nested.octets())])


def _bounce(lot: random.Random, text: str) -> _Shaped:
    """Make a delivery report (RFC 3464)."""
    status = (
        "Reporting-MTA: dns; mx0.shield.example\r\n\r\n"
        "Final-Recipient: rfc822; nobody@away.example\r\n"
        "Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
    )
    returned = f"From: alice@shield.example\r\nSubject: {lot.choice(_sentences())[:50]}\r\n"
    parts = [
        _plain_part(lot, text),
        _Part("Content-Type: message/delivery-status\r\n", status.encode()),
        _Part("Content-Type: text/rfc822-headers\r\n", returned.encode()),
    ]
    return _multipart(lot, "report", parts, "; report-type=delivery-status")


_SHAPES: dict[_Shape, int] = {
    _plain: 40,
    _bare: 6,
    _html: 9,
    _alternative: 27,
    _related: 3,
    _mixed: 9,
    _forward: 4,
    _bounce: 2,
}


def _draw_shape(index: int, lot: random.Random) -> _Shape:
    if index % 2000 == 777:
        return _huge
    return lot.choices(list(_SHAPES), weights=list(_SHAPES.values()))[0]
