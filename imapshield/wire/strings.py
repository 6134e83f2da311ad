"""Encodes strings: as an atom, quoted or as a literal, whichever the value permits (RFC 9051 section 4.3)."""

import re
from collections.abc import Iterable

from imapshield.wire import abnf
from imapshield.wire.names import MODIFIED_UTF7, NameFormat

NIL = b"NIL"

MAX_QUOTED_SIZE = 1000
"""The size in bytes of the longest quoted string.

Longer strings are sent as literals, because clients read lines into buffers of limited size. The size of a literal is
known before its content.
"""

_NOT_AS_ATOM = re.compile(rb"[\[\]]|\A[0-9]+\Z")
_UNQUOTABLE = bytes(range(128, 256)) + b"\r\n\0"
_UNQUOTABLE_UTF8 = b"\r\n\0"


def quoted(value: bytes) -> bytes:
    """Return `value` in quotes. It must not contain CR, LF or NUL; `string` checks that."""
    if b"\\" in value or b'"' in value:
        value = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % value


def literal(value: bytes, *, binary: bool = False) -> bytes:
    """Return `value` as a literal, or as a literal8 if it contains NUL and `binary` permits that (RFC 3516).

    Without `binary` NUL is illegal and becomes 0x80, as in other servers, so that sizes and offsets stay right.
    """
    if b"\0" in value:
        if binary:
            return b"~{%d}\r\n%b" % (len(value), value)
        value = value.replace(b"\0", b"\x80")
    return b"{%d}\r\n%b" % (len(value), value)


def literal_head(size: int, *, binary: bool = False) -> bytes:
    """Return the announcement of a literal of `size` bytes, which the caller sends after it."""
    return b"~{%d}\r\n" % size if binary else b"{%d}\r\n" % size


def string(value: bytes, *, utf8: bool = False) -> bytes:
    """Return `value` as a string: quoted where that is legal and short, else as a literal.

    `utf8` says whether the client enabled IMAP4rev2 or UTF8=ACCEPT, and so accepts UTF-8 in quotes.
    """
    if len(value) > MAX_QUOTED_SIZE:
        return literal(value)
    if len(value.translate(None, _UNQUOTABLE_UTF8 if utf8 else _UNQUOTABLE)) < len(value):
        return literal(value)
    if utf8 and not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            return literal(value)
    return quoted(value)


def nstring(value: bytes | None, *, utf8: bool = False, binary: bool = False) -> bytes:
    """Return NIL for None, else a string; a literal8 if `value` contains NUL and `binary` permits that."""
    if value is None:
        return NIL
    if binary and b"\0" in value:
        return literal(value, binary=True)
    return string(value, utf8=utf8)


def astring(value: bytes, *, utf8: bool = False) -> bytes:
    """Return `value` as an atom if no client can misread it, else as a string.

    The atom NIL would be read as "no value". npm's imap 0.8 ends an atom at a bracket, and reads the mailbox name 012
    as the number 12.
    """
    if abnf.ATOM.fullmatch(value) and not _NOT_AS_ATOM.search(value) and value.upper() != NIL:
        return value
    return string(value, utf8=utf8)


def mailbox(name: str, *, names: NameFormat = MODIFIED_UTF7) -> bytes:
    """Return a mailbox name as an argument, written as the client expects it."""
    return astring(names.encode(name), utf8=names.utf8)


def parenthesised(items: Iterable[bytes]) -> bytes:
    """Return ``(a b c)``; the items are ready to send."""
    return b"(%b)" % b" ".join(items)
