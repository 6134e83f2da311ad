"""`ReadingCheck`: lets the commands of a user wait whose client sends them and does not read the answers.

The kernels of both sides take about 200 KB of answers before the write buffer is full. That is the answers to thousands
of cheap commands: fifty clients that sent NOOP and never read kept the server busy for minutes. The peer's window shows
earlier that nobody reads there (`guard.peer_window`), but only after some thousand NOOPs. So a client that has hundreds
of commands waiting in the kernel shares a little time with all others of its kind, if they are many, until it is known
to read (`guard.unread_work`).

A client that is misjudged loses a hundredth of a second, and one that only pauses no more time than its pause took: it
is judged again by what it has acknowledged since.
"""

from collections.abc import Callable
from typing import Any

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.guard.peer_window import PeerWindow
from imapshield.guard.unread_work import COMMAND_SECONDS, TRUSTED_BYTES, TRUSTED_SECONDS
from imapshield.guard.verdicts import Reset

UNCHECKED_COMMANDS = 50
"""Commands between two looks at the window. Each is a system call, which takes as long as a part of a NOOP."""

FIRST_PAUSE = 0.01
"""Seconds for which the commands of a client wait that has not read. Each further time it is four times as long."""

MAX_PAUSE = 2.0
"""Seconds for which they wait at most, before some more run."""

MANY_COMMANDS = 300
"""Commands that wait in the kernel, besides a full backlog, of a client that must show that it reads."""

PROVEN_BYTES = 1 << 20
"""Bytes that a client has acknowledged that has read most of them: no kernel keeps so many for a program that does not
read. From then on it is only held while its window shows that it has stopped."""

MAX_COUNTED_SECONDS = 0.02
"""Seconds of work that count between two looks. Otherwise a client that has paused would wait for long afterwards,
because of a few long commands."""


class ReadingCheck:
    """Decides how many commands of the client of `owner` may run now.

    Args:
        owner: the protocol that owns the connection.
        wake: called when more commands may run.
    """

    __slots__ = (
        "_counted_seconds",
        "_has_waited",
        "_held_since",
        "_next_check",
        "_owner",
        "_pause",
        "_timer",
        "_trusted_at",
        "_unread_seconds",
        "_wake",
        "_window",
    )

    def __init__(self, owner: ConnectionOwner, wake: Callable[[], object]) -> None:
        self._owner = owner
        self._wake = wake
        self._window = PeerWindow()
        self._next_check = 0
        self._pause = FIRST_PAUSE
        self._held_since: float | None = None
        self._timer: Any = None
        self._counted_seconds = self._unread_seconds = 0.0
        self._has_waited = False
        self._trusted_at = 0  # bytes written; 0 if the client never had to show that it reads

    def allowance(self, started: int, busy_seconds: float) -> int:
        """Return how many commands may run before the next call, after `started`; 0 if they must wait.

        Args:
            started: how many commands of the client have run.
            busy_seconds: how long the server has computed for them.
        """
        if self._timer is not None:
            return 0
        if started < self._next_check:
            return self._next_check - started
        owner, now = self._owner, self._owner.now()
        work = max(busy_seconds - self._counted_seconds, UNCHECKED_COMMANDS * COMMAND_SECONDS)
        self._counted_seconds = busy_seconds
        found = owner.write_buffer.peer_window() if owner.guard.authenticated else None
        reads = True if found is None else self._window.reads(*found)
        if reads is False:
            self._trusted_at, self._unread_seconds = 0, 0.0
            self._hold(now)
            return 0
        if reads:
            self._pause, self._held_since = FIRST_PAUSE, None
        if self._has_waited:
            self._has_waited = False
        elif found is not None and found[0] < PROVEN_BYTES and self._must_show_it(started, work):
            counted = min(work, MAX_COUNTED_SECONDS)
            delay = owner.shared.unread_work.add(owner.reporter.number, counted, now)
            if delay:
                self._has_waited = True
                self._wait(delay)
                return 0
        self._next_check = started + UNCHECKED_COMMANDS
        return UNCHECKED_COMMANDS

    def _must_show_it(self, started: int, work: float) -> bool:
        owner, written = self._owner, self._owner.write_buffer.bytes_written
        if self._held_since is not None:
            return True
        waiting = owner.write_buffer.unread_input() if owner.guard.backlog_full() else 0
        if waiting * (started + owner.guard.pending) < MANY_COMMANDS * owner.bytes_in:
            return False
        if not self._trusted_at:
            self._trusted_at = written + TRUSTED_BYTES
        self._unread_seconds += work
        return written < self._trusted_at and self._unread_seconds < TRUSTED_SECONDS

    def _hold(self, now: float) -> None:
        owner, limit = self._owner, self._owner.limits.stalled_seconds
        if self._held_since is None:
            self._held_since = now
        seconds = now - self._held_since
        if seconds >= limit and owner.guard.backlog_full():
            owner.apply_verdict(Reset("stalled_seconds", limit, seconds))
        else:
            self._wait(self._pause)
            self._pause = min(4 * self._pause, MAX_PAUSE)

    def _wait(self, seconds: float) -> None:
        self._timer = self._owner.callLater(seconds, self._continue)

    def _continue(self) -> None:
        self._timer = None
        self._wake()

    def stop(self) -> None:
        """Stop waiting, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
