"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE and STATUS: mailboxes as a whole."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from imapshield.errors import CommandRefused, NoSuchMailbox
from imapshield.mailbox.values import MailboxStatus
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.mailboxes import Create, Delete, Rename, Status, Subscribe
from imapshield.wire.names import DELIMITER
from imapshield.wire.responses import Tagged, ok


async def create(session: Session, command: Create) -> Tagged:
    """Handle CREATE (RFC 9051 section 6.3.4, RFC 6154); a delimiter at the end only announces child mailboxes."""
    name = command.mailbox.removesuffix(DELIMITER)
    _require_net_unicode(session, name)
    mailbox_id = await session.account.create(name, command.special_use)
    return ok("CREATE completed", b"MAILBOXID (%b)" % mailbox_id)


def _require_net_unicode(session: Session, name: str) -> None:
    """Refuse a new name that is not Net-Unicode (RFC 9051 section 5.1); modified UTF-7 has no such rule."""
    if session.utf8 and not unicodedata.is_normalized("NFC", name):
        raise CommandRefused(b"CANNOT", "Mailbox name is not in Unicode Normalization Form C")


async def delete(session: Session, command: Delete) -> Tagged:
    """Handle DELETE (RFC 9051 section 6.3.5), which closes the mailbox if it is selected."""
    try:
        await session.account.delete(command.mailbox)
    except NoSuchMailbox:
        if any(info.name == command.mailbox for info in await session.account.mailboxes()):
            raise CommandRefused(b"HASCHILDREN", "Name exists only as a parent") from None
        raise
    if session.is_selected(command.mailbox):
        session.leave()
        session.io.write(encode.untagged(b"OK", "Selected mailbox deleted", b"CLOSED"))
    return ok("DELETE completed")


async def rename(session: Session, command: Rename) -> Tagged:
    """Handle RENAME (RFC 9051 section 6.3.6)."""
    name = command.new.removesuffix(DELIMITER)
    _require_net_unicode(session, name)
    await session.account.rename(command.old, name)
    return ok("RENAME completed")


async def subscribe(session: Session, command: Subscribe) -> Tagged:
    """Handle SUBSCRIBE and UNSUBSCRIBE."""
    if command.subscribe and all(
        info.name != command.mailbox for info in await session.account.mailboxes()
    ):
        # A server MAY validate the name; otherwise LSUB would list a mistyped name forever.
        raise NoSuchMailbox
    await session.account.set_subscribed(command.mailbox, command.subscribe)
    return ok("SUBSCRIBE completed" if command.subscribe else "UNSUBSCRIBE completed")


async def status(session: Session, command: Status) -> Tagged:
    """Handle STATUS (RFC 9051 section 6.3.11)."""
    if b"HIGHESTMODSEQ" in command.items:
        session.enable_condstore()
    found = await session.account.status(command.mailbox)
    session.io.write(status_line(session, command.mailbox, command.items, found))
    return ok("STATUS completed")


def status_line(session: Session, name: str, items: Iterable[bytes], found: MailboxStatus) -> bytes:
    """Return the STATUS response of mailbox `name` with `items`; unknown items are left out."""
    values: dict[bytes, int | bytes] = {
        b"MESSAGES": found.messages,
        b"RECENT": found.recent,
        b"UNSEEN": found.unseen,
        b"DELETED": found.deleted,
        b"UIDNEXT": found.uidnext,
        b"UIDVALIDITY": found.uidvalidity,
        b"HIGHESTMODSEQ": found.highestmodseq,
        b"SIZE": found.size,
        b"DELETED-STORAGE": -(-found.deleted_size // 1024),
        b"MAILBOXID": b"(%b)" % found.mailbox_id,
        b"APPENDLIMIT": session.limits.max_message_size,
    }
    pairs = [(item, values[item]) for item in items if item in values]
    return encode.status(name, pairs, utf8=session.utf8)
