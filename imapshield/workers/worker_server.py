"""The server in a worker: serves the clients, and lets the supervising process do everything else."""

from collections.abc import Callable
from contextlib import aclosing
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from imapshield.certificates import Certificates
from imapshield.control.request_lines import ControlError, Request
from imapshield.cred.checkers import PasswordFile
from imapshield.edge.event_reporter import EventReporter
from imapshield.endpoints import server_endpoint
from imapshield.guard.bans import ban_target
from imapshield.process.process_control import EarlierFiles, Process
from imapshield.process.server_user import ServerUser
from imapshield.server import ServerLife, make_parts
from imapshield.server_parts import ServerParts
from imapshield.service import ShieldService
from imapshield.workers.accepting import Accepting, ConnectionCounts
from imapshield.workers.guard_exchange import GuardExchange
from imapshield.workers.inherited_ports import FIRST_SOCKET, InheritedEndpoint
from imapshield.workers.link import FAILED, Link
from imapshield.workers.link_messages import (
    Answer,
    Ask,
    BannedElsewhere,
    Cancel,
    Counted,
    Forget,
    Item,
    Message,
    NewKeys,
    Ready,
    Reload,
    Shared,
    Start,
    Stop,
    TellAll,
)
from imapshield.workers.worker_operator import WorkerOperator

ACCEPTS = 8
"""Connections that a worker accepts in one turn of the reactor. With more, the worker that is first would get most of
those that arrive at once."""

READ_WAIT = 0.05
"""Seconds that an answer waits while the supervising process does not read."""

_log = Logger(namespace="imapshield")


class Worker:
    """Serves clients, and answers the supervising process.

    Args:
        start: what this worker is.
        link: that to the supervising process.
        reactor: the reactor.
        counts: how many connections all workers have.
        end: stops the reactor, however often it is called.

    Attributes:
        accepting: its ports.
        end: as the argument.
        parts: those of the server.
        service: the server.

    Raises:
        ConfigError: the settings cannot be used.
    """

    def __init__(
        self,
        start: Start,
        link: Link,
        reactor: Any,
        counts: ConnectionCounts,
        end: Callable[[], None],
    ) -> None:
        # The connections of several processes have different numbers.
        EventReporter.numbers = count(start.first_connection, start.count)
        self._start, self._link, self._reactor = start, link, reactor
        self._settings = start.settings
        self._operator = WorkerOperator(link, reactor)
        earlier = EarlierFiles(start.certificates, start.authorities)
        process = Process(lambda: self._settings, None, ServerUser(), earlier)
        descriptors = iter(range(FIRST_SOCKET, FIRST_SOCKET + len(start.inherited)))
        families = iter(start.inherited)

        def listen(reactor: Any, text: str, certificates: Certificates) -> Any:
            inherited = InheritedEndpoint(reactor, next(descriptors), next(families))
            return server_endpoint(reactor, text, certificates, lambda *_: inherited)

        self.accepting = Accepting(reactor, counts, start.number)
        self._operator.observers.append(self.accepting)
        self.parts, endpoints = make_parts(
            *(start.settings, reactor, process),
            listen=listen,
            operator=self._operator,
            obtains_certificate=False,
        )
        self.parts.control_process.reloader.level = LogLevel.debug
        self.service: ShieldService = WorkerLife(self.parts, self).service(endpoints)
        self.service.logs_ports = False
        self._requests: dict[int, Deferred[None]] = {}
        self.end = end
        link.on_message, link.on_end = self.received, end
        self.accepting.connections = self.parts.factory.connections
        admission = self.parts.factory.shared.admission
        self._exchange = GuardExchange(
            *(admission, start.member, link.send, reactor),
            is_worker=True,
            is_full=lambda: link.is_full,
        )
        admission.on_ban = lambda _: self._exchange.share()

    def begin(self) -> None:
        """Take over what the other processes know, and tell them from now on. Called before the first connection."""
        start, guard = self._start, self.parts.guard
        self._use_keys(start)
        guard.bans.restore(start.bans, start.time, are_known=True)
        self._exchange.count(start.counted)
        for command, arguments in start.node_commands:
            work = self._operator.handlers[command](Request(command, arguments))
            beginning = Deferred.fromCoroutine(work)
            beginning.addErrback(
                lambda failure: _log.failure("a hold or drain is not taken over", failure)
            )
        self._exchange.start()
        self.accepting.begin()
        self._link.send(Ready())

    def _use_keys(self, message: Start | NewKeys) -> None:
        failures, now = self.parts.guard.failures, self._reactor.seconds()
        failures.restart(message.failures_key)
        for user, addresses in message.known:
            failures.restore_known(user, addresses, now)
        for checker in self.parts.checkers:
            if message.decoys_key is not None and hasattr(checker, "decoy_key"):
                checker.decoy_key = message.decoys_key

    def stop(self) -> None:
        """Tell nothing any more."""
        self._exchange.stop()
        self.accepting.stop()

    def finish(self) -> Deferred[None]:
        """Send what waits for the supervising process."""
        return self._link.finish()

    def received(self, message: Message) -> None:
        """Act on a message of the supervising process."""
        if isinstance(message, (Ask, Reload)):
            self._begin_answer(message)
        elif isinstance(message, Cancel):
            if message.request in self._requests:
                self._requests[message.request].cancel()
        elif isinstance(message, Stop):
            self.end()
        else:
            self._learn(message)

    def _learn(self, message: Message) -> None:
        """Act on a message about the guard."""
        if isinstance(message, Shared):
            self._exchange.merge(message)
        elif isinstance(message, Counted):
            self._exchange.count(message)
        elif isinstance(message, BannedElsewhere):
            self.parts.factory.shared.admission.end_strangers(ban_target(message.network))
        elif isinstance(message, Forget):
            self._exchange.forget(message.member)
            self.accepting.look()
        elif isinstance(message, TellAll):
            self._exchange.tell_all()
        elif isinstance(message, NewKeys):
            self._use_keys(message)
            self._exchange.tell_all()

    def _begin_answer(self, message: Ask | Reload) -> None:
        answering = Deferred.fromCoroutine(
            self._answer(message) if isinstance(message, Ask) else self._reload(message)
        )
        if isinstance(message, Ask):  # a reload goes on, although nobody waits for it any more
            self._requests[message.request] = answering
        answering.addErrback(self._failed, message.request)
        answering.addBoth(lambda _: self._requests.pop(message.request, None))

    async def _answer(self, message: Ask) -> None:
        operator, number = self._operator, message.request
        try:
            request = Request(message.command, message.arguments)
            if message.command in operator.streams:
                async with aclosing(operator.streams[message.command](request)) as items:
                    async for item in items:
                        while self._link.is_full:
                            await deferLater(self._reactor, READ_WAIT)
                        self._link.send(Item(number, item))
                result = None
            else:
                result = await operator.handlers[message.command](request)
        except ControlError as error:
            self._link.send(Answer(number, error=str(error)))
        else:
            self._link.send(Answer(number, result))

    async def _reload(self, message: Reload) -> None:
        self._settings = message.settings
        reloaded = await self.parts.control_process.reloader.reload()
        self._link.send(Answer(message.request, [*reloaded.problems]))

    def _failed(self, failure: Failure, request: int) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("error in a request to a worker", failure)
            self._link.send(Answer(request, error=FAILED))


class WorkerLife(ServerLife):
    """What happens in the life of a worker."""

    accepts = ACCEPTS

    def __init__(self, parts: ServerParts, worker: Worker) -> None:
        super().__init__(parts)
        self._worker = worker

    def start(self) -> None:
        """Begin to serve."""
        parts = self.parts
        for checker in parts.all_checkers():
            if isinstance(checker, PasswordFile):
                checker.load()
        parts.start_freeing()
        parts.operator.start()
        parts.user_watch.start()
        if parts.front is not None:
            parts.front.nodes.start()
            for problem in parts.front.problems():
                _log.warn("{problem}", problem=problem)
        parts.certificates.start()
        self._worker.begin()

    def close_off(self, text: str, port: Any) -> None:
        """Put the gate before a port, and share its connections with other workers."""
        super().close_off(text, port)
        self._worker.accepting.add(port)

    def stop_steps(self) -> list[Any]:
        """Stop telling first, and send last what has happened until then."""
        return [self._worker.stop, *super().stop_steps(), self._worker.finish]
