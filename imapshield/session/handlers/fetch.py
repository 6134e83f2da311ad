"""FETCH: what the columns know goes out as it is; the rest comes from the store, a piece at a time.

Rules
-----
* One piece a turn: `limits.chunk` octets or `PIECE` messages, then the peer has to read and others have their turn.
* No object is made per message: values travel in columns, and one template makes the lines.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from imapshield.errors import StoreError
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session import qresync
from imapshield.wire import encode
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, Fetch, FetchItem
from imapshield.wire.commands.select import Select
from imapshield.wire.dates import encode_internaldate
from imapshield.wire.responses import Tagged, no, ok
from imapshield.wire.sequence import SequenceSet

if TYPE_CHECKING:
    from imapshield.session.session import Session

PIECE = 1000
"""Messages a turn; a thousand lines of flags are some 40 KB."""

KNOWN = frozenset({b"UID", b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"MODSEQ"})
"""Items that are answered without asking the store."""

_UID, _FLAGS, _MODSEQ = Attribute(b"UID"), Attribute(b"FLAGS"), Attribute(b"MODSEQ")
_SIZE = Attribute(b"RFC822.SIZE")

Column = Sequence[bytes | int] | Sequence[bytes | Blob]


async def fetch(session: Session, command: Fetch) -> Tagged:
    """FETCH and UID FETCH (RFC 9051 section 6.4.5)."""
    view = session.view
    if command.changed_since is not None or _MODSEQ in command.items:
        session.enable_condstore()
    if command.vanished:
        qresync.check(session)
        assert command.changed_since is not None
        await qresync.vanished(session, command.sequence, command.changed_since)
    spans: Sequence[tuple[int, int]] = session.rows_of(command.sequence, uid=command.uid)
    if command.partial is not None:
        near, far = sorted(map(abs, command.partial))
        session.within_limit([(0, far - near + 1)], whole=True)  # RFC 9738 section 3.1
        spans = _cut(spans, command.partial)
    if command.changed_since is not None:  # of those; "first" the part (RFC 9394 section 3.4)
        spans = _changed_since(session, spans, command.changed_since)
    if not isinstance(session.command, Select):  # QRESYNC tells of everything
        spans = session.within_limit(spans)
    items = _items(session, command)
    marks = not session.readonly and any(
        isinstance(i, (BodySection, Binary)) and not i.peek and not _size_only(i) for i in items
    )
    decoded = [Binary(i.path, size_only=True) for i in items if isinstance(i, Binary)]
    at_once = 1 if decoded else _MARKED
    gone = False
    for rows in _downwards(spans) if session.limit_code else _pieces(spans):
        numbers, uids = rows, _take(view.uids, rows)
        while uids:
            shown = items
            if marks:
                if decoded:  # a part that cannot be is refused before its message counts as read
                    await session.mailbox.fetch(uids[:1], decoded, session.limits.fetch_chunk_size)
                await _mark_seen(session, uids[:at_once])
                if any(map(view.flags_changed, uids[:at_once])):
                    shown = _with_flags(session, items)
            done, missing = await _piece(session, numbers, uids[:at_once] if marks else uids, shown)
            gone = gone or missing
            numbers, uids = numbers[done:], uids[done:]
            await session.io.drain()
    if gone:
        missing_some = "Some of the messages no longer exist", b"EXPUNGEISSUED"
        # RFC 9051 section 6.4.9: a UID that is not there is no error
        return ok(*missing_some) if command.uid else no(*missing_some)
    return ok("Fetched")


_MARKED = 200
"""Messages marked \\Seen before they are read: a client that goes away has few marked in vain."""


def _size_only(item: FetchItem) -> bool:
    return isinstance(item, Binary) and item.size_only


def _items(session: Session, command: Fetch) -> list[FetchItem]:
    items = list(dict.fromkeys(command.items))
    if command.uid and _UID not in items and not session.uid_only:
        items.insert(0, _UID)
    wants_modseq = command.changed_since is not None or (session.condstore and _FLAGS in items)
    if wants_modseq and _MODSEQ not in items:
        items.append(_MODSEQ)
    return items


def _with_flags(session: Session, items: list[FetchItem]) -> list[FetchItem]:
    r"""Add what \Seen has changed: RFC 9051 section 6.4.5 wants it told in the same FETCH response."""
    if _FLAGS in items:
        return items
    first = [_FLAGS]
    if _UID in items or (session.condstore and not session.uid_only):
        first.insert(0, _UID)
    if session.condstore:
        first.append(_MODSEQ)
    return [*first, *(item for item in items if item not in first)]


def _pieces(spans: Sequence[tuple[int, int]]) -> Iterator[Sequence[int]]:
    """Cut spans of rows into pieces; one that is a single span stays a range."""
    gathered: list[int] = []
    for start, stop in spans:
        at = start
        while at < stop:
            end = min(stop, at + PIECE - len(gathered))
            if not gathered and (end - at == PIECE or len(spans) == 1):
                yield range(at, end)
            else:
                gathered += range(at, end)
                if len(gathered) == PIECE:
                    yield gathered
                    gathered = []
            at = end
    if gathered:
        yield gathered


def _downwards(spans: Sequence[tuple[int, int]]) -> Iterator[Sequence[int]]:
    """Each row alone and the last first, which RFC 9738 section 3.1 requires where not all are answered."""
    return ([row] for start, stop in reversed(spans) for row in reversed(range(start, stop)))


def _changed_since(
    session: Session, spans: Iterable[tuple[int, int]], modseq: int
) -> list[tuple[int, int]]:
    """Of the rows in `spans`, those that changed after `modseq`."""
    view, columns = session.view, session.view.columns
    modseqs = columns.modseqs
    chosen: Iterable[int]
    if view.uids is columns.uids:
        chosen = [i for span in spans for i in range(*span) if modseqs[i] > modseq]
    else:
        chosen = [
            i
            for span in spans
            for i in range(*span)
            if (row := columns.row(view.uids[i])) is not None and modseqs[row] > modseq
        ]
    return [(first, last + 1) for first, last in SequenceSet.from_uids(chosen).ranges]


def _cut(spans: Sequence[tuple[int, int]], part: tuple[int, int]) -> list[tuple[int, int]]:
    """Of the rows in `spans`, the part that RFC 9394 counts from the first, or backwards from the last."""
    total = sum(stop - start for start, stop in spans)
    near, far = part
    low, high = (near - 1, far) if near > 0 else (total + far, total + near + 1)
    cut = []
    for start, stop in spans:
        first, last = max(start, start + low), min(stop, start + high)
        if first < last:
            cut.append((first, last))
        low, high = low - (stop - start), high - (stop - start)
    return cut


async def _mark_seen(session: Session, uids: Sequence[int]) -> None:
    columns = session.view.columns
    seen = columns.ids_with(b"\\Seen")
    unseen = [
        uid
        for uid in uids
        if (row := columns.row(uid)) is not None and columns.flags[row] not in seen
    ]
    if unseen:
        await session.mailbox.store_flags(unseen, b"+", [b"\\Seen"], None)


class _Rows(NamedTuple):
    """Messages being answered: their rows in the view (number less one), their rows in the columns, their UIDs."""

    view: Sequence[int]
    columns: Sequence[int]
    uids: Sequence[int]


async def _piece(
    session: Session, numbers: Sequence[int], uids: Sequence[int], items: Sequence[FetchItem]
) -> tuple[int, bool]:
    """Answer for as many of `uids`, whose rows in the view are `numbers`, as one turn takes.

    Returns how many those were, and whether any of them was gone.
    """
    if _SIZE in items:
        await measure(session, uids)
    asked = [item for item in items if not _is_known(item)]
    fetched = FetchResult(uids=uids)
    if asked:
        fetched = await session.mailbox.fetch(uids, asked, session.limits.fetch_chunk_size)
    done = max(1, len(fetched.uids) + len(fetched.gone))
    rows = _rows(session, numbers[:done], uids[:done], fetched)
    from_store = iter(fetched.columns)
    columns: list[Column] = [
        _known(session, item, rows) if _is_known(item) else next(from_store) for item in items
    ]
    if _FLAGS in items:
        session.send_new_keywords()
        session.view.forget_flag_changes(rows.uids)
    labels = [encode.label(item) for item in items]
    view = rows.view
    shown: Sequence[int] = (
        range(view.start + 1, view.stop + 1)
        if isinstance(view, range)
        else [row + 1 for row in view]
    )
    if _has_blob(asked, fetched):
        numbered = rows.uids if session.uid_only else shown
        await stream(session, numbered, labels, columns)
    elif shown:
        session.io.write(session.fetch_lines(shown, rows.uids, labels, columns))  # type: ignore[arg-type]
    return done, len(shown) < done


def _has_blob(asked: Sequence[FetchItem], fetched: FetchResult) -> bool:
    """Whether a string is too large to be held; what is kept as an answer never is."""
    return any(
        isinstance(value, Blob)
        for item, column in zip(asked, fetched.columns, strict=True)
        if not isinstance(item, Attribute)
        for value in column
    )


def _is_known(item: FetchItem) -> bool:
    return isinstance(item, Attribute) and item.name in KNOWN


async def measure(session: Session, uids: Sequence[int]) -> None:
    """Make sure that the columns hold RFC822.SIZE of `uids`."""
    columns = session.view.columns
    await session.mailbox.load_sizes(
        [
            uid
            for uid in uids
            if (row := columns.row(uid)) is not None and columns.sizes[row] == UNKNOWN_SIZE
        ]
    )


def _rows(
    session: Session, numbers: Sequence[int], uids: Sequence[int], fetched: FetchResult
) -> _Rows:
    """Find the messages of `fetched` in the columns; those that vanished meanwhile are taken out of it."""
    view = session.view
    if view.uids is view.columns.uids and not fetched.gone:
        return _Rows(numbers, numbers, uids)
    number = dict(zip(uids, numbers, strict=True))
    kept = [
        (i, number[uid], row, uid)
        for i, uid in enumerate(fetched.uids)
        if (row := view.columns.row(uid)) is not None
    ]
    fetched.columns = [[column[i] for i, *_ in kept] for column in fetched.columns]
    return _Rows([k[1] for k in kept], [k[2] for k in kept], [k[3] for k in kept])


def _known(session: Session, item: FetchItem, rows: _Rows) -> Sequence[bytes | int]:
    assert isinstance(item, Attribute)
    columns = session.view.columns
    match item.name:
        case b"UID":
            return rows.uids
        case b"FLAGS":
            if session.view.recent:
                return [session.flag_text(uid) or b"" for uid in rows.uids]
            lists = columns.flag_lists
            return [lists[i] for i in _take(columns.flags, rows.columns)]
        case b"INTERNALDATE":
            return [encode_internaldate(at) for at in _take(columns.dates, rows.columns)]
        case b"RFC822.SIZE":
            return _take(columns.sizes, rows.columns)
        case _:
            return _take(columns.modseqs, rows.columns)


def _take(values: array[int], rows: Sequence[int]) -> Sequence[int]:
    if isinstance(rows, range):
        return values[rows.start : rows.stop]
    return [values[row] for row in rows]


async def stream(
    session: Session, numbers: Sequence[int], labels: Sequence[bytes], columns: Sequence[Column]
) -> None:
    """Send messages of which some string is too large to be held: it is read while the peer reads."""
    for number, *values in zip(numbers, *columns, strict=True):
        if not any(isinstance(value, Blob) for value in values):
            # with UIDONLY `numbers` are UIDs
            row = [[value] for value in values]
            session.io.write(session.fetch_lines([number], [number], labels, row))
            continue
        separator = b"* %d %b (" % (number, b"UIDFETCH" if session.uid_only else b"FETCH")
        for label, value in zip(labels, values, strict=True):
            session.io.write(separator + label + b" ")
            if isinstance(value, Blob):
                await _send_blob(session, value)
            else:
                session.io.write(encode.fetch_value(label, value))
            separator = b" "
        session.io.write(b")\r\n")
        await session.io.drain()


async def _send_blob(session: Session, blob: Blob) -> None:
    binary = isinstance(blob.item, Binary)
    session.io.write(encode.literal_head(blob.size, binary=binary))
    sent = 0
    while sent < blob.size:
        try:
            data = await session.mailbox.read(
                blob.uid, blob.item, sent, min(session.limits.fetch_chunk_size, blob.size - sent)
            )
        except StoreError:
            data = b""
        if not data:
            # the size is promised, and what was to fill it is gone: only the end of the connection says so
            session.io.reset()
            await session.io.drain()
        session.io.write(data if binary else data.replace(b"\0", b"\x80"))
        sent += len(data)
        await session.io.drain()
