"""Runs programs that need a terminal, and types into them."""

from __future__ import annotations

import os
import pty
import select
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

QUIET_SECONDS = 0.3
"""A program that has drawn nothing for this long has finished its prompt.

alpine discards what is typed before its prompt is complete.
"""


class TerminalRun(NamedTuple):
    """The result of a program: its wait status, everything it drew, and the replies that were never typed."""

    status: int
    screen: bytes
    unmet: list[tuple[bytes, bytes]]


def run_in_terminal(
    command: Sequence[str],
    replies: Sequence[tuple[bytes, bytes]],
    *,
    folder: str,
    environment: Mapping[str, str],
    timeout: float,
) -> TerminalRun:
    """Run a program in a terminal of 80 columns and 24 lines until it ends; kill it after `timeout` seconds.

    Args:
        replies: pairs of a text to wait for on the screen, in this order, and the keys to type once the
            screen is quiet.
        folder: the working directory.
        environment: variables in addition to those of this process.
    """
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update(TERM="xterm", LINES="24", COLUMNS="80", LC_ALL="C.UTF-8", **environment)
        os.chdir(folder)
        os.execvp(command[0], tuple(command))
    killer = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
    killer.start()
    screen = _Screen(terminal)
    unmet = list(replies)
    position = 0
    try:
        while screen.read(timeout):
            while unmet and (found := screen.drawn.find(unmet[0][0], position)) >= 0:
                text, keys = unmet.pop(0)
                position = found + len(text)
                while screen.read(QUIET_SECONDS):
                    pass
                os.write(terminal, keys)
    except OSError:
        pass  # Linux reports EIO once the program has closed its side of the terminal
    finally:
        _, status = os.waitpid(pid, 0)
        killer.cancel()
        os.close(terminal)
    return TerminalRun(status, screen.drawn, unmet)


class _Screen:
    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.drawn = b""

    def read(self, seconds: float) -> bytes:
        """Read what the program draws next; b"" if it draws nothing for `seconds`, or has ended."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return b""
        data = os.read(self._terminal, 65536)
        self.drawn += data
        return data
