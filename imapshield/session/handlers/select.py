"""SELECT, EXAMINE, CLOSE and UNSELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.view import View
from imapshield.session import qresync
from imapshield.session.handlers import fetch, mailboxes
from imapshield.session.states import State
from imapshield.wire import encode, flags
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.fetch import Attribute, Fetch
from imapshield.wire.commands.select import Qresync, Select
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import SequenceSet

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def select(session: Session, command: Select) -> Tagged:
    """SELECT and EXAMINE (RFC 9051 section 6.3.2): when it fails, nothing is selected."""
    if command.qresync is not None:
        qresync.check(session)
        if session.uid_only and command.qresync.match_sequence is not None:
            raise session.uid_required()  # RFC 9586 section 3.7
    if session.state is State.SELECTED:
        session.leave()
        session.io.write(encode.untagged(b"OK", "The mailbox before this is closed", b"CLOSED"))
    if command.condstore:
        session.enable_condstore()
    claim = not command.readonly
    # asked before, so that nothing can happen between the opening and what is told of it
    infos = {i.name: i for i in await session.account.mailboxes()} if session.rev2 else {}
    mailbox, recent = await session.account.open(command.mailbox, claim)
    view = View(mailbox.columns, recent)
    session.watch(mailbox, view, claim)
    session.enter(mailbox, view, command.readonly)
    columns = mailbox.columns
    keywords = session.keywords()
    permanent = [] if command.readonly else [*flags.SYSTEM_FLAGS, *keywords, b"\\*"]
    out = [
        encode.flags([*flags.SYSTEM_FLAGS, *keywords]),
        encode.untagged(b"OK", "Flags", encode.permanentflags_code(permanent)),
        encode.exists(len(view.uids)),
    ]
    if session.rev2:
        name, above = mailbox.name, mailboxes.parents(infos)
        shown = mailboxes.attributes(name, infos, above, extended=True)
        out.append(encode.list_response(b"LIST", shown, name, utf8=True))
    else:
        out.append(encode.recent(len(view.recent)))
        unseen = 0 if session.uid_only else columns.first_without(b"\\Seen") + 1
        if unseen:
            out.append(encode.untagged(b"OK", "First unseen", b"UNSEEN %d" % unseen))
    out += [
        encode.untagged(b"OK", "UIDs valid", b"UIDVALIDITY %d" % mailbox.uidvalidity),
        encode.untagged(b"OK", "Next UID", b"UIDNEXT %d" % columns.uidnext),
        encode.untagged(b"OK", "Highest", b"HIGHESTMODSEQ %d" % columns.highestmodseq),
        encode.untagged(b"OK", "Mailbox id", b"MAILBOXID (%b)" % mailbox.mailbox_id),
    ]
    session.io.write(b"".join(out))
    if command.qresync is not None and command.qresync.uidvalidity == mailbox.uidvalidity:
        await _resync(session, command.qresync)
    if session.notify_subscription is not None and session.notify_subscription.selected is not None:
        await mailbox.watch_for_changes()
    if command.readonly:
        return ok("Opened, read only", b"READ-ONLY")
    return ok("Opened", b"READ-WRITE")


async def _resync(session: Session, known: Qresync) -> None:
    """Tell what went and what changed after the client's MODSEQ (RFC 7162 section 3.2.5)."""
    uids = known.known_uids or SequenceSet(tail=1)
    await qresync.vanished(session, uids, known.modseq, qresync.agreed(session.view, known))
    changed = Fetch(uids, (Attribute(b"FLAGS"),), uid=True, changed_since=known.modseq)
    await fetch.fetch(session, changed)
    if session.view.has_pending_updates:
        session.send_synced_modseq()


async def close(session: Session, command: BareCommand) -> Tagged:
    r"""CLOSE removes what has \Deleted, without telling; UNSELECT (RFC 3691) does not."""
    try:
        if command.name == b"CLOSE" and not session.readonly:
            await session.mailbox.expunge(None)
    except NoSuchMailbox:
        pass  # deleted by somebody else: of no mailbox it is true that its messages are removed
    finally:
        session.leave()
    return ok(
        "Closed"
    )  # without HIGHESTMODSEQ, since nobody was told what went (RFC 7162 section 3.2.8)
