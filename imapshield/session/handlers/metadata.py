"""GETMETADATA and SETMETADATA (RFC 5464): annotations of mailboxes and of the account.

An account belongs to one user, so /shared entries are as private as /private ones; both are kept apart nevertheless.
"""

from __future__ import annotations

from imapshield.errors import CommandRefused
from imapshield.mailbox.account_api import IMetadata
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.metadata import GetMetadata, SetMetadata
from imapshield.wire.responses import Tagged, ok

ADMIN = b"/shared/admin"
"""The server entry that only the operator sets (RFC 5464 section 3.2.1.1)."""
SPECIAL_USE = b"/private/specialuse"
"""The mailbox entry with the attributes that LIST shows; only CREATE sets it (RFC 6154 section 4)."""


async def getmetadata(session: Session, command: GetMetadata) -> Tagged:
    """Handle GETMETADATA: a named entry that does not exist is NIL; MAXSIZE leaf_keys out longer values."""
    stored = await IMetadata(session.account).metadata(command.mailbox)
    for info in await session.account.mailboxes() if command.mailbox else ():
        if info.name == command.mailbox and info.special_use:
            stored = {**stored, SPECIAL_USE: b" ".join(info.special_use)}
    found = _find_entries(command, stored)
    longest = 0
    if command.max_size is not None:
        sizes = {name: len(value) for name, value in found.items() if value is not None}
        too_long = {name for name, size in sizes.items() if size > command.max_size}
        longest = max((sizes[name] for name in too_long), default=0)
        found = {name: value for name, value in found.items() if name not in too_long}
    if found:
        session.io.write(encode.metadata(command.mailbox, found.items(), utf8=session.utf8))
    code = b"METADATA LONGENTRIES %d" % longest if longest else None
    return ok("GETMETADATA completed", code)


def _find_entries(command: GetMetadata, stored: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Return the entries that the command names, with those below them as far as DEPTH goes."""
    found: dict[bytes, bytes | None] = {}
    for entry in command.entries:
        if command.depth == 0:
            found[entry] = stored.get(entry)
            continue
        prefix = entry + b"/"
        for name in sorted(stored):
            rest = name.removeprefix(prefix)
            in_depth = command.depth is None or b"/" not in rest
            if name == entry or (rest != name and in_depth):
                found[name] = stored[name]
    return found


async def setmetadata(session: Session, command: SetMetadata) -> Tagged:
    """Handle SETMETADATA: all values are set, or none."""
    max_size = session.limits.max_metadata_size
    if any(value is not None and len(value) > max_size for _, value in command.values):
        text = f"Metadata value is too long; the limit is {max_size} bytes"
        raise CommandRefused(b"METADATA MAXSIZE %d" % max_size, text)
    if not command.mailbox and any(entry == ADMIN for entry, _ in command.values):
        raise CommandRefused(b"NOPERM", "/shared/admin can only be set by the operator")
    if command.mailbox and any(entry == SPECIAL_USE for entry, _ in command.values):
        raise CommandRefused(b"CANNOT", "Special use can only be set by CREATE")
    await IMetadata(session.account).set_metadata(command.mailbox, dict(command.values))
    return ok("SETMETADATA completed")
