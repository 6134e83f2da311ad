"""Writes the elements of commands (strings, words, lists) as clients do, with random choices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import TypeVar

from imapshield.wire import abnf, names
from imapshield.wire.commands.base import LiteralData, MemoryLiteral

T = TypeVar("T")

Parts = list[bytes | LiteralData]

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def date_time(epoch: int, zone: int) -> bytes:
    """``date-time`` without quotes in a time zone, which is given in minutes east of UTC."""
    moment = (EPOCH + timedelta(seconds=epoch)).astimezone(timezone(timedelta(minutes=zone)))
    day = f"{moment.day:02}-{MONTHS[moment.month - 1]}-{moment.year:04}"
    return f"{day} {moment:%H:%M:%S %z}".encode()


class PartWriter:
    """Writes the elements of one command; `random` makes the choices that the grammar leaves to clients.

    Args:
        random: decides between an atom, a quoted string and a literal, and the case of words.
        utf8: whether the client enabled UTF-8 mailbox names.
    """

    def __init__(self, random: Random, utf8: bool) -> None:
        self.random = random
        self.utf8 = utf8
        self.parts: Parts = [b""]

    def put(self, *texts: bytes) -> None:
        """Write `texts` unchanged."""
        last = self.parts[-1]
        assert isinstance(last, bytes)
        self.parts[-1] = last + b"".join(texts)

    def word(self, word: bytes) -> None:
        """Write a word of the protocol, in any case."""
        self.put(self.random.choice((word, word, word.lower(), word.title())))

    def flag(self, flag: bytes) -> None:
        if flag.startswith(b"\\"):
            self.word(flag)
        else:
            self.put(flag)

    def space(self) -> None:
        self.put(b" ")

    def date_time(self, epoch: int) -> None:
        """Write a time in any zone."""
        self.put(b'"', date_time(epoch, self.random.randint(-1439, 1439)), b'"')

    def literal(self, content: LiteralData) -> None:
        self.parts += [content, b""]

    def string(self, value: bytes) -> None:
        """Write `value` in quotes or as a literal."""
        if self.needs_literal(value) or self.random.random() < 0.2:
            self.literal(MemoryLiteral(value))
        else:
            self.put(b'"', value.replace(b"\\", b"\\\\").replace(b'"', b'\\"'), b'"')

    def needs_literal(self, value: bytes) -> bool:
        if self.utf8:  # quoted strings are then UTF-8
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                return True
        return b"\r" in value or b"\n" in value

    def astring(self, value: bytes, atom: re.Pattern[bytes] = abnf.ASTRING_ATOM) -> None:
        """Write `value` as an atom, if `atom` matches it, or as a string."""
        if atom.fullmatch(value) and self.random.random() < 0.7:
            self.put(value)
        else:
            self.string(value)

    def nstring(self, value: bytes | None) -> None:
        if value is None:
            self.word(b"NIL")
        else:
            self.string(value)

    def mailbox(self, name: str) -> None:
        self.astring(names.encode_name(name, self.utf8))

    def pattern(self, pattern: str) -> None:
        self.astring(names.encode_name(pattern, self.utf8), abnf.LIST_ATOM)

    def joined(self, items: Iterable[T], write: Callable[[T], object]) -> None:
        """Write `items` with spaces between them."""
        for i, item in enumerate(items):
            if i:
                self.space()
            write(item)

    def listed(self, items: Iterable[T], write: Callable[[T], object]) -> None:
        """Write `items` as a list in parentheses."""
        self.put(b"(")
        self.joined(items, write)
        self.put(b")")

    def shuffled(self, items: Iterable[bytes]) -> list[bytes]:
        """Return `items` in random order."""
        shuffled = sorted(items)
        self.random.shuffle(shuffled)
        return shuffled

    def uid(self, uid: bool) -> None:
        """Write the UID of a UID command."""
        if uid:
            self.word(b"UID")
            self.space()
