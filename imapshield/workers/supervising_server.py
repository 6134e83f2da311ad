"""The supervising process of ``--workers``: has the ports, the control socket, the web pages, the state and the log."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger, LogLevel

from imapshield import events
from imapshield.admin.monitor import process_memory
from imapshield.config import Settings
from imapshield.control.commands import ConnectionCommands
from imapshield.control.request_lines import ControlError
from imapshield.control.server import Handler
from imapshield.edge.admission import OPERATOR
from imapshield.edge.event_reporter import Observers, publish
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.gate import ACCEPT_QUEUE
from imapshield.guard.bans import Ban
from imapshield.guard.guard_relay import GuardRelay
from imapshield.guard.guard_report import RateTaken
from imapshield.guard.networks import describe
from imapshield.observe.talkers import Source, Work
from imapshield.operator_ports import OperatorPorts
from imapshield.process.process_control import Process
from imapshield.server import ServerLife, log_start, make_parts
from imapshield.server_parts import ServerParts
from imapshield.service import CannotServe, ShieldService
from imapshield.start_checks import check_shared_indexes, check_worker_program
from imapshield.workers.division import worker_settings
from imapshield.workers.guard_exchange import GuardExchange
from imapshield.workers.link_messages import (
    BannedElsewhere,
    Beat,
    Counted,
    Forget,
    Happened,
    Logged,
    Message,
    NewKeys,
    Ready,
    Reload,
    Shared,
    Start,
    TellAll,
    Worked,
)
from imapshield.workers.merged_commands import MergedBans, MergedConnections
from imapshield.workers.merged_nodes import MergedNodes
from imapshield.workers.supervisor import Supervisor, WorkerProcess

_log = Logger(namespace="imapshield")

RELOAD_SECONDS = 8.0
"""Seconds that a worker has for a reload, so that one that hangs does not delay the next reload. `control.client` waits
two seconds longer."""

SPARE_NUMBERS = 1000
"""Numbers of connections of a worker that has died that are not used: those of events that it could not send."""


def make_supervising_server(
    settings: Settings,
    reactor: Any,
    process: Process = Process(),  # noqa: B008
) -> ShieldService:
    """Return a server with several workers as a service that is not yet started.

    The arguments and errors are those of `server.make_server`.
    """
    supervisor = Supervisor(settings.workers, reactor)
    operator = SupervisingOperator(settings, reactor, supervisor)
    parts, endpoints = make_parts(settings, reactor, process, operator=operator)
    with process.user.acting():
        check_worker_program(settings)
        check_shared_indexes(settings)
    service = SupervisorLife(parts, supervisor).service(endpoints)
    service.factory = _NoClients(supervisor)
    return service


class SupervisingOperator(OperatorPorts):
    """What an operator sees of all workers together."""

    def __init__(self, settings: Settings, reactor: Any, supervisor: Supervisor) -> None:
        super().__init__(settings, reactor)
        self._supervisor, self._now = supervisor, reactor.seconds
        self.nodes = MergedNodes(supervisor, reactor)

    def make_commands(self, factory: ShieldedIMAP4Factory) -> None:
        """Make commands that ask the workers."""
        own = ConnectionCommands(factory, self._now)
        connections = MergedConnections(self._supervisor, own, self._now)
        self.use_commands(connections, MergedBans(self._supervisor, factory, self._now))
        self.streams["trace"] = connections.trace
        self.advisor.memory = self._memory_of_users

    def add_commands(self, handlers: Mapping[str, Handler]) -> None:
        """Add commands that ask the workers."""
        super().add_commands(dict.fromkeys(handlers, self.nodes.ask))

    def memory(self) -> int:
        """Return the bytes of memory that all processes occupy."""
        pids = [worker.pid for worker in self._supervisor.workers if worker.is_running]
        return process_memory() + sum(map(process_memory, pids))

    def _memory_of_users(self) -> tuple[int, str, int]:
        beats = [worker.last for worker in self._supervisor.workers if worker.last is not None]
        user, most = max((beat.largest_user for beat in beats), key=lambda u: u[1], default=("", 0))
        return sum(beat.memory_of_users for beat in beats), user, most


class _NoClients(ServerFactory):
    """In place of a factory: the supervising process accepts no connection. Its shutdown is that of the workers."""

    noisy = False

    def __init__(self, supervisor: Supervisor) -> None:
        self.shutdown = supervisor.stop


class SupervisorLife(ServerLife):
    """What happens in the life of the supervising process."""

    def __init__(self, parts: ServerParts, supervisor: Supervisor) -> None:
        super().__init__(parts)
        self._supervisor, self._settings = supervisor, parts.settings
        self._sockets: list[Any] = []
        self._behind: set[WorkerProcess] = set()  # those that have missed reports
        self._last_numbers = dict.fromkeys(supervisor.workers, 0)
        self._observers = {
            worker: Observers([parts.log.of_worker(worker.number), *parts.operator.event_observers])
            for worker in supervisor.workers
        }
        supervisor.sockets = self._sockets
        supervisor.limits = lambda: parts.factory.limits
        supervisor.first_message, supervisor.received = self._first_message, self._received
        admission = parts.factory.shared.admission
        # Before the state is loaded: it begins with an empty guard.
        exchange = self._exchange = GuardExchange(
            *(admission, "supervisor", self._share, parts.reactor), is_worker=False
        )
        on_ban, on_unban, on_load = admission.on_ban, admission.on_unban, parts.state.on_load
        admission.on_ban = parts.state.on_ban = _both(on_ban, exchange.share)
        admission.on_unban = _both(on_unban, exchange.share)
        parts.state.on_load = _both(on_load, self._tell_keys)
        if parts.sharing is not None:
            GuardRelay(exchange.shared, parts.sharing.shared)
            parts.sharing.exchange.on_totals = self._tell_totals
            parts.sharing.exchange.on_bans = self._banned_elsewhere
        supervisor.lost = self._lost
        parts.control_process.reloader.renewals.append(self._reload_workers)

    def fit_open_files(self, open_files: int | None) -> None:
        """Do nothing: each worker has its own files."""

    def close_off(self, text: str, port: Any) -> None:
        """Leave a port that has been opened to the workers."""
        if not hasattr(port, "socket"):
            raise CannotServe(
                f"--listen {text}: workers cannot share this kind of port; omit --workers"
            )
        port.stopReading()
        # Closing it here must not end it for a worker that still answers its last clients.
        port._shouldShutdown = False
        port.socket.listen(ACCEPT_QUEUE)
        self._sockets.append(port.socket)

    def start(self) -> None:
        """Load what was kept, and start the workers."""
        parts = self.parts
        log_start(parts.settings, parts.state_path, parts.operator.control_path)
        parts.state.start()
        if parts.sharing is not None:
            parts.sharing.start()
        parts.operator.start()
        parts.certificates.start()
        parts.acme.start()
        parts.control_process.start(parts.process.signals, self._supervisor.when_ready)
        parts.reactor.callWhenRunning(self._supervisor.start)
        self._exchange.start()

    def stop_steps(self) -> list[Any]:
        """Stop telling first."""
        return [self._exchange.stop, *super().stop_steps()]

    def periodic(self) -> None:
        """Report what is reported now and then."""
        self.parts.control_process.update()
        self.parts.log.summarize()

    def _first_message(self, worker: WorkerProcess) -> Message:
        parts, count = self.parts, self._settings.workers
        guard, now = parts.guard, parts.reactor.seconds()
        last = self._last_numbers[worker]
        first = worker.number if worker.starts == 1 else last + SPARE_NUMBERS * count
        saved = [guard.bans.saved(network, now) for network in guard.bans]
        failures_key, decoys_key, known = self._keys()
        return Start(
            worker.number,
            count,
            self._member(worker),
            worker_settings(parts.control_process.reloader.settings),
            self._exchange.counted(),
            first + (worker.number - first) % count,
            failures_key,
            decoys_key,
            now,
            [each for each in saved if each is not None],
            known,
            parts.operator.nodes.begun(),
            [int(each.family) for each in self._sockets],
            parts.certificates.saved(),
            {} if parts.front is None else parts.front.authorities(),
        )

    def _member(self, worker: WorkerProcess) -> str:
        """Return the name of the process of a worker among those of all servers that share the guard."""
        server = "" if self.parts.sharing is None else f" {self.parts.sharing.shared.name}"
        return f"worker {worker.number} {worker.starts}{server}"

    def _received(self, worker: WorkerProcess, message: Message) -> None:
        """Act on a message of a worker."""
        operator = self.parts.operator
        if isinstance(message, Ready):
            self._started(worker)
        elif isinstance(message, Happened):
            for event in message.events:
                if isinstance(event, events.ConnectionOpened):
                    last = self._last_numbers[worker]
                    self._last_numbers[worker] = max(last, event.connection)
                publish(event, self._observers[worker])
        elif isinstance(message, Worked):
            for source, work in message.rows:
                operator.meter.add(Source(*source), Work(*work))
        elif isinstance(message, Beat):
            self._catch_up(worker)
            operator.delay.add(message.delays, message.total_delay, message.highest_delay)
        elif isinstance(message, Logged):
            _log_line(worker, message)
        elif isinstance(message, Shared):
            # Whatever the worker says, this is its name. What cannot be read is not passed on.
            report = Shared(self._member(worker), message.report)
            self._exchange.merge(report)
            self._share(report, worker)

    def _share(self, report: Shared, but: WorkerProcess | None = None) -> None:
        """Pass a report on to all workers, without `but` and those that do not read.

        These learn all of it when they read again.
        """
        for worker in self._supervisor.workers:
            if worker is but or worker.link is None:
                continue
            if worker not in self._behind and worker.link.is_full:
                self._behind.add(worker)
                _log.warn(
                    "worker {worker} does not read what others count; it learns it later",
                    worker=worker.number,
                )
            if worker not in self._behind:
                worker.link.send(report)

    def _tell_totals(self, rates: Sequence[RateTaken]) -> None:
        """Tell the workers how much all servers have taken of rates."""
        message = Counted(self.parts.reactor.seconds(), [(*each,) for each in rates])
        for worker in self._supervisor.running:
            if worker not in self._behind:
                worker.send(message)

    def _banned_elsewhere(self, bans: Sequence[Ban]) -> None:
        """Have the workers reset the connections from networks that the operator of another server has banned.

        Those of all other bans they reset by themselves.
        """
        for ban in bans:
            if ban.reason == OPERATOR and not self.parts.guard.limits.report_only:
                self._supervisor.broadcast(BannedElsewhere(describe(ban.network)))

    def _catch_up(self, worker: WorkerProcess) -> None:
        """Send a worker the reports that it has missed, if it reads again. Called once per second."""
        if worker in self._behind and worker.link is not None and worker.link.is_drained:
            self._behind.remove(worker)
            worker.send(self._exchange.counted())
            self._started(worker)

    def _started(self, worker: WorkerProcess) -> None:
        """Ask all other processes to report to a worker what they count."""
        self._supervisor.broadcast(TellAll(), worker)
        self._exchange.tell_all()

    def _lost(self, worker: WorkerProcess) -> None:
        """Have the connections of a worker that has ended count no more."""
        member = self._member(worker)
        self._behind.discard(worker)
        self._exchange.forget(member)
        self._supervisor.broadcast(Forget(member), worker)

    def _keys(self) -> tuple[bytes, bytes | None, list[tuple[bytes, bytes]]]:
        """Return the keys of hashes, and the users who are known with them."""
        state, failures = self.parts.state, self.parts.guard.failures
        known = [(user, failures.known_addresses(user)) for user in failures.known_users()]
        return state.key_of_failures(), state.kept_secret("decoys"), known

    def _tell_keys(self) -> None:
        """Tell the workers of a state file that was loaded after the start."""
        if any(worker.is_running for worker in self._supervisor.workers):
            self._supervisor.broadcast(NewKeys(*self._keys()))
            self._exchange.tell_all()

    async def _reload_workers(self) -> list[str]:
        settings = worker_settings(self.parts.control_process.reloader.settings)
        supervisor, problems = self._supervisor, list[str]()
        if self.parts.front is not None:
            self.parts.operator.nodes.forget_removed(self.parts.front.nodes.by_name)
        # Also those that start: they have got the earlier settings.
        asked = [(each, each.starts) for each in supervisor.workers if each.is_running]
        reloading = [supervisor.ask(each, lambda n: Reload(n, settings)) for each, _ in asked]
        for each in reloading:
            each.addTimeout(RELOAD_SECONDS, self.parts.reactor)
        results = await DeferredList(reloading, consumeErrors=True)
        for (worker, starts), (is_good, result) in zip(asked, results, strict=True):
            if is_good:
                problems += [each for each in result if each not in problems]
            elif worker.is_running and worker.starts == starts:
                is_answer = isinstance(result.value, ControlError)
                text = str(result.value) if is_answer else "no answer yet; it reloads when it can"
                problems.append(f"worker {worker.number}: {text}")
            # The replacement of a worker that has ended reads the new settings.
        if self.parts.front is not None:
            backends = self.parts.front.nodes.by_name.values()
            self.parts.operator.nodes.watch_removed({each.address.text for each in backends})
        return problems


def _both(first: Callable[..., object], then: Callable[[], object]) -> Callable[..., None]:
    """Return a function that calls the two."""

    def call(*arguments: object) -> None:
        first(*arguments)
        then()

    return call


def _log_line(worker: WorkerProcess, line: Logged) -> None:
    """Write a line of a worker to the log of the server. The worker is after the text, which programs parse."""
    first, *rest = line.text.split("\n", 1)
    text = "\n".join([f"{first} worker={worker.number}", *rest])
    log = Logger(namespace=line.namespace)
    level = LogLevel.lookupByName(line.level)
    log.emit(
        level,
        "{line_of_worker}",
        **{**line.fields, "line_of_worker": text, "worker": worker.number},
    )
