"""What a move does on the node that gets the mail. Each method can be repeated after a crash."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from imapshield.maildir import files, index_handover
from imapshield.maildir.entry import Ownership
from imapshield.maildir.filename import base
from imapshield.maildir.folder_listing import list_folder
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.maildir.list_files import lists_of, read_marker, write_marker
from imapshield.maildir.mail_check import opened_folder
from imapshield.maildir.paths import DIRECTORY_NAMES
from imapshield.move.copy_lock import check_free, hold_copy
from imapshield.move.manifest import MANIFEST, Manifest, copied_files, delivered_mail
from imapshield.move.places import (
    Acting,
    MoveError,
    Places,
    as_this_user,
    free_reserve,
    is_maildir,
    open_file,
    reserve_space,
    stub_text,
    sync_directory,
    sync_file_system,
    sync_tree,
)
from imapshield.move.rights import PROBES, make_for_owner

SPARE_BYTES = 64 << 20
"""Bytes that must stay free on the target beside the mail."""

CLOCK_SECONDS = 0.05
"""How coarse the times of a file system may be: Linux takes them from a clock that ticks 100 times a second or more."""

SPARE_FACTOR = 1.05
"""How much more than its size mail may take: directories, and what arrives meanwhile."""

_ARRIVED = b"imapshield.arrived"
"""In the directory of the index: the last move that brought the account here."""


class TargetSide:
    """One user's mail on the node that it gets to.

    Args:
        places: its directories.
        move: the move.
        acting: returns a context with the rights of the owner of a directory.
    """

    def __init__(self, places: Places, move: str, acting: Acting = as_this_user) -> None:
        self._places, self._move, self._acting = places, move, acting
        self._incoming, self._stub = places.beside(f"incoming-{move}"), places.beside("stub")
        self._late = places.beside(f"late-{move}").maildir

    def state(self) -> str:
        """Return ``accepted``, ``placed`` (renamed, and not accepted yet), ``incoming`` or ``absent``; ``occupied`` if
        there is other mail of the user."""
        maildir, index = self._places
        if is_maildir(maildir) and not stub_text(maildir):
            if _arrival(index) != self._move:
                return "occupied"
            with self._acting(index):
                if index_handover.mark_of(index) is None:
                    return "accepted"
            # An index that has a directory of its own is put in place first: a delivery may have made this Maildir.
            if not (self._places.has_own_index and os.path.isdir(self._incoming.maildir)):
                return "placed"
        return "incoming" if os.path.isdir(self._incoming.maildir) else "absent"

    def _state_unless_occupied(self) -> str:
        state = self.state()
        if state == "occupied":
            text = "has mail of this user already; look at it, rename or remove it, and run the command again"
            raise MoveError(f"{os.fsdecode(self._places.maildir)} {text}")
        return state

    def prepare(
        self, octets: int, count: int, uid: int, gid: int, above: Sequence[int]
    ) -> dict[str, str]:
        """Make the directories of the copy, after a look whether the mail fits here.

        Args:
            octets: bytes of all files.
            count: the number of files.
            uid: the owner on the source.
            gid: the group on the source.
            above: the owner, the group and the mode of the directory above the Maildir, for one that is missing here.

        Raises:
            MoveError: it does not, or another command moves the user here.
        """
        self._state_unless_occupied()
        for move in self._places.moves("incoming"):
            check_free(self._places.beside(f"incoming-{move}").maildir)
        for path in {*self._incoming}:
            parent = os.path.dirname(path)
            if not os.path.isdir(parent):
                if os.path.dirname(parent) == b"/" or not os.path.isdir(os.path.dirname(parent)):
                    text = "does not exist; create it, or correct the file of --nodes"
                    raise MoveError(f"{os.fsdecode(parent)} {text}")
                os.mkdir(parent, 0o700)
                if os.geteuid() == 0:
                    os.chown(parent, *above[:2], follow_symlinks=False)
                os.chmod(parent, above[2])
            self._check_space(parent, octets, count)
        for path in (self._incoming.index_directory, self._incoming.maildir):
            make_for_owner(path, uid, gid)
        hold_copy(self._incoming.maildir)
        return {
            "maildir": os.fsdecode(self._incoming.maildir),
            "index": os.fsdecode(self._incoming.index_directory),
        }

    def _check_space(self, parent: bytes, octets: int, count: int) -> None:
        space = os.statvfs(parent)
        present = self._copied_bytes()
        needed = max(0, int(octets * SPARE_FACTOR) - present) + SPARE_BYTES
        free = space.f_bavail * space.f_frsize
        if free < needed:
            text = f"has {free >> 20} MiB free, and {needed >> 20} MiB are needed; free space there"
            raise MoveError(f"the file system of {os.fsdecode(parent)} {text}")
        if space.f_files and space.f_favail < count:
            text = f"has {space.f_favail} inodes free, and {count} are needed; free some there"
            raise MoveError(f"the file system of {os.fsdecode(parent)} {text}")

    def _copied_bytes(self) -> int:
        """Return the bytes that an earlier attempt has copied."""
        total = 0
        for folder, _, names in os.walk(self._incoming.maildir):
            for name in names:
                with suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
        return total

    def look(self) -> int:
        """Look at each file as `verify` does, write to the disk, and return how many files there are.

        That takes as long as it does in the pause. A disk that is busy for others is noticed.
        """
        with self._probe() as fd:
            os.write(fd, b"probe")
            os.fsync(fd)
        return sum(1 for _ in copied_files(self._incoming))

    def sync(self) -> list[float]:
        """Put the copy on stable storage, and return when that began, as `_moment` does.

        Space for `accept` is reserved: on a disk that is full by then, nobody would serve the user.
        """
        began = self._moment()
        for path in {*self._incoming}:
            with self._acting(path):
                reserve_space(path)
        for path in {*self._incoming}:
            sync_file_system(path)
        return began

    @contextmanager
    def _probe(self) -> Iterator[int]:
        """Yield a new file in the copy. The owner can write there, too, so an old one is not opened."""
        path = os.path.join(self._incoming.maildir, PROBES[0])
        with suppress(FileNotFoundError):
            os.unlink(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _moment(self) -> list[float]:
        """Return the time of the file system, as it gives it to a file now, and how far it is ahead of a clock that is
        never set."""
        with self._probe() as fd:
            now = os.fstat(fd).st_ctime
        return [now, time.time() - time.monotonic()]

    @staticmethod
    def _since(moment: list[float]) -> float:
        """Return a time before all changes after a moment, even if the clock was set back since."""
        time_then, ahead = moment
        set_back = max(0.0, ahead - (time.time() - time.monotonic()))
        return time_then - set_back - CLOCK_SECONDS

    def verify(self, digest: str, since: list[float], seconds: float) -> str:
        """Return what the copy lacks; "" if it is complete, and on stable storage.

        Args:
            digest: of the manifest, as the source wrote it.
            since: when `sync` began. What was copied before need not be put on stable storage again: a user waits, and
                the disk may have much to write for others.
            seconds: after these, no further file is put on stable storage, and the copy counts as incomplete.

        Raises:
            MoveError: other mail of the user has appeared here.
        """
        self._state_unless_occupied()
        until = time.monotonic() + seconds
        try:
            manifest = Manifest.read(self._incoming)
        except OSError:
            return "the manifest is missing"
        if manifest.digest != digest:
            return "the manifest is not that of the source"
        lacks = manifest.difference(self._incoming)
        if not lacks:
            for path in {*self._incoming}:
                # The time is that of the file system of the Maildir, which may have another clock than the index's.
                is_timed = path == self._incoming.maildir
                if not sync_tree(path, self._since(since) if is_timed else 0.0, until):
                    return "the disk needs too long to put it on stable storage"
        return lacks

    def accept(self, node: str) -> None:
        """Make the copy the mail of the user here, which the move has brought to this node.

        Until the last step, no server uses it: its index is closed.

        Raises:
            MoveError: it is not the copy of this move, another command uses it, or other mail of the user has appeared
                here.
        """
        hold_copy(self._incoming.maildir)
        state = self._state_unless_occupied()
        if state == "incoming":
            for path in {self._copied_index, self._incoming.maildir}:
                free_reserve(path)
            changed = self._moment()
            with self._acting(self._copied_index):
                index_handover.seal(self._copied_index, self._move, node)
                with files.at(os.path.join(self._copied_index, _ARRIVED)) as entry:
                    files.replace(
                        entry, self._move.encode(), Ownership.of(os.stat(self._copied_index))
                    )
            with self._acting(self._incoming.maildir):
                self._remove_late_copies()
                self._remember_lists()
            sync_tree(self._incoming.maildir, self._since(changed))
            self._put_in_place()
        elif state not in ("placed", "accepted"):
            text = f"the copy in {os.fsdecode(self._incoming.maildir)} has gone"
            raise MoveError(f"{text}; the old one is still on the other node")
        index = self._places.index_directory
        if state != "accepted":
            fd = os.open(index, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                with self._acting(index):
                    index_handover.accept(fd, index, self._move, node)
            finally:
                os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(index, MANIFEST))
        self._return_mail()

    @property
    def _copied_index(self) -> bytes:
        """The directory of the index of the copy; an index outside the Maildir is put in place before the mail."""
        is_placed = self._places.has_own_index and not os.path.isdir(self._incoming.index_directory)
        return self._places.index_directory if is_placed else self._incoming.index_directory

    def _remove_late_copies(self) -> None:
        """Remove copies of what was delivered after the account was closed: it is collected later, and only once."""
        manifest = Manifest.read(Places(self._incoming.maildir, self._copied_index))
        for path in manifest.late_mail(self._incoming.maildir):
            os.unlink(os.path.join(self._incoming.maildir, path))

    def _remember_lists(self) -> None:
        """Let the lists of Dovecot and Courier count as known, if they did on the source: only their inodes differ."""
        maildir = self._incoming.maildir
        folders = [name for name in os.listdir(maildir) if name[:1] == b"."]
        for path in (maildir, *(os.path.join(maildir, name) for name in folders)):
            if os.path.isdir(os.path.join(path, DIRECTORY_NAMES[0])):
                with opened_folder(path, False) as folder:
                    seen, lists = read_marker(folder), lists_of(folder)
                    if seen.lists and _without_inodes(seen.lists) == _without_inodes(lists):
                        write_marker(folder, seen._replace(lists=lists))

    def _put_in_place(self) -> None:
        maildir, index = self._places
        if self._places.has_own_index and os.path.isdir(self._incoming.index_directory):
            _remove_if_unused(index)
            os.rename(self._incoming.index_directory, index)
            sync_directory(os.path.dirname(index))
        if stub_text(maildir):
            os.rename(maildir, self._stub.maildir)
        elif os.path.isdir(maildir):
            os.rename(maildir, self._found)
        os.rename(self._incoming.maildir, maildir)
        sync_directory(os.path.dirname(maildir))

    @property
    def _found(self) -> bytes:
        return self._places.beside(f"found-{self._move}").maildir

    def _return_mail(self) -> None:
        """Deliver what came into the stub of an earlier move away from here, or into a Maildir that was made while this
        move ended."""
        found = self._found
        if os.path.isdir(found):
            self._deliver_from(found)
            with suppress(OSError):  # what else is in it is kept
                os.rmdir(found)
        stub = self._stub.maildir
        if stub_text(stub):
            self._deliver_from(stub)
            with files.at(stub) as entry:
                files.remove_tree(entry)

    def _deliver_from(self, directory: bytes) -> None:
        """Deliver messages of another directory on the same file system, each into its folder if that exists here."""
        with self._acting(self._places.maildir):
            self._deliver(directory, sorted(delivered_mail(directory)))

    def _deliver(self, directory: bytes, paths: list[bytes]) -> None:
        maildir, synced = self._places.maildir, set()
        for path in paths:
            folder = os.path.join(maildir, os.path.dirname(os.path.dirname(path))).rstrip(b"/")
            if not os.path.isdir(os.path.join(folder, b"new")):
                folder = maildir
            source, name = os.path.join(directory, path), os.path.basename(path)
            with opened_folder(folder, False) as opened:
                is_known = base(name) in list_folder(opened, cur=True).by_base()
            if is_known:
                os.unlink(source)
                continue
            part = os.path.basename(os.path.dirname(path))
            os.rename(source, os.path.join(folder, part, name))
            synced.add(os.path.join(folder, part))
        for path in synced:
            sync_directory(path)

    def late_directory(self, uid: int, gid: int) -> str:
        """Make the directory for mail that was delivered late, and return its path."""
        make_for_owner(self._late, uid, gid)
        return os.fsdecode(self._late)

    def deliver_late(self) -> None:
        """Deliver what was copied into the directory for late mail, and remove it."""
        if os.path.isdir(self._late):
            sync_tree(self._late, 0.0)
            self._deliver_from(self._late)
            with files.at(self._late) as entry:
                files.remove_tree(entry)

    def discard(self) -> None:
        """Remove a copy that was not accepted.

        Raises:
            MoveError: it was, or the source has given the account up for it, or another command uses it.
        """
        hold_copy(self._incoming.maildir)
        for path in {*self._incoming}:
            if os.path.isdir(path):
                with files.at(path) as entry:
                    files.remove_tree(entry)


def _arrival(index: bytes) -> str:
    with suppress(OSError), open_file(os.path.join(index, _ARRIVED)) as file:
        return file.read(100).decode("ascii", "replace")
    return ""


def _without_inodes(lists: dict[bytes, tuple[int, int, int]]) -> dict[bytes, tuple[int, int]]:
    return {name: (mtime, size) for name, (mtime, _, size) in lists.items()}


def _remove_if_unused(index: bytes) -> None:
    """Make room for an index where a server has left files of a user that it does not have any more."""
    if os.path.isdir(index):
        if os.path.exists(os.path.join(index, INDEX_FILE)):
            aside = index + b".aside-" + secrets.token_hex(4).encode()
            os.rename(index, aside)
        else:
            with files.at(index) as entry:
                files.remove_tree(entry)
