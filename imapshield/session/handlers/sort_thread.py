"""SORT and THREAD (RFC 5256, RFC 5957, RFC 5267): what SEARCH finds, in order or by conversation.

What is ordered by comes from the store as header fields, one FETCH item each, so that its cache serves every order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from imapshield.errors import StoreError
from imapshield.mailbox import sort_order, thread_tree
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session.handlers import search
from imapshield.session.handlers.fetch import measure
from imapshield.wire import encode
from imapshield.wire.commands.fetch import BodySection, Section
from imapshield.wire.commands.search import Search
from imapshield.wire.commands.sort_thread import Sort, Thread
from imapshield.wire.responses import Tagged

if TYPE_CHECKING:
    from imapshield.session.session import Session

PIECE = 1000
FIELD_OCTETS = 64 << 10
"""Read of a field that is too large to be handed over whole."""

Key = Callable[[bytes], object]
Pause = Callable[..., Awaitable[object]]

KEYS: dict[bytes, tuple[bytes, Key]] = {
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
"""What is sorted by one header field alone: the field, and the key that is made of it."""

_THREADED = (b"DATE", b"SUBJECT", b"MESSAGE-ID", b"REFERENCES", b"IN-REPLY-TO")


async def sort(session: Session, command: Sort) -> Tagged:
    """SORT and UID SORT, with the results of ESORT."""
    since = session.search_contexts.begin(command)
    uids = await search.find(session, command, whole=True)
    found = await order(session, command, uids, session.pause)
    await session.search_contexts.keep(command, found, since)
    search.answer(session, command, found, b"SORT")
    return search.done(session, "Sorted")


async def order(
    session: Session, command: Sort, uids: Sequence[int], pause: Pause
) -> Sequence[int]:
    """Return those of `uids` that still exist, in the order that `command` asks for."""
    known = session.view.columns
    wanted = dict.fromkeys(
        KEYS[name][0] if name in KEYS else name
        for _, name in command.criteria
        if name in KEYS or name == b"DATE"
    )
    found: list[int] = []
    columns: dict[bytes, list[object]] = {name: [] for _, name in command.criteria}
    fields = list(wanted)

    def take(uid: int, headers: Sequence[bytes]) -> None:
        row = known.row(uid)
        if row is None:
            return
        found.append(uid)
        for name, column in columns.items():
            if name in KEYS:
                field, key = KEYS[name]
                column.append(key(headers[fields.index(field)]))
            elif name == b"DATE":
                column.append(sort_order.date_key(headers[fields.index(b"DATE")], known.dates[row]))
            else:
                column.append(known.dates[row] if name == b"ARRIVAL" else known.sizes[row])

    await _headers(session, uids, fields, take, pause, sizes=b"SIZE" in columns)
    keys = [(reverse, columns[name]) for reverse, name in command.criteria]
    return await sort_order.sort_by_keys(found, keys, pause)


async def thread(session: Session, command: Thread) -> Tagged:
    """THREAD and UID THREAD."""
    uids = await search.find(session, Search(command.key, command.uid), whole=True)
    messages: list[thread_tree.ThreadMessage] = []
    linked = command.algorithm == b"REFERENCES"

    def take(uid: int, headers: Sequence[bytes]) -> None:
        row, number = session.view.columns.row(uid), session.view.number(uid)
        if row is None or number is None:
            return
        date = sort_order.date_key(headers[0], session.view.columns.dates[row])
        subject, reply = sort_order.subject_key(headers[1])
        ids = sort_order.message_ids(headers[2], b"message-id") if linked else []
        messages.append(
            thread_tree.ThreadMessage(
                uid if command.uid else number,
                date,
                subject,
                reply,
                ids[0] if ids else b"",
                # a tuple of octets is nothing that Python's garbage collector, which takes no turns, walks through
                tuple(sort_order.references(headers[3] + headers[4])) if linked else (),
            )
        )

    fields = _THREADED if linked else _THREADED[:2]
    await _headers(session, uids, fields, take, session.pause)
    by = thread_tree.thread_by_references if linked else thread_tree.thread_by_subject
    for i, piece in enumerate(encode.thread(await by(messages, session.pause))):
        if i:
            await session.io.drain()
        session.io.write(piece)
    return search.done(session, "Threaded")


async def _headers(
    session: Session,
    uids: Sequence[int],
    fields: Sequence[bytes],
    take: Callable[[int, Sequence[bytes]], None],
    pause: Pause,
    *,
    sizes: bool = False,
) -> None:
    """Call `take` with each of `uids` that still exists and its `fields`, each a header of one name, a piece a turn.

    They come as literals. What announces a literal is no field, so it need not be taken off.
    """
    items = [BodySection(Section(text=b"HEADER.FIELDS", fields=(f,)), peek=True) for f in fields]
    mailbox = session.mailbox
    at = 0
    while at < len(uids):
        piece = uids[at : at + PIECE]
        if sizes:
            await measure(session, piece)
        fetched = FetchResult(piece)
        if items:
            fetched = await mailbox.fetch(piece, items, session.limits.fetch_chunk_size)
        for uid, *values in zip(fetched.uids, *fetched.columns, strict=True):
            take(uid, [v if isinstance(v, bytes) else await _large(mailbox, v) for v in values])
        at += max(1, len(fetched.uids) + len(fetched.missing))
        await pause(min(at, len(uids)), len(uids))


async def _large(mailbox: IMailbox, blob: Blob) -> bytes:
    try:
        return await mailbox.read(blob.uid, blob.item, 0, FIELD_OCTETS)
    except StoreError:
        return b""
