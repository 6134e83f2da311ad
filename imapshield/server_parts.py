"""`ServerParts`: the parts of a server, made from its `Settings` in the order in which they need each other."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.task import LoopingCall

from imapshield.acme.acme_service import AcmeService
from imapshield.auth_option import (
    make_chain,
    make_checker,
    mechanisms,
    quota_of,
    quota_setting,
    set_rehashing,
)
from imapshield.certificates import Certificates
from imapshield.config import ConfigError, Settings
from imapshield.config_check import restart_problems
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.realm import MaildirRealm
from imapshield.edge.admission import Admission
from imapshield.edge.ban_command import BanCommand, parse_command
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.proxy import Proxies
from imapshield.events import EventObserver
from imapshield.first_run import FirstRunFolder
from imapshield.free_memory import CHECK_SECONDS, FreeMemory
from imapshield.front.front_parts import Front
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard_state import GuardState
from imapshield.observe.log_observer import LogObserver
from imapshield.operator_ports import OperatorPorts
from imapshield.process.process_control import Process, ProcessControl
from imapshield.process.reloadable import ReloadableServer
from imapshield.process.systemd import Notifier
from imapshield.process.user_watch import UserWatch
from imapshield.shared.guard_sharing import GuardSharing
from imapshield.start_checks import check_mail_directories
from imapshield.state_file import default_path


class ServerParts:
    """The parts of one server. Nothing runs and nothing listens yet.

    Args:
        settings: the configuration.
        reactor: the reactor.
        process: what is known of the process.
        certificates: those of the endpoints.
        acme: obtains and renews a certificate.
        operator: what operators ask; by default ports of this process.

    Attributes:
        settings: as the argument, and so are `reactor`, `process`, `certificates` and `acme`.
        first_run: the folder of a server that is started without options.
        checkers: those of ``--auth``. A reload changes the list in place.
        realm: opens the accounts; in front mode it stands for one.
        front: the parts of front mode, or None.
        guard: decides about connections; `factory` asks it.
        log: writes the lines about events.
        operator: what operators ask: the control socket, the status page, and the observers behind them.
        factory: serves the clients.
        proxies: tells which connections begin with a PROXY header, on ordinary ports.
        only_proxies: the same on ports where all connections do.
        state_path: the file of ``--state``; None for no file.
        state: keeps bans and known users in that file.
        ban_command: the program of ``--ban-command``, or None.
        sharing: shares the guard with other servers, or None.
        control_process: reloads, and tells systemd that the server is alive.
        user_watch: ends the connections of users who are removed.
        start_freeing: begins to give memory back to the system.
        stop_freeing: ends that.

    Raises:
        ConfigError: the settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        process: Process,
        certificates: Certificates,
        acme: AcmeService,
        operator: Any = None,
    ) -> None:
        self.operator: Any = operator or OperatorPorts(settings, reactor)
        self.settings, self.reactor, self.process = settings, reactor, process
        self.certificates, self.acme = certificates, acme
        with process.user.acting():
            self.first_run = _first_run_folder(settings)
        self._make_users()
        self._make_connections()
        self._make_bans()
        self._share_guard()
        self._make_operator_ports()
        self._make_watches()

    def _make_users(self) -> None:
        """Make the checkers of passwords, and the realm that opens the accounts; or a backend that has both."""
        settings, reactor = self.settings, self.reactor
        self.front: Front | None = None
        self.checkers: list[Any] = []
        self.realm: Any
        if settings.backend:
            # A worker that cannot start would serve nobody; one that waits is there when the file is correct.
            earlier = self.process.earlier
            self.front = Front(
                settings,
                reactor,
                lambda: self.factory.limits,
                earlier=None if earlier is None else earlier.authorities,
            )
            self.realm, self._portal, self._challengers = self.front.realm, self.front.portal, {}
            return
        waits = self.process.earlier is not None
        self.checkers = _checkers(settings, self.first_run, reactor, waits_for_files=waits)
        chain = make_chain(reactor, self.checkers, settings, waits_for_files=waits)
        self.realm = _realm(settings, settings.mail_root or self.first_run.mail, reactor)
        self.realm.quota_of = partial(quota_of, self.checkers)
        self.realm.quota_setting = partial(quota_setting, self.checkers)
        self._portal = Portal(self.realm, [chain])
        self._challengers = mechanisms(self.checkers, chain.names)

    def _make_connections(self) -> None:
        """Make the guard, the observers of events, and the factories of connections."""
        settings, reactor = self.settings, self.reactor
        limits = settings.limits
        is_worker = self.process.earlier is not None
        processes = settings.workers if is_worker else 1
        self.guard = ProcessGuard(limits, NetworkSet.parse(settings.trust), processes=processes)
        self.log = LogObserver(verbose=settings.verbose)
        observers: list[EventObserver] = [*self.operator.observers]
        if not is_worker:  # the supervising process has the events of all workers
            observers.insert(0, self.log)
        self.factory = ShieldedIMAP4Factory(
            self._portal,
            limits=limits,
            context_factory=self.certificates.main,
            observers=observers,
            reactor=reactor,
            challengers=self._challengers,
            make_session=None if self.front is None else self.front.make_session,
            guard=self.guard,
        )
        self.proxies = Proxies(NetworkSet.parse(settings.proxy), limits, reactor, observers)
        self.only_proxies = self.proxies.everyone()

    def _make_bans(self) -> None:
        """Make what keeps bans and known users over restarts, and the program of ``--ban-command``."""
        settings, reactor, guard = self.settings, self.reactor, self.guard
        self.state_path = _state_path(settings, self.first_run)
        self.state = GuardState(
            self.state_path,
            guard.bans,
            guard.failures,
            reactor=reactor,
            now=reactor.seconds,
        )
        admission = self.factory.shared.admission
        self.state.on_unban = admission.unbanned
        self.state.on_load = self.keep_decoys
        advisor = self.operator.advisor
        if advisor is not None:
            self.state.on_peaks = advisor.restore
            self.state.changed_peaks = lambda stopping: advisor.changed(force=stopping)
        self.ban_command = _ban_command(settings, admission, self.state, reactor)

    def _share_guard(self) -> None:
        """Share the guard with other servers, with ``--guard-redis``."""
        self.sharing: GuardSharing | None = None
        if self.settings.guard_redis is not None:
            admission, meter = self.factory.shared.admission, getattr(self.operator, "meter", None)
            talkers = None if meter is None else meter.talker_table
            with self.process.user.acting():
                self.sharing = GuardSharing(
                    *(self.settings, admission, self.state, talkers, self.reactor)
                )
            admission.on_ban, admission.on_unban = self.sharing.exchange.tell_bans(
                admission.on_ban, admission.on_unban
            )

    def all_checkers(self) -> list[Any]:
        """Return the checkers of users and of master users, also those that a reload has made."""
        chain: Any = self.factory.portal.checkers[IUsernamePassword]
        return [*self.checkers, *chain.masters]

    def keep_decoys(self) -> None:
        """Give the checkers the key that keeps the salts of unknown users the same over restarts, if there is one."""
        decoy_key = self.state.kept_secret("decoys")
        for checker in self.checkers:
            if decoy_key is not None and hasattr(checker, "decoy_key"):
                checker.decoy_key = decoy_key

    def _make_operator_ports(self) -> None:
        """Make what the operator asks: the control socket and the status page; and reloads, also on a signal."""
        acting, load = self.process.user.acting, self.process.load or (lambda: self.settings)
        reloadable = ReloadableServer(
            factory=self.factory,
            realm=self.realm,
            certificates=self.certificates,
            checkers=self.checkers,
            log=self.log,
            proxies=(self.proxies, self.only_proxies),
            ban_command=self.ban_command,
            reactor=self.reactor,
            on_checkers=self.keep_decoys,
            renewals=[
                self.acme.retry,
                *(part.reload for part in (self.front, self.sharing) if part is not None),
            ],
            others={} if self.front is None else {Front.RELOADABLE: self.front.prepare},
            check_restart=partial(
                restart_problems, self.reactor, self.settings, self.certificates.main
            ),
        )
        self.operator.connect(self.factory, self.certificates, self.first_run.folder, acting)
        if self.sharing is not None:
            self.operator.status_parts["guard_redis"] = self.sharing.status
        self.control_process = ProcessControl(
            reloadable.reloader(self.settings, load),
            Notifier(os.environ, self.reactor),
            self.operator.status,
            self.reactor,
        )
        self.operator.handlers["reload"] = self.control_process.reload
        if self.front is not None:
            self.operator.add_commands(self.front.commands.handlers)

    def _make_watches(self) -> None:
        """Make what notices changed password files, and what gives memory back to the system."""
        self.user_watch = UserWatch(self.factory, self.checkers, self.reactor)
        self.start_freeing, self.stop_freeing = _freeing(self.factory, self.reactor)


def _first_run_folder(settings: Settings) -> FirstRunFolder:
    """Return the folder of the first start, with its mail root if the settings name no other."""
    folder = FirstRunFolder.from_environ(os.environ)
    if settings.mail_root is None and not settings.backend:
        try:
            folder.create_mail_root(samples=not settings.auth)
        except OSError as error:
            raise ConfigError(folder.not_writable(error)) from None
    return folder


def _checkers(
    settings: Settings, first_run: FirstRunFolder, reactor: Any, *, waits_for_files: bool
) -> list[Any]:
    """Return the checkers of ``--auth``, or that of the demo user."""
    checkers = [
        make_checker(reactor, text, waits_for_files=waits_for_files) for text in settings.auth
    ]
    checkers = checkers or [PasswordFile(first_run.users, reactor=reactor)]
    set_rehashing(checkers, settings)
    return checkers


def _realm(settings: Settings, mail_root: str, reactor: Any) -> MaildirRealm:
    """Return what opens the Maildirs of users."""
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


def _state_path(settings: Settings, first_run: FirstRunFolder) -> str | None:
    """Return the path of the state file; None for no file."""
    if settings.state == "none":
        return None
    path = settings.state or default_path(os.environ, first_run.folder)
    if settings.state is None:
        with suppress(OSError):  # the log then says that the file cannot be used
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return path


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
