"""Message files → octets as on the wire.

A file goes out as it is when its size on the wire is its size on disk; otherwise every LF without a CR before it gets
one. What APPEND stored says of itself (``W=`` equal to ``S=``) that it is on disk as it was on the wire, so even a
message with bare LFs comes back octet for octet.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from imapshield.mailbox.message_items import MessageItems, header_block
from imapshield.maildir import files
from imapshield.maildir.account_state import AccountState, Finder
from imapshield.message.chunks import CHUNK_SIZE, line_chunks

HEAD = 64 << 10


class Message(NamedTuple):
    """A message as its file is looked for: columns of the index."""

    uid: int
    name: bytes
    place: int
    size: int | None
    physical: int

    @property
    def verbatim(self) -> bool:
        """Whether the file is on disk as it is on the wire."""
        return self.size == self.physical


MESSAGE = ", ".join(Message._fields)


def to_wire(octets: bytes) -> bytes:
    """Return `octets` with every line ending in CRLF."""
    if len(octets) > CHUNK_SIZE:
        return b"".join(map(_to_wire, line_chunks(octets)))
    return _to_wire(octets)


def _to_wire(octets: bytes) -> bytes:
    # Looking for one octet is ten times faster than for two, and a file with LF mostly has no CR at all.
    if b"\r" in octets:
        octets = octets.replace(b"\r\n", b"\n")
    return octets.replace(b"\n", b"\r\n")


def measure(octets: bytes) -> int:
    """Return the size that `to_wire` gives."""
    crlf = octets.count(b"\r\n") if b"\r" in octets else 0
    return len(octets) + octets.count(b"\n") - crlf


class Contents:
    """The message files of one mailbox.

    `measured` collects (size on the wire, size on disk, uid) where the index has them otherwise.
    """

    def __init__(self, core: AccountState, folder: bytes) -> None:
        self._core = core
        self._folder = folder
        self._finder = Finder(core, folder)
        self.measured: list[tuple[int, int, int]] = []

    def open(self, message: Message) -> int | None:
        """Return a descriptor, None if the message is gone."""
        core = self._core
        try:
            return files.open_message(core.path(self._folder, message.place, message.name))
        except FileNotFoundError:
            found = self._finder.find(message.name)
        if found is None:
            return None
        try:
            return files.open_message(core.path(self._folder, *found))
        except FileNotFoundError:
            return None

    def octets(self, fd: int, message: Message) -> bytes:
        """Return a message as on the wire."""
        physical, size = message.physical, message.size
        # One octet more than expected shows the end of the file; what other programs appended is shown too.
        octets = os.pread(fd, physical + 1, 0)
        if len(octets) == physical:
            if size == physical:
                return octets
        else:
            octets = files.read_range(fd, 0, min(os.fstat(fd).st_size, files.LARGEST))
        wire = to_wire(octets)
        if len(wire) != size or len(octets) != physical:
            self.measured.append((len(wire), len(octets), message.uid))
        return wire

    def size(self, message: Message) -> int | None:
        """Return the size on the wire, measured; None if the message is gone."""
        fd = self.open(message)
        if fd is None:
            return None
        try:
            octets = files.read_range(fd, 0, min(os.fstat(fd).st_size, files.LARGEST))
        finally:
            os.close(fd)
        size = measure(octets)
        self.measured.append((size, len(octets), message.uid))
        return size


class Reading:
    """One message being read for the items that are asked of it: its head, or all of it, once."""

    __slots__ = ("_contents", "_fd", "_head", "_message", "_whole")

    def __init__(self, contents: Contents, message: Message, fd: int) -> None:
        self._contents = contents
        self._message = message
        self._fd = fd
        self._head: MessageItems | None = None
        self._whole: MessageItems | None = None

    def head(self) -> MessageItems:
        """Return the message with its header complete and its body perhaps not."""
        if self._whole is not None:
            return self._whole
        if self._head is None:
            if self._message.physical <= HEAD:
                return self.whole()
            self._head = self._read_head()
        return self._head

    def _read_head(self) -> MessageItems:
        size = HEAD
        while size < self._message.physical:
            octets = files.read_range(self._fd, 0, size)
            # A piece that ends between CR and LF, or before the blank line's, is not cut where it means something.
            octets = octets.rstrip(b"\r\n")
            wire = octets if self._message.verbatim else to_wire(octets)
            header = header_block(wire)
            if len(header) < len(wire):
                return MessageItems(header)
            size *= 4
        return self.whole()

    def whole(self) -> MessageItems:
        """Return the message."""
        if self._whole is None:
            self._whole = MessageItems(self._contents.octets(self._fd, self._message))
        return self._whole

    def range(self, start: int, size: int) -> bytes:
        """Return a range of the file, for a message that goes out as it is."""
        return files.read_range(self._fd, start, size)
