"""CREATE, DELETE, RENAME, SUBSCRIBE, LIST, LSUB and STATUS: the mailboxes of an account, seen from outside."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING

from imapshield.errors import CommandRefused, NoSuchMailbox, StoreError
from imapshield.mailbox.values import MailboxInfo, MailboxStatus
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.mailboxes import Create, Delete, List, Rename, Status, Subscribe
from imapshield.wire.names import DELIMITER, ListPattern, fold_inbox, parent_names
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def create(session: Session, command: Create) -> Tagged:
    """CREATE (RFC 9051 section 6.3.4, RFC 6154); a last delimiter only says that inferiors will follow."""
    name = command.mailbox.removesuffix(DELIMITER)
    _net_unicode(session, name)
    mailbox_id = await session.account.create(name, command.special_use)
    return ok("Created", b"MAILBOXID (%b)" % mailbox_id)


def _net_unicode(session: Session, name: str) -> None:
    """Refuse a new name that is no Net-Unicode (RFC 9051 section 5.1); modified UTF-7 has no such rule."""
    if session.utf8 and not unicodedata.is_normalized("NFC", name):
        raise CommandRefused(b"CANNOT", "Mailbox names are in Unicode's Normalization Form C")


async def delete(session: Session, command: Delete) -> Tagged:
    """DELETE (RFC 9051 section 6.3.5); the selected mailbox is closed by it."""
    try:
        await session.account.delete(command.mailbox)
    except NoSuchMailbox:
        if any(info.name == command.mailbox for info in await session.account.mailboxes()):
            raise CommandRefused(b"HASCHILDREN", "That name only holds other mailboxes") from None
        raise
    if session.state is State.SELECTED and session.mailbox.name == command.mailbox:
        session.leave()
        session.io.write(encode.untagged(b"OK", "The selected mailbox is gone", b"CLOSED"))
    return ok("Deleted")


async def rename(session: Session, command: Rename) -> Tagged:
    """RENAME (RFC 9051 section 6.3.6)."""
    name = command.new.removesuffix(DELIMITER)
    _net_unicode(session, name)
    await session.account.rename(command.old, name)
    return ok("Renamed")


async def subscribe(session: Session, command: Subscribe) -> Tagged:
    """SUBSCRIBE and UNSUBSCRIBE."""
    if command.subscribe and all(
        i.name != command.mailbox for i in await session.account.mailboxes()
    ):
        # a server MAY validate; a name mistyped once would else be listed by LSUB for ever
        raise NoSuchMailbox
    await session.account.set_subscribed(command.mailbox, command.subscribe)
    return ok("Subscribed" if command.subscribe else "Unsubscribed")


async def status(session: Session, command: Status) -> Tagged:
    """STATUS (RFC 9051 section 6.3.11)."""
    if b"HIGHESTMODSEQ" in command.items:
        session.enable_condstore()
    found = await session.account.status(command.mailbox)
    session.io.write(_status_line(session, command.mailbox, command.items, found))
    return ok("That is its status")


def _status_line(
    session: Session, name: str, items: Iterable[bytes], found: MailboxStatus
) -> bytes:
    values: dict[bytes, int | bytes] = {
        b"MESSAGES": found.messages,
        b"RECENT": found.recent,
        b"UNSEEN": found.unseen,
        b"DELETED": found.deleted,
        b"UIDNEXT": found.uidnext,
        b"UIDVALIDITY": found.uidvalidity,
        b"HIGHESTMODSEQ": found.highestmodseq,
        b"SIZE": found.size,
        b"DELETED-STORAGE": -(-found.deleted_size // 1024),
        b"MAILBOXID": b"(%b)" % found.mailbox_id,
        b"APPENDLIMIT": session.limits.max_message_size,
    }
    return encode.status(
        name, [(item, values[item]) for item in items if item in values], utf8=session.utf8
    )


LISTED_AT_ONCE = 500
"""LIST responses written before others have their turn."""


async def list_(session: Session, command: List) -> Tagged:
    """LIST with RFC 5258, 5819 and 6154, and LSUB."""
    if command.patterns == ("",) and not command.extended:
        # asks only for the delimiter, and the root of the reference, of which we have one
        session.io.write(
            encode.list_response(b"LSUB" if command.lsub else b"LIST", [b"\\Noselect"], "")
        )
        return ok("That is the delimiter")
    if b"HIGHESTMODSEQ" in command.status_items:
        session.enable_condstore()
    infos = {info.name: info for info in await session.account.mailboxes()}
    wants_subscribed = (
        command.lsub or b"SUBSCRIBED" in command.selection or b"SUBSCRIBED" in command.returns
    )
    subscribed = await session.account.subscriptions() if wants_subscribed else set()
    # an empty one means nothing in an extended LIST (RFC 5258 section 3)
    patterns = [ListPattern(fold_inbox(command.reference + p)) for p in command.patterns if p]

    def matches(name: str) -> bool:
        return any(pattern.matches(name) for pattern in patterns)

    if command.lsub:
        session.io.write(_lsub(session, sorted(subscribed), infos, matches))
        return ok("Those are subscribed")
    above = parents(infos)
    selected = set(infos)
    if b"SUBSCRIBED" in command.selection:
        selected = set(subscribed)
    if b"SPECIAL-USE" in command.selection:
        selected = {n for n in selected if n in infos and infos[n].special_use}
    # RFC 5258 section 3.5: parents of what was selected, whether or not that matches the pattern itself
    with_child = parents(selected) if b"RECURSIVEMATCH" in command.selection else set()
    kinds = [b'"%b"' % kind for kind in sorted(command.selection & {b"SUBSCRIBED", b"SPECIAL-USE"})]
    # only those of which some child is not shown itself: "servers SHOULD suppress redundant CHILDINFO responses"
    needed = parents(n for n in selected if not matches(n)) if with_child else set()
    chosen = filter(matches, selected | needed)
    for count, name in enumerate(sorted(chosen, key=lambda n: (n != "INBOX", n)), 1):
        if count % LISTED_AT_ONCE == 0:
            await session.io.drain()
        status = b""
        if command.status_items and name in selected and name in infos and infos[name].selectable:
            try:
                found = await session.account.status(name)
                status = _status_line(session, name, command.status_items, found)
            except NoSuchMailbox:
                del infos[name]  # which the LIST response before it has to say (RFC 5819 section 2)
            except StoreError:
                pass
        shown = attributes(name, infos, above, extended=command.extended or session.rev2)
        if name in subscribed and wants_subscribed:
            shown.append(b"\\Subscribed")
        extended = [(b"CHILDINFO", encode.parenthesised(kinds))] if name in with_child else []
        session.io.write(
            encode.list_response(b"LIST", shown, name, extended=extended, utf8=session.utf8)
            + status
        )
        if status:
            await session.io.drain()
    return ok("Those are the mailboxes")


def parents(names: Iterable[str]) -> set[str]:
    """Return the superiors of `names`."""
    return {above for name in names for above in parent_names(name)}


def attributes(
    name: str, infos: dict[str, MailboxInfo], above: Container[str], *, extended: bool
) -> list[bytes]:
    """Return what LIST says of `name`, `above` being the superiors of all mailboxes."""
    info = infos.get(name)
    found: list[bytes] = []
    if info is None or not info.selectable:
        found.append(b"\\NonExistent" if extended else b"\\Noselect")
    found.append(b"\\HasChildren" if name in above else b"\\HasNoChildren")
    if info is not None:
        found += info.special_use
    return found


def _lsub(
    session: Session,
    subscribed: list[str],
    infos: dict[str, MailboxInfo],
    matches: Callable[[str], bool],
) -> bytes:
    out: dict[str, list[bytes]] = {}
    for name in subscribed:
        if matches(name):
            out[name] = [] if name in infos and infos[name].selectable else [b"\\Noselect"]
            continue
        # RFC 3501 section 6.3.9: with %, a parent stands in for what is subscribed below it
        for i, c in enumerate(name):
            if c == DELIMITER and matches(name[:i]):
                out.setdefault(name[:i], [b"\\Noselect"])
    return b"".join(
        encode.list_response(b"LSUB", attributes, name, utf8=session.utf8)
        for name, attributes in sorted(out.items())
    )
