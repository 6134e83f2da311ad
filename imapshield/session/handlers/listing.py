"""LIST and LSUB: the names of mailboxes and their attributes."""

from collections.abc import Callable, Iterable

from imapshield.errors import NoSuchMailbox, StoreError
from imapshield.mailbox.values import MailboxInfo
from imapshield.session.handlers.mailboxes import status_line
from imapshield.session.list_attributes import attributes, parents
from imapshield.session.session import Session
from imapshield.wire import encode, strings
from imapshield.wire.commands.mailboxes import List
from imapshield.wire.names import ListPattern, fold_inbox, parent_names
from imapshield.wire.responses import Tagged, ok

CHUNK_RESPONSES = 500
"""LIST responses that are written before other connections run."""


async def list_(session: Session, command: List) -> Tagged:
    """Handle LIST, with RFC 5258, RFC 5819 and RFC 6154."""
    if _asks_for_delimiter(command):
        session.io.write(encode.list_response(b"LIST", [b"\\Noselect"], ""))
        return ok("LIST completed")
    if b"HIGHESTMODSEQ" in command.status_items:
        session.enable_condstore()
    infos = {info.name: info for info in await session.account.mailboxes()}
    subscribed: set[str] = set()
    if b"SUBSCRIBED" in command.selection | command.returns:
        subscribed = await session.account.subscriptions()
    chosen, selected, with_child = _choose(command, infos, subscribed)
    kinds = [b'"%b"' % kind for kind in sorted(command.selection & {b"SUBSCRIBED", b"SPECIAL-USE"})]
    child_info = [(b"CHILDINFO", strings.parenthesised(kinds))]
    all_parents = parents(infos)
    for count, name in enumerate(sorted(chosen, key=lambda n: (n != "INBOX", n)), 1):
        if count % CHUNK_RESPONSES == 0:
            await session.io.drain()
        # First STATUS, which can find that the mailbox has been deleted: LIST has to say so (RFC 5819 section 2).
        status = await _status(session, command, name, infos) if name in selected else b""
        shown = attributes(
            name,
            infos,
            all_parents,
            extended=command.extended or session.rev2,
            subscribed=subscribed,
        )
        extended = child_info if name in with_child else []
        line = encode.list_response(b"LIST", shown, name, extended=extended, utf8=session.utf8)
        session.io.write(line + status)
        if status:
            await session.io.drain()
    return ok("LIST completed")


def _asks_for_delimiter(command: List) -> bool:
    """Whether the command asks only for the delimiter and the root of the reference, of which there is one."""
    return command.patterns == ("",) and not command.extended


def _matcher(command: List) -> Callable[[str], bool]:
    # An empty pattern matches nothing in an extended LIST (RFC 5258 section 3).
    patterns = [ListPattern(fold_inbox(command.reference + p)) for p in command.patterns if p]

    def matches(name: str) -> bool:
        return any(pattern.matches(name) for pattern in patterns)

    return matches


def _choose(
    command: List, infos: dict[str, MailboxInfo], subscribed: set[str]
) -> tuple[list[str], set[str], set[str]]:
    """Return the names to list, the names that meet the selection options, and the names with CHILDINFO."""
    matches = _matcher(command)
    selected = set(infos)
    if b"SUBSCRIBED" in command.selection:
        selected = set(subscribed)
    if b"SPECIAL-USE" in command.selection:
        selected = {name for name in selected if name in infos and infos[name].special_use}
    if b"RECURSIVEMATCH" not in command.selection:
        return [*filter(matches, selected)], selected, set()
    # RFC 5258 section 3.5: the parents of selected names, whether or not these match the pattern themselves. Listed are
    # only those with a child that is not listed itself: "servers SHOULD suppress redundant CHILDINFO responses".
    needed = parents(name for name in selected if not matches(name))
    return [*filter(matches, selected | needed)], selected, parents(selected)


async def _status(
    session: Session, command: List, name: str, infos: dict[str, MailboxInfo]
) -> bytes:
    """Return the STATUS response for RETURN (STATUS); a deleted mailbox is removed from `infos`."""
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
        session.io.write(encode.list_response(b"LSUB", [b"\\Noselect"], ""))
        return ok("LSUB completed")
    infos = {info.name: info for info in await session.account.mailboxes()}
    subscribed = await session.account.subscriptions()
    listed = _listed_by_lsub(sorted(subscribed), infos, _matcher(command))
    lines = [
        encode.list_response(b"LSUB", shown, name, utf8=session.utf8)
        for name, shown in sorted(listed.items())
    ]
    session.io.write(b"".join(lines))
    return ok("LSUB completed")


def _listed_by_lsub(
    subscribed: Iterable[str], infos: dict[str, MailboxInfo], matches: Callable[[str], bool]
) -> dict[str, list[bytes]]:
    """Return the names that LSUB lists, with their attributes."""
    listed: dict[str, list[bytes]] = {}
    for name in subscribed:
        if matches(name):
            listed[name] = [] if name in infos and infos[name].selectable else [b"\\Noselect"]
            continue
        # RFC 3501 section 6.3.9: with %, a parent represents the subscribed names below it.
        for parent in filter(matches, parent_names(name)):
            listed.setdefault(parent, [b"\\Noselect"])
    return listed
