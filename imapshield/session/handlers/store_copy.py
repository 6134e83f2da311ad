"""STORE, COPY, MOVE and EXPUNGE: changes to the messages of the selected mailbox."""

from array import array
from collections.abc import Container, Iterable, Iterator, Sequence

from imapshield.errors import MessageExpunged, StoreLimitExceeded
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.values import StoreResult
from imapshield.session.fetch_responses import FLAGS, MODSEQ, known_items
from imapshield.session.handlers.append import try_create
from imapshield.session.progress import with_progress
from imapshield.session.session import Session
from imapshield.session.state import Spans, rows_in
from imapshield.wire import encode
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.messages import Copy, Expunge, Store
from imapshield.wire.flags import DELETED, SYSTEM_FLAGS, flag_list
from imapshield.wire.responses import Code, Tagged, no, ok

ExpectedFlags = tuple[frozenset[bytes], "array[int]"]
"""Flags in lower case, and the UIDs of the messages that are expected to have them."""

STORE_CHUNK_RESPONSES = 1000
"""Number of FETCH responses that a STORE writes before other connections run."""


async def store(session: Session, command: Store) -> Tagged:
    """Handle STORE and UID STORE (RFC 9051 section 6.4.6, RFC 7162 section 3.1.3)."""
    session.require_writable()
    view = session.view
    if command.unchanged_since is not None:
        session.enable_condstore()
    spans = session.within_limit(await session.rows_of(command.sequence, uid=command.uid))
    uids = view.uids_of(spans)
    expected = _expected_flags(session, uids, command) if command.silent else []
    stored = StoreResult(Delta())
    try:
        if uids:
            stored = await _store_flags(session, uids, command)
            await session.worked(len(uids))
    except StoreLimitExceeded:
        # PERMANENTFLAGS without ``\*`` shows that no keyword can be created (RFC 9051 section 7.1).
        permanent = encode.permanentflags_code([*SYSTEM_FLAGS, *session.keywords()])
        await session.send(encode.untagged_pieces(b"OK", "No more keywords", permanent))
        raise
    session.failed_messages += len(stored.failed)
    unchanged = {*stored.modified, *stored.failed}
    if command.silent:
        await _respond_silently(session, unchanged, expected)
    else:
        changed = [uid for uid in uids if uid not in unchanged] if unchanged else uids
        changed = changed[::-1] if session.limit_code else changed
        await _send_in_chunks(session, changed, FLAGS, uid=command.uid)
    return _store_response(session, command, uids, stored.modified)


async def _respond_silently(
    session: Session, unchanged: Container[int], expected: Iterable[ExpectedFlags]
) -> None:
    """Handle .SILENT. Flags need a response only if they are not as expected, because another session changed them."""
    as_expected: list[int] = []
    for flags, uids in expected:
        equal: dict[int, bool] = {}
        for uid, current in zip(uids, _current_flags(session, uids), strict=True):
            is_equal = equal.get(id(current))
            if is_equal is None:
                is_equal = equal[id(current)] = current == flags
            if is_equal and uid not in unchanged:
                as_expected.append(uid)
    changed = array("I", sorted(as_expected))
    session.view.forget_flag_changes(changed)
    if session.condstore:
        await _send_in_chunks(session, changed, MODSEQ, uid=False)


async def _store_flags(session: Session, uids: Sequence[int], command: Store) -> StoreResult:
    """Change flags.

    UNCHANGEDSINCE 0 "always fails if the metadata item exists", so it sets a keyword only on messages without it.
    Clients use this to agree on the one that sends a receipt (RFC 7162 section 3.1.3, example 8).
    """
    store_flags, since, flags = session.mailbox.store_flags, command.unchanged_since, command.flags
    if since != 0 or command.operation != b"+" or any(flag.startswith(b"\\") for flag in flags):
        return await store_flags(uids, command.operation, flags, since)
    added = _flag_set(flags)
    flags_of = zip(uids, _current_flags(session, uids), strict=True)
    with_flag = [uid for uid, current in flags_of if current and added & current]
    free = sorted({*uids}.difference(with_flag))
    highest = session.view.columns.highestmodseq
    stored = StoreResult(Delta())
    if free:
        stored = await store_flags(free, command.operation, flags, highest)
    return stored._replace(modified=sorted([*with_flag, *stored.modified]))


def _flag_set(flags: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(flag_list(flags).lower().split())


def _current_flags(session: Session, uids: Iterable[int]) -> Iterator[frozenset[bytes] | None]:
    """Yield the flags of each of `uids`, or None if the message no longer exists."""
    columns = session.view.columns
    known, flag_ids, flag_sets = columns.uids, columns.flag_ids, columns.flag_sets
    row: int | None = 0
    for uid in uids:
        if row is None or row == len(known) or known[row] != uid:  # otherwise the UIDs are adjacent
            row = columns.row(uid)
        if row is None:
            yield None
        else:
            yield flag_sets[flag_ids[row]]
            row += 1


def _expected_flags(session: Session, uids: Sequence[int], command: Store) -> list[ExpectedFlags]:
    """Return the flags that the client expects after the STORE, given the flags that it knows, and of which messages.

    Messages are left out if their flags were changed and the client was not sent the change.
    """
    given, op = _flag_set(command.flags), command.operation
    # By the id of the present flags: the mailbox has one set for all messages with the same flags.
    expected: dict[int, ExpectedFlags] = {}
    is_changed = session.view.flags_changed
    for uid, current in zip(uids, _current_flags(session, uids), strict=True):
        if current is None or is_changed(uid):
            continue
        if id(current) not in expected:
            result = current | given if op == b"+" else current - given if op == b"-" else given
            expected[id(current)] = result, array("I")
        expected[id(current)][1].append(uid)
    return list(expected.values())


async def _send_in_chunks(
    session: Session, uids: Sequence[int], item: FetchItem, *, uid: bool
) -> None:
    for start in range(0, len(uids), STORE_CHUNK_RESPONSES):
        chunk = uids[start : start + STORE_CHUNK_RESPONSES]
        await session.send(known_items(session, chunk, [item], uid=uid))
        if start + STORE_CHUNK_RESPONSES < len(uids):
            await session.pause(start + STORE_CHUNK_RESPONSES, len(uids))


def _store_response(
    session: Session, command: Store, uids: Sequence[int], modified: Sequence[int]
) -> Tagged:
    view = session.view
    missing = view.has_pending_expunges and any(view.columns.row(uid) is None for uid in uids)
    text = "STORE completed"
    code: Code | None = None
    if modified:
        numbers = modified if command.uid else view.numbers(modified)
        text = "Some messages were modified"
        code = encode.modified(sorted(numbers))
    if missing:
        text, code = MessageExpunged.text, code or b"EXPUNGEISSUED"
    # A missing message is no error in UID STORE (RFC 9051 section 6.4.9) and with .SILENT (RFC 2180 section 4.2).
    respond = no if missing and not (command.silent or command.uid) else ok
    return respond(text, code)


async def copy(session: Session, command: Copy) -> Tagged:
    """Handle COPY and MOVE (RFC 9051 sections 6.4.7 and 6.4.8).

    If some messages cannot be copied, the response is NO: after an OK, a client would remove the originals. COPYUID, in
    an untagged OK, says which messages were copied.

    A MOVE of more messages than MESSAGELIMIT moves the last ones (RFC 9738 section 3.1).
    """
    name = "MOVE" if command.is_move else "COPY"
    if command.is_move:
        session.require_writable()
    view = session.view
    rows = await session.rows_of(command.sequence, uid=command.uid)
    spans = session.within_limit(rows, whole=not command.is_move)
    uids = list(view.uids_of(spans))
    if command.uid:
        # A UID that does not exist is no error (RFC 9051 section 6.4.9). The sequence number of an expunged message is.
        uids = [uid for uid in uids if view.columns.row(uid) is not None]
    if not uids:
        return ok(f"{name} completed, no messages found")
    with try_create():
        copying = session.mailbox.copy(uids, command.mailbox, command.is_move)
        copied = await with_progress(session, copying)
    session.note_own_uids(command.mailbox, copied.target_uids)
    session.failed_messages += len(copied.failed)
    if not copied.source_uids:
        text = f"{name} completed, no messages found"
        return ok(text, None if copied.failed else b"EXPUNGEISSUED")
    code = encode.copyuid(copied.uidvalidity, copied.source_uids, copied.target_uids)
    if not command.is_move:
        if not copied.failed:
            return ok("COPY completed", code)
        # The code is for an OK response (RFC 4315 section 3).
        await session.send(encode.untagged_pieces(b"OK", "Some messages copied", code))
        return ok("COPY completed")
    # Before the EXPUNGE responses, so that the client knows where the messages are (RFC 6851 section 4.3).
    await session.send(encode.untagged_pieces(b"OK", "Messages moved", code))
    # HIGHESTMODSEQ is sent to all clients, whatever they have enabled (section 4.4).
    return ok("MOVE completed", b"HIGHESTMODSEQ %d" % session.mailbox.columns.highestmodseq)


async def expunge(session: Session, command: Expunge) -> Tagged:
    """Handle EXPUNGE, and UID EXPUNGE (RFC 4315)."""
    session.require_writable()
    view = session.view
    uids = None
    if command.uids is not None:
        spans = await session.rows_of(command.uids, uid=True)
        if session.limits.max_messages_per_command:
            spans = session.within_limit(_deleted(session, spans))
        uids = list(view.uids_of(spans))
    session.failed_messages += len(await session.mailbox.expunge(uids))
    return ok("EXPUNGE completed", session.highestmodseq_code())


def _deleted(session: Session, spans: Spans) -> Spans:
    r"""Return the rows with \Deleted: only expunged messages count for MESSAGELIMIT (RFC 9738 section 3.1)."""
    view, columns = session.view, session.view.columns
    deleted = columns.flag_ids_with(DELETED)
    return [
        (row, row + 1)
        for row in rows_in(spans)
        if (i := columns.row(view.uids[row])) is not None and columns.flag_ids[i] in deleted
    ]
