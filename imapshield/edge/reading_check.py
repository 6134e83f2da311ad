"""`ReadingCheck`: lets the commands of a user wait whose client sends them and does not read the answers.

The kernels of both sides take about 200 KB of answers before the write buffer is full. That is the answers to thousands
of cheap commands: fifty clients that sent NOOP and never read kept the server busy for minutes. The peer's window shows
much earlier that nobody reads there (`guard.peer_window`).

A client that only pauses loses no more time than its pause took: an answer now and then makes its TCP acknowledge, and
the window in that shows that it reads again.
"""

from collections.abc import Callable
from typing import Any

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.guard.peer_window import PeerWindow
from imapshield.guard.verdicts import Reset

UNCHECKED_COMMANDS = 50
"""Commands between two looks at the window. Each is a system call, which takes as long as a part of a NOOP."""

FIRST_PAUSE = 0.01
"""Seconds until the first command of a client that does not read. Twice as many pass before the next, and so on."""

MAX_PAUSE = 1.0
"""Seconds between two commands of such a client at most."""


class ReadingCheck:
    """Decides how many commands of the client of `owner` may run now.

    Args:
        owner: the protocol that owns the connection.
        wake: called when more commands may run.
    """

    __slots__ = ("_held_since", "_next_check", "_owner", "_pause", "_timer", "_wake", "_window")

    def __init__(self, owner: ConnectionOwner, wake: Callable[[], object]) -> None:
        self._owner = owner
        self._wake = wake
        self._window = PeerWindow()
        self._next_check = 0
        self._pause = FIRST_PAUSE
        self._held_since = 0.0
        self._timer: Any = None

    def allowance(self, started: int) -> int:
        """Return how many commands may run before the next call, after `started`; 0 if they must wait."""
        if self._timer is not None:
            return 0
        if started < self._next_check:
            return self._next_check - started
        if self._reads():
            self._pause = FIRST_PAUSE
            self._next_check = started + UNCHECKED_COMMANDS
            return UNCHECKED_COMMANDS
        owner = self._owner
        if self._pause == FIRST_PAUSE:
            self._held_since = owner.now()
        self._next_check = started + 1
        self._timer = owner.callLater(self._pause, self._continue)
        self._pause = min(2 * self._pause, MAX_PAUSE)
        return 0

    def _reads(self) -> bool:
        owner = self._owner
        found = owner.write_buffer.peer_window() if owner.guard.authenticated else None
        return found is None or self._window.reads(*found)

    def _continue(self) -> None:
        self._timer, owner = None, self._owner
        seconds, limit = owner.now() - self._held_since, owner.limits.stalled_seconds
        if seconds >= limit and owner.guard.backlog_full() and not self._reads():
            owner.apply_verdict(Reset("stalled_seconds", limit, seconds))
        self._wake()

    def stop(self) -> None:
        """Stop waiting, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
