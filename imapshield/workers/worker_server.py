"""The server in a worker: serves the clients, and lets the supervising process do everything else."""

from contextlib import aclosing
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from imapshield.certificates import Certificates
from imapshield.control.request_lines import ControlError, Request
from imapshield.cred.checkers import PasswordFile
from imapshield.edge.admission import OPERATOR
from imapshield.edge.event_reporter import EventReporter
from imapshield.endpoints import server_endpoint
from imapshield.guard.bans import Ban, ban_target
from imapshield.process.process_control import Process
from imapshield.process.server_user import ServerUser
from imapshield.server import ServerLife, make_parts
from imapshield.server_parts import ServerParts
from imapshield.service import ShieldService
from imapshield.workers.inherited_ports import FIRST_SOCKET, InheritedEndpoint
from imapshield.workers.link import Link
from imapshield.workers.link_messages import (
    Answer,
    Ask,
    Banned,
    Cancel,
    Item,
    Known,
    Message,
    Ready,
    Reload,
    Start,
    Stop,
    Unbanned,
)
from imapshield.workers.worker_operator import WorkerOperator

SHARE_SECONDS = 0.05
"""Seconds between two messages about what the guard has counted."""

READ_WAIT = 0.05
"""Seconds that an answer waits while the supervising process does not read."""

_log = Logger(namespace="imapshield")


class Worker:
    """Serves clients, and answers the supervising process.

    Args:
        start: what this worker is.
        link: that to the supervising process.
        reactor: the reactor.

    Attributes:
        service: the server.

    Raises:
        ConfigError: the settings cannot be used.
    """

    def __init__(self, start: Start, link: Link, reactor: Any) -> None:
        # The connections of several processes have different numbers.
        EventReporter.numbers = count(start.first_connection, start.count)
        self._start, self._link, self._reactor = start, link, reactor
        self._settings = start.settings
        self._operator = WorkerOperator(link, reactor)
        process = Process(lambda: self._settings, None, ServerUser())
        descriptors = iter(range(FIRST_SOCKET, FIRST_SOCKET + len(start.inherited)))
        families = iter(start.inherited)

        def listen(reactor: Any, text: str, certificates: Certificates) -> Any:
            inherited = InheritedEndpoint(reactor, next(descriptors), next(families))
            return server_endpoint(reactor, text, certificates, lambda *_: inherited)

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
        link.on_message, link.on_end = self.received, self.end
        self._loop = LoopingCall(self._share)
        self._loop.clock = reactor

    def begin(self) -> None:
        """Take over what the other processes know, and tell them from now on. Called before the first connection."""
        start, guard, now = self._start, self.parts.guard, self._reactor.seconds()
        guard.failures.restart(start.failures_key)
        if start.decoys_key is not None:
            for checker in self.parts.checkers:
                if hasattr(checker, "decoy_key"):
                    checker.decoy_key = start.decoys_key
        guard.bans.restore(start.bans, now)
        for user, addresses in start.known:
            guard.failures.restore_known(user, addresses, now)
        guard.failures.changed_users = set()
        self.parts.factory.shared.admission.on_ban = self._banned
        self._loop.start(SHARE_SECONDS, now=False)
        self._link.send(Ready())

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._loop.running:
            self._loop.stop()

    def _banned(self, ban: Ban) -> None:
        now = self._reactor.seconds()
        saved = self.parts.guard.bans.saved(ban.network, now)
        if saved is not None:
            self._link.send(Banned([saved], now))

    def _share(self) -> None:
        failures = self.parts.guard.failures
        users, failures.changed_users = failures.changed_users, set()
        if users:
            self._link.send(Known([(user, failures.known_addresses(user)) for user in users]))

    def received(self, message: Message) -> None:
        """Act on a message of the supervising process."""
        if isinstance(message, Banned):
            self._take_bans(message)
        elif isinstance(message, Unbanned):
            self.parts.guard.bans.unban(message.network)
        elif isinstance(message, Known):
            self._take_known(message)
        elif isinstance(message, (Ask, Reload)):
            self._begin_answer(message)
        elif isinstance(message, Cancel):
            if message.request in self._requests:
                self._requests[message.request].cancel()
        elif isinstance(message, Stop):
            self.end()

    def end(self) -> None:
        """End the process."""
        if self._reactor.running:
            self._reactor.stop()

    def _take_bans(self, message: Banned) -> None:
        guard, now = self.parts.guard, self._reactor.seconds()
        late = now - message.seconds
        guard.bans.restore([b._replace(remaining=b.remaining - late) for b in message.bans], now)
        for ban in message.bans:
            # Of a ban by an operator, all connections are reset by a request that follows, and counted.
            if not ban.strangers_only and ban.reason != OPERATOR:
                self.parts.factory.shared.admission.end_strangers(ban_target(ban.network))

    def _take_known(self, message: Known) -> None:
        failures, now = self.parts.guard.failures, self._reactor.seconds()
        for user, addresses in message.users:
            failures.restore_known(user, addresses, now)

    def _begin_answer(self, message: Ask | Reload) -> None:
        work = self._answer(message) if isinstance(message, Ask) else self._reload(message)
        answering = self._requests[message.request] = Deferred.fromCoroutine(work)
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
            self._link.send(Answer(request, error="internal error; the log of the server has it"))


class WorkerLife(ServerLife):
    """What happens in the life of a worker."""

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
        parts.certificates.start()
        self._worker.begin()

    def stop_steps(self) -> list[Any]:
        """Stop telling first."""
        return [self._worker.stop, *super().stop_steps()]
