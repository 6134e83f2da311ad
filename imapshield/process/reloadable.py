"""What of a running server a reload can change: limits, networks, checkers, certificates and the log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from imapshield.auth_option import (
    check_auth_files,
    make_chain,
    make_checker,
    mechanisms,
    set_rehashing,
)
from imapshield.certificates import Certificates, CertificateSource, pair_files
from imapshield.config import Settings
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.master_users import master_checkers
from imapshield.edge.ban_command import BanCommand
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.proxy import Proxies
from imapshield.guard.networks import NetworkSet
from imapshield.observe.log_observer import LogObserver
from imapshield.process.log_files import reopen_all
from imapshield.process.reload import Apply, CheckRestart, Prepare, Reloader, Renew

_log = Logger(namespace="imapshield")

_USER_OPTIONS = ("auth", "master_users", "exact_user_names", "default_domain", "no_rehash")
"""What decides together who may log in, and how a name may be written."""


@dataclass(frozen=True, slots=True)
class ReloadableServer:
    """The parts of a running server that a reload changes.

    Args:
        factory: serves the clients.
        realm: has their mail.
        certificates: those of all endpoints.
        checkers: check the logins. The list is changed in place.
        log: writes the log.
        proxies: those of all ports.
        ban_command: the program of ``--ban-command``, or None.
        reactor: the reactor.
        on_checkers: called after `checkers` has changed.
        renewals: called at each reload, as `Reloader.renewals`.
        others: what else can be applied, as `Reloader` takes it.
        check_restart: says why a restart would fail, as `Reloader` takes it.
    """

    factory: ShieldedIMAP4Factory
    realm: Any
    certificates: Certificates
    checkers: list[Any]
    log: LogObserver
    proxies: Sequence[Proxies]
    ban_command: BanCommand | None
    reactor: Any
    on_checkers: Callable[[], object]
    renewals: Sequence[Renew] = ()
    others: Mapping[tuple[str, ...], Prepare] = field(default_factory=dict)
    check_restart: CheckRestart = lambda _settings, _names: ()

    def reloader(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]] = deferToThread,
    ) -> Reloader:
        """Return what reloads the configuration of this server; the arguments are those of `Reloader`."""
        parts: dict[tuple[str, ...], Prepare] = {
            **self.others,
            ("limits",): self._limits,
            ("proxy",): self._proxy,
            ("trust",): self._trust,
            ("verbose",): self._verbose,
            _USER_OPTIONS: self._auth(settings, run_in_thread),
            ("certificate", "key"): self._certificate(settings, run_in_thread),
        }
        renewals: list[Renew] = [self._read_users, self.certificates.reload, *self.renewals]
        return Reloader(
            *(settings, load, parts, renewals, reopen_all, run_in_thread), self.check_restart
        )

    async def _limits(self, new: Settings) -> Apply:
        def apply() -> None:
            limits = new.limits
            self.factory.set_limits(limits)
            most = self.factory.shared.admission.guard.shares.max_connections
            if most < limits.max_connections:
                _log.warn(
                    "reload: the open files permit {most} connections; for max_connections={wanted} raise `ulimit -n`"
                    " (LimitNOFILE= in systemd) and restart the server",
                    most=most,
                    wanted=limits.max_connections,
                )
            for proxies in self.proxies:
                proxies.limits = limits
            quota = limits.quota_bytes or None, limits.quota_messages or None
            self.realm.quota = quota

        return apply

    async def _proxy(self, new: Settings) -> Apply:
        networks = NetworkSet.parse(new.proxy)

        def apply() -> None:
            for proxies in self.proxies:
                proxies.set_networks(networks)

        return apply

    async def _trust(self, new: Settings) -> Apply:
        networks = NetworkSet.parse(new.trust)

        def apply() -> None:
            self.factory.shared.admission.guard.trusted = networks
            if self.ban_command is not None:
                self.ban_command.trusted = networks

        return apply

    async def _verbose(self, new: Settings) -> Apply:
        return lambda: setattr(self.log, "verbose", new.verbose)

    def _auth(
        self, running: Settings, run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    ) -> Callable[[Settings], Any]:
        """Return what prepares other checkers. A checker whose option stays is kept, with what it remembers."""
        known = dict(zip(running.auth, self.checkers, strict=False))
        master_users = running.master_users

        async def prepare(new: Settings) -> Apply | None:
            if not new.auth or not known:  # from or to the users of the first start
                return None
            await run_in_thread(partial(check_auth_files, new))
            made = {text: known.get(text) or make_checker(self.reactor, text) for text in new.auth}

            checkers = list(made.values())
            masters = (
                master_checkers(self.factory.portal) if new.master_users == master_users else ()
            )
            chain = make_chain(self.reactor, checkers, new, *masters)
            for checker in (*checkers, *chain.masters):
                if isinstance(checker, PasswordFile):
                    await checker.refresh()

            def apply() -> None:
                nonlocal master_users
                master_users = new.master_users
                gone = [checker for text, checker in known.items() if text not in made]
                gone += [
                    each
                    for each in master_checkers(self.factory.portal)
                    if each not in chain.masters
                ]
                known.clear()
                known.update(made)
                set_rehashing(checkers, new)
                self._use_checkers(checkers, chain)
                for checker in gone:
                    getattr(checker, "close", lambda: None)()

            return apply

        return prepare

    def _use_checkers(self, checkers: list[Any], chain: CheckerChain) -> None:
        self.checkers[:] = checkers
        portal = self.factory.portal
        portal.checkers.clear()
        portal.registerChecker(chain)
        self.factory.challengers = mechanisms(checkers, chain.names)
        self.on_checkers()

    def _certificate(
        self, running: Settings, run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    ) -> Callable[[Settings], Any]:
        async def prepare(new: Settings) -> Apply | None:
            # The renewal, and what STARTTLS uses, are those of the start. A configuration that was emptied by mistake
            # does not take STARTTLS away.
            if new.acme != running.acme or new.certificate is None:
                return None
            files = pair_files(new.certificate, new.key)
            found = await run_in_thread(lambda: CertificateSource(files))

            def apply() -> None:
                self.certificates.set_main(found)
                self.factory.context_factory = self.certificates.main

            return apply

        return prepare

    async def _read_users(self) -> list[str]:
        problems = []
        for checker in (*self.checkers, *master_checkers(self.factory.portal)):
            if isinstance(checker, PasswordFile):
                await checker.refresh()
                problems += [checker.problem] if checker.problem else []
        return problems
