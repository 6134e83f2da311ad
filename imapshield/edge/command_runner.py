"""`CommandRunner`: executes the commands of a connection's backlog, one at a time, in fair turns."""

from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.edge.reading_check import UNCHECKED_COMMANDS, ReadingCheck
from imapshield.edge.session_io import ServedSession
from imapshield.guard.verdicts import Accepted
from imapshield.wire import encode
from imapshield.wire.traits import log_name

REPORT_SECONDS = 0.001
"""Time of a connection that is added to that of its user at once: adding it takes as long as many a step."""

_CONTINUATION = encode.continuation("Go ahead")


class _Running(NamedTuple):
    """A command that waits for something."""

    coroutine: Coroutine[Any, Any, None]
    context: Context
    name: bytes


class CommandRunner:
    """Takes commands off the guard's backlog and has the session execute them.

    Commands run in batches of at most `commands_per_turn` commands and about `turn_seconds`; then other connections
    have their turn. The responses of a batch are one write. While the write buffer is full, no command is taken off
    the backlog. A client that never reads therefore fills its backlog: before login the next command resets the
    connection; after login reading pauses, and `WriteTimeout` resets the connection. `ReadingCheck` lets the commands
    of such a user wait long before the write buffer is full.

    Args:
        owner: the protocol that owns the connection, with its guard and its write buffer.
        session: executes the commands.

    Attributes:
        started: how many commands were executed or are running.
        waits_for_input: whether no command begins until the rest of what has arrived is processed. If that leads to a
            reset, none of the commands in it is executed.
        busy_seconds: how long the server has computed for them, see `events.ActivityEvent`.
    """

    def __init__(self, owner: ConnectionOwner, session: ServedSession) -> None:
        self.started = self._reported_commands = 0
        self.busy_seconds = self._reported_seconds = 0.0
        self._last_names = b"", b"", b""  # of the last three commands, the last one last
        self._owner = owner
        self._session = session
        self._scheduled = self.waits_for_input = False
        self._reading: ReadingCheck | None = None
        self._received = 0
        self._continuations_due = 0
        # By the value of `started` while the command runs.
        self._late_continuations: dict[int, int] = {}

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
        if not self._scheduled and not self._owner.closed:
            self._scheduled = True
            self._owner.schedule(self._run_batch)

    def _run_batch(self) -> None:
        self._scheduled = False
        if self.waits_for_input:
            self.wake()
            return
        now, limits, write_buffer = self._owner.now, self._owner.limits, self._owner.write_buffer
        write_buffer.begin_turn()
        # No command is finished between two batches, so this is the exact peak.
        pending, reporter = self._owner.guard.pending, self._owner.reporter
        if pending > reporter.most_pending:  # noqa: PLR1730 (a call of max takes longer)
            reporter.most_pending = pending
        started_at = now()
        deadline = started_at + limits.turn_seconds
        allowed = min(limits.commands_per_turn, self._allowance())
        for _ in range(allowed):
            if self._owner.closed or write_buffer.full or write_buffer.within_response:
                break
            if now() > deadline:
                self.wake()
                break
            if not self._run_next():
                break
        else:
            if allowed:  # otherwise `ReadingCheck` calls it
                self.wake()
        may_ask = not (self._owner.guard.busy or write_buffer.within_response)
        if self._continuations_due and may_ask:
            write_buffer.write(_CONTINUATION * self._continuations_due)
            self._continuations_due = 0
            self._owner.restart_timeout()
        write_buffer.flush()
        self.count_seconds(self._owner.now() - started_at)

    def _allowance(self) -> int:
        if self.started < UNCHECKED_COMMANDS:
            return UNCHECKED_COMMANDS
        if self._reading is None:  # most connections never need it
            self._reading = ReadingCheck(self._owner, self.wake)
        return self._reading.allowance(self.started, self.busy_seconds)

    def stop(self) -> None:
        """Stop, because the connection has ended."""
        if self._reading is not None:
            self._reading.stop()

    def _run_next(self) -> bool:
        """Run the next command, and return whether it finished at once."""
        command = self._owner.guard.next_command()
        if command is None:
            return False
        self.started += 1
        late_continuations = self._late_continuations.pop(self.started, 0)
        if late_continuations:
            self._owner.write_buffer.write(_CONTINUATION * late_continuations)
        self._last_names = *self._last_names[1:], command.name
        coroutine = self._session.run(command)
        # Its variables, such as `mailbox.request.current_request`, are not those of other connections.
        context = copy_context()
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration:
            pass
        except Exception:
            self._owner.session_failed(Failure(), command.name.decode("ascii"))
        else:
            self._wait(awaited, _Running(coroutine, context, command.name))
            return False
        self._finished()
        return True

    def _wait(self, awaited: Deferred[Any], running: _Running) -> None:
        """Continue a command when the Deferred that it awaits fires.

        A Deferred for the whole command (`Deferred.fromCoroutine`) would take a kilobyte of each client in IDLE.
        """
        self._owner.memory.output_changed()  # what the command holds while it waits
        awaited.addBoth(self._continue, running)

    def _continue(self, result: Any, running: _Running) -> None:
        """Run the next step of a command, and count its time."""
        step: Callable[..., Any]
        step, argument = running.coroutine.send, result
        if isinstance(result, Failure):
            step, argument = result.throwExceptionIntoGenerator, running.coroutine
        started_at = self._owner.now()
        try:
            awaited = running.context.run(step, argument)
        except StopIteration:
            pass
        except BaseException:
            self._owner.session_failed(Failure(), running.name.decode("ascii"))
        else:
            self._wait(awaited, running)
            return
        finally:
            del result, step  # they may refer to an exception, whose traceback refers to this frame
            self.count_seconds(self._owner.now() - started_at)
        self._finished()
        self.wake()

    def count_seconds(self, seconds: float) -> None:
        """Count `seconds` for which the server has computed for the commands."""
        self.busy_seconds += seconds
        if self.busy_seconds - self._reported_seconds >= REPORT_SECONDS:
            self._report()

    def measure(self) -> dict[str, Any]:
        """Return the fields of `events.ActivityEvent` that are about commands."""
        return {
            "commands": self.started + self._owner.guard.not_started,
            "executed": self.started,
            "busy": self.busy_seconds,
            "last_commands": tuple([log_name(name) for name in self._last_names if name]),
        }

    def _report(self) -> None:
        owner, reporter = self._owner, self._owner.reporter
        seconds = self.busy_seconds - self._reported_seconds
        commands = self.started - self._reported_commands
        self._reported_seconds, self._reported_commands = self.busy_seconds, self.started
        owner.shared.working.add(owner)
        if owner.guard.authenticated:
            add = owner.shared.busy_users.add
            values = reporter.user, seconds, commands, reporter.peer, reporter.number
            owner.shared.admission.report_busy(add(*values, owner.now()))

    def _finished(self) -> None:
        owner = self._owner
        verdict = owner.guard.command_finished()
        if not owner.closed:
            owner.restart_timeout()
            if type(verdict) is not Accepted:
                owner.apply_verdict(verdict)
        owner.update_reading()
