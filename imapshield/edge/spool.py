"""A literal while it arrives: in memory up to a size, in an unnamed temporary file above it."""

from __future__ import annotations

import tempfile
from typing import IO

from imapshield.errors import Refused
from imapshield.wire.commands import Memory, Octets


class SpooledFile:
    """A literal's octets in a file that has no name and goes with its last user."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.size = size
        self.binary = False

    def read(self, offset: int, size: int) -> bytes:
        """See `wire.commands.Octets`."""
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


class Spool:
    """A sink (`wire.framing.Sink`) that keeps at most `memory` octets in memory; `folder` None is the system's."""

    def __init__(self, memory: int, folder: str | None = None) -> None:
        self._memory = memory
        self._folder = folder
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take octets; `Refused` when the disk does not."""
        self._size += len(data)
        if self._file is None:
            self._chunks.append(data)
            if self._size <= self._memory:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.write(data)
        except OSError:
            raise Refused(b"OVERQUOTA", "There is no space to receive this message") from None

    def finish(self) -> Octets:
        """Return the literal whole."""
        if self._file is None:
            return Memory(b"".join(self._chunks))
        return SpooledFile(self._file, self._size)

    def discard(self) -> None:
        """Release what was kept."""
        self._chunks.clear()
        if self._file is not None:
            self._file.close()
