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

A list in which UIDs are about to run out is not followed. Dovecot's lock of its list is taken; if Dovecot holds it, the
list is written later.
"""

import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress

from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.other_servers import (
    COURIER,
    COURIER_KEYWORDS,
    DOVECOT,
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
from imapshield.maildir.paths import CUR, list_folder, message_path
from imapshield.maildir.uid_assignment import add_files

MAX_LIST_SIZE = 256 << 20
"""Bytes of the largest list of another server that is read: two million messages."""

MAX_REMEMBERED = 10_000
"""Mailboxes of an account whose lists are remembered in memory, so that the marker file is not read each time."""

STALE_LOCK_SECONDS = 120.0
"""Age of a lock of ``dovecot-uidlist`` at which Dovecot regards it as left by a crash."""

_MARKER = b"/imapshield.imported"


def is_due(account: AccountState, mailbox: MailboxRow, folder: bytes) -> bool:
    """Whether another server has changed its list since the last exchange, or more UIDs must be reserved.

    It costs one stat() for each kind of list.
    """
    seen = account.seen_lists.get(mailbox.key)
    if seen is None:
        if len(account.seen_lists) >= MAX_REMEMBERED:
            account.seen_lists.clear()
        seen = account.seen_lists[mailbox.key] = _read_marker(folder)
    return _lists(folder) != seen.lists or _needs_reservation(mailbox, seen)


def exchange(
    account: AccountState, name: str, folder: bytes, mailbox: MailboxRow | None
) -> MailboxRow:
    """Take over the UIDs of the server that has changed its list, and return the mailbox's row after that.

    It runs in a write transaction. If that is rolled back, the lists may be written already; then they are taken over
    the next time.

    Args:
        account: the account.
        name: the mailbox.
        folder: its folder.
        mailbox: its current row, None if the index does not have it yet.

    Raises:
        NoSuchMailbox: the folder does not exist.
    """
    seen = _read_marker(folder)
    lists = _lists(folder)
    changed = [form for form in FORMATS if lists.get(form.file) != seen.lists.get(form.file)]
    form, theirs = _newest(folder, changed, lists)
    if theirs is not None and form is not None:
        mailbox = _follow(account, name, folder, mailbox, form, theirs)
    elif mailbox is None:
        mailbox = account.index.add_mailbox(name)
    elif lists.get(DOVECOT_LOG) != seen.lists.get(DOVECOT_LOG):
        highest = max(mailbox.highestmodseq, _modseq_above(folder, mailbox.highestmodseq))
        account.index.update_mailbox(mailbox.key, highestmodseq=highest)
        mailbox = account.index.mailbox(mailbox.key)
    if lists or seen.lists:
        is_new = form is not None or _needs_reservation(mailbox, seen)
        written = write_lists(account, mailbox, folder, form) if is_new else seen.uidnext
        _write_marker(folder, SeenLists(_lists(folder) if is_new else lists, written))
    account.seen_lists.pop(mailbox.key, None)
    return mailbox


def write_lists(
    account: AccountState,
    mailbox: MailboxRow,
    folder: bytes,
    followed: UidListFormat | None,
    create: bool = False,
) -> int:
    """Write what the index has to the lists of the other servers, and return the UIDNEXT that they tell.

    Args:
        account: the account.
        mailbox: the mailbox's current row.
        folder: its folder.
        followed: the list to write in any case. Others are written if they have the UIDVALIDITY of the mailbox.
        create: whether to write `followed` if it does not exist.
    """
    uidnext = min(mailbox.uidnext + RESERVED_UIDS, 0xFFFFFFFE)
    rows = account.index.db.execute(
        "SELECT name, uid FROM message WHERE mailbox = ?", (mailbox.key,)
    )
    ours = UidList(mailbox.uidvalidity, uidnext, {filename.base(name): uid for name, uid in rows})
    for form in FORMATS:
        path = folder + b"/" + form.file
        content = files.read_small(path, MAX_LIST_SIZE)
        theirs = parse_uid_list(content, form)
        is_same = theirs is not None and theirs.uidvalidity == mailbox.uidvalidity
        if (is_same or form is followed) and (content or create):
            guid = secrets.token_hex(16).encode()
            if not _replace_locked(path, format_uid_list(form, ours, content, guid), account.now()):
                return mailbox.uidnext  # the lock is held; the next exchange tries again
    return uidnext


def write_marker(folder: bytes, uidnext: int) -> None:
    """Remember the lists as they are now."""
    _write_marker(folder, SeenLists(_lists(folder), uidnext))


def _follow(
    account: AccountState,
    name: str,
    folder: bytes,
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
    new = plan(ours, theirs, by_base)
    if not leaves_room(new.uidnext):
        _log(account, folder, f"the UIDs of {form.server} are nearly used up")
        new = Plan(0, 1, {})
    elif new.uidvalidity == 0:
        _log(account, folder, f"{form.server} assigned UIDs that identify other messages here")
    elif mailbox is not None and new.uidvalidity != mailbox.uidvalidity:
        _log(account, folder, f"{form.server} has served it with another one")
    modseq = max(2, _modseq_above(folder, mailbox.highestmodseq if mailbox else 0))
    if mailbox is None:
        mailbox = index.add_mailbox(name, b"", new.uidvalidity, new.uidnext)
    elif new.uidvalidity != mailbox.uidvalidity:
        mailbox = _move_to_new_row(account, mailbox, new, modseq)
    else:
        modseq = max(modseq, mailbox.highestmodseq + 1)
        mailbox = _move_within_row(account, mailbox, new, modseq)
    first_new_uid = mailbox.uidnext
    added = [file for base_name, file in by_base.items() if base_name not in ours.uids]
    uidnext = add_files(account, mailbox, folder, added, modseq, new.uids)
    claimed = max(mailbox.last_claimed_uid, first_new_uid - 1)
    index.update_mailbox(
        mailbox.key, highestmodseq=modseq, uidnext=uidnext, last_claimed_uid=claimed
    )
    if form is COURIER:
        _import_courier_keywords(account, index.mailbox(mailbox.key), folder)
    return index.mailbox(mailbox.key)


def _log(account: AccountState, folder: bytes, reason: str) -> None:
    account.log_warning(
        f"{os.fsdecode(folder)!r} has a new UIDVALIDITY, because {reason}; mail clients "
        "download this mailbox again, and no mail is lost"
    )


def _move_to_new_row(
    account: AccountState, mailbox: MailboxRow, new: Plan, modseq: int
) -> MailboxRow:
    """Give a mailbox another UIDVALIDITY. It gets a new key, so that no session continues with old UIDs."""
    index = account.index
    index.update_mailbox(mailbox.key, name="/" + mailbox.name)  # no mailbox has such a name
    row = index.add_mailbox(mailbox.name, mailbox.special_use, new.uidvalidity, new.uidnext)
    uidnext = new.uidnext
    moved: list[tuple[int, int, int, int, int]] = []
    rows = index.db.execute(
        "SELECT uid, name FROM message WHERE mailbox = ? ORDER BY uid", (mailbox.key,)
    )
    for old_uid, file in rows:
        uid = new.uids.get(filename.base(file), 0)
        if not uid:
            uid, uidnext = uidnext, uidnext + 1
        moved.append((row.key, uid, modseq, mailbox.key, old_uid))
    index.db.executemany(
        "UPDATE message SET mailbox = ?, uid = ?, modseq = ? WHERE mailbox = ? AND uid = ?", moved
    )
    index.db.execute("UPDATE metadata SET mailbox = ? WHERE mailbox = ?", (row.key, mailbox.key))
    index.remove_mailbox(mailbox.key)
    account.seen_lists.pop(mailbox.key, None)
    index.update_mailbox(
        row.key,
        uidnext=uidnext,
        keywords=mailbox.keywords,
        directory_flags=mailbox.directory_flags,
    )
    return index.mailbox(row.key)


def _move_within_row(
    account: AccountState, mailbox: MailboxRow, new: Plan, modseq: int
) -> MailboxRow:
    """Give messages other UIDs: to clients, they are removed, and arrive anew."""
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
        index.expunge(mailbox, list(moved), modseq)
        index.insert_messages(
            [(key, moved[uid], *rest[:3], modseq, *rest[4:]) for key, uid, *rest in messages]
        )
    index.update_mailbox(mailbox.key, uidnext=uidnext)
    return index.mailbox(mailbox.key)


def _import_courier_keywords(account: AccountState, mailbox: MailboxRow, folder: bytes) -> None:
    """Give messages the keywords that Courier stored, in the index and in the names of their files."""
    keywords = parse_courier_keywords(_read_directory(folder + b"/" + COURIER_KEYWORDS))
    db = account.index.db
    rows = db.execute(
        "SELECT uid, name, place, flags FROM message WHERE mailbox = ?", (mailbox.key,)
    ).fetchall()
    found = [(row, words) for row in rows if (words := keywords.get(filename.base(row[1])))]
    usable = {word for _, words in found for word in words if filename.is_keyword(word)}
    if not usable:
        return
    folder_flags = account.keywords.add(mailbox, sorted(usable))
    changed: list[tuple[bytes, int, bytes, int, int]] = []
    for (uid, name, place, flags), words in found:
        all_flags = [*flags.split(), *(word for word in words if word in usable)]
        new_name = filename.with_flags(name, all_flags, folder_flags)
        with suppress(
            OSError
        ):  # another program has renamed the file; its flags are read at the next sync
            os.rename(message_path(folder, place, name), message_path(folder, CUR, new_name))
            text = filename.all_flags(new_name, b" ".join(all_flags), folder_flags)
            changed.append((new_name, CUR, text, mailbox.key, uid))
    db.executemany(
        "UPDATE message SET name = ?, place = ?, flags = ? WHERE mailbox = ? AND uid = ?", changed
    )


def _read_directory(path: bytes) -> Mapping[bytes, bytes]:
    """Return the content of each file in a directory, nothing if it does not exist."""
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: files.read_small(path + b"/" + name, MAX_LIST_SIZE) for name in names}


def _modseq_above(folder: bytes, known: int) -> int:
    """Return a MODSEQ above all that Dovecot has sent to clients, 0 if Dovecot has no index.

    A client that knows Dovecot's MODSEQs asks for what changed after them. The header of ``dovecot.index.log`` has the
    MODSEQ at its beginning, and each later one takes a record of at least eight bytes. Only an administrator can raise
    it further, to `known`, the HIGHESTMODSEQ of the index, after an export.
    """
    log = folder + b"/" + DOVECOT_LOG
    header = files.read_small(log, 32)
    if len(header) < 32 or header[0] != 1:
        return 0
    initial = int.from_bytes(header[24:32], "little")
    records = os.stat(log, follow_symlinks=False).st_size // 8
    return max(initial, known) + records + 1 if initial < 1 << 62 else 0


def _newest(
    folder: bytes, forms: Sequence[UidListFormat], lists: Mapping[bytes, tuple[int, int, int]]
) -> tuple[UidListFormat | None, UidList | None]:
    """Return the list that was written last, among those that can be parsed."""
    existing = [form for form in forms if form.file in lists]
    for form in sorted(existing, key=lambda form: lists[form.file], reverse=True):
        content = files.read_small(folder + b"/" + form.file, MAX_LIST_SIZE)
        parsed = parse_uid_list(content, form) if len(content) < MAX_LIST_SIZE else None
        if parsed is not None:
            return form, parsed
    return None, None


def _needs_reservation(mailbox: MailboxRow, seen: SeenLists) -> bool:
    return bool(seen.lists) and 0 < seen.uidnext < mailbox.uidnext + RESERVED_UIDS // 2


def _lists(folder: bytes) -> dict[bytes, tuple[int, int, int]]:
    """Return mtime, inode and size of each list in a folder, and of Dovecot's log, by file name."""
    found: dict[bytes, tuple[int, int, int]] = {}
    for name in (DOVECOT.file, COURIER.file, DOVECOT_LOG):
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(folder + b"/" + name, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found[name] = status.st_mtime_ns, status.st_ino, status.st_size
    return found


def _read_marker(folder: bytes) -> SeenLists:
    lists: dict[bytes, tuple[int, int, int]] = {}
    uidnext = 0
    for line in files.read_small(folder + _MARKER, 4096).split(b"\n"):
        name, *numbers = line.split(b" ")
        if all(number.isdigit() for number in numbers):
            match [int(number) for number in numbers]:
                case [mtime, inode, size]:
                    lists[name] = mtime, inode, size
                case [number] if name == b"uidnext":
                    uidnext = number
    return SeenLists(lists, uidnext)


def _write_marker(folder: bytes, seen: SeenLists) -> None:
    lines = [b"%b %d %d %d\n" % (name, *stamp) for name, stamp in seen.lists.items()]
    files.replace(folder + _MARKER, b"".join([*lines, b"uidnext %d\n" % seen.uidnext]))


def _replace_locked(path: bytes, content: bytes, now: float) -> bool:
    """Replace a list through its lock file, as Dovecot does. Return False if another program holds the lock.

    Mode and owner of an existing list are kept.
    """
    lock = path + b".lock"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        if now - os.stat(lock, follow_symlinks=False).st_mtime > STALE_LOCK_SECONDS:
            os.unlink(lock)
    try:
        fd = os.open(lock, flags, 0o600)
    except FileExistsError:
        return False
    try:
        with suppress(FileNotFoundError):
            status = os.stat(path, follow_symlinks=False)
            os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o666)
            with suppress(PermissionError):
                os.fchown(fd, status.st_uid, status.st_gid)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        os.rename(lock, path)
    except BaseException:
        files.remove(lock)
        raise
    finally:
        os.close(fd)
    files.sync_directory(os.path.dirname(path))
    return True
