"""Reads message files as they are sent.

A file is sent unchanged if its size on the wire is its size on disk. Otherwise a CR is inserted before every LF that
has none. Files that APPEND wrote say in their name that both sizes are equal (``W=`` equal to ``S=``), so even a
message with bare LFs is returned byte for byte.

Compressed files are decompressed first (`compression`). Both the name and the first bytes of such a file say that it is
compressed. Therefore a message that begins like one, and was stored as it is, is returned byte for byte too.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import NamedTuple

from imapshield.errors import MessageExpunged
from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.message_items import MessageItems, header_block
from imapshield.maildir import compression, filename, files
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.local_disk import read_at
from imapshield.message.chunks import CHUNK_SIZE, SCAN_SIZE, chunks
from imapshield.message.headers import header_end

_HEAD_SIZE = 64 << 10
_SMALL_HEAD_SIZE = 8 << 10
_USUAL_HEAD_SIZE = 4 << 10
"""Bytes that are read of a message of which only the header is needed, and bytes of those that are searched first for
its end. Most headers are shorter."""

FILE_COLUMNS = "uid, name, place, size, physical"
"""The columns of a `MessageFile`, as SQL."""


class MessageFile(NamedTuple):
    """What the index knows about a message's file.

    `size` is the size on the wire, None if it was not measured. `physical` is the size of the file. Either can be wrong
    if another program changed the file.
    """

    uid: int
    name: bytes
    directory: int
    size: int | None
    physical: int

    @property
    def is_verbatim(self) -> bool:
        """Whether the file is sent unchanged, if it is not compressed, and no other program has changed it."""
        return self.size == self.physical


_CONVERTED_AT_ONCE = 4 * CHUNK_SIZE
"""Bytes in which one call inserts CRs. It takes 20 microseconds, and 0.8 milliseconds if all of them are LF."""


def to_wire(octets: bytes) -> bytes:
    """Return `octets` with every line ending in CRLF."""
    if len(octets) <= _CONVERTED_AT_ONCE:
        return _to_wire(octets)
    if len(octets) <= SCAN_SIZE:
        return b"".join(map(_to_wire, chunks(octets)))
    wire = BytesIO()  # `bytes.join` would copy a large message in one call.
    for chunk in chunks(octets):
        wire.write(_to_wire(chunk))
    return wire.getvalue()


def _to_wire(octets: bytes) -> bytes:
    # A search for one byte is ten times faster than one for two, and a file with LF usually has no CR at all.
    if b"\r" in octets:
        if octets.count(b"\r\n") == octets.count(b"\n"):  # in half of the time
            return octets
        octets = octets.replace(b"\r\n", b"\n")
    return octets.replace(b"\n", b"\r\n")


def wire_size(octets: bytes) -> int:
    """Return the size of what `to_wire` returns."""
    scanned = (octets,) if len(octets) <= SCAN_SIZE else chunks(octets)
    return len(octets) + sum(map(_missing_cr, scanned))


def _missing_cr(octets: bytes) -> int:
    crlf = octets.count(b"\r\n") if b"\r" in octets else 0
    return octets.count(b"\n") - crlf


@dataclass(eq=False)
class MessageFiles(FileFinder):
    """Opens and measures the message files of one folder.

    `measured` collects (size on the wire, size of the file, UID, size of the file in the index) of messages whose sizes
    are not those in the index.
    """

    measured: list[tuple[int, int, int, int]] = field(default_factory=list, init=False)

    def open(self, message: MessageFile) -> int | None:
        """Return a descriptor of a message's file, None if the file was removed."""
        try:
            return files.open_message(self.folder.entry(message.directory, message.name))
        except FileNotFoundError:
            with suppress(FileNotFoundError, MessageExpunged):
                return files.open_message(self.current_entry(message.name))
        return None

    @contextmanager
    def opened(self, message: MessageFile) -> Iterator[int | None]:
        """Open a message's file for a block, as `open` does. An OSError in the block names the file."""
        fd = self.open(message)
        try:
            yield fd
        except OSError as error:
            error.filename = error.filename or self.path(message)
            raise
        finally:
            if fd is not None:
                os.close(fd)

    def path(self, message: MessageFile) -> bytes:
        """Return the path at which the index has a message."""
        return self.folder.path_of(message.directory, message.name)

    def content(self, fd: int, message: MessageFile) -> bytes:
        """Return a message as on the wire, read from its open file."""
        physical, size = message.physical, message.size
        # Reading one more byte than expected shows whether another program has appended to the file. Such bytes are
        # sent too.
        octets = read_at(fd, physical + 1, 0)
        stored = len(octets)
        if stored == physical:
            if message.is_verbatim and not octets.startswith(compression.MAGIC):
                return octets
        else:
            octets = files.read_message(fd)
            stored = len(octets)
        is_verbatim = message.is_verbatim and stored == physical
        if is_compressed(octets, message.name, stored):
            octets = compression.decompress(octets)
            is_verbatim = size == len(octets)
        wire = octets if is_verbatim else to_wire(octets)
        if len(wire) != size or stored != physical:
            self.measured.append((len(wire), stored, message.uid, physical))
        return wire

    def small_header(self, message: MessageFile) -> bytes | None:
        """Return the header block of a message as on the wire, as `MessageReader.head` does with more steps.

        It is None if the header is larger than `_SMALL_HEAD_SIZE`, or if the file is compressed, damaged, or not where
        and as large as the index has it.
        """
        try:
            fd = files.open_message(self.folder.entry(message.directory, message.name))
        except FileNotFoundError:
            return None
        try:
            octets = read_at(fd, _SMALL_HEAD_SIZE, 0)
            is_whole = len(octets) < _SMALL_HEAD_SIZE
            if message.is_verbatim and not is_whole and os.fstat(fd).st_size != message.physical:
                return None
        finally:
            os.close(fd)
        end = header_end(octets, 0, _USUAL_HEAD_SIZE)
        if end < 0:
            end = header_end(octets, 0, len(octets))
        is_changed = is_whole and len(octets) != message.physical
        if end < 0 or is_changed or octets.startswith(compression.MAGIC):
            return None
        return octets[:end] if message.is_verbatim else _to_wire(octets[:end])

    def measure(self, message: MessageFile) -> int | None:
        """Return the size of a message on the wire, None if its file was removed."""
        may_block()
        with self.opened(message) as fd:
            if fd is None:
                return None
            octets = files.read_message(fd)
            stored = len(octets)
            if is_compressed(octets, message.name, stored):
                octets = compression.decompress(octets)
        size = wire_size(octets)
        self.measured.append((size, stored, message.uid, message.physical))
        return size


def is_compressed(octets: bytes, name: bytes, stored: int) -> bool:
    """Return whether a file is compressed.

    Args:
        octets: its content, or the beginning of it.
        name: its name.
        stored: its size.
    """
    return octets.startswith(compression.MAGIC) and filename.may_be_compressed(name, stored)


@dataclass(slots=True, eq=False)
class MessageReader:
    """One open message, read at most once for all the items that need it.

    Args:
        message_files: the files of the message's folder.
        message: the message.
        fd: the message's open file, which the caller closes.
    """

    message_files: MessageFiles
    message: MessageFile
    fd: int
    _head: MessageItems | None = field(default=None, init=False)
    _whole: MessageItems | None = field(default=None, init=False)

    @property
    def octets_read(self) -> int:
        """The bytes that were read into memory."""
        return sum(len(items.data) for items in (self._head, self._whole) if items is not None)

    @property
    def has_whole(self) -> bool:
        """Whether the message was read."""
        return self._whole is not None

    def head(self) -> MessageItems:
        """Return the message with its complete header; the body may be missing."""
        if self._whole is not None:
            return self._whole
        if self._head is None:
            if self.message.physical <= _HEAD_SIZE:
                return self.whole()
            self._head = self._read_head()
        return self._head

    def _read_head(self) -> MessageItems:
        message, size = self.message, _HEAD_SIZE
        while size < message.physical:
            octets = files.read_range(self.fd, 0, size)
            is_verbatim = message.is_verbatim
            if is_compressed(octets, message.name, message.physical):
                octets = compression.decompress_head(octets, size)
                is_verbatim = message.size == filename.stored_size(message.name)
            # A cut between CR and LF, or between the LFs before the body, would look like the end of the header.
            octets = octets.rstrip(b"\r\n")
            wire = octets if is_verbatim else to_wire(octets)
            header = header_block(wire)
            if len(header) < len(wire):
                return MessageItems(header)
            size *= 4
        return self.whole()

    def whole(self) -> MessageItems:
        """Return the message."""
        if self._whole is None:
            self._whole = MessageItems(self.message_files.content(self.fd, self.message))
        return self._whole
