"""`WorkerOperator`: what a worker has in place of `OperatorPorts`. It passes on what happens, and answers requests."""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import LoopingCall

from imapshield.control.commands import BanCommands, ConnectionCommands
from imapshield.control.end_history import as_network
from imapshield.control.request_lines import ControlError, Request
from imapshield.control.trace import Traces
from imapshield.control.work_meter import WorkMeter
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.observe.reactor_delay import ReactorDelay
from imapshield.observe.talkers import Source, Talkers, Work
from imapshield.workers.link import Link
from imapshield.workers.link_messages import Beat, Worked

MAX_WAITING = 1000
"""Connections whose work waits for the end of the second at most. One more, and it is sent earlier."""

BEAT_SECONDS = 1.0
"""Seconds between two messages that the worker answers."""

RESET_BANNED = "reset-banned"
"""The request to reset the connections from a network, which only workers have."""

USERS_IN = "users-in"
"""The request for the users of the connections from a network."""


class WorkerTalkers(Talkers):
    """Sums up the work of each second, and sends it."""

    def __init__(self, send: Callable[[Worked], object]) -> None:
        self._send = send
        self._rows: dict[Source, Work] = {}

    def add(self, source: Source, work: Work, now: float) -> None:
        """Add the work of a connection."""
        before = self._rows.get(source)
        self._rows[source] = work if before is None else before.plus(work)
        if len(self._rows) >= MAX_WAITING:
            self.end_second(now)

    def end_second(self, now: float) -> None:  # noqa: ARG002
        """Send what there is."""
        rows, self._rows = self._rows, {}
        if rows:
            self._send(Worked([((*source,), (*work,)) for source, work in rows.items()]))

    history: Any = None


class WorkerOperator:
    """Observes the connections of a worker for the supervising process.

    Args:
        link: that to the supervising process.
        reactor: the reactor.

    Attributes:
        observers, handlers, streams, status: as in `OperatorPorts`.
    """

    control_path = advisor = None

    def __init__(self, link: Link, reactor: Any) -> None:
        self._link, self._reactor = link, reactor
        self._meter = WorkMeter(reactor, WorkerTalkers(link.send_soon))
        self._traces = Traces(reactor.callLater)
        self._delay, self._sent_delays = ReactorDelay(reactor), ([0], 0.0)
        self.observers = [self._meter, self._traces, link.happened]
        self.handlers: dict[str, Any] = {}
        self.streams: dict[str, Any] = {"trace": self._traces.trace}
        self._loop = LoopingCall(self._beat)
        self._loop.clock = reactor

    def connect(self, factory: ShieldedIMAP4Factory, *_: object) -> None:
        """Answer about the connections of `factory`."""
        self._factory = factory
        now = self._reactor.seconds
        connections, self._bans = ConnectionCommands(factory, now), BanCommands(factory, now)
        self._traces.matching = connections.matching
        self.status = connections.status
        self.handlers |= {
            **{name: getattr(connections, name) for name in ("status", "who", "kick")},
            "close-account": connections.close_account,
            RESET_BANNED: self._reset_banned,
            USERS_IN: self._users_in,
        }

    def add_commands(self, handlers: Mapping[str, Any]) -> None:
        """Add commands of front mode."""
        self.handlers |= handlers

    async def _reset_banned(self, request: Request) -> int:
        return await self._bans.reset(_network(request))

    async def _users_in(self, request: Request) -> list[str]:
        return await self._bans.users_in(_network(request))

    def open(self) -> None:
        """Do nothing: the supervising process has the ports."""

    def start(self) -> None:
        """Begin to measure, and to say so."""
        self._meter.start(self._factory)
        self._delay.start()
        self._loop.start(BEAT_SECONDS)

    async def close(self) -> None:
        """Measure no more."""
        self._meter.stop()
        self._delay.stop()
        if self._loop.running:
            self._loop.stop()

    def _beat(self) -> None:
        budget, delay = self._factory.shared.memory_budget, self._delay
        largest = budget.largest_user() if budget.memory_of_users else ("", 0)
        counts, total = self._sent_delays
        counts += [0] * (len(delay.counts) - len(counts))
        grown = [now - before for now, before in zip(delay.counts, counts, strict=True)]
        self._link.send_soon(
            Beat(
                *(
                    len(self._factory.connections),
                    budget.memory_of_users,
                    largest,
                    grown,
                    delay.total - total,
                ),
                delay.take_highest(),
            )
        )
        self._sent_delays = list(delay.counts), delay.total


def _network(request: Request) -> Any:
    network = as_network(request.get("network"))
    if network is None:
        raise ControlError("not a network")
    return network
