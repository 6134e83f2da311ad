"""APPEND: storing messages that the client sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import NoSuchMailbox, Refused
from imapshield.mailbox.interfaces import NewMessage
from imapshield.wire import encode
from imapshield.wire.commands import Append
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def append(session: Session, command: Append) -> Tagged:
    """APPEND (RFC 9051 section 6.3.12, RFC 3502): all the messages or none, with APPENDUID (RFC 4315)."""
    if any(not message.content.size for message in command.messages):
        raise Refused(None, "A message cannot be empty")  # RFC 3502 section 6.3.11
    try:
        appended = await session.account.append(
            command.mailbox,
            [NewMessage(m.flags, m.internaldate, m.content) for m in command.messages],
        )
    except NoSuchMailbox:
        raise Refused(b"TRYCREATE", "There is no such mailbox; create it first") from None
    return ok("Stored", encode.appenduid(appended.uidvalidity, appended.uids))
