"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, LIST, LSUB and STATUS."""

import unicodedata
from collections.abc import Iterable
from sys import getsizeof

from imapshield.errors import CommandRefused, NoSuchMailbox, StoreError
from imapshield.mailbox.values import MailboxInfo, MailboxStatus
from imapshield.session.mailbox_names import list_attributes, parents
from imapshield.session.session import Session
from imapshield.wire import encode, strings
from imapshield.wire.commands.mailboxes import Create, Delete, List, Rename, Status, Subscribe
from imapshield.wire.names import ListPattern, fold_inbox, parent_names
from imapshield.wire.pieces import joined
from imapshield.wire.responses import Tagged, ok

LIST_CHUNK_RESPONSES = 500
"""Number of LIST responses that are encoded before other connections run."""

CHARACTERS_PER_TURN = 20_000
"""Characters of mailbox names that are compared with patterns before other connections run: four milliseconds. A LIST
may have 32 patterns, and an account ten thousand long names."""

LINES_PER_PIECE = 100
"""Number of LIST or LSUB responses in one piece; most have fewer than 100 bytes."""

NAME_BYTES = 600
"""Bytes that LIST holds for each mailbox name: the name, its attributes, and its places in a dictionary and sets."""


async def create(session: Session, command: Create) -> Tagged:
    """Handle CREATE (RFC 9051 section 6.3.4, RFC 6154)."""
    _require_net_unicode(session, command.mailbox)
    mailbox_id = await session.account.create(command.mailbox, command.special_use)
    return ok("CREATE completed", b"MAILBOXID (%b)" % mailbox_id)


def _require_net_unicode(session: Session, name: str) -> None:
    """Refuse a new name in UTF-8 that is not Net-Unicode (RFC 9051 section 5.1); modified UTF-7 has no such rule."""
    if session.utf8 and not unicodedata.is_normalized("NFC", name):
        raise CommandRefused(b"CANNOT", "Mailbox name is not in Unicode Normalization Form C")


async def delete(session: Session, command: Delete) -> Tagged:
    """Handle DELETE (RFC 9051 section 6.3.5), which closes the mailbox if it is selected."""
    try:
        await session.account.delete(command.mailbox)
    except NoSuchMailbox:
        if any(info.name == command.mailbox for info in await session.account.mailboxes()):
            raise CommandRefused(
                b"HASCHILDREN", "Mailbox has children; delete them first"
            ) from None
        raise
    if session.is_selected(command.mailbox):
        session.leave()
        session.io.write(encode.untagged(b"OK", "Selected mailbox deleted", b"CLOSED"))
    return ok("DELETE completed")


async def rename(session: Session, command: Rename) -> Tagged:
    """Handle RENAME (RFC 9051 section 6.3.6)."""
    _require_net_unicode(session, command.new)
    await session.account.rename(command.old, command.new)
    return ok("RENAME completed")


async def subscribe(session: Session, command: Subscribe) -> Tagged:
    """Handle SUBSCRIBE and UNSUBSCRIBE."""
    if command.subscribe and all(
        info.name != command.mailbox for info in await session.account.mailboxes()
    ):
        # A server MAY validate the name; otherwise LSUB would list a mistyped name forever.
        raise NoSuchMailbox
    await session.account.set_subscribed(command.mailbox, command.subscribe)
    return ok("SUBSCRIBE completed" if command.subscribe else "UNSUBSCRIBE completed")


async def status(session: Session, command: Status) -> Tagged:
    """Handle STATUS (RFC 9051 section 6.3.11)."""
    if b"HIGHESTMODSEQ" in command.items:
        session.enable_condstore()
    found = await session.account.status(command.mailbox)
    session.io.write(status_line(session, command.mailbox, command.items, found))
    return ok("STATUS completed")


def status_line(session: Session, name: str, items: Iterable[bytes], found: MailboxStatus) -> bytes:
    """Return the STATUS response of a mailbox.

    Args:
        session: the session.
        name: the mailbox.
        items: the STATUS items to include; unknown ones are left out.
        found: the values.
    """
    values: dict[bytes, int | bytes] = {
        b"MESSAGES": found.messages,
        b"RECENT": found.recent,
        b"UNSEEN": found.unseen,
        b"DELETED": found.deleted,
        b"UIDNEXT": found.uidnext,
        b"UIDVALIDITY": found.uidvalidity,
        b"HIGHESTMODSEQ": found.highestmodseq,
        b"SIZE": found.size,
        b"DELETED-STORAGE": encode.kibibytes(found.deleted_size),
        b"MAILBOXID": b"(%b)" % found.mailbox_id,
        b"APPENDLIMIT": session.limits.max_message_size,
    }
    pairs = [(item, values[item]) for item in items if item in values]
    return encode.status(name, pairs, names=session.names)


async def list_(session: Session, command: List) -> Tagged:
    """Handle LIST (RFC 9051 section 6.3.9), with the options of RFC 5258, RFC 5819 and RFC 6154."""
    if _asks_for_delimiter(command):
        session.io.write(encode.list_response(b"LIST", [b"\\Noselect"], "", names=session.names))
        return ok("LIST completed")
    if b"HIGHESTMODSEQ" in command.status_items:
        session.enable_condstore()
    pieces = await _list(session, command)
    with session.io.hold_result(sum(map(getsizeof, pieces))):
        await session.send(pieces)
    return ok("LIST completed")


async def _list(session: Session, command: List) -> list[bytes]:
    """Send the responses if they contain a STATUS response for each mailbox; else return them, in pieces.

    What the responses are made from takes several times their size.
    """
    infos = {info.name: info for info in await session.account.mailboxes()}
    subscribed: set[str] = set()
    if b"SUBSCRIBED" in command.selection | command.returns:
        subscribed = await session.account.subscriptions()
    names = {*infos, *subscribed}
    if b"RECURSIVEMATCH" in command.selection:
        names |= parents(names)
    matched = await _matching(session, command, names)
    chosen, qualifying, with_child = _choose(command, infos, subscribed, matched)
    child_info = _child_info(command)
    all_parents = parents(infos)
    held = NAME_BYTES * len(names)
    pieces: list[bytes] = []
    batch: list[bytes] = []
    for count, name in enumerate(sorted(chosen, key=lambda n: (n != "INBOX", n)), 1):
        if count % LIST_CHUNK_RESPONSES == 0:
            with session.io.hold_result(held):
                await session.io.drain()
        # The status is read first: if the mailbox was just deleted, LIST must show that (RFC 5819 section 2).
        status_response = (
            await _status(session, command, name, infos) if name in qualifying else b""
        )
        attributes = list_attributes(
            infos.get(name),
            has_children=name in all_parents,
            extended=command.extended or session.rev2,
            subscribed=name in subscribed,
        )
        items = child_info if name in with_child else []
        line = encode.list_response(b"LIST", attributes, name, extended=items, names=session.names)
        if command.status_items:
            with session.io.hold_result(held):
                await session.send([line + status_response])
                await session.io.drain()
            continue
        batch.append(line)
        if len(batch) == LINES_PER_PIECE:
            pieces.append(b"".join(batch))
            batch.clear()
    pieces.append(b"".join(batch))
    return pieces


def _asks_for_delimiter(command: List) -> bool:
    """Whether the command asks for the hierarchy delimiter instead of mailboxes (RFC 9051 section 6.3.9)."""
    return command.patterns == ("",) and not command.extended


def _child_info(command: List) -> list[tuple[bytes, bytes]]:
    """Return the extended data item CHILDINFO, which names selection options of the command (RFC 5258 section 4)."""
    names = sorted(command.selection & {b"SUBSCRIBED", b"SPECIAL-USE"})
    return [(b"CHILDINFO", strings.parenthesised(map(strings.quoted, names)))]


async def _matching(session: Session, command: List, names: Iterable[str]) -> set[str]:
    """Return those of `names` that match a pattern of the command. Other connections run meanwhile."""
    # An empty pattern matches nothing in an extended LIST (RFC 5258 section 3).
    patterns = [ListPattern(fold_inbox(command.reference + p)) for p in command.patterns if p]
    matched: set[str] = set()
    work = 0
    for name in names:
        work += len(name) * len(patterns)
        if work > CHARACTERS_PER_TURN:
            work = 0
            await session.io.drain()
        if any(pattern.matches(name) for pattern in patterns):
            matched.add(name)
    return matched


def _choose(
    command: List, infos: dict[str, MailboxInfo], subscribed: set[str], matched: set[str]
) -> tuple[list[str], set[str], set[str]]:
    """Return the names to list, the names that meet the selection options, and the names with CHILDINFO."""
    qualifying = set(subscribed if b"SUBSCRIBED" in command.selection else infos)
    if b"SPECIAL-USE" in command.selection:
        qualifying = {name for name in qualifying if name in infos and infos[name].special_use}
    if b"RECURSIVEMATCH" not in command.selection:
        return [*qualifying & matched], qualifying, set()
    # RECURSIVEMATCH adds the parents of qualifying names (RFC 5258 section 3.5), but only for names that are not listed
    # themselves: "servers SHOULD suppress redundant CHILDINFO responses".
    added = parents(qualifying - matched)
    return [*(qualifying | added) & matched], qualifying, parents(qualifying)


async def _status(
    session: Session, command: List, name: str, infos: dict[str, MailboxInfo]
) -> bytes:
    """Return the STATUS response for RETURN (STATUS), or b"". A deleted mailbox is removed from `infos`."""
    if not command.status_items or name not in infos or not infos[name].selectable:
        return b""
    try:
        found = await session.account.status(name)
    except NoSuchMailbox:
        del infos[name]
        return b""
    except StoreError:
        return b""
    return status_line(session, name, command.status_items, found)


async def lsub(session: Session, command: List) -> Tagged:
    """Handle LSUB (RFC 3501 section 6.3.9)."""
    if _asks_for_delimiter(command):
        session.io.write(encode.list_response(b"LSUB", [b"\\Noselect"], "", names=session.names))
        return ok("LSUB completed")
    pieces = await _lsub(session, command)
    with session.io.hold_result(sum(map(getsizeof, pieces))):
        await session.send(pieces)
    return ok("LSUB completed")


async def _lsub(session: Session, command: List) -> list[bytes]:
    """Return the LSUB responses, in pieces."""
    infos = {info.name: info for info in await session.account.mailboxes()}
    subscribed = await session.account.subscriptions()
    matched = await _matching(session, command, subscribed | parents(subscribed))
    listed = _listed_by_lsub(sorted(subscribed), infos, matched)
    lines = (
        encode.list_response(b"LSUB", listed[name], name, names=session.names)
        for name in sorted(listed)
    )
    return list(joined(lines, LINES_PER_PIECE))


def _listed_by_lsub(
    subscribed: Iterable[str], infos: dict[str, MailboxInfo], matched: set[str]
) -> dict[str, list[bytes]]:
    """Return the names that LSUB lists, with their attributes."""
    listed: dict[str, list[bytes]] = {}
    for name in subscribed:
        if name in matched:
            listed[name] = [] if name in infos and infos[name].selectable else [b"\\Noselect"]
            continue
        # A parent that matches a pattern with % stands for the subscribed names below it (RFC 3501 section 6.3.9).
        for parent in matched.intersection(parent_names(name)):
            listed.setdefault(parent, [b"\\Noselect"])
    return listed
