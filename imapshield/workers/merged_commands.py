"""The commands of the control socket about connections and bans, for all workers together."""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from imapshield.admin.monitor import process_memory
from imapshield.command_output import counted
from imapshield.control.arguments import MAX_LISTED
from imapshield.control.commands import BanCommands, ConnectionCommands
from imapshield.control.request_lines import ControlError, Request
from imapshield.control.trace import DEFAULT_SECONDS, MAX_WAITING
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.guard.networks import Network, describe
from imapshield.workers.link_messages import Ask
from imapshield.workers.supervisor import Supervisor, WorkerProcess
from imapshield.workers.worker_operator import RESET_BANNED, USERS_IN

SUMS = ("connections", "without_login", "pending_commands", "memory_of_connections")
"""What `status` adds up. The rest is that of the supervising process."""

SUMS_OF_ALL = ("max_connections", "max_memory")
"""The same if all workers answer. Until then, what is configured: a worker that starts is to serve its part."""


class MergedConnections:
    """Commands about the connections of all workers.

    Args:
        supervisor: has the workers.
        own: those of the supervising process.
        now: returns seconds of a monotonic clock.
    """

    def __init__(
        self, supervisor: Supervisor, own: ConnectionCommands, now: Callable[[], float]
    ) -> None:
        self._supervisor, self._own, self._now = supervisor, own, now

    async def status(self, request: Request) -> dict[str, Any]:
        """Return what the server is doing, with one row for each worker."""
        status, (answers, _) = await self._own.status(request), await self._ask(request)
        by_worker, supervisor = dict(answers), self._supervisor
        sums: dict[str, Any] = {
            name: sum(each[name] for each in by_worker.values())
            for name in (SUMS if len(by_worker) < len(supervisor.workers) else SUMS + SUMS_OF_ALL)
        }
        problems = [text for each in by_worker.values() for text in each["login_problems"]]
        sums["login_problems"] = [*dict.fromkeys(problems)]
        workers = [self._row(each, by_worker.get(each, {})) for each in supervisor.workers]
        return {**status, **sums, "workers": workers}

    def _row(self, worker: WorkerProcess, status: dict[str, Any]) -> dict[str, Any]:
        now, is_running = self._now(), worker.is_running
        return {
            "worker": worker.number,
            "pid": worker.pid if is_running else 0,
            "serves": worker.is_ready,
            "seconds": round(now - worker.begun, 1) if is_running else 0.0,
            "silent": round(now - worker.heard, 1) if is_running else 0.0,
            "starts": worker.starts,
            "connections": status.get("connections", 0),
            "pending_commands": status.get("pending_commands", 0),
            "memory": process_memory(worker.pid) if is_running else 0,
        }

    async def who(self, request: Request) -> list[dict[str, Any]]:
        """Return the connections of all workers; most pending commands first."""
        answers, _ = await self._ask(request)
        rows = [row for _, answer in answers for row in answer]
        rows.sort(key=lambda row: -row["pending"])
        return rows[: request.get("number", MAX_LISTED)]

    async def kick(self, request: Request) -> int:
        """Reset connections in all workers."""
        answers, errors = await self._ask(request)
        if not answers:
            raise errors[0] if errors else ControlError("no worker answers; look at the log")
        return sum(number for _, number in answers)

    async def close_account(self, request: Request) -> bool:
        """Close the mail of a user in all workers, and return whether it was open in one.

        Raises:
            ControlError: one of them has not closed it.
        """
        answers, errors = await self._ask(request)
        if errors or len(answers) < len(self._supervisor.running):
            raise errors[0] if errors else ControlError("a worker does not answer; look at the log")
        return any(was_open for _, was_open in answers)

    async def _ask(
        self, request: Request
    ) -> tuple[list[tuple[WorkerProcess, Any]], list[ControlError]]:
        return await self._supervisor.ask_all(request.command, request.arguments)

    async def trace(self, request: Request) -> AsyncGenerator[object, None]:
        """Yield the lines of the traces of all workers."""
        who, seconds = request.get("who"), request.get("seconds", DEFAULT_SECONDS)
        lines = _Lines()
        tracing = [
            self._supervisor.ask(
                worker, lambda n: Ask(n, "trace", request.arguments), lines.add
            ).addBoth(lines.ended)
            for worker in self._supervisor.running
        ]
        first = f"-- {who}: "
        try:
            connections = len(await self.who(Request("who", {"who": who})))
            lines.number = len(tracing)
            if len(lines.errors) == len(tracing):
                raise lines.errors[0] if tracing else ControlError("no worker answers")
            yield f"{first}{counted(connections, 'connection')} now, and those to come, for {seconds:.0f} s"
            async for line in lines.until_ended():
                if not line.startswith(first):  # that of each worker counts its own connections
                    yield line
        finally:
            for each in tracing:
                each.cancel()


class _Lines:
    """The lines of several traces that wait for an operator."""

    def __init__(self) -> None:
        self.errors: list[ControlError] = []
        self.number = 0
        self._waiting: deque[str] = deque()
        self._left_out = self._ended = 0
        self._wake: Deferred[None] | None = None

    def add(self, line: str) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._left_out += 1
        else:
            self._waiting.append(line)
        self._woken()

    def ended(self, result: Any) -> None:
        self._ended += 1
        error = getattr(result, "value", None)
        if isinstance(error, ControlError):
            self.errors.append(error)
        elif error is not None and not isinstance(error, CancelledError):
            self.errors.append(ControlError(str(error)))
        self._woken()

    def _woken(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    async def until_ended(self) -> AsyncGenerator[str, None]:
        """Yield lines until all traces have ended."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._left_out:
                yield f"-- {self._left_out} lines left out"
                self._left_out = 0
            if self._ended >= self.number:
                return
            if not self._waiting:
                self._wake = Deferred()
                await self._wake


class MergedBans(BanCommands):
    """Commands about bans. The supervising process has all of them; the workers have the connections."""

    def __init__(
        self, supervisor: Supervisor, factory: ShieldedIMAP4Factory, now: Callable[[], float]
    ) -> None:
        super().__init__(factory, now)
        self._supervisor = supervisor

    async def reset(self, network: Network) -> int:
        """Reset the connections from a banned network in all workers."""
        answers, _ = await self._supervisor.ask_all(RESET_BANNED, {"network": describe(network)})
        return sum(number for _, number in answers)

    async def users_in(self, network: Network) -> list[str]:
        """Return the users of connections from a network, of all workers."""
        answers, _ = await self._supervisor.ask_all(USERS_IN, {"network": describe(network)})
        return [user for _, users in answers for user in users]
