"""FETCH responses that need the store: a chunk of messages is read, rendered in columns, and sent.

Rules
-----
* A chunk is what one call of the store returns: about `limits.fetch_chunk_size` bytes. Then other connections run, and
  the client has to read.
* No object is made per message: values travel in columns, and one template makes the responses. Only a chunk with a
  string too large to be held is sent message by message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from imapshield.errors import StoreError
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session.fetch_responses import (
    FLAGS,
    KNOWN_ITEMS,
    SIZE,
    MessageRows,
    known_column,
    response_lines,
    send_new_keywords,
)
from imapshield.session.state import SessionState
from imapshield.wire import encode, strings
from imapshield.wire.commands.fetch import Attribute, Binary, FetchItem

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
    state.io.write(strings.literal_head(blob.size, binary=binary))
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
