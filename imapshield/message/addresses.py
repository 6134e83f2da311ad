"""Parses address lists (RFC 5322 section 3.4, and RFC 822) into the addresses of ENVELOPE (RFC 9051 section 7.5.2).

Every input has a result. Text that is not a valid address becomes an address that contains MISSING_MAILBOX,
MISSING_DOMAIN, SYNTAX_ERROR or INVALID_ROUTE, so that the reader sees that the field was not empty. Dovecot uses the
same words.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from imapshield.message.lexer import ATEXT, BROKEN, END, MORE, Cursor
from imapshield.message.pauses import pause_point

MISSING_MAILBOX: Final = b"MISSING_MAILBOX"
MISSING_DOMAIN: Final = b"MISSING_DOMAIN"
SYNTAX_ERROR: Final = b"SYNTAX_ERROR"
INVALID_ROUTE: Final = b"INVALID_ROUTE"


class Address(NamedTuple):
    """One address of an ENVELOPE.

    A group starts with the address (None, None, its name, None), and ends with `END_OF_GROUP`.

    Attributes:
        name: the display name.
        route: the source route, which is obsolete, such as ``@a,@b``.
        mailbox: the local part.
        host: the domain.
    """

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


END_OF_GROUP: Final = Address(None, None, None, None)

_WORD = b"[." + ATEXT + b"]++"
_ADDR_SPEC = b"(" + _WORD + b")@([" + ATEXT + rb"]++(?:\.[" + ATEXT + b"]++)*)"
_END = rb"[ \t\r\n]*+(?:,[ \t\r\n]*+|\Z)"
# Nearly all addresses have one of these forms: name <local@domain> or local@domain, up to a comma or the end.
_regular_address = re.compile(
    rb'(?:"([^"\\\r\n\0]*+)"[ \t\r\n]*+|((?!\.)' + _WORD + b"(?: " + _WORD + rb")*)[ \t\r\n]*+)?"
    b"<" + _ADDR_SPEC + b">" + _END + b"|" + _ADDR_SPEC + _END
).match


def parse_addresses(value: bytes, limit: int) -> list[Address]:
    """Return the addresses of a field body.

    Args:
        value: the field body.
        limit: the maximum number of addresses. A group that it cuts off still ends with `END_OF_GROUP`.
    """
    found: list[Address] = []
    pos = len(value) - len(value.lstrip(b" \t\r\n"))
    size = len(value)
    while pos < size and len(found) < limit:
        match = _regular_address(value, pos)
        if match is not None:
            quoted, words, local, domain, bare, bare_domain = match.groups()
            if local is None:
                found.append(Address(None, None, bare, bare_domain))
            else:
                found.append(Address(quoted or words or None, None, local, domain))
            pos = match.end()
            continue
        pause_point()
        pos = _AddressParser(Cursor(value, pos), found, limit).parse()
    return found


@dataclass(slots=True)
class _AddressParser:
    """Reads one address of any form, and appends it to `found`.

    `name`, `route`, `mailbox` and `host` are the parts that have been read so far. Methods return `MORE`, `END` or
    `BROKEN`, like those of the `Cursor`.
    """

    cursor: Cursor
    found: list[Address]
    limit: int
    name: bytes | None = None
    route: bytes | None = None
    mailbox: bytes | None = None
    host: bytes | None = None

    def parse(self) -> int:
        """Read an address or a group, and the comma after it. Return the position of the next one."""
        cursor = self.cursor
        stopped = cursor.skip_space()
        if stopped != MORE:
            if stopped == BROKEN and self.found:
                # After a comma, a comment that is not closed counts as an address.
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
        """Append the address that was read, with words in place of missing parts."""
        mailbox = MISSING_MAILBOX if self.mailbox is None else self.mailbox
        self.found.append(Address(self.name, self.route, mailbox, self.host or MISSING_DOMAIN))
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
        stopped = self._name_and_angle_address()
        if stopped == BROKEN:
            cursor.pos = start
            stopped, is_complete = self._bare_address()
            if not is_complete and self.name is None and self.host is None:
                self.name, self.mailbox = self.mailbox, None
        self._add()
        return stopped

    def _name_and_angle_address(self) -> int:
        cursor = self.cursor
        words: list[bytes] = []
        if cursor.phrase(words) != MORE or not cursor.at(b"<"):
            return BROKEN
        self.name = b"".join(words) or None
        if self._angle_address() == BROKEN:
            self.host = SYNTAX_ERROR
        return cursor.more_or_end()

    def _angle_address(self) -> int:
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
        if not cursor.at(b">") and self._local_part([]) != MORE:
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
        """Read a local part. Dots may be anywhere in it, because some providers once assigned such addresses."""
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

    def _bare_address(self) -> tuple[int, bool]:
        """Read an address without angle brackets.

        Returns:
            `MORE`, `END` or `BROKEN`, and whether a local part was read.
        """
        cursor = self.cursor
        cursor.last_comment = b""
        is_quoted = cursor.at(b'"')
        local_part: list[bytes] = []
        stopped = self._local_part(local_part)
        is_complete = stopped == MORE
        has_domain = False
        if stopped != END and cursor.at(b"@"):
            has_domain = True
            domain_stopped = self._domain()
            if domain_stopped != MORE:
                stopped = domain_stopped
        if cursor.last_comment:
            self.name = cursor.last_comment
        elif not has_domain:
            # One word is a mailbox. Several words are a display name.
            words: list[bytes] = []
            cursor.phrase(words)
            more_words = b"".join(words)
            if more_words:
                self.name, self.mailbox = b"".join(local_part) + b" " + more_words, None
            elif not is_quoted:
                self.host = b""
            return BROKEN, False
        return stopped, is_complete
