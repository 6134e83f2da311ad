"""ESEARCH (RFC 7377): one search through several mailboxes, selected or not."""

from __future__ import annotations

from imapshield.errors import BadCommand, NoSuchMailbox
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.query import leaf_keys
from imapshield.mailbox.view import View
from imapshield.session import mailbox_filters
from imapshield.session.handlers.search import find, return_values
from imapshield.session.session import Session
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.multisearch import MultiSearch
from imapshield.wire.commands.search import Search
from imapshield.wire.commands.search_keys import SequenceKey
from imapshield.wire.responses import Tagged, ok

_SELECTED = MailboxFilter(b"SELECTED")


async def esearch(session: Session, command: MultiSearch) -> Tagged:
    """Handle ESEARCH: an ESEARCH response for each mailbox in which something was found.

    Sequence numbers are those of each mailbox; UPDATE applies to the selected mailbox only (section 2.2).
    """
    update = b"UPDATE" in command.returns
    if (update or _SELECTED in command.sources) and session.state is not State.SELECTED:
        raise BadCommand("Select a mailbox first")
    saved = b"SAVE" in command.returns or any(
        isinstance(key, SequenceKey) and key.sequence is None for key in leaf_keys(command.key)
    )
    if saved and command.sources != (_SELECTED,):
        raise BadCommand("SAVE and $ apply to the selected mailbox only")
    names = await mailbox_filters.resolve(session, command.sources)
    search = Search(
        command.key, True, command.returns, command.partial, update_items=command.update_items
    )
    since = session.search_contexts.begin(search) if update else 0
    for name in names:
        try:
            async with mailbox_filters.opened(session, name) as (mailbox, view):
                await _search(session, search, mailbox, view, since)
        except NoSuchMailbox:
            continue
    if update and session.mailbox.name not in names:
        text = "Selected mailbox is not among those searched"
        session.search_contexts.send_noupdate(session.tag, text)
    if session.limit_code is not None:
        # MESSAGELIMIT contains a UID, which would be of any mailbox (section 2.4).
        session.limit_code = None
        return ok("Only the last messages of each mailbox were searched", b"LIMIT")
    return ok("ESEARCH completed")


async def _search(
    session: Session, search: Search, mailbox: IMailbox, view: View, since: int
) -> None:
    uids = await find(session, search, mailbox, view)
    source = encode.esearch_mailbox(mailbox.name, mailbox.uidvalidity, utf8=session.utf8)
    if session.state is State.SELECTED and view is session.view:
        await session.search_contexts.keep(search, uids, since, source)
    pairs = return_values(session, search, uids, view)
    if uids and pairs:
        session.io.write(encode.esearch(session.tag, True, pairs, source))
    await session.io.drain()
