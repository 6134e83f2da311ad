"""`OpenStrings`: the strings of large messages that are being read in chunks, with their open files.

A client gets the size of a literal before its bytes. If the file was opened by its name for each chunk, a message
that another client or program removes meanwhile could not be sent to the end, and the connection would be reset.
"""

import os
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from threading import Lock

from imapshield.maildir.message_layout import FileSource, LineMapSource, MemorySource, Range

MAX_OPEN_STRINGS = 16
"""Strings of all accounts together. They are part of the open files that no connection may use
(`guard.shares.SPARE_FILES`). If there are more, the one that was not read for longest is opened by its name again."""

MAX_OWN_STRINGS = 8
"""Strings of one account."""

UNUSED_SECONDS = 60.0
"""Seconds after which a string that is not read is closed: its client has left, or reads very slowly."""


class OpenString:
    """A string, and the file that it is read from, which is closed when nobody refers to it any more.

    Attributes:
        string: the string. Its descriptor is valid as long as this object.
        path: the file, for the log.
    """

    def __init__(self, string: Range, fd: int, path: bytes) -> None:
        self._fd = os.dup(fd)
        source = string.source
        if isinstance(source, FileSource | LineMapSource):
            string = string._replace(source=source._replace(fd=self._fd))
        self.string = string
        self.path = path

    def __del__(self) -> None:
        with suppress(AttributeError):  # `os.dup` has failed
            os.close(self._fd)


class OpenStrings:
    """Open strings, of which the least recently read ones are closed. Every thread may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._strings: OrderedDict[tuple[Hashable, Hashable], tuple[OpenString, float]] = (
            OrderedDict()
        )

    def get(self, owner: Hashable, name: Hashable, now: float) -> OpenString | None:
        """Return an open string, None if there is none.

        Args:
            owner: the account.
            name: identifies the string, and who reads it.
            now: seconds since the epoch.
        """
        with self._lock:
            opened, _ = self._strings.pop((owner, name), (None, 0.0))
            if opened is not None:
                self._strings[owner, name] = opened, now
            return opened

    def add(
        self, owner: Hashable, name: Hashable, string: Range, fd: int, path: bytes, now: float
    ) -> None:
        """Keep a string that is read from the open file `fd`; the other arguments are those of `get`."""
        if isinstance(string.source, MemorySource):
            return
        opened = OpenString(string, fd, path)
        with self._lock:
            self._strings.pop((owner, name), None)
            own = [key for key in self._strings if key[0] == owner]
            unused = [key for key, (_, at) in self._strings.items() if now - at > UNUSED_SECONDS]
            for key in {*own[: 1 - MAX_OWN_STRINGS], *unused}:
                del self._strings[key]
            if len(self._strings) >= MAX_OPEN_STRINGS:
                self._strings.popitem(last=False)
            self._strings[owner, name] = opened, now

    def drop(self, owner: Hashable, name: Hashable) -> None:
        """Close a string, because it was read to the end."""
        with self._lock:
            self._strings.pop((owner, name), None)

    def close(self, owner: Hashable) -> None:
        """Close the strings of an account."""
        with self._lock:
            for key in [key for key in self._strings if key[0] == owner]:
                del self._strings[key]

    def close_unused(self, now: float) -> int:
        """Close the strings that were not read for `UNUSED_SECONDS`; return how many remain."""
        with self._lock:
            for key in [key for key, (_, at) in self._strings.items() if now - at > UNUSED_SECONDS]:
                del self._strings[key]
            return len(self._strings)

    def __len__(self) -> int:
        return len(self._strings)
