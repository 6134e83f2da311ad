"""CATENATE (RFC 4469): a new message built from literals and from parts of stored messages.

The parts are not copied first: the store reads each part in place while it writes the new message.
"""

from collections.abc import Sequence
from math import ceil

from imapshield.errors import (
    BadCommand,
    BadMailboxName,
    CommandRefused,
    NoSuchMailbox,
    StoreIOError,
)
from imapshield.limits import LimitReached
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


async def message_contents(
    session: SessionState, messages: Sequence[AppendMessage]
) -> list[LiteralData]:
    """Return the contents of the messages of APPEND or REPLACE.

    Raises:
        CommandRefused: a URL does not name a part of a message, the messages are too large, or the account has copied
            too much.
        BadCommand: the account does not support CATENATE.
    """
    limits = session.limits
    contents: list[LiteralData] = []
    total = copied = 0
    for message in messages:
        content = message.content
        if isinstance(content, tuple):
            content, stored = await _concatenated(session, content)
            _check_size(session, "Message", content.size, "max_message_size")
            copied += stored
        total += content.size
        _check_size(session, "Total size of the messages", total, "max_append_size")
        contents.append(content)
    if copied and limits.catenate_bytes_per_second:
        _count_copied(session, copied)
    return contents


def _check_size(session: SessionState, subject: str, size: int, limit: str) -> None:
    max_size: int = getattr(session.limits, limit)
    if size > max_size:
        text = f"{subject} too large: the limit is {max_size} bytes"
        raise CommandRefused(b"TOOBIG", text, LimitReached(limit, max_size, size))


def _count_copied(session: SessionState, size: int) -> None:
    """Count bytes that are about to be copied, or refuse the command."""
    account, now = ICatenate(session.account), session.monotonic()
    burst = session.limits.catenate_burst_bytes
    per_second = session.limits.catenate_bytes_per_second
    rate = account.copy_rate
    seconds = rate.seconds_until_allowed(size, now, burst, per_second)
    if seconds:
        observed = rate.unsettled(now, per_second) + size
        reached = LimitReached("catenate_burst_bytes", burst, observed)
        text = (
            f"CATENATE has copied too much of stored messages; try again in {ceil(seconds)} seconds"
        )
        raise CommandRefused(b"LIMIT", text, reached)
    account.copy_rate = rate.after(size, now, per_second)


async def _concatenated(
    session: SessionState, parts: Sequence[bytes | LiteralData]
) -> tuple[ConcatenatedLiteral, int]:
    """Return the content of one message, and how many bytes of it are from stored messages."""
    if not ICatenate.providedBy(session.account):
        raise BadCommand("CATENATE is not supported")
    data: list[LiteralData] = []
    stored = 0
    for part in parts:
        if isinstance(part, bytes):
            data.append(await _stored_part(session, part))
            stored += data[-1].size
        else:
            data.append(part)
    return ConcatenatedLiteral(data), stored


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
