"""`CommandRunner`: executes the commands of a connection's backlog, one at a time, in fair turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imapshield.edge.served_session import ServedSession
from imapshield.edge.write_buffer import WriteBuffer
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.limits import Limits
from imapshield.wire import encode

_CONTINUATION = encode.continuation("Go ahead")


class RunnerHost(Protocol):
    """What `CommandRunner` needs of the protocol that owns the connection."""

    def command_finished(self) -> None:
        """Continue after a command was answered."""

    def command_interrupted(self, failure: Failure) -> None:
        """Handle an exception that the session did not handle."""


class CommandRunner:
    """Takes commands off the guard's backlog and has the session execute them.

    Commands run in batches of at most `commands_per_turn` commands and about `turn_seconds`; then other connections
    have their turn. The responses of a batch are one write. While the write buffer is full, no command is taken off
    the backlog, so a client that never reads fills its backlog and is reset.

    Args:
        host: the protocol that owns the connection.
        session: executes the commands.
        guard: holds the backlog.
        write_buffer: takes the continuation requests.
        limits: `commands_per_turn` and `turn_seconds`.
        now: the reactor's `seconds`.
        schedule: runs work when it is this connection's turn.

    Attributes:
        commands: how many commands were taken off the backlog.
    """

    def __init__(
        self,
        host: RunnerHost,
        session: ServedSession,
        guard: ConnectionGuard,
        write_buffer: WriteBuffer,
        limits: Limits,
        now: Callable[[], float],
        schedule: Callable[[Callable[[], object]], object],
    ) -> None:
        self.commands = 0
        self._host = host
        self._session = session
        self._guard = guard
        self._write_buffer = write_buffer
        self._limits = limits
        self._now = now
        self._schedule = schedule
        self._scheduled = False
        self._stopped = False
        self._received = 0
        self._continuations_due = 0
        self._late_continuations: dict[int, int] = {}  # by number of the command

    def command_received(self) -> None:
        """Note that a complete command has gone to the backlog."""
        self._received += 1
        if self._continuations_due:
            # The client did not wait for its continuation requests. They are still sent before the tagged response.
            self._late_continuations[self._received] = self._continuations_due
            self._continuations_due = 0
        self.wake()

    def request_continuation(self) -> None:
        """Send a continuation request (``+``) for a literal, after the responses to all earlier commands."""
        self._continuations_due += 1
        self.wake()

    def wake(self) -> None:
        """Schedule a batch, unless one is scheduled."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._schedule(self._run_batch)

    def stop(self) -> None:
        """Run nothing more, because the connection ends."""
        self._stopped = True

    def _run_batch(self) -> None:
        self._scheduled = False
        self._write_buffer.defer_flush()
        deadline = self._now() + self._limits.turn_seconds
        for _ in range(self._limits.commands_per_turn):
            if self._stopped or self._write_buffer.full:
                break
            if self._write_buffer.flush_due or self._now() > deadline:
                self.wake()
                break
            if not self._run_next():
                break
        else:
            self.wake()
        if self._continuations_due and not self._guard.busy:
            self._write_continuations(self._continuations_due)
            self._continuations_due = 0
        self._write_buffer.flush()

    def _run_next(self) -> bool:
        """Run the next command, and return whether it finished at once."""
        command = self._guard.next_command()
        if command is None:
            return False
        self.commands += 1
        self._write_continuations(self._late_continuations.pop(self.commands, 0))
        done = Deferred.fromCoroutine(self._session.run(command))
        done.addErrback(self._host.command_interrupted)
        if not done.called:
            done.addCallback(self._finished_later)
            return False
        self._finished()
        return True

    def _finished(self) -> None:
        self._guard.command_finished()
        self._host.command_finished()

    def _finished_later(self, _: object) -> None:
        self._finished()
        self.wake()

    def _write_continuations(self, count: int) -> None:
        for _ in range(count):
            self._write_buffer.write(_CONTINUATION)
