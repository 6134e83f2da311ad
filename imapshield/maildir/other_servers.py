"""Parses and formats the files in which Dovecot and Courier keep UIDs, keywords and subscriptions. No I/O.

`uid_exchange` says when they are read and written. ``dovecot-keywords`` is in `filename`, because imapshield keeps its
own keywords there too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imapshield.maildir.filename import base
from imapshield.wire.names import INBOX
from imapshield.wire.sequence import MAX_NUMBER

RESERVED_UIDS = 100_000
"""The UIDs between the UIDNEXT of the index and the one that a list tells another server. More are reserved when half
of them are used, so no mailbox uses them up between two SELECTs. Each change of servers costs so many of 2^32 UIDs."""

MAX_LINES = 2_000_000
"""Lines of a list that are parsed: twice as many as fit into a list of the largest size, with the names that servers
give their files. A list of short lines would take 15 times its size in memory."""

DOVECOT_LOG = b"dovecot.index.log"
COURIER_SUBSCRIPTIONS = b"courierimapsubscribed"
COURIER_KEYWORDS = b"courierimapkeywords"
"""A directory of each folder: ``:list`` has the keywords of all messages, and a file for each recent change."""

KEYWORD_LIST = b":list"
_KEYWORD_UPDATE = re.compile(rb"\.([0-9]{1,12})\.(.+)", re.DOTALL)


MAX_UIDVALIDITY = 0xF0000000
"""The largest UIDVALIDITY of a list that is followed. New mailboxes of the account get larger ones, and servers use the
time in seconds, which reaches this number in 2097."""


class UidListFormat(NamedTuple):
    """A file of another server: a line that `head` matches, then ``<uid>…<separator><name>`` lines.

    The groups of `head` are UIDVALIDITY and UIDNEXT. A space ends the UID.
    """

    file: bytes
    server: str
    head: re.Pattern[bytes]
    separator: bytes


DOVECOT = UidListFormat(
    b"dovecot-uidlist",
    "Dovecot",
    re.compile(rb"3 (?:[A-Z][^ ]* )*?V([0-9]{1,10}) (?:[A-Z][^ ]* )*?N([0-9]{1,10})(?: |\Z)"),
    b":",
)
"""Version 3: ``3 V<uidvalidity> N<uidnext> G<guid>``, then ``<uid> <extras> :<name>`` lines."""

COURIER = UidListFormat(
    b"courierimapuiddb", "Courier", re.compile(rb"1 ([0-9]{1,10}) ([0-9]{1,10})\Z"), b" "
)
"""Version 1: ``1 <uidvalidity> <uidnext>``, then ``<uid> <name>`` lines."""

FORMATS = (DOVECOT, COURIER)


class UidList(NamedTuple):
    """UIDVALIDITY, UIDNEXT, and the UID of each base name."""

    uidvalidity: int
    uidnext: int
    uids: dict[bytes, int]


def parse_uid_list(content: bytes, form: UidListFormat) -> UidList | None:
    """Parse another server's file; return None if it has another form, contradicts itself, or has too many lines."""
    first, *lines = content.split(b"\n", MAX_LINES)
    head = form.head.match(first)
    if head is None or len(lines) == MAX_LINES:
        return None
    uids: dict[bytes, int] = {}
    for line in lines:
        start, _, name = line.partition(form.separator)
        uid = start.partition(b" ")[0]
        if name and uid.isdigit() and len(uid) <= 10 and 0 < int(uid) < MAX_NUMBER:
            uids[base(name)] = int(uid)
    if len(set(uids.values())) < len(uids):  # two messages have the same UID: the file is wrong
        return None
    uidvalidity, uidnext = int(head[1]), max(int(head[2]), max(uids.values(), default=0) + 1)
    if not 0 < uidvalidity <= MAX_UIDVALIDITY:
        return None
    return UidList(uidvalidity, uidnext, uids)


def leaves_room(uidnext: int) -> bool:
    """Whether a mailbox that continues at `uidnext` has enough UIDs for itself and for the next change of servers."""
    return uidnext + 2 * RESERVED_UIDS < MAX_NUMBER


def format_uid_list(
    form: UidListFormat, messages: UidList, old_content: bytes, guid: bytes
) -> bytes:
    """Return the content of another server's file.

    Args:
        form: the file.
        messages: what it must say.
        old_content: what it says now. Dovecot's GUID and its extra fields of messages, such as the order and the UIDL
            of POP3, are kept.
        guid: Dovecot's GUID of the mailbox if the old content has none.
    """
    rows = sorted((uid, name) for name, uid in messages.uids.items())
    if form is COURIER:
        lines = [b"%d %b" % row for row in rows]
        return b"\n".join([b"1 %d %d" % messages[:2], *lines, b""])
    first, *old_lines = old_content.split(b"\n")
    guid = next((word[1:] for word in first.split()[1:] if word[:1] == b"G"), guid)
    extras: dict[bytes, bytes] = {}
    for line in old_lines:
        start, _, name = line.partition(b" :")
        if fields := start.partition(b" ")[2]:
            extras[base(name)] = fields + b" "
    lines = [b"%d %b:%b" % (uid, extras.get(name, b""), name) for uid, name in rows]
    return b"\n".join([b"3 V%d N%d G%b" % (*messages[:2], guid), *lines, b""])


class SeenLists(NamedTuple):
    """The lists of a folder as they were seen last, and the UIDNEXT that they tell the other servers.

    `lists` has mtime in nanoseconds, inode and size of each list, by file name.
    """

    lists: dict[bytes, tuple[int, int, int]]
    uidnext: int


class Plan(NamedTuple):
    """How a mailbox follows the list of another server.

    Attributes:
        uidvalidity: the UIDVALIDITY; 0 is a new one.
        uidnext: where the UIDs of messages begin that `uids` does not have.
        uids: the UID of each base name. It may have base names without a message.
    """

    uidvalidity: int
    uidnext: int
    uids: dict[bytes, int]


def plan(ours: UidList, theirs: UidList, base_names: Iterable[bytes]) -> Plan:
    """Decide which UIDs messages have after another server has assigned some.

    No UID may identify two messages while UIDVALIDITY stays. A message may get a new UID, if that is higher than all
    that clients have seen: to them it is a removal and a new message.

    Args:
        ours: the mailbox as the index has it.
        theirs: the other server's list.
        base_names: of all message files.
    """
    if theirs.uidvalidity < ours.uidvalidity:
        # The list is older: it was restored from a backup. UIDVALIDITY must not go back (RFC 9051 section 2.3.1.1).
        return Plan(*ours)
    if theirs.uidvalidity != ours.uidvalidity:
        return Plan(*theirs)
    uidnext = max(ours.uidnext, theirs.uidnext)
    files = set(base_names)
    present = {name: uid for name, uid in theirs.uids.items() if name in files}
    newer = {name: uid for name, uid in present.items() if uid >= ours.uidnext}
    if any(ours.uids.get(name) != uid for name, uid in present.items() if name not in newer):
        # A client may know these UIDs as other messages. UIDs without such a doubt stay: mbsync compares messages by
        # their Message-ID, and accepts a new UIDVALIDITY if no UID identifies another message.
        owners = {uid: name for name, uid in present.items()}
        undisputed = {
            name: uid
            for name, uid in ours.uids.items()
            if present.get(name, uid) == uid and owners.get(uid, name) == name
        }
        return Plan(0, uidnext, undisputed | newer)
    # If there are newer messages, the other server's clients never look for a lower UID that they have not seen.
    kept = {name: u for name, u in ours.uids.items() if present.get(name) == u or not newer}
    return Plan(ours.uidvalidity, uidnext, kept | newer)


def parse_courier_keywords(files: Mapping[bytes, bytes]) -> dict[bytes, list[bytes]]:
    """Return the keywords of each base name.

    Args:
        files: the files of the directory, by name. ``:list`` has one keyword a line, an empty line, and then
            ``<base name>:<number of a keyword> …`` lines. A file ``<base name>`` or ``.<N>.<base name>`` has one
            keyword a line and replaces what ``:list`` says. The first is the latest, then that with the highest N.
    """
    head, _, body = files.get(KEYWORD_LIST, b"").partition(b"\n\n")
    words = head.split(b"\n")
    found: dict[bytes, list[bytes]] = {}
    for line in body.split(b"\n"):
        name, _, numbers = line.rpartition(b":")
        indexes = [
            int(number) for number in numbers.split() if number.isdigit() and len(number) < 10
        ]
        found[name] = [words[index] for index in indexes if index < len(words)]
    updates: list[tuple[float, bytes, bytes]] = []
    for name, content in files.items():
        if update := _KEYWORD_UPDATE.fullmatch(name):
            updates.append((int(update[1]), update[2], content))
        elif name != KEYWORD_LIST:
            updates.append((float("inf"), name, content))
    found.update((name, content.split(b"\n")) for _, name, content in sorted(updates))
    return {
        name: keywords
        for name, words in found.items()
        if name and (keywords := list(filter(None, words)))
    }


def format_courier_keywords(keywords: Mapping[bytes, Sequence[bytes]]) -> bytes:
    """Return the content of ``:list`` for the keywords of each base name, b"" if there are none."""
    if not keywords:
        return b""
    words = sorted({word for some in keywords.values() for word in some})
    numbers = {word: b"%d" % number for number, word in enumerate(words)}
    lines = [
        name + b":" + b" ".join([numbers[word] for word in some]) for name, some in keywords.items()
    ]
    return b"\n".join([*words, b"", *lines, b""])


def from_courier_subscriptions(content: bytes) -> bytes:
    """Return ``courierimapsubscribed`` as the file ``subscriptions``, without mailboxes that are not in the Maildir."""
    inbox = INBOX.encode()
    names = [
        line if line == inbox else line.removeprefix(inbox + b".")
        for line in content.split(b"\n")
        if line == inbox or line.startswith(inbox + b".")
    ]
    return b"".join(name + b"\n" for name in names if name)


def to_courier_subscriptions(folder_names: Iterable[bytes]) -> bytes:
    """Return ``courierimapsubscribed`` for folder names: b"" is INBOX, others begin with a dot."""
    return b"".join(INBOX.encode() + name + b"\n" for name in sorted(folder_names))
