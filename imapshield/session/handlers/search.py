"""SEARCH: which messages match, said plainly or extended, and kept for ``$``."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from imapshield.errors import BadCommand, CommandRefused
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.query import Query, leaves
from imapshield.mailbox.view import View
from imapshield.wire import encode
from imapshield.wire.commands.base import Command
from imapshield.wire.commands.multisearch import MultiSearch
from imapshield.wire.commands.search import Search
from imapshield.wire.commands.search_keys import And, ModseqKey, SequenceKey
from imapshield.wire.commands.sort_thread import Sort, Thread
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import compact

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def search(session: Session, command: Search) -> Tagged:
    """SEARCH and UID SEARCH (RFC 9051 section 6.4.4), with RFCs 4731, 5182 (SAVE), 5267 (UPDATE), 9394 (PARTIAL)."""
    if command.charset and b"UTF8=ACCEPT" in session.enabled:
        raise BadCommand(
            "After ENABLE UTF8=ACCEPT, texts are UTF-8 without CHARSET"
        )  # RFC 6855 section 3
    since = session.search_contexts.begin(command)
    uids = await find(session, command)
    await session.search_contexts.keep(command, uids, since)
    answer(session, command, uids, b"SEARCH")
    return done(session, "Searched")


def by_number(command: Command) -> bool:
    """Whether a search names messages by number: nothing may vanish during it, nor during UID SEARCH (RFC 7162)."""
    return isinstance(command, (Search, Sort, Thread, MultiSearch)) and any(
        isinstance(key, SequenceKey) and key.sequence is not None and not key.uid
        for key in leaves(command.key)
    )


def done(session: Session, text: str) -> Tagged:
    """Return the OK of a search, which says if there is less than the client knows of."""
    return ok(text, b"EXPUNGEISSUED" if session.view.has_pending_expunges else None)


async def find(
    session: Session,
    command: Search | Sort,
    mailbox: IMailbox | None = None,
    view: View | None = None,
    *,
    whole: bool = False,
) -> Sequence[int]:
    """Return the UIDs that match, rising, by default in the selected mailbox; `whole`: see `Session.within_limit`."""
    keys = list(leaves(command.key))
    if any(isinstance(key, ModseqKey) for key in keys):
        session.enable_condstore()
    if session.uid_only and by_number(command):
        raise session.uid_required()
    view = view or session.view
    query = Query(
        mailbox or session.mailbox,
        view,
        now=session.now(),
        saved=session.saved_search,
        pause=session.pause,
    )
    among: Sequence[int] = view.uids
    most = session.limits.max_messages_per_command
    if 0 < most < len(among):
        # what counts is what is looked at: the sets of numbers say what that is, UIDAFTER and UIDBEFORE among them
        one = command.key
        sets = [
            k for k in (one.keys if isinstance(one, And) else (one,)) if isinstance(k, SequenceKey)
        ]
        among = await query.run(And(tuple(sets)))
        if len(among) > most and whole:
            raise CommandRefused(b"MESSAGELIMIT %d" % most, "Those are too many at once")
        if len(among) > most:
            among = among[-most:]
            session.limit_code = b"MESSAGELIMIT %d %d" % (most, among[0])
    return await query.run(command.key, among)


def answer(session: Session, command: Search | Sort, uids: Sequence[int], kind: bytes) -> None:
    """Write what was found, in the order of `uids`, as ESEARCH or as the plain response `kind`; save it if asked."""
    if command.returns is None and session.rev2 and kind == b"SEARCH":
        # RFC 9051 section 6.4.4: there is no SEARCH response any more
        command = replace(command, returns=frozenset({b"ALL"}))
    if command.returns is None:
        modseq = _highest(session.view, uids) if _wants_modseq(command) else None
        numbers = uids if command.uid else session.view.numbers(uids)
        session.io.write(encode.search(numbers, modseq, kind=kind))
        return
    pairs = results(session, command, uids, session.view)
    if command.returns != {b"SAVE"}:
        session.io.write(encode.esearch(session.tag, command.uid, pairs))


def results(
    session: Session, command: Search | Sort, uids: Sequence[int], view: View
) -> list[tuple[bytes, int | bytes]]:
    """Return what the RETURN of `command` asks of what was found, and save it for ``$`` if that is asked."""
    returns = command.returns or frozenset()
    part = _part(uids, command.partial) if command.partial else ()
    told = _told(returns, uids, part)
    if b"SAVE" in returns:
        session.saved_search = array("I", sorted(told))
    if not command.uid:
        uids, part = view.numbers(uids), view.numbers(part)
    pairs = _results(returns, uids)
    if command.partial:
        first, last = command.partial
        pairs.append((b"PARTIAL", b"(%d:%d %b)" % (first, last, compact(part) or encode.NIL)))
    if told and _wants_modseq(command):
        pairs.append((b"MODSEQ", _highest(view, told)))
    return pairs


def _wants_modseq(command: Search | Sort) -> bool:
    return any(isinstance(key, ModseqKey) for key in leaves(command.key))


def _highest(view: View, uids: Sequence[int]) -> int:
    columns = view.columns
    rows = map(columns.row, uids)
    return max((columns.modseqs[row] for row in rows if row is not None), default=0)


def _part(found: Sequence[int], part: tuple[int, int]) -> Sequence[int]:
    """Cut out what RFC 9394 counts from the first, or backwards from the last."""
    near, far = part
    if near > 0:
        return found[near - 1 : far]
    return found[max(0, len(found) + far) : max(0, len(found) + near + 1)]


def _told(returns: frozenset[bytes], found: Sequence[int], part: Sequence[int]) -> Sequence[int]:
    """What SAVE saves and MODSEQ is the highest of: all, unless only some are told (RFC 5182 section 2.4, RFC 9394)."""
    if not found or returns & {b"ALL", b"COUNT"} or not returns & {b"MIN", b"MAX", b"PARTIAL"}:
        return found
    some = set(part)
    if b"MIN" in returns:
        some.add(found[0])
    if b"MAX" in returns:
        some.add(found[-1])
    return list(some)


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
