"""CATENATE (RFC 4469): a new message built from literals and from parts of stored messages.

The parts are not copied first: the store reads each part in place while it writes the new message.
"""

from collections.abc import Sequence

from imapshield.errors import (
    BadCommand,
    BadMailboxName,
    CommandRefused,
    NoSuchMailbox,
    StoreIOError,
)
from imapshield.mailbox.account_api import ICatenate
from imapshield.mailbox.values import Blob
from imapshield.session import mailbox_names
from imapshield.session.state import SessionState, State
from imapshield.wire import urls
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.messages import AppendMessage


class ConcatenatedLiteral:
    """A `wire.commands.base.LiteralData` that consists of several others. It does not close them."""

    def __init__(self, parts: Sequence[LiteralData]) -> None:
        self._parts = parts
        self.size = sum(part.size for part in parts)
        self.binary = any(part.binary for part in parts)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer at the end."""
        chunks: list[bytes] = []
        for part in self._parts:
            if size and offset < part.size:
                chunks.append(part.read(offset, min(size, part.size - offset)))
                size -= len(chunks[-1])
            offset = max(0, offset - part.size)
        return b"".join(chunks)

    def close(self) -> None:
        """Do nothing: the owner of the parts closes them."""


async def message_content(session: SessionState, message: AppendMessage) -> LiteralData:
    """Return the content of a message of APPEND or REPLACE.

    Raises:
        CommandRefused: a URL does not name a part of a message, or the message is too large.
        BadCommand: the account does not support CATENATE.
    """
    if not isinstance(message.content, tuple):
        return message.content
    if not ICatenate.providedBy(session.account):
        raise BadCommand("CATENATE is not supported")
    parts = [await _stored_part(session, p) if isinstance(p, bytes) else p for p in message.content]
    content = ConcatenatedLiteral(parts)
    max_size = session.limits.max_message_size
    if content.size > max_size:
        raise CommandRefused(b"TOOBIG", f"Message too large: the limit is {max_size} bytes")
    return content


async def _stored_part(session: SessionState, url: bytes) -> LiteralData:
    code = b"BADURL " + url
    no_such_part = CommandRefused(code, "URL does not name a part of a message")
    selected = session.mailbox.name if session.state is State.SELECTED else None
    try:
        name, uidvalidity, uid, item = urls.parse(url, selected, session.names)
        async with mailbox_names.opened(session, name) as (mailbox, _):
            if uidvalidity not in (None, mailbox.uidvalidity):
                raise no_such_part
            fetched = await mailbox.fetch([uid], [item], session.limits.fetch_chunk_size)
    except (BadCommand, BadMailboxName, NoSuchMailbox) as error:
        raise CommandRefused(code, error.text) from None
    if fetched.unreadable:
        raise StoreIOError
    value = fetched.columns[0][0] if fetched.uids else b""
    if isinstance(value, Blob):
        size = value.size
    else:
        _, end_of_size, data = value.partition(b"\r\n")
        if not end_of_size:  # the value is NIL: the message has no such part
            raise no_such_part
        size = len(data)
    await session.pause()
    return ICatenate(session.account).stored_part(mailbox, uid, item, size)
