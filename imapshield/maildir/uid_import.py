"""UIDs that another IMAP server gave: taken over when a folder is met for the first time.

Whoever comes from Dovecot or Courier then need not download all mail again. It is done once per folder, and a marker
file says so: after we have given UIDs, those files no longer tell which are free.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from imapshield.maildir import filename, files

MARKER = b"/imapshield.imported"
_DOVECOT_HEAD = re.compile(
    rb"3 (?:[A-Z][^ ]* )*?V([0-9]{1,10}) (?:[A-Z][^ ]* )*?N([0-9]{1,10})(?: |\Z)"
)
_COURIER_HEAD = re.compile(rb"1 ([0-9]{1,10}) ([0-9]{1,10})\Z")
_LAST = 0xFFFFFFFF


class UidList(NamedTuple):
    """UIDVALIDITY, UIDNEXT, and the UID of each base name."""

    uidvalidity: int
    uidnext: int
    uids: dict[bytes, int]


def parse_dovecot(content: bytes) -> UidList | None:
    """Read ``dovecot-uidlist`` version 3: ``3 V<validity> N<next>``, then ``<uid> <extras> :<name>``."""
    head, _, rest = content.partition(b"\n")
    found = _DOVECOT_HEAD.match(head)
    if found is None:
        return None
    pairs = [line.partition(b":") for line in rest.split(b"\n")]
    return _checked(found, [(start.split(b" ", 1)[0], name) for start, _, name in pairs])


def parse_courier(content: bytes) -> UidList | None:
    """Read ``courierimapuiddb`` version 1: ``1 <validity> <next>``, then ``<uid> <name>``."""
    head, _, rest = content.partition(b"\n")
    found = _COURIER_HEAD.match(head)
    if found is None:
        return None
    pairs = [line.partition(b" ") for line in rest.split(b"\n")]
    return _checked(found, [(uid, name) for uid, _, name in pairs])


def _checked(head: re.Match[bytes], pairs: list[tuple[bytes, bytes]]) -> UidList | None:
    validity, uidnext = int(head[1]), int(head[2])
    uids: dict[bytes, int] = {}
    for uid, name in pairs:
        if name and uid.isdigit() and len(uid) <= 10 and 0 < int(uid) < _LAST:
            uids[filename.base(name)] = int(uid)
    if len(set(uids.values())) < len(uids):  # a UID of two messages: nothing in it can be believed
        return None
    uidnext = max(uidnext, max(uids.values(), default=0) + 1)
    return UidList(validity, uidnext, uids) if 0 < validity <= _LAST and uidnext < _LAST else None


def read(folder: bytes) -> UidList | None:
    """Return the UIDs that another server gave in this folder, if nobody took them over yet."""
    if os.path.exists(folder + MARKER):
        return None
    return parse_dovecot(files.read_small(folder + b"/dovecot-uidlist")) or parse_courier(
        files.read_small(folder + b"/courierimapuiddb")
    )


def mark(folder: bytes) -> None:
    """Say that the UIDs of this folder were taken over."""
    files.replace(folder + MARKER, b"")


def assign(names: list[bytes], uidnext: int, known: dict[bytes, int]) -> tuple[list[int], int]:
    """Return a UID for each of `names`, as `known` by their base or new, and the UIDNEXT after that."""
    given: list[int] = []
    for name in names:
        uid = known.get(filename.base(name), 0)
        if not uid:
            uid, uidnext = uidnext, uidnext + 1
        given.append(uid)
    return given, uidnext
