"""FETCH responses."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, cast

from imapshield.errors import StoreError
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session.state import SessionState
from imapshield.wire import encode, flags
from imapshield.wire.commands.fetch import Attribute, Binary, FetchItem
from imapshield.wire.dates import encode_internaldate

UID, FLAGS, MODSEQ = Attribute(b"UID"), Attribute(b"FLAGS"), Attribute(b"MODSEQ")
SIZE = Attribute(b"RFC822.SIZE")
KNOWN_ITEMS = frozenset({UID, FLAGS, MODSEQ, SIZE, Attribute(b"INTERNALDATE")})
"""The items whose values are in the columns; all others come from the store."""


class MessageRows(NamedTuple):
    """Messages of a response: their sequence numbers, their rows in the columns, and their UIDs."""

    numbers: Sequence[int]
    columns: Sequence[int]
    uids: Sequence[int]


def implicit_items(
    state: SessionState, items: Iterable[FetchItem], *, uid: bool = False, unsolicited: bool = False
) -> list[FetchItem]:
    """Return `items` with the UID and MODSEQ that a FETCH response carries without being asked for them.

    Args:
        state: the session.
        items: the items to send.
        uid: the response carries the UID because the command was a UID command.
        unsolicited: no FETCH command asked for the response. RFC 9051 section 7.5.2: such responses "MUST include UID
            FETCH item"; RFC 7162 section 3.2.4 demands UID and MODSEQ after CONDSTORE.
    """
    items = list(dict.fromkeys(items))
    uid = uid or (unsolicited and (state.condstore or state.rev2))
    # A UIDFETCH response begins with the UID (RFC 9586).
    if uid and UID not in items and not state.uid_only:
        items.insert(0, UID)
    if state.condstore and (unsolicited or FLAGS in items) and MODSEQ not in items:
        items.append(MODSEQ)
    return items


def locate(
    state: SessionState, fetched: FetchResult, number_of: Callable[[int], int | None]
) -> MessageRows:
    """Return the rows of the messages in `fetched`, and remove the vanished ones from its columns.

    Args:
        state: the session.
        fetched: UIDs and the values of their items.
        number_of: maps a UID to the client's sequence number, or to None if the client does not know the message.
    """
    columns = state.view.columns
    shared = state.view.uids is columns.uids
    found = [
        (i, number, row, uid)
        for i, uid in enumerate(fetched.uids)
        if (number := number_of(uid)) is not None
        and (row := number - 1 if shared else columns.row(uid)) is not None
    ]
    fetched.columns = [[column[i] for i, *_ in found] for column in fetched.columns]
    _, numbers, rows, uids = zip(*found, strict=True) if found else ((), (), (), ())
    return MessageRows(numbers, rows, uids)


def known_column(state: SessionState, item: FetchItem, rows: MessageRows) -> Sequence[bytes | int]:
    r"""Return the values of one of `KNOWN_ITEMS` for all `rows`.

    FLAGS contain \Recent in IMAP4rev1 only.
    """
    assert isinstance(item, Attribute)
    view, columns = state.view, state.view.columns
    match item.name:
        case b"UID":
            return rows.uids
        case b"FLAGS":
            lists = columns.flag_lists
            texts = [lists[i] for i in take(columns.flag_ids, rows.columns)]
            recent = view.recent
            if not recent or state.rev2:
                return texts
            pairs = zip(rows.uids, texts, strict=True)
            return [view.flags(uid) or b"" if uid in recent else text for uid, text in pairs]
        case b"INTERNALDATE":
            return [encode_internaldate(date) for date in take(columns.dates, rows.columns)]
        case b"RFC822.SIZE":
            return take(columns.sizes, rows.columns)
        case _:
            return take(columns.modseqs, rows.columns)


def take(values: array[int], rows: Sequence[int]) -> Sequence[int]:
    """Return the values at `rows`; a range is one slice."""
    if isinstance(rows, range):
        return values[rows.start : rows.stop]
    return [values[row] for row in rows]


def response_lines(
    state: SessionState,
    rows: MessageRows,
    labels: Sequence[bytes],
    columns: Sequence[Sequence[bytes | int]],
) -> bytes:
    """Return the FETCH responses of `rows`, or their UIDFETCH responses (RFC 9586)."""
    if state.uid_only:
        return encode.fetch_lines(rows.uids, labels, columns, kind=b"UIDFETCH")
    return encode.fetch_lines(rows.numbers, labels, columns)


def send_known_items(
    state: SessionState, uids: Sequence[int], items: Sequence[FetchItem], *, uid: bool = False
) -> None:
    """Send unsolicited FETCH responses for those of `uids` that the client knows and that still exist.

    Args:
        state: the session.
        uids: the messages.
        items: some of `KNOWN_ITEMS`: FLAGS, or MODSEQ alone after STORE with .SILENT (RFC 7162 section 3.1.3).
        uid: include the UID in any case.
    """
    rows = locate(state, FetchResult(uids), state.view.number_lookup(len(uids)))
    if not rows.uids:
        return
    if FLAGS in items:
        send_new_keywords(state)
    items = implicit_items(state, items, uid=uid, unsolicited=True)
    labels = [encode.label(item) for item in items]
    columns = [known_column(state, item, rows) for item in items]
    state.io.write(response_lines(state, rows, labels, columns))


def send_new_keywords(state: SessionState) -> None:
    """Announce keywords that are new since SELECT, before a FETCH response contains them."""
    count = len(state.view.columns.keywords)
    if state.announced_keywords != count:
        state.announced_keywords = count
        state.io.write(encode.flags([*flags.SYSTEM_FLAGS, *state.keywords()]))


Column = Sequence[bytes | int] | Sequence[bytes | Blob]


class Chunk(NamedTuple):
    """FETCH responses of some messages: a label and a column of values for each item."""

    rows: MessageRows
    labels: Sequence[bytes]
    columns: Sequence[Column]
    has_blobs: bool

    def messages(self) -> Iterator[Chunk]:
        """Yield a chunk for each message."""
        for number, row, uid, *values in zip(*self.rows, *self.columns, strict=True):
            rows = MessageRows([number], [row], [uid])
            has_blobs = any(isinstance(value, Blob) for value in values)
            yield Chunk(rows, self.labels, [[value] for value in values], has_blobs)


async def load_sizes(mailbox: IMailbox, uids: Sequence[int]) -> None:
    """Make sure that the columns of `mailbox` hold RFC822.SIZE of `uids`."""
    columns = mailbox.columns
    await mailbox.load_sizes(
        [
            uid
            for uid in uids
            if (row := columns.row(uid)) is not None and columns.sizes[row] == UNKNOWN_SIZE
        ]
    )


async def read_chunk(
    state: SessionState, uids: Sequence[int], items: Sequence[FetchItem]
) -> FetchResult:
    """Read from the store what the columns do not hold of `items`, for as many of `uids` as make a chunk."""
    mailbox = state.mailbox
    if SIZE in items:
        await load_sizes(mailbox, uids)
    stored = [item for item in items if item not in KNOWN_ITEMS]
    if not stored:
        return FetchResult(uids)
    return await mailbox.fetch(uids, stored, state.limits.fetch_chunk_size)


def render_chunk(
    state: SessionState, rows: MessageRows, items: Sequence[FetchItem], fetched: FetchResult
) -> Chunk:
    """Combine the values in the columns with those from the store.

    Announces new keywords, so the chunk must be sent at once.

    Args:
        state: the session.
        rows: the messages, as `fetch_responses.locate` finds them.
        items: the items, in the order of the response.
        fetched: what `read_chunk` returned.
    """
    stored = iter(fetched.columns)
    columns: list[Column] = []
    has_blobs = False
    for item in items:
        if item in KNOWN_ITEMS:
            columns.append(known_column(state, item, rows))
            continue
        column = next(stored)
        columns.append(column)
        # The other items are answers that the store keeps, and these are never too large.
        if not has_blobs and not isinstance(item, Attribute):
            has_blobs = any(isinstance(value, Blob) for value in column)
    if FLAGS in items:
        send_new_keywords(state)
    return Chunk(rows, [encode.label(item) for item in items], columns, has_blobs)


async def send_chunk(state: SessionState, chunk: Chunk) -> None:
    """Send the FETCH responses of a chunk."""
    if not chunk.has_blobs:
        send_small_chunk(state, chunk)
        return
    for message in chunk.messages():
        if message.has_blobs:
            await _stream(state, message)
        else:
            send_small_chunk(state, message)


def send_small_chunk(state: SessionState, chunk: Chunk) -> None:
    """Send the FETCH responses of a chunk that has no blobs."""
    if chunk.rows.uids:
        columns = cast("Sequence[Sequence[bytes | int]]", chunk.columns)
        state.io.write(response_lines(state, chunk.rows, chunk.labels, columns))


async def _stream(state: SessionState, message: Chunk) -> None:
    """Send one message of which a string is too large to be held: it is read while the client reads."""
    (number,) = message.rows.uids if state.uid_only else message.rows.numbers
    separator = b"* %d %b (" % (number, b"UIDFETCH" if state.uid_only else b"FETCH")
    for label, (value,) in zip(message.labels, message.columns, strict=True):
        state.io.write(separator + label + b" ")
        if isinstance(value, Blob):
            await _send_blob(state, value)
        else:
            state.io.write(encode.fetch_value(label, value))
        separator = b" "
    state.io.write(b")\r\n")
    await state.io.drain()


async def _send_blob(state: SessionState, blob: Blob) -> None:
    binary = isinstance(blob.item, Binary)
    state.io.write(encode.literal_head(blob.size, binary=binary))
    sent = 0
    while sent < blob.size:
        size = min(state.limits.fetch_chunk_size, blob.size - sent)
        try:
            data = await state.mailbox.read(blob.uid, blob.item, sent, size)
        except StoreError:
            data = b""
        if not data:
            # The literal's size is announced and its data is gone: only a reset tells the client.
            state.io.reset()
            await state.io.drain()
        state.io.write(data if binary else data.replace(b"\0", b"\x80"))
        sent += len(data)
        await state.io.drain()
