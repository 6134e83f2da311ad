"""SORT: reading header fields, and sorting messages by keys made from them (RFC 5256, RFC 5957).

Each header field is a separate FETCH item, so that the cache of the store serves every sort order.
"""

import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from imapshield.errors import StoreError
from imapshield.mailbox import sort_order
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.values import Blob
from imapshield.session.fetch_responses import SIZE, read_chunk
from imapshield.session.state import SessionState
from imapshield.wire.commands.fetch import BodySection, FetchItem, Section
from imapshield.wire.commands.search import Sort

HEADER_CHUNK_MESSAGES = 1000
"""Maximum number of messages per call of the store."""
MAX_FIELD_SIZE = 16 << 10
"""Bytes of a header field that sort keys are made of. To parse a hostile one of this size takes ten milliseconds."""
BYTES_PER_PAUSE = 32 << 10
BYTES_PER_MESSAGE = 200
"""Bytes of header fields that are parsed before other connections run, and what a message counts besides: some
milliseconds for about a hundred messages."""

SortKey = Callable[[bytes], object]
Pause = Callable[..., Awaitable[object]]

HEADER_KEYS: dict[bytes, tuple[bytes, SortKey]] = {
    b"SUBJECT": (b"SUBJECT", lambda header: sort_order.subject_key(header)[0]),
    **{
        name: (name, partial(sort_order.address_key, field=name))
        for name in (b"CC", b"FROM", b"TO")
    },
    **{
        b"DISPLAY" + name: (name, partial(sort_order.display_key, field=name))
        for name in (b"FROM", b"TO")
    },
}
"""The sort criteria that depend on one header field only: the field, and the function that makes its sort key."""


async def sort_uids(
    session: SessionState, command: Sort, uids: Sequence[int], pause: Pause
) -> tuple[Sequence[int], int]:
    """Sort those of `uids` that still exist and can be read by the criteria of `command`.

    Args:
        session: a session with a selected mailbox.
        command: the command.
        uids: the messages to sort.
        pause: awaited between chunks, with two arguments: the number of messages done and of all messages.

    Returns:
        The sorted UIDs, and the number of messages that cannot be read.
    """
    columns = session.view.columns
    criteria = [name for _, name in command.criteria]
    fields = list(
        dict.fromkeys(
            HEADER_KEYS[name][0] if name in HEADER_KEYS else name
            for name in criteria
            if name in HEADER_KEYS or name == b"DATE"
        )
    )
    found: list[int] = []
    keys: dict[bytes, list[object]] = {name: [] for name in criteria}

    def add(uid: int, headers: Sequence[bytes]) -> None:
        row = columns.row(uid)
        if row is not None:
            own_keys = [_key(name, columns, row, fields, headers) for name in keys]
            found.append(uid)
            for values, key in zip(keys.values(), own_keys, strict=True):
                values.append(key)

    failed = await read_headers(session, uids, fields, add, pause, sizes=b"SIZE" in keys)
    ordering = [(reverse, keys[name]) for reverse, name in command.criteria]
    return await sort_order.sort_by_keys(found, ordering, pause), failed


def _key(
    name: bytes, columns: Columns, row: int, fields: list[bytes], headers: Sequence[bytes]
) -> object:
    if name in HEADER_KEYS:
        field, key = HEADER_KEYS[name]
        return key(headers[fields.index(field)])
    if name == b"DATE":
        return sort_order.date_key(headers[fields.index(b"DATE")], columns.dates[row])
    return columns.dates[row] if name == b"ARRIVAL" else columns.sizes[row]


async def read_headers(
    session: SessionState,
    uids: Sequence[int],
    fields: Sequence[bytes],
    add: Callable[[int, Sequence[bytes]], None],
    pause: Pause,
    *,
    sizes: bool = False,
) -> int:
    """Call `add` with the UID and the header fields of each message that still exists.

    Args:
        session: a session with a selected mailbox.
        uids: the messages.
        fields: the names of the header fields.
        add: called with a UID and with a header for each of `fields`, which contains only that field. It is the FETCH
            literal that the store returns, because the line with the size of the literal is not parsed as a field. If
            this raises, the message counts as one that cannot be read, and the first traceback is logged.
        pause: awaited after each chunk, with two arguments: the number of messages done and of all messages.
        sizes: whether to load the sizes of the messages into the columns, too.

    Returns:
        The number of messages that cannot be read.
    """
    items: list[FetchItem] = [
        BodySection(Section(text=b"HEADER.FIELDS", fields=(f,)), peek=True) for f in fields
    ]
    if sizes:
        items.append(SIZE)
    failed = done = 0
    reported = False
    while done < len(uids):
        chunk = uids[done : done + HEADER_CHUNK_MESSAGES]
        fetched = await read_chunk(session, chunk, items)
        failed += len(fetched.unreadable)
        work = 0
        for uid, *values in zip(fetched.uids, *fetched.columns, strict=True):
            headers = [
                v[:MAX_FIELD_SIZE] if isinstance(v, bytes) else await _read(session, v)
                for v in values
            ]
            work += BYTES_PER_MESSAGE + sum(map(len, headers))
            if work > BYTES_PER_PAUSE:
                work = 0
                await session.io.drain()
            try:
                add(uid, headers)
            except Exception as error:
                failed += 1
                if not reported:
                    reported = True
                    lines = traceback.format_exception(error)
                    session.io.command_failed(f"sort keys of UID {uid}", "".join(lines))
        done += max(1, fetched.count)
        await pause(min(done, len(uids)), len(uids))
    return failed


async def _read(session: SessionState, blob: Blob) -> bytes:
    try:
        return await session.mailbox.read(blob.uid, blob.item, 0, MAX_FIELD_SIZE)
    except StoreError:
        return b""
