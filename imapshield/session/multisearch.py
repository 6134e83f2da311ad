"""ESEARCH (RFC 7377): one search through several mailboxes, which need not be selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import Malformed, NoSuchMailbox
from imapshield.mailbox.interfaces import IMailbox
from imapshield.mailbox.query import leaves
from imapshield.mailbox.view import View
from imapshield.session import searching, sources
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands import InSet, MailboxFilter, MultiSearch, Search
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session

_SELECTED = (MailboxFilter(b"SELECTED"),)


async def esearch(session: Session, command: MultiSearch) -> Tagged:
    """Answer with an ESEARCH response for each mailbox in which something was found."""
    alone = command.sources == _SELECTED
    if alone and session.state is not State.SELECTED:
        raise Malformed("Select a mailbox first")
    numbers = (key for key in leaves(command.key) if isinstance(key, InSet))
    if not alone and (
        b"SAVE" in command.returns or any(k.sequence is None or not k.uid for k in numbers)
    ):
        raise Malformed("Message numbers and saved results are those of the selected mailbox")
    search = Search(command.key, True, command.returns, command.partial)
    for name in await sources.resolve(session, command.sources):
        try:
            async with sources.opened(session, name) as (mailbox, view):
                await _one(session, search, mailbox, view)
        except NoSuchMailbox:
            continue
    return ok("Searched")


async def _one(session: Session, search: Search, mailbox: IMailbox, view: View) -> None:
    found = await searching.find(session, search, mailbox, view)
    pairs = searching.results(session, search, found, view)
    if found and pairs:
        place = encode.search_place(mailbox.name, mailbox.uidvalidity, utf8=session.utf8)
        session.io.write(encode.esearch(session.tag, True, pairs, place))
    await session.io.drain()
