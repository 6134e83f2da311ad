"""APPEND, STORE, EXPUNGE, COPY and MOVE: files first, then the index, in one transaction that ends them together.

Rules
-----
* What raised has changed nothing: every step that was taken is taken back, newest first.
* A crash in the middle leaves files that the index does not know. They are whole, so they come up as new mail: a
  message may be there twice, never not at all.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from imapshield.errors import MessageGone, NoSuchMailbox
from imapshield.mailbox.changes import Delta
from imapshield.mailbox.interfaces import Appended, Copied, NewMessage
from imapshield.maildir import filename, files
from imapshield.maildir.account import Quotas
from imapshield.maildir.core import Core, Finder
from imapshield.maildir.filename import Keywords
from imapshield.maildir.index import Box, as_json
from imapshield.maildir.reconcile import CUR
from imapshield.maildir.syncing import Syncing

_DELETED = b"\\Deleted"


class Undo:
    """Steps to take back if what they belong to fails."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[bytes, ...]]] = []

    def add(self, step: Callable[..., object], *paths: bytes) -> None:
        """Remember how to take a step back."""
        self._steps.append((step, paths))

    def run(self) -> None:
        """Take everything back."""
        while self._steps:
            step, paths = self._steps.pop()
            with suppress(OSError):  # the file has another name by now, which is as good
                step(*paths)


@contextmanager
def undoing() -> Iterator[Undo]:
    """Take back the steps of a block that raises."""
    undo = Undo()
    try:
        yield undo
    except BaseException:
        undo.run()
        raise


class Changing:
    """The writing side of a store; see `IStore` for the methods."""

    def __init__(self, core: Core, syncing: Syncing, quotas: Quotas) -> None:
        self._core = core
        self._quotas = quotas
        self._index = core.index
        self._syncing = syncing

    def append(self, name: str, messages: Sequence[NewMessage]) -> Appended:
        """Write and sync the files before the lock is taken: a slow disk makes nobody else wait."""
        core = self._core
        box = self._syncing.adopt(name)
        self._quotas.need(len(messages), sum(message.content.size for message in messages))
        folder = core.folder(box.name)
        core.look(folder)
        now = int(core.now())
        written: list[tuple[bytes, int, int]] = []
        with undoing() as undo:
            for message in messages:
                size = message.content.size
                base = filename.sized(core.unique(), size, size)
                date = now if message.internaldate is None else message.internaldate
                path = folder + b"/tmp/" + base
                self._write(folder, path, message, date)
                undo.add(files.remove, path)
                written.append((base, size, date))
            with self._index.write():
                return self._append(box.key, messages, written, undo)

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
        undo: Undo,
    ) -> Appended:
        core, index = self._core, self._index
        box = index.box(key)
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
            target = core.path(folder, CUR, name)
            os.rename(folder + b"/tmp/" + base, target)
            undo.add(files.remove, target)
            email_id = b"M" + secrets.token_hex(8).encode()
            rows.append((key, uid, name, CUR, flags, modseq, size, size, date, saved, email_id))
        files.sync_directory(folder + b"/cur")
        self._insert(rows)
        index.set(key, uidnext=box.uidnext + len(rows), highestmodseq=modseq)
        core.touched(box, before)
        return Appended(box.uidvalidity, [row[1] for row in rows])

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        self._index.db.executemany(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
        )

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
                new = memo[old] = core.spelled(_applied(op, old, flags), keywords)
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
        self, box: Box, folder: bytes, found: Sequence[tuple[int, bytes, int]]
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

    def copy(self, key: int, uids: Sequence[int], target: str, move: bool, since: int) -> Copied:
        """Copy by second names for the same files; move by renaming them."""
        there = self._syncing.adopt(target)
        self._core.look(self._core.folder(there.name))
        with undoing() as undo, self._index.write():
            copied = self._copy(key, uids, there.key, move, undo)
        return copied._replace(delta=self._syncing.delta(key, since))

    def _copy(self, key: int, uids: Sequence[int], into: int, move: bool, undo: Undo) -> Copied:
        core, index = self._core, self._index
        source, target = index.box(key), index.box(into)
        source_folder, folder = core.folder(source.name), core.folder(target.name)
        source_before, before = core.look(source_folder), core.look(folder)
        rows = index.rows(
            "uid, name, place, flags, size, physical, internaldate, email_id", key, uids
        )
        if not move:
            self._quotas.need(len(rows), sum(row[5] for row in rows))
        if not rows:
            return Copied(target.uidvalidity, [], [], Delta())
        lists = {row[3] for row in rows}
        keywords = core.learn(target, {flag for flags in lists for flag in flags.split()})
        spelled = {flags: core.spelled(flags.split(), keywords) for flags in lists}
        modseq, saved = target.highestmodseq + 1, int(core.now())
        finder = Finder(core, source_folder)
        # Each step is taken back by what it was, and a file system call is most of what a message costs here.
        step = os.rename if move else files.duplicate
        new = []
        for new_uid, (_, name, place, old, size, physical, date, email_id) in enumerate(
            rows, target.uidnext
        ):
            flags = spelled[old]
            new_name = filename.named(
                filename.sized(core.unique(), physical, size), flags.split(), keywords
            )
            path = core.path(source_folder, place, name)
            new_path = core.path(folder, CUR, new_name)
            try:
                step(path, new_path)
            except FileNotFoundError:
                found = finder.find(name)
                if found is None:
                    raise MessageGone from None
                path = core.path(source_folder, *found)
                step(path, new_path)
            if move:
                undo.add(os.rename, new_path, path)
            else:
                undo.add(files.remove, new_path)
            new.append(
                (into, new_uid, new_name, CUR, flags, modseq, size, physical, date, saved, email_id)
            )
        files.sync_directory(folder + b"/cur")
        went = [row[0] for row in rows]
        self._insert(new)
        index.set(into, uidnext=target.uidnext + len(new), highestmodseq=modseq)
        self._copy_answers(key, went, into, target.uidnext)
        core.touched(target, before)
        if move:
            source = index.box(key)
            index.expunge(source, went, source.highestmodseq + 1)
            if into != key:
                files.sync_directory(source_folder + b"/cur")
                core.touched(source, source_before)
        return Copied(target.uidvalidity, went, [row[1] for row in new], Delta())

    def _copy_answers(self, key: int, uids: Sequence[int], into: int, first: int) -> None:
        some = as_json(uids)
        for item, text in self._index.items_of(key):
            if text.startswith(
                b"?"
            ):  # for SEARCH: seven small rows a message, found out again when asked for
                continue
            self._index.db.execute(
                "INSERT INTO answer SELECT ?, ?, some.key + ?, answer.value"
                " FROM json_each(?) AS some CROSS JOIN answer"
                " ON answer.mailbox = ? AND answer.item = ? AND answer.uid = some.value",
                (into, item, first, some, key, item),
            )


def _applied(op: bytes, old: bytes, flags: Sequence[bytes]) -> list[bytes]:
    now = old.split()
    if op == b"+":
        return [*now, *flags]
    if op == b"-":
        given = {flag.lower() for flag in flags}
        return [flag for flag in now if flag.lower() not in given]
    return list(flags)
