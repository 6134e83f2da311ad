"""Makes what a server in front mode has in place of checkers of passwords and Maildirs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from zope.interface import implementer

from imapshield.config import ConfigError, Settings
from imapshield.edge.session_io import SessionFactory
from imapshield.front.backend import Backend
from imapshield.front.backend_address import BackendAddress, parse_nodes
from imapshield.front.backend_tls import BackendTls, reload_tls, tls_options
from imapshield.front.front_session import FrontSession
from imapshield.front.map_sources import make_source
from imapshield.front.node_commands import NodeCommands
from imapshield.front.nodes import Nodes
from imapshield.limits import Limits


@implementer(ICredentialsChecker)
class BackendChecker:
    """Stands in for a checker of passwords. The backend checks them, in `FrontSession`."""

    credentialInterfaces = (IUsernamePassword,)
    masters: tuple[Any, ...] = ()  # as in `cred.checker_chain.CheckerChain`

    def resolve(self, user: bytes) -> bytes:
        """Return the name that counts: that of the user whose password it is.

        It is the one after the star in the name of a master user: a guesser of its password could otherwise begin with
        another name each time. Most servers ignore the case of letters, also of those that are not ASCII.
        """
        name = user.rpartition(b"*")[2] or user
        try:
            return name.decode("utf-8").lower().encode("utf-8")
        except UnicodeDecodeError:
            return name.lower()

    def requestAvatarId(self, _: object) -> NoReturn:
        """Refuse to check anything."""
        raise UnhandledCredentials("the backend checks passwords")


@implementer(IRealm)
class BackendRealm:
    """Stands in for the realm of the Maildirs. The attributes that limits set have no meaning here."""

    max_idle_accounts = 0
    quota: tuple[int | None, int | None] = (None, None)

    def requestAvatar(self, *_: object) -> NoReturn:
        """Refuse to open an account."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing: there are no accounts."""


def tls_options_of(settings: Settings) -> list[tuple[BackendAddress, BackendTls | None]]:
    """Return the address of each backend, and what makes the options of a TLS client, as `tls_options` does.

    Raises:
        ConfigError: the file of ``ca=`` cannot be used.
    """
    found = []
    for address in parse_nodes(settings.backend):  # `config` has checked them
        try:
            found.append((address, tls_options(address)))
        except ValueError as error:
            raise ConfigError(f"--backend {address.text}: {error}") from None
    return found


class Front:
    """The parts of front mode.

    Args:
        settings: the configuration, with a backend.
        reactor: the reactor.
        limits: returns the limits that apply now.

    Raises:
        ConfigError: the backends or the user map cannot be used.
    """

    def __init__(self, settings: Settings, reactor: Any, limits: Callable[[], Limits]) -> None:
        of_nodes = tls_options_of(settings)
        self._tls = [options for _, options in of_nodes]
        self._tls_of_map: list[BackendTls] = []
        backends = [
            Backend(
                replace(address, connections=-(-address.connections // max(1, settings.workers))),
                options,
                reactor,
                limits,
                sends_proxy_header=settings.backend_proxy,
                sends_id=settings.backend_id,
            )
            for address, options in of_nodes
        ]
        self.realm = BackendRealm()
        self.portal = Portal(self.realm, [BackendChecker()])
        addresses = [each.address for each in backends]
        source = make_source(settings, addresses, reactor, limits, self._tls_of_map)
        self.nodes = Nodes(backends, reactor, limits, source)
        self.commands = NodeCommands(self.nodes)

    async def reload(self) -> Sequence[str]:
        """Read the files of ``ca=`` again, and return one line for each that cannot be used."""
        problems = await reload_tls("--backend", self._tls)
        return problems + await reload_tls("--user-map", self._tls_of_map)

    @property
    def make_session(self) -> SessionFactory:
        """Makes the session of each connection."""
        return lambda io: FrontSession(io, self.nodes)
