"""GETMETADATA and SETMETADATA (RFC 5464): what clients note about mailboxes and the account.

An account is one user's, so /shared entries are no more shared than /private ones; they are kept apart all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import CommandRefused
from imapshield.mailbox.account_api import IMetadata
from imapshield.wire import encode
from imapshield.wire.commands.metadata import GetMetadata, SetMetadata
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session

ADMIN = b"/shared/admin"
"""Of the server's entries the one that is the operator's (RFC 5464 section 3.2.1.1)."""
SPECIAL_USE = b"/private/specialuse"
"""Of a mailbox's entries the one that says what LIST says; it is set by CREATE alone (RFC 6154 section 4)."""


async def getmetadata(session: Session, command: GetMetadata) -> Tagged:
    """GETMETADATA: an entry asked for by name that is not there is NIL; MAXSIZE leaves out what is longer."""
    stored = await IMetadata(session.account).metadata(command.mailbox)
    for info in await session.account.mailboxes() if command.mailbox else ():
        if info.name == command.mailbox and info.special_use:
            stored = {**stored, SPECIAL_USE: b" ".join(info.special_use)}
    found: dict[bytes, bytes | None] = {}
    for entry in command.entries:
        if command.depth == 0:
            found[entry] = stored.get(entry)
            continue
        below = entry + b"/"
        for name in sorted(stored):
            rest = name.removeprefix(below)
            near = command.depth is None or b"/" not in rest
            if name == entry or (rest != name and near):
                found[name] = stored[name]
    longest = 0
    told: list[tuple[bytes, bytes | None]] = []
    for name, value in found.items():
        if value is not None and command.max_size is not None and len(value) > command.max_size:
            longest = max(longest, len(value))
        else:
            told.append((name, value))
    if told:
        session.io.write(encode.metadata(command.mailbox, told, utf8=session.utf8))
    return ok("That is noted", b"METADATA LONGENTRIES %d" % longest if longest else None)


async def setmetadata(session: Session, command: SetMetadata) -> Tagged:
    """SETMETADATA: all of the values or none."""
    most = session.limits.max_metadata_size
    if any(value is not None and len(value) > most for _, value in command.values):
        raise CommandRefused(b"METADATA MAXSIZE %d" % most, "That value is too long")
    if not command.mailbox and any(entry == ADMIN for entry, _ in command.values):
        raise CommandRefused(b"NOPERM", "Whom to ask is not for users to say")
    if command.mailbox and any(entry == SPECIAL_USE for entry, _ in command.values):
        raise CommandRefused(b"CANNOT", "What a mailbox is for is said when it is created")
    await IMetadata(session.account).set_metadata(command.mailbox, dict(command.values))
    return ok("Noted")
