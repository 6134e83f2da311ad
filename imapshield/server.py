"""Builds the server from its `Settings`: checkers, realm, guard, factory and service."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imapshield import __version__
from imapshield.acme.acme_service import AcmeService
from imapshield.auth_option import make_chain, make_checker, mechanisms, quota_of, set_rehashing
from imapshield.certificates import Certificates, pair_files
from imapshield.config import ConfigError, Settings
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.realm import MaildirRealm
from imapshield.edge.admission import Admission
from imapshield.edge.ban_command import BanCommand, parse_command
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.gate import Gate
from imapshield.edge.proxy import Proxies
from imapshield.endpoints import is_proxied, listen_endpoint
from imapshield.events import EventObserver
from imapshield.first_run import FirstRunFolder
from imapshield.free_memory import CHECK_SECONDS, FreeMemory
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shares import files_for
from imapshield.guard_state import GuardState
from imapshield.observe.log_observer import LogObserver
from imapshield.operator_ports import OperatorPorts
from imapshield.process.process_control import Process, ProcessControl
from imapshield.process.reloadable import ReloadableServer
from imapshield.process.systemd import Notifier
from imapshield.process.user_watch import UserWatch
from imapshield.service import CannotServe, ShieldService
from imapshield.start_checks import check_as_user, check_mail_directories
from imapshield.state_file import default_path

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
    certificates = _certificates(settings, reactor)
    folder, acting = FirstRunFolder.from_environ(os.environ).folder, process.user.acting
    acme = AcmeService(settings, certificates, reactor, os.environ, folder, acting)
    endpoints = [(text, listen_endpoint(reactor, text, certificates)) for text in settings.listen]
    check_as_user(settings, process, certificates)
    return _make_server(settings, reactor, process, certificates, acme, endpoints)


def _make_server(
    settings: Settings,
    reactor: Any,
    process: Process,
    certificates: Certificates,
    acme: AcmeService,
    endpoints: Sequence[tuple[str, Any]],
) -> ShieldService:
    limits = settings.limits
    with process.user.acting():
        first_run = _first_run_folder(settings)
    checkers = _checkers(settings, first_run, reactor)
    chain = make_chain(reactor, checkers, settings)
    realm = _realm(settings, settings.mail_root or first_run.mail, reactor)
    guard = ProcessGuard(limits, NetworkSet.parse(settings.trust))
    log, operator = LogObserver(verbose=settings.verbose), OperatorPorts(settings, reactor)
    observers: list[EventObserver] = [log, *operator.observers]
    factory = ShieldedIMAP4Factory(
        Portal(realm, [chain]),
        limits=limits,
        context_factory=certificates.main,
        observers=observers,
        reactor=reactor,
        challengers=mechanisms(checkers, chain.names),
        guard=guard,
    )
    shared, admission = factory.shared, factory.shared.admission
    proxies = Proxies(NetworkSet.parse(settings.proxy), limits, reactor, observers)
    only_proxies = proxies.everyone()
    path = _state_path(settings, first_run)
    state = GuardState(path, guard.bans, guard.failures, reactor=reactor, now=reactor.seconds)
    state.on_unban = admission.unbanned
    ban_command = _ban_command(settings, admission, state, reactor)
    reloadable = ReloadableServer(
        *(factory, realm, certificates, checkers, log, (proxies, only_proxies)),
        *(ban_command, reactor),
        on_checkers=lambda: _keep_decoys(state, checkers),
        on_reload=acme.retry,
    )
    operator.connect(factory, certificates, first_run.folder, process.user.acting)
    control_process = ProcessControl(
        reloadable.reloader(settings, process.load or (lambda: settings)),
        Notifier(os.environ, reactor),
        operator.status,
        reactor,
    )
    operator.handlers["reload"] = control_process.reload
    start_freeing, stop_freeing = _freeing(factory, reactor)
    user_watch = _user_watch(factory, realm, checkers, reactor)

    def load_state() -> None:
        _log_start(settings, path, operator.control_path)
        for checker in (*checkers, *chain.masters):
            if isinstance(checker, PasswordFile):
                checker.load()
        state.on_load = lambda: _keep_decoys(state, checkers)
        state.start()
        start_freeing()
        operator.start()
        user_watch.start()
        certificates.start()
        acme.start()
        control_process.start(process.signals)

    def close_off(text: str, port: Any) -> None:
        port_proxies = only_proxies if is_proxied(text) else proxies
        Gate.close_off(port, admission, shared.fair_queue, port_proxies)

    def periodic() -> None:
        control_process.update()
        admission.report_refused()
        admission.report_busy(shared.busy_users.end_window(reactor.seconds()))
        log.summarize()

    announce = (lambda _: None) if settings.auth else _announcer(first_run)

    def listening(ports: Sequence[tuple[str, str]]) -> None:
        operator.open()
        acme.open()
        announce(ports)

    on_stop: list[Callable[[], Any]] = [
        *(operator.close, acme.close, certificates.stop, user_watch.stop),
        lambda: _close_checkers([*checkers, *chain.masters]),
        *([] if ban_command is None else [ban_command.stop]),
        *(stop_freeing, realm.close, state.stop, admission.report_refused),
        lambda: log.summarize(everything=True),
    ]
    return ShieldService(
        endpoints,
        factory,
        on_stop,
        periodic,
        reactor,
        needed_files=files_for(limits.max_connections),
        on_start=[load_state],
        on_open_files=lambda open_files: _fit_open_files(open_files, guard, realm),
        on_port=close_off,
        on_listening=listening,
    )


def _checkers(settings: Settings, first_run: FirstRunFolder, reactor: Any) -> list[Any]:
    """Return the checkers of ``--auth``, or that of the demo user."""
    checkers = [make_checker(reactor, text) for text in settings.auth]
    checkers = checkers or [PasswordFile(first_run.users, reactor=reactor)]
    set_rehashing(checkers, settings)
    return checkers


def _user_watch(
    factory: ShieldedIMAP4Factory, realm: MaildirRealm, checkers: Sequence[Any], reactor: Any
) -> UserWatch:
    """Return what notices changed password files, whose quotas the realm asks for from now on."""
    realm.quota_of = partial(quota_of, checkers)
    return UserWatch(factory, checkers, reactor)


def _certificates(settings: Settings, reactor: Any) -> Certificates:
    """Return the certificates, with that of ``--certificate``."""
    certificates = Certificates(reactor)
    if settings.certificate is not None:
        certificates.main = certificates.add(pair_files(settings.certificate, settings.key))
    return certificates


def _freeing(
    factory: ShieldedIMAP4Factory, reactor: Any
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what starts and what stops to give memory back to the system."""
    shared = factory.shared
    free_memory = FreeMemory(
        lambda: (len(factory.connections), shared.memory_budget.memory),
        lambda: shared.fair_queue.begun,
    )
    loop = LoopingCall(free_memory.check)
    loop.clock = reactor

    def stop() -> None:
        if loop.running:
            loop.stop()

    return lambda: loop.start(CHECK_SECONDS, now=False), stop


def _close_checkers(checkers: Sequence[Any]) -> Deferred[Any]:
    closed = [maybeDeferred(each.close) for each in checkers if hasattr(each, "close")]
    return DeferredList(closed, consumeErrors=True)


def _keep_decoys(state: GuardState, checkers: Sequence[Any]) -> None:
    """Give the checkers the key that keeps the salts of unknown users the same over restarts, if there is one."""
    decoy_key = state.kept_secret("decoys")
    for checker in checkers:
        if decoy_key is not None and hasattr(checker, "decoy_key"):
            checker.decoy_key = decoy_key


def _log_start(settings: Settings, state: str | None, control: str | None) -> None:
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


def _first_run_folder(settings: Settings) -> FirstRunFolder:
    """Return the folder of the first start, with its mail root if the settings name no other."""
    folder = FirstRunFolder.from_environ(os.environ)
    if settings.mail_root is None:
        try:
            folder.create_mail_root(samples=not settings.auth)
        except OSError as error:
            raise ConfigError(_not_writable(folder, error)) from None
    return folder


def _ban_command(
    settings: Settings, admission: Admission, state: GuardState, reactor: Any
) -> BanCommand | None:
    """Return the program of ``--ban-command``, which gets all bans from now on; None without the option."""
    if settings.ban_command is None:
        return None
    try:
        command = parse_command(settings.ban_command)
    except ValueError as error:
        raise ConfigError(f"--ban-command {error}") from None
    trusted = admission.guard.trusted
    ban_command = BanCommand(command, trusted, reactor=reactor, now=reactor.seconds)
    admission.on_ban = state.on_ban = ban_command.ban
    admission.on_unban = ban_command.unban
    return ban_command


def _state_path(settings: Settings, first_run: FirstRunFolder) -> str | None:
    """Return the path of the state file; None for no file."""
    if settings.state == "none":
        return None
    if settings.state is None:
        with suppress(OSError):  # the log then says that the file cannot be used
            os.makedirs(first_run.folder, mode=0o700, exist_ok=True)
    return settings.state or default_path(os.environ, first_run.folder)


def _fit_open_files(open_files: int | None, guard: Any, realm: Any) -> None:
    """Fit the limits to the number of files that the process may open."""
    shares, wanted = guard.shares, guard.limits.max_connections
    shares.set_open_files(open_files)
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
            needed=files_for(wanted),
        )


def _not_writable(first_run: FirstRunFolder, error: OSError) -> str:
    return (
        f"{error.filename or first_run.folder}: {error.strerror};"
        " make it writable, or name another directory with --mail-root"
    )


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
            raise CannotServe(_not_writable(first_run, error)) from None
        with open(output, "w", encoding="utf-8") as file:
            print(text, file=file)

    return announce


def _realm(settings: Settings, mail_root: str, reactor: Any) -> Any:
    limits = settings.limits
    check_mail_directories(settings, mail_root)
    return MaildirRealm(
        mail_root,
        reactor=reactor,
        quota=(limits.quota_bytes or None, limits.quota_messages or None),
        index_root=settings.index_root,
        follow_symlinks=settings.follow_symlinks,
        has_text_index=not settings.no_text_index,
        has_special_folders=not settings.no_special_folders,
        separator=settings.separator,
        prefix=settings.prefix,
    )
