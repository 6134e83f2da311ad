"""A server with workers in one process: links in memory, and a clock in place of time."""

import signal
import socket
from itertools import count
from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from imapshield.control.request_lines import Request
from imapshield.edge.event_reporter import EventReporter
from imapshield.process.process_control import Process
from imapshield.workers.link import Link
from imapshield.workers.link_messages import MessageBuffer, Start
from imapshield.workers.supervising_server import make_supervising_server
from imapshield.workers.worker_server import Worker
from tests.command_line import CommandLineTestCase


class MemoryTransport:
    """One end of a socket pair. What is written arrives at the next `Pipe.pump`."""

    offset = _tempDataLen = 0

    def __init__(self) -> None:
        self.dataBuffer = b""
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def loseConnection(self) -> None:
        self.is_closed = True

    abortConnection = loseWriteConnection = loseConnection


class FakeProcess:
    """The process of a worker: a `Worker` in this process."""

    def __init__(self, reactor: "ClusterReactor", protocol: Any, pid: int) -> None:
        self.reactor, self.protocol, self.pid = reactor, protocol, pid
        self.worker: Worker | None = None
        self.link = Link(reactor)
        self.ours, self.theirs = MemoryTransport(), MemoryTransport()
        self.has_ended = False
        self.hangs = False

    def signalProcess(self, number: int) -> None:
        self.end(ProcessTerminated(status=number, signal=number))

    def end(self, reason: Exception) -> None:
        """The process has ended."""
        if not self.has_ended:
            self.has_ended = True
            if self.worker is not None:
                self.worker.stop()
                self.reactor.closing.append(self.worker)
            self.protocol.processEnded(Failure(reason))

    def pump(self) -> bool:
        """Deliver what was written on both sides; return whether there was anything."""
        if self.has_ended or self.hangs:
            return False
        there, self.ours.written = self.ours.written, []
        back, self.theirs.written = self.theirs.written, []
        data = b"".join(there)
        if data and self.worker is None:
            start, *others = MessageBuffer().add(data)
            assert isinstance(start, Start)
            self._start(start)
            assert self.worker is not None
            for each in others:
                self.worker.received(each)
        elif data:
            self.link.dataReceived(data)
        if back:
            self.supervisor_link.dataReceived(b"".join(back))
        if self.worker is not None and self.stopped:
            self.end(ProcessDone(0))
            return True
        return bool(there or back)

    def _start(self, start: Start) -> None:
        self.link.transport = self.theirs
        self.link.connectionMade()
        self.stopped = False
        view = WorkerReactor(self)
        self.worker = Worker(start, self.link, view, self.protocol.supervisor.counts, view.stop)
        self.numbers, EventReporter.numbers = EventReporter.numbers, count(1)
        self.worker.begin()
        self.worker.parts.operator.start()

    supervisor_link: Any


class WorkerReactor:
    """The reactor as a worker sees it: the clock of the cluster, and a process that `stop` ends."""

    running = True

    def __init__(self, process: FakeProcess) -> None:
        self._process = process

    def stop(self) -> None:
        self._process.stopped = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process.reactor, name)


class ClusterReactor(Clock):
    """A reactor whose processes are workers in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.closing: list[Worker] = []
        self.environments: list[dict[str, str]] = []

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, **_: Any) -> Any:
        self.environments.append(env)
        process = FakeProcess(self, protocol, 1000 + len(self.processes))
        protocol.transport = process
        self.processes.append(process)
        return process

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        link, process = factory.buildProtocol(None), self.processes[-1]
        link.transport, process.supervisor_link = process.ours, link
        link.connectionMade()

    def callWhenRunning(self, function: Any, *arguments: Any) -> None:
        function(*arguments)

    def addSystemEventTrigger(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(real_reactor, name)


class ClusterTestCase(CommandLineTestCase):
    """Has a server with two workers. `ask` is a request on its control socket."""

    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.patch(EventReporter, "numbers", count(1))
        self.reactor = ClusterReactor()
        options = self.parse(
            *("--workers", "2", *self.where_mail_is()),
            *("--state", "none", "--control", "none", "--trust", "none", *self.options),
        )
        self.service = make_supervising_server(
            options.settings, self.reactor, Process(self.settings)
        )
        self.load = options.load
        self.life = self.service.on_start[0].__self__  # type: ignore[attr-defined]
        self.parts = self.life.parts
        self.supervisor = self.life._supervisor
        listening = socket.socket()
        self.addCleanup(listening.close)
        self.life._sockets.append(listening)
        self.life.start()
        self.addCleanup(self.end)
        self.pump()

    def where_mail_is(self) -> tuple[str, ...]:
        """Return the options that say where the mail is."""
        return ("--mail-root", self.mail, "--auth", f"file:{self.users}")

    def settings(self) -> Any:
        """Return what a reload finds."""
        return self.load()

    def end(self) -> None:
        for call in self.reactor.getDelayedCalls():
            call.cancel()

    def pump(self, seconds: float = 0.0) -> None:
        """Let time pass, and deliver all messages."""
        self.reactor.advance(0)
        steps = max(1, round(seconds / 0.05))
        for _ in range(steps):
            self.reactor.advance(seconds / steps)
            while sum(each.pump() for each in self.reactor.processes):
                pass

    @property
    def processes(self) -> list[FakeProcess]:
        """The processes that run, by the number of the worker."""
        return sorted(
            (each for each in self.reactor.processes if not each.has_ended),
            key=lambda each: each.protocol.number,
        )

    def worker(self, number: int) -> Worker:
        """Return the worker with a number."""
        worker = self.processes[number - 1].worker
        assert worker is not None
        return worker

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the answer to a request."""
        from twisted.internet.defer import Deferred

        handler = self.parts.operator.handlers[command]
        answer = Deferred.fromCoroutine(handler(Request(command, arguments)))
        for _ in range(20):
            self.pump()
            if answer.called:
                break
        return self.successResultOf(answer)

    def connect(self, number: int, host: str = "192.0.2.1") -> Any:
        """Return the server of a new connection to a worker."""
        worker = self.worker(number)
        server: Any = worker.parts.factory.buildProtocol(IPv4Address("TCP", host, 40000))
        transport = StringTransport(peerAddress=IPv4Address("TCP", host, 40000))
        transport.abortConnection = lambda: server.connectionLost(Failure(ProcessDone(0)))  # type: ignore[method-assign]
        if hasattr(server, "reporter"):
            server.makeConnection(transport)
        return server

    def kill(self, number: int) -> None:
        """Kill a worker."""
        self.processes[number - 1].signalProcess(signal.SIGKILL)

    def lines(self, function: Any) -> list[str]:
        """Return the lines of the log while a function runs."""
        with capturedLogs() as events:
            function()
        return [formatEvent(each) for each in events]
