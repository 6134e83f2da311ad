"""Mailbox names: modified UTF-7 or UTF-8 ⇄ `str`, the INBOX rule, and LIST patterns.

Rules
-----
* Of all spellings of a name, modified UTF-7 (RFC 3501 section 5.1.3) permits one; the others are
Malformed, so that
  two names on the wire are two mailboxes.
* Whether a name can be a mailbox's is the store's business.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, b2a_base64

from imapshield.errors import BadCommand

DELIMITER = "/"
INBOX = "INBOX"

_PLAIN = re.compile(rb"[ -%'-~]*")
_SHIFT = re.compile(rb"&([A-Za-z0-9+,]*)-")
_UNPRINTABLE = re.compile(r"[^ -%'-~]+")


def decode_name(octets: bytes, utf8: bool = False) -> str:
    """Return the name that `octets` spell, INBOX folded; Malformed when they spell none.

    Args:
        octets: the mailbox argument. 8-bit octets are UTF-8 with or without `utf8`; no other
        reading makes sense. utf8: whether the client enabled IMAP4rev2 or UTF8=ACCEPT, after which
        ``&`` means itself.
    """
    return fold_inbox(decode_pattern(octets, utf8))


def decode_pattern(octets: bytes, utf8: bool = False) -> str:
    """Like `decode_name` for a LIST pattern or reference, which may be part of a name.

    INBOX is left alone.
    """
    if not utf8 and octets.isascii():
        return _decode_utf7(octets)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadCommand("A mailbox name is not valid UTF-8") from None


def encode_name(name: str, utf8: bool = False) -> bytes:
    """Return `name` in modified UTF-7, or UTF-8 for a client that enabled it.

    `encode.astring` makes it an argument.
    """
    try:
        octets = name.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, from a folder whose name is not UTF-8
        octets = name.encode("utf-8", "replace")
        name = octets.decode("utf-8")
    if utf8 or _PLAIN.fullmatch(octets):
        return octets
    return _encode_utf7(name)


def parent_names(name: str) -> list[str]:
    """Return the names of the mailboxes above `name`, the topmost first."""
    return [name[:i] for i, c in enumerate(name) if c == DELIMITER]


def fold_inbox(name: str) -> str:
    """Return `name` with a first level of INBOX, in any case, as INBOX (RFC 9051 section 5.1)."""
    head, tail = name[:5], name[5:]
    # Without isascii() the dotless ı would be an I.
    if head != INBOX and head.isascii() and head.upper() == INBOX and tail[:1] in ("", DELIMITER):
        return INBOX + tail
    return name


def _decode_utf7(octets: bytes) -> str:
    if _PLAIN.fullmatch(octets):
        return octets.decode("ascii")
    pieces = _SHIFT.split(octets)  # plain, shifted, plain, shifted, … plain
    if not all(map(_PLAIN.fullmatch, pieces[::2])):
        raise BadCommand("A mailbox name is not valid modified UTF-7")
    try:
        name = "".join(
            _decode_shifted(piece) if i % 2 else piece.decode("ascii")
            for i, piece in enumerate(pieces)
        )
    except (Error, UnicodeDecodeError):
        raise BadCommand("A mailbox name is not valid modified UTF-7") from None
    # One law instead of four rules: spare bits, spare shifts and shifted ASCII all come back
    # different.
    if _encode_utf7(name) != octets:
        raise BadCommand("A mailbox name is not in canonical modified UTF-7")
    return name


def _decode_shifted(base64: bytes) -> str:
    if not base64:
        return "&"
    padded = base64.replace(b",", b"/") + b"=" * (-len(base64) % 4)
    return a2b_base64(padded).decode("utf-16-be")


def _encode_utf7(name: str) -> bytes:
    return _UNPRINTABLE.sub(_shift, name).encode("ascii")


def _shift(found: re.Match[str]) -> str:
    # "&" is a shift of its own, "&-", wherever it stands among characters that need base64.
    return "&-".join(_base64(piece) for piece in found[0].split("&"))


def _base64(piece: str) -> str:
    if not piece:
        return ""
    base64 = b2a_base64(piece.encode("utf-16-be"), newline=False).rstrip(b"=")
    return "&" + base64.replace(b"/", b",").decode("ascii") + "-"


class ListPattern:
    """A LIST pattern: ``*`` is anything, ``%`` anything but the delimiter (RFC 9051, 6.3.9).

    Every set of positions in the pattern that the name read so far can have led to is one integer,
    so a character of the name costs a few operations whatever the wildcards: nothing is ever tried
    again (CVE-2021-40110).
    """

    __slots__ = ("_accept", "_chars", "_exact", "_star", "_start", "_wild")

    def __init__(self, pattern: str) -> None:
        # Neighbouring wildcards are as one of them, the stronger.
        pattern = re.sub(r"[*%]{2,}", lambda found: "*" if "*" in found[0] else "%", pattern)
        self._exact = None if "*" in pattern or "%" in pattern else fold_inbox(pattern)
        self._star = self._wild = 0
        self._chars: dict[str, int] = {}
        for i, char in enumerate(pattern):
            if char in "*%":
                self._wild |= 1 << i
                self._star |= (char == "*") << i
            else:
                self._chars[char] = self._chars.get(char, 0) | 1 << i
        self._start = 1 | (1 & self._wild) << 1
        self._accept = 1 << len(pattern)

    def matches(self, name: str) -> bool:
        """Whether `name` matches; INBOX in `name` matches in any case."""
        if self._exact is not None:
            return name == self._exact
        chars, wild, at = self._chars, self._wild, self._start
        inbox = len(INBOX) if name[:6] in (INBOX, INBOX + DELIMITER) else 0
        for i, char in enumerate(name):
            step = chars.get(char, 0)
            if i < inbox:
                step |= chars.get(char.lower(), 0)
            stay = self._star if char == DELIMITER else wild
            at = (at & step) << 1 | at & stay
            if not at:
                return False
            at |= (at & wild) << 1
        return bool(at & self._accept)
