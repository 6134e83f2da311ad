"""SEARCH: which messages match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imapshield.mailbox.query import Query
from imapshield.wire import encode
from imapshield.wire.commands import Search
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import compact

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def search(session: Session, command: Search) -> Tagged:
    """SEARCH and UID SEARCH (RFC 9051 section 6.4.4), plain or extended (RFC 4731)."""
    query = Query(
        session.mailbox,
        session.view,
        now=session.now(),
        saved=session.saved,
        pause=session.io.drain,
    )
    uids = await query.run(command.key)
    numbers = uids if command.uid else _numbers(session, uids)
    if command.returns is None:
        session.io.write(encode.search(numbers))
    else:
        session.io.write(
            encode.esearch(session.tag, command.uid, _results(command.returns, numbers))
        )
    return ok("Searched")


def _numbers(session: Session, uids: Sequence[int]) -> Sequence[int]:
    if uids is session.view.uids:
        return range(1, len(uids) + 1)
    return [n for uid in uids if (n := session.view.number(uid)) is not None]


def _results(returns: frozenset[bytes], numbers: Sequence[int]) -> list[tuple[bytes, int | bytes]]:
    """Return what RETURN asked for; nothing is said of a minimum, maximum or set that there is not."""
    pairs: list[tuple[bytes, int | bytes]] = []
    if numbers:
        if b"MIN" in returns:
            pairs.append((b"MIN", numbers[0]))
        if b"MAX" in returns:
            pairs.append((b"MAX", numbers[-1]))
        if b"ALL" in returns:
            pairs.append((b"ALL", compact(numbers)))
    if b"COUNT" in returns:
        pairs.append((b"COUNT", len(numbers)))
    return pairs
