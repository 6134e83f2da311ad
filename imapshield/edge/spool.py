"""Storage for literals while they arrive: in memory, or for large messages in an unnamed temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO

from imapshield.errors import CommandRefused
from imapshield.wire.commands.base import LiteralData, MemoryLiteral


class SpooledFile:
    """A literal (`LiteralData`) stored in a file.

    Args:
        file: a seekable binary file.
        size: the literal's size in bytes.
        start: the position of its first byte in `file`.
        release: called by `close`; by default it closes `file`.
    """

    def __init__(
        self,
        file: IO[bytes],
        size: int,
        start: int = 0,
        release: Callable[[], object] | None = None,
    ) -> None:
        self._file = file
        self._start = start
        self._release: Callable[[], object] | None = release or file.close
        self.size = size
        self.binary = False

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only at the end of the literal."""
        self._file.seek(self._start + offset)
        return self._file.read(max(0, min(size, self.size - offset)))

    def close(self) -> None:
        """Release the literal's storage; it cannot be read any more."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Spool:
    """Shared storage for the literals of one command: a budget of memory, then one temporary file.

    All literals share the budget and the file, because each literal for itself was too much: a thousand messages of one
    command, each small enough for memory, took 250 MiB of it; each a little larger, they took a thousand open files.

    Args:
        memory: how many bytes of the literals together may be kept in memory.
        directory: where the file is created; None is the system's directory for temporary files.
    """

    def __init__(self, memory: int, directory: str | None = None) -> None:
        self.memory = memory
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._end = 0
        self._users = 0

    def new_sink(self) -> SpoolSink:
        """Return the sink for the command's next literal."""
        return SpoolSink(self)

    def append(self, data: bytes) -> tuple[IO[bytes], int]:
        """Write `data` to the file.

        Returns:
            The file, and the position of `data` in it.

        Raises:
            CommandRefused: the disk is full.
        """
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115
            self._file.write(data)
        except OSError:
            raise CommandRefused(
                b"OVERQUOTA", "Not enough disk space to receive this message"
            ) from None
        start, self._end = self._end, self._end + len(data)
        return self._file, start

    def retain_file(self) -> None:
        """Keep the file open for one more literal."""
        self._users += 1

    def release_file(self) -> None:
        """Close the file if no other literal uses it."""
        self._users -= 1
        if not self._users and self._file is not None:
            self._file.close()
            self._file, self._end = None, 0


class SpoolSink:
    """A `wire.framing.LiteralSink` that keeps its literal in the memory budget of a `Spool`, or in the file of it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._chunks: list[bytes] = []
        self._file: tuple[IO[bytes], int] | None = None
        self._uses_file = False
        self._size = 0

    def write(self, data: bytes) -> None:
        """Store the next bytes; raises `CommandRefused` if the disk is full."""
        self._size += len(data)
        if self._uses_file:
            self._spool.append(data)
            return
        self._chunks.append(data)
        self._spool.memory -= len(data)
        if self._spool.memory < 0:
            data = b"".join(self._chunks)
            self._free_memory()
            self._uses_file = True
            self._spool.retain_file()
            self._file = self._spool.append(data)

    def finish(self) -> LiteralData:
        """Return the complete literal."""
        if self._file is None:
            return MemoryLiteral(b"".join(self._chunks))
        file, start = self._file
        return SpooledFile(file, self._size, start, self._spool.release_file)

    def discard(self) -> None:
        """Release the storage of an unwanted literal."""
        self._free_memory()
        if self._uses_file:
            self._uses_file = False
            self._spool.release_file()

    def _free_memory(self) -> None:
        self._spool.memory += sum(map(len, self._chunks))
        self._chunks.clear()
