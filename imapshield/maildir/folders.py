"""LIST, CREATE, DELETE and RENAME: the Maildir++ folders of an account.

If a method raises, it has changed nothing: the steps that were taken are undone in reverse order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from imapshield.errors import (
    BadMailboxName,
    MailboxExists,
    NoSuchMailbox,
    NotAllowed,
    StoreLimitExceeded,
)
from imapshield.mailbox.values import MailboxInfo
from imapshield.maildir import files, layout
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.file_finder import list_folder
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.message_copy import MessageCopy
from imapshield.maildir.metadata_table import MetadataTable
from imapshield.maildir.sync import MailboxSync
from imapshield.wire.names import DELIMITER, INBOX, fold_inbox, parent_names

MAX_MAILBOXES = 10_000
"""Folders of one account. Each LIST reads them all, and a client that loops over CREATE would use up the inodes."""

_FOLDER_MARKER = b"/maildirfolder"
"""An empty file that tells delivery agents that a directory is a folder and no Maildir of its own (Maildir++)."""


class MailboxFolders:
    """The methods of `IStore` that list, create, delete and rename mailboxes."""

    def __init__(
        self,
        account: AccountState,
        sync: MailboxSync,
        message_copy: MessageCopy,
        metadata: MetadataTable,
    ) -> None:
        self._paths = account.paths
        self._index = account.index
        self._sync = sync
        self._message_copy = message_copy
        self._metadata = metadata

    def _names(self) -> list[str]:
        """Return the names of all mailboxes that have a folder, sorted."""
        names = [INBOX]
        with os.scandir(self._paths.root) as entries:
            for entry in entries:
                name = layout.mailbox_name(entry.name)
                if name is not None and entry.is_dir():
                    names.append(name)
        names.sort()
        return names

    def mailboxes(self) -> list[MailboxInfo]:
        """Return all mailboxes, and as not selectable the parents that have no folder."""
        uses = {
            name: tuple(use.split())
            for name, use in self._index.db.execute(
                "SELECT name, special_use FROM mailbox WHERE special_use <> x''"
            )
        }
        infos = {name: MailboxInfo(name, True, uses.get(name, ())) for name in self._names()}
        for name in list(infos):
            for parent in parent_names(name):
                infos.setdefault(parent, MailboxInfo(parent, False))
        return [infos[name] for name in sorted(infos)]

    def create(self, name: str, special_use: Sequence[bytes]) -> MailboxRow:
        """Create a mailbox, and its parents that have no folder; `IStore.create` describes the arguments."""
        name = fold_inbox(name)
        layout.folder_name(name)  # raises BadMailboxName
        with ExitStack() as rollback:
            with self._index.write(durable=True):
                if os.path.isdir(self._paths.folder(name)):
                    raise MailboxExists
                missing = [
                    parent
                    for parent in parent_names(name)
                    if not os.path.isdir(self._paths.folder(parent))
                ]
                if len(self._names()) + len(missing) + 1 > MAX_MAILBOXES:
                    raise StoreLimitExceeded(
                        f"Account would have more than {MAX_MAILBOXES} mailboxes"
                    )
                for parent in missing:
                    self._make(parent, b"", rollback)
                mailbox = self._make(name, b" ".join(special_use), rollback)
                files.sync_directory(self._paths.root)
            rollback.pop_all()
        return mailbox

    def _make(self, name: str, special_use: bytes, rollback: ExitStack) -> MailboxRow:
        """Make one folder and its row, in a write transaction."""
        folder = self._paths.folder(name)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            raise MailboxExists from None
        rollback.callback(files.remove_tree, folder)
        files.make_folder(folder)
        os.close(os.open(folder + _FOLDER_MARKER, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._remove_row(name)
        return self._index.add_mailbox(name, special_use)

    def _remove_row(self, name: str) -> None:
        """Remove the row of a name, if there is one, because another program has removed its folder."""
        mailbox = self._index.mailbox_named(name)
        if mailbox is not None:
            self._index.remove_mailbox(mailbox.key)

    def delete(self, name: str) -> None:
        """Delete a mailbox; mailboxes below it stay.

        The folder is renamed into ``tmp/``, which is one step, and its files are removed after the commit.

        Raises:
            NotAllowed: the mailbox is INBOX.
            NoSuchMailbox: there is no folder.
        """
        name = fold_inbox(name)
        if name == INBOX:
            raise NotAllowed("INBOX cannot be deleted")
        folder = self._paths.existing_folder(name)
        trash = self._paths.root + b"/tmp/" + self._paths.unique_name()
        with ExitStack() as rollback:
            with self._index.write(durable=True):
                try:
                    os.rename(folder, trash)
                except FileNotFoundError:
                    raise NoSuchMailbox from None
                rollback.callback(files.rename_back, trash, folder)
                self._remove_row(name)
                files.sync_directory(self._paths.root)
            rollback.pop_all()
        files.remove_tree(trash)

    def rename(self, old: str, new: str) -> None:
        """Rename a mailbox and all mailboxes below it; keys, UIDs and recorded directory times stay.

        Raises:
            BadMailboxName: the new name is below the old one, or no folder can have it.
            MailboxExists: one of the new names is taken.
            NoSuchMailbox: there is no folder with the old name.
        """
        old, new = fold_inbox(old), fold_inbox(new)
        layout.folder_name(new)  # raises BadMailboxName
        if old == INBOX:
            self._rename_inbox(new)
            return
        self._paths.existing_folder(old)
        with ExitStack() as rollback:
            with self._index.write(durable=True):
                names = self._names()
                renames = self._plan_rename(names, old, new)
                for parent in parent_names(new):
                    if parent not in names:
                        self._make(parent, b"", rollback)
                for name, folder, target, target_folder in renames:
                    os.rename(folder, target_folder)
                    rollback.callback(files.rename_back, target_folder, folder)
                    self._remove_row(target)
                    mailbox = self._index.mailbox_named(name)
                    if mailbox is not None:
                        self._index.update_mailbox(mailbox.key, name=target)
                files.sync_directory(self._paths.root)
            rollback.pop_all()

    def _plan_rename(
        self, names: Sequence[str], old: str, new: str
    ) -> list[tuple[str, bytes, str, bytes]]:
        """Return (name, folder, new name, new folder) of every mailbox to rename."""
        prefix = old + DELIMITER
        affected = [name for name in names if name == old or name.startswith(prefix)]
        if not affected:
            raise NoSuchMailbox
        taken = set(names)
        if new in taken:
            raise MailboxExists
        if new.startswith(prefix):
            raise BadMailboxName("Mailbox cannot be renamed to a name below itself")
        pairs = [(name, new + name[len(old) :]) for name in affected]
        if any(target in taken for _, target in pairs):
            raise MailboxExists
        folder = self._paths.folder
        return [(name, folder(name), target, folder(target)) for name, target in pairs]

    def _rename_inbox(self, new: str) -> None:
        """Move INBOX's messages into a new mailbox (RFC 9051 section 6.3.6).

        Its metadata is copied (RFC 5464 section 4.1).
        """
        inbox, _ = self._sync.sync(self._sync.find_or_add(INBOX), claim=False)
        mailbox = self.create(new, ())
        try:
            with self._index.write():
                self._metadata.copy(inbox.key, mailbox.key)
            rows = self._index.db.execute(
                "SELECT uid FROM message WHERE mailbox = ? ORDER BY uid", (inbox.key,)
            )
            uids = [uid for (uid,) in rows]
            self._message_copy.copy(inbox.key, uids, new, True, inbox.highestmodseq)
        except BaseException:
            if not any(list_folder(self._paths.folder(new), cur=True)):
                self.delete(new)
            raise
