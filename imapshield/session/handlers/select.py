"""SELECT, EXAMINE, CLOSE and UNSELECT."""

from collections.abc import Iterator, Mapping
from itertools import chain, takewhile

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.values import MailboxInfo
from imapshield.mailbox.view import View
from imapshield.session.handlers.fetch import send_changed, send_vanished
from imapshield.session.mailbox_names import list_attributes, parents
from imapshield.session.progress import with_progress
from imapshield.session.session import Session
from imapshield.session.state import State
from imapshield.wire import encode, flags
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.mailboxes import Qresync, Select
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import SequenceSet


async def select(session: Session, command: Select) -> Tagged:
    """Handle SELECT and EXAMINE (RFC 9051 section 6.3.2). If it fails, no mailbox is selected."""
    if command.qresync is not None:
        session.require_qresync()
        if session.uid_only and command.qresync.match_sequence is not None:
            raise session.uid_required()  # RFC 9586 section 3.7
    if session.state is State.SELECTED:
        session.leave()
        session.io.write(encode.untagged(b"OK", "Previous mailbox closed", b"CLOSED"))
    if command.condstore:
        session.enable_condstore()
    # This comes before opening the mailbox, so that nothing can change between opening it and the responses.
    infos = {i.name: i for i in await session.account.mailboxes()} if session.rev2 else {}
    opening = session.account.open(command.mailbox, not command.readonly)
    mailbox, recent = await with_progress(session, opening)
    session.select(mailbox, View(mailbox.columns, recent), readonly=command.readonly)
    await session.send(_describe(session, infos))
    if command.qresync is not None and command.qresync.uidvalidity == mailbox.uidvalidity:
        await _resynchronize(session, command.qresync)
    if session.selected_group is not None:
        await mailbox.watch_for_changes()
    if command.readonly:
        return ok("EXAMINE completed", b"READ-ONLY")
    return ok("SELECT completed", b"READ-WRITE")


def _describe(session: Session, infos: Mapping[str, MailboxInfo]) -> Iterator[bytes]:
    """Yield the untagged responses that describe the selected mailbox."""
    mailbox, view, columns = session.mailbox, session.view, session.mailbox.columns
    keywords = session.keywords()
    permanent = [] if session.readonly else [*flags.SYSTEM_FLAGS, *keywords, b"\\*"]
    code = encode.permanentflags_code(permanent)
    lines = [encode.exists(len(view.uids))]
    if session.rev2:
        name = mailbox.name
        attributes = list_attributes(infos.get(name), has_children=name in parents(infos))
        lines.append(encode.list_response(b"LIST", attributes, name, names=session.names))
    else:
        lines.append(encode.recent(len(view.recent)))
        unseen = 0 if session.uid_only else columns.first_row_without(flags.SEEN) + 1
        if unseen:
            lines.append(encode.untagged(b"OK", "First unseen", b"UNSEEN %d" % unseen))
    lines += [
        encode.untagged(b"OK", "UIDs valid", b"UIDVALIDITY %d" % mailbox.uidvalidity),
        encode.untagged(b"OK", "Predicted next UID", b"UIDNEXT %d" % columns.uidnext),
        encode.untagged(b"OK", "Highest", b"HIGHESTMODSEQ %d" % columns.highestmodseq),
        encode.untagged(b"OK", "Mailbox ID", b"MAILBOXID (%b)" % mailbox.mailbox_id),
    ]
    flag_lines = (
        encode.flags([*flags.SYSTEM_FLAGS, *keywords]),
        encode.untagged_pieces(b"OK", "Permanent flags", code),
    )
    return chain(*flag_lines, lines)


async def _resynchronize(session: Session, known: Qresync) -> None:
    """Send the expunged and the changed messages since the MODSEQ of the client (RFC 7162 section 3.2.5)."""
    uids = known.known_uids or SequenceSet(tail=1)
    above = _highest_matching_uid(session.view, known)
    await send_vanished(session, uids, known.modseq, above=above)
    await send_changed(session, uids, known.modseq)
    session.send_synced_modseq()


def _highest_matching_uid(view: View, known: Qresync) -> int:
    """Return the highest UID to which the client has assigned the right number, or 0 (RFC 7162 section 3.2.5.2).

    Up to that UID the client knows which messages were expunged, even if the store has forgotten when.
    """
    if known.match_sequence is None or known.match_uids is None:
        return 0
    numbers = takewhile(len(view.uids).__ge__, known.match_sequence)
    pairs = zip(numbers, known.match_uids, strict=False)
    return max((uid for number, uid in pairs if view.uids[number - 1] == uid), default=0)


async def close(session: Session, command: BareCommand) -> Tagged:
    r"""Handle CLOSE and UNSELECT (RFC 3691). CLOSE expunges \Deleted messages, without EXPUNGE responses."""
    try:
        if command.name == b"CLOSE" and not session.readonly:
            await session.mailbox.expunge(None)
    except NoSuchMailbox:
        pass  # another session has deleted the mailbox with its messages
    finally:
        session.leave()
    # No HIGHESTMODSEQ, because the client was not sent the expunges (RFC 7162 section 3.2.8).
    return ok(f"{command.name.decode()} completed")
