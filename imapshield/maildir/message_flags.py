"""STORE: the files are renamed first, then the index is changed, in one transaction.

If it raises, it has changed nothing. After a crash in the middle, the renamed files look like the changes of another
program, and the next sync takes the flags from them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from imapshield.mailbox.deltas import Delta
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import read_stamps, record_own_change
from imapshield.maildir.file_finder import FileFinder
from imapshield.maildir.keyword_letters import Keywords
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.layout import CUR, message_path
from imapshield.maildir.modseq_delta import delta_since


class MessageFlags:
    """The method `store_flags` of `IStore`."""

    def __init__(self, account: AccountState) -> None:
        self._account = account
        self._index = account.index

    def store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> tuple[Delta, list[int]]:
        """Change flags; `IStore.store_flags` describes the arguments."""
        with ExitStack() as rollback:
            with self._index.write():
                failed = self._store_flags(key, uids, op, flags, unchanged_since, rollback)
            rollback.pop_all()
        return delta_since(self._index, key, since), failed

    def _store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        rollback: ExitStack,
    ) -> list[int]:
        account, index = self._account, self._index
        mailbox = index.mailbox(key)
        folder = account.paths.folder(mailbox.name)
        before = read_stamps(folder)
        added_flags = () if op == b"-" else flags
        keywords = account.keywords.add(mailbox, added_flags)
        modseq = mailbox.highestmodseq + 1
        finder = FileFinder(folder)
        new_lists: dict[bytes, bytes] = {}
        failed: list[int] = []
        changed: list[tuple[bytes, bytes, int, int, int, int]] = []
        for uid, name, directory, old, changed_at in index.message_rows(
            "uid, name, place, flags, modseq", key, uids
        ):
            if unchanged_since is not None and changed_at > unchanged_since:
                failed.append(uid)
                continue
            new = new_lists.get(old)
            if new is None:
                new = canonical_flags(_apply(op, old, flags), keywords, len(old))
                new_lists[old] = new
            if new != old:
                new_name = self._rename(folder, (directory, name), new, keywords, finder, rollback)
                if new_name is not None:
                    changed.append((new_name, new, CUR, modseq, key, uid))
        if changed:
            index.db.executemany(
                "UPDATE message SET name = ?, flags = ?, place = ?, modseq = ?"
                " WHERE mailbox = ? AND uid = ?",
                changed,
            )
            index.update_mailbox(key, highestmodseq=modseq)
            record_own_change(index, mailbox, folder, before)
        return failed

    @staticmethod
    def _rename(
        folder: bytes,
        file: tuple[int, bytes],
        flags: bytes,
        keywords: Keywords,
        finder: FileFinder,
        rollback: ExitStack,
    ) -> bytes | None:
        """Give a file the letters of `flags`; return its new name, None if the message is gone."""
        for is_second_try in (False, True):
            directory, name = file
            source = message_path(folder, directory, name)
            target_name = filename.with_flags(name, flags.split(), keywords)
            if directory == CUR and target_name == name:  # only keywords without a letter changed
                return name
            target = message_path(folder, CUR, target_name)
            try:
                os.rename(source, target)
            except FileNotFoundError:
                found = None if is_second_try else finder.find(name)
                if found is None:
                    return None
                file = found
            else:
                rollback.callback(files.rename_back, target, source)
                return target_name
        return None


def _apply(op: bytes, old: bytes, flags: Sequence[bytes]) -> list[bytes]:
    if op == b"+":
        return [*old.split(), *flags]
    if op == b"-":
        removed = {flag.lower() for flag in flags}
        return [flag for flag in old.split() if flag.lower() not in removed]
    return list(flags)
