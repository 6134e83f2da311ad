"""Reads the tokens of header field bodies, well-formed or not (RFC 5322 section 3.2, RFC 2045 section 5.1).

Rules
-----
* `Cursor` reads one field body. Its methods append the text that they read to a list, and return where they stopped:
  `MORE` before another byte, `END` at the end of the field body, `BROKEN` at text that has another syntax.
* Every byte is examined a few times at most, and no input raises an exception.
"""

import re
from typing import Final

from imapshield.message.pauses import pause_point

_WORDS_PER_PAUSE: Final = 256

BROKEN: Final = -1
END: Final = 0
MORE: Final = 1

# U+FFFD in UTF-8. A literal cannot contain NUL (RFC 9051 section 9, CHAR8). NUL is not removed, because then two words
# could become one.
NUL_REPLACEMENT: Final = b"\xef\xbf\xbd"

# 8-bit bytes belong to words: raw UTF-8 names are common, and RFC 6532 allows them.
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
    """A position in a field body, with a method for each kind of token.

    Args:
        data: the field body.
        pos: where to start.

    Attributes:
        last_comment: the text of the comment that was skipped last, or b"". Old mailers put the display name of an
            address in a comment.
    """

    __slots__ = ("data", "end", "last_comment", "pos")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data)
        self.last_comment = b""

    def at(self, characters: bytes) -> bool:
        """Return whether the next byte is one of `characters`; False at the end."""
        return self.pos < self.end and self.data[self.pos] in characters

    def more_or_end(self) -> int:
        """Return `MORE` or `END`."""
        return MORE if self.pos < self.end else END

    def skip_space(self) -> int:
        """Skip white space, folds and comments."""
        while True:
            match = _space(self.data, self.pos)
            assert match is not None
            self.pos = match.end()
            if not self.at(b"("):
                return self.more_or_end()
            self.pos += 1
            text: list[bytes] = []
            stopped = self._delimited(text, is_comment=True)
            self.last_comment = b"".join(text)
            if stopped == BROKEN:
                return BROKEN

    def _delimited(self, text: list[bytes], *, is_comment: bool) -> int:
        """Read up to the closing quote or parenthesis. Folds and backslashes are removed.

        If the closing character is missing, the text after the last fold or backslash is dropped, as in Dovecot.
        """
        data, end = self.data, self.end
        plain_text = _in_comment if is_comment else _in_quotes
        level = 1
        kept = len(text)
        while True:
            match = plain_text(data, self.pos)
            assert match is not None
            text.append(match[0])
            self.pos = match.end() + 1
            if match.end() >= end:
                break
            special = data[match.end()]
            if special == 0x5C:
                if self.pos >= end:
                    break
                if data[self.pos] in b"\r\n\0":
                    text.append(b"\\")
                else:
                    kept = len(text)
                    text.append(data[self.pos : self.pos + 1])
                    self.pos += 1
            elif special == 0x0A:
                text[-1] = text[-1].removesuffix(b"\r")
                kept = len(text)
            elif special == 0:
                text.append(NUL_REPLACEMENT)
                kept = len(text)
            elif special == 0x28:
                level += 1
                text.append(b"(")
            else:
                level -= 1
                if level == 0:
                    return self.more_or_end()
                text.append(b")")
        del text[kept:]
        self.pos = end
        return BROKEN

    def quoted(self, text: list[bytes]) -> int:
        """Read a quoted string and the space after it. The cursor is at the opening quote."""
        self.pos += 1
        if self._delimited(text, is_comment=False) == BROKEN:
            return BROKEN
        return self.skip_space()

    def _take(self, match: re.Match[bytes] | None, text: list[bytes]) -> int:
        if match is None:
            return BROKEN
        self.pos = match.end()
        text.append(match[0])
        return self.skip_space() if self.pos < self.end else END

    def atom(self, text: list[bytes]) -> int:
        """Read an atom and the space after it; `BROKEN` if the next byte does not begin an atom."""
        return self._take(_atom(self.data, self.pos), text)

    def token(self, text: list[bytes]) -> int:
        """Read a MIME token, which may be empty, and the space after it."""
        return self._take(_token(self.data, self.pos), text)

    def encoded_value(self, text: list[bytes]) -> int:
        """Read a parameter value that is an encoded word (RFC 2047): many mailers write one in place of a token."""
        self._take(_to_space(self.data, self.pos), text)
        return self.more_or_end()

    def dot_atom(self, text: list[bytes]) -> int:
        """Read atoms that are joined by dots. Space around the dots is allowed, as in RFC 822."""
        while True:
            stopped = self.atom(text)
            if stopped != MORE or self.data[self.pos] != 0x2E:
                return stopped
            self.pos += 1
            text.append(b".")
            if self.skip_space() != MORE:
                return BROKEN

    def phrase(self, text: list[bytes]) -> int:
        """Read words, and append them with one space between them, up to a byte that ends the phrase."""
        if self.pos >= self.end:
            return END
        if self.data[self.pos] == 0x2E:
            return BROKEN
        while True:
            is_quoted = self.data[self.pos] == 0x22
            stopped = (
                self.quoted(text) if is_quoted else self._take(_words(self.data, self.pos), text)
            )
            if stopped != MORE:
                return stopped
            if self.data[self.pos] not in _is_atext and not self.at(b'".'):
                return self.skip_space()
            text.append(b" ")
            if len(text) % _WORDS_PER_PAUSE == 0:
                pause_point()

    def domain(self, text: list[bytes]) -> int:
        """Read a domain or domain literal. The cursor is at the ``@`` before it."""
        self.pos += 1
        if self.skip_space() != MORE:
            return BROKEN
        return self._domain_literal(text) if self.at(b"[") else self.dot_atom(text)

    def _domain_literal(self, text: list[bytes]) -> int:
        start = self.pos
        self.pos += 1
        while self.pos < self.end:
            byte = self.data[self.pos]
            self.pos += 1
            if byte == 0x5B:
                return BROKEN
            if byte == 0x5D:
                literal = self.data[start : self.pos].replace(b"\r\n", b"").replace(b"\n", b"")
                text.append(literal.replace(b"\0", NUL_REPLACEMENT))
                return self.skip_space()
            if byte == 0x5C and self.pos < self.end and self.data[self.pos] not in b"\r\n\0":
                self.pos += 1
        return BROKEN
