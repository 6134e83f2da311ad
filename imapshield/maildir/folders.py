"""LIST, CREATE, DELETE, RENAME and subscriptions: the Maildir++ directories of an account."""

from __future__ import annotations

import os
from collections.abc import Sequence

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
from imapshield.maildir.append_copy import Adding
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.sync import Syncing
from imapshield.maildir.undo import Undo, undoing
from imapshield.wire.names import DELIMITER, INBOX, fold_inbox, parent_names

MAILBOXES = 10_000
"""Folders of one account: each LIST reads them all, and a loop of CREATE would eat the disk's inodes."""

SUBSCRIPTIONS = 10_000

_FOLDER_MARK = b"/maildirfolder"
_VERSION_2 = b"V\t2\n\n"


class Folders:
    """The tree of mailboxes; see `IStore` for the methods."""

    def __init__(self, core: AccountState, syncing: Syncing, adding: Adding) -> None:
        self._core = core
        self._index = core.index
        self._syncing = syncing
        self._adding = adding

    def _names(self) -> list[str]:
        """Every mailbox that has a directory, sorted."""
        found = [INBOX]
        with os.scandir(self._core.root) as entries:
            for entry in entries:
                name = layout.mailbox(entry.name)
                if name is not None and entry.is_dir():
                    found.append(name)
        found.sort()
        return found

    def mailboxes(self) -> list[MailboxInfo]:
        """List directories, and the parents that only their names imply."""
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

    def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        """Make a directory for the name and each superior that has none."""
        name = fold_inbox(name)
        layout.directory(name)
        wanted = [*parent_names(name), name]
        with undoing() as undo, self._index.write(durable=True):
            if os.path.isdir(self._core.folder(name)):
                raise MailboxExists
            missing = [n for n in wanted if not os.path.isdir(self._core.folder(n))]
            if len(self._names()) + len(missing) > MAILBOXES:
                raise StoreLimitExceeded("There are too many mailboxes")
            for each in missing:
                box = self._make(each, b" ".join(special_use) if each == name else b"", undo)
            files.sync_directory(self._core.root)
        return box.mailbox_id

    def _make(self, name: str, special_use: bytes, undo: Undo) -> MailboxRow:
        folder = self._core.folder(name)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            raise MailboxExists from None
        undo.add(files.remove_tree, folder)
        files.make(folder)
        os.close(os.open(folder + _FOLDER_MARK, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        stale = self._index.named(name)
        if stale is not None:  # another program removed the folder: this is a new mailbox
            self._index.forget(stale.key)
        return self._index.add(name, special_use)

    def delete(self, name: str) -> None:
        """Move the folder out of sight in one step; what is in it is removed afterwards, at leisure."""
        name = fold_inbox(name)
        if name == INBOX:
            raise NotAllowed("INBOX cannot be deleted")
        folder = self._core.known_folder(name)
        trash = self._core.root + b"/tmp/" + self._core.unique()
        with undoing() as undo, self._index.write(durable=True):
            try:
                os.rename(folder, trash)
            except FileNotFoundError:
                raise NoSuchMailbox from None
            undo.add(os.rename, trash, folder)
            box = self._index.named(name)
            if box is not None:
                self._index.forget(box.key)
            files.sync_directory(self._core.root)
        files.remove_tree(trash)

    def rename(self, old: str, new: str) -> None:
        """Rename directories; the index's keys, UIDs and mtimes stay as they are."""
        old, new = fold_inbox(old), fold_inbox(new)
        layout.directory(new)
        if old == INBOX:
            self._rename_inbox(new)
            return
        self._core.known_folder(old)
        below = old + DELIMITER
        with undoing() as undo, self._index.write(durable=True):
            names = self._names()
            taken = set(names)
            going = [n for n in names if n == old or n.startswith(below)]
            if not going:
                raise NoSuchMailbox
            if new in taken:
                raise MailboxExists
            if new.startswith(below):
                raise BadMailboxName("A mailbox cannot be renamed into itself")
            pairs = [(n, new + n[len(old) :]) for n in going]
            if any(target in taken for _, target in pairs):
                raise MailboxExists
            moves = [(n, self._core.folder(n), t, self._core.folder(t)) for n, t in pairs]
            for parent in parent_names(new):
                if parent not in taken:
                    self._make(parent, b"", undo)
            for name, folder, target, target_folder in moves:
                os.rename(folder, target_folder)
                undo.add(os.rename, target_folder, folder)
                stale = self._index.named(target)
                if stale is not None:
                    self._index.forget(stale.key)
                box = self._index.named(name)
                if box is not None:
                    self._index.set(box.key, name=target)
            files.sync_directory(self._core.root)

    def _rename_inbox(self, new: str) -> None:
        """Move INBOX's messages into a new mailbox (RFC 9051 section 6.3.6)."""
        inbox, _ = self._syncing.sync(self._syncing.adopt(INBOX), claim=False)
        self.create(new, ())
        try:
            self._copy_metadata(inbox.key, new)
            rows = self._index.db.execute(
                "SELECT uid FROM message WHERE mailbox = ? ORDER BY uid", (inbox.key,)
            )
            uids = [uid for (uid,) in rows]
            self._adding.copy(inbox.key, uids, new, True, inbox.highestmodseq)
        except BaseException:
            if not any(self._core.list(self._core.folder(new), cur=True)):
                self.delete(new)
            raise

    def _copy_metadata(self, key: int, name: str) -> None:
        """Both have it then (RFC 5464 section 4.1)."""
        with self._index.write() as db:
            db.execute(
                "INSERT INTO metadata SELECT mailbox.id, entry, value FROM metadata, mailbox"
                " WHERE metadata.mailbox = ? AND mailbox.name = ?",
                (key, name),
            )

    def subscriptions(self) -> set[str]:
        """Read Dovecot's ``subscriptions``, either version."""
        _, lines = self._subscribed()
        return {name for name in lines.values() if name is not None}

    def set_subscribed(self, name: str, on: bool) -> None:
        """Add or remove a line, leaving those that we cannot read."""
        name = fold_inbox(name)
        directory = layout.directory(name) if on else b""
        with self._index.write():
            version_2, lines = self._subscribed()
            kept = {line: read for line, read in lines.items() if on or read != name}
            if on and name not in lines.values():
                if len(lines) >= SUBSCRIPTIONS:
                    raise StoreLimitExceeded("There are too many subscriptions")
                kept[_line(directory, version_2)] = name
            if kept.keys() == lines.keys():
                return
            head = _VERSION_2 if version_2 else b""
            content = head + b"".join(line + b"\n" for line in kept)
            files.replace(self._core.root + b"/subscriptions", content)

    def _subscribed(self) -> tuple[bool, dict[bytes, str | None]]:
        content = files.read_small(self._core.root + b"/subscriptions")
        version_2 = content.startswith(_VERSION_2)
        lines = content[len(_VERSION_2) if version_2 else 0 :].split(b"\n")
        return version_2, {line: _read_line(line, version_2) for line in lines if line}


def _line(directory: bytes, version_2: bool) -> bytes:
    levels = directory[1:].split(b".") if directory else [INBOX.encode()]
    return (b"\t" if version_2 else b".").join(levels)


def _read_line(line: bytes, version_2: bool) -> str | None:
    levels = line.split(b"\t" if version_2 else b".")
    if levels == [INBOX.encode()]:
        return INBOX
    return layout.mailbox(b"." + b".".join(levels))
