"""`open_regular`: opens a file that an operator has named, and never waits for a writer as a FIFO makes it."""

import errno
import os
import stat
from io import BufferedReader


def open_regular(path: str) -> BufferedReader:
    """Open a regular file for reading.

    The ``open`` of a FIFO waits until somebody writes, which may be never: in the reactor for all clients, and in a
    thread for the end of the process.

    Raises:
        OSError: it cannot be opened, or is a directory, a FIFO, a device or a socket.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return open(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "Not a regular file", path)
