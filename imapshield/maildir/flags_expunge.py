"""STORE and EXPUNGE: files first, then the index, in one transaction that ends them together.

What raised has changed nothing. A crash in the middle leaves names that the next look takes for another program's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from imapshield.mailbox.deltas import Delta
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import FLAG_OCTETS, AccountState, Finder
from imapshield.maildir.filename import Keywords
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.reconcile import CUR
from imapshield.maildir.sync import Syncing
from imapshield.maildir.undo import Undo, undoing

_DELETED = b"\\Deleted"


class Changing:
    """The methods of `IStore` that change what is there, or remove it."""

    def __init__(self, core: AccountState, syncing: Syncing) -> None:
        self._core = core
        self._index = core.index
        self._syncing = syncing

    def store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> tuple[Delta, list[int]]:
        """Rename what changes, then say so in the index."""
        with undoing() as undo, self._index.write():
            failed = self._store_flags(key, uids, op, flags, unchanged_since, undo)
        return self._syncing.delta(key, since), failed

    def _store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        undo: Undo,
    ) -> list[int]:
        core, index = self._core, self._index
        box = index.box(key)
        folder = core.folder(box.name)
        before = core.look(folder)
        keywords = core.keywords(box) if op == b"-" else core.learn(box, flags)
        modseq = box.highestmodseq + 1
        finder = Finder(core, folder)
        memo: dict[bytes, bytes] = {}
        failed: list[int] = []
        changed: list[tuple[bytes, bytes, int, int, int, int]] = []
        for uid, name, place, old, changed_at in index.rows(
            "uid, name, place, flags, modseq", key, uids
        ):
            if unchanged_since is not None and changed_at > unchanged_since:
                failed.append(uid)
                continue
            new = memo.get(old)
            if new is None:
                most = max(len(old), FLAG_OCTETS)  # what there is may always be less
                new = memo[old] = core.spelled(_applied(op, old, flags), keywords, most)
            if new != old:
                target = self._rename(folder, (place, name), new, keywords, finder, undo)
                if target is not None:
                    changed.append((target, new, CUR, modseq, key, uid))
        if changed:
            index.db.executemany(
                "UPDATE message SET name = ?, flags = ?, place = ?, modseq = ?"
                " WHERE mailbox = ? AND uid = ?",
                changed,
            )
            index.set(key, highestmodseq=modseq)
            core.touched(box, before)
        return failed

    def _rename(
        self,
        folder: bytes,
        at: tuple[int, bytes],
        flags: bytes,
        keywords: Keywords,
        finder: Finder,
        undo: Undo,
    ) -> bytes | None:
        """Give a file the letters of `flags`; returns its new name, None if the message is gone."""
        for again in (False, True):
            place, name = at
            source = self._core.path(folder, place, name)
            target_name = filename.named(name, flags.split(), keywords)
            if place == CUR and target_name == name:  # a keyword that has no letter
                return name
            target = self._core.path(folder, CUR, target_name)
            try:
                os.rename(source, target)
            except FileNotFoundError:
                found = None if again else finder.find(name)
                if found is None:
                    return None
                at = found
            else:
                undo.add(os.rename, target, source)
                return target_name
        return None

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> Delta:
        """Remove files, then say so in the index: after a crash in between the next look finds them missing."""
        core, index = self._core, self._index
        with index.write() as db:
            box = index.box(key)
            folder = core.folder(box.name)
            before = core.look(folder)
            where = "AND instr(flags, x'5c44656c65746564') > 0"  # \Deleted
            if uids is None:
                found = db.execute(
                    f"SELECT uid, name, place FROM message WHERE mailbox = ? {where} ORDER BY uid",  # noqa: S608
                    (key,),
                ).fetchall()
            else:
                found = index.rows("uid, name, place", key, uids, where)
            gone = self._unlink(box, folder, found)
            if gone:
                index.expunge(box, gone, box.highestmodseq + 1)
                core.touched(box, before)
        return self._syncing.delta(key, since)

    def _unlink(
        self, box: MailboxRow, folder: bytes, found: Sequence[tuple[int, bytes, int]]
    ) -> list[int]:
        core, finder = self._core, Finder(self._core, folder)
        gone: list[int] = []
        for uid, name, place in found:
            try:
                try:
                    os.unlink(core.path(folder, place, name))
                except FileNotFoundError:
                    there = finder.find(name)
                    if there is not None:
                        if _DELETED not in filename.flags_of(there[1], core.keywords(box)):
                            continue  # somebody has just changed their mind
                        os.unlink(core.path(folder, *there))
            except OSError as error:
                if not gone:
                    raise
                # What went cannot be brought back. The rest keeps \Deleted, and the next EXPUNGE says why.
                files.translate(error, core.note)
                break
            gone.append(uid)
        return gone


def _applied(op: bytes, old: bytes, flags: Sequence[bytes]) -> list[bytes]:
    now = old.split()
    if op == b"+":
        return [*now, *flags]
    if op == b"-":
        given = {flag.lower() for flag in flags}
        return [flag for flag in now if flag.lower() not in given]
    return list(flags)
