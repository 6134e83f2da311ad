"""GETMETADATA and SETMETADATA (RFC 5464): annotations of mailboxes and of the account.

An account belongs to one user, so entries below /shared are as private as those below /private. The two are different
entries nevertheless.
"""

from imapshield.errors import CommandRefused
from imapshield.mailbox.account_api import IMetadata
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.mailboxes import GetMetadata, SetMetadata
from imapshield.wire.responses import Tagged, ok

ADMIN = b"/shared/admin"
"""The server entry that only the operator can set (RFC 5464 section 3.2.1.1)."""
SPECIAL_USE = b"/private/specialuse"
"""The mailbox entry with the special-use attributes of LIST; only CREATE can set it (RFC 6154 section 4)."""


async def getmetadata(session: Session, command: GetMetadata) -> Tagged:
    """Handle GETMETADATA. An entry that the command names is NIL if it does not exist. Longer values than MAXSIZE are
    left out."""
    stored = await IMetadata(session.account).metadata(command.mailbox)
    if command.mailbox:
        infos = {info.name: info for info in await session.account.mailboxes()}
        if command.mailbox in infos and infos[command.mailbox].special_use:
            stored = {**stored, SPECIAL_USE: b" ".join(infos[command.mailbox].special_use)}
    found = _find_entries(command, stored)
    code = None
    if command.max_size is not None:
        sizes = {name: len(value or b"") for name, value in found.items()}
        longest = max(sizes.values(), default=0)
        if longest > command.max_size:
            code = b"METADATA LONGENTRIES %d" % longest
        found = {name: found[name] for name, size in sizes.items() if size <= command.max_size}
    if found:
        session.io.write(encode.metadata(command.mailbox, found.items(), names=session.names))
    return ok("GETMETADATA completed", code)


def _find_entries(command: GetMetadata, stored: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Return the entries that the command names, with those below them to the depth of DEPTH."""
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
    """Handle SETMETADATA, which sets all values or none."""
    max_size = session.limits.max_metadata_size
    if any(value is not None and len(value) > max_size for _, value in command.values):
        text = f"Metadata value too large: the limit is {max_size} bytes"
        raise CommandRefused(b"METADATA MAXSIZE %d" % max_size, text)
    if not command.mailbox and any(entry == ADMIN for entry, _ in command.values):
        raise CommandRefused(b"NOPERM", "/shared/admin can only be set by the operator")
    if command.mailbox and any(entry == SPECIAL_USE for entry, _ in command.values):
        raise CommandRefused(b"CANNOT", "Special use can only be set by CREATE")
    await IMetadata(session.account).set_metadata(command.mailbox, dict(command.values))
    return ok("SETMETADATA completed")
