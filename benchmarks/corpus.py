"""A corpus of realistic messages: ten thousand or any number, always the same ones for the same seed.

A message is a pure function of its index and the seed, so that a test can make number 4711 alone. Messages
have CRLF line ends; `write_maildir` stores some with LF, as delivery agents do.

Some words are planted in known messages and occur nowhere else: `planted` says in which, so that the result
of a SEARCH can be checked and not only timed.
"""

from __future__ import annotations

import base64
import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.corpus_mime import choose_structure
from benchmarks.corpus_text import (
    FOREIGN,
    PEOPLE,
    address,
    encoded_words,
    paragraphs,
    raw_8bit,
    rfc_date,
    sentences,
)

LineEnding = Literal["mixed", "lf", "crlf"]

SEED = 1999
FIRST_DATE = 1_577_880_000  # 2020-01-01 12:00 UTC
SECONDS_BETWEEN = 9_137

# A word, and the number of messages of which one contains it: primes, so that all combinations occur.
PLANTED_FROM = ("Quillfeather", 89)
PLANTED_SUBJECT = ("platypus", 83)
PLANTED_BODY = ("quincunx", 97)


class Planted(NamedTuple):
    """Which of the planted words a message contains."""

    sender: bool
    subject: bool
    body: bool


def planted(index: int) -> Planted:
    """Return which of the planted words message `index` contains."""
    return Planted(
        *(index % interval == 0 for _, interval in (PLANTED_FROM, PLANTED_SUBJECT, PLANTED_BODY))
    )


def flags(index: int, seed: int = SEED) -> str:
    """Return the Maildir flag letters of message `index`, in ASCII order; without "S" it is unseen."""
    draw = _draw(index, seed, "flags")
    letters = {"F": draw % 100 < 6, "R": draw // 100 % 100 < 22, "S": draw // 10_000 % 100 < 78}
    return "".join(letter for letter, present in letters.items() if present)


def messages(count: int, seed: int = SEED) -> Iterator[bytes]:
    """Yield the first `count` messages of a seed, with CRLF line ends."""
    return (message(index, seed) for index in range(count))


def message(index: int, seed: int = SEED) -> bytes:
    """Return message `index` with CRLF line ends: 1 KB to 1 MB, about 10 KB on average."""
    rng = random.Random(f"{seed}:{index}")
    text = paragraphs(rng, PLANTED_BODY[0] if planted(index).body else "")
    mime_fields, body = choose_structure(index, rng)(rng, text)
    header = "\r\n".join([*_header(index, seed, rng), mime_fields])
    return (header + "\r\n").encode("utf-8", "surrogateescape") + body


def write_maildir(
    path: str | os.PathLike[str],
    count: int,
    seed: int = SEED,
    line_ending: LineEnding = "mixed",
) -> int:
    """Write the first `count` messages into the Maildir at `path`, which is created if it does not exist.

    File names sort in the order of the indexes, so that every server assigns the same UIDs. Three messages in
    a hundred are in new/. About half of the names contain Dovecot's sizes. The modification time of a file is
    the date of its message, and servers return it as INTERNALDATE.

    Returns:
        The number of bytes written.
    """
    root = Path(path)
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True, exist_ok=True)
    total = 0
    for index, data in enumerate(messages(count, seed)):
        draw = _draw(index, seed, "file")
        as_lf = line_ending == "lf" or (line_ending == "mixed" and draw % 2 == 0)
        stored = data.replace(b"\r\n", b"\n") if as_lf else data
        date = date_of(index)
        name = f"{date}.M{draw % 1_000_000:06d}P{1000 + index}.mx{draw % 3}.example"
        if draw // 2 % 2:
            name += f",S={len(stored)},W={len(data)}"
        letters = flags(index, seed)
        is_new = not letters and draw // 4 % 100 < 15
        file = root / "new" / name if is_new else root / "cur" / f"{name}:2,{letters}"
        file.write_bytes(stored)
        os.utime(file, (date, date))
        total += len(stored)
    return total


def date_of(index: int) -> int:
    """Return the date of message `index` in seconds since 1970."""
    return FIRST_DATE + index * SECONDS_BETWEEN


def _draw(index: int, seed: int, purpose: str) -> int:
    """Return a number that depends on the arguments only; cheaper than a `random.Random`."""
    return zlib.crc32(f"{seed}/{index}/{purpose}".encode())


def _message_id(index: int, seed: int) -> str:
    return f"<{_draw(index, seed, 'id'):08x}.{index:06d}@mua{index % 7}.example>"


def _parent(index: int, seed: int) -> int | None:
    """Return the index of the message that this one replies to, or None.

    One message in sixteen belongs to a thread of up to sixty.
    """
    if index % 16 == 5:
        return index - 16 if index // 16 % 60 else None
    draw = _draw(index, seed, "parent")
    parent = index - 1 - draw // 100 % 40
    return parent if draw % 100 < 45 and parent >= 0 else None


def _references(index: int, seed: int) -> list[int]:
    """Return the indexes of the ancestors of message `index` in its thread, oldest first."""
    ancestors: list[int] = []
    while (parent := _parent(ancestors[-1] if ancestors else index, seed)) is not None:
        ancestors.append(parent)
    return ancestors[::-1]


def _subject(index: int, rng: random.Random) -> str:
    """Return the Subject, as ASCII, encoded words or raw 8-bit bytes."""
    plain = rng.choice(sentences())[:60]
    if planted(index).subject:
        plain = f"The {PLANTED_SUBJECT[0]} and {plain}"
    draw = rng.random()
    if draw < 0.12:
        return encoded_words(f"{plain} – {rng.choice(FOREIGN)}")
    if draw < 0.15:
        return raw_8bit(f"{plain} {rng.choice(FOREIGN)}", "utf-8")
    if draw < 0.17:
        return raw_8bit(f"{plain} {FOREIGN[0].replace('–', '-')}", "latin-1")
    if draw < 0.20:
        return f"=?iso-8859-1?Q?{rng.choice(('Gr=FC=DFe', 'r=E9union', 'ma=F1ana'))}?= {plain}"
    return plain


def _header(index: int, seed: int, rng: random.Random) -> list[str]:
    """Return the lines of all fields but those that describe the content."""
    sender = rng.choice(PEOPLE)
    if planted(index).sender:
        sender = (f"Harriet {PLANTED_FROM[0]}", "harriet@library.example")
    lines = [
        f"Return-Path: <{sender[1]}>",
        "Delivered-To: alice@shield.example",
        *_transport_fields(index, sender[1].partition("@")[2], rng),
    ]
    thread = _references(index, seed)
    subject = _subject(index, rng)
    recipients = [
        address(person, rng) for person in rng.sample(PEOPLE, 1 + int(rng.expovariate(1.2)) % 9)
    ]
    lines += [
        f"From: {address(sender, rng)}",
        ",\r\n\t".join(["To: Alice <alice@shield.example>", *recipients[1:]]),
        *([f"Cc: {recipients[0]}"] if rng.random() < 0.3 else []),
        f"Subject: {'Re: ' if thread else ''}{subject}",
        f"Date: {rfc_date(date_of(index), rng.choice(('+0000', '+0200', '-0500', '+0530')))}",
        f"Message-ID: {_message_id(index, seed)}",
    ]
    if thread:
        lines += [f"In-Reply-To: {_message_id(thread[-1], seed)}"]
        lines += ["References: " + "\r\n ".join(_message_id(number, seed) for number in thread)]
    if rng.random() < 0.2:
        lines += [
            "List-Id: Users who talk <users.lists.example>",
            "List-Unsubscribe: <https://lists.example/leave>,\r\n\t<mailto:leave@lists.example>",
            "Precedence: list",
        ]
    return [
        *lines,
        f"X-Mailer: Corpus {rng.randint(1, 9)}.{rng.randint(0, 20)}",
        "MIME-Version: 1.0",
    ]


def _transport_fields(index: int, domain: str, rng: random.Random) -> list[str]:
    """Return Received fields, and for most messages a DKIM-Signature."""
    date = date_of(index)
    lines: list[str] = []
    for hop in range(rng.randint(3, 6)):
        lines += [
            f"Received: from relay{hop}.{domain} (relay{hop} [192.0.2.{rng.randint(1, 254)}])",
            f"\tby mx{hop}.shield.example (Postfix) with ESMTPS id {rng.getrandbits(44):X}",
            "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))",
            f"\tfor <alice@shield.example>; {rfc_date(date - hop)}",
        ]
    if rng.random() < 0.7:
        lines += [
            f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain};",
            f"\ts=s{rng.randint(2019, 2026)}; t={date}; h=from:to:subject:date:message-id;",
            f"\tbh={base64.b64encode(rng.randbytes(32)).decode()};",
            *_folded("\tb=" + base64.b64encode(rng.randbytes(256)).decode(), 70),
        ]
    return lines


def _folded(text: str, width: int) -> list[str]:
    return [
        ("\t  " if start else "") + text[start : start + width]
        for start in range(0, len(text), width)
    ]
