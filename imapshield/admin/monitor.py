"""`Monitor`: what the status page shows. It samples the server every ten seconds, and asks it when somebody looks."""

import json
import os
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imapshield.control.request_lines import Request
from imapshield.observe.chart_history import RANGES, SAMPLE_SECONDS, ChartHistory
from imapshield.observe.counters import Counters
from imapshield.observe.reactor_delay import ReactorDelay
from imapshield.observe.talker_history import TalkerHistory
from imapshield.observe.talkers import Work

MEASURES = (
    *("connections", "without_login", "pending", "client_memory", "process_memory"),
    *("delay", "commands", "octets", "resets", "refused", "paused", "logins", "failed", "bans"),
)
"""What is sampled. Commands and octets are per second; resets, refusals, pauses and logins per minute."""

STATE_SECONDS = 2.0
"""Seconds for which an answer is used again, so that many who look cost as much as one."""

SHOWN = 100
"""Bans, and limits, that are shown at most."""

SHOWN_CONNECTIONS = 20
SHOWN_TALKERS = 8

MAX_DELAY = 5.0
"""Seconds by which the reactor may be late before the server counts as not healthy. Mail clients wait for 30 s."""

_log = Logger(namespace="imapshield")

Ask = Callable[[Request], Awaitable[Any]]


class Monitor:
    """Looks at one server.

    Args:
        handlers: the commands of the control socket.
        counters: counts the events.
        delay: measures the reactor.
        work: returns all that connections have done until now.
        talkers: who had most in the last minutes.
        reactor: an `IReactorTime`.
        wall_clock: returns the seconds since 1970.
        memory: returns the bytes of memory that the server occupies.

    Attributes:
        is_stopping: whether the server stops.
    """

    def __init__(
        self,
        handlers: Mapping[str, Ask],
        counters: Counters,
        delay: ReactorDelay,
        work: Callable[[], Work],
        talkers: TalkerHistory,
        reactor: Any,
        wall_clock: Callable[[], float],
        memory: Callable[[], int],
    ) -> None:
        self.counters, self.delay, self.work, self._talkers = counters, delay, work, talkers
        self.is_stopping = False
        self._handlers, self._now, self._time = handlers, reactor.seconds, wall_clock
        self._memory = memory
        self._history = ChartHistory(MEASURES)
        self._before = self._totals()
        self._delays = [0.0, 0.0]  # of the last two samples
        self._answers: dict[str, tuple[float, bytes]] = {}
        self._loop = LoopingCall(self._sample)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin to sample."""
        self.delay.start()
        self._before = self._totals()
        self._loop.start(SAMPLE_SECONDS)

    def stop(self) -> None:
        """Sample no more."""
        self.is_stopping = True
        self.delay.stop()
        if self._loop.running:
            self._loop.stop()

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Return the answer to a command of the control socket.

        Raises:
            ControlError: the command has failed.
        """
        return await self._handlers[command](Request(command, arguments))

    async def status(self) -> dict[str, Any]:
        """Return the status of the server, and the memory of its process in bytes."""
        return {**await self.ask("status"), "process_memory": self._memory()}

    def problem(self) -> str:
        """Return why the server is not healthy; "" if it is."""
        if self.is_stopping:
            return "stopping"
        return "overloaded" if max(self._delays) > MAX_DELAY else ""

    def _totals(self) -> dict[str, float]:
        """Return what only grows."""
        counters, work = self.counters, self.work()
        by_action = counters.limits_by_action
        return {
            "commands": work.commands,
            "octets": work.octets,
            "resets": by_action("reset") + by_action("bye"),
            "refused": by_action("refused") + counters.refused,
            "paused": by_action("paused"),
            "logins": counters.logins["accepted"],
            "failed": counters.logins["failed"],
        }

    def _sample(self) -> Deferred[None]:
        sampled = Deferred.fromCoroutine(self._add_sample())
        # A LoopingCall whose function fails stops for ever.
        return sampled.addErrback(lambda f: _log.failure("error while sampling", f))

    async def _add_sample(self) -> None:
        status, totals = await self.status(), self._totals()
        highest = self.delay.take_highest()
        self._delays = [self._delays[1], highest]
        grown = {name: value - self._before[name] for name, value in totals.items()}
        self._before = totals
        values = {name: value * 60 / SAMPLE_SECONDS for name, value in grown.items()}
        values |= {name: grown[name] / SAMPLE_SECONDS for name in ("commands", "octets")}
        values |= {
            "connections": status["connections"],
            "without_login": status["without_login"],
            "pending": status["pending_commands"],
            "client_memory": status["memory_of_connections"],
            "process_memory": status["process_memory"],
            "delay": highest,
            "bans": status["bans"],
        }
        self._history.add(values, self._time())

    async def state(self) -> bytes:
        """Return what is going on now, as JSON."""
        return await self._cached("state", self._state)

    async def history(self, range_name: str) -> bytes:
        """Return the points of the charts, as JSON. `range_name` is a key of `RANGES`."""
        assert range_name in RANGES
        return await self._cached(range_name, lambda: self._points(range_name))

    async def talkers(self, subject: str, measure: str) -> bytes:
        """Return the chart and the table of one of `SUBJECTS` and one of `MEASURES`, as JSON."""
        return await self._cached(f"{subject} {measure}", lambda: self._chart(subject, measure))

    async def _cached(self, name: str, make: Callable[[], Awaitable[Any]]) -> bytes:
        made, answer = self._answers.get(name, (float("-inf"), b""))
        if self._now() - made >= STATE_SECONDS:
            answer = json.dumps(await make(), separators=(",", ":")).encode()
            self._answers[name] = self._now(), answer
        return answer

    def forget_answers(self) -> None:
        """Use no earlier answer: something has changed by what somebody did."""
        self._answers.clear()

    async def _points(self, range_name: str) -> dict[str, Any]:
        points = self._history.points(range_name)
        points["series"] = _rounded(points["series"])
        return points

    async def _chart(self, subject: str, measure: str) -> dict[str, Any]:
        report = await self.ask("talkers", by=measure, number=SHOWN_TALKERS)
        chart = self._talkers.chart(subject, measure, self._now())
        return {
            "time": self._time() - chart["age"],
            "step": chart["step"],
            "series": _rounded(chart["series"]),
            "others": _rounded({"others": chart["others"]})["others"],
            "rows": report["tables"][subject],
        }

    async def _state(self) -> dict[str, Any]:
        status, bans = await self.status(), await self.ask("bans", number=SHOWN)
        talkers, limits = await self.ask("talkers"), self.counters.limits.most_common(SHOWN)
        return {
            "status": status,
            "talkers": {name: talkers[name] for name in ("headlines", "seconds", "totals")},
            "who": await self.ask("who", number=SHOWN_CONNECTIONS),
            "bans": bans,
            "limits": [{"limit": n, "action": a, "count": count} for (n, a), count in limits],
        }


def _rounded(series: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the same with fewer digits: answers are asked for all the time."""
    return {name: [float(f"{v:.5g}") for v in values] for name, values in series.items()}


def process_memory(process: int | str = "self") -> int:
    """Return the bytes of memory that a process occupies, this one or that with a number.

    Where there is no /proc, it is the most that this process ever had, and 0 for another one.
    """
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if process != "self":
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
