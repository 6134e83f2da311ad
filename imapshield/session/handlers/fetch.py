r"""FETCH: which messages, in which chunks, and which of them become \Seen."""

from collections.abc import Iterable, Iterator, Sequence

from imapshield.session.fetch_responses import FLAGS, MODSEQ, UID, implicit_items, send_rows, take
from imapshield.session.session import Session
from imapshield.session.state import Spans, partial_bounds, slice_spans
from imapshield.wire import encode
from imapshield.wire.commands.fetch import Binary, BodySection, Fetch, FetchItem
from imapshield.wire.commands.mailboxes import Select
from imapshield.wire.responses import Tagged, no, ok
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

CHUNK_MESSAGES = 1000
"""Messages per chunk; a thousand responses with flags are some 40 KB."""
SEEN_MESSAGES = 200
r"""Messages that become \Seen before they are read: if the client disconnects, few of them are \Seen and unread."""


async def fetch(session: Session, command: Fetch) -> Tagged:
    """Handle FETCH and UID FETCH (RFC 9051 section 6.4.5)."""
    if command.changed_since is not None or MODSEQ in command.items:
        session.enable_condstore()
    if command.vanished:
        session.require_qresync()
        assert command.changed_since is not None
        await send_vanished(session, command.sequence, command.changed_since)
    missing = await _fetch(session, _spans(session, command), _items(session, command))
    if not missing:
        return ok("FETCH completed")
    # RFC 9051 section 6.4.9: a UID that does not exist is no error.
    respond = ok if command.uid else no
    return respond("Some messages no longer exist", b"EXPUNGEISSUED")


def _spans(session: Session, command: Fetch) -> Spans:
    """Return the rows that the command names."""
    spans = session.rows_of(command.sequence, uid=command.uid)
    if command.partial is not None:
        near, far = sorted(map(abs, command.partial))
        session.within_limit([(0, far - near + 1)], whole=True)  # RFC 9738 section 3.1
        count = sum(stop - start for start, stop in spans)
        spans = slice_spans(spans, *partial_bounds(command.partial, count))
    # CHANGEDSINCE selects of those that PARTIAL has selected (RFC 9394 section 3.4).
    if command.changed_since is not None:
        spans = _changed_since(session, spans, command.changed_since)
    # SELECT with QRESYNC sends all changes.
    return spans if isinstance(session.command, Select) else session.within_limit(spans)


def _items(session: Session, command: Fetch) -> list[FetchItem]:
    items = list(command.items)
    if command.changed_since is not None:
        items.append(MODSEQ)
    return implicit_items(session, items, uid=command.uid)


def _sets_seen(item: FetchItem) -> bool:
    if isinstance(item, Binary) and item.size_only:
        return False
    return isinstance(item, BodySection | Binary) and not item.peek


async def send_vanished(session: Session, uids: SequenceSet, since: int, *, above: int = 0) -> None:
    """Send VANISHED (EARLIER) for expunged messages (RFC 7162 section 3.2.10.1), except those with a pending EXPUNGE.

    Args:
        session: the session.
        uids: the messages to consider.
        since: a MODSEQ; messages expunged after it are sent.
        above: only UIDs above this one are sent.
    """
    if uids.saved:
        uids = SequenceSet.from_uids(session.saved_search)
    expunged = await session.mailbox.vanished(since)
    view = session.view
    largest = view.columns.uidnext - 1
    vanished = expunged.intersection(uids.resolve(largest)).intersection([(above + 1, MAX_NUMBER)])
    if vanished.matching_slices(view.uids, 0):
        vanished = vanished.intersection(SequenceSet.complement(view.uids, largest + 1).ranges)
    if vanished:
        session.io.write(encode.vanished(vanished, earlier=True))


async def _fetch(session: Session, spans: Spans, items: list[FetchItem]) -> bool:
    """Send the responses for `spans`; returns whether some messages no longer exist."""
    marks = not session.readonly and any(map(_sets_seen, items))
    sizes = [Binary(item.path, size_only=True) for item in items if isinstance(item, Binary)]
    at_once = CHUNK_MESSAGES if not marks else 1 if sizes else SEEN_MESSAGES
    missing = False
    for chunk in _chunks(session, spans):
        rows, uids = chunk, take(session.view.uids, chunk)
        while uids:
            batch, shown = uids[:at_once], items
            if marks:
                if sizes:  # an undecodable part is refused before its message becomes \Seen
                    await session.mailbox.fetch(batch, sizes, session.limits.fetch_chunk_size)
                await _mark_seen(session, batch)
                if any(map(session.view.flags_changed, batch)):
                    shown = _with_flags(session, items)
            done, some_missing = await send_rows(session, rows, batch, shown)
            missing = missing or some_missing
            rows, uids = rows[done:], uids[done:]
            await session.io.drain()
    return missing


def _with_flags(session: Session, items: list[FetchItem]) -> list[FetchItem]:
    r"""Add FLAGS, which RFC 9051 section 6.4.5 demands in the response that makes a message \Seen."""
    if FLAGS in items:
        return items
    first = implicit_items(session, [FLAGS], uid=UID in items or session.condstore)
    return [*first, *(item for item in items if item not in first)]


def _chunks(session: Session, spans: Spans) -> Iterator[Sequence[int]]:
    """Divide rows into chunks.

    Where MESSAGELIMIT cuts the command short, each row is a chunk and the last comes first (RFC 9738 section 3.1).
    """
    if session.limit_code:
        return ([row] for start, stop in reversed(spans) for row in reversed(range(start, stop)))
    return _rising_chunks(spans)


def _rising_chunks(spans: Spans) -> Iterator[Sequence[int]]:
    """Divide rows into chunks of at most `CHUNK_MESSAGES`; a chunk of one span is a range."""
    gathered: list[int] = []
    for start, stop in spans:
        position = start
        while position < stop:
            end = min(stop, position + CHUNK_MESSAGES - len(gathered))
            if not gathered and (end - position == CHUNK_MESSAGES or len(spans) == 1):
                yield range(position, end)
            else:
                gathered += range(position, end)
                if len(gathered) == CHUNK_MESSAGES:
                    yield gathered
                    gathered = []
            position = end
    if gathered:
        yield gathered


def _changed_since(session: Session, spans: Spans, modseq: int) -> Spans:
    """Return those of the rows in `spans` that have changed after `modseq`."""
    view, columns = session.view, session.view.columns
    modseqs = columns.modseqs
    changed: Iterable[int]
    if view.uids is columns.uids:
        changed = [i for span in spans for i in range(*span) if modseqs[i] > modseq]
    else:
        changed = [
            i
            for span in spans
            for i in range(*span)
            if (row := columns.row(view.uids[i])) is not None and modseqs[row] > modseq
        ]
    return [(first, last + 1) for first, last in SequenceSet.from_uids(changed).ranges]


async def _mark_seen(session: Session, uids: Sequence[int]) -> None:
    columns = session.view.columns
    seen = columns.flag_ids_with(b"\\Seen")
    unseen = [
        uid
        for uid in uids
        if (row := columns.row(uid)) is not None and columns.flag_ids[row] not in seen
    ]
    if unseen:
        await session.mailbox.store_flags(unseen, b"+", [b"\\Seen"], None)
