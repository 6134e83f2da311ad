"""`replace_file`: writes a file that readers see as a whole: the old one or the new one, also after a power failure."""

import os
import secrets
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
    folder, name = os.path.split(target)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        replace_file_in(folder_fd, name, content, prepare)
    except OSError as error:
        if error.filename is not None:
            error.filename = os.path.join(folder, error.filename)
        raise
    finally:
        os.close(folder_fd)


def replace_file_in(
    folder: int, name: str, content: bytes, prepare: Callable[[int], object] = lambda _: None
) -> None:
    """Write a file of an open directory. A symbolic link of that name is replaced, and not followed.

    Args:
        folder: the descriptor of the directory.
        name: the name of the file in it.
        content: its content.
        prepare: called with the open file, whose mode is 0600, to set its owner and mode.

    Raises:
        OSError: as `replace_file`.
    """
    temporary = f".imapshield-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            prepare(fd)
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    folder_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
