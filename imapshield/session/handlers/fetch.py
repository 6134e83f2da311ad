r"""FETCH: sends the messages that the command names in chunks, and sets \Seen where the items demand it.

Rules
-----
* A message becomes \Seen only if it is sent: a program that asks for unseen mail would never get it otherwise. So a
  chunk is read first, then its messages are marked, then they are sent, with their new flags. A message with a string
  that is too large for memory is marked after it was sent, because its file can fail in the middle.
* A message that cannot be read is left out. The others are sent, and the tagged response is NO.
* If the disk is full, messages are sent and do not become \Seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice

from imapshield.errors import MessageExpunged, NoSpace
from imapshield.mailbox.store_mailbox import MESSAGES_IN_PLACE
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session.fetch_responses import (
    FLAGS,
    MODSEQ,
    UID,
    chunk_of_rows,
    implicit_items,
    known_items,
    lines,
    memory_of,
    read_chunk,
    send_chunk,
    take,
)
from imapshield.session.session import Session
from imapshield.session.state import LOOKED_AT, Spans, partial_bounds, rows_in, slice_spans
from imapshield.wire import encode
from imapshield.wire.commands.fetch import Binary, BodySection, Fetch, FetchItem
from imapshield.wire.flags import SEEN
from imapshield.wire.responses import Tagged, no, ok
from imapshield.wire.sequence import SequenceSet, runs

FETCH_CHUNK_MESSAGES = 1000
"""Maximum number of messages per chunk; a thousand responses with flags are about 40 KB."""
SEEN_MESSAGES = 200
r"""Maximum number of messages that become \Seen before they are sent.

If the client disconnects, no more messages than these are \Seen without having been received.
"""

RANGE_BYTES = 130
"""Bytes that a range of UIDs takes: a tuple, and two numbers."""


async def fetch(session: Session, command: Fetch) -> Tagged:
    """Handle FETCH and UID FETCH (RFC 9051 section 6.4.5)."""
    if command.changed_since is not None or MODSEQ in command.items:
        session.enable_condstore()
    if command.vanished:
        session.require_qresync()
        assert command.changed_since is not None
        await send_vanished(session, command.sequence, command.changed_since)
    missing = await _fetch(session, await _spans(session, command), _items(session, command))
    if not missing:
        return ok("FETCH completed")
    # RFC 9051 section 6.4.9: a UID that does not exist is no error.
    respond = ok if command.uid else no
    return respond(MessageExpunged.text, b"EXPUNGEISSUED")


async def _spans(session: Session, command: Fetch) -> Spans:
    """Return the rows whose messages are sent."""
    spans = await session.rows_of(command.sequence, uid=command.uid)
    if command.partial is not None:
        near, far = sorted(map(abs, command.partial))
        session.within_limit([(0, far - near + 1)], whole=True)  # RFC 9738 section 3.1
        count = sum(stop - start for start, stop in spans)
        spans = slice_spans(spans, *partial_bounds(command.partial, count))
    # CHANGEDSINCE applies to the messages that PARTIAL has selected (RFC 9394 section 3.4).
    if command.changed_since is not None:
        spans = await _changed_since(session, spans, command.changed_since)
    return session.within_limit(spans)


def _items(session: Session, command: Fetch) -> list[FetchItem]:
    modseq = () if command.changed_since is None else (MODSEQ,)
    return implicit_items(session, [*command.items, *modseq], uid=command.uid)


def _sets_seen(item: FetchItem) -> bool:
    is_size = isinstance(item, Binary) and item.size_only
    return isinstance(item, BodySection | Binary) and not item.peek and not is_size


async def send_vanished(session: Session, uids: SequenceSet, since: int, *, above: int = 0) -> None:
    """Send VANISHED (EARLIER) for expunged messages (RFC 7162 section 3.2.10.1), except those with a pending EXPUNGE.

    Args:
        session: the session.
        uids: the messages to consider.
        since: a MODSEQ; only messages that were expunged after it are sent.
        above: a UID; only messages with a higher one are sent.
    """
    if uids.saved:
        uids = SequenceSet.from_numbers(session.saved_search)
    expunged = await session.mailbox.vanished(since)
    view = session.view
    largest = view.columns.uidnext - 1
    known = uids.resolve(largest)
    if above:
        known = [(max(first, above + 1), last) for first, last in known if last > above]
    steps = min(LOOKED_AT, len(known) + len(expunged.ranges))
    ranges: list[tuple[int, int]] = []
    for part in expunged.intersection_parts(known, steps):
        ranges += part
        await session.worked(steps)
    vanished = SequenceSet(tuple(ranges))
    if view.has_pending_expunges:
        vanished = vanished.intersection(SequenceSet.complement(view.uids, largest + 1).ranges)
    if vanished:
        del expunged
        with session.io.hold_result(RANGE_BYTES * len(vanished.ranges)):
            await session.send(encode.vanished(vanished, earlier=True))


async def send_changed(session: Session, uids: SequenceSet, since: int) -> None:
    """Send the flags of messages that have changed after the MODSEQ `since`, for SELECT with QRESYNC.

    MESSAGELIMIT does not apply to SELECT.
    """
    spans = await _changed_since(session, await session.rows_of(uids, uid=True), since)
    await _fetch(session, spans, implicit_items(session, [FLAGS, MODSEQ], uid=True))


async def _fetch(session: Session, spans: Spans, items: list[FetchItem]) -> bool:
    """Send the responses for `spans`, and return whether some messages no longer exist."""
    sets_seen = not session.readonly and any(map(_sets_seen, items))
    batch_size = SEEN_MESSAGES if sets_seen else FETCH_CHUNK_MESSAGES
    if any(isinstance(item, BodySection) and not item.section.text for item in items):
        # A chunk has no more messages of a usual size, and may be read in place.
        batch_size = MESSAGES_IN_PLACE
    if sets_seen and any(isinstance(item, Binary) for item in items):
        batch_size = 1  # the messages before one that BINARY cannot decode are sent
    missing = False
    for chunk in _chunks(session, spans):
        rows, uids = chunk, take(session.view.uids, chunk)
        while uids:
            if session.io.full or session.io.turn_is_over:
                await session.io.drain()  # with nothing in memory
            fetched = await read_chunk(session, uids[:batch_size], items)
            done = max(1, fetched.count)
            unreadable = len(fetched.unreadable)
            if sets_seen or _has_blob(fetched.columns):
                with session.io.hold_result(memory_of(fetched)):
                    parts = _parts(fetched) if sets_seen else iter((fetched,))
                    del fetched
                    sent = await _send_parts(
                        session, rows[:done], uids[:done], items, parts, sets_seen=sets_seen
                    )
                    del parts
            else:
                sent = await _send_result(session, rows[:done], uids[:done], items, fetched)
                del fetched
            session.io.add_work(done - sent)  # the other messages were counted when they were sent
            session.failed_messages += unreadable
            missing = missing or sent + unreadable < done
            rows, uids = rows[done:], uids[done:]
    if session.io.full:  # Otherwise the tagged response is sent with the last chunk.
        await session.io.drain()
    return missing


async def _send_result(
    session: Session,
    rows: Sequence[int],
    uids: Sequence[int],
    items: list[FetchItem],
    fetched: FetchResult,
) -> int:
    """Send a result of the store for `uids` that has no blobs; return the number of messages that were sent."""
    responses = chunk_of_rows(session, rows, uids, items, fetched)
    await session.send(lines(session, responses), held=partial(memory_of, fetched))
    return len(responses.rows.uids)


async def _send_parts(
    session: Session,
    rows: Sequence[int],
    uids: Sequence[int],
    items: list[FetchItem],
    parts: Iterator[FetchResult],
    *,
    sets_seen: bool,
) -> int:
    """Send the parts of one result of the store for `uids`; return the number of messages that were sent."""
    sent = 0
    for part in parts:
        chunk_items = await _items_of_seen(session, part, items) if sets_seen else items
        responses = chunk_of_rows(session, rows, uids, chunk_items, part)
        done = await send_chunk(session, responses)
        if sets_seen and responses.has_blobs and done:
            await _mark_seen_later(session, responses.rows.uids, uid=UID in items)
        sent += done
    return sent


def _has_blob(columns: Iterable[Sequence[bytes | Blob]]) -> bool:
    return any(Blob in map(type, column) for column in columns)


def _parts(fetched: FetchResult) -> Iterator[FetchResult]:
    """Divide a result into parts that are marked and sent one after the other: a message with blobs is one of its own.

    If such a message cannot be sent completely, the connection is reset. Then those behind it were not sent either.
    """
    if not _has_blob(fetched.columns):
        yield fetched
        return
    blob_rows = {i for i in range(len(fetched.uids)) if _has_blob([c[i]] for c in fetched.columns)}
    for is_streamed, group in groupby(range(len(fetched.uids)), blob_rows.__contains__):
        rows = list(group)
        for part in [[row] for row in rows] if is_streamed else [rows]:
            columns = [[column[row] for row in part] for column in fetched.columns]
            yield FetchResult([fetched.uids[row] for row in part], columns)


async def _items_of_seen(
    session: Session, part: FetchResult, items: list[FetchItem]
) -> list[FetchItem]:
    r"""Set \Seen on messages that are about to be sent, and return the items of the responses.

    A message with blobs is marked after it was sent, because its file can fail in the middle.
    """
    if not _has_blob(part.columns):
        await _mark_seen(session, part.uids)
    return _with_flags(session, items) if any(map(session.view.flags_changed, part.uids)) else items


async def _mark_seen_later(session: Session, uids: Sequence[int], *, uid: bool) -> None:
    r"""Set \Seen on messages that were sent, and send another response with their new flags."""
    await _mark_seen(session, uids)
    changed = [uid for uid in uids if session.view.flags_changed(uid)]
    await session.send(known_items(session, changed, [FLAGS], uid=uid))


def _with_flags(session: Session, items: list[FetchItem]) -> list[FetchItem]:
    r"""Add FLAGS, which RFC 9051 section 6.4.5 demands in the response that makes a message \Seen."""
    if FLAGS in items:
        return items
    flags = [UID, FLAGS] if UID in items else [FLAGS]
    first = implicit_items(session, flags, uid=session.condstore)
    return [*first, *(item for item in items if item not in first)]


def _chunks(session: Session, spans: Spans) -> Iterator[Sequence[int]]:
    """Divide rows into chunks of at most `FETCH_CHUNK_MESSAGES`. A chunk without gaps is a range, which is faster.

    If MESSAGELIMIT cuts the command short, each row is a chunk and the last one comes first (RFC 9738 section 3.1).
    """
    if session.limit_code:
        yield from ([row] for start, stop in reversed(spans) for row in range(start, stop)[::-1])
    elif len(spans) == 1:
        ((start, stop),) = spans
        for first in range(start, stop, FETCH_CHUNK_MESSAGES):
            yield range(first, min(stop, first + FETCH_CHUNK_MESSAGES))
    else:
        rows = rows_in(spans)
        while chunk := list(islice(rows, FETCH_CHUNK_MESSAGES)):
            without_gaps = chunk[-1] - chunk[0] < len(chunk)
            yield range(chunk[0], chunk[-1] + 1) if without_gaps else chunk


async def _changed_since(session: Session, spans: Spans, modseq: int) -> Spans:
    """Return those of the rows in `spans` that have changed after `modseq`. It looks at many rows in several turns."""
    view, columns = session.view, session.view.columns
    found: list[tuple[int, int]] = []
    rows = rows_in(spans)
    while batch := list(islice(rows, LOOKED_AT)):
        modseqs = columns.modseqs
        if view.uids is columns.uids:
            changed = [row for row in batch if modseqs[row] > modseq]
        else:
            changed = [
                row
                for row in batch
                if (i := columns.row(view.uids[row])) is not None and modseqs[i] > modseq
            ]
        found += [(first, last + 1) for first, last in runs(changed)]
        await session.worked(len(batch))
    return found


async def _mark_seen(session: Session, uids: Sequence[int]) -> None:
    columns = session.view.columns
    seen = columns.flag_ids_with(SEEN)
    unseen = [
        uid
        for uid in uids
        if (row := columns.row(uid)) is not None and columns.flag_ids[row] not in seen
    ]
    if unseen:
        with suppress(NoSpace):  # on a full disk, mail can be read all the same
            await session.mailbox.store_flags(unseen, b"+", [SEEN], None)
