"""The words of header field bodies (RFC 5322 section 3.2, RFC 2045 section 5.1), broken or not.

`Cursor` walks over one field body. Its methods answer how they stopped: `MORE` stands before
another octet, `END` at the end of the value, `BROKEN` at something that cannot be read. No octet is
looked at more than a few times, whatever the value holds, and nothing here raises.
"""

from __future__ import annotations

import re
from typing import Final

BROKEN: Final = -1
END: Final = 0
MORE: Final = 1

# A literal may not hold NUL (RFC 9051 section 9, CHAR8), and dropping one could join two words into
# a third.
NUL_REPLACEMENT: Final = b"\xef\xbf\xbd"

# 8-bit octets are words: raw UTF-8 names are everywhere, and RFC 6532 allows them.
ATEXT: Final = rb"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff"
TOKEN: Final = rb"A-Za-z0-9!#$%&'*+\-^_`{|}~.\x80-\xff"

_atom = re.compile(b"[" + ATEXT + b"]++").match
_words = re.compile(b"(?:[." + ATEXT + b"]++(?: (?=[." + ATEXT + b"]))?)*").match
_token = re.compile(b"[" + TOKEN + b"]*+").match
_space = re.compile(rb"[ \t\r\n]*+").match
_to_space = re.compile(rb"[^; \t\r\n]*+").match
_is_atext = frozenset(i for i in range(256) if _atom(bytes([i])))
_in_quotes = re.compile(rb'[^"\\\n\0]*+').match
_in_comment = re.compile(rb"[^()\\\n\0]*+").match


class Cursor:
    """A place in a field body.

    `comment` is the text of the comment passed last, b"" if there was none: old mailers put the
    name of an address there.
    """

    __slots__ = ("comment", "data", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data)
        self.comment = b""

    def at(self, octets: bytes) -> bool:
        """Whether the next octet is one of `octets`; never at the end."""
        return self.pos < self.end and self.data[self.pos] in octets

    def more(self) -> int:
        """Return `MORE` or `END`."""
        return MORE if self.pos < self.end else END

    def skip(self) -> int:
        """Pass white space, folds and comments."""
        while True:
            match = _space(self.data, self.pos)
            assert match is not None
            self.pos = match.end()
            if not self.at(b"("):
                return self.more()
            self.pos += 1
            text: list[bytes] = []
            stopped = self._delimited(text, comment=True)
            self.comment = b"".join(text)
            if stopped == BROKEN:
                return BROKEN

    def _delimited(self, text: list[bytes], *, comment: bool) -> int:
        """Read up to the closing quote or parenthesis, without folds and backslashes, into `text`.

        If it never closes, what follows the last fold or backslash is dropped, as Dovecot does.
        """
        data, end = self.data, self.end
        run = _in_comment if comment else _in_quotes
        level = 1
        kept = len(text)
        while True:
            match = run(data, self.pos)
            assert match is not None
            text.append(match[0])
            self.pos = match.end() + 1
            if match.end() >= end:
                break
            octet = data[match.end()]
            if octet == 0x5C:
                if self.pos >= end:
                    break
                if data[self.pos] in b"\r\n\0":
                    text.append(b"\\")
                else:
                    kept = len(text)
                    text.append(data[self.pos : self.pos + 1])
                    self.pos += 1
            elif octet == 0x0A:
                if text[-1].endswith(b"\r"):
                    text[-1] = text[-1][:-1]
                kept = len(text)
            elif octet == 0:
                text.append(NUL_REPLACEMENT)
                kept = len(text)
            elif octet == 0x28:
                level += 1
                text.append(b"(")
            else:
                level -= 1
                if level == 0:
                    return self.more()
                text.append(b")")
        del text[kept:]
        self.pos = end
        return BROKEN

    def quoted(self, text: list[bytes]) -> int:
        """Read a quoted string, whose opening quote is next, and the space after it."""
        self.pos += 1
        if self._delimited(text, comment=False) == BROKEN:
            return BROKEN
        return self.skip()

    def _run(self, match: re.Match[bytes] | None, text: list[bytes]) -> int:
        if match is None:
            return BROKEN
        self.pos = match.end()
        text.append(match[0])
        return self.skip() if self.pos < self.end else END

    def atom(self, text: list[bytes]) -> int:
        """Read an atom and the space after it; `BROKEN` when there is none."""
        return self._run(_atom(self.data, self.pos), text)

    def token(self, text: list[bytes]) -> int:
        """Read a MIME token, which may be empty, and the space after it."""
        return self._run(_token(self.data, self.pos), text)

    def encoded_value(self, text: list[bytes]) -> int:
        """Read an encoded word standing where a token belongs: many mailers write so."""
        self._run(_to_space(self.data, self.pos), text)
        return self.more()

    def dot_atom(self, text: list[bytes]) -> int:
        """Read atoms joined by dots, with space around the dots as in RFC 822."""
        while True:
            stopped = self.atom(text)
            if stopped != MORE or self.data[self.pos] != 0x2E:
                return stopped
            self.pos += 1
            text.append(b".")
            if self.skip() != MORE:
                return BROKEN

    def phrase(self, text: list[bytes]) -> int:
        """Read words, one space between them; what ends the phrase is next."""
        if self.pos >= self.end:
            return END
        if self.data[self.pos] == 0x2E:
            return BROKEN
        while True:
            quoted = self.data[self.pos] == 0x22
            stopped = self.quoted(text) if quoted else self._run(_words(self.data, self.pos), text)
            if stopped != MORE:
                return stopped
            if self.data[self.pos] not in _is_atext and not self.at(b'".'):
                return self.skip()
            text.append(b" ")

    def domain(self, text: list[bytes]) -> int:
        """Read a domain or domain literal; the ``@`` before it is next."""
        self.pos += 1
        stopped = self.skip()
        if stopped != MORE:
            return BROKEN
        if self.data[self.pos] != 0x5B:
            return self.dot_atom(text)
        return self._domain_literal(text)

    def _domain_literal(self, text: list[bytes]) -> int:
        start = self.pos
        self.pos += 1
        while self.pos < self.end:
            octet = self.data[self.pos]
            self.pos += 1
            if octet == 0x5B:
                return BROKEN
            if octet == 0x5D:
                literal = self.data[start : self.pos]
                literal = literal.replace(b"\r\n", b"").replace(b"\n", b"")
                text.append(literal.replace(b"\0", NUL_REPLACEMENT))
                return self.skip()
            if octet == 0x5C and self.pos < self.end and self.data[self.pos] not in b"\r\n\0":
                self.pos += 1
        return BROKEN
