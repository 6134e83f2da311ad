"""FETCH of whole messages and nothing else, as synchronizing clients request them: BODY[], RFC822.

Most of the cost is that of the system calls, so there is little else for each message. Every message that needs more is
left to `message_fetch`: one that is not where, or not as large, as the index has it, that is compressed, or large.
"""

import os
from collections.abc import Sequence
from typing import Any

from imapshield.mailbox.in_place import WouldBlock, readable_octets
from imapshield.mailbox.request import check_wanted
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.maildir import compression, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.entry import Entry
from imapshield.maildir.local_disk import read_at
from imapshield.maildir.message_file import FILE_COLUMNS, to_wire
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.unreadable import SERVER_ERRORS
from imapshield.wire import strings
from imapshield.wire.commands.fetch import BodySection, FetchItem

OVERHEAD = 100
"""Bytes of the budget that each message uses besides its values, and about those that a `Blob` takes."""

STEP = 32
"""Messages per query of the index, as for other items (`message_fetch.READ_STEP`)."""

_UNCHECKED = 8
"""Messages that are read before it is looked again whether the client waits for them: a tenth of a millisecond."""


def is_whole_message(item: FetchItem) -> bool:
    """Return whether an item is the whole message."""
    if not isinstance(item, BodySection) or item.partial is not None:
        return False
    return not item.section.path and not item.section.text


def fetch_whole(
    account: AccountState, key: int, uids: Sequence[int], budget: int, max_string_size: int
) -> FetchResult:
    """Return the first of `uids` and their content, until the budget is used up or a message needs more than this.

    Args:
        account: the account.
        key: the mailbox.
        uids: the messages.
        budget: bytes of the content. The last message may have more.
        max_string_size: bytes of the largest message that is not a `Blob`.
    """
    whole = _WholeMessages(account.folder(key), max_string_size)
    for start in range(0, len(uids), STEP):
        some = uids[start : start + STEP]
        budget = whole.add(some, account.index.message_rows(FILE_COLUMNS, key, some), budget)
        if budget <= 0:
            break
    account.cache.add(key, (), whole.measured)
    return FetchResult(uids[: len(whole.found)], [whole.found])


def _read_exactly(entry: Entry, size: int) -> bytes | None:
    """Return the content of a file that has `size` bytes, None if it is smaller or larger."""
    fd = files.open_message(entry)
    try:
        # One more byte shows whether another program has appended to the file.
        octets = read_at(fd, size + 1, 0)
    finally:
        os.close(fd)
    return octets if len(octets) == size else None


class _WholeMessages:
    """The messages that were read, and the sizes of those that the index has with another one."""

    def __init__(self, folder: Folder, max_string_size: int) -> None:
        self._folder = folder
        self._max_string_size = max_string_size
        self.found: list[bytes | Blob] = []
        self.measured: list[tuple[int, int, int, int]] = []

    def add(self, uids: Sequence[int], rows: Sequence[tuple[Any, ...]], budget: int) -> int:
        """Add messages. Return what is left of the budget; 0 if a message needs more than this.

        If there are none then, `message_fetch` reads the message, and reports what is wrong with it.
        """
        try:
            budget = self._add(uids, rows, budget)
        except OSError as error:
            if error.errno in SERVER_ERRORS:
                raise
            return 0
        except WouldBlock:
            if not self.found:
                raise
            return 0
        return budget if len(rows) == len(uids) else 0

    def _add(self, uids: Sequence[int], rows: Sequence[tuple[Any, ...]], budget: int) -> int:
        entry, found, readable = self._folder.entry, self.found, readable_octets()
        for count, (uid, name, directory, size, physical) in enumerate(rows):
            if count % _UNCHECKED == 0:
                check_wanted()
            readable -= physical + 1
            # With a CR before each LF, a message is at most twice as large as its file.
            max_size = 2 * physical if size is None else size
            is_too_large = max_size > self._max_string_size or (readable < 0 and found)
            if uid != uids[count] or is_too_large:
                return 0
            octets = _read_exactly(entry(directory, name), physical)
            if octets is None or octets.startswith(compression.MAGIC):
                return 0
            if size != physical:
                octets = to_wire(octets)
                if len(octets) != size:
                    self.measured.append((len(octets), physical, uid, physical))
            found.append(strings.literal(octets))
            budget -= OVERHEAD + len(octets)
            if budget <= 0:
                return 0
        return budget
