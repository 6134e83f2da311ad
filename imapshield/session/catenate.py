"""CATENATE (RFC 4469): a new message made of what the client sends and of parts of messages that are here already.

Nothing is copied to be put together: the store reads each part from where it is while it writes the new message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imapshield.errors import BadCommand, BadMailboxName, CommandRefused, NoSuchMailbox
from imapshield.mailbox.account_api import ICatenate
from imapshield.mailbox.values import Blob
from imapshield.session import mailbox_filters
from imapshield.session.states import State
from imapshield.wire import urls
from imapshield.wire.commands.append import AppendMessage
from imapshield.wire.commands.base import LiteralData

if TYPE_CHECKING:
    from imapshield.session.session import Session


class Joined:
    """Octets one after another, as one (`wire.commands.LiteralData`). Closing is left to whoever owns the parts."""

    def __init__(self, parts: Sequence[LiteralData]) -> None:
        self._parts = parts
        self.size = sum(part.size for part in parts)
        self.binary = any(part.binary for part in parts)

    def read(self, offset: int, size: int) -> bytes:
        """See `wire.commands.LiteralData`."""
        pieces: list[bytes] = []
        for part in self._parts:
            if size and offset < part.size:
                pieces.append(part.read(offset, min(size, part.size - offset)))
                size -= len(pieces[-1])
            offset = max(0, offset - part.size)
        return b"".join(pieces)

    def close(self) -> None:
        """Do nothing."""


async def content(session: Session, message: AppendMessage) -> LiteralData:
    """Return the octets of a message of APPEND. `CommandRefused` for a URL of nothing, and for too many octets."""
    if not isinstance(message.content, tuple):
        return message.content
    if not ICatenate.providedBy(session.account):
        raise BadCommand("There is no CATENATE here")
    parts = [await _stored(session, p) if isinstance(p, bytes) else p for p in message.content]
    joined = Joined(parts)
    if joined.size > session.limits.max_message_size:
        raise CommandRefused(
            b"TOOBIG", f"A message may have {session.limits.max_message_size} octets"
        )
    return joined


async def _stored(session: Session, url: bytes) -> LiteralData:
    bad = CommandRefused(b"BADURL " + url, "There is no such part of a message")
    selected = session.mailbox.name if session.state is State.SELECTED else None
    try:
        name, uidvalidity, uid, item = urls.parse(url, selected)
        async with mailbox_filters.opened(session, name) as (mailbox, _):
            if uidvalidity not in (None, mailbox.uidvalidity):
                raise bad
            fetched = await mailbox.fetch([uid], [item], session.limits.fetch_chunk_size)
    except (BadCommand, BadMailboxName, NoSuchMailbox):
        raise bad from None
    value = fetched.columns[0][0] if fetched.uids else b""
    if isinstance(value, Blob):
        size = value.size
    else:
        _, line, octets = value.partition(b"\r\n")
        if not line:  # NIL: the message is there and the part is not
            raise bad
        size = len(octets)
    await session.pause()
    return ICatenate(session.account).stored_part(mailbox, uid, item, size)
