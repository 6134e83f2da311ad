"""Turns a `RawCommand` back into bytes for a backend, and refuses what a backend could read as two commands."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.framing import RawCommand

PIPELINED = frozenset(
    b"NOOP CHECK FETCH SEARCH SORT THREAD STORE COPY STATUS LIST LSUB".split()
    + b"NAMESPACE GETQUOTA GETQUOTAROOT GETMETADATA".split()
)
"""Commands that are sent to the backend before the one before them is answered, if that is one of them, too.

The others wait: those that change what later commands mean (SELECT, ENABLE, MOVE), after which a line may not be a
command (IDLE, LOGOUT), and all that the shield does not know.
"""

_TAG_OF_NO_ANSWER = re.compile(rb"[\[\]~]")
"""Dovecot and Courier answer tags with these bytes without the tag. So nobody would know when the command has ended."""

_LINE_BREAK = re.compile(rb"[\r\n\0]")
_OUTSIDE_QUOTES = re.compile(rb'[^"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*"[^"]*+)*')
_LIKE_A_LITERAL = re.compile(rb"\{[^{}\"]*\}\Z")


class Piece(NamedTuple):
    """A part of a command.

    Attributes:
        data: bytes of a line, up to the announcement of the literal or with the final CRLF.
        literal: the literal that follows, or None.
    """

    data: bytes
    literal: LiteralData | None


def pieces(command: RawCommand) -> list[Piece]:
    """Return the parts of a command.

    Raises:
        BadCommand: it has no tag or no name, or other servers could see other boundaries in it than the framer does:
            the rest of the line or a literal would then run as commands that nobody has counted. Or its tag is one
            that servers do not repeat.
    """
    if command.rejection is not None:
        raise command.rejection
    if command.tag is None or not command.name:
        raise BadCommand("Expected a command name after the tag")
    if _TAG_OF_NO_ANSWER.search(command.tag):
        raise BadCommand("A tag may not have brackets or a tilde")
    return list(_pieces(command.tag + b" ", command.parts))


def _pieces(data: bytes, parts: tuple[bytes | LiteralData, ...]) -> Iterator[Piece]:
    last = len(parts) - 1
    for position in range(0, len(parts), 2):
        text = parts[position]
        assert isinstance(text, bytes)
        if _LINE_BREAK.search(text):
            raise BadCommand("CR, LF and NUL are permitted in literals only")
        if position == last:
            if text.endswith(b"}") and _LIKE_A_LITERAL.search(text):
                raise BadCommand("Invalid literal")
            yield Piece(data + text + b"\r\n", None)
        else:
            if b'"' in text and _OUTSIDE_QUOTES.fullmatch(text) is None:
                raise BadCommand("Unterminated quoted string")
            literal = parts[position + 1]
            assert not isinstance(literal, bytes)
            yield Piece(data + text, literal)
        data = b""


def pipelined_line(command: RawCommand) -> bytes | None:
    """Return the line of a command that need not wait for the one before it; None of any other.

    It has no literal, for which the backend would be asked, and its quoted strings are complete, so no server takes the
    next line for a part of it.
    """
    if command.name not in PIPELINED or len(command.parts) != 1:
        return None
    (text,) = command.parts
    assert isinstance(text, bytes)
    if b'"' in text and _OUTSIDE_QUOTES.fullmatch(text) is None:
        return None
    try:
        return pieces(command)[0].data
    except BadCommand:
        return None


def announcement(literal: LiteralData) -> bytes:
    """Return the announcement of a literal for which the backend is asked (RFC 9051 section 4.3, RFC 3516)."""
    return b"%b{%d}\r\n" % (b"~" if literal.binary else b"", literal.size)
