"""APPEND and REPLACE: store messages that the client sends, or builds from parts of stored messages (CATENATE)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imapshield.errors import CommandRefused, NoSuchMailbox
from imapshield.mailbox.values import NewMessage
from imapshield.session.catenate import message_contents
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.messages import Append, AppendMessage, Replace
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet


async def append(session: Session, command: Append) -> Tagged:
    """Handle APPEND (RFC 9051 section 6.3.12, RFC 3502), which stores all messages or none."""
    session.within_limit([(0, len(command.messages))], whole=True)
    with try_create():
        messages = await _new_messages(session, command.mailbox, command.messages)
        appended = await session.account.append(command.mailbox, messages)
    session.note_own_uids(command.mailbox, appended.uids)
    return ok("APPEND completed", encode.appenduid(appended.uidvalidity, appended.uids))


async def replace(session: Session, command: Replace) -> Tagged:
    """Handle REPLACE and UID REPLACE (RFC 8508). The new message is stored before the old one is expunged."""
    session.require_writable()
    number = command.number
    last = SequenceSet(tail=MAX_NUMBER)
    sequence = last if number is None else SequenceSet.from_numbers([number])
    old = list(session.view.uids_of(await session.rows_of(sequence, uid=command.uid)))
    if not old:
        raise CommandRefused(b"NONEXISTENT", "Message to replace does not exist")
    with try_create():
        (message,) = await _new_messages(session, command.mailbox, (command.message,))
        appended = await session.mailbox.replace(old[0], command.mailbox, message)
    session.note_own_uids(command.mailbox, appended.uids)
    # APPENDUID precedes EXPUNGE, so that the client knows the new message before it loses the old one (section 4.3).
    code = encode.appenduid(appended.uidvalidity, appended.uids)
    await session.send(encode.untagged_pieces(b"OK", "Replacement message stored", code))
    return ok("REPLACE completed", session.highestmodseq_code())


@contextmanager
def try_create() -> Iterator[None]:
    """Refuse the command with TRYCREATE if the block finds that the target mailbox does not exist."""
    try:
        yield
    except NoSuchMailbox:
        raise CommandRefused(b"TRYCREATE", "Mailbox does not exist; create it first") from None


async def _new_messages(
    session: Session, mailbox: str, messages: Sequence[AppendMessage]
) -> list[NewMessage]:
    try:
        contents = await message_contents(session, messages)
    except CommandRefused:
        # If the mailbox does not exist, this raises NoSuchMailbox, because TRYCREATE takes precedence.
        await session.account.status(mailbox)
        raise
    if not all(content.size for content in contents):
        raise CommandRefused(None, "Message is empty")  # RFC 3502 section 6.3.11
    return [
        NewMessage(message.flags, message.internaldate, content)
        for message, content in zip(messages, contents, strict=True)
    ]
