"""Mailbox names: the names that a filter matches (RFC 5465 section 6), and their attributes in LIST responses."""

from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import asynccontextmanager

from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.values import MailboxInfo
from imapshield.mailbox.view import View
from imapshield.session.state import SessionState
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.names import DELIMITER, parent_names


async def matching_mailboxes(session: SessionState, filters: Sequence[MailboxFilter]) -> list[str]:
    """Return the names of the selectable mailboxes that at least one of `filters` matches."""
    names = [info.name for info in await session.account.mailboxes() if info.selectable]
    subscribed: set[str] = set()
    if any(f.kind == b"SUBSCRIBED" for f in filters):
        subscribed = await session.account.subscriptions()
    return [name for name in names if any(matches(session, f, name, subscribed) for f in filters)]


def matches(
    session: SessionState, mailbox_filter: MailboxFilter, name: str, subscribed: Container[str]
) -> bool:
    """Whether a filter matches the mailbox `name`; `subscribed` are the subscribed mailboxes."""
    match mailbox_filter.kind:
        case b"SELECTED" | b"SELECTED-DELAYED":
            return session.is_selected(name)
        # Delivery agents deliver to any mailbox, so INBOXES are all mailboxes (RFC 5465 section 6.3).
        case b"PERSONAL" | b"INBOXES":
            return True
        case b"SUBSCRIBED":
            return name in subscribed
        case b"SUBTREE":
            return not mailbox_filter.names.isdisjoint([name, *parent_names(name)])
        case b"SUBTREE-ONE":
            return not mailbox_filter.names.isdisjoint([name, name.rpartition(DELIMITER)[0]])
        case _:
            return name in mailbox_filter.names


@asynccontextmanager
async def opened(session: SessionState, name: str) -> AsyncIterator[tuple[IMailbox, View]]:
    """Open the mailbox `name`, which may be the selected one, until the block ends.

    Yields:
        The mailbox and a view of it; for the selected mailbox, the session's own view.

    Raises:
        NoSuchMailbox: the mailbox does not exist.
    """
    if session.is_selected(name):
        yield session.mailbox, session.view
        return
    mailbox, _ = await session.account.open(name, False)
    view = View(mailbox.columns)
    mailbox.add_listener(view.on_change, False)
    try:
        yield mailbox, view
    finally:
        mailbox.remove_listener(view.on_change)


def parents(names: Iterable[str]) -> set[str]:
    """Return the names of all mailboxes above `names`."""
    return {parent for name in names for parent in parent_names(name)}


def list_attributes(
    info: MailboxInfo | None, *, has_children: bool, extended: bool = True, subscribed: bool = False
) -> list[bytes]:
    r"""Return the attributes of a name in a LIST response.

    Args:
        info: the mailbox; None if the name only has children.
        has_children: whether there are mailboxes below the name.
        extended: whether the client knows \NonExistent (RFC 5258, RFC 9051).
        subscribed: whether to include \Subscribed.
    """
    attributes: list[bytes] = []
    if info is None or not info.selectable:
        attributes.append(b"\\NonExistent" if extended else b"\\Noselect")
    attributes.append(b"\\HasChildren" if has_children else b"\\HasNoChildren")
    if info is not None:
        attributes += info.special_use
    if subscribed:
        attributes.append(b"\\Subscribed")
    return attributes
