r"""Brings the index up to date with what other programs did in a mailbox's folder.

A Maildir has no lock and no journal. Delivery agents put files into ``new/``. Dovecot, mutt and mbsync rename files in
``cur/`` when flags change; they move and delete files, and create and remove folders. Nothing announces any of this. A
second imapshield process may serve the same account. This is how the index follows the disk:

The base name identifies a message
    It is the one part of a message file that no program changes. UID, MODSEQ, INTERNALDATE and EMAILID belong to it in
    the index. The directory, the rest of the file name and the flags in the index are those of the last reading. If a
    file is not where the index has it, one listing of the folder finds it by its base name (`FileFinder`).

Directory times show when to read
    A directory is listed if its mtime or inode differs from the recorded one, which is that of the last reading. So a
    mailbox in which nothing happened costs two calls of stat(), or three if it is not INBOX, and SQLite's answer that
    the index has not changed either (`known_rows`).

A recent mtime is not trusted
    An mtime is as coarse as the kernel's clock tick (up to 10 ms, and whole seconds on some network file systems). If a
    directory is read right after a change, the next change can leave the same mtime. A directory whose mtime was less
    than `UNTRUSTED_SECONDS` old when its reading began is therefore marked (CUR_MTIME_UNTRUSTED, NEW_MTIME_UNTRUSTED)
    and read again. For ``cur/`` that happens once, when the second is over: in a loop of APPENDs it would otherwise
    happen each time. ``new/`` is small, and is read at every sync until then. If the clock is behind that of the file
    system, the second may never be over; then ``cur/`` is read at every sync too.

Own changes are not read back
    An APPEND, COPY, STORE or EXPUNGE records the mtime that it caused, but only if the mtime before it was the recorded
    one: otherwise another program's change is still to be read. The new mtime is marked as untrusted, because another
    program can have changed the directory in the same tick. So a loop of APPENDs reads no directory, and one reading
    follows when the loop is over.

Every directory is read once an hour
    `MAX_TRUSTED_SECONDS` bounds the damage of a clock that was set, or of a backup that was restored with its times.

One listing does not prove that a message was removed
    readdir() may miss a file that is renamed while it runs. A message is expunged only if two listings miss it, the
    second of them made inside the write transaction. ``new/`` is listed before ``cur/``, so a file that moves to
    ``cur/`` in between is seen. A file that moves back to ``new/`` changes both directories, and a listing of ``new/``
    alone would mislead: if ``cur/`` has changed since it was found unchanged, both are listed.

What this module does not do, and why
-------------------------------------
* A sync moves no file out of ``new/``. That happens when a session claims the message as \Recent, as the Maildir
  specification asks, or when flags are stored. STATUS and EXAMINE change nothing on the disk.
* Dovecot's lock file for ``dovecot-keywords`` is not taken. The file is replaced whole. If two programs add a keyword
  at the same moment, one keyword loses its letter.
* inotify is not relied upon. It is a hint that makes IDLE faster; `watch` explains what it misses. To read its queue
  would save calls of stat(), at less than two microseconds each; but it reports a commit of the index before other
  processes can read it, and no exchange of a directory above the mailbox.
* Symbolic links are not followed (`open_folders`).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.values import OpenedMailbox
from imapshield.maildir import (
    filename,
    files,
    list_files,
    recent_claims,
    uid_assignment,
    uid_exchange,
)
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import (
    DirectoryStamps,
    must_read_cur,
    must_read_new,
    row_after_reading,
    stat_or_create,
    unopened_stamps,
)
from imapshield.maildir.folder_listing import Listing, count_names, list_folder, may_hold
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.message_table import FIRST_MODSEQ, IN_NEW, MAX_UID
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.other_servers import SeenLists
from imapshield.maildir.paths import CUR
from imapshield.maildir.reconcile import IndexedFile, is_unchanged, reconcile
from imapshield.wire.names import fold_inbox
from imapshield.wire.sequence import SequenceSet

MAX_ADDED_TOGETHER = 200
MAX_FILES_ADDED_TOGETHER = 2000
"""How many mailboxes, with how many files in ``cur/``, are added to the index in one transaction with the mailbox that
is opened: few enough that its client does not wait noticeably longer. A mailbox with more files is added when a client
uses it."""

UIDS_LEFT = 1_000_000
"""A mailbox that has fewer UIDs left gets a new UIDVALIDITY and new UIDs when it is opened. Only a file of another
server, or a damaged index, brings a mailbox there."""

_IN_ANY = "FROM message WHERE mailbox = ?"


def mailbox_key(account: AccountState, name: str) -> int:
    """Return the key of a mailbox without a sync; `IStore.mailbox_key` describes the result."""
    mailbox = find_or_add(account, name)
    account.folders.folder(mailbox.name)  # raises NoSuchMailbox
    return mailbox.key


def open_mailbox(account: AccountState, name: str, claim_recent: bool) -> OpenedMailbox:
    """Return all messages of a mailbox after a sync; `IStore.open` describes the arguments."""
    mailbox = find_or_add(account, name)
    if mailbox.uidnext > MAX_UID - UIDS_LEFT:
        account.log_warning(f"the mailbox {mailbox.name!r} has no UIDs left and gets new ones")
        with account.index.write():
            mailbox = account.index.renew(account.index.mailbox(mailbox.key))
    mailbox, recent = synchronize(account, mailbox, claim_recent)
    key = mailbox.key
    delta = account.index.delta_since(key, 0, recent)
    return OpenedMailbox(key, mailbox.name, mailbox.uidvalidity, mailbox.mailbox_id, delta)


def changes(account: AccountState, key: int, since: int, claim_recent: bool) -> Delta:
    """Return what changed in a mailbox, after a sync; `IStore.changes` describes the arguments."""
    mailbox, recent = synchronize(account, account.index.mailbox(key), claim_recent)
    if since == mailbox.highestmodseq:  # as in nearly every NOOP and poll of IDLE
        return Delta([], SequenceSet(), since, mailbox.uidnext, recent)
    may_block()
    return account.index.delta_since(key, since, recent)


def find_or_add(account: AccountState, name: str) -> MailboxRow:
    """Return the row of a mailbox, adding it to the index if only its folder exists.

    Raises:
        NoSuchMailbox: there is no folder.
    """
    name = fold_inbox(name)
    account.folders.existing_name(name)
    mailbox = account.index.mailbox_named(name)
    if mailbox is not None and not uid_exchange.is_due(account, mailbox):
        stamps = stat_or_create(account.folders.folder(name))  # raises NoSuchMailbox
        if mailbox.cur_ino in (0, stamps.cur_ino):
            return mailbox
    stat_or_create(account.folders.folder(name))
    seen: dict[str, SeenLists | None] = {}
    with account.index.write():
        mailbox = _add(account, name, seen)
        _add_others(account, seen)
    # After the commit: if a crash comes between, the lists are exchanged again, with the same result.
    for other, lists in seen.items():
        if lists is not None:
            list_files.write_marker(account.folders.folder(other), lists)
    return mailbox


def _add(account: AccountState, name: str, seen: dict[str, SeenLists | None]) -> MailboxRow:
    """Add a mailbox with its messages to the index, in a write transaction, or follow what another program did with it.

    Args:
        account: the account.
        name: the mailbox.
        seen: gets what must be remembered after the commit, by mailbox.
    """
    index, folder = account.index, account.folders.folder(name)
    stamps = stat_or_create(folder)
    known = index.mailbox_named(name)
    if known is not None:
        account.require_recovered(known.key)
    for mailbox in index.mailboxes_in(stamps.cur_ino, stamps.new_ino):
        if mailbox.name == name or account.folders.exists(mailbox.name):
            continue
        if may_hold(folder, _names(account, mailbox)):
            # Another program renamed the folder, or a crash interrupted RENAME before its commit.
            if known is not None:  # what had the name before was removed
                index.remove_mailbox(known.key)
            index.update_mailbox(mailbox.key, name=name)
            return index.mailbox(mailbox.key)
    if known is not None and _was_replaced(account, known, folder, stamps):
        index.remove_mailbox(known.key)
        known = None
    is_new, now = known is None, account.now()
    mailbox, seen[name] = uid_exchange.exchange(account, name, folder)
    if is_new and mailbox.highestmodseq == 1:  # there is no list of another server
        listing = list_folder(folder, cur=True)
        found = list(listing.by_base().values())
        if found:
            uidnext = uid_assignment.add_files(account, mailbox, folder, found, FIRST_MODSEQ)
            index.update_mailbox(mailbox.key, highestmodseq=FIRST_MODSEQ, uidnext=uidnext)
        _record_reading(account, index.mailbox(mailbox.key), stamps, listing, now)
    if is_new:
        mailbox = index.mailbox(mailbox.key)
        # imapshield has changed nothing there, so `recovery` has nothing to do.
        index.update_mailbox(mailbox.key, synced_modseq=mailbox.highestmodseq)
    return mailbox


def _was_replaced(
    account: AccountState, mailbox: MailboxRow, folder: Folder, stamps: DirectoryStamps
) -> bool:
    """Whether a folder has nothing in common with the one that the index has: that was removed, and this one made."""
    if mailbox.cur_ino in (0, stamps.cur_ino) or mailbox.new_ino == stamps.new_ino:
        return False
    names = _names(account, mailbox)
    return not names or not may_hold(folder, names)


def _names(account: AccountState, mailbox: MailboxRow) -> list[tuple[bytes]]:
    rows: list[tuple[bytes]] = account.index.db.execute(
        f"SELECT name {_IN_ANY}", (mailbox.key,)
    ).fetchall()
    return rows


def _add_others(account: AccountState, seen: dict[str, SeenLists | None]) -> None:
    """Add more mailboxes that the index lacks, in the same transaction.

    A client that lists thousands of folders of another server would otherwise wait for the disk for each of them.
    """
    if not account.unindexed:
        rows = account.index.db.execute("SELECT name FROM mailbox")
        account.unindexed = list(set(account.folders.mailboxes()) - {name for (name,) in rows})
        account.unindexed.sort(reverse=True)
    files_left = MAX_FILES_ADDED_TOGETHER
    for _ in range(min(MAX_ADDED_TOGETHER, len(account.unindexed))):
        name = account.unindexed.pop()
        if account.index.mailbox_named(name) is None:
            with suppress(NoSuchMailbox, FileNotFoundError):
                cur = account.folders.folder(name).directory(CUR)
                files_left -= count_names(cur, files_left + 1)
            if files_left >= 0:
                with suppress(NoSuchMailbox):
                    _add(account, name, seen)
        account.folders.release()
        if files_left <= 0:
            break


def synchronize(
    account: AccountState, mailbox: MailboxRow, claim: bool
) -> tuple[MailboxRow, list[int]]:
    r"""Bring the index up to date with the disk.

    Args:
        account: the account.
        mailbox: the mailbox's row.
        claim: whether the calling session claims the \Recent messages, so that no later session sees them as \Recent.

    Returns:
        The mailbox's row after the sync, and the UIDs of the messages that no earlier session has claimed.

    Raises:
        NoSuchMailbox: the folder does not exist.
        StoreIOError: the folder could not be recovered after a crash.
    """
    index, key = account.index, mailbox.key
    account.require_recovered(key)
    if _is_unchanged(account, mailbox, claim):
        return mailbox, []
    folder = account.folders.folder(mailbox.name)
    stamps, now = stat_or_create(folder), account.now()
    scan_cur = must_read_cur(mailbox, stamps, now)
    listing = None
    if scan_cur or must_read_new(mailbox, stamps):
        listing = list_folder(folder, scan_cur)
        if is_unchanged(_indexed_files(account, key, scan_cur), listing):
            _record_reading(account, mailbox, stamps, listing, now)
            listing = None
    if listing is None and not (claim and recent_claims.has_claimable(account, mailbox)):
        return mailbox, recent_claims.unclaimed(account, mailbox)
    recent: list[int] = []
    # A full disk must not prevent reading. The index then stays as it is, and the next sync tries again.
    with index.write_unless_full(durable=listing is not None):
        account.require_recovered(key)
        mailbox = index.mailbox(key)
        if listing is not None:
            mailbox = _follow_changes(account, mailbox, folder, listing)
        recent = recent_claims.unclaimed(account, mailbox)
        if claim:
            recent_claims.claim(account, mailbox, folder)
    return index.mailbox(key), recent


def _is_unchanged(account: AccountState, mailbox: MailboxRow, claim: bool) -> bool:
    """Whether a sync would find nothing, and has nothing to return but the mailbox: as in nearly every NOOP."""
    if mailbox.last_claimed_uid + 1 < mailbox.uidnext:
        return False
    stamps = unopened_stamps(account.folders, mailbox.name)
    return (
        stamps is not None
        and not must_read_cur(mailbox, stamps, account.now())
        and not must_read_new(mailbox, stamps)
        and not (claim and recent_claims.has_claimable(account, mailbox))
    )


def _follow_changes(
    account: AccountState, mailbox: MailboxRow, folder: Folder, listing: Listing
) -> MailboxRow:
    """Apply a listing in a write transaction, and return the mailbox's row after that."""
    index, key = account.index, mailbox.key
    if index.undid_moves:
        mailbox, listing = index.mailbox(key), list_folder(folder, True)
    scan_cur = listing.cur is not None
    stamps, now = stat_or_create(folder), account.now()
    if not scan_cur and stamps[:2] != (mailbox.cur_mtime, mailbox.cur_ino):
        # A program that moves a file from cur/ to new/ changes both. The first listing was of new/ alone.
        scan_cur, listing = True, list_folder(folder, True)
    _apply_listing(account, mailbox, folder, listing, list_folder(folder, scan_cur))
    _record_reading(account, index.mailbox(key), stamps, listing, now)
    return index.mailbox(key)


def _indexed_files(account: AccountState, key: int, cur: bool) -> Iterable[tuple[int, bytes]]:
    return account.index.db.execute(f"SELECT place, name {_IN_ANY if cur else IN_NEW}", (key,))


def _record_reading(
    account: AccountState,
    mailbox: MailboxRow,
    stamps: DirectoryStamps,
    listing: Listing,
    now: float,
) -> None:
    """Record what the directories had when they were read, at or after the time `now`."""
    cur_files = None if listing.cur is None else len(listing.cur)
    found = row_after_reading(mailbox, stamps, cur_files, now)
    if found != mailbox:
        account.index.record_reading(mailbox, found)


def _apply_listing(
    account: AccountState, mailbox: MailboxRow, folder: Folder, first: Listing, second: Listing
) -> None:
    """Change the index to what the second listing shows; expunge only messages that both listings miss."""
    query = f"SELECT uid, name, place, flags {IN_NEW if second.cur is None else _IN_ANY}"
    known = [IndexedFile(*row) for row in account.index.db.execute(query, (mailbox.key,))]
    plan = reconcile(known, second)
    missed = {row.uid for row in reconcile(known, first).missing} if plan.missing else set()
    expunged = [row.uid for row in plan.missing if row.uid in missed]
    modseq = mailbox.highestmodseq + 1
    flags_changed = _apply_renames(account, mailbox, plan.renamed, modseq)
    added = _without_removed(account, mailbox, folder, plan.added)
    uidnext = uid_assignment.add_files(account, mailbox, folder, added, modseq)
    fields = {"highestmodseq": modseq, "uidnext": uidnext}
    if expunged:
        fields |= account.index.expunge(mailbox, expunged, modseq)
    if uidnext > mailbox.uidnext or flags_changed or expunged:
        account.index.update_mailbox(mailbox.key, **fields)


def _without_removed(
    account: AccountState, mailbox: MailboxRow, folder: Folder, added: list[tuple[int, bytes]]
) -> list[tuple[int, bytes]]:
    """Return the files that are new, without those that a MOVE of another process is about to remove."""
    removed = account.index.files_to_remove(mailbox.key) if added else {}
    if not removed:
        return added
    new: list[tuple[int, bytes]] = []
    for directory, name in added:
        removed_at = removed.get(filename.base(name))
        with suppress(FileNotFoundError):
            entry = folder.entry(directory, name)
            if removed_at is None or files.status(entry).st_ctime_ns > removed_at:
                new.append((directory, name))
    return new


def _apply_renames(
    account: AccountState,
    mailbox: MailboxRow,
    renamed: Sequence[tuple[IndexedFile, int, bytes]],
    modseq: int,
) -> bool:
    """Record new names of files; return whether the flags of any message changed."""
    if not renamed:
        return False
    folder_flags = account.keywords.get(mailbox)
    new_names: list[tuple[bytes, int, int, int]] = []
    new_flags: list[tuple[bytes, int, int, int]] = []
    for row, directory, name in renamed:
        new_names.append((name, directory, mailbox.key, row.uid))
        flags = filename.all_flags(name, row.flags, folder_flags)
        if flags != row.flags:
            new_flags.append((flags, modseq, mailbox.key, row.uid))
    db = account.index.db
    db.executemany(
        "UPDATE message SET name = ?, place = ? WHERE mailbox = ? AND uid = ?", new_names
    )
    db.executemany(
        "UPDATE message SET flags = ?, modseq = ? WHERE mailbox = ? AND uid = ?", new_flags
    )
    return bool(new_flags)
