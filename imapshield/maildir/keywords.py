"""The keywords of each mailbox: read from ``dovecot-keywords`` and the index, and extended there within limits."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from imapshield.errors import StoreLimitExceeded
from imapshield.limits import LimitReached
from imapshield.maildir import files
from imapshield.maildir.filename import FolderFlags, format_keywords, parse_keywords
from imapshield.maildir.index import Index
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.open_folders import Folder, OpenFolders
from imapshield.wire.flags import RECENT, flag_list

MAX_KEYWORDS = 1000
"""The maximum of keywords of one mailbox. Those that get no letter are stored in the index. Every client receives all
keywords."""

MAX_FLAGS_SIZE = 4096
"""The maximum of bytes of one message's flag list, as it is sent. All flag lists of an open mailbox are kept in memory,
and people use fewer than ten keywords."""

MAX_CACHED_MAILBOXES = 32
"""Mailboxes of an account whose keywords are in memory; more are read again from their files."""

KEYWORD_FILE = b"dovecot-keywords"


class MailboxKeywords:
    """Reads and extends the keywords of an account's mailboxes, and caches them."""

    def __init__(self, index: Index, folders: OpenFolders) -> None:
        self._index = index
        self._folders = folders
        # mailbox key → (what the keywords were read from, the keywords)
        self._cache: dict[int, tuple[object, FolderFlags]] = {}

    def clear_cache(self) -> None:
        """Read all keywords again at the next use."""
        self._cache.clear()

    def get(self, mailbox: MailboxRow) -> FolderFlags:
        """Return the keywords that the mailbox's file and the index have now."""
        entry = self._folders.folder(mailbox.name).file(KEYWORD_FILE)
        stamp: object = mailbox.keywords
        is_file = False
        with suppress(FileNotFoundError):
            status = files.status(entry)
            is_file = stat.S_ISREG(status.st_mode)
            stamp = mailbox.keywords, status.st_mtime_ns, status.st_ino, status.st_size
        cached = self._cache.get(mailbox.key)
        if cached is None or cached[0] != stamp:
            content = files.read_small(entry, 1 << 20) if is_file else b""
            folder_flags = parse_keywords(content, mailbox.keywords)
            if len(self._cache) > MAX_CACHED_MAILBOXES:
                self._cache.clear()
            cached = self._cache[mailbox.key] = (stamp, folder_flags)
        return cached[1]

    def can_have_letters(self, folder: Folder) -> bool:
        """Whether the file of a folder can be written. If there is a directory in its place, one line is logged."""
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(files.status(folder.file(KEYWORD_FILE)).st_mode):
                path = os.fsdecode(folder.path + b"/" + KEYWORD_FILE)
                self._folders.log_once(
                    f"{path!r} is a directory, so keywords are kept in the index alone; move it away"
                )
                return False
        return True

    def add(self, mailbox: MailboxRow, flags: Iterable[bytes]) -> FolderFlags:
        """Return the mailbox's keywords after adding those of `flags` that are new, in a write transaction.

        Raises:
            StoreLimitExceeded: the mailbox would have more than `MAX_KEYWORDS`.
        """
        folder_flags = self.get(mailbox)
        added = {flag.lower(): flag for flag in flags if flag not in folder_flags}
        added.pop(RECENT.lower(), None)
        if not added:
            return folder_flags
        count = len(folder_flags) + len(added)
        if count > MAX_KEYWORDS:
            text = f"Mailbox would have more than {MAX_KEYWORDS} keywords"
            raise StoreLimitExceeded(text, LimitReached("MAX_KEYWORDS", MAX_KEYWORDS, count))
        # If the transaction fails, the object that is extended here must not be the cached one.
        self._cache.pop(mailbox.key, None)
        folder = self._folders.folder(mailbox.name)
        lettered = self.can_have_letters(folder)
        got_letter = [folder_flags.add(flag, lettered=lettered) for flag in added.values()]
        if any(got_letter):
            files.replace(folder.file(KEYWORD_FILE), format_keywords(folder_flags), folder.owner)
        if not all(got_letter):
            self._index.update_mailbox(mailbox.key, keywords=b" ".join(folder_flags.others))
        return folder_flags


def canonical_flags(flags: Iterable[bytes], folder_flags: FolderFlags, old_size: int = 0) -> bytes:
    r"""Return `flags` as one flag list, spelled as the mailbox spells them.

    ``\Recent`` is left out, because no client can set it.

    Args:
        flags: the flags.
        folder_flags: the flags of the mailbox's folder.
        old_size: bytes of the flag list that the result replaces. A list that does not grow is always allowed.

    Raises:
        StoreLimitExceeded: the result is larger than `MAX_FLAGS_SIZE`.
    """
    text = flag_list([folder_flags.spelling(f) for f in flags if f.lower() != RECENT.lower()])
    if len(text) > max(old_size, MAX_FLAGS_SIZE):
        reached = LimitReached("MAX_FLAGS_SIZE", MAX_FLAGS_SIZE, len(text))
        raise StoreLimitExceeded("Message has too many flags", reached)
    return text
