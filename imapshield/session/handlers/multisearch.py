"""ESEARCH (RFC 7377): one search through several mailboxes, which need not be selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import BadCommand, NoSuchMailbox
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.query import leaves
from imapshield.mailbox.view import View
from imapshield.session import mailbox_filters
from imapshield.session.handlers.search import find, results
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.multisearch import MultiSearch
from imapshield.wire.commands.search import Search
from imapshield.wire.commands.search_keys import SequenceKey
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session

_SELECTED = MailboxFilter(b"SELECTED")


async def esearch(session: Session, command: MultiSearch) -> Tagged:
    """Answer with an ESEARCH response for each mailbox in which something was found.

    Message numbers are those of each mailbox; UPDATE is for the selected one alone (section 2.2).
    """
    update = b"UPDATE" in command.returns
    needs_selected = update or _SELECTED in command.sources
    if needs_selected and session.state is not State.SELECTED:
        raise BadCommand("Select a mailbox first")
    saved = b"SAVE" in command.returns or any(
        isinstance(key, SequenceKey) and key.sequence is None for key in leaves(command.key)
    )
    if saved and command.sources != (_SELECTED,):
        raise BadCommand("Saved results are those of the selected mailbox")
    names = await mailbox_filters.resolve(session, command.sources)
    search = Search(
        command.key, True, command.returns, command.partial, update_items=command.update_items
    )
    since = session.search_contexts.begin(search) if update else 0
    for name in names:
        try:
            async with mailbox_filters.opened(session, name) as (mailbox, view):
                await _one(session, search, mailbox, view, since)
        except NoSuchMailbox:
            continue
    if update and session.mailbox.name not in names:
        session.search_contexts.refuse(
            session.tag, "The selected mailbox is not among those searched"
        )
    if session.limit_code is not None:
        session.limit_code = None  # it has a UID, of some mailbox or other
        return ok("Searched the last messages of each mailbox", b"LIMIT")  # section 2.4
    return ok("Searched")


async def _one(session: Session, search: Search, mailbox: IMailbox, view: View, since: int) -> None:
    found = await find(session, search, mailbox, view)
    place = encode.esearch_mailbox(mailbox.name, mailbox.uidvalidity, utf8=session.utf8)
    if session.state is State.SELECTED and view is session.view:
        await session.search_contexts.keep(search, found, since, place)
    pairs = results(session, search, found, view)
    if found and pairs:
        session.io.write(encode.esearch(session.tag, True, pairs, place))
    await session.io.drain()
