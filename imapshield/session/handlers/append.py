"""APPEND and REPLACE: storing messages that the client sends, or has put together (CATENATE)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imapshield.errors import CommandRefused, NoSuchMailbox
from imapshield.mailbox.values import NewMessage
from imapshield.session import catenate
from imapshield.wire import encode
from imapshield.wire.commands.append import Append, AppendMessage, Replace
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def replace(session: Session, command: Replace) -> Tagged:
    """REPLACE and UID REPLACE (RFC 8508): the new message is there before the old one goes."""
    if session.readonly:
        raise CommandRefused(b"READ-ONLY", "The mailbox was opened read only")
    number = (
        SequenceSet(tail=MAX_NUMBER)
        if command.number is None
        else SequenceSet.from_uids([command.number])
    )
    old = list(session.view.uids_of(session.rows_of(number, uid=command.uid)))
    if not old:
        raise CommandRefused(b"NONEXISTENT", "There is no message to replace")
    with _try_create():
        (new,) = await _new(session, command.mailbox, (command.message,))
        appended = await session.mailbox.replace(old[0], command.mailbox, new)
    session.note_own_uids(command.mailbox, appended.uids)
    # Before the EXPUNGE: so the client knows what came before it hears what went (section 4.3).
    code = encode.appenduid(appended.uidvalidity, appended.uids)
    session.io.write(encode.untagged(b"OK", "The new message is stored", code))
    return ok("Replaced", session.highestmodseq_code())


async def append(session: Session, command: Append) -> Tagged:
    """APPEND (RFC 9051 section 6.3.12, RFC 3502): all the messages or none, with APPENDUID (RFC 4315)."""
    session.within_limit([(0, len(command.messages))], whole=True)
    with _try_create():
        new = await _new(session, command.mailbox, command.messages)
        appended = await session.account.append(command.mailbox, new)
    session.note_own_uids(command.mailbox, appended.uids)
    return ok("Stored", encode.appenduid(appended.uidvalidity, appended.uids))


@contextmanager
def _try_create() -> Iterator[None]:
    try:
        yield
    except NoSuchMailbox:
        raise CommandRefused(b"TRYCREATE", "There is no such mailbox; create it first") from None


async def _new(
    session: Session, mailbox: str, messages: Sequence[AppendMessage]
) -> list[NewMessage]:
    """Put together what is to be stored in `mailbox`."""
    try:
        contents = [await catenate.content(session, message) for message in messages]
    except CommandRefused:
        await session.account.status(mailbox)  # TRYCREATE comes before whatever else is wrong
        raise
    if not all(content.size for content in contents):
        raise CommandRefused(None, "A message cannot be empty")  # RFC 3502 section 6.3.11
    return [
        NewMessage(message.flags, message.internaldate, content)
        for message, content in zip(messages, contents, strict=True)
    ]
