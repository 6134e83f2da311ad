"""Flags: bytes as clients write them → canonical bytes (RFC 9051 section 2.3.2).

System flags have one spelling here; keywords keep the client's, and are compared without case.
"""

from __future__ import annotations

from collections.abc import Iterable

from imapshield.errors import BadCommand
from imapshield.wire import abnf

ANSWERED = b"\\Answered"
FLAGGED = b"\\Flagged"
DELETED = b"\\Deleted"
SEEN = b"\\Seen"
DRAFT = b"\\Draft"
RECENT = b"\\Recent"

SYSTEM_FLAGS = (ANSWERED, FLAGGED, DELETED, SEEN, DRAFT)

MAX_KEYWORD_LENGTH = 128
"""The longest keyword: those in use have under 30, and each one is told to every client of the
mailbox."""

_SYSTEM = {flag.lower(): flag for flag in (*SYSTEM_FLAGS, RECENT)}
_RANK = {flag: i for i, flag in enumerate(SYSTEM_FLAGS)}


def canonical_flag(flag: bytes) -> bytes:
    r"""Return a flag in the spelling used everywhere else; Malformed if it cannot be one.

    ``\Recent`` passes: what it means where is the command's business. Any other unknown ``\Flag``
    is refused, as RFC 9051 lets no server send one back.
    """
    if flag[:1] == b"\\":
        system = _SYSTEM.get(flag.lower())
        if system is None:
            raise BadCommand("Unknown system flag")
        return system
    if len(flag) > MAX_KEYWORD_LENGTH:
        raise BadCommand("This keyword is too long")
    if abnf.ATOM.fullmatch(flag) is None:
        raise BadCommand("A keyword must be an atom")
    return flag


def flag_list(flags: Iterable[bytes]) -> bytes:
    r"""Join canonical flags for sending: system flags in their order, then keywords; none twice.

    >>> flag_list([b"$Junk", b"\\Seen", b"$junk", b"\\Answered"])
    b'\\Answered \\Seen $Junk'
    """
    once: dict[bytes, bytes] = {}
    for flag in flags:
        once.setdefault(flag.lower(), flag)
    ordered = sorted(once.values(), key=_order)
    return b" ".join(ordered)


def _order(flag: bytes) -> tuple[int, bytes]:
    return _RANK.get(flag, len(_RANK)), flag.lower()
