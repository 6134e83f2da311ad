"""`BanCommand`: passes bans to the program of ``--ban-command``, for example to a firewall.

Rules
-----
* The program is called as ``PROGRAM ban NETWORK SECONDS`` or ``PROGRAM unban NETWORK``, without a shell. The arguments
  are made by this server: a client has no influence on their form.
* One process runs at a time, and is killed after `TIMEOUT_SECONDS`. What waits is bounded (`BanQueue`).
* A trusted network is never passed on, nor is a ban for strangers only, because honest users have the same address.
* A failure is logged. The server enforces its bans whether the program works or not.
"""

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.events import printable
from imapshield.guard.ban_queue import BanQueue
from imapshield.guard.bans import Ban
from imapshield.guard.networks import NetworkSet, describe

TIMEOUT_SECONDS = 10.0
"""Seconds after which the program is killed."""

STOP_SECONDS = 1.0
"""Seconds after which a process is killed that still runs when the server stops."""

PAUSE_SECONDS = 1.0
"""Seconds after a failure until the program is called again."""

LOG_SECONDS = 60.0
"""Seconds between two lines about failures."""

MAX_OUTPUT = 200
"""Bytes of the program's output that a line about a failure shows."""


def parse_command(text: str) -> list[str]:
    """Split the value of ``--ban-command`` into a program and its first arguments, as a shell would.

    Raises:
        ValueError: the program cannot be executed; with one line that says so.
    """
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text}: {error}; add the missing quotation mark") from None
    program = shutil.which(command[0]) if command else None
    if program is None:
        exists = bool(command) and os.path.isfile(command[0])
        raise ValueError(
            f"{text}: is not executable; run `chmod +x {shlex.quote(command[0])}`"
            if exists
            else f"{text}: no such program; name an executable file"
        )
    return [os.path.abspath(program), *command[1:]]


class BanCommand:
    """Runs the program for each ban, one after the other.

    Args:
        command: the program and its first arguments.
        trusted: networks that are never passed on.
        reactor: an `IReactorProcess` and `IReactorTime`.
        now: returns the time of which ``Ban.until`` is a value.

    Attributes:
        trusted: as above. They may be changed.
    """

    _log = Logger(namespace="imapshield")

    def __init__(
        self,
        command: Sequence[str],
        trusted: NetworkSet,
        *,
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self._command, self.trusted = tuple(command), trusted
        self._reactor, self._now = reactor, now
        self._queue = BanQueue()
        self._running: _Run | None = None
        self._next_call: Any = None
        self._failures = 0
        self._next_log = now()
        self._stopped: Deferred[None] | None = None

    def ban(self, ban: Ban) -> None:
        """Pass on a ban. For `Admission.on_ban` and `GuardState.on_ban`."""
        if not ban.strangers_only and not self.trusted.overlaps(ban.network):
            self._queue.ban(describe(ban.network), ban.until)
            self._run_next()

    def unban(self, network: str) -> None:
        """Pass on that the ban of a network was ended by hand. For `GuardState.on_unban`."""
        self._queue.unban(network)
        self._run_next()

    def stop(self) -> Deferred[None]:
        """Forget what waits; fires when no process runs any more, after `STOP_SECONDS` at most."""
        self._queue.clear()
        if self._next_call is not None:
            self._next_call.cancel()
        run = self._running
        if run is None:
            return succeed(None)
        if run.timeout is not None:
            run.timeout.cancel()
            run.timeout = self._reactor.callLater(STOP_SECONDS, run.kill)
        self._stopped = Deferred()
        return self._stopped

    def _run_next(self) -> None:
        if self._running is not None or self._next_call is not None:
            return
        arguments = self._queue.next(self._now())
        if arguments is None:
            return
        run = self._running = _Run(arguments, self._ended)
        argv = [*self._command, *arguments]
        environ = {"PATH": os.environ.get("PATH", os.defpath)}
        try:
            self._reactor.spawnProcess(run, argv[0], argv, environ)
        except Exception as error:  # fork and pipe may fail
            self._ended(run, f"it cannot be started: {error}")
        else:
            run.timeout = self._reactor.callLater(TIMEOUT_SECONDS, run.kill)

    def _ended(self, run: "_Run", problem: str | None) -> None:
        self._running = None
        if problem is not None:
            self._failures += 1
            self._log_failure(run, problem)
        if self._stopped is not None:
            self._stopped.callback(None)
        elif len(self._queue) or problem is not None:
            delay = 0 if problem is None else PAUSE_SECONDS
            self._next_call = self._reactor.callLater(delay, self._resume)

    def _resume(self) -> None:
        self._next_call = None
        self._run_next()

    def _log_failure(self, run: "_Run", problem: str) -> None:
        if self._now() < self._next_log:
            return
        self._log.warn(
            "--ban-command failed: {problem}; output: {output}; to see why, run it as this user: {command};"
            " failures since the last such line: {failures}; dropped: {dropped}",
            problem=problem,
            command=shlex.join([*self._command, *run.arguments]),
            output=printable(run.output, MAX_OUTPUT) or "none",
            failures=self._failures,
            dropped=self._queue.dropped,
        )
        self._failures = self._queue.dropped = 0
        self._next_log = self._now() + LOG_SECONDS


class _Run(ProcessProtocol):
    """One process. It calls `ended` once, with what went wrong, or None."""

    def __init__(
        self, arguments: Sequence[str], ended: Callable[["_Run", str | None], object]
    ) -> None:
        self.transport: Any = None
        self.arguments = arguments
        self.output = b""
        self.timeout: Any = None
        self._ended = ended
        self._killed = False

    def connectionMade(self) -> None:
        self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: ARG002
        self.output = (self.output + data)[: MAX_OUTPUT + 1]

    def kill(self) -> None:
        """Kill the process, because it takes too long."""
        self.timeout, self._killed = None, True
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def processExited(self, reason: Failure) -> None:
        # A child that the program has left in the background may keep the pipes open: do not wait for it.
        self.transport.loseConnection()
        if self.timeout is not None:
            self.timeout.cancel()
        if self._killed:
            self._ended(self, f"killed after {TIMEOUT_SECONDS:g} seconds")
        else:
            end: Any = reason.value
            ended = f"signal {end.signal}" if end.signal else f"exit status {end.exitCode}"
            self._ended(self, None if reason.check(ProcessDone) else ended)
