"""`replace_file`: writes a file that readers see as a whole: the old one or the new one, also after a power failure."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress


def replace_file(
    path: str, content: bytes, prepare: Callable[[int], object] = lambda _: None
) -> None:
    """Write a file beside its place, and rename it.

    Args:
        path: the file. If it is a symbolic link, the file that it names is replaced.
        content: its content.
        prepare: called with the open file, whose mode is 0600, to set its owner and mode.

    Raises:
        OSError: that is not possible. The old file is unchanged, unless only its directory could not be synced.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    fd, temporary = tempfile.mkstemp(prefix=".imapshield-", dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            prepare(fd)
            os.fsync(fd)
        os.rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
