"""What a move does on the node that has the mail until now. Each method can be repeated after a crash."""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from imapshield.errors import StoreBusy, StoreError
from imapshield.maildir import files, index_handover
from imapshield.maildir.account_state import MOVED_FILE, AccountState
from imapshield.maildir.entry import Entry, Ownership
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.maildir.index_handover import Mark
from imapshield.maildir.paths import DIRECTORY_NAMES
from imapshield.maildir.recovery import open_account
from imapshield.move.manifest import (
    SIZE_BITS,
    Manifest,
    copied_files,
    delivered_mail,
    write_manifest,
)
from imapshield.move.places import (
    Acting,
    MoveError,
    Places,
    as_this_user,
    exchange,
    is_maildir,
    stub_text,
    sync_directory,
)

CLOSE_SECONDS = 1.0
"""Seconds to wait for another process that uses the index: half of the pause that users may notice."""


class SourceSide:
    """One user's mail on the node that it leaves.

    Args:
        places: its directories.
        base: the directory above all Maildirs.
        acting: returns a context with the rights of the owner of a directory.
        now: returns seconds since the epoch.
    """

    def __init__(
        self,
        places: Places,
        base: str,
        acting: Acting = as_this_user,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._places, self._base, self._acting, self._now = places, base, acting, now
        self._stub = places.beside("stub")

    def _old(self, move: str) -> Places:
        """Return where the old copy of a move is kept."""
        return self._places.beside(f"moved-{move}")

    def inspect(self) -> dict[str, Any]:
        """Return how much mail there is, and who owns it.

        Raises:
            MoveError: it cannot be moved.
        """
        maildir = self._places.maildir
        for path in {*self._places}:
            if os.path.islink(path):
                raise MoveError(f"{os.fsdecode(path)} is a symbolic link; move what it names there")
        if stub_text(maildir) or not is_maildir(maildir):
            return {"has_mail": False}
        status, above = os.stat(maildir), os.stat(os.path.dirname(maildir))
        for path in {*self._places}:
            if (
                os.path.isdir(path)
                and os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
            ):
                text = "is a file system of its own, which cannot be renamed"
                raise MoveError(f"{os.fsdecode(path)} {text}; mount it one level higher")
        sizes = [size % (1 << SIZE_BITS) for _, size in copied_files(self._places)]
        return {
            "has_mail": True,
            "files": len(sizes),
            # A file takes blocks of 4 KiB.
            "bytes": sum((size + 4095) // 4096 * 4096 for size in sizes) + self._index_size(),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "above": (above.st_uid, above.st_gid, stat.S_IMODE(above.st_mode)),
            "paths": {
                "maildir": os.fsdecode(maildir),
                "index": os.fsdecode(self._places.index_directory),
            },
        }

    def _index_size(self) -> int:
        with suppress(FileNotFoundError):
            return os.stat(os.path.join(self._places.index_directory, INDEX_FILE)).st_size
        return 0

    def close(self, move: str, node: str, seconds: float) -> str:
        """Close the account for a move, for some seconds, and return the digest of its manifest.

        Raises:
            MoveError: that is not possible.
        """
        index, deadline = self._places.index_directory, self._now() + CLOSE_SECONDS
        mark = Mark(move, node, self._now() + seconds, is_given_up=False)
        while True:
            try:
                self._recover()
                with self._acting(index):
                    index_handover.close(index, mark)
                break
            except StoreBusy:
                # A command was in flight. Its end is awaited, and what it has left is finished.
                with suppress(StoreError):
                    self.reopen(move)
                if self._now() >= deadline:
                    text = "another process uses the index; is the server of the node named with `control`?"
                    raise MoveError(f"{os.fsdecode(index)}: {text}") from None
                time.sleep(0.02)
        self._announce()
        with self._acting(index):
            return write_manifest(self._places)

    def _announce(self) -> None:
        """Let logins ask the index, which is closed, before they succeed (`cred.moved_users`)."""
        with (
            self._acting(self._places.maildir),
            suppress(OSError),
        ):  # a full disk: commands are refused
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(os.path.join(self._places.maildir, MOVED_FILE), flags, 0o600))

    def _end_announcement(self) -> None:
        path = os.path.join(self._places.maildir, MOVED_FILE)
        with self._acting(self._places.maildir), suppress(FileNotFoundError):
            if not os.lstat(path).st_size:
                os.unlink(path)

    def _recover(self) -> None:
        """Open the account, so that directories are synced and nothing is staged, and close it again."""
        warnings: list[str] = []
        account = AccountState(
            os.fsdecode(self._places.maildir),
            self._now,
            warnings.append,
            base=self._base,
            index_directory=os.fsdecode(self._places.index_directory),
            first_busy_seconds=CLOSE_SECONDS / 4,
            has_text_index=False,
        )
        try:
            account.index.begin_operation()
            open_account(account)
            if account.unrecovered:
                raise MoveError("; ".join(warnings) or "a folder cannot be read")
        except sqlite3.Error as error:
            raise account.index.store_error(error) from None
        finally:
            account.close()

    def state(self, move: str) -> str:
        """Return ``open``, ``closed``, ``given up``, ``moved`` (a stub is in its place), ``absent``, or ``other`` for
        the mark of another move."""
        if stub := stub_text(self._places.maildir):
            return "moved" if move in stub else "other"
        if not is_maildir(self._places.maildir):
            return "given up" if self._is_given_up(self._old(move), move) else "absent"
        mark = self._mark(self._places)
        if mark is None or (not mark.is_given_up and mark.expires <= self._now()):
            return "open"
        if mark.move != move:
            return "other"
        return "given up" if mark.is_given_up else "closed"

    def _is_given_up(self, places: Places, move: str) -> bool:
        mark = self._mark(places)
        return mark is not None and mark.is_given_up and mark.move == move

    def _mark(self, places: Places) -> Mark | None:
        if not os.path.isdir(places.index_directory):
            return None
        with self._acting(places.index_directory):
            return index_handover.mark_of(places.index_directory)

    def mark(self) -> dict[str, Any]:
        """Return the move and the node of an account that is given up; an empty value if it is not."""
        mark = self._mark(self._places)
        is_given_up = mark is not None and mark.is_given_up
        return {"move": mark.move, "node": mark.node} if mark and is_given_up else {}

    def reopen(self, move: str) -> bool:
        """Let the account be used here again, unless it is given up; return whether it can be."""
        with self._acting(self._places.index_directory):
            is_open = index_handover.reopen(self._places.index_directory, move)
        if is_open:
            self._end_announcement()
        return is_open

    def give_up(self, move: str) -> bool:
        """Give the account up for good; return False if the time of its mark is over."""
        with self._acting(self._places.index_directory):
            is_given_up = index_handover.give_up(self._places.index_directory, move, self._now)
        if is_given_up:
            sync_directory(self._places.index_directory)
        return is_given_up

    def retire(self, move: str, node: str) -> None:
        """Rename the old copy, and put a stub in its place, which receives what is delivered here all the same."""
        maildir, index, old = *self._places, self._old(move)
        parent = os.path.dirname(maildir)
        if move not in stub_text(maildir):
            if not os.path.isdir(old.maildir):
                if not self._is_given_up(self._places, move):
                    raise MoveError(f"{os.fsdecode(maildir)} is not given up by the move {move}")
                self._make_stub(maildir, _stub_text(move, node, self._now()))
                if not exchange(self._stub.maildir, maildir):
                    os.rename(maildir, old.maildir)
            if not stub_text(maildir):
                os.rename(self._stub.maildir, maildir)
        if not os.path.isdir(old.maildir):
            os.rename(self._stub.maildir, old.maildir)
        sync_directory(parent)
        if self._places.has_own_index and self._is_given_up(self._places, move):
            os.rename(index, old.index_directory)
            sync_directory(os.path.dirname(index))

    def _make_stub(self, maildir: bytes, text: str) -> None:
        owner = Ownership.of(os.stat(maildir))
        with files.at(self._stub.maildir) as entry:
            files.remove_tree(entry)  # of an attempt that was interrupted
            files.make_directory(entry, owner)
            fd = files.open_directory(entry)
        try:
            for name in DIRECTORY_NAMES:
                files.make_directory(Entry(fd, name), owner)
            files.replace(Entry(fd, MOVED_FILE), text.encode() + b"\n", owner)
        finally:
            os.close(fd)

    def late_mail(self, move: str) -> list[dict[str, Any]]:
        """Return the directories here that have mail that was delivered after the account was closed, and its paths."""
        old, found = self._old(move), []
        if os.path.isdir(old.maildir):
            with self._acting(old.maildir):
                found.append((old.maildir, Manifest.read(old).late_mail(old.maildir)))
        if move in stub_text(self._places.maildir):
            with self._acting(self._places.maildir):
                paths = sorted(delivered_mail(self._places.maildir))
            found.append((self._places.maildir, paths))
        return [
            {
                "directory": os.fsdecode(directory),
                "paths": list(map(os.fsdecode, paths)),
                "uid": os.stat(directory).st_uid,
                "gid": os.stat(directory).st_gid,
            }
            for directory, paths in found
            if paths
        ]

    def collected(self, move: str, directory: str, paths: list[str]) -> None:
        """Put late mail away that the new node has: it stays in ``late/`` of the old copy, if there is one still."""
        with self._acting(os.fsencode(directory)):
            self._collected(move, directory, paths)

    def _collected(self, move: str, directory: str, paths: list[str]) -> None:
        kept = os.path.join(self._old(move).maildir, b"late")
        with suppress(FileNotFoundError, FileExistsError):
            os.mkdir(kept, 0o700)
        for path in paths:
            source = os.path.join(os.fsencode(directory), os.fsencode(path))
            with suppress(FileNotFoundError):
                if os.path.isdir(kept):
                    os.rename(source, os.path.join(kept, os.path.basename(source)))
                else:
                    os.unlink(source)


def _stub_text(move: str, node: str, now: float) -> str:
    return json.dumps({"moved to": node, "move": move, "seconds": int(now)})
