"""Octets into IMAP strings: quoted, or a literal where they must be (RFC 9051 section 9)."""

from __future__ import annotations

import re

from imapshield.message.lexer import NUL_REPLACEMENT

_plain = re.compile(rb'[^"\\\r\n\0\x80-\xff]*+').fullmatch
_unquotable = re.compile(rb"[\r\n\0\x80-\xff]").search
_specials = re.compile(rb'["\\]')
_fold = re.compile(rb"[\r\n](?=[ \t\r\n]|\Z)")
_line_end = re.compile(rb"[\r\n]")
_for_humans = re.compile(rb'[^"\\\r\n\t \0\x80-\xff]++(?: [^"\\\r\n\t \0\x80-\xff]++)*').fullmatch
_blanks = re.compile(rb"[ \t\r\n]++")


def literal(value: bytes) -> bytes:
    """``{n}`` CRLF and the octets. NUL is legal in no literal and becomes U+FFFD."""
    if b"\0" in value:
        value = value.replace(b"\0", NUL_REPLACEMENT)
    return b"{%d}\r\n%b" % (len(value), value)


def string(value: bytes) -> bytes:
    """Return `value` quoted, or as a literal if it may not be quoted or has much to escape."""
    if _plain(value):
        return b'"%b"' % value
    if _unquotable(value) or value.count(b'"') + value.count(b"\\") > 4:
        return literal(value)
    return b'"%b"' % _specials.sub(rb"\\\g<0>", value)


def nstring(value: bytes | None) -> bytes:
    """Return `string` of a value, or NIL."""
    return b"NIL" if value is None else string(value)


def unfolded_nstring(value: bytes | None) -> bytes:
    """Return `nstring` of a body in one line: of folds the blanks stay, stray line ends are one."""
    if value is None:
        return b"NIL"
    if b"\n" in value or b"\r" in value:
        value = _line_end.sub(b" ", _fold.sub(b"", value))
    return string(value)


def collapse_space(value: bytes) -> bytes:
    """Return a subject or name as it is shown: white space becomes one space, none stays at either end."""
    return _blanks.sub(b" ", value).strip(b" ")


def display_string(value: bytes) -> bytes:
    """Return `tidy` of a subject or name.

    It is quoted only when nothing had to be changed, else it is a literal: Dovecot does so, and
    clients have read it that way for twenty years.
    """
    if _for_humans(value):
        return b'"%b"' % value
    if not value:
        return b'""'
    shown = collapse_space(value)
    return literal(shown) if shown else b'""'
