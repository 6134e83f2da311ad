"""SORT: reading header fields, and sorting messages by keys made from them (RFC 5256, RFC 5957).

Each header field is a separate FETCH item, so that the cache of the store serves every sort order.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from imapshield.errors import StoreError
from imapshield.mailbox import sort_order
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session.fetch_responses import load_sizes
from imapshield.session.state import SessionState
from imapshield.wire.commands.fetch import BodySection, Section
from imapshield.wire.commands.search import Sort

HEADER_CHUNK_MESSAGES = 1000
"""Maximum number of messages per call of the store."""
MAX_FIELD_SIZE = 64 << 10
"""Maximum number of bytes to read of a header field that the store does not return in one piece."""

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
) -> Sequence[int]:
    """Return those of `uids` that still exist, in the order of the criteria of `command`.

    Args:
        session: a session with a selected mailbox.
        command: the command.
        uids: the messages to sort.
        pause: awaited between chunks, with two arguments: the number of messages done and of all messages.
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
            found.append(uid)
            for name, values in keys.items():
                values.append(_key(name, columns, row, fields, headers))

    await read_headers(session, uids, fields, add, pause, sizes=b"SIZE" in keys)
    ordering = [(reverse, keys[name]) for reverse, name in command.criteria]
    return await sort_order.sort_by_keys(found, ordering, pause)


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
) -> None:
    """Call `add` with the UID and the header fields of each message that still exists.

    Args:
        session: a session with a selected mailbox.
        uids: the messages.
        fields: the names of the header fields.
        add: called with a UID and with a header for each of `fields`, which contains only that field. It is the FETCH
            literal that the store returns, because the line with the size of the literal is not parsed as a field.
        pause: awaited after each chunk, with two arguments: the number of messages done and of all messages.
        sizes: whether to load the sizes of the messages into the columns, too.
    """
    items = [BodySection(Section(text=b"HEADER.FIELDS", fields=(f,)), peek=True) for f in fields]
    mailbox = session.mailbox
    done = 0
    while done < len(uids):
        chunk = uids[done : done + HEADER_CHUNK_MESSAGES]
        if sizes:
            await load_sizes(mailbox, chunk)
        fetched = FetchResult(chunk)
        if items:
            fetched = await mailbox.fetch(chunk, items, session.limits.fetch_chunk_size)
        for uid, *values in zip(fetched.uids, *fetched.columns, strict=True):
            add(uid, [v if isinstance(v, bytes) else await _read(mailbox, v) for v in values])
        done += max(1, len(fetched.uids) + len(fetched.missing))
        await pause(min(done, len(uids)), len(uids))


async def _read(mailbox: IMailbox, blob: Blob) -> bytes:
    try:
        return await mailbox.read(blob.uid, blob.item, 0, MAX_FIELD_SIZE)
    except StoreError:
        return b""
