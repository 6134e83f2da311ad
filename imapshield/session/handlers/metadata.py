"""GETMETADATA and SETMETADATA (RFC 5464): annotations of mailboxes and of the account.

An account belongs to one user, so entries below /shared are as private as those below /private. The two are different
entries nevertheless.
"""

from collections.abc import Iterator, Mapping
from sys import getsizeof

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
MAX_RESPONSE_BYTES = 32 << 10
"""Bytes of values in one METADATA response, if it has several. GETMETADATA reads and sends one response at a time."""


async def getmetadata(session: Session, command: GetMetadata) -> Tagged:
    """Handle GETMETADATA. An entry that the command names is NIL if it does not exist. Longer values than MAXSIZE are
    left out."""
    sizes = await IMetadata(session.account).metadata_sizes(command.mailbox)
    special_use = b""
    if command.mailbox:
        infos = {info.name: info for info in await session.account.mailboxes()}
        if command.mailbox in infos:
            special_use = b" ".join(infos[command.mailbox].special_use)
        if special_use:
            sizes = {**sizes, SPECIAL_USE: len(special_use)}
    found = _find_entries(command, sizes)
    code = None
    if command.max_size is not None:
        longest = max(found.values(), default=0)
        if longest > command.max_size:
            code = b"METADATA LONGENTRIES %d" % longest
        found = {name: size for name, size in found.items() if size <= command.max_size}
    for entries in _batches(found):
        await _send_entries(session, command.mailbox, entries, special_use)
    return ok("GETMETADATA completed", code)


async def _send_entries(
    session: Session, mailbox: str, entries: list[bytes], special_use: bytes
) -> None:
    """Send a METADATA response with the values of `entries`."""
    values: dict[bytes, bytes] = await IMetadata(session.account).metadata(mailbox, entries)
    if special_use:
        values[SPECIAL_USE] = special_use
    size = sum(map(getsizeof, values.values()))
    pairs = ((entry, values.pop(entry, None)) for entry in entries)
    with session.io.hold_result(size):
        await session.send(encode.metadata(mailbox, pairs, names=session.names))


def _batches(sizes: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    """Divide entries with values of these sizes into the entries of several responses."""
    entries: list[bytes] = []
    total = 0
    for entry, size in sizes.items():
        if entries and total + len(entry) + size > MAX_RESPONSE_BYTES:
            yield entries
            entries, total = [], 0
        entries.append(entry)
        total += len(entry) + size
    if entries:
        yield entries


def _find_entries(command: GetMetadata, stored: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return the entries that the command names, with those below them to the depth of DEPTH, and their sizes."""
    found: dict[bytes, int] = {}
    for entry in command.entries:
        if command.depth == 0:
            found[entry] = stored.get(entry, 0)
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
