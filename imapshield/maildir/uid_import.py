"""UIDs from another IMAP server, read from its files when imapshield meets a folder for the first time.

With the UIDs of Dovecot or Courier, mail clients need not download all mail again after a change of server. They are
imported once per folder, and a marker file records that: after imapshield has assigned UIDs, the other server's files
no longer say which UIDs are free.
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
_MAX_UID = 0xFFFFFFFF


class UidList(NamedTuple):
    """UIDVALIDITY, UIDNEXT, and the UID of each base name."""

    uidvalidity: int
    uidnext: int
    uids: dict[bytes, int]


def parse_dovecot(content: bytes) -> UidList | None:
    """Read ``dovecot-uidlist`` version 3: ``3 V<uidvalidity> N<uidnext>``, then ``<uid> <extras> :<name>`` lines.

    Returns:
        None if the file has another form or contradicts itself.
    """
    head, _, rest = content.partition(b"\n")
    found = _DOVECOT_HEAD.match(head)
    if found is None:
        return None
    lines = [line.partition(b":") for line in rest.split(b"\n")]
    return _checked(found, [(start.split(b" ", 1)[0], name) for start, _, name in lines])


def parse_courier(content: bytes) -> UidList | None:
    """Read ``courierimapuiddb`` version 1: ``1 <uidvalidity> <uidnext>``, then ``<uid> <name>`` lines.

    Returns:
        None if the file has another form or contradicts itself.
    """
    head, _, rest = content.partition(b"\n")
    found = _COURIER_HEAD.match(head)
    if found is None:
        return None
    lines = [line.partition(b" ") for line in rest.split(b"\n")]
    return _checked(found, [(uid, name) for uid, _, name in lines])


def _checked(head: re.Match[bytes], pairs: list[tuple[bytes, bytes]]) -> UidList | None:
    uidvalidity, uidnext = int(head[1]), int(head[2])
    uids: dict[bytes, int] = {}
    for uid, name in pairs:
        if name and uid.isdigit() and len(uid) <= 10 and 0 < int(uid) < _MAX_UID:
            uids[filename.base(name)] = int(uid)
    if len(set(uids.values())) < len(uids):  # two messages have the same UID: the file is wrong
        return None
    uidnext = max(uidnext, max(uids.values(), default=0) + 1)
    if not 0 < uidvalidity <= _MAX_UID or uidnext >= _MAX_UID:
        return None
    return UidList(uidvalidity, uidnext, uids)


def read(folder: bytes) -> UidList | None:
    """Return the UIDs that another server assigned in this folder, None if there are none or if they were imported."""
    if os.path.exists(folder + MARKER):
        return None
    return parse_dovecot(files.read_small(folder + b"/dovecot-uidlist")) or parse_courier(
        files.read_small(folder + b"/courierimapuiddb")
    )


def mark_imported(folder: bytes) -> None:
    """Record that the UIDs of this folder were imported."""
    files.replace(folder + MARKER, b"")
