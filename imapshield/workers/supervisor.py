"""`Supervisor`: starts the workers, replaces those that die or do not answer, asks all of them, and stops them.

Rules
-----
* A worker that dies takes its own connections with it, and nothing else: the listening sockets belong to the
  supervising process, and other workers accept what waits there.
* A worker that dies is replaced at once. If it dies again before it has lived for `STABLE_SECONDS`, the next one
  starts later: after 1, 2, 4 … seconds, at most `MAX_PAUSE`.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.control.request_lines import ControlError
from imapshield.limits import Limits
from imapshield.workers.accepting import ConnectionCounts
from imapshield.workers.inherited_ports import FIRST_SOCKET, environment
from imapshield.workers.link import Link, LinkFactory
from imapshield.workers.link_messages import (
    COUNTS,
    LINK,
    Answer,
    Ask,
    Beat,
    Cancel,
    Item,
    Message,
    Ready,
    Reload,
    Stop,
)

MODULE = "imapshield.workers.worker_process"

STABLE_SECONDS = 60.0
"""Seconds after which a worker that dies is no sign that the next one will."""

MAX_PAUSE = 30.0
"""Seconds until a worker that dies again and again is started again, at most."""

CHECK_SECONDS = 1.0
"""Seconds between two looks at which workers answer."""

ASK_SECONDS = 5.0
"""Seconds that a worker has for an answer to an operator. Without it, the answer has what the others have."""

START_SECONDS = 60.0
"""Seconds that a process has at least until it serves clients: on a busy machine, Python needs some to load it."""

STOP_SECONDS = 10.0
"""Seconds that a worker has to close its mail stores when its connections have ended. Then it is killed."""

_log = Logger(namespace="imapshield")


@dataclass(eq=False)
class WorkerProcess(ProcessProtocol):
    """One worker, or the next one in its place.

    Attributes:
        number: its number, from 1.
        supervisor: its supervisor.
        link: that to its process; None while there is none.
        pid: the number of its process.
        begun: when its process was started.
        heard: when it said something for the last time.
        is_ready: whether it serves clients.
        is_killed: whether it was killed because it does not answer.
        starts: how often a process was started.
        failures: how many have died one after another.
        last: what it has measured.
    """

    number: int
    supervisor: "Supervisor"
    link: Link | None = None
    pid: int = 0
    begun: float = 0.0
    heard: float = 0.0
    is_ready: bool = False
    is_killed: bool = False
    starts: int = 0
    failures: int = 0
    last: Beat | None = None
    output: bytes = b""
    requests: dict[int, tuple[Deferred[Any], Callable[[Any], object]]] = field(default_factory=dict)
    ended: Deferred[None] | None = None
    transport: Any = None

    @property
    def is_running(self) -> bool:
        """Whether it has a process."""
        return self.ended is not None

    def send(self, message: Message) -> None:
        """Send a message, if it has a process."""
        if self.link is not None:
            self.link.send(message)

    def outReceived(self, data: bytes) -> None:
        """Log what the process prints: an error of Python, or what a library says."""
        *lines, rest = (self.output + data).split(b"\n")
        self.output = rest[-4096:]
        for line in lines:
            text = line.decode(errors="backslashreplace")
            _log.warn(
                "the process of worker {worker} prints: {text}", worker=self.number, text=text
            )

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Tell the supervisor, when all output has been read."""
        if self.output:
            self.outReceived(b"\n")
        self.supervisor.process_ended(self, reason)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process."""
        with suppress(ProcessExitedAlready, AttributeError):
            self.transport.signalProcess(number)


class Supervisor:
    """The workers of one server.

    Args:
        count: how many.
        reactor: the reactor.

    Attributes:
        workers: the workers.
        limits: returns the limits that apply now.
        first_message: returns the first message to a worker.
        received: called with a worker and each message that is not an answer.
        sockets: the listening sockets that they inherit.
        counts: how many connections each has.
        lost: called with a worker whose process has ended.
    """

    first_message: Callable[[WorkerProcess], Message]

    def __init__(self, count: int, reactor: Any) -> None:
        self._reactor = reactor
        self.limits: Callable[[], Limits] = Limits
        self.received: Callable[[WorkerProcess, Message], object] = lambda _worker, _message: None
        self.workers = [WorkerProcess(number, self) for number in range(1, count + 1)]
        self.sockets: Sequence[Any] = ()
        self._counts_file = open(ConnectionCounts.make(count), "r+b")  # noqa: SIM115
        self.counts = ConnectionCounts(self._counts_file.fileno(), count)
        self.lost: Callable[[WorkerProcess], object] = lambda _: None
        self._is_stopping = False
        self._delayed: dict[WorkerProcess, Any] = {}
        self._next_request = 0
        self._when_ready: list[Callable[[], None]] = []
        self._checked = 0.0
        self._loop = LoopingCall(self._check)
        self._loop.clock = reactor

    @property
    def running(self) -> Sequence[WorkerProcess]:
        """The workers that serve clients."""
        return [worker for worker in self.workers if worker.is_ready]

    def start(self) -> None:
        """Start all workers."""
        for worker in self.workers:
            self._start(worker)
        self._checked = self._reactor.seconds()
        self._loop.start(CHECK_SECONDS, now=False)

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call a function when all workers serve clients."""
        self._when_ready.append(call)

    def _start(self, worker: WorkerProcess) -> None:
        self._delayed.pop(worker, None)
        worker.begun = worker.heard = self._reactor.seconds()
        worker.starts += 1
        worker.is_ready = worker.is_killed = False
        worker.last, worker.output, worker.ended = None, b"", Deferred()
        worker.pid, worker.transport = 0, None
        worker.link = Link(self._reactor)
        worker.link.on_message = partial(self._message, worker)
        try:
            self._spawn(worker, worker.link)
        except Exception as error:  # such as: the program is being replaced, there is no memory
            failure = Failure(error)  # type: ignore[no-untyped-call]
            if worker.transport is None:
                self.process_ended(worker, failure)
            else:  # when the process has ended, the next one is started
                _log.failure("worker {n} cannot be told what it is", failure, n=worker.number)
                worker.kill()

    def _spawn(self, worker: WorkerProcess, link: Link) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull, "rb") as null:
            ours.setblocking(False)
            descriptors: dict[int, Any] = {0: null.fileno(), 1: "r", 2: "r", LINK: theirs.fileno()}
            descriptors[COUNTS] = self._counts_file.fileno()
            descriptors |= {n: s.fileno() for n, s in enumerate(self.sockets, FIRST_SOCKET)}
            command = [sys.executable, "-P", "-m", MODULE, str(worker.number)]
            environ = environment(os.environ, sys.path)
            spawn = self._reactor.spawnProcess
            worker.pid = spawn(worker, command[0], command, environ, childFDs=descriptors).pid
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, LinkFactory(link))
        link.send(self.first_message(worker))

    def _message(self, worker: WorkerProcess, message: Message) -> None:
        worker.heard = self._reactor.seconds()
        if isinstance(message, (Item, Answer)):
            self._answered(worker, message)
        elif isinstance(message, Ready):
            worker.is_ready = True
            self.received(worker, message)
            _log.info(
                "worker {worker} serves clients: pid={pid}", worker=worker.number, pid=worker.pid
            )
            if len(self.running) == len(self.workers):
                calls, self._when_ready = self._when_ready, []
                for call in calls:
                    call()
        elif isinstance(message, Beat):
            worker.last = message
            self.received(worker, message)
        else:
            self.received(worker, message)

    def _check(self) -> None:
        """Kill the workers that do not answer."""
        limit, now = self.limits().worker_silent_seconds, self._reactor.seconds()
        # A supervising process that was stopped, or swapped out, has not read yet what they have said meanwhile.
        late, self._checked = max(0.0, now - self._checked - CHECK_SECONDS), now
        for worker in self.workers:
            worker.heard = min(now, worker.heard + late)
            silent = now - worker.heard
            most = limit if worker.is_ready else max(limit, START_SECONDS)
            if worker.is_running and silent > most and not worker.is_killed:
                worker.is_killed = True
                _log.error(
                    "limit worker_silent_seconds={limit:g} hit: worker {worker} has not answered for"
                    " {silent:.0f} s, and is killed: pid={pid}",
                    limit=most,
                    worker=worker.number,
                    silent=silent,
                    pid=worker.pid,
                )
                worker.kill()

    def process_ended(self, worker: WorkerProcess, reason: Failure) -> None:
        """Replace a worker whose process has ended."""
        link, worker.link = worker.link, None
        if link is not None:
            # What it has sent before would be taken for messages of the next process.
            link.on_message = lambda _: None
            link.close()
        worker.is_ready = False
        self.counts.set(worker.number)
        # Who waits for an answer must see that the worker does not run.
        ended, worker.ended = worker.ended, None
        requests, worker.requests = worker.requests, {}
        for answer, _ in requests.values():
            answer.errback(ControlError(f"worker {worker.number} has ended; try again"))
        self.lost(worker)
        if ended is not None:
            ended.callback(None)
        if self._is_stopping:
            return
        lived = self._reactor.seconds() - worker.begun
        worker.failures = 0 if lived >= STABLE_SECONDS else worker.failures + 1
        pause = min(2.0 ** (worker.failures - 2), MAX_PAUSE) if worker.failures > 1 else 0.0
        value: Any = reason.value
        cause = str(value)
        if hasattr(value, "exitCode"):
            cause = f"signal {value.signal}" if value.signal else f"status {value.exitCode}"
        _log.error(
            "worker {worker} has ended after {lived:.0f} s, and takes its connections with it: pid={pid} {cause};"
            " another one starts in {pause:.0f} s",
            worker=worker.number,
            lived=lived,
            pid=worker.pid,
            cause=cause,
            pause=pause,
        )
        self._delayed[worker] = self._reactor.callLater(pause, self._start, worker)

    def broadcast(self, message: Message, but: WorkerProcess | None = None) -> None:
        """Send a message to all workers, without `but`."""
        for worker in self.workers:
            if worker is not but:
                worker.send(message)

    def ask(
        self,
        worker: WorkerProcess,
        message: Callable[[int], Ask | Reload],
        on_item: Callable[[Any], object] = lambda _: None,
    ) -> Deferred[Any]:
        """Send a request.

        Args:
            worker: whom.
            message: returns the request with a number.
            on_item: called with each item of an answer that goes on.

        Returns:
            a Deferred with the answer, or a `ControlError`. When it is cancelled, the worker ends its work.
        """
        self._next_request += 1
        number = self._next_request

        def cancelled(_: object) -> None:
            worker.requests.pop(number, None)
            worker.send(Cancel(number))

        answer: Deferred[Any] = Deferred(cancelled)
        worker.requests[number] = answer, on_item
        worker.send(message(number))
        return answer

    def _answered(self, worker: WorkerProcess, message: Item | Answer) -> None:
        waiting = worker.requests.get(message.request)
        if waiting is None:
            return
        answer, on_item = waiting
        if isinstance(message, Item):
            on_item(message.item)
            return
        del worker.requests[message.request]
        if message.error:
            answer.errback(ControlError(message.error))
        else:
            answer.callback(message.result)

    async def ask_all(
        self, command: str, arguments: Mapping[str, Any] | None = None
    ) -> tuple[list[tuple[WorkerProcess, Any]], list[ControlError]]:
        """Ask all workers that serve clients, and return the answers and the errors of those that answer in time."""
        asked = self.running
        waiting = [self.ask(worker, lambda n: Ask(n, command, arguments or {})) for worker in asked]
        for each in waiting:
            each.addTimeout(ASK_SECONDS, self._reactor)
        results = await DeferredList(waiting, consumeErrors=True)
        answers, errors = [], []
        for worker, (is_good, result) in zip(asked, results, strict=True):
            if is_good:
                answers.append((worker, result))
            elif isinstance(result.value, ControlError):
                errors.append(result.value)
        return answers, errors

    def stop(self) -> Deferred[Any]:
        """Stop all workers, and wait until they have ended."""
        self._is_stopping = True
        if self._loop.running:
            self._loop.stop()
        for call in self._delayed.values():
            call.cancel()
        self._delayed.clear()
        waiting = [worker for worker in self.workers if worker.ended is not None]
        if not waiting:
            return succeed(None)
        self.broadcast(Stop())
        seconds = self.limits().closing_seconds + STOP_SECONDS
        kill = self._reactor.callLater(seconds, self._kill, waiting)
        done = DeferredList([_fires_with(worker.ended) for worker in waiting])
        # Those that start have no clients, and on a busy machine read the message much later.
        for worker in waiting:
            if not worker.is_ready:
                worker.kill(signal.SIGTERM)
        return done.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def _kill(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            if worker.is_running:
                _log.error("worker {worker} does not end, and is killed", worker=worker.number)
                worker.kill()


def _fires_with(other: Any) -> Deferred[None]:
    """Return a Deferred that fires when another one does."""
    result: Deferred[None] = Deferred()
    other.addCallback(lambda _: result.callback(None))
    return result
