"""SEARCH, ESEARCH and CANCELUPDATE: the matching messages, as a SEARCH or ESEARCH response, and saved for ``$``."""

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from sys import getsizeof

from imapshield.errors import BadCommand, NoSuchMailbox
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.query import Query, leaf_keys
from imapshield.mailbox.view import View
from imapshield.session import mailbox_names
from imapshield.session.session import Session
from imapshield.session.state import State, partial_bounds
from imapshield.wire import encode, strings
from imapshield.wire.commands.base import Command
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.commands.search import (
    And,
    CancelUpdate,
    ModseqKey,
    MultiSearch,
    Search,
    SearchKey,
    SequenceKey,
    Sort,
    Thread,
)
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import compact_pieces

_SELECTED_MAILBOX = MailboxFilter(b"SELECTED")

AnySearch = Search | Sort | Thread


async def search(session: Session, command: Search) -> Tagged:
    """Handle SEARCH and UID SEARCH (RFC 9051 section 6.4.4).

    Supports the return options of RFC 4731, RFC 5182 (SAVE), RFC 5267 (UPDATE) and RFC 9394 (PARTIAL).
    """
    if command.charset and b"UTF8=ACCEPT" in session.enabled:
        raise BadCommand("CHARSET is not allowed after ENABLE UTF8=ACCEPT")  # RFC 6855 section 3
    since = session.search_contexts.begin(command)
    uids = await find(session, command, session.mailbox, session.view)
    await session.search_contexts.keep(command, uids, since)
    await send_results(session, command, uids, b"SEARCH")
    return completed(session, "SEARCH completed")


async def cancel_update(session: Session, command: CancelUpdate) -> Tagged:
    """Handle CANCELUPDATE (RFC 5267); tags that belong to no search with UPDATE are ignored."""
    for tag in command.tags:
        session.search_contexts.drop(tag)
    return ok("CANCELUPDATE completed")


def uses_sequence_numbers(command: Command | None) -> bool:
    """Whether a command is a search for sequence numbers.

    Then no EXPUNGE may be sent before its tagged response, not even for UID SEARCH (RFC 7162).
    """
    return isinstance(command, AnySearch | MultiSearch) and any(
        isinstance(key, SequenceKey) and not key.sequence.saved and not key.uid
        for key in leaf_keys(command.key)
    )


def saves_result(command: Command | None) -> bool:
    """Whether a command is a search with SAVE (RFC 5182)."""
    return isinstance(command, Search | Sort | MultiSearch) and b"SAVE" in (command.returns or ())


def completed(session: Session, text: str) -> Tagged:
    """Return the OK response to a search, with EXPUNGEISSUED if the client knows messages that no longer exist."""
    return ok(text, b"EXPUNGEISSUED" if session.view.has_pending_expunges else None)


async def find(
    session: Session, command: AnySearch, mailbox: IMailbox, view: View, *, whole: bool = False
) -> Sequence[int]:
    """Return the UIDs of the matching messages, in ascending order. Messages that cannot be read are counted as failed.

    Args:
        session: the session.
        command: the search.
        mailbox: the mailbox to search.
        view: the client's view of `mailbox`.
        whole: whether more messages than MESSAGELIMIT are an error. If not, only the last ones are searched, and
            `limit_code` is set.

    Raises:
        CommandRefused: there are too many messages, and `whole` is set.
        BadCommand: the search contains sequence numbers after ENABLE UIDONLY.
    """
    if _has_modseq(command.key):
        session.enable_condstore()
    if session.uid_only and uses_sequence_numbers(command):
        raise session.uid_required()
    query = Query(mailbox, view, now=session.now(), saved=session.saved_search, pause=session.pause)
    candidates: Sequence[int] = view.uids
    limit = session.limits.max_messages_per_command
    if 0 < limit < len(candidates):
        # The limit applies to the messages to examine; sequence sets, UIDAFTER and UIDBEFORE reduce their number.
        key = command.key
        keys = key.keys if isinstance(key, And) else (key,)
        sets = [k for k in keys if isinstance(k, SequenceKey)]
        candidates = await query.run(And(tuple(sets)))
        if len(candidates) > limit:
            if whole:
                raise session.too_many_messages()
            candidates = candidates[-limit:]
            session.limit_code = b"MESSAGELIMIT %d %d" % (limit, candidates[0])
    matching = await query.run(command.key, candidates)
    session.failed_messages += len(query.unreadable)
    # Four bytes for each, however long the client takes to read the response.
    return matching if isinstance(matching, array) else array("I", matching)


async def send_results(
    session: Session, command: Search | Sort, uids: Sequence[int], kind: bytes
) -> None:
    """Send the results of a search of the selected mailbox, and save them if the command says SAVE.

    Args:
        session: the session.
        command: the search.
        uids: the results, in the order of the response.
        kind: SEARCH or SORT, the name of the response without return options.
    """
    if command.returns is None and session.rev2 and kind == b"SEARCH":
        # RFC 9051 section 6.4.4: IMAP4rev2 has no SEARCH response.
        command = replace(command, returns=frozenset({b"ALL"}))
    if command.returns is None:
        modseq = _highest_modseq(session.view, uids) if _has_modseq(command.key) else None
        numbers = uids if command.uid else compact_numbers(session.view, uids)
        with session.io.hold_result(getsizeof(uids) + getsizeof(numbers)):
            await session.send(encode.search(numbers, modseq, kind=kind))
        return
    pairs = save_and_encode_results(session, command, uids, session.view)
    if command.returns != {b"SAVE"}:
        with session.io.hold_result(2 * getsizeof(uids)):  # the UIDs and the sequence numbers
            await session.send(encode.esearch(session.tag, command.uid, pairs))


def save_and_encode_results(
    session: Session, command: Search | Sort, uids: Sequence[int], view: View
) -> list[tuple[bytes, encode.Value]]:
    """Save the results if `command` says SAVE, and return the name and value of each return option for ESEARCH."""
    returns = command.returns or frozenset()
    partial: Sequence[int] = ()
    if command.partial:
        start, stop = partial_bounds(command.partial, len(uids))
        partial = uids[start:stop]
    returned = _returned(returns, uids, partial)
    if b"SAVE" in returns:
        session.saved_search = array("I", sorted(returned))
    if not command.uid:
        uids, partial = compact_numbers(view, uids), compact_numbers(view, partial)
    pairs = _pairs(returns, uids)
    if command.partial:
        first, last = command.partial
        begin = b"(%d:%d " % (first, last)
        values = compact_pieces(partial) if partial else (strings.NIL,)
        pairs.append((b"PARTIAL", chain((begin,), values, (b")",))))
    if returned and _has_modseq(command.key):
        pairs.append((b"MODSEQ", _highest_modseq(view, returned)))
    return pairs


def compact_numbers(view: View, uids: Sequence[int]) -> Sequence[int]:
    """Return the sequence numbers of `uids`, as a range or an array."""
    numbers = view.numbers(uids)
    return numbers if isinstance(numbers, range) else array("I", numbers)


def _has_modseq(key: SearchKey) -> bool:
    return any(isinstance(leaf, ModseqKey) for leaf in leaf_keys(key))


def _highest_modseq(view: View, uids: Sequence[int]) -> int:
    columns = view.columns
    rows = map(columns.row, uids)
    return max((columns.modseqs[row] for row in rows if row is not None), default=0)


def _returned(
    returns: frozenset[bytes], uids: Sequence[int], partial: Sequence[int]
) -> Sequence[int]:
    """Return the results to which SAVE and MODSEQ apply.

    These are all results, unless the response contains only some of them (RFC 5182 section 2.4, RFC 9394).
    """
    if not uids or returns & {b"ALL", b"COUNT"} or not returns & {b"MIN", b"MAX", b"PARTIAL"}:
        return uids
    returned = set(partial)
    if b"MIN" in returns:
        returned.add(uids[0])
    if b"MAX" in returns:
        returned.add(uids[-1])
    return list(returned)


def _pairs(returns: frozenset[bytes], numbers: Sequence[int]) -> list[tuple[bytes, encode.Value]]:
    """Return the values of MIN, MAX, ALL and COUNT; without results, only COUNT has a value."""
    pairs: list[tuple[bytes, encode.Value]] = []
    if numbers:
        if b"MIN" in returns:
            pairs.append((b"MIN", numbers[0]))
        if b"MAX" in returns:
            pairs.append((b"MAX", numbers[-1]))
        if b"ALL" in returns:
            pairs.append((b"ALL", compact_pieces(numbers)))
    if b"COUNT" in returns:
        pairs.append((b"COUNT", len(numbers)))
    return pairs


async def esearch(session: Session, command: MultiSearch) -> Tagged:
    """Handle ESEARCH (RFC 7377), which sends one ESEARCH response for each mailbox with matching messages.

    Sequence numbers in the search refer to each mailbox separately. UPDATE applies only to the selected mailbox
    (section 2.2).
    """
    update = b"UPDATE" in command.returns
    if (update or _SELECTED_MAILBOX in command.sources) and session.state is not State.SELECTED:
        raise BadCommand("Select a mailbox first")
    saved = b"SAVE" in command.returns or any(
        isinstance(key, SequenceKey) and key.sequence.saved for key in leaf_keys(command.key)
    )
    if saved and command.sources != (_SELECTED_MAILBOX,):
        raise BadCommand("SAVE and $ apply to the selected mailbox only")
    names = await mailbox_names.matching_mailboxes(session, command.sources)
    mailbox_search = Search(
        command.key, True, command.returns, command.partial, update_items=command.update_items
    )
    since = session.search_contexts.begin(mailbox_search) if update else 0
    with session.io.hold_result(sum(map(getsizeof, names))):
        for name in names:
            with suppress(NoSuchMailbox):
                async with mailbox_names.opened(session, name) as (mailbox, view):
                    await _search(session, mailbox_search, mailbox, view, since)
    if update and session.mailbox.name not in names:
        text = "Selected mailbox is not among those searched"
        session.search_contexts.send_noupdate(session.tag, text)
    if session.limit_code is not None:
        # MESSAGELIMIT contains a UID, and it would not be clear in which mailbox (section 2.4).
        session.limit_code = None
        return ok("Only the last messages of each mailbox were searched", b"LIMIT")
    return ok("ESEARCH completed")


async def _search(
    session: Session, command: Search, mailbox: IMailbox, view: View, since: int
) -> None:
    uids = await find(session, command, mailbox, view)
    source = encode.esearch_mailbox(mailbox.name, mailbox.uidvalidity, names=session.names)
    if session.state is State.SELECTED and view is session.view:
        await session.search_contexts.keep(command, uids, since, source)
    pairs = save_and_encode_results(session, command, uids, view)
    if uids and pairs:
        with session.io.hold_result(getsizeof(uids)):
            await session.send(encode.esearch(session.tag, True, pairs, source))
    await session.io.drain()
