"""`ReadingCheck`: lets the commands of a user wait whose client sends them and does not read the answers.

The kernels of both sides take about 200 KB of answers before the write buffer is full. That is the answers to thousands
of cheap commands: fifty clients that sent NOOP and never read kept the server busy for minutes. The peer's window shows
much earlier that nobody reads there (`guard.peer_window`).

A client that is misjudged loses a hundredth of a second, and one that only pauses no more time than its pause took: it
is judged anew by what it has acknowledged since.
"""

from collections.abc import Callable
from typing import Any

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.guard.peer_window import PeerWindow
from imapshield.guard.verdicts import Reset

UNCHECKED_COMMANDS = 50
"""Commands between two looks at the window. Each is a system call, which takes as long as a part of a NOOP."""

FIRST_PAUSE = 0.01
"""Seconds for which the commands of a client wait that has not read. Each further time it is four times as long."""

MAX_PAUSE = 2.0
"""Seconds for which they wait at most, before some more run."""


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
        self._held_since: float | None = None
        self._timer: Any = None

    def allowance(self, started: int) -> int:
        """Return how many commands may run before the next call, after `started`; 0 if they must wait."""
        if self._timer is not None:
            return 0
        if started < self._next_check:
            return self._next_check - started
        self._next_check = started + UNCHECKED_COMMANDS
        owner = self._owner
        found = owner.write_buffer.peer_window() if owner.guard.authenticated else None
        reads = True if found is None else self._window.reads(*found)
        if reads is False:
            self._hold(owner.now())
            return 0
        if reads:
            self._pause, self._held_since = FIRST_PAUSE, None
        return UNCHECKED_COMMANDS

    def _hold(self, now: float) -> None:
        owner, limit = self._owner, self._owner.limits.stalled_seconds
        if self._held_since is None:
            self._held_since = now
        seconds = now - self._held_since
        if seconds >= limit and owner.guard.backlog_full():
            owner.apply_verdict(Reset("stalled_seconds", limit, seconds))
        else:
            self._timer = owner.callLater(self._pause, self._continue)
            self._pause = min(4 * self._pause, MAX_PAUSE)

    def _continue(self) -> None:
        self._timer = None
        self._wake()

    def stop(self) -> None:
        """Stop waiting, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
