"""SORT and THREAD (RFC 5256, RFC 5957, RFC 5267): the results of a search, sorted or grouped into conversations."""

from array import array
from collections.abc import Sequence
from sys import getsizeof

from imapshield.mailbox import sort_order
from imapshield.mailbox.thread_tree import ThreadMessage, thread_by_references, thread_by_subject
from imapshield.session.handlers.search import completed, find, send_results
from imapshield.session.session import Session
from imapshield.session.sort_keys import read_headers, sort_uids
from imapshield.wire import encode
from imapshield.wire.commands.search import Sort, Thread
from imapshield.wire.responses import Tagged

_THREAD_FIELDS = (b"DATE", b"SUBJECT", b"MESSAGE-ID", b"REFERENCES", b"IN-REPLY-TO")


async def sort(session: Session, command: Sort) -> Tagged:
    """Handle SORT and UID SORT, with the return options of ESORT (RFC 5267)."""
    since = session.search_contexts.begin(command)
    uids = await find(session, command, session.mailbox, session.view, whole=True)
    async with session.io.take_turn():
        ordered, failed = await sort_uids(session, command, uids, session.pause)
    del uids
    session.failed_messages += failed
    await session.search_contexts.keep(command, ordered, since)
    # An array takes a fifth of the list's memory, however long the client takes to read.
    ordered = array("I", ordered)
    await send_results(session, command, ordered, b"SORT")
    return completed(session, "SORT completed")


async def thread(session: Session, command: Thread) -> Tagged:
    """Handle THREAD and UID THREAD."""
    uids = await find(session, command, session.mailbox, session.view, whole=True)
    async with session.io.take_turn():
        pieces = await _thread_response(session, command, uids)
    del uids
    with session.io.hold_result(sum(map(getsizeof, pieces))):
        await session.send(pieces)
    return completed(session, "THREAD completed")


async def _thread_response(
    session: Session, command: Thread, uids: Sequence[int]
) -> Sequence[bytes]:
    """Return the THREAD response: eight bytes for each message, where its values take hundreds."""
    view = session.view
    messages: list[ThreadMessage] = []
    by_references = command.algorithm == b"REFERENCES"

    def add(uid: int, headers: Sequence[bytes]) -> None:
        row, number = view.columns.row(uid), view.number(uid)
        if row is None or number is None:  # the message was expunged
            return
        date = sort_order.date_key(headers[0], view.columns.dates[row])
        subject, reply = sort_order.subject_key(headers[1])
        own_id, references = b"", tuple[bytes, ...]()
        if by_references:
            own_id = next(iter(sort_order.message_ids(headers[2], b"message-id")), b"")
            # A tuple: Python's garbage collector, which pauses the whole server, does not traverse tuples of bytes.
            references = tuple(sort_order.references(headers[3] + headers[4]))
        if command.uid:
            number = uid
        messages.append(ThreadMessage(number, date, subject, reply, own_id, references))

    fields = _THREAD_FIELDS if by_references else _THREAD_FIELDS[:2]
    session.failed_messages += await read_headers(session, uids, fields, add, session.pause)
    build = thread_by_references if by_references else thread_by_subject
    threads = await build(messages, session.pause)
    messages.clear()
    pieces: list[bytes] = []
    for piece in encode.thread(threads):
        if pieces:
            await session.io.drain()
        pieces.append(piece)
    return pieces
