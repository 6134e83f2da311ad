"""Builds the server from its `Settings`, and says what happens when it starts, listens, runs and stops.

`server_parts.py` makes its parts.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from imapshield import __version__
from imapshield.acme.acme_service import AcmeService
from imapshield.certificates import Certificates, pair_files
from imapshield.config import Settings
from imapshield.cred.checkers import PasswordFile
from imapshield.edge.gate import ACCEPTS_PER_TURN, Gate
from imapshield.endpoints import is_proxied, listen_endpoint
from imapshield.first_run import FirstRunFolder
from imapshield.guard.shares import files_for
from imapshield.process.process_control import Process
from imapshield.server_parts import ServerParts
from imapshield.service import CannotServe, ShieldService
from imapshield.start_checks import check_as_user

_log = Logger(namespace="imapshield")


def make_server(settings: Settings, reactor: Any, process: Process = Process()) -> ShieldService:  # noqa: B008
    """Return the server as a service that is not yet started.

    Args:
        settings: the configuration.
        reactor: the reactor.
        process: what is known of the process.

    Raises:
        ConfigError: the settings cannot be used.
    """
    parts, endpoints = make_parts(settings, reactor, process)
    return ServerLife(parts).service(endpoints)


def make_parts(
    settings: Settings,
    reactor: Any,
    process: Process,
    *,
    listen: Callable[[Any, str, Certificates], Any] = listen_endpoint,
    operator: Any = None,
    obtains_certificate: bool = True,
) -> tuple[ServerParts, Sequence[tuple[str, Any]]]:
    """Return the parts of a server, and pairs of a text of ``--listen`` and its endpoint.

    Args:
        settings: the configuration.
        reactor: the reactor.
        process: what is known of the process.
        listen: makes an endpoint.
        operator: as for `ServerParts`.
        obtains_certificate: whether this process obtains the certificate of ``--acme``.

    Raises:
        ConfigError: the settings cannot be used.
    """
    certificates = _certificates(settings, reactor, process)
    folder, acting = FirstRunFolder.from_environ(os.environ).folder, process.user.acting
    acme = AcmeService(
        *(settings, certificates, reactor, os.environ, folder, acting), obtains=obtains_certificate
    )
    endpoints = [(text, listen(reactor, text, certificates)) for text in settings.listen]
    check_as_user(settings, process, certificates)
    return ServerParts(settings, reactor, process, certificates, acme, operator), endpoints


class ServerLife:
    """What happens in the life of a server. The methods are in the order in which `ShieldService` calls them."""

    accepts = ACCEPTS_PER_TURN

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        self._open_files: int | None = None
        self._files_for_nodes = 0
        parts.control_process.reloader.renewals.append(self._count_nodes)
        # Now, because twistd redirects standard output before the server listens.
        has_users = parts.settings.auth or parts.front is not None
        self._announce = (lambda _: None) if has_users else _announcer(parts.first_run)

    def service(self, endpoints: Sequence[tuple[str, Any]]) -> ShieldService:
        """Return the service, which listens on `endpoints`: pairs of a text of ``--listen`` and its endpoint."""
        parts = self.parts
        return ShieldService(
            endpoints,
            parts.factory,
            self.stop_steps(),
            self.periodic,
            parts.reactor,
            needed_files=self._needed_files(),
            on_start=[self.start],
            on_open_files=self.fit_open_files,
            on_port=self.close_off,
            on_listening=self.listening,
        )

    def start(self) -> None:
        """Load what was kept, and start what runs besides connections."""
        parts = self.parts
        log_start(parts.settings, parts.state_path, parts.operator.control_path)
        for checker in parts.all_checkers():
            if isinstance(checker, PasswordFile):
                checker.load()
        parts.state.start()
        if parts.sharing is not None:
            parts.sharing.start()
        parts.start_freeing()
        parts.operator.start()
        parts.user_watch.start()
        if parts.front is not None:
            parts.front.nodes.start()
        parts.certificates.start()
        parts.acme.start()
        parts.control_process.start(parts.process.signals)

    def _needed_files(self) -> int:
        """Return how many files the process should be permitted to open."""
        limits, front, needed = self.parts.settings.limits, self.parts.front, 0
        if front is not None:
            # Each user has a connection to the backend, and may upload a message.
            needed = 2 * min(front.nodes.max_connections, limits.max_connections)
        return needed + files_for(limits.max_connections)

    def _needed_for_nodes(self) -> int:
        """Return how many files the logins take that are checked: each has a connection to the backend, too."""
        front, limits = self.parts.front, self.parts.guard.limits
        nodes = 0 if front is None else len(front.nodes.by_name)
        return limits.max_login_checks * nodes + limits.max_backend_exchanges

    async def _count_nodes(self) -> list[str]:
        """Fit the limits again, if a reload has changed how many files the nodes need."""
        if self.parts.front is not None and self._needed_for_nodes() != self._files_for_nodes:
            self.fit_open_files(self._open_files)
        return []

    def fit_open_files(self, open_files: int | None) -> None:
        """Fit the limits to the number of files that the process may open."""
        self._open_files, self._files_for_nodes = open_files, self._needed_for_nodes()
        guard, realm = self.parts.guard, self.parts.realm
        shares, wanted, of_users = guard.shares, guard.limits.max_connections, open_files
        if self.parts.front is not None:
            shares.count_for_backend()
            of_users = None if open_files is None else max(0, open_files - self._files_for_nodes)
        shares.set_open_files(of_users)
        if shares.max_idle_accounts is not None:
            realm.max_idle_accounts = min(realm.max_idle_accounts, shares.max_idle_accounts)
        if shares.max_connections < wanted:
            _log.warn(
                "{files} open files permit {connections} connections, {strangers} of them without a login;"
                " --limit max_connections={wanted} needs {needed}: raise `ulimit -n` (LimitNOFILE= in systemd)"
                " or lower the limit",
                files=open_files,
                connections=shares.max_connections,
                strangers=shares.max_strangers,
                wanted=wanted,
                needed=self._needed_files(),
            )

    def close_off(self, text: str, port: Any) -> None:
        """Put the gate before a port that has been opened, so that banned addresses do not get in."""
        parts = self.parts
        shared = parts.factory.shared
        proxies = parts.only_proxies if is_proxied(text) else parts.proxies
        Gate.close_off(port, shared.admission, shared.fair_queue, proxies, self.accepts)

    def listening(self, ports: Sequence[tuple[str, str]]) -> None:
        """Let the operator in, and print the welcome text of the first start."""
        self.parts.operator.open()
        self.parts.acme.open()
        self._announce(ports)

    def periodic(self) -> None:
        """Report what is reported now and then."""
        parts = self.parts
        shared = parts.factory.shared
        parts.control_process.update()
        shared.admission.report_refused()
        shared.admission.report_busy(shared.busy_users.end_window(parts.reactor.seconds()))
        parts.log.summarize()

    def stop_steps(self) -> list[Callable[[], Any]]:
        """Return what is done, in this order, when all connections have ended."""
        parts = self.parts
        return [
            parts.operator.close,
            parts.acme.close,
            parts.certificates.stop,
            *([] if parts.sharing is None else [parts.sharing.stop]),
            parts.user_watch.stop,
            *([] if parts.front is None else [parts.front.nodes.stop]),
            lambda: _close_checkers(parts.all_checkers()),
            *([] if parts.ban_command is None else [parts.ban_command.stop]),
            parts.stop_freeing,
            parts.realm.close,
            parts.state.stop,
            parts.factory.shared.admission.report_refused,
            lambda: parts.log.summarize(everything=True),
        ]


def _certificates(settings: Settings, reactor: Any, process: Process) -> Certificates:
    """Return the certificates, with that of ``--certificate``."""
    earlier = {} if process.earlier is None else process.earlier.certificates
    certificates = Certificates(reactor, earlier=earlier)
    if settings.certificate is not None:
        certificates.main = certificates.add(pair_files(settings.certificate, settings.key))
    return certificates


def _close_checkers(checkers: Sequence[Any]) -> Deferred[Any]:
    closed = [maybeDeferred(each.close) for each in checkers if hasattr(each, "close")]
    return DeferredList(closed, consumeErrors=True)


def log_start(settings: Settings, state: str | None, control: str | None) -> None:
    """Log what decides about bans, which limits are not enforced, and where the server can be asked."""
    _log.info("version={version}", version=__version__)
    _log.info("control={path}", path=control or "none")
    _log.info(
        "bans: state={state} trust={trust} proxy={proxy} ban-command={ban_command}",
        state=state or "none",
        trust=",".join(settings.trust) or "none",
        proxy=",".join(settings.proxy) or "none",
        ban_command=json.dumps(settings.ban_command or "none"),
    )
    if settings.limits.report_only:
        _log.warn("report-only: the limits reset no connection and ban nobody")
    elif settings.limits.report_only_limits:
        names = ",".join(sorted(settings.limits.report_only_limits))
        _log.warn("report-only: these limits are not enforced: {names}", names=names)


def _announcer(first_run: FirstRunFolder) -> Callable[[Sequence[tuple[str, str]]], None]:
    """Return a function that adds the demo user and prints how to log in, to the present standard output.

    It is called when the server listens, so a start that fails creates no password that nobody has seen. By then twistd
    has redirected standard output to the log or, in the background, to /dev/null.
    """
    output = os.dup(sys.__stdout__.fileno()) if sys.__stdout__ else os.open(os.devnull, os.O_WRONLY)

    def announce(listening: Sequence[tuple[str, str]]) -> None:
        try:
            text = first_run.add_demo_user(listening)
        except OSError as error:
            raise CannotServe(first_run.not_writable(error)) from None
        with open(output, "w", encoding="utf-8") as file:
            print(text, file=file)

    return announce
