"""A disk whose power fails: in a copy of the Maildir, steps that were not synced are undone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from imapshield.maildir import files
from imapshield.maildir.entry import Entry
from imapshield.maildir.files import UndoSteps
from imapshield.maildir.index_database import IndexDatabase
from imapshield.maildir.index_files import IndexFiles
from tests.maildir.disk import path_of

INDEX = "imapshield.sqlite"


@dataclass(eq=False)
class Step:
    """One call that changed directory entries.

    Args:
        call: the name of the function of `os`.
        paths: the entries, relative to the Maildir.
        directories: the inodes of the directories of the entries, and their mtimes before.
        after: their mtimes after the step.
        ctime: the ctime that the file had before, in nanoseconds.
        lost: the content of the file that was removed or replaced, None if there was none.
        created: the inode of the file that the step made, 0 if it made none.
    """

    call: str
    paths: tuple[str, ...]
    directories: dict[int, int]
    ctime: int
    lost: bytes | None
    is_synced: bool = False
    created: int = 0
    after: dict[int, int] = field(default_factory=dict)

    def touches(self, other: Step) -> bool:
        """Whether both have an entry in common, or one changes a directory in which the other has an entry."""
        return any(
            (a + "/").startswith(b + "/") or (b + "/").startswith(a + "/")
            for a in self.paths
            for b in other.paths
        )

    def undo(self, root: str) -> None:
        *_, source, target = (None, *(os.path.join(root, path) for path in self.paths))
        if self.call == "rename":
            assert source is not None
            os.rename(target, source)
        elif self.call in ("link", "open"):
            os.unlink(target)
        elif self.call == "mkdir":
            shutil.rmtree(target)
        elif self.call == "rmdir":
            os.mkdir(target)
        if self.lost is not None:
            with open(target, "wb") as file:
                file.write(self.lost)


class RecordedDisk:
    """Records what is done in one Maildir, from `recording` on.

    A rename is atomic, and is on stable storage when one of its directories was synced. The sync of a new file makes its
    name durable, as on ext4, XFS and btrfs. A step that was not synced can
    be lost, and those that depend on it are lost with it. A commit of the index that does not wait can be lost.

    Attributes:
        steps: what was done.
        before_step: called before each step; a power failure at this moment can be made in it.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.before_step: Callable[[], object] = lambda: None
        self._synced_files: set[int] = set()
        self._index: dict[str, bytes] = {}
        # Inode of a file in a copy → (its ctime when the copy was made, the ctime that it has on the disk).
        self._ctimes: dict[int, tuple[int, int]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record all calls in the block."""
        self._keep_index()
        with ExitStack() as stack:
            for name in ("rename", "link", "unlink", "mkdir", "rmdir", "open"):
                stack.enter_context(mock.patch.object(os, name, self._recorded(name)))
            stack.enter_context(mock.patch.object(os, "fsync", self._recorded_fsync()))
            stack.enter_context(mock.patch.object(IndexDatabase, "write", self._recorded_write()))
            stack.enter_context(
                mock.patch.object(IndexFiles, "write_epoch", self._recorded_epoch())
            )
            yield

    def _recorded(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            step = self._step(name, args, kwargs)
            if step is not None:
                self.before_step()
            result = real(*args, **kwargs)
            if step is not None:
                step.after = self._directories(step.paths)
                step.created = os.fstat(result).st_ino if name == "open" else 0
                self.steps.append(step)
            return result

        return call

    def _step(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step | None:
        if name == "open" and not args[1] & os.O_EXCL:
            return None
        if name in ("rename", "link"):
            pairs = [(args[0], kwargs.get("src_dir_fd")), (args[1], kwargs.get("dst_dir_fd"))]
        else:
            pairs = [(args[0], kwargs.get("dir_fd"))]
        paths = [os.path.abspath(path_of(*pair)) for pair in pairs]
        if any(not path.startswith(self.root + "/") or "/" + INDEX in path for path in paths):
            return None
        ctime = _status(paths[0]).st_ctime_ns if os.path.lexists(paths[0]) else 0
        lost = None
        if name in ("unlink", "rename") and os.path.isfile(paths[-1]):
            with open(paths[-1], "rb") as file:
                lost = file.read()
        relative = tuple(os.path.relpath(path, self.root) for path in paths)
        return Step(name, relative, self._directories(relative), ctime, lost)

    def _directories(self, paths: Iterable[str]) -> dict[int, int]:
        """Return inode → mtime of the directories of some entries."""
        found = {}
        for path in paths:
            status = os.stat(os.path.dirname(os.path.join(self.root, path)))
            found[status.st_ino] = status.st_mtime_ns
        return found

    def _recorded_fsync(self) -> Callable[[int], None]:
        real = os.fsync

        def fsync(fd: int) -> None:
            self.before_step()
            real(fd)
            inode = os.fstat(fd).st_ino
            self._synced_files.add(inode)
            for i, step in enumerate(self.steps):
                if inode in step.directories or inode == step.created:
                    step.is_synced = True
                    for earlier in self.steps[:i]:
                        earlier.is_synced |= earlier.touches(step)

        return fsync

    def _recorded_write(self) -> Callable[..., Any]:
        real = IndexDatabase.write

        @contextmanager
        def write(
            index: IndexDatabase, durable: bool = True, undo: UndoSteps | None = None
        ) -> Iterator[sqlite3.Connection]:
            with real(index, durable, undo) as db:
                yield db
            if durable:
                self._keep_index()

        return write

    def _recorded_epoch(self) -> Callable[..., None]:
        real = IndexFiles.write_epoch

        def write_epoch(index_files: IndexFiles, epoch: int) -> None:
            self._keep_index()  # a commit precedes it
            real(index_files, epoch)

        return write_epoch

    def _keep_index(self) -> None:
        for suffix in ("", "-wal"):
            path = os.path.join(self.root, INDEX + suffix)
            if os.path.exists(path):
                with open(path, "rb") as file:
                    self._index[suffix] = file.read()

    def fail(
        self,
        target: str,
        is_lost: Callable[[Step], bool] = lambda _: True,
        keep_index: bool = False,
    ) -> None:
        """Make a copy of the Maildir as it is after a power failure at this moment.

        Args:
            target: the path of the copy.
            is_lost: whether a step that was not synced is lost.
            keep_index: whether commits of the index that did not wait are on the disk by chance.
        """
        shutil.copytree(self.root, target, symlinks=True)
        ctimes = {}
        inodes = {}
        for path in _all_below(self.root):
            relative = os.path.relpath(path, self.root)
            copied = os.path.join(target, relative)
            status = _status(path)
            inode = os.lstat(copied).st_ino
            inodes[status.st_ino] = inode
            ctimes[inode] = status.st_ctime_ns
            if self._is_new(relative) and status.st_ino not in self._synced_files:
                os.truncate(copied, 0)
        lost = self._lost(is_lost)
        for step in lost:
            step.undo(target)
            undone = os.path.join(target, step.paths[0])
            if os.path.isfile(undone):
                ctimes[os.lstat(undone).st_ino] = step.ctime
        for suffix, content in () if keep_index else self._index.items():
            with open(os.path.join(target, INDEX + suffix), "wb") as file:
                file.write(content)
        _adopt_index(target, inodes)
        mtimes = {inodes.get(old): mtime for old, mtime in self._mtimes(lost).items()}
        for path in _all_below(target):
            status = os.lstat(path)
            if status.st_ino in mtimes:
                os.utime(path, ns=(status.st_atime_ns, mtimes[status.st_ino]))
                status = os.lstat(path)
            old = ctimes.get(status.st_ino, status.st_ctime_ns)
            self._ctimes[status.st_ino] = status.st_ctime_ns, old

    def _mtimes(self, lost: Sequence[Step]) -> dict[int, int]:
        """Return inode → mtime of the directories in which steps were lost."""
        mtimes: dict[int, int] = {}
        for step in self.steps:
            for inode, mtime in step.directories.items():
                mtimes.setdefault(inode, mtime)
            if step not in lost:
                mtimes.update(step.after)
        return mtimes

    def _is_new(self, path: str) -> bool:
        return any(step.call == "open" and step.paths[0] == path for step in self.steps)

    def _lost(self, is_lost: Callable[[Step], bool]) -> list[Step]:
        """Return the steps that are lost, last first."""
        lost: list[Step] = []
        for step in self.steps:
            if not step.is_synced and (is_lost(step) or any(map(step.touches, lost))):
                lost.append(step)
        return lost[::-1]

    @contextmanager
    def with_old_ctimes(self) -> Iterator[None]:
        """Let files that nobody has changed since the power failure have the ctimes that were on the disk."""
        real = files.status

        def status(entry: Entry) -> Any:
            found = real(entry)
            copied_at, ctime = self._ctimes.get(found.st_ino, (0, 0))
            return OldStatus(found, ctime) if copied_at == found.st_ctime_ns else found

        with mock.patch.object(files, "status", status):
            yield


class OldStatus:
    """A file's status with another ctime."""

    def __init__(self, status: os.stat_result, ctime: int) -> None:
        self._status = status
        self.st_ctime_ns = ctime
        self.st_ctime = ctime / 1e9

    def __getattr__(self, name: str) -> Any:
        return getattr(self._status, name)


def _all_below(root: str) -> list[str]:
    """Return the paths of all files and directories."""
    return [
        os.path.join(folder, name)
        for folder, directories, names in os.walk(root)
        for name in directories + names
    ]


def _status(path: str) -> os.stat_result:
    """Return the status of a file; after an earlier power failure, with its old ctime."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        return files.status(Entry(fd, os.fsencode(os.path.basename(path))))
    finally:
        os.close(fd)


def _adopt_index(root: str, inodes: Mapping[int, int]) -> None:
    """Let the index of a copy describe itself and the directories of the copy."""
    path = os.path.join(root, INDEX)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE account SET inode = ?, generation = 0", (os.stat(path).st_ino,))
        for key, cur, new in db.execute("SELECT id, cur_ino, new_ino FROM mailbox").fetchall():
            row = inodes.get(cur, 0), inodes.get(new, 0), key
            db.execute("UPDATE mailbox SET cur_ino = ?, new_ino = ? WHERE id = ?", row)
        for entry, names in db.execute("SELECT id, names FROM moving WHERE source = 0").fetchall():
            fields = names.split(b"/")
            fields[2::3] = [
                b".".join(b"%d" % inodes.get(int(inode), 0) for inode in field.split(b"."))
                for field in fields[2::3]
            ]
            db.execute("UPDATE moving SET names = ? WHERE id = ?", (b"/".join(fields), entry))
