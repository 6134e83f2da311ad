"""Takes on another user's rights on files, for a block in one thread (Linux only).

SQLite opens the index by path and follows symbolic links. If the server runs as root, the owner of a Maildir could put
a link in place of the index at the right moment, and reach another user's index. So SQLite opens and closes files with
the rights of the owner. ``setfsuid`` changes the rights of the calling thread alone. Supplementary groups stay, so
`service` has none when it runs as root; a program that embeds imapshield and runs as root should do the same.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _load_libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.setfsuid and libc.setfsgid else None
    except (OSError, AttributeError):
        return None


_LIBC = _load_libc()


@contextmanager
def file_rights(uid: int, gid: int) -> Iterator[None]:
    """Run a block with the rights of a user on files; -1 changes nothing."""
    if uid == -1 or _LIBC is None:
        yield
        return
    old_gid = _LIBC.setfsgid(gid)
    old_uid = _LIBC.setfsuid(uid)
    try:
        yield
    finally:
        _LIBC.setfsuid(old_uid)
        _LIBC.setfsgid(old_gid)
