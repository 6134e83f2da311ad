"""Maildir file names ⇄ base name, flags and sizes. Pure.

``1700000000.M123456P42Q7R9f3a.host,S=2048,W=2100:2,FSab``: the part before the colon is the *base name*. It never
changes and identifies the message. After ``:2,`` follow the flags, one letter each, in ASCII order. ``S=`` is the size
of the file and ``W=`` the size on the wire (with CRLF), as Dovecot and Courier write them. `keyword_letters` says what
the letters mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from imapshield.maildir.keyword_letters import Keywords
from imapshield.wire.flags import flag_list

_WIRE_SIZE = re.compile(rb",W=([0-9]{1,15})(?![0-9])")
_DELIVERED = re.compile(rb"([0-9]{1,15})\.(?:M([0-9]{1,9}))?(?:P[0-9]+)?(?:Q([0-9]{1,9}))?")


def unique(now: float, pid: int, counter: int, host: str, tag: str) -> bytes:
    """Return a base name that no other process or host creates.

    Args:
        now: seconds since the epoch.
        pid: the process.
        counter: distinguishes the names of one store.
        host: the host's name, with any characters.
        tag: distinguishes the stores of one process.
    """
    seconds, micros = divmod(int(now * 1_000_000), 1_000_000)
    safe = host.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")
    name = f"{seconds}.M{micros:06d}P{pid}Q{counter}R{tag}.{safe}"
    return name.encode("ascii", "backslashreplace")


def with_sizes(base_name: bytes, physical: int, wire: int | None) -> bytes:
    """Return a base name with the sizes added; without ``W=`` if the size on the wire is not known."""
    name = b"%b,S=%d" % (base_name, physical)
    return name if wire is None else b"%b,W=%d" % (name, wire)


def wire_size(base_name: bytes) -> int | None:
    """Return the size on the wire that a base name states, or None."""
    found = _WIRE_SIZE.search(base_name)
    return int(found[1]) if found else None


def base(name: bytes) -> bytes:
    """Return the base name of a file name."""
    return name.partition(b":")[0]


def delivery_order(name: bytes, mtime: float) -> tuple[float, int, int, bytes]:
    """Return a sort key that puts files in the order of their delivery.

    It is the time in the name, or the file's `mtime` if the name has none.
    """
    found = _DELIVERED.match(name)
    if found is None:
        return mtime, 0, 0, name
    return int(found[1]), int(found[2] or 0), int(found[3] or 0), name


def flags_of(name: bytes, keywords: Keywords) -> list[bytes]:
    """Return the flags that a file name has letters for."""
    flags = (keywords.flag_of(letter) for letter in _split(name)[1])
    return [flag for flag in flags if flag is not None]


def all_flags(name: bytes, old_flags: bytes, keywords: Keywords) -> bytes:
    """Return a message's flag list: the flags of its file name, and those of `old_flags` that have no letter."""
    flags = flags_of(name, keywords)
    flags += [flag for flag in old_flags.split() if not keywords.letter(flag)]
    return flag_list(flags)


def with_flags(name: bytes, flags: Iterable[bytes], keywords: Keywords) -> bytes:
    """Return a file name with the letters of `flags`.

    Letters without a meaning here stay, because another program gave them a meaning.
    """
    base_name, old_letters, rest = _split(name)
    letters = {keywords.letter(flag) for flag in flags}
    letters |= {bytes([c]) for c in old_letters if keywords.flag_of(c) is None}
    return b"%b:2,%b%b" % (base_name, b"".join(sorted(letters)), rest)


def _split(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Return base name, letters, and whatever another program wrote after a comma."""
    base_name, _, info = name.partition(b":")
    if not info.startswith(b"2,"):
        return base_name, b"", b""
    letters, comma, rest = info[2:].partition(b",")
    return base_name, letters, comma + rest
