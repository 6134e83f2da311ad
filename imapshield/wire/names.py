"""Mailbox names: modified UTF-7 and UTF-8, the separator on the wire, the INBOX rule, parents, and LIST patterns.

Rules
-----
* Modified UTF-7 (RFC 3501 section 5.1.3) permits one spelling of each name. All others are refused, so that two names
  on the wire are always two mailboxes.
* Inside the server the separator is always ``/``. Only `NameFormat` knows another one.
* The store, not this module, decides which names it can use for mailboxes.
"""

import re
from binascii import Error, a2b_base64, b2a_base64
from typing import NamedTuple

from imapshield.errors import BadCommand

DELIMITER = "/"
INBOX = "INBOX"

_PLAIN = re.compile(rb"[ -%'-~]*")
_SHIFT = re.compile(rb"&([A-Za-z0-9+,]*)-")
_NEEDS_SHIFT = re.compile(r"[^ -%'-~]+")


class NameFormat(NamedTuple):
    """How the mailbox names of a client are written on the wire.

    Args:
        utf8: whether the client enabled IMAP4rev2 or UTF8=ACCEPT: names are UTF-8, and ``&`` has no special meaning.
        separator: the character between levels. It and ``/`` are exchanged on the wire, so that every name has a
            spelling: a level that contains the separator has a ``/`` in its place there.
    """

    utf8: bool = False
    separator: str = DELIMITER

    def decode(self, octets: bytes) -> str:
        """Decode a mailbox name, with INBOX in upper case. 8-bit bytes are read as UTF-8 with or without `utf8`.

        Raises:
            BadCommand: it is neither modified UTF-7 nor UTF-8.
        """
        return fold_inbox(self.decode_pattern(octets))

    def decode_pattern(self, octets: bytes) -> str:
        """Decode a LIST pattern or reference like `decode`, but do not change INBOX: it may be part of a name."""
        return self.exchange(decode_pattern(octets, self.utf8))

    def encode(self, name: str) -> bytes:
        """Return `name` in modified UTF-7 or UTF-8; `strings.mailbox` makes an argument of it."""
        return encode_name(self.exchange(name), self.utf8)

    def exchange(self, name: str) -> str:
        """Return `name` with ``/`` and the separator exchanged, which converts it in either direction."""
        if self.separator == DELIMITER:
            return name
        return name.translate({ord(DELIMITER): self.separator, ord(self.separator): DELIMITER})


MODIFIED_UTF7 = NameFormat()
"""The names of a client that has enabled nothing, with ``/`` as the separator."""


def decode_pattern(octets: bytes, utf8: bool = False) -> str:
    """Decode modified UTF-7 or UTF-8 (see `NameFormat.decode`); INBOX and separators stay as they are."""
    if not utf8 and octets.isascii():
        return _decode_utf7(octets)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadCommand("Expected a mailbox name in valid UTF-8") from None


def encode_name(name: str, utf8: bool = False) -> bytes:
    """Return `name` in modified UTF-7, or in UTF-8 if `utf8`, with separators as they are."""
    try:
        octets = name.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, from a directory whose name is not UTF-8
        octets = name.encode("utf-8", "replace")
        name = octets.decode("utf-8")
    if utf8 or _PLAIN.fullmatch(octets):
        return octets
    return _encode_utf7(name)


def parent_names(name: str) -> list[str]:
    """Return the names of the parents of `name`, the topmost first."""
    return [name[:i] for i, c in enumerate(name) if c == DELIMITER]


def fold_inbox(name: str) -> str:
    """Return `name` with INBOX in upper case if that is its first level (RFC 9051 section 5.1)."""
    head, tail = name[:5], name[5:]
    # Without isascii() the dotless "ı" would match: its upper case is "I".
    if head != INBOX and head.isascii() and head.upper() == INBOX and tail[:1] in ("", DELIMITER):
        return INBOX + tail
    return name


def _decode_utf7(octets: bytes) -> str:
    if _PLAIN.fullmatch(octets):
        return octets.decode("ascii")
    runs = _SHIFT.split(octets)  # plain, shifted, plain, shifted, … plain
    try:
        name = "".join(
            _decode_shifted(run) if i % 2 else run.decode("ascii") for i, run in enumerate(runs)
        )
    except (Error, UnicodeDecodeError):
        raise BadCommand("Expected a mailbox name in valid modified UTF-7") from None
    # Encoding again finds everything else that is wrong: unused bits, needless shifts, shifted ASCII, and
    # characters that need a shift.
    if _encode_utf7(name) != octets:
        raise BadCommand("Expected a mailbox name in canonical modified UTF-7")
    return name


def _decode_shifted(base64: bytes) -> str:
    if not base64:
        return "&"
    padded = base64.replace(b",", b"/") + b"=" * (-len(base64) % 4)
    return a2b_base64(padded).decode("utf-16-be")


def _encode_utf7(name: str) -> bytes:
    return _NEEDS_SHIFT.sub(_shift, name).encode("ascii")


def _shift(found: re.Match[str]) -> str:
    # "&" is always the separate shift "&-", even between characters that need base64.
    return "&-".join(_base64(run) for run in found[0].split("&"))


def _base64(text: str) -> str:
    if not text:
        return ""
    base64 = b2a_base64(text.encode("utf-16-be"), newline=False).rstrip(b"=")
    return "&" + base64.replace(b"/", b",").decode("ascii") + "-"


class ListPattern:
    """A LIST pattern: ``*`` matches anything, ``%`` anything but the delimiter (RFC 9051 section 6.3.9).

    The matcher simulates a nondeterministic automaton whose states are positions in the pattern. The set of current
    states is one integer with a bit for each position, so a character of the name costs a few operations whatever the
    wildcards are, and nothing backtracks (CVE-2021-40110).
    """

    __slots__ = ("_accept", "_exact", "_positions_of_char", "_stars", "_start", "_wildcards")

    def __init__(self, pattern: str) -> None:
        # Adjacent wildcards match what the stronger of them matches alone.
        pattern = re.sub(r"[*%]{2,}", lambda found: "*" if "*" in found[0] else "%", pattern)
        self._exact = None if "*" in pattern or "%" in pattern else fold_inbox(pattern)
        self._stars = self._wildcards = 0
        self._positions_of_char: dict[str, int] = {}
        for i, char in enumerate(pattern):
            if char in "*%":
                self._wildcards |= 1 << i
                self._stars |= (char == "*") << i
            else:
                self._positions_of_char[char] = self._positions_of_char.get(char, 0) | 1 << i
        self._start = 1 | (1 & self._wildcards) << 1
        self._accept = 1 << len(pattern)

    def matches(self, name: str) -> bool:
        """Whether `name` matches the pattern; INBOX in `name` matches in any case."""
        if self._exact is not None:
            return name == self._exact
        positions_of_char, wildcards, states = self._positions_of_char, self._wildcards, self._start
        inbox_length = len(INBOX) if name[:6] in (INBOX, INBOX + DELIMITER) else 0
        for i, char in enumerate(name):
            advancing = positions_of_char.get(char, 0)
            if i < inbox_length:
                advancing |= positions_of_char.get(char.lower(), 0)
            staying = self._stars if char == DELIMITER else wildcards
            states = (states & advancing) << 1 | states & staying
            if not states:
                return False
            states |= (states & wildcards) << 1
        return bool(states & self._accept)
