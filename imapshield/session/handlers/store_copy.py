"""STORE, COPY, MOVE and EXPUNGE: changing the messages of the selected mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imapshield.errors import CommandRefused, NoSuchMailbox, StoreLimitExceeded
from imapshield.wire import encode
from imapshield.wire.commands.store_copy import Copy, Expunge, Store
from imapshield.wire.flags import SYSTEM_FLAGS, flag_list
from imapshield.wire.responses import Tagged, no, ok
from imapshield.wire.sequence import SequenceSet

if TYPE_CHECKING:
    from imapshield.session.session import Session

TOLD_AT_ONCE = 2000
"""FETCH responses that a STORE writes before others have their turn."""


def _writable(session: Session) -> None:
    if session.readonly:
        raise CommandRefused(b"READ-ONLY", "The mailbox was opened read only")


async def store(session: Session, command: Store) -> Tagged:
    """STORE and UID STORE (RFC 9051 section 6.4.6, RFC 7162 section 3.1.3)."""
    _writable(session)
    view = session.view
    if command.unchanged_since is not None:
        session.enable_condstore()
    spans = session.within_limit(session.rows_of(command.sequence, uid=command.uid))
    uids = list(view.uids_of(spans))
    flags = [flag for flag in command.flags if flag.lower() != b"\\recent"]
    expected = _expected(session, uids, command.operation, flags) if command.silent else {}
    failed: list[int] = []
    try:
        if uids:
            failed = await _store(session, uids, command, flags)
    except StoreLimitExceeded:
        # RFC 9051 section 7.1, PERMANENTFLAGS: then it has no ``\*`` any more
        permanent = encode.permanentflags_code([*SYSTEM_FLAGS, *session.keywords()])
        session.io.write(encode.untagged(b"OK", "No more keywords", permanent))
        raise
    left_alone = set(failed)
    done = [uid for uid in uids if uid not in left_alone]
    if command.silent:
        # what turned out as the client expects need not be told; what somebody else did as well must be
        done = _as_expected(session, done, expected)
        if session.condstore:
            session.send_modseqs(done)
        view.forget_flag_changes(done)
    else:
        told = done[::-1] if session.limit_code else done
        for start in range(0, len(told), TOLD_AT_ONCE):
            piece = told[start : start + TOLD_AT_ONCE]
            session.send_flags(piece, uid=command.uid)
            view.forget_flag_changes(piece)
            if start + TOLD_AT_ONCE < len(told):
                await session.pause(start + TOLD_AT_ONCE, len(told))
    gone = view.has_pending_expunges and any(view.columns.row(uid) is None for uid in uids)
    text, code = "Stored", None
    if failed:
        numbers = (
            failed if command.uid else [n for u in failed if (n := view.number(u)) is not None]
        )
        text, code = "Some had changed", b"MODIFIED " + SequenceSet.from_uids(numbers).encode()
    if gone:
        text, code = "Some of those messages have been deleted", code or b"EXPUNGEISSUED"
    # a UID that is not there is no error (RFC 9051 section 6.4.9), nor is there one with .SILENT (RFC 2180, 4.2)
    answer = no if gone and not (command.silent or command.uid) else ok
    return answer(text, code)


async def _store(
    session: Session, uids: list[int], command: Store, flags: list[bytes]
) -> list[int]:
    """Change flags; returns the UIDs left alone.

    UNCHANGEDSINCE 0 "always fails if the metadata item exists", so it sets a keyword only where there is none yet: that
    is how clients agree on who sends a receipt (RFC 7162 section 3.1.3, example 8).
    """
    change, since = session.mailbox.store_flags, command.unchanged_since
    if since != 0 or command.operation != b"+" or any(flag.startswith(b"\\") for flag in flags):
        return await change(uids, command.operation, flags, since)
    given = frozenset(flag_list(flags).lower().split())
    taken = [uid for uid in uids if given & (_now(session, uid) or frozenset())]
    free = sorted({*uids}.difference(taken))
    left = (
        await change(free, command.operation, flags, session.view.columns.highestmodseq)
        if free
        else []
    )
    return sorted([*taken, *left])


def _now(session: Session, uid: int) -> frozenset[bytes] | None:
    columns = session.view.columns
    row = columns.row(uid)
    return None if row is None else columns.flag_sets[columns.flags[row]]


def _expected(
    session: Session, uids: list[int], op: bytes, flags: list[bytes]
) -> dict[int, frozenset[bytes]]:
    """What the client, who knows the flags as they are in the view, expects them to be after this."""
    given = frozenset(flag_list(flags).lower().split())
    out: dict[int, frozenset[bytes]] = {}
    # one set for all messages that have the same: of 500 keywords it is 32 KiB
    after: dict[int, frozenset[bytes]] = {}
    for uid in uids:
        now = _now(session, uid)
        if now is None or session.view.flags_changed(uid):
            continue
        found = after.get(id(now))
        if found is None:
            found = now | given if op == b"+" else now - given if op == b"-" else given
            after[id(now)] = found
        out[uid] = found
    return out


def _as_expected(
    session: Session, uids: list[int], expected: dict[int, frozenset[bytes]]
) -> list[int]:
    """Return those of `uids` that have now the flags that were expected."""
    same: dict[tuple[int, int], bool] = {}
    out: list[int] = []
    for uid in uids:
        wanted, now = expected.get(uid), _now(session, uid)
        if wanted is None or now is None:
            continue
        pair = id(wanted), id(now)
        if pair not in same:
            same[pair] = wanted == now
        if same[pair]:
            out.append(uid)
    return out


async def copy(session: Session, command: Copy) -> Tagged:
    """COPY and MOVE (RFC 9051 sections 6.4.7 and 6.4.8), all or nothing, with COPYUID.

    A MOVE of too many moves the last of them (RFC 9738 section 3.1).
    """
    if command.is_move:
        _writable(session)
    view = session.view
    wanted = session.rows_of(command.sequence, uid=command.uid)
    spans = session.within_limit(wanted, whole=not command.is_move)
    uids = list(view.uids_of(spans))
    if command.uid:
        # one that is gone is no error (RFC 9051 section 6.4.9), a number that is gone is one
        uids = [uid for uid in uids if view.columns.row(uid) is not None]
    if not uids:
        return ok("There was nothing to do")
    try:
        done = await session.mailbox.copy(uids, command.mailbox, command.is_move)
    except NoSuchMailbox:
        raise CommandRefused(b"TRYCREATE", "There is no such mailbox; create it first") from None
    session.note_own_uids(command.mailbox, done.target_uids)
    if not done.source_uids:
        return ok("There was nothing to do", b"EXPUNGEISSUED")
    code = encode.copyuid(done.uidvalidity, done.source_uids, done.target_uids)
    if command.is_move:
        # before the EXPUNGEs, so that the client knows where what goes has gone (RFC 6851 section 4.3)
        session.io.write(encode.untagged(b"OK", "Moved", code))
        highest = session.mailbox.columns.highestmodseq
        return ok("Moved", b"HIGHESTMODSEQ %d" % highest)  # told to everybody (section 4.4)
    return ok("Copied", code)


async def expunge(session: Session, command: Expunge) -> Tagged:
    """EXPUNGE, and UID EXPUNGE (RFC 4315)."""
    _writable(session)
    view = session.view
    uids = None
    if command.uids is not None:
        spans: Sequence[tuple[int, int]] = session.rows_of(command.uids, uid=True)
        if (
            session.limits.max_messages_per_command
        ):  # what counts is what goes (RFC 9738 section 3.1)
            ids = view.columns.ids_with(b"\\Deleted")
            rows = [
                row
                for start, stop in spans
                for row in range(start, stop)
                if (at := view.columns.row(view.uids[row])) is not None
                and view.columns.flags[at] in ids
            ]
            spans = session.within_limit([(row, row + 1) for row in rows])
        uids = list(view.uids_of(spans))
    await session.mailbox.expunge(uids)
    return ok("Expunged", session.highestmodseq_code())
