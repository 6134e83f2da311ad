"""Storage for the messages of one command while they arrive: in memory, or in an unnamed temporary file."""

import tempfile
from contextlib import suppress
from typing import IO

from imapshield.edge.memory_share import MemoryShare
from imapshield.errors import CommandRefused

FILE_BUFFER_SIZE = 8 << 10
"""Bytes of memory that an open file takes, for Python's buffer."""


class Spool:
    """Storage that the literals of one command share. It moves to a temporary file when it exceeds `memory` bytes.

    With a memory limit and a file for each literal, one command could use too much: a thousand messages, each small
    enough for memory, took 250 MiB; a thousand slightly larger ones took a thousand open files.

    Args:
        memory: how many bytes of the literals together may be kept in memory.
        share: records what the spool holds.
        directory: where the file is created; None is the system's directory for temporary files.
    """

    file: IO[bytes]

    def __init__(self, memory: int, share: MemoryShare, directory: str | None = None) -> None:
        self._memory = max(1, memory)  # SpooledTemporaryFile takes 0 for no limit
        self._share = share
        self._in_memory = self._in_file = 0
        self._directory = directory
        self._literals = 0

    def new_literal(self) -> "SpooledLiteral":
        """Return the command's next literal, which is still empty."""
        return SpooledLiteral(self)

    def append(self, data: bytes) -> None:
        """Write `data` at the end.

        Raises:
            CommandRefused: the disk is full, or all spools together are too large (`Limits.max_spool_bytes`).
        """
        self._record(len(data))
        try:
            self.file.write(data)
        except OSError:
            text = "Not enough disk space to receive this message"
            raise CommandRefused(b"OVERQUOTA", text) from None

    def _record(self, more: int) -> None:
        share, size = self._share, self._in_memory + more
        if not self._in_file and size <= self._memory:
            share.spooled += more
            self._in_memory = size
            return
        moved = more if self._in_file else size
        refusal = share.refuse_file(moved)
        if refusal is not None:
            raise refusal
        share.hold_file_bytes(moved)
        self._in_file += moved
        share.spooled += FILE_BUFFER_SIZE - self._in_memory
        self._in_memory = FILE_BUFFER_SIZE

    def retain(self) -> int:
        """Keep `file` open for one more literal, and return the position of this literal in the file."""
        if not self._literals:
            self.file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - `release` closes it
                self._memory, dir=self._directory
            )
        self._literals += 1
        return self.file.tell()

    def release(self) -> None:
        """Close `file` if no other literal uses it."""
        self._literals -= 1
        if not self._literals:
            self._share.spooled -= self._in_memory
            self._share.hold_file_bytes(-self._in_file)
            self._in_memory = self._in_file = 0
            with suppress(OSError):  # the disk is full, and the file still has bytes to write
                self.file.close()


class SpooledLiteral:
    """One literal in a `Spool`: a `wire.framing.LiteralSink` that becomes the `LiteralData` when it is complete."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._start = 0
        self._retained = False
        self.size = 0
        self.binary = False

    def write(self, data: bytes) -> None:
        """Store the next bytes; raises `CommandRefused` as `Spool.append` does."""
        if not self._retained:
            self._retained = True
            self._start = self._spool.retain()
        self.size += len(data)
        self._spool.append(data)

    def finish(self) -> "SpooledLiteral":
        """Return the complete literal."""
        return self

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only at the end of the literal."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        self._spool.file.seek(self._start + offset)
        return self._spool.file.read(size)

    def close(self) -> None:
        """Release the literal's storage; it cannot be read any more."""
        if self._retained:
            self._retained = False
            self._spool.release()

    def discard(self) -> None:
        """Release the storage of an unwanted literal."""
        self.close()
