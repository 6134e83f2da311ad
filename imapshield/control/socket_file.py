"""The file of the control socket: where it is, and whether a server is behind it."""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress

from imapshield.control.request_lines import ControlError

NAME = "control"

SYSTEM_PATH = "/run/imapshield/control"
"""The path if systemd starts the server with ``RuntimeDirectory=imapshield``, as the unit in contrib/ does."""

MAX_PATH = 107
"""Bytes that a path of a socket may have on Linux (unix(7))."""


def server_path(environ: Mapping[str, str], folder: str) -> str:
    """Return where a server without ``--control`` listens: in systemd's ``$RUNTIME_DIRECTORY``, or in `folder`."""
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or folder
    return os.path.join(directory, NAME)


def client_path(folder: str) -> str:
    """Return where a command without ``--control`` asks: the user's own server, or that of the system."""
    own = os.path.join(folder, NAME)
    return own if os.path.exists(own) or not os.path.exists(SYSTEM_PATH) else SYSTEM_PATH


def make_room(path: str) -> None:
    """Remove the socket that a killed server has left at `path`.

    Raises:
        ControlError: a server is behind it, or the path cannot be used.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ControlError(f"{path}: longer than {MAX_PATH} bytes; name a shorter path")
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ControlError(f"{path}: exists, and is not a socket; name another path")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}; name another path") from None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise ControlError(f"{path}: {error.strerror}; name another path") from None
        else:
            raise ControlError(f"{path}: another server uses it; name another path")
    with suppress(OSError):
        os.unlink(path)
