"""APPEND, COPY, MOVE and REPLACE: what brings messages into a mailbox, in one transaction each.

Rules
-----
* What raised has changed nothing: every step that was taken is taken back, newest first.
* A crash in the middle of an APPEND, MOVE or REPLACE, or of a COPY of one message, can leave files that the index does
  not know. They are whole, so they come up as new mail: a message may be there twice, never not at all.
* Several messages that come together, by COPY or MULTIAPPEND, are all there after a crash or none is (RFC 9051 section
  6.4.7, RFC 3502): they are made in ``tmp/``, the index's commit decides, and then they are renamed into ``cur/``.
  The end of a MOVE is one message in one place, for each of them (RFC 6851 section 3.3), so it needs no more than that.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from imapshield.errors import MessageExpunged, NoSuchMailbox, StoreLimitExceeded
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.values import AppendResult, CopyResult, NewMessage, ReplaceResult
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import UNSETTLED, AccountState, DirectoryStamps, Finder
from imapshield.maildir.index import MailboxRow, as_json
from imapshield.maildir.quota_metadata import Quotas
from imapshield.maildir.reconcile import CUR, TMP
from imapshield.maildir.sync import Syncing
from imapshield.maildir.undo import Undo, undoing


class Adding:
    """The methods of `IStore` that bring messages."""

    def __init__(self, core: AccountState, syncing: Syncing, quotas: Quotas) -> None:
        self._core = core
        self._quotas = quotas
        self._index = core.index
        self._syncing = syncing

    def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        """Write and sync the files before the lock is taken: a slow disk makes nobody else wait."""
        core = self._core
        box = self._syncing.adopt(name)
        self._quotas.need(len(messages), sum(message.content.size for message in messages))
        place = TMP if len(messages) > 1 else CUR
        with undoing() as undo:
            written = self._written(box, messages, undo)
            with self._index.write(durable=place == TMP):
                appended = self._append(box.key, messages, written, place, undo)
        if place == TMP:
            core.settled(box.key, appended.uids[0])
        return appended

    def replace(
        self, key: int, uid: int, name: str, message: NewMessage, since: int
    ) -> ReplaceResult:
        """Append and expunge in one transaction; of the quota it needs what the new message has more."""
        index = self._index
        box = self._syncing.adopt(name)
        old = index.rows("physical", key, [uid])
        if not old:
            raise MessageExpunged
        self._quotas.need(0, message.content.size - old[0][0])
        with undoing() as undo:
            written = self._written(box, [message], undo)
            with index.write():
                appended = self._append(box.key, [message], written, CUR, undo)
                self._remove(key, uid)
        return ReplaceResult(appended, self._syncing.delta(key, since))

    def _remove(self, key: int, uid: int) -> None:
        core, index = self._core, self._index
        box = index.box(key)
        folder = core.folder(box.name)
        before = core.look(folder)
        found = index.rows("name, place", key, [uid])
        if not found:
            raise MessageExpunged
        name, place = found[0]
        try:
            os.unlink(core.path(folder, place, name))
        except FileNotFoundError:
            there = Finder(core, folder).find(name)
            if there is None:
                raise MessageExpunged from None
            os.unlink(core.path(folder, *there))
        index.expunge(box, [uid], box.highestmodseq + 1)
        core.touched(box, before)

    def _written(
        self, box: MailboxRow, messages: Sequence[NewMessage], undo: Undo
    ) -> list[tuple[bytes, int, int]]:
        """Write messages into ``tmp/``; returns base name, size and INTERNALDATE of each."""
        core = self._core
        folder = core.folder(box.name)
        core.look(folder)
        now = int(core.now())
        written: list[tuple[bytes, int, int]] = []
        for message in messages:
            size = message.content.size
            if size > files.LARGEST:
                raise StoreLimitExceeded("A message cannot be that large")
            base = filename.sized(core.unique(), size, size)
            date = now if message.internaldate is None else message.internaldate
            path = core.path(folder, TMP, base)
            self._write(folder, path, message, date)
            undo.add(files.remove, path)
            written.append((base, size, date))
        return written

    def _write(self, folder: bytes, path: bytes, message: NewMessage, date: int) -> None:
        try:
            files.write_message(path, message.content, date)
        except FileNotFoundError:
            if not os.path.isdir(folder):
                raise NoSuchMailbox from None
            files.make(folder)
            files.write_message(path, message.content, date)

    def _append(
        self,
        key: int,
        messages: Sequence[NewMessage],
        written: Sequence[tuple[bytes, int, int]],
        place: int,
        undo: Undo,
    ) -> AppendResult:
        core = self._core
        box = self._settled(key)
        folder = core.folder(box.name)
        before = core.look(folder)
        keywords = core.learn(box, [flag for message in messages for flag in message.flags])
        modseq, saved = box.highestmodseq + 1, int(core.now())
        rows = []
        for uid, (message, (base, size, date)) in enumerate(
            zip(messages, written, strict=True), box.uidnext
        ):
            flags = core.spelled(message.flags, keywords)
            name = filename.named(base, flags.split(), keywords)
            target = core.path(folder, place, name)
            os.rename(core.path(folder, TMP, base), target)
            undo.add(files.remove, target)
            email_id = b"M" + secrets.token_hex(8).encode()
            rows.append((key, uid, name, place, flags, modseq, size, size, date, saved, email_id))
        self._insert(box, place, before, modseq, rows)
        return AppendResult(box.uidvalidity, [row[1] for row in rows])

    def _settled(self, key: int) -> MailboxRow:
        """Return a mailbox, in a write transaction, with nothing in ``tmp/`` from before."""
        box = self._index.box(key)
        if not box.hot & UNSETTLED:
            return box
        self._core.settle(key)
        return self._index.box(key)

    def _insert(
        self,
        box: MailboxRow,
        place: int,
        before: DirectoryStamps,
        modseq: int,
        rows: Sequence[tuple[object, ...]],
    ) -> None:
        core, index = self._core, self._index
        files.sync_directory(core.path(core.folder(box.name), place, b""))
        index.db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        index.set(box.key, uidnext=box.uidnext + len(rows), highestmodseq=modseq)
        if place == TMP:
            index.set(box.key, hot=box.hot | UNSETTLED)
        else:
            core.touched(box, before)

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        """Copy by second names for the same files; move by renaming them."""
        there = self._syncing.adopt(target)
        self._core.look(self._core.folder(there.name))
        place = CUR if move or len(uids) == 1 else TMP
        with undoing() as undo, self._index.write(durable=place == TMP):
            copied = self._copy(key, uids, there.key, move, place, undo)
        if place == TMP and copied.target_uids:
            self._core.settled(there.key, copied.target_uids[0])
        return copied._replace(delta=self._syncing.delta(key, since))

    def _copy(
        self, key: int, uids: Sequence[int], into: int, move: bool, place: int, undo: Undo
    ) -> CopyResult:
        core, index = self._core, self._index
        source, target = index.box(key), self._settled(into)
        source_folder, folder = core.folder(source.name), core.folder(target.name)
        source_before, before = core.look(source_folder), core.look(folder)
        rows = index.rows(
            "uid, name, place, flags, size, physical, internaldate, email_id", key, uids
        )
        if not move:
            if len(rows) < len(uids):
                raise MessageExpunged
            self._quotas.need(len(rows), sum(row[5] for row in rows))
        if not rows:
            return CopyResult(target.uidvalidity, [], [], Delta())
        lists = {row[3] for row in rows}
        keywords = core.learn(target, {flag for flags in lists for flag in flags.split()})
        spelled = {flags: core.spelled(flags.split(), keywords) for flags in lists}
        modseq, saved = target.highestmodseq + 1, int(core.now())
        finder = Finder(core, source_folder)
        # Each step is taken back by what it was, and a file system call is most of what a message costs here.
        step = os.rename if move else files.duplicate
        new = []
        for new_uid, (_, name, at, old, size, physical, date, email_id) in enumerate(
            rows, target.uidnext
        ):
            flags = spelled[old]
            new_name = filename.named(
                filename.sized(core.unique(), physical, size), flags.split(), keywords
            )
            path = core.path(source_folder, at, name)
            new_path = core.path(folder, place, new_name)
            try:
                step(path, new_path)
            except FileNotFoundError:
                found = finder.find(name)
                if found is None:
                    raise MessageExpunged from None
                path = core.path(source_folder, *found)
                step(path, new_path)
            if move:
                undo.add(os.rename, new_path, path)
            else:
                undo.add(files.remove, new_path)
            row = (into, new_uid, new_name, place, flags, modseq, size, physical, date, saved)
            new.append((*row, email_id))
        went = [row[0] for row in rows]
        self._insert(target, place, before, modseq, new)
        self._copy_answers(key, went, into, target.uidnext)
        if move:
            source = index.box(key)
            index.expunge(source, went, source.highestmodseq + 1)
            if into != key:
                files.sync_directory(source_folder + b"/cur")
                core.touched(source, source_before)
        return CopyResult(target.uidvalidity, went, [row[1] for row in new], Delta())

    def _copy_answers(self, key: int, uids: Sequence[int], into: int, first: int) -> None:
        some = as_json(uids)
        for item, text in self._index.items_of(key):
            if text.startswith(b"?"):
                # for SEARCH: seven small rows a message, found out again when asked for
                continue
            self._index.db.execute(
                "INSERT INTO answer SELECT ?, ?, some.key + ?, answer.value"
                " FROM json_each(?) AS some CROSS JOIN answer"
                " ON answer.mailbox = ? AND answer.item = ? AND answer.uid = some.value",
                (into, item, first, some, key, item),
            )
