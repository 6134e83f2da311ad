"""Encodes bytes of a message as IMAP strings: quoted if possible, otherwise as literals (RFC 9051 section 9)."""

import re

from imapshield.message.lexer import NUL_REPLACEMENT

_plain = re.compile(rb'[^"\\\r\n\0\x80-\xff]*+').fullmatch
_unquotable = re.compile(rb"[\r\n\0\x80-\xff]").search
_specials = re.compile(rb'["\\]')
_fold = re.compile(rb"[\r\n](?=[ \t\r\n]|\Z)")
_line_end = re.compile(rb"[\r\n]")
_displayable = re.compile(rb'[^"\\\r\n\t \0\x80-\xff]++(?: [^"\\\r\n\t \0\x80-\xff]++)*').fullmatch
_blanks = re.compile(rb"[ \t\r\n]++")


def literal(value: bytes) -> bytes:
    """Return `value` as a literal. NUL is not allowed in literals, and becomes U+FFFD."""
    if b"\0" in value:
        value = value.replace(b"\0", NUL_REPLACEMENT)
    return b"{%d}\r\n%b" % (len(value), value)


def string(value: bytes) -> bytes:
    """Return `value` as a quoted string, or as a literal if it cannot be quoted or needs more than four escapes."""
    if _plain(value):
        return b'"%b"' % value
    if _unquotable(value) or value.count(b'"') + value.count(b"\\") > 4:
        return literal(value)
    return b'"%b"' % _specials.sub(rb"\\\g<0>", value)


def nstring(value: bytes | None) -> bytes:
    """Return `string` of `value`, or NIL for None."""
    return b"NIL" if value is None else string(value)


def unfolded_nstring(value: bytes | None) -> bytes:
    """Return `nstring` of an unfolded field body. White space after a fold stays; another line end becomes a space."""
    if value is None:
        return b"NIL"
    if _plain(value):
        return b'"%b"' % value
    return string(_line_end.sub(b" ", _fold.sub(b"", value)))


def collapse_space(value: bytes) -> bytes:
    """Return a subject or name as clients display it: runs of white space are one space, and the ends are stripped."""
    return _blanks.sub(b" ", value).strip(b" ")


def display_string(value: bytes) -> bytes:
    """Return a subject or name as an IMAP string, after `collapse_space`.

    It is quoted if nothing had to be changed, and otherwise a literal. Dovecot does the same, so all clients are used
    to this form.
    """
    if _displayable(value):
        return b'"%b"' % value
    if not value:
        return b'""'
    displayed = collapse_space(value)
    return literal(displayed) if displayed else b'""'
