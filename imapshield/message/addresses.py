"""Address lists (RFC 5322 section 3.4, and RFC 822) into the four strings of RFC 9051's address.

Nothing is refused: what cannot be an address is shown as one with MISSING_MAILBOX, MISSING_DOMAIN
or SYNTAX_ERROR in it, which are Dovecot's words, so that a reader sees that something stood there.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from imapshield.message.lexer import ATEXT, BROKEN, END, MORE, Cursor

MISSING_MAILBOX: Final = b"MISSING_MAILBOX"
MISSING_DOMAIN: Final = b"MISSING_DOMAIN"
SYNTAX_ERROR: Final = b"SYNTAX_ERROR"
INVALID_ROUTE: Final = b"INVALID_ROUTE"


class Address(NamedTuple):
    """One address; a group begins with (None, None, its name, None) and ends with four None."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


END_OF_GROUP: Final = Address(None, None, None, None)

_WORD = b"[." + ATEXT + b"]++"
# Nearly every address there is: name <local@domain> or local@domain, up to a comma or the end.
_regular = re.compile(
    rb'(?:"([^"\\\r\n\0]*+)"[ \t\r\n]*+|((?!\.)' + _WORD + rb"(?: " + _WORD + rb")*)[ \t\r\n]*+)?"
    rb"<([."
    + ATEXT
    + rb"]++)@(["
    + ATEXT
    + rb"]++(?:\.["
    + ATEXT
    + rb"]++)*)>[ \t\r\n]*+(?:,[ \t\r\n]*+|\Z)"
    rb"|([."
    + ATEXT
    + rb"]++)@(["
    + ATEXT
    + rb"]++(?:\.["
    + ATEXT
    + rb"]++)*)[ \t\r\n]*+(?:,[ \t\r\n]*+|\Z)"
).match


def parse_addresses(value: bytes, limit: int) -> list[Address]:
    """Read the addresses of a field body, `limit` at most; a group cut short still has its end."""
    found: list[Address] = []
    pos = len(value) - len(value.lstrip(b" \t\r\n"))
    size = len(value)
    while pos < size and len(found) < limit:
        match = _regular(value, pos)
        if match is not None:
            quoted, words, local, domain, bare, bare_domain = match.groups()
            if local is None:
                found.append(Address(None, None, bare, bare_domain))
            else:
                found.append(Address(quoted or words or None, None, local, domain))
            pos = match.end()
            continue
        reader = _Reader(value, pos, found, limit)
        pos = reader.irregular()
    return found


class _Reader:
    """Reads one address of any form; `name`, `route`, `mailbox`, `host` are what it has so far."""

    __slots__ = ("cursor", "found", "host", "limit", "mailbox", "name", "route")

    def __init__(self, value: bytes, pos: int, found: list[Address], limit: int) -> None:
        self.cursor = Cursor(value, pos)
        self.found = found
        self.limit = limit
        self.name: bytes | None = None
        self.route: bytes | None = None
        self.mailbox: bytes | None = None
        self.host: bytes | None = None

    def irregular(self) -> int:
        """Read an address and the comma after it; return where to go on, the end if nowhere."""
        cursor = self.cursor
        stopped = cursor.skip_space()
        if stopped != MORE:
            if stopped == BROKEN and self.found:
                # A comma, then a comment without end.
                self._add()
            return cursor.end
        start = cursor.pos
        stopped = self._group()
        if stopped == BROKEN:
            cursor.pos = start
            stopped = self._mailbox()
        if stopped == END or not cursor.at(b","):
            return cursor.end
        cursor.pos += 1
        return cursor.pos

    def _add(self) -> None:
        """Add an address, its gaps filled."""
        self.found.append(
            Address(
                self.name,
                self.route,
                MISSING_MAILBOX if self.mailbox is None else self.mailbox,
                self.host or MISSING_DOMAIN,
            )
        )
        self.name = self.route = self.mailbox = self.host = None

    def _group(self) -> int:
        cursor = self.cursor
        words: list[bytes] = []
        if cursor.phrase(words) != MORE or not cursor.at(b":"):
            return BROKEN
        cursor.pos += 1
        stopped = cursor.skip_space()
        self.found.append(Address(None, None, b"".join(words), None))
        if stopped == MORE and not cursor.at(b";"):
            while len(self.found) < self.limit:
                self._mailbox()
                if not cursor.at(b","):
                    break
                cursor.pos += 1
                if cursor.skip_space() != MORE:
                    stopped = BROKEN
                    break
        if stopped != BROKEN:
            if cursor.at(b";"):
                cursor.pos += 1
                stopped = cursor.skip_space()
            else:
                stopped = BROKEN
        self.found.append(END_OF_GROUP)
        return END if stopped == END else MORE

    def _mailbox(self) -> int:
        cursor = self.cursor
        start = cursor.pos
        stopped = self._name_and_angle()
        if stopped == BROKEN:
            cursor.pos = start
            stopped, whole = self._bare()
            if not whole and self.name is None and self.mailbox is not None and self.host is None:
                self.name, self.mailbox = self.mailbox, None
        self._add()
        return stopped

    def _name_and_angle(self) -> int:
        cursor = self.cursor
        words: list[bytes] = []
        if cursor.phrase(words) != MORE or not cursor.at(b"<"):
            return BROKEN
        self.name = b"".join(words) or None
        if self._angle() == BROKEN:
            self.host = SYNTAX_ERROR
        return cursor.more_or_end()

    def _angle(self) -> int:
        cursor = self.cursor
        cursor.pos += 1
        if cursor.skip_space() != MORE:
            return BROKEN
        if cursor.at(b"@"):
            if self._route() == MORE and cursor.at(b":"):
                cursor.pos += 1
            else:
                self.route = INVALID_ROUTE
            if cursor.skip_space() != MORE:
                return BROKEN
        if not cursor.at(b">"):
            if self._local_part([]) != MORE:
                return BROKEN
            if cursor.at(b"@") and self._domain() != MORE:
                return BROKEN
        if not cursor.at(b">"):
            return BROKEN
        cursor.pos += 1
        return cursor.skip_space()

    def _route(self) -> int:
        cursor = self.cursor
        text: list[bytes] = []
        while cursor.at(b"@"):
            text.append(b",@" if text else b"@")
            stopped = cursor.domain(text)
            if stopped != MORE:
                return stopped
            while cursor.skip_space() == MORE and cursor.at(b","):
                cursor.pos += 1
        if cursor.pos >= cursor.end:
            return END
        self.route = b"".join(text)
        return MORE

    def _local_part(self, text: list[bytes]) -> int:
        cursor = self.cursor
        stopped = cursor.quoted(text) if cursor.at(b'"') else self._dots_and_atoms(text)
        if stopped != BROKEN:
            self.mailbox = b"".join(text)
        return stopped

    def _dots_and_atoms(self, text: list[bytes]) -> int:
        """Dots may stand anywhere in a local part: so some providers once gave them out."""
        cursor = self.cursor
        stopped = BROKEN
        while True:
            while cursor.at(b"."):
                text.append(b".")
                cursor.pos += 1
                if cursor.pos >= cursor.end:
                    return END
                stopped = MORE
            if cursor.at(b"@"):
                return stopped
            stopped = cursor.atom(text)
            if stopped != MORE or not cursor.at(b"."):
                return stopped

    def _domain(self) -> int:
        text: list[bytes] = []
        stopped = self.cursor.domain(text)
        if stopped != BROKEN:
            self.host = b"".join(text)
        return stopped

    def _bare(self) -> tuple[int, bool]:
        """Read an address without angle brackets: how it stopped, and whether it was in order."""
        cursor = self.cursor
        cursor.last_comment = b""
        quoted = cursor.at(b'"')
        read: list[bytes] = []
        stopped = self._local_part(read)
        whole = stopped == MORE
        has_domain = False
        if stopped != END and cursor.at(b"@"):
            has_domain = True
            in_domain = self._domain()
            if in_domain != MORE:
                stopped = in_domain
        if cursor.last_comment:
            self.name = cursor.last_comment
        elif not has_domain:
            # One word is a mailbox; several are somebody's name.
            words: list[bytes] = []
            cursor.phrase(words)
            more = b"".join(words)
            if more:
                self.name, self.mailbox = b"".join(read) + b" " + more, None
            elif not quoted:
                self.host = b""
            return BROKEN, False
        return stopped, whole
