"""Reads a large string of a message in ranges, while the client reads it.

No large string is kept in memory: a client that stops reading would keep it there. Most large strings are ranges of the
message's file, as they are sent. For others a temporary file is made.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO, NamedTuple

from imapshield.errors import MessageExpunged
from imapshield.maildir import files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles, MessageReader
from imapshield.wire.commands.fetch import Binary, BodySection, FetchItem


class OpenBlob(NamedTuple):
    """The string that was read last: a range of the message's file from `start` on, or all of the temporary `file`."""

    key: int
    uid: int
    item: FetchItem
    start: int
    file: IO[bytes] | None


class BlobReader:
    """The method `read` of `IStore`."""

    def __init__(self, account: AccountState) -> None:
        self._account = account
        self._blob: OpenBlob | None = None

    def read(self, key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """Return a range of the string that a `Blob` stands for; `IStore.read` describes the arguments.

        Raises:
            MessageExpunged: the message was expunged meanwhile.
        """
        folder = self._account.paths.folder(self._account.index.mailbox(key).name)
        message_files = MessageFiles(folder)
        blob = self._blob
        if blob is None or blob[:3] != (key, uid, item):
            self._close_blob()
            blob = self._blob = self._open_blob(key, uid, item, message_files)
        if blob.file is not None:
            octets = files.read_range(blob.file.fileno(), offset, size)
            if offset + size >= os.fstat(blob.file.fileno()).st_size:
                self._close_blob()
            return octets
        fd, _ = self._open_message(key, uid, message_files)
        try:
            return files.read_range(fd, blob.start + offset, size)
        finally:
            os.close(fd)

    def _close_blob(self) -> None:
        blob, self._blob = self._blob, None
        if blob is not None and blob.file is not None:
            blob.file.close()

    def _open_blob(
        self, key: int, uid: int, item: FetchItem, message_files: MessageFiles
    ) -> OpenBlob:
        assert isinstance(item, BodySection | Binary)
        fd, message = self._open_message(key, uid, message_files)
        try:
            string = MessageReader(message_files, message, fd).string(item)
        finally:
            os.close(fd)
        if isinstance(string, tuple):
            return OpenBlob(key, uid, item, string[0], None)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open after this call
        file.write(string or b"")
        file.flush()
        return OpenBlob(key, uid, item, 0, file)

    def _open_message(
        self, key: int, uid: int, message_files: MessageFiles
    ) -> tuple[int, MessageFile]:
        rows = self._account.index.message_rows(FILE_COLUMNS, key, [uid])
        message = MessageFile._make(rows[0]) if rows else None
        fd = None if message is None else message_files.open(message)
        if message is None or fd is None:
            raise MessageExpunged
        return fd, message
