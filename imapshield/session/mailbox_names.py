"""Mailbox names."""

from collections.abc import AsyncIterator, Container, Iterable, Mapping
from contextlib import asynccontextmanager

from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.values import MailboxInfo
from imapshield.mailbox.view import View
from imapshield.session.state import SessionState
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.names import DELIMITER, parent_names


async def resolve(state: SessionState, filters: Iterable[MailboxFilter]) -> list[str]:
    """Return the selectable mailboxes that one of `filters` matches; names that do not exist are left out."""
    filters = list(filters)
    names = [info.name for info in await state.account.mailboxes() if info.selectable]
    subscribed: set[str] = set()
    if any(f.kind == b"SUBSCRIBED" for f in filters):
        subscribed = await state.account.subscriptions()
    return [name for name in names if any(matches(state, f, name, subscribed) for f in filters)]


def matches(
    state: SessionState, mailbox_filter: MailboxFilter, name: str, subscribed: Container[str]
) -> bool:
    """Whether a filter matches the mailbox `name`."""
    match mailbox_filter.kind:
        case b"SELECTED" | b"SELECTED-DELAYED":
            return state.is_selected(name)
        # Delivery agents deliver into any mailbox, so these two are the same (RFC 5465 section 6.3).
        case b"PERSONAL" | b"INBOXES":
            return True
        case b"SUBSCRIBED":
            return name in subscribed
        case b"SUBTREE":
            names = mailbox_filter.names
            return name in names or not names.isdisjoint(parent_names(name))
        case b"SUBTREE-ONE":
            names = mailbox_filter.names
            return name in names or name.rpartition(DELIMITER)[0] in names
        case _:
            return name in mailbox_filter.names


@asynccontextmanager
async def opened(state: SessionState, name: str) -> AsyncIterator[tuple[IMailbox, View]]:
    """Open the mailbox `name` for a while, selected or not.

    Yields:
        The mailbox and a view of it; for the selected mailbox, the session's own view.

    Raises:
        NoSuchMailbox: there is no mailbox of this name.
    """
    if state.is_selected(name):
        yield state.mailbox, state.view
        return
    mailbox, _ = await state.account.open(name, False)
    view = View(mailbox.columns)
    mailbox.subscribe(view.on_change, False)
    try:
        yield mailbox, view
    finally:
        mailbox.unsubscribe(view.on_change)


def parents(names: Iterable[str]) -> set[str]:
    """Return the names of all mailboxes above `names`."""
    return {parent for name in names for parent in parent_names(name)}


def attributes(
    name: str,
    infos: Mapping[str, MailboxInfo],
    parents: Container[str],
    *,
    extended: bool = True,
    subscribed: Container[str] = (),
) -> list[bytes]:
    r"""Return the attributes of mailbox `name`.

    Args:
        name: a mailbox, or a name that only has children.
        infos: the mailboxes of the account.
        parents: the names above all mailboxes.
        extended: whether the client knows \NonExistent (RFC 5258, RFC 9051).
        subscribed: the subscribed names, if \Subscribed is wanted.
    """
    info = infos.get(name)
    found: list[bytes] = []
    if info is None or not info.selectable:
        found.append(b"\\NonExistent" if extended else b"\\Noselect")
    found.append(b"\\HasChildren" if name in parents else b"\\HasNoChildren")
    if info is not None:
        found += info.special_use
    if name in subscribed:
        found.append(b"\\Subscribed")
    return found
