"""`OperatorPorts`: where the operator asks the server: the control socket, the status page and the metrics."""

import os
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.admin.monitor import Monitor, process_memory
from imapshield.admin.web_ports import WebPorts, check_admin_auth
from imapshield.certificates import Certificates
from imapshield.config import ConfigError, Settings
from imapshield.control.advisor import Advisor
from imapshield.control.commands import BanCommands, ConnectionCommands
from imapshield.control.end_history import EndHistory
from imapshield.control.page_logins import PageLogins
from imapshield.control.port import ControlPort
from imapshield.control.request_lines import ControlError, Request
from imapshield.control.server import ControlFactory, Handler, Stream
from imapshield.control.socket_file import server_path
from imapshield.control.status_warnings import status_warnings
from imapshield.control.trace import Traces
from imapshield.control.work_meter import WorkMeter
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.events import EventObserver
from imapshield.first_run import FirstRunFolder
from imapshield.observe.counters import Counters
from imapshield.observe.reactor_delay import ReactorDelay
from imapshield.service import CannotServe

_log = Logger(namespace="imapshield")


NODE_COMMANDS = ("nodes", "drain", "undrain", "hold", "release", "user-map")
"""The commands of front mode. Who asks a mail node for them gets an answer that says so."""


class OperatorPorts:
    """What an operator sees of one server.

    Args:
        settings: the configuration.
        reactor: the reactor.

    Attributes:
        observers: note what happens. They belong to the observers of the server.
        handlers: the commands of the control socket.
        streams: those with an answer that goes on.
        advisor: observes for the command ``advise``.
        meter: observes for the command ``talkers``.
        delay: measures how late the reactor is, for the status page.
        event_observers: those of `observers` to which another process can pass its events.
        status_parts: name → returns what the answer to ``status`` has under this name, beside the connections.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings, self._reactor = settings, reactor
        self.meter, self._history = WorkMeter(reactor), EndHistory(time.time)
        self._counters, self._traces = Counters(), Traces(reactor.callLater)
        self.advisor, self.delay = Advisor(reactor), ReactorDelay(reactor)
        self.event_observers: list[EventObserver] = [self._history, self._counters, self.advisor]
        self.observers: list[EventObserver] = [self.meter, self._traces, *self.event_observers]
        self.handlers: dict[str, Handler] = {}
        self.status_parts: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {}
        self.streams: dict[str, Stream] = {}

    def add_commands(self, handlers: Mapping[str, Handler]) -> None:
        """Add commands of front mode. Two of them answer what becomes parts of the status."""
        self.handlers |= handlers
        for name, command in (("nodes", "nodes"), ("user_map", "user-map")):
            self.status_parts[name] = partial(self._answer_of, command)

    async def _answer_of(self, command: str) -> Any:
        try:
            return await self.handlers[command](Request(command))
        except ControlError:  # a worker is busy
            return None

    def _begin(self, name: str, part: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Begin a part of the status. An error of this program costs this part alone, and is in the log."""

        def failed(failure: Failure) -> None:
            _log.failure("status: {part} failed", failure, part=name)

        return Deferred.fromCoroutine(part).addErrback(failed)

    async def status(self, request: Request) -> dict[str, Any]:
        """Answer the command ``status``. What is wrong is first: ``warnings``, each with what to do."""
        # All at once: a worker that does not answer delays the answer to each question.
        asked = {name: self._begin(name, part()) for name, part in self.status_parts.items()}
        answer: Any = await self._status_of_connections(request)
        parts = {name: await part for name, part in asked.items()}
        answer = {**answer, **{name: part for name, part in parts.items() if part is not None}}
        return {"warnings": status_warnings(answer), **answer}

    def connect(
        self,
        factory: ShieldedIMAP4Factory,
        certificates: Certificates,
        folder: str,
        acting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Prepare the ports of a server.

        Args:
            factory: the server.
            certificates: those of its endpoints.
            folder: has the control socket and the mail by default.
            acting: returns a context in which the process has the rights of the server's user.

        Raises:
            ConfigError: an option cannot be used.
        """
        settings, reactor = self._settings, self._reactor
        self._factory, self._first_mail = factory, FirstRunFolder(folder).mail
        self.make_commands(factory)
        self._status_of_connections = self.handlers["status"]
        self.status_parts["certificate"] = certificates.status
        self.handlers |= {
            "status": self.status,
            **dict.fromkeys(NODE_COMMANDS, _no_nodes),
            "options": self._options,
            "talkers": self.meter.talkers,
            "why": self._history.why,
            "advise": self.advisor.advise,
        }
        monitor = Monitor(
            self.handlers,
            self._counters,
            self.delay,
            lambda: self.meter.total,
            self.meter.history,
            reactor,
            time.time,
            self.memory,
        )
        with acting():
            check_admin_auth(settings)
        logins = PageLogins(factory, reactor.seconds)
        self._web = WebPorts(settings, monitor, logins, certificates, reactor)
        self.handlers["admin"] = self._web.admin
        path = settings.control or server_path(os.environ, folder)
        control = ControlFactory(self.handlers, self.streams)
        self._control = ControlPort(None if path == "none" else path, control, reactor)

    def make_commands(self, factory: ShieldedIMAP4Factory) -> None:
        """Make the commands about connections and bans, in `handlers` and `streams`."""
        connections = ConnectionCommands(factory, self._reactor.seconds)
        bans = BanCommands(factory, self._reactor.seconds)
        self._traces.matching = connections.matching
        self.use_commands(connections, bans)
        self.streams["trace"] = self._traces.trace

    def use_commands(self, connections: Any, bans: Any) -> None:
        """Answer with the methods of `ConnectionCommands` and `BanCommands`, or of others that have the same."""
        self.handlers |= {
            **{name: getattr(connections, name) for name in ("status", "who", "kick")},
            "close-account": connections.close_account,
            **{name: getattr(bans, name) for name in ("bans", "ban", "unban")},
        }

    def memory(self) -> int:
        """Return the bytes of memory that the server occupies."""
        return process_memory()

    async def _options(self, request: Request) -> dict[str, Any]:  # noqa: ARG002
        """Answer the command ``options``: where the server listens, as options, and the pattern of its mail."""
        settings = self._settings
        endpoints = [f"--listen {text}" for text in settings.listen]
        others = ("admin", settings.admin), ("metrics", settings.metrics)
        endpoints += [f"--{name} {text}" for name, text in others if text is not None]
        endpoints += [f"--acme-http {settings.acme_http}"] * bool(settings.acme)
        mail_root = settings.mail_root or self._first_mail
        return {"endpoints": endpoints, "mail_root": os.path.abspath(mail_root)}

    @property
    def control_path(self) -> str | None:
        """The path of the control socket; None if there is none, or it could not be opened."""
        return self._control.path if self._control.is_open else None

    def open(self) -> None:
        """Listen. The server does not need the control socket, so only a path that was chosen must be usable.

        Raises:
            CannotServe: a port cannot be opened.
        """
        try:
            self._control.open()
        except ControlError as error:
            if self._settings.control is not None:
                raise CannotServe(f"--control {error}") from None
            _log.warn("no control socket: {error} with --control", error=str(error))
        try:
            self._web.open()
        except ConfigError as error:
            raise CannotServe(str(error)) from None

    def start(self) -> None:
        """Begin to measure."""
        self.meter.start(self._factory)
        self.advisor.start(self._factory)
        self._web.start()

    async def close(self) -> None:
        """Close the ports, and measure no more."""
        self.meter.stop()
        self.advisor.stop()
        await self._web.close()
        await self._control.close()


async def _no_nodes(request: Request) -> NoReturn:
    raise ControlError(
        f"{request.command}: this server has no mail nodes, because it has the mail itself; ask the server in front,"
        " which has --backend, by its own control socket: --control PATH"
    )
