"""Where the parts and the line ends of a large message are: `Layout`. With it, a piece of the message costs a piece.

Positions of parts are those on the wire. `LineMap` finds them in a file whose lines end with LF alone.
"""

import os
import sys
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple, Protocol

from imapshield.maildir import files
from imapshield.maildir.message_file import to_wire, wire_size
from imapshield.message.mime_tree import Part
from imapshield.message.transfer_encoding import KNOWN

STEP: Final = 16 << 10
"""Bytes of the file between two positions of a `LineMap`. A piece reads and converts up to two steps too much, which
takes 10 microseconds each."""

TICK_SECONDS = 0.05
WHOLE_SECONDS = 1.0
"""How long after its last change a file may change again and have the same ctime: a tick of the kernel's clock is up to
10 ms, and some file systems store whole seconds."""

_BLOCK_STEPS = 16
_PART_BYTES = 250
_LAYOUT_BYTES = 700


class FileState(NamedTuple):
    """Values that are different after a file was changed or replaced; the ctime also after it was renamed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, fd: int) -> "FileState":
        """Return the state of an open file."""
        status = os.fstat(fd)
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def shows_changes(self, now: float) -> bool:
        """Whether every change from now on makes the state another one, which is so some time after the last change."""
        is_coarse = self.ctime_ns % 1_000_000_000 == 0
        age = abs(now - self.ctime_ns / 1e9)  # the clock of a file server can be ahead
        return age > (WHOLE_SECONDS if is_coarse else TICK_SECONDS)


class LayoutKey(NamedTuple):
    """What a `Layout` depends on. The size on the wire, if it is known, says whether the file is sent unchanged."""

    state: FileState
    wire_size: int | None
    may_be_compressed: bool


class Source(Protocol):
    """Something of which ranges are read."""

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, fewer only at the end."""


class MemorySource(NamedTuple):
    """Bytes in memory."""

    octets: bytes

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.octets)

    def read(self, start: int, size: int) -> bytes:
        return self.octets[start : start + size]


class FileSource(NamedTuple):
    """A message's file that is sent unchanged."""

    fd: int

    def read(self, start: int, size: int) -> bytes:
        return files.read_range(self.fd, start, size)


class Range(NamedTuple):
    """A string that is a range of a `source`."""

    source: Source
    start: int
    size: int

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes of the string from `offset`, by default all."""
        left = self.size - offset
        if size is not None:
            left = min(size, left)
        return self.source.read(self.start + offset, left) if left > 0 else b""


class LineMap:
    """Where on the wire the bytes of a file are, if a CR is inserted before every LF that has none.

    The file is read as far as it is asked for. Several threads may use the same map, with descriptors of the same file.

    Args:
        file_size: the size of the file.
    """

    def __init__(self, file_size: int) -> None:
        self._file_size = file_size
        self._lock = Lock()
        self._positions = array("Q", [0])
        self._ends_in_cr = False

    @property
    def memory(self) -> int:
        """The bytes of memory that it takes when all of the file was read."""
        return (self._file_size // STEP + 2) * self._positions.itemsize

    @property
    def octets_read(self) -> int:
        """The bytes of the file that were read until now, or a few more."""
        return (len(self._positions) - 1) * STEP

    def measure(self, fd: int) -> int:
        """Return the size of the message on the wire."""
        with self._lock:
            self._extend(fd, sys.maxsize)
            return self._positions[-1]

    def read(self, fd: int, start: int, size: int) -> bytes:
        """Return a range of the wire form, fewer bytes only at the end."""
        end = start + size
        with self._lock:
            self._extend(fd, end)
            first = bisect_right(self._positions, start) - 1
            last = bisect_left(self._positions, end)
            skipped = start - self._positions[first]
        # One byte more shows whether an LF at the beginning has a CR.
        before = 1 if first else 0
        offset = first * STEP - before
        octets = files.read_range(fd, offset, last * STEP - offset)
        skipped += len(to_wire(octets[:before]))
        return to_wire(octets)[skipped : skipped + size]

    def _extend(self, fd: int, end: int) -> None:
        """Read the file until `end`, which is a position on the wire."""
        positions = self._positions
        while positions[-1] < end:
            offset = (len(positions) - 1) * STEP
            octets = files.read_range(fd, offset, _BLOCK_STEPS * STEP)
            for start in range(0, len(octets), STEP):
                step = octets[start : start + STEP]
                size = wire_size(step)
                if self._ends_in_cr and step.startswith(b"\n"):
                    size -= 1
                self._ends_in_cr = step.endswith(b"\r")
                positions.append(positions[-1] + size)
            if len(octets) < _BLOCK_STEPS * STEP:
                break


class LineMapSource(NamedTuple):
    """A message's file to which CRs are added."""

    fd: int
    line_map: LineMap

    def read(self, start: int, size: int) -> bytes:
        return self.line_map.read(self.fd, start, size)


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one message.

    Attributes:
        size: the size of the message on the wire, None if it was not needed.
        is_compressed: whether its file must be decompressed.
        line_map: for a file to which CRs are added.
        part: the positions of its parts (`positions`), None if they were not needed.
    """

    size: int | None
    is_compressed: bool = False
    line_map: LineMap | None = None
    part: Part | None = None

    @property
    def memory(self) -> int:
        """The bytes of memory that it takes, roughly."""
        parts = 0 if self.part is None else sum(1 for _ in self.part.walk())
        line_map = 0 if self.line_map is None else self.line_map.memory
        return _LAYOUT_BYTES + parts * _PART_BYTES + line_map


_NO_PARTS: Final[list[Part]] = []
_FIELDS: Final = {encoding: {b"transfer-encoding": encoding} for encoding in KNOWN}
_UNKNOWN: Final = {b"transfer-encoding": b"unknown"}


def positions(part: Part) -> Part:
    """Return a MIME tree of the same positions and encodings, without all other fields, which can be large."""
    return Part(
        part.start,
        part.body_start,
        part.end,
        params=[],
        fields=_FIELDS.get(part.transfer_encoding(), _UNKNOWN),
        is_multipart=part.is_multipart,
        children=[positions(child) for child in part.children] or _NO_PARTS,
        embedded=None if part.embedded is None else positions(part.embedded),
    )
