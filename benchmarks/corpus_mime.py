"""The structures of the corpus: a text becomes a plain message, a multipart, a forwarded message or a bounce.

Each function draws from its random generator in a fixed order, so that one seed always gives the same bytes.
"""

from __future__ import annotations

import base64
import quopri
import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.corpus_text import (
    FOREIGN,
    PEOPLE,
    WORDS,
    address,
    encoded_words,
    paragraphs,
    rfc_date,
    sentences,
)

LARGEST = 1_000_000
FORWARDED_DATES = (10**9, 1_577_880_000)

Content = tuple[str, bytes]
"""The MIME fields of a message, each with its line end, and the body after the blank line."""
Structure = Callable[[random.Random, str], Content]


@dataclass(frozen=True, slots=True)
class _Part:
    """One MIME part: its fields with CRLF between them and after the last, and its body."""

    fields: str
    body: bytes

    def data(self) -> bytes:
        return self.fields.encode("utf-8", "surrogateescape") + b"\r\n" + self.body


def choose_structure(index: int, rng: random.Random) -> Structure:
    """Choose the structure of message `index`; one in 2,000 is almost `LARGEST` bytes long."""
    if index % 2000 == 777:
        return _huge
    return rng.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]


def _multipart(rng: random.Random, kind: str, parts: list[_Part], extra: str = "") -> Content:
    boundary = f"=_{rng.getrandbits(64):016x}_{kind}"
    line = f"--{boundary}".encode()
    inner = b"".join(line + b"\r\n" + part.data() + b"\r\n" for part in parts)
    preamble = b"This is a message in several parts.\r\n" if rng.random() < 0.3 else b""
    fields = f'Content-Type: multipart/{kind};\r\n\tboundary="{boundary}"{extra}\r\n'
    return fields, preamble + inner + line + b"--\r\n"


def _plain_part(rng: random.Random, text: str) -> _Part:
    """Return a text/plain part in one of the four usual encodings."""
    draw = rng.random()
    if draw < 0.55:
        fields = "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n"
        return _Part(fields, text.encode())
    text = f"{rng.choice(FOREIGN)}\r\n\r\n{text}"
    fields = 'Content-Type: text/plain; charset="utf-8"'
    if draw < 0.70:
        return _Part(f"{fields}\r\nContent-Transfer-Encoding: 8bit\r\n", text.encode())
    if draw < 0.88:
        encoded = _quoted_printable(text)
        return _Part(
            f"{fields}; format=flowed\r\nContent-Transfer-Encoding: quoted-printable\r\n", encoded
        )
    return _Part(f"{fields}\r\nContent-Transfer-Encoding: base64\r\n", _base64(text.encode()))


def _html_part(rng: random.Random, text: str) -> _Part:
    """Return a quoted-printable text/html part, three or four times as long as its text."""
    style = "font-family:Helvetica,Arial,sans-serif;font-size:14px;color:#333333;margin:0 0 16px 0"
    rows = "".join(
        f'<tr><td style="{style}"><p>{line}</p></td></tr>\r\n'
        for line in text.split("\r\n")
        if line
    )
    page = (
        '<!DOCTYPE html>\r\n<html><head><meta charset="utf-8"></head><body>\r\n'
        f'<table width="100%" cellpadding="0">\r\n{rows}</table>\r\n'
        f'<img src="https://pixel.example/{rng.getrandbits(80):x}.gif" width=1 height=1>\r\n'
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


def _attachment(rng: random.Random, size: int) -> _Part:
    draw = rng.random()
    if draw < 0.15:  # RFC 2231: a name in another charset, in two sections
        name = "filename*0*=UTF-8''%E2%82%AC%20invoice%20;\r\n\tfilename*1*=M%C3%A4rz.pdf"
        kind = "application/pdf"
    elif draw < 0.25:  # Outlook's form: encoded words within quotes
        name = f'filename="{encoded_words("Übersicht März.xlsx")}"'
        kind = "application/vnd.ms-excel"
    else:
        suffix, kind = rng.choice(
            (("pdf", "application/pdf"), ("jpg", "image/jpeg"), ("zip", "application/zip"))
        )
        name = f'filename="{rng.choice(WORDS)}-{rng.randint(1, 99)}.{suffix}"'
    fields = (
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment; {name}; size={size}\r\n"
        f"Content-ID: <part{rng.randint(1, 9)}.{rng.getrandbits(40):x}@mua.example>\r\n"
    )
    return _Part(fields, _base64(rng.randbytes(size)))


def _plain(rng: random.Random, text: str) -> Content:
    part = _plain_part(rng, text)
    return part.fields, part.body


def _without_mime(_: random.Random, text: str) -> Content:
    """RFC 822 mail as cron writes it: MIME-Version is its only MIME field."""
    return "X-Cron-Env: <SHELL=/bin/sh>\r\n", text.encode()


def _html(rng: random.Random, text: str) -> Content:
    part = _html_part(rng, text)
    return part.fields, part.body


def _alternative(rng: random.Random, text: str) -> Content:
    return _multipart(rng, "alternative", [_plain_part(rng, text), _html_part(rng, text)])


def _related(rng: random.Random, text: str) -> Content:
    """Alternatives of which the HTML has an embedded picture: three levels."""
    parts = [_html_part(rng, text), _attachment(rng, rng.randint(600, 9000))]
    related = _multipart(rng, "related", parts, '; type="text/html"')
    return _multipart(rng, "alternative", [_plain_part(rng, text), _Part(*related)])


def _mixed(rng: random.Random, text: str) -> Content:
    first = _Part(*_alternative(rng, text)) if rng.random() < 0.5 else _plain_part(rng, text)
    sizes = (
        min(int(rng.lognormvariate(9.3, 1.2)), 400_000) for _ in range(rng.choice((1, 1, 1, 2, 3)))
    )
    return _multipart(rng, "mixed", [first, *(_attachment(rng, size) for size in sizes)])


def _huge(rng: random.Random, text: str) -> Content:
    """A message of almost `LARGEST` bytes: base64 makes 78 bytes of 57, and 40,000 remain for the rest."""
    return _multipart(
        rng, "mixed", [_plain_part(rng, text), _attachment(rng, (LARGEST - 40_000) * 57 // 78)]
    )


def _forward(rng: random.Random, text: str) -> Content:
    """A message with a message/rfc822 part, which may contain a multipart itself."""
    content, body = rng.choice((_plain, _alternative, _mixed))(rng, paragraphs(rng))
    sender, recipient = rng.sample(PEOPLE, 2)
    header = (
        f"From: {address(sender, rng)}\r\nTo: {address(recipient, rng)}\r\n"
        f"Subject: {rng.choice(sentences())[:50]}\r\n"
        f"Date: {rfc_date(rng.randint(*FORWARDED_DATES))}\r\n"
        f"Message-ID: <{rng.getrandbits(60):x}@inner.example>\r\nMIME-Version: 1.0\r\n"
    )
    inner = _Part(header + content, body)
    fields = "Content-Type: message/rfc822\r\nContent-Disposition: inline\r\n"
    return _multipart(rng, "mixed", [_plain_part(rng, text), _Part(fields, inner.data())])


def _bounce(rng: random.Random, text: str) -> Content:
    """A delivery status notification (RFC 3464)."""
    status = (
        "Reporting-MTA: dns; mx0.shield.example\r\n\r\n"
        "Final-Recipient: rfc822; nobody@away.example\r\n"
        "Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
    )
    returned = f"From: alice@shield.example\r\nSubject: {rng.choice(sentences())[:50]}\r\n"
    parts = [
        _plain_part(rng, text),
        _Part("Content-Type: message/delivery-status\r\n", status.encode()),
        _Part("Content-Type: text/rfc822-headers\r\n", returned.encode()),
    ]
    return _multipart(rng, "report", parts, "; report-type=delivery-status")


_WEIGHTS: dict[Structure, int] = {
    _plain: 40,
    _without_mime: 6,
    _html: 9,
    _alternative: 27,
    _related: 3,
    _mixed: 9,
    _forward: 4,
    _bounce: 2,
}
