"""Checks flags and returns them in their canonical spelling (RFC 9051 section 2.3.2).

System flags have one spelling; keywords keep the spelling of the client, and are compared without case.
"""

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
"""Bytes of the longest keyword. Those in use have fewer than 30, and every client of the mailbox receives each one."""

_SYSTEM_FLAGS_BY_LOWER = {flag.lower(): flag for flag in (*SYSTEM_FLAGS, RECENT)}
_SYSTEM_FLAG_ORDER = {flag: i for i, flag in enumerate(SYSTEM_FLAGS)}


def canonical_flag(flag: bytes) -> bytes:
    r"""Return `flag` in its canonical spelling.

    ``\Recent`` is accepted, because each command treats it in its own way. Every other ``\Flag`` that is not a system
    flag is refused, because RFC 9051 does not permit a server to send it back.

    Raises:
        BadCommand: it is not a flag, or too long.
    """
    if flag[:1] == b"\\":
        system = _SYSTEM_FLAGS_BY_LOWER.get(flag.lower())
        if system is None:
            raise BadCommand("Unknown system flag: keywords do not begin with a backslash")
        return system
    if len(flag) > MAX_KEYWORD_LENGTH:
        raise BadCommand(f"A keyword has at most {MAX_KEYWORD_LENGTH} characters")
    if abnf.ATOM.fullmatch(flag) is None:
        raise BadCommand("Expected a keyword without spaces and special characters")
    return flag


def flag_list(flags: Iterable[bytes]) -> bytes:
    r"""Join canonical flags for sending: system flags in their order, then sorted keywords, each flag once.

    >>> flag_list([b"$Junk", b"\\Seen", b"$junk", b"\\Answered"])
    b'\\Answered \\Seen $Junk'
    """
    by_lower: dict[bytes, bytes] = {}
    for flag in flags:
        by_lower.setdefault(flag.lower(), flag)
    ordered = sorted(by_lower.values(), key=_order)
    return b" ".join(ordered)


def _order(flag: bytes) -> tuple[int, bytes]:
    return _SYSTEM_FLAG_ORDER.get(flag, len(_SYSTEM_FLAG_ORDER)), flag.lower()
