"""Takes over the UIDs that Dovecot or Courier assigned, and prevents that they assign the UIDs of imapshield again.

With the same UIDs, mail clients need not download all mail again after a change of server, in either direction. The
danger is a UID that identifies two messages: a client that trusts it (mbsync, offlineimap) applies the flags or the
removal of one message to the other. So imapshield exchanges UIDs with the list of the other server
(``dovecot-uidlist`` or ``courierimapuiddb`` in each folder):

* When imapshield sees a folder for the first time, UIDVALIDITY and UIDs are those of the list, if there is one.
* The list is then written with what the index has, and with a UIDNEXT that is `RESERVED_UIDS` ahead. So if the other
  server returns, without an export, it gives other UIDs to the messages that imapshield has received.
* Each list is remembered (time, inode, size) in the marker file ``imapshield.imported``. When a mailbox is opened and
  a list has changed, another server has served the folder. Its UIDs are taken over, and `other_servers.plan` decides
  how. If a UID means another message here, the mailbox gets a new UIDVALIDITY, and UIDs that are in no doubt stay.

These are results of experiments with Dovecot 2.3.19, Courier 5.0.13 and mbsync 1.4.4:

* Dovecot follows a list that another program has written, with the same UIDVALIDITY or another one, although
  ``dovecot.index`` caches UIDs too. It follows a higher UIDNEXT. It ignores a list in which a message has a lower UID.
* If the list is missing, Dovecot keeps UIDVALIDITY, which is in ``dovecot.index``, and gives *all* messages new UIDs,
  from its own UIDNEXT on. imapshield has assigned the same ones. So to remove the list is not a solution.
* Dovecot's MODSEQs are in ``dovecot.index.log``, so this file is watched as well. Those of imapshield continue above
  them, also if Dovecot has changed only flags.
* Courier has no other file. It continues at the UIDNEXT of its list.

A UIDVALIDITY of a mailbox that was removed, or of the time before a backup of the index was restored, is never taken
over: the list may come from a backup, and lack UIDs that were assigned after it.

A list in which UIDs are about to run out is not followed. Dovecot's lock of its list is taken; if Dovecot holds it, the
list is written later.
"""

import os
import secrets
from collections.abc import Sequence

from imapshield.errors import StoreBusy
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.folder_listing import list_folder
from imapshield.maildir.keywords import MAX_FLAGS_SIZE, MAX_KEYWORDS
from imapshield.maildir.list_files import (
    MAX_LIST_SIZE,
    lists_of,
    modseq_above,
    newest_list,
    read_directory,
    read_marker,
    replace_locked,
)
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.message_table import FIRST_MODSEQ, MAX_UID
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.other_servers import (
    COURIER,
    COURIER_KEYWORDS,
    DOVECOT_LOG,
    FORMATS,
    RESERVED_UIDS,
    Plan,
    SeenLists,
    UidList,
    UidListFormat,
    format_uid_list,
    leaves_room,
    parse_courier_keywords,
    parse_uid_list,
    plan,
)
from imapshield.maildir.paths import CUR, MAX_FILE_NAME
from imapshield.maildir.uid_assignment import add_files
from imapshield.maildir.unreadable import log_once
from imapshield.wire.flags import flag_list

MAX_REMEMBERED = 10_000
"""Mailboxes of an account whose lists are remembered in memory, so that the marker file is not read each time."""


def is_due(account: AccountState, mailbox: MailboxRow) -> bool:
    """Whether another server has changed its list since the last exchange, or more UIDs must be reserved.

    It costs one stat() for each kind of list.

    Raises:
        NoSuchMailbox: the folder was removed.
    """
    folder = account.folders.folder(mailbox.name)
    seen = account.seen_lists.get(mailbox.key)
    if seen is None:
        if len(account.seen_lists) >= MAX_REMEMBERED:
            account.seen_lists.clear()
        seen = account.seen_lists[mailbox.key] = read_marker(folder)
    return lists_of(folder) != seen.lists or _needs_reservation(mailbox, seen)


def exchange(
    account: AccountState, name: str, folder: Folder
) -> tuple[MailboxRow, SeenLists | None]:
    """Take over the UIDs of a server that has changed its list, in a write transaction.

    The row is added if the index does not have it. The lists are written before the commit, and the caller remembers
    them after it.

    Args:
        account: the account.
        name: the mailbox.
        folder: its folder.

    Returns:
        the mailbox's row, and what `write_marker` must remember, None if that is unchanged.

    Raises:
        StoreBusy: the mailbox needs a new UIDVALIDITY, and Dovecot holds the lock of its list.
    """
    mailbox = account.index.mailbox_named(name)
    if mailbox is not None:
        account.seen_lists.pop(mailbox.key, None)
    seen = read_marker(folder)
    lists = lists_of(folder)
    changed = [form for form in FORMATS if lists.get(form.file) != seen.lists.get(form.file)]
    form, theirs = newest_list(folder, changed, lists)
    if theirs is not None and form is not None:
        mailbox = _follow(account, name, folder, mailbox, form, theirs)
    elif mailbox is None:
        mailbox = account.index.add_mailbox(name)
    elif lists.get(DOVECOT_LOG) != seen.lists.get(DOVECOT_LOG):
        highest = max(mailbox.highestmodseq, modseq_above(folder, mailbox.highestmodseq))
        account.index.update_mailbox(
            mailbox.key, highestmodseq=highest, expunges_complete_after=highest
        )
        mailbox = account.index.mailbox(mailbox.key)
    if form is None and not _needs_reservation(mailbox, seen):
        return mailbox, SeenLists(lists, seen.uidnext) if lists != seen.lists else None
    written = write_lists(account, mailbox, folder, form)
    if written is None and theirs and theirs.uidvalidity != mailbox.uidvalidity:
        # The contradicting UIDs must not come back with the old UIDVALIDITY.
        raise StoreBusy
    return mailbox, written


def write_lists(
    account: AccountState,
    mailbox: MailboxRow,
    folder: Folder,
    followed: UidListFormat | None,
    create: bool = False,
) -> SeenLists | None:
    """Write what the index has to the lists of the other servers, in a write transaction.

    Return what `write_marker` must remember after the commit, or None if another program holds the lock of a list. Then
    nothing is remembered, so the next exchange tries again.

    Args:
        account: the account.
        mailbox: the mailbox's current row.
        folder: its folder.
        followed: the list to write in any case. Others are written if they have the UIDVALIDITY of the mailbox.
        create: whether to write `followed` if it does not exist.
    """
    uidnext = min(mailbox.uidnext + RESERVED_UIDS, MAX_UID - 1)
    rows = account.index.db.execute(
        "SELECT name, uid FROM message WHERE mailbox = ?", (mailbox.key,)
    )
    ours = UidList(mailbox.uidvalidity, uidnext, {filename.base(name): uid for name, uid in rows})
    existing = lists_of(folder)
    for form in FORMATS:
        entry = folder.file(form.file)
        content = files.read_small(entry, MAX_LIST_SIZE) if form.file in existing else b""
        theirs = parse_uid_list(content, form)
        is_same = theirs is not None and theirs.uidvalidity == mailbox.uidvalidity
        if (is_same or form is followed) and (content or create):
            guid = secrets.token_hex(16).encode()
            new_content = format_uid_list(form, ours, content, guid)
            if not replace_locked(entry, new_content, account.now(), folder.owner):
                return None
    return SeenLists(lists_of(folder), uidnext)


def _follow(
    account: AccountState,
    name: str,
    folder: Folder,
    mailbox: MailboxRow | None,
    form: UidListFormat,
    theirs: UidList,
) -> MailboxRow:
    """Give the messages of a mailbox the UIDs that `plan` decides, and add the files that the index does not have."""
    index = account.index
    by_base = list_folder(folder, cur=True).by_base()
    ours = UidList(0, 1, {})
    if mailbox is not None:
        rows = index.db.execute("SELECT name, uid FROM message WHERE mailbox = ?", (mailbox.key,))
        uids = {filename.base(file): uid for file, uid in rows}
        ours = UidList(mailbox.uidvalidity, mailbox.uidnext, uids)
    is_retired = theirs.uidvalidity != ours.uidvalidity and index.is_retired(theirs.uidvalidity)
    new = Plan(*ours) if is_retired else plan(ours, theirs, by_base)
    if not leaves_room(new.uidnext):
        _log(account, folder, f"the UIDs of {form.server} are nearly used up")
        new = Plan(0, 1, {})
    elif new.uidvalidity == 0 and is_retired:
        reason = f"the list of {form.server} is that of a mailbox that was removed or restored"
        _log(account, folder, reason)
    elif new.uidvalidity == 0:
        _log(account, folder, f"{form.server} assigned UIDs that identify other messages here")
    elif mailbox is not None and new.uidvalidity != mailbox.uidvalidity:
        _log(account, folder, f"{form.server} has served it with another one")
    modseq = max(FIRST_MODSEQ, modseq_above(folder, mailbox.highestmodseq if mailbox else 0))
    if mailbox is None:
        mailbox = index.add_mailbox(name, b"", new.uidvalidity, new.uidnext)
    elif new.uidvalidity != mailbox.uidvalidity:
        account.seen_lists.pop(mailbox.key, None)
        mailbox = index.renew(mailbox, *new, modseq)
    else:
        modseq = max(modseq, mailbox.highestmodseq + 1)
        mailbox = _move_within_row(account, mailbox, new, modseq)
    first_new_uid = mailbox.uidnext
    added = [file for base_name, file in by_base.items() if base_name not in ours.uids]
    uidnext = add_files(account, mailbox, folder, added, modseq, new.uids)
    claimed = max(mailbox.last_claimed_uid, first_new_uid - 1)
    # Clients may have to be told about messages that only the other server has expunged.
    index.update_mailbox(
        mailbox.key,
        highestmodseq=modseq,
        expunges_complete_after=modseq,
        uidnext=uidnext,
        last_claimed_uid=claimed,
    )
    if form is COURIER:
        _import_courier_keywords(account, index.mailbox(mailbox.key), folder)
    return index.mailbox(mailbox.key)


def _log(account: AccountState, folder: Folder, reason: str) -> None:
    account.log_warning(
        f"{os.fsdecode(folder.path)!r} has a new UIDVALIDITY, because {reason}; mail clients "
        "download this mailbox again, and no mail is lost"
    )


def _move_within_row(
    account: AccountState, mailbox: MailboxRow, new: Plan, modseq: int
) -> MailboxRow:
    """Give messages other UIDs: to clients, they are removed, and arrive again."""
    index = account.index
    uidnext = new.uidnext
    moved: dict[int, int] = {}
    rows = index.db.execute(
        "SELECT uid, name FROM message WHERE mailbox = ? ORDER BY uid", (mailbox.key,)
    )
    for old_uid, file in rows:
        uid = new.uids.get(filename.base(file), 0)
        if not uid:
            uid, uidnext = uidnext, uidnext + 1
        if uid != old_uid:
            moved[old_uid] = uid
    if moved:
        messages = index.message_rows("*", mailbox.key, list(moved))
        index.update_mailbox(mailbox.key, **index.expunge(mailbox, list(moved), modseq))
        index.insert_messages(
            [(key, moved[uid], *rest[:3], modseq, *rest[4:]) for key, uid, *rest in messages]
        )
    index.update_mailbox(mailbox.key, uidnext=uidnext)
    return index.mailbox(mailbox.key)


def _import_courier_keywords(account: AccountState, mailbox: MailboxRow, folder: Folder) -> None:
    """Give messages the keywords that Courier stored, in the index and in the names of their files.

    Keywords above `MAX_KEYWORDS` and `MAX_FLAGS_SIZE` are left out, so that the mailbox can be opened. If a name has no
    room for the letters, the keywords are in the index alone, as for STORE.
    """
    keywords = parse_courier_keywords(read_directory(folder.file(COURIER_KEYWORDS)))
    db = account.index.db
    rows = db.execute(
        "SELECT uid, name, place, flags FROM message WHERE mailbox = ?", (mailbox.key,)
    ).fetchall()
    found = [(row, words) for row in rows if (words := keywords.get(filename.base(row[1])))]
    usable = {word for _, words in found for word in words if filename.is_keyword(word)}
    if not usable:
        return
    folder_flags = account.keywords.get(mailbox)
    new = {word.lower(): word for word in sorted(usable) if word not in folder_flags}
    room = max(0, MAX_KEYWORDS - len(folder_flags))
    folder_flags = account.keywords.add(mailbox, [*new.values()][:room])
    changed: list[tuple[bytes, int, bytes, int, int]] = []
    for (uid, name, place, flags), words in found:
        known = [folder_flags.spelling(word) for word in words if word in folder_flags]
        text = _with_keywords(flags, known)
        new_name = filename.with_flags(name, text.split(), folder_flags)
        path = folder.path_of(place, name)
        if len(new_name) > MAX_FILE_NAME:
            problem = "has no room in its name for keywords, which are kept in the index alone"
            log_once(account, path, problem + "; shorten the name")
            new_name = name
        try:
            files.rename(folder.entry(place, name), folder.entry(CUR, new_name))
        except FileNotFoundError:  # renamed by another program; the next sync reads its flags
            continue
        except OSError as error:
            problem = f"cannot be given the keywords that Courier stored: {error.strerror}"
            log_once(account, path, problem + "; check the owner and mode of its directory")
            continue
        changed.append((new_name, CUR, text, mailbox.key, uid))
    folder.sync(CUR)
    db.executemany(
        "UPDATE message SET name = ?, place = ?, flags = ? WHERE mailbox = ? AND uid = ?", changed
    )


def _with_keywords(flags: bytes, keywords: Sequence[bytes]) -> bytes:
    """Return a flag list with as many of the keywords as it may have."""
    words = flags.split()
    size = len(flags)
    for word in dict.fromkeys(keywords):
        size += 1 + len(word)
        if size > MAX_FLAGS_SIZE:
            break
        words.append(word)
    return flag_list(words)


def _needs_reservation(mailbox: MailboxRow, seen: SeenLists) -> bool:
    return bool(seen.lists) and 0 < seen.uidnext < mailbox.uidnext + RESERVED_UIDS // 2
