"""FETCH responses: which items they carry, reading the values, rendering them in columns, and sending them.

Rules
-----
* The rules of RFC 9051, RFC 7162 and RFC 9586 for UID, FLAGS and MODSEQ are implemented here and nowhere else.
* Messages are sent in chunks. A chunk is the result of one call of the store: about `limits.fetch_chunk_size` bytes.
  When the chunks of a turn were enough work other connections run, and the next one waits until the client has read
  enough.
* No object is made per message: values are held in columns, and one template renders the responses. Only a chunk with a
  string that is too large for memory (`Blob`) is sent message by message.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from sys import getsizeof
from traceback import format_exception
from typing import NamedTuple, cast

from imapshield.errors import MessageExpunged, StoreError
from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.session.state import SessionState
from imapshield.wire import encode, fetch_encoding, flags, strings
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.dates import encode_internaldate

UID, FLAGS, MODSEQ = Attribute(b"UID"), Attribute(b"FLAGS"), Attribute(b"MODSEQ")
SIZE = Attribute(b"RFC822.SIZE")
KNOWN_ITEMS = frozenset({UID, FLAGS, MODSEQ, SIZE, Attribute(b"INTERNALDATE")})
"""The items whose values are in the columns of the mailbox; all others come from the store."""
ROW_BYTES = 200
"""Bytes that the numbers and the known items of one message take: each is in a list, and most are objects."""
_EMPTY = strings.quoted(b"")
_CUT_OFF = "a message cannot be read to its end"

Column = Sequence[bytes | int | Blob]
"""The values of one item, one for each message."""


class MessageRows(NamedTuple):
    """Messages of a response.

    Args:
        numbers: their sequence numbers.
        column_rows: their rows in the columns of the mailbox.
        uids: their UIDs.
    """

    numbers: Sequence[int]
    column_rows: Sequence[int]
    uids: Sequence[int]


class Chunk(NamedTuple):
    """FETCH responses of some messages: a label and a column of values for each item."""

    rows: MessageRows
    labels: Sequence[bytes]
    columns: Sequence[Column]
    has_blobs: bool

    def messages(self) -> "Iterator[Chunk]":
        """Yield a chunk for each message."""
        for number, row, uid, *values in zip(*self.rows, *self.columns, strict=True):
            rows = MessageRows([number], [row], [uid])
            has_blobs = any(isinstance(value, Blob) for value in values)
            yield Chunk(rows, self.labels, [[value] for value in values], has_blobs)


def is_known(item: FetchItem) -> bool:
    """Return whether an item is one of `KNOWN_ITEMS`."""
    return isinstance(item, Attribute) and item in KNOWN_ITEMS  # other types are slow to hash


def implicit_items(
    session: SessionState,
    items: Iterable[FetchItem],
    *,
    uid: bool = False,
    unsolicited: bool = False,
) -> list[FetchItem]:
    """Return `items` with the UID and MODSEQ that FETCH responses must carry although the client did not name them.

    Args:
        session: the session.
        items: the items to send.
        uid: whether the responses carry the UID because the command was a UID command.
        unsolicited: whether the responses are sent without a FETCH command. RFC 9051 section 7.5.2: such responses
            "MUST include UID FETCH item"; RFC 7162 section 3.2.4 demands UID and MODSEQ after CONDSTORE.
    """
    items = list(dict.fromkeys(items))
    uid = uid or (unsolicited and (session.condstore or session.rev2))
    # A UIDFETCH response begins with the UID (RFC 9586).
    if uid and UID not in items and not session.uid_only:
        items.insert(0, UID)
    if session.condstore and (unsolicited or FLAGS in items) and MODSEQ not in items:
        items.append(MODSEQ)
    return items


def locate_messages(
    session: SessionState, fetched: FetchResult, number_of: Callable[[int], int | None]
) -> tuple[MessageRows, Sequence[Column]]:
    """Return the rows of the messages in `fetched` that still exist, and the values of these messages.

    Args:
        session: the session.
        fetched: UIDs and the values of their items.
        number_of: maps a UID to the client's sequence number, or to None if the client does not know the message.
    """
    columns = session.view.columns
    shared = session.view.uids is columns.uids
    found = [
        (i, number, row, uid)
        for i, uid in enumerate(fetched.uids)
        if (number := number_of(uid)) is not None
        and (row := number - 1 if shared else columns.row(uid)) is not None
    ]
    values = [[column[i] for i, *_ in found] for column in fetched.columns]
    _, numbers, rows, uids = zip(*found, strict=True) if found else ((), (), (), ())
    return MessageRows(numbers, rows, uids), values


def known_column(
    session: SessionState, item: FetchItem, rows: MessageRows
) -> Sequence[bytes | int]:
    r"""Return the values of one of `KNOWN_ITEMS` for all `rows`; FLAGS contain \Recent in IMAP4rev1 only."""
    assert isinstance(item, Attribute)
    view, columns = session.view, session.view.columns
    match item.name:
        case b"UID":
            return rows.uids
        case b"FLAGS":
            lists = columns.flag_lists
            texts = [lists[i] for i in take(columns.flag_ids, rows.column_rows)]
            recent = view.recent
            if not recent or session.rev2:
                return texts
            pairs = zip(rows.uids, texts, strict=True)
            return [(b"\\Recent " + t).rstrip() if uid in recent else t for uid, t in pairs]
        case b"INTERNALDATE":
            return [encode_internaldate(date) for date in take(columns.dates, rows.column_rows)]
        case b"RFC822.SIZE":
            return take(columns.sizes, rows.column_rows)
        case _:
            return take(columns.modseqs, rows.column_rows)


def take(values: Sequence[int], rows: Sequence[int]) -> Sequence[int]:
    """Return the values at `rows`. If these are a range, the result is one slice."""
    if isinstance(rows, range):
        return values[rows.start : rows.stop]
    return [values[row] for row in rows]


def known_items(
    session: SessionState, uids: Sequence[int], items: Sequence[FetchItem], *, uid: bool = False
) -> Iterable[bytes]:
    """Return unsolicited FETCH responses for those of `uids` that the client knows and that still exist.

    A pending flag update of a message is dropped, because the response contains its flags.

    Args:
        session: the session.
        uids: the messages.
        items: some of `KNOWN_ITEMS`: FLAGS, or MODSEQ alone after STORE with .SILENT (RFC 7162 section 3.1.3).
        uid: whether to include the UID in any case.
    """
    view = session.view
    known = view.rows(uids)
    if isinstance(known, range) and view.uids is view.columns.uids:
        rows = MessageRows(range(known.start + 1, known.stop + 1), known, uids)
    else:
        rows, _ = locate_messages(session, FetchResult(uids), view.number_lookup(len(uids)))
    items = implicit_items(session, items, uid=uid, unsolicited=True)
    if FLAGS in items:
        view.forget_flag_changes(rows.uids)
    return lines(session, render_chunk(session, rows, items, ()))


def flag_updates(
    session: SessionState, messages: Sequence[tuple[int, int]], *, uid: bool
) -> Iterable[bytes]:
    """Return FETCH responses with the flags of `messages`, given as (sequence number, UID), that still exist."""
    columns = session.view.columns
    shared = session.view.uids is columns.uids
    found = [
        (number, row, uid)
        for number, uid in messages
        if (row := number - 1 if shared else columns.row(uid)) is not None
    ]
    numbers, column_rows, uids = zip(*found, strict=True) if found else ((), (), ())
    items = implicit_items(session, [FLAGS], uid=uid, unsolicited=True)
    return lines(session, render_chunk(session, MessageRows(numbers, column_rows, uids), items, ()))


def _new_keywords(session: SessionState) -> Iterable[bytes]:
    """Return the FLAGS response if keywords are new since the last one; it precedes their FETCH responses."""
    count = len(session.view.columns.keywords)
    if session.announced_keywords == count:
        return ()
    session.announced_keywords = count
    return encode.flags([*flags.SYSTEM_FLAGS, *session.keywords()])


async def load_sizes(mailbox: IMailbox, uids: Sequence[int]) -> Sequence[int]:
    """Make sure that the columns of `mailbox` contain the sizes (RFC822.SIZE) of `uids`.

    Returns:
        The messages that could not be measured.
    """
    columns = mailbox.columns
    unknown = [
        uid
        for uid in uids
        if (row := columns.row(uid)) is not None and columns.sizes[row] == UNKNOWN_SIZE
    ]
    return await mailbox.load_sizes(unknown)


def memory_of(fetched: FetchResult) -> int:
    """Return about how many bytes of memory a result takes, and the lists that its responses are made from."""
    values = sum(getsizeof(column) + sum(map(getsizeof, column)) for column in fetched.columns)
    return values + ROW_BYTES * len(fetched.uids)


async def read_chunk(
    session: SessionState, uids: Sequence[int], items: Sequence[FetchItem]
) -> FetchResult:
    """Read those of `items` that are not in the columns, for as many of `uids` as fill a chunk."""
    mailbox = session.mailbox
    unmeasured = await load_sizes(mailbox, uids) if SIZE in items else ()
    stored = [item for item in items if not is_known(item)]
    fetched = FetchResult(uids)
    if stored:
        fetched = await mailbox.fetch(uids, stored, session.next_chunk_size())
    return fetched.without(set(unmeasured)) if unmeasured else fetched


def chunk_of_rows(
    session: SessionState,
    rows: Sequence[int],
    uids: Sequence[int],
    items: Sequence[FetchItem],
    fetched: FetchResult,
) -> Chunk:
    """Return the responses to a FETCH command for the messages in `fetched` that still exist.

    Args:
        session: the session.
        rows: the rows of the view to which `fetched` is the answer.
        uids: the messages in these rows.
        items: the items of the responses.
        fetched: what `read_chunk` returned for them.
    """
    view = session.view
    if isinstance(rows, range):
        numbers: Sequence[int] = range(rows.start + 1, rows.stop + 1)
    else:
        numbers = [row + 1 for row in rows]
    if view.uids is not view.columns.uids or len(fetched.uids) < len(uids):
        number_of = dict(zip(uids, numbers, strict=True)).get
        found, values = locate_messages(session, fetched, number_of)
    else:
        found, values = MessageRows(numbers, rows, uids), fetched.columns
    if FLAGS in items:
        view.forget_flag_changes(found.uids)
    return render_chunk(session, found, items, values)


def render_chunk(
    session: SessionState, rows: MessageRows, items: Sequence[FetchItem], values: Sequence[Column]
) -> Chunk:
    """Combine the values in the columns of the mailbox with those from the store.

    Args:
        session: the session.
        rows: the messages.
        items: the items, in the order of the response.
        values: a column of values for each item that is not in `KNOWN_ITEMS`, as `read_chunk` returns them.
    """
    stored = iter(values)
    columns: list[Column] = [
        known_column(session, item, rows) if is_known(item) else _without_nil(item, next(stored))
        for item in items
    ]
    # The values of an Attribute, such as ENVELOPE, are cached by the store and never too large for memory.
    has_blobs = bool(values) and any(
        Blob in map(type, column)
        for item, column in zip(items, columns, strict=True)
        if not isinstance(item, Attribute)
    )
    return Chunk(rows, [fetch_encoding.label(item) for item in items], columns, has_blobs)


def _without_nil(item: FetchItem, column: Column) -> Column:
    """Return the values of an item with an empty string for each part that does not exist.

    RFC 9051 permits NIL too, but Twisted's IMAP client, go-imap and npm's imap fail on it. npm's imap also never
    finishes a body that is the literal ``{0}``.
    """
    if isinstance(item, BodySection | Binary) and strings.NIL in column:
        return [_EMPTY if value == strings.NIL else value for value in column]
    return column


async def send_chunk(session: SessionState, chunk: Chunk) -> int:
    """Send the FETCH responses of a chunk; return for how many messages. A message can be gone before it is sent."""
    sent = 0
    for part in chunk.messages() if chunk.has_blobs else (chunk,):
        if part.has_blobs:
            sent += await session.send_as_one(_stream(session, part))
        else:
            await session.send(lines(session, part))
            sent += len(part.rows.uids)
    return sent


def _kind_and_numbers(session: SessionState, rows: MessageRows) -> tuple[bytes, Sequence[int]]:
    """Return the name of the responses and their numbers; UIDONLY replaces FETCH by UIDFETCH (RFC 9586)."""
    return (b"UIDFETCH", rows.uids) if session.uid_only else (b"FETCH", rows.numbers)


def lines(session: SessionState, chunk: Chunk) -> Iterable[bytes]:
    """Return the responses of a chunk without blobs, in pieces."""
    if not chunk.rows.uids:
        return ()
    keywords = _new_keywords(session) if FLAGS.name in chunk.labels else ()
    kind, numbers = _kind_and_numbers(session, chunk.rows)
    columns = cast("Sequence[Sequence[bytes | int]]", chunk.columns)
    size = session.io.piece_size
    return chain(
        keywords, fetch_encoding.fetch_lines(numbers, chunk.labels, columns, kind=kind, size=size)
    )


async def _stream(session: SessionState, message: Chunk) -> bool:
    """Send one message with blobs, which are read from the store as fast as the client reads them.

    Returns:
        Whether it was sent. It was not if it was expunged, or became unreadable, before its first blob was read.
    """
    first = next(value for (value,) in message.columns if isinstance(value, Blob))
    try:
        begun = [await _read_piece(session, first, 0)]
    except MessageExpunged:
        return False
    except StoreError:
        session.failed_messages += 1
        return False
    if FLAGS.name in message.labels:
        await session.send(_new_keywords(session))
    kind, (number,) = _kind_and_numbers(session, message.rows)
    separator = b"* %d %b (" % (number, kind)
    for label, (value,) in zip(message.labels, message.columns, strict=True):
        session.io.write(separator + label + b" ")
        if isinstance(value, Blob):
            await _send_blob(session, value, begun)
        else:
            await session.send([fetch_encoding.fetch_value(label, value)])
        separator = b" "
    session.io.write(b")\r\n")
    await session.io.drain()
    return True


async def _read_piece(session: SessionState, blob: Blob, start: int) -> bytes:
    size = min(session.next_chunk_size(), blob.size - start)
    return await session.mailbox.read(blob.uid, blob.item, start, size)


async def _send_blob(session: SessionState, blob: Blob, begun: list[bytes]) -> None:
    """Send the literal of a blob. `begun` has its first bytes, or nothing; they are taken out of it.

    Nothing else refers to them, so they are freed when they are sent, and not when the whole literal is.
    """
    data = begun.pop() if begun else b""
    binary = isinstance(blob.item, Binary)
    session.io.write(strings.literal_head(blob.size, binary=binary))
    sent = 0
    while sent < blob.size:
        try:
            data = data or await _read_piece(session, blob, sent)
        except StoreError:
            data = b""
        except Exception as error:
            # Before the reset, after which the dispatcher reports no error.
            session.io.command_failed("FETCH", "".join(format_exception(error)))
            session.io.reset(_CUT_OFF)  # for the same reason as below
            raise
        if not data:
            # The client has been sent the size of the literal, so only a reset can show that the data is missing.
            session.io.reset(_CUT_OFF)
            await session.io.drain()
            raise AssertionError("drain() must raise an exception after reset()")
        await session.send([data if binary else data.replace(b"\0", b"\x80")])
        sent += len(data)
        data = b""
        await session.io.drain()
