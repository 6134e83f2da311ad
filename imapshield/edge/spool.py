"""The messages of one APPEND while they arrive: in memory up to a size, in an unnamed temporary file above it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO

from imapshield.errors import CommandRefused
from imapshield.wire.commands.base import LiteralData, MemoryLiteral


class SpooledFile:
    """A literal's octets, from `start` in a file that has no name; `release` says what closing does instead."""

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
        """See `wire.commands.LiteralData`."""
        self._file.seek(self._start + offset)
        return self._file.read(max(0, min(size, self.size - offset)))

    def close(self) -> None:
        """Give the space back."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Spool:
    """Makes the sinks of one command's literals, one after another.

    A thousand messages of one command, each small enough for memory, were 250 MiB of it, and each a little larger, a
    thousand open files: so `memory` octets are kept of all of them together, and the rest is one file.

    Args:
        memory: octets.
        folder: of the file; None is the system's.
    """

    def __init__(self, memory: int, folder: str | None = None) -> None:
        self.memory = memory
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0
        self._users = 0

    def literal(self) -> SpoolSink:
        """Return where the next literal goes."""
        return SpoolSink(self)

    def append(self, data: bytes) -> tuple[IO[bytes], int]:
        """Write to the file; returns it and where `data` is. `CommandRefused` when the disk is full."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.write(data)
        except OSError:
            raise CommandRefused(
                b"OVERQUOTA", "There is no space to receive this message"
            ) from None
        start, self._end = self._end, self._end + len(data)
        return self._file, start

    def use(self) -> None:
        """Keep the file for one literal more."""
        self._users += 1

    def release(self) -> None:
        """A literal is not wanted any more; the file goes with the last."""
        self._users -= 1
        if not self._users and self._file is not None:
            self._file.close()
            self._file, self._end = None, 0


class SpoolSink:
    """A sink (`wire.framing.LiteralSink`) that takes what memory its `Spool` has left, and goes on in its file."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._chunks: list[bytes] = []
        self._file: tuple[IO[bytes], int] | None = None
        self._in_file = False
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take octets; `CommandRefused` when the disk does not."""
        self._size += len(data)
        if self._in_file:
            self._spool.append(data)
            return
        self._chunks.append(data)
        self._spool.memory -= len(data)
        if self._spool.memory < 0:
            data = b"".join(self._chunks)
            self._forget()
            self._in_file = True
            self._spool.use()
            self._file = self._spool.append(data)

    def finish(self) -> LiteralData:
        """Return the literal whole."""
        if self._file is None:
            return MemoryLiteral(b"".join(self._chunks))
        file, start = self._file
        return SpooledFile(file, self._size, start, self._spool.release)

    def discard(self) -> None:
        """Release what was kept."""
        self._forget()
        if self._in_file:
            self._in_file = False
            self._spool.release()

    def _forget(self) -> None:
        self._spool.memory += sum(map(len, self._chunks))
        self._chunks.clear()
