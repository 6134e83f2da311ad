"""The commands of the control socket about nodes and users who move, for all workers together."""

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imapshield.control.request_lines import ControlError, Request
from imapshield.workers.link_messages import Ask
from imapshield.workers.supervisor import ASK_SECONDS, Supervisor, WorkerProcess

_ENDS = {"undrain": "drain", "release": "hold"}
"""The commands that end what another one has begun."""

MAX_KEPT = 1000
"""Users and nodes that are sent to a worker when it starts. It is as many as one worker holds."""

WATCH_SECONDS = 2.0
"""Seconds between two looks at which removed nodes have users, while there are any."""

HOLD_SECONDS = 10.0
"""Seconds of a hold that names none, as in `front.node_commands`."""

_log = Logger(namespace="imapshield")


@dataclass(frozen=True, slots=True)
class _Kept:
    arguments: Mapping[str, Any]
    until: float


class MergedNodes:
    """Commands about nodes. Each worker has sessions of its own, and must hold a user.

    A worker that starts, or replaces another one, holds and drains what the others do: `begun`.

    Args:
        supervisor: has the workers.
        clock: an `IReactorTime`.
    """

    def __init__(self, supervisor: Supervisor, clock: Any) -> None:
        self._supervisor, self._clock = supervisor, clock
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._configured: Collection[str] = ()
        self._removed: set[str] = set()  # addresses of removed nodes that have users
        self._watch = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        self._watch.clock = clock

    async def ask(self, request: Request) -> Any:
        """Return the answers of all workers as one.

        Raises:
            ControlError: a worker cannot do it, or does not answer. The others may have done it.
        """
        changes = request.command not in ("nodes", "user-map")
        asked = [w for w in self._supervisor.workers if (w.link if changes else w.is_ready)]
        self._keep(request)  # before the answers: a worker may start meanwhile
        answers, errors = await self._ask(asked, request)
        if errors:
            if request.command == "drain" and not answers:
                self._kept.pop(("drain", request.get("node")), None)  # there is no such node
            raise errors[0]
        if len(answers) < len(asked) or not answers:
            raise ControlError("not all workers answer; look at the log, and repeat the command")
        answer = merged(answers)
        self._settle(request, answer)
        return answer

    async def _ask(
        self, asked: list[WorkerProcess], request: Request
    ) -> tuple[list[Any], list[ControlError]]:
        command, arguments = request.command, request.arguments
        waiting = [self._supervisor.ask(w, lambda n: Ask(n, command, arguments)) for w in asked]
        for each in waiting:
            each.addTimeout(ASK_SECONDS, self._clock)
        results = await DeferredList(waiting, consumeErrors=True)
        answers = [result for is_good, result in results if is_good]
        errors = [result.value for is_good, result in results if not is_good]
        return answers, [each for each in errors if isinstance(each, ControlError)]

    def begun(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the commands with their arguments that a new worker must carry out before it serves clients."""
        now = self._clock.seconds()
        self._kept = {key: kept for key, kept in self._kept.items() if kept.until > now}
        return [
            (command, {**kept.arguments, "seconds": max(1.0, kept.until - now)})
            if command == "hold"
            else (command, kept.arguments)
            for (command, _), kept in self._kept.items()
        ]

    def forget_removed(self, nodes: Container[str]) -> None:
        """Forget the drains of all nodes but these. One that gets the name later has logins, in each worker."""
        self._kept = {
            key: kept for key, kept in self._kept.items() if key[0] != "drain" or key[1] in nodes
        }

    def watch_removed(self, configured: Collection[str]) -> None:
        """Log from now on, after a reload, when the last user of a removed node has left all workers.

        Args:
            configured: the addresses of all nodes that there are now. A worker may reload later than the others.
        """
        self._configured = configured
        if not self._watch.running:
            self._watch.start(WATCH_SECONDS)

    async def _look(self) -> None:
        try:
            rows = await self.ask(Request("nodes"))
        except ControlError:  # a worker starts or is busy: it is asked again
            return
        removed = {row["address"]: row["connections"] for row in rows if self._is_removed(row)}
        for text in sorted(self._removed - {*removed}):
            _log.info("--backend {text}: removed; the last user has left", text=text)
        self._removed &= {*removed}
        self._removed |= {text for text, connections in removed.items() if connections}
        if not removed:
            self._watch.stop()

    def _is_removed(self, row: Mapping[str, Any]) -> bool:
        return row["state"] == "removed" or row["address"] not in self._configured

    def _keep(self, request: Request) -> None:
        key = request.command, _subject(request)
        if request.command in _ENDS.values():
            self.begun()
            if len(self._kept) < MAX_KEPT or key in self._kept:
                seconds = request.get("seconds", HOLD_SECONDS) if key[0] == "hold" else inf
                self._kept[key] = _Kept(request.arguments, self._clock.seconds() + seconds)

    def _settle(self, request: Request, answer: Any) -> None:
        """Note what all workers have done. In their answer, the name of the user is as the map has it."""
        command, given = request.command, _subject(request)
        if command in _ENDS:
            for name in (given, answer.get("user", given)):
                self._kept.pop((_ENDS[command], name), None)
        elif command == "hold" and (command, given) in self._kept:
            self._kept[command, answer["user"]] = self._kept.pop((command, given))


def _subject(request: Request) -> str:
    subject: str = request.get("user") or request.get("node", "")
    return subject


def merged(answers: list[Any]) -> Any:
    """Return several answers as one: numbers are added, and what must be true of all is true of all."""
    first = answers[0]
    if isinstance(first, dict):
        return {name: _merged_values(name, [each[name] for each in answers]) for name in first}
    if isinstance(first, list):
        return _merged_rows(answers)
    if isinstance(first, bool):
        return all(answers)
    return sum(answers) if isinstance(first, int | float) else first


def _merged_values(name: str, values: list[Any]) -> Any:
    if name in _SAME:
        return values[0]
    return next(filter(None, values), "") if name == "problem" else merged(values)


def _merged_rows(answers: list[list[Any]]) -> list[Any]:
    """Return the rows of several lists; those of one node are one row. A list may miss some, after a reload."""
    rows: dict[str, list[Any]] = {}
    for row in (row for answer in answers for row in answer):
        rows.setdefault(row["node"], []).append(row)
    return [merged(each) for each in rows.values()]


_SAME = frozenset(
    {
        *("seconds", "checked", "latency", "consecutive_failures", "max_consecutive_failures"),
        "max_connections",  # of all workers already; some may have forgotten a removed node
    }
)
"""Numbers that are not added: the first worker stands for all."""
