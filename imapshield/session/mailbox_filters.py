"""Filters of mailboxes (RFC 5465 section 6) → the names that they stand for now; and how to look into one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.view import View
from imapshield.session.states import State
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.names import DELIMITER, parent_names

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def resolve(session: Session, filters: Iterable[MailboxFilter]) -> list[str]:
    """Return the mailboxes that can be selected and that one of `filters` means; names that are none are left out."""
    filters = list(filters)
    names = [info.name for info in await session.account.mailboxes() if info.selectable]
    subscribed: set[str] = set()
    if any(one.kind == b"SUBSCRIBED" for one in filters):
        subscribed = await session.account.subscriptions()
    return [name for name in names if any(means(session, f, name, subscribed) for f in filters)]


def means(session: Session, which: MailboxFilter, name: str, subscribed: set[str]) -> bool:
    """Whether a filter means the mailbox `name`."""
    match which.kind:
        case b"SELECTED" | b"SELECTED-DELAYED":
            return session.state is State.SELECTED and session.mailbox.name == name
        # delivery agents deliver into any mailbox, and then both are the same (RFC 5465 section 6.3)
        case b"PERSONAL" | b"INBOXES":
            return True
        case b"SUBSCRIBED":
            return name in subscribed
        case b"SUBTREE":
            return name in which.names or not which.names.isdisjoint(parent_names(name))
        case b"SUBTREE-ONE":
            return name in which.names or name.rpartition(DELIMITER)[0] in which.names
        case _:
            return name in which.names


@asynccontextmanager
async def opened(session: Session, name: str) -> AsyncIterator[tuple[IMailbox, View]]:
    """Have the mailbox `name` at hand, with the session's own view of it if it is the one selected. NoSuchMailbox."""
    if session.state is State.SELECTED and name == session.mailbox.name:
        yield session.mailbox, session.view
        return
    mailbox, _ = await session.account.open(name, False)
    view = View(mailbox.columns)
    mailbox.subscribe(view.on_change, False)
    try:
        yield mailbox, view
    finally:
        mailbox.unsubscribe(view.on_change)
