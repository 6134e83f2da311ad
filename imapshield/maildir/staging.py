"""Staging: several messages that are stored together become visible together, or not at all.

A COPY of a hundred messages must not leave sixty after a crash (RFC 9051 section 6.4.7; RFC 3502 for MULTIAPPEND). So:

1. The files are made in ``tmp/``, and that directory is synced.
2. The index commits the rows, with directory TMP, and waits for the disk. From now on the messages exist, and are read
   from ``tmp/``. Other programs do not see them yet. The mailbox is marked STAGED.
3. The files are renamed into ``cur/``. This is called publishing. It needs no sync: `recovery` renames them again after
   a power failure.

If a crash or a disk error prevents the third step, the next APPEND or COPY to the mailbox, or the next process that
opens the account, publishes the files. A single message needs no staging: its file is renamed into ``cur/`` before the
commit.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import files
from imapshield.maildir.directory_state import DirectoryStamps, record_own_change, stat_or_create
from imapshield.maildir.entry import Entry
from imapshield.maildir.filename import base
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.index import STAGED, Index
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.open_folders import OpenFolders
from imapshield.maildir.paths import CUR, TMP


class Staging:
    """Inserts messages into the index and publishes those that are staged.

    Args:
        index: the account's index.
        folders: the account's folders.
        log_warning: called with one line for the operator.
    """

    def __init__(
        self, index: Index, folders: OpenFolders, log_warning: Callable[[str], None]
    ) -> None:
        self._index = index
        self._folders = folders
        self._log_warning = log_warning

    def insert(
        self,
        mailbox: MailboxRow,
        directory: int,
        before: DirectoryStamps,
        modseq: int,
        rows: Sequence[tuple[object, ...]],
    ) -> None:
        """Insert rows for files that are in place, in a write transaction.

        The caller has synced the directory, or ``tmp/``, from which `recovery` could move the files again.

        Args:
            mailbox: the mailbox's row; the new UIDs begin at its UIDNEXT.
            directory: CUR, or TMP if the messages are staged.
            before: the times of the directories before the files were made.
            modseq: the MODSEQ of the new messages.
            rows: rows of the table ``message``.
        """
        self._index.insert_messages(rows)
        fields: dict[str, object] = {
            "uidnext": mailbox.uidnext + len(rows),
            "highestmodseq": modseq,
        }
        if directory == TMP:
            flags = mailbox.directory_flags | STAGED
            self._index.update_mailbox(mailbox.key, directory_flags=flags, **fields)
        else:
            folder = self._folders.folder(mailbox.name)
            record_own_change(self._index, mailbox, folder, before, **fields)

    def publish_all(self) -> None:
        """Publish the messages that an earlier process left staged."""
        staged = self._index.db.execute("SELECT id FROM mailbox WHERE hot & ?", (STAGED,))
        for (key,) in staged.fetchall():
            self.publish(self._index.mailbox(key))

    def staged_names(self) -> set[bytes]:
        """Return the base names of all staged messages."""
        names = self._index.db.execute(
            "SELECT message.name FROM mailbox CROSS JOIN message ON message.mailbox = mailbox.id"
            " WHERE hot & ? AND place = ?",
            (STAGED, TMP),
        )
        return {base(name) for (name,) in names}

    def publish(
        self,
        mailbox: MailboxRow,
        first_uid: int = 0,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Publish a mailbox's staged messages whose UID is at least `first_uid`; 0 if an earlier attempt has failed.

        `before` is called first, in the same transaction.

        The messages are committed and can be read from ``tmp/``, so an error of the disk or the index is only logged.
        """
        try:
            with self._index.write(durable=False):
                if before is not None:
                    before()
                self._publish(mailbox.key, first_uid)
        except (OSError, sqlite3.Error, NoSuchMailbox) as error:
            self._log_warning(
                f"new messages of the mailbox {mailbox.name!r} below "
                f"{os.fsdecode(self._folders.root)} could not be "
                f"moved from tmp/ to cur/: {error}. Clients can read them, other mail programs "
                "cannot. The next COPY "
                "or APPEND to the mailbox, and the next start, try again; check the disk and "
                "the permissions"
            )

    def published(self, key: int) -> MailboxRow:
        """Return a mailbox's row, in a write transaction, after publishing the mailbox's staged messages."""
        mailbox = self._index.mailbox(key)
        if not mailbox.directory_flags & STAGED:
            return mailbox
        self._publish(key, 0)
        return self._index.mailbox(key)

    def _publish(self, key: int, first_uid: int) -> None:
        db = self._index.db
        mailbox = self._index.mailbox(key)
        folder = self._folders.folder(mailbox.name)
        before = stat_or_create(folder)
        staged = f"mailbox = ? AND uid >= ? AND place = {TMP}"
        names = db.execute(f"SELECT name FROM message WHERE {staged}", (key, first_uid)).fetchall()  # noqa: S608
        listed_at = mailbox.listed_at
        finder = FileFinder(folder)
        cur = folder.directory(CUR)
        for (name,) in names:
            try:
                files.rename(folder.entry(TMP, name), Entry(cur, name))
            except FileNotFoundError:
                listed_at = 0.0
                file = finder.find(name)
                # After a power failure, the file in tmp/ can have the name that it had before it got its flags. Else a
                # process that crashed has already renamed the file, or another program has removed it: the next sync
                # reads both directories and finds out.
                if file is not None and file[0] == TMP:
                    files.rename(folder.entry(*file), folder.entry(CUR, name))
        query = f"UPDATE OR FAIL message SET place = {CUR} WHERE {staged}"  # noqa: S608
        db.execute(query, (key, first_uid))
        if first_uid == 0:
            # An earlier attempt has failed, and `recovery` may not look at messages of that time any more.
            folder.sync(CUR)
        flags = mailbox.directory_flags & ~STAGED
        self._index.update_mailbox(key, directory_flags=flags, listed_at=listed_at)
        record_own_change(self._index, self._index.mailbox(key), folder, before)
