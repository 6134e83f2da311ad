"""What is kept of large messages after a FETCH, because clients fetch them in pieces, with a command for each piece.

A layout (`message_layout`) makes it possible to read a piece from the message's file. The content of a compressed file,
and of an encoded part for BINARY, is kept in a temporary file.

All accounts share one `LargeMessages`, which bounds the memory of the layouts. Temporary files are bounded for each
account and for all together. One that is in use is not closed for another account: otherwise, both downloads would
decode the whole again for each piece.
"""

import tempfile
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from threading import Lock

from imapshield.maildir import files
from imapshield.maildir.message_layout import Layout, LayoutKey, Source
from imapshield.maildir.open_strings import OpenStrings

MAX_LAYOUT_BYTES = 16 << 20
"""Bytes of memory of all layouts. That of a message of 24 MB has 14 KB, and 250 bytes for each part."""

MAX_TEMPORARY_FILES = 2
"""Temporary files of one account: the content of a compressed message, and a part of it that is decoded."""

MAX_OPEN_FILES = 24
"""Temporary files of all accounts together. They are part of the open files that no connection may use
(`guard.shares.SPARE_FILES`). If all of them are in use, another one is not kept, and each of its pieces takes as long
as the whole."""

BUSY_SECONDS = 1.0
"""Seconds for which a temporary file counts as in use after a piece of it was read."""

UNUSED_SECONDS = 60.0
"""Seconds after which a temporary file that is not used is closed, as soon as another one is made."""


class TemporaryFile:
    """Bytes in a temporary file, which is closed when nobody refers to it any more.

    Args:
        content: the bytes, in chunks.

    Raises:
        OSError: the file cannot be written. Then it is closed already.
    """

    def __init__(self, content: Iterable[bytes]) -> None:
        # Without a buffer, because the descriptor is used.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is closed below
        self.size = 0
        for octets in content:
            files.write_all(self._file.fileno(), octets)
            self.size += len(octets)

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, fewer only at the end."""
        return files.read_range(self._file.fileno(), start, size)

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._file.close()


class LargeMessages:
    """Layouts and temporary files, of which the least recently used ones are dropped. Every thread may use it.

    Attributes:
        strings: the strings that are being read.
    """

    def __init__(self) -> None:
        self.strings = OpenStrings()
        self._lock = Lock()
        self._layouts: OrderedDict[LayoutKey, tuple[Layout, int]] = OrderedDict()
        self._files: OrderedDict[tuple[Hashable, Hashable], tuple[TemporaryFile, float]] = (
            OrderedDict()
        )
        self.memory = 0
        """Bytes of memory of the layouts."""

    def layout(self, key: LayoutKey) -> Layout | None:
        """Return a layout, None if there is none."""
        with self._lock:
            if key not in self._layouts:
                return None
            self._layouts.move_to_end(key)
            return self._layouts[key][0]

    def add_layout(self, key: LayoutKey, layout: Layout) -> None:
        """Keep a layout, in place of the one that has the same key."""
        memory = layout.memory
        with self._lock:
            self.memory += memory - self._layouts.pop(key, (None, 0))[1]
            self._layouts[key] = layout, memory
            while self.memory > MAX_LAYOUT_BYTES:
                self.memory -= self._layouts.popitem(last=False)[1][1]

    def file(self, owner: Hashable, name: Hashable, now: float) -> TemporaryFile | None:
        """Return a temporary file, None if there is none.

        Args:
            owner: the account.
            name: identifies the content.
            now: seconds since the epoch.
        """
        key = owner, name
        with self._lock:
            if key not in self._files:
                return None
            file, _ = self._files.pop(key)
            self._files[key] = file, now
            return file

    def add_file(self, owner: Hashable, name: Hashable, file: TemporaryFile, now: float) -> None:
        """Keep a temporary file, unless too many are in use; the arguments are those of `file`."""
        with self._lock:
            own = [key for key in self._files if key[0] == owner]
            unused = [key for key, (_, at) in self._files.items() if now - at > UNUSED_SECONDS]
            for key in {*own[: 1 - MAX_TEMPORARY_FILES], *unused}:
                del self._files[key]
            if len(self._files) >= MAX_OPEN_FILES:
                oldest, (_, at) = next(iter(self._files.items()))
                if now - at < BUSY_SECONDS:
                    return
                del self._files[oldest]
            self._files[owner, name] = file, now

    def drop_file(self, owner: Hashable, file: Source) -> None:
        """Do not keep a temporary file any longer, because it was read to the end."""
        with self._lock:
            for key in [k for k, (f, _) in self._files.items() if f is file and k[0] == owner]:
                del self._files[key]

    def close(self, owner: Hashable) -> None:
        """Drop the temporary files and open strings of an account."""
        self.strings.close(owner)
        with self._lock:
            for key in [key for key in self._files if key[0] == owner]:
                del self._files[key]

    def file_count(self, owner: Hashable) -> int:
        """Return the number of temporary files of an account."""
        with self._lock:
            return sum(key[0] == owner for key in self._files)
