"""The state of one account's store: folders, index, keywords, caches and quota."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

from imapshield.errors import AccountMoved, NoSuchMailbox, QuotaExceeded, StoreIOError
from imapshield.limits import LimitReached
from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.values import Quota, QuotaLimits
from imapshield.maildir import filename, files, local_disk
from imapshield.maildir.entry import Entry, Ownership
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.index import Index
from imapshield.maildir.keywords import MailboxKeywords
from imapshield.maildir.large_messages import LargeMessages
from imapshield.maildir.open_folders import Folder, OpenFolders
from imapshield.maildir.other_servers import SeenLists
from imapshield.maildir.paths import CUR, NEW
from imapshield.maildir.special_use import SpecialNames
from imapshield.maildir.staging import Staging
from imapshield.maildir.text_index import TextIndex
from imapshield.maildir.text_rows import MailboxRows

MOVED_FILE = b"imapshield.moved"
"""Where `imapshield move` leaves this file, there was a Maildir that is now on another node. Empty, it means that the
account may be closed: the index says so."""

FULL_DISK_SECONDS = 60
"""A full disk is logged once in this time for each account, because the log may be on the same disk."""


class AccountState:
    """What the operations on one account's Maildir share; `MaildirStore` describes the arguments.

    Attributes:
        folders: the folders of the Maildir.
        index: the SQLite index.
        text_index: the index of the text of messages.
        text_rows: what is known of the text index, by mailbox.
        keywords: the keywords of each mailbox.
        staging: inserts new messages.
        cache: cached answers to FETCH and SEARCH.
        large_messages: what is kept of large messages. All accounts of the server share it.
        logged_files: the paths of ignored and unreadable files that the operator has been warned about.
        seen_lists: the lists of Dovecot and Courier as they were seen last, by mailbox (`uid_exchange`).
        unindexed: names of mailboxes that the index may lack.
        unrecovered: keys of mailboxes whose folders `recovery` could not read. They cannot be used.
        special_names: the mailboxes that have a special use because of their names.
        kept_moves: entries of `move_log` that are not undone now: that of the command that runs, and failed ones.
        volumes: the file systems of the Maildir and of the index; none if one of them may be on another host.
        is_running: whether an operation of the store is running. Another one that it calls does not close the folders.
    """

    def __init__(
        self,
        root: str,
        now: Callable[[], float],
        log_warning: Callable[[str], None],
        *,
        quota: QuotaLimits | Callable[[], QuotaLimits] = (None, None),
        quota_setting: Callable[[str], str] = lambda _: "",
        base: str | None = None,
        index_directory: str | None = None,
        follow_symlinks: bool = False,
        first_busy_seconds: float | None = None,
        large_messages: LargeMessages | None = None,
        has_text_index: bool = True,
        has_special_folders: bool = False,
        on_created: Callable[[], object] = lambda: None,
    ) -> None:
        self.now = now
        self.log_warning = log_warning
        path = os.path.abspath(os.fsencode(root))
        self.folders = OpenFolders(
            path, None if base is None else os.fsencode(base), follow_symlinks, log_warning
        )
        self.has_special_folders = has_special_folders
        self.special_names = SpecialNames()
        self._on_created = on_created
        self._follows_links = follow_symlinks
        self._index_path = path if index_directory is None else os.fsencode(index_directory)
        self.index = Index(
            self._index_path, now, log_warning, first_busy_seconds=first_busy_seconds
        )
        self.text_index = TextIndex(self._index_path, has_text_index, log_warning)
        self.text_rows: dict[int, MailboxRows] = {}
        self.keywords = MailboxKeywords(self.index, self.folders)
        self.staging = Staging(self.index, self.folders, log_warning)
        self.cache = FetchCache(self.index, now)
        self.large_messages = large_messages or LargeMessages()
        self.logged_files: set[bytes] = set()
        self.seen_lists: dict[int, SeenLists] = {}
        self.unindexed: list[str] = []
        self.unrecovered: set[int] = set()
        self.kept_moves: set[int] = set()
        self.volumes: frozenset[int] = frozenset()
        self.is_running = False
        self._quota = quota if callable(quota) else lambda: quota
        self._quota_setting = quota_setting
        self._logged_full_disk = 0.0
        self._is_index_inside = self._index_path == path
        self._index_fd = -1
        self._index_owner = self.folders.owner
        self._is_prepared = False
        self._counter = count()
        self._origin = filename.origin(os.uname().nodename, secrets.token_hex(4))

    def log_full_disk(self) -> None:
        """Log that the disk is full, unless that was logged a short time ago."""
        now = self.now()
        if abs(now - self._logged_full_disk) >= FULL_DISK_SECONDS:
            self._logged_full_disk = now
            self.log_warning(
                f"no space for {os.fsdecode(self.folders.root)}: its disk, or that of its index, is full, or its "
                "owner has reached a quota of the file system; mail can be read, but not stored"
            )

    def open(self) -> bool:
        """Create the Maildir if there is none, and open it and the index, unless they are open and unchanged.

        Returns:
            whether the account must be prepared: it was opened or replaced, or an operation failed.
        """
        was_replaced = self.folders.ensure_open()
        if was_replaced:
            if self.folders.is_new:
                self._on_created()
            if self._is_index_inside:
                self._close_index_directory()
            self.text_index.close(is_moved=True)
            self.index.close()
            self.keywords.clear_cache()
            self._refuse_moved()
        self._open_index_directory()
        if not self.index.is_open_in(self._index_fd):
            self.index.open(self._index_fd, self._index_owner, self._has_mail)
            self._is_prepared = False
            self.text_rows.clear()
        if self._is_prepared:
            return False
        may_block()
        self.volumes = local_disk.volumes((self.folders.fd, self._index_fd))
        self._is_prepared = True
        return True

    def _refuse_moved(self) -> None:
        """Refuse a Maildir that only receives what is delivered after its account was moved away.

        Raises:
            AccountMoved: it is one.
        """
        content = files.read_small(Entry(self.folders.fd, MOVED_FILE), 1000)
        if content:
            text = " ".join(content.decode("utf-8", "replace").split())
            self.folders.log_once(
                f"the account was moved away: {text}; correct the map of users and nodes"
            )
            self.folders.close()
            raise AccountMoved

    def local_volumes(self) -> frozenset[int]:
        """Return `volumes`; none if folders may be elsewhere, through links or mount points."""
        is_elsewhere = self._follows_links or self.folders.volume.has_others
        return frozenset() if is_elsewhere else self.volumes

    def _open_index_directory(self) -> None:
        """Open the directory of the index, unless it is open and still at its path."""
        if self._is_index_inside:
            if self._index_fd == self.folders.fd:
                return
            self._index_fd, self._index_owner = self.folders.fd, self.folders.owner
        else:
            with suppress(OSError):
                if os.path.samestat(os.stat(self._index_path), os.fstat(self._index_fd)):
                    return
            may_block()
            self._close_index_directory()
            os.makedirs(self._index_path, 0o700, exist_ok=True)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._index_fd = os.open(self._index_path, flags)
            # It is for its owner's eyes only, whatever mode the directory has.
            self._index_owner = Ownership.of(os.fstat(self._index_fd))._replace(mode=0o700)
        self.text_index.set_directory(self._index_fd, self._index_owner)

    def _close_index_directory(self) -> None:
        if self._index_fd >= 0 and not self._is_index_inside:
            os.close(self._index_fd)
        self._index_fd = -1

    def _has_mail(self) -> bool:
        """Whether the Maildir has messages or folders, and therefore may have had an index before."""
        inbox = self.folders.folder("INBOX")
        return any(name.startswith(b".") for name in files.names(self.folders.fd)) or any(
            files.names(inbox.directory(number)) for number in (CUR, NEW)
        )

    def reset(self) -> None:
        """Forget, after an error, what was read from the disk; the next operation prepares the Maildir again."""
        self.keywords.clear_cache()
        self.index.forget_readings()
        self.seen_lists.clear()
        self._is_prepared = False

    def release_memory(self) -> None:
        """Close the text index, and free the pages of the index that are in memory."""
        self.text_index.forget_candidates()
        self.text_index.close()
        self.index.release_memory()

    def close(self) -> None:
        """Close all files."""
        self.large_messages.close(self)
        self.text_index.close()
        self.index.close()
        self.folders.close()
        self._close_index_directory()

    def folder(self, key: int) -> Folder:
        """Return the open folder of a mailbox.

        Raises:
            NoSuchMailbox: the mailbox was deleted.
        """
        return self.folders.folder(self.index.mailbox(key).name)

    def require_recovered(self, key: int) -> None:
        """Refuse to use a mailbox that could not be recovered after a crash.

        Files that are not where the index has them would be taken for expunged messages.

        Raises:
            StoreIOError: the log has the reason.
        """
        if key in self.unrecovered:
            raise StoreIOError

    def unique_name(self) -> bytes:
        """Return a base name that no other file has, for a new message or folder in ``tmp/``."""
        return filename.unique(self.now(), os.getpid(), next(self._counter), self._origin)

    def watch_paths(self, key: int) -> tuple[str, str]:
        """Return the directories that change when another program changes the mailbox."""
        path = os.fsdecode(self.folder(key).path)
        return path + "/new", path + "/cur"

    def mailbox_paths(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return the directories of mailboxes, as `watch_paths` does, without opening a folder."""
        found = {}
        for name in names:
            with suppress(NoSuchMailbox):
                folder = self.folders.existing_name(name)
                path = os.fsdecode(
                    os.path.join(self.folders.root, folder) if folder else self.folders.root
                )
                found[name] = path + "/new", path + "/cur"
        return found

    def usage(self) -> Quota:
        """Return usage and limits, as the index has them: it counts messages, their bytes, and those of metadata."""
        octets, messages = self.index.db.execute("SELECT octets, messages FROM account").fetchone()
        return Quota(octets, messages, *self._quota())

    def check_quota(self, messages: int, octets: int, *, counted: bool = False) -> None:
        """Check that there is room for more messages and bytes; `counted` if the index counts them already.

        A delivery agent does not check the quota, so the account may already be over it. Then only changes that do not
        make it larger are allowed.

        Raises:
            QuotaExceeded: the account would be over its quota.
        """
        if self._quota() == (None, None):
            return
        usage = self.usage()
        for name, added, used, limit in (
            ("quota_bytes", octets, usage.octets, usage.max_octets),
            ("quota_messages", messages, usage.messages, usage.max_messages),
        ):
            total = used + (0 if counted else added)
            if added > 0 and limit is not None and total > limit:
                raise QuotaExceeded(
                    reached=LimitReached(name, limit, total, binding=self._quota_setting(name))
                )
