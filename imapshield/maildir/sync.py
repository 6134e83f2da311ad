"""A folder on disk → the index → what changed: opening, polling, STATUS.

Other programs deliver, rename, move and delete in a Maildir at any time, and say so by nothing but the directory's
mtime. How that is used, and what was not done, is told in `store`.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable

from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.maildir import filename, uid_import
from imapshield.maildir import files as messagefiles
from imapshield.maildir.account_state import (
    CUR_HOT,
    HOT_SECONDS,
    NEW_HOT,
    UNSETTLED,
    AccountState,
    DirectoryStamps,
)
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.reconcile import CUR, NEW, Known, Listing, Plan, files, reconcile, same
from imapshield.wire.names import fold_inbox
from imapshield.wire.sequence import SequenceSet

FORCED_SECONDS = 3600.0
"""Directories are read again after this long, whatever their mtimes say: clocks get set, backups get restored."""

# SQLite knows no better than to walk through the mailbox for the few messages, or none, that are in new/.
_FROM = {
    True: "FROM message WHERE mailbox = ?",
    False: "FROM message INDEXED BY message_new WHERE mailbox = ? AND place = 1",
}
_COLUMNS = "uid, flags, modseq, size, internaldate"


class Syncing:
    """The reading side of a store."""

    def __init__(self, core: AccountState) -> None:
        self._core = core
        self._index = core.index
        self._noted: set[bytes] = set()

    def adopt(self, name: str) -> MailboxRow:
        """Return the mailbox of that name; a folder that the index has not met becomes one. NoSuchMailbox."""
        name = fold_inbox(name)
        folder = self._core.known_folder(name)
        box = self._index.named(name)
        if box is not None:
            return box
        self._core.look(folder)
        with self._index.write(durable=True):
            return self._index.named(name) or self._first_met(name, folder)

    def _first_met(self, name: str, folder: bytes) -> MailboxRow:
        found = uid_import.read(folder)
        if found is None:
            return self._index.add(name, b"")
        uid_import.mark(folder)
        box = self._index.add(name, b"", found.uidvalidity, found.uidnext)
        there = [*files(self._core.list(folder, cur=True)).values()]
        uidnext = self._fresh(box, folder, there, 2, found.uids)
        self._index.set(box.key, highestmodseq=2, uidnext=uidnext, recentuid=found.uidnext - 1)
        return self._index.box(box.key)

    def sync(self, box: MailboxRow, claim: bool) -> tuple[MailboxRow, list[int]]:
        """Take in what happened on disk; returns the mailbox as it is now and what was \\Recent, until this `claim`."""
        core, folder = self._core, self._core.folder(box.name)
        look = core.look(folder)
        scan_cur = look[:2] != (box.cur_mtime, box.cur_ino) or self._due(box, look)
        scan_new = scan_cur or look[2:] != (box.new_mtime, box.new_ino) or bool(box.hot & NEW_HOT)
        listing = None
        if scan_new:
            listing = core.list(folder, scan_cur)
            if same(self._expected(box.key, scan_cur), listing):
                self._trust(box, look, scan_cur)
                listing = None
        if listing is None and not (claim and self._claimable(box)):
            return box, self._unclaimed(box)
        with self._index.write():
            box = self._index.box(box.key)
            look = core.look(folder)
            if listing is not None:
                # Who moves a file into new/ changes both directories: then a listing of new/ alone misleads.
                scan_cur = scan_cur or look[:2] != (box.cur_mtime, box.cur_ino)
                box = self._take_in(box, folder, listing, core.list(folder, scan_cur))
                self._trust(box, look, scan_cur)
                box = self._index.box(box.key)
            recent = self._unclaimed(box)
            if claim:
                self._claim(box, folder)
            return self._index.box(box.key), recent

    def _due(self, box: MailboxRow, look: DirectoryStamps) -> bool:
        """Whether ``cur/`` must be read though it looks unchanged."""
        now = self._core.now()
        if now - box.scanned >= FORCED_SECONDS:
            return True
        # While it is hot we wait, so that a loop of APPENDs does not read the directory each time. A clock that is
        # behind the file system's would wait for ever, so then we do not.
        return bool(box.hot & CUR_HOT) and not 0 <= now - look.cur_mtime / 1e9 < HOT_SECONDS

    def _expected(self, key: int, cur: bool) -> Iterable[tuple[int, bytes]]:
        return self._index.db.execute(f"SELECT place, name {_FROM[cur]}", (key,))

    def _trust(self, box: MailboxRow, look: DirectoryStamps, cur: bool) -> None:
        """Record with which mtimes the directories were read."""
        hot = box.hot & (CUR_HOT | UNSETTLED)
        new: dict[str, object] = {"new_mtime": look.new_mtime, "new_ino": look.new_ino}
        if cur:
            hot = box.hot & UNSETTLED | (CUR_HOT if self._core.is_hot(look.cur_mtime) else 0)
            new |= {"cur_mtime": look.cur_mtime, "cur_ino": look.cur_ino}
            new["scanned"] = self._core.now()
        hot |= NEW_HOT if self._core.is_hot(look.new_mtime) else 0
        if cur or hot != box.hot or look[2:] != (box.new_mtime, box.new_ino):
            if self._index.db.in_transaction:
                self._index.set(box.key, hot=hot, **new)
            else:
                with self._index.write():
                    self._index.set(box.key, hot=hot, **new)

    def _take_in(
        self, box: MailboxRow, folder: bytes, first: Listing, listing: Listing
    ) -> MailboxRow:
        query = f"SELECT uid, name, place, flags {_FROM[listing.cur is not None]}"
        known = [Known(*row) for row in self._index.db.execute(query, (box.key,))]
        plan = reconcile(known, listing)
        # readdir() may miss a file that is renamed under it, so one listing proves no absence.
        missing = {row.uid for row in reconcile(known, first).missing} if plan.missing else set()
        gone = [row.uid for row in plan.missing if row.uid in missing]
        modseq = box.highestmodseq + 1
        changed = self._renamed(box, plan, modseq)
        uidnext = self._fresh(box, folder, plan.fresh, modseq)
        if gone:
            self._index.expunge(box, gone, modseq)
        if uidnext > box.uidnext or changed or gone:
            self._index.set(box.key, highestmodseq=modseq, uidnext=uidnext)
        return self._index.box(box.key)

    def _renamed(self, box: MailboxRow, plan: Plan, modseq: int) -> bool:
        if not plan.renamed:
            return False
        keywords = self._core.keywords(box)
        moved: list[tuple[bytes, int, int, int]] = []
        flagged: list[tuple[bytes, int, int, int]] = []
        for row, place, name in plan.renamed:
            moved.append((name, place, box.key, row.uid))
            flags = filename.canonical(name, row.flags, keywords)
            if flags != row.flags:
                flagged.append((flags, modseq, box.key, row.uid))
        db = self._index.db
        db.executemany(
            "UPDATE message SET name = ?, place = ? WHERE mailbox = ? AND uid = ?", moved
        )
        db.executemany(
            "UPDATE message SET flags = ?, modseq = ? WHERE mailbox = ? AND uid = ?", flagged
        )
        return bool(flagged)

    def _fresh(
        self,
        box: MailboxRow,
        folder: bytes,
        found: list[tuple[int, bytes]],
        modseq: int,
        known: dict[bytes, int] | None = None,
    ) -> int:
        """Give UIDs to files that have none, in the order of their delivery; returns UIDNEXT."""
        if not found:
            return box.uidnext
        keywords = self._core.keywords(box)
        saved = int(self._core.now())
        ordered: list[tuple[tuple[float, int, int, bytes], int, bytes, int, int]] = []
        for place, name in found:
            try:
                status = os.lstat(self._core.path(folder, place, name))
            except FileNotFoundError:  # moved or gone already: the next look will tell
                continue
            if status.st_size > messagefiles.LARGEST:
                self._too_large(self._core.path(folder, place, name))
            elif stat.S_ISREG(status.st_mode):
                key = filename.arrival(name, status.st_mtime)
                ordered.append((key, place, name, status.st_size, int(status.st_mtime)))
        ordered.sort()
        uids, uidnext = uid_import.assign([row[2] for row in ordered], box.uidnext, known or {})
        ids = secrets.token_bytes(8 * len(ordered)).hex().encode()
        memo: dict[bytes, bytes] = {}
        rows = []
        for i, (_, place, name, size, mtime) in enumerate(ordered):
            base, _, info = name.partition(b":")
            flags = memo.get(info)
            if flags is None:
                flags = memo[info] = filename.canonical(name, b"", keywords)
            email_id = b"M" + ids[16 * i : 16 * i + 16]
            rows.append(
                (
                    box.key,
                    uids[i],
                    name,
                    place,
                    flags,
                    modseq,
                    filename.wire_size(base),
                    size,
                    mtime,
                    saved,
                    email_id,
                )
            )
        self._index.db.executemany(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
        )
        return uidnext

    def _too_large(self, path: bytes) -> None:
        if path not in self._noted and len(self._noted) < 1000:
            self._noted.add(path)
            self._core.note(f"{os.fsdecode(path)!r}: too large to be shown as a message")

    def _claimable(self, box: MailboxRow) -> bool:
        if box.recentuid + 1 < box.uidnext:
            return True
        row = self._index.db.execute(
            f"SELECT 1 {_FROM[False]} LIMIT 1",
            (box.key,),
        ).fetchone()
        return row is not None

    def _unclaimed(self, box: MailboxRow) -> list[int]:
        """Return the messages that no session was told of as \\Recent."""
        if box.recentuid + 1 >= box.uidnext:
            return []
        found = self._index.db.execute(
            "SELECT uid FROM message WHERE mailbox = ? AND uid > ? ORDER BY uid",
            (box.key, box.recentuid),
        )
        return [uid for (uid,) in found]

    def _claim(self, box: MailboxRow, folder: bytes) -> None:
        """Take note that all was told as \\Recent, and move it out of ``new/``, as the Maildir specification asks."""
        db = self._index.db
        before = self._core.look(folder)
        waiting = db.execute(
            f"SELECT uid, name {_FROM[False]}",
            (box.key,),
        ).fetchall()
        moved: list[tuple[bytes, int, int]] = []
        for uid, name in waiting:
            target = name if b":2," in name else filename.base(name) + b":2,"
            try:
                os.rename(self._core.path(folder, NEW, name), self._core.path(folder, CUR, target))
            except OSError:
                # somebody was faster; or it cannot be moved, which keeps nobody from reading it
                continue
            moved.append((target, box.key, uid))
        db.executemany(
            "UPDATE message SET name = ?, place = 0 WHERE mailbox = ? AND uid = ?", moved
        )
        self._index.set(box.key, recentuid=box.uidnext - 1)
        if moved:
            self._core.touched(box, before)

    def delta(self, key: int, since: int, recent: list[int] | None = None) -> Delta:
        """Tell everything that changed after MODSEQ `since`."""
        with self._index.snapshot() as db:
            box = self._index.box(key)
            rows: list[MessageRow] = []
            vanished = SequenceSet()
            if since < box.highestmodseq:
                # Left alone, SQLite takes the one way for the other: it knows nothing of how much has changed.
                some = "INDEXED BY message_modseq WHERE mailbox = ? AND modseq > ?"
                every = "WHERE mailbox = ? AND +modseq > ?"
                query = (
                    f"SELECT {_COLUMNS} FROM message {some if since > 1 else every} ORDER BY uid"  # noqa: S608
                )
                lists: dict[
                    bytes, bytes
                ] = {}  # thousands of messages with the same four KiB of flags
                rows = [
                    MessageRow(uid, lists.setdefault(flags, flags), *rest)
                    for uid, flags, *rest in db.execute(query, (key, since))
                ]
                if since:
                    vanished = self._vanished(box, since)
            return Delta(rows, vanished, box.highestmodseq, box.uidnext, recent or [])

    def _vanished(self, box: MailboxRow, since: int) -> SequenceSet:
        db = self._index.db
        if since >= box.floor:
            found = db.execute(
                "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid",
                (box.key, since),
            )
            return SequenceSet.from_uids(uid for (uid,) in found)
        # The log does not reach back that far: whatever is not there went, then or earlier.
        found = db.execute("SELECT uid FROM message WHERE mailbox = ? ORDER BY uid", (box.key,))
        return SequenceSet.complement((uid for (uid,) in found), box.uidnext)
