"""FETCH responses: which items they carry, and the values of the items that the columns hold.

The rules of RFC 9051, RFC 7162 and RFC 9586 for UID, FLAGS and MODSEQ are here and nowhere else.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from imapshield.mailbox.values import FetchResult
from imapshield.session.state import SessionState
from imapshield.wire import encode, flags
from imapshield.wire.commands.fetch import Attribute, FetchItem
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
