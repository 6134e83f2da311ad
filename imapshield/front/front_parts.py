"""Makes what a server in front mode has in place of checkers of passwords and Maildirs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn
from unicodedata import normalize

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from imapshield.config import ConfigError, Settings
from imapshield.edge.session_io import SessionFactory
from imapshield.front.backend import Backend
from imapshield.front.backend_address import BackendAddress, parse_nodes
from imapshield.front.backend_tls import BackendTls, reload_tls, tls_options
from imapshield.front.front_session import FrontSession
from imapshield.front.map_file import MapFile
from imapshield.front.map_sources import make_source
from imapshield.front.node_commands import NodeCommands
from imapshield.front.nodes import Nodes
from imapshield.front.user_map import MapSource, UserMap
from imapshield.limits import Limits

_NAME_BYTES = 256
"""Bytes of a name whose characters may be written in several ways: NFKC makes it up to six times as long."""


@implementer(ICredentialsChecker)
class BackendChecker:
    """Stands in for a checker of passwords. The backend checks them, in `FrontSession`."""

    credentialInterfaces = (IUsernamePassword,)
    masters: tuple[Any, ...] = ()  # as in `cred.checker_chain.CheckerChain`

    def resolve(self, user: bytes) -> bytes:
        """Return the name that counts: that of the user whose password it is.

        It is the one after the star in the name of a master user: a guesser of its password could otherwise begin with
        another name each time. Most servers ignore the case of letters, also of those that are not ASCII. Cyrus ignores
        spaces around a name, and SCRAM how its characters are written (RFC 4013).
        """
        name = user.rpartition(b"*")[2] or user
        try:
            text = name.decode("utf-8")
            if len(name) <= _NAME_BYTES:
                text = normalize("NFKC", text)
            text = text.rpartition("*")[2] or text  # NFKC makes a star of others
            return text.lower().strip().encode("utf-8")
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


def tls_options_of(
    settings: Settings, earlier: Mapping[str, bytes] = MappingProxyType({})
) -> list[tuple[BackendAddress, BackendTls | None]]:
    """Return the address of each backend, and what makes the options of a TLS client, as `tls_options` does.

    Raises:
        ConfigError: the file of ``ca=`` cannot be used.
    """
    found, problems = [], []
    for address in parse_nodes(settings.backend):  # `config` has checked them
        try:
            found.append((address, tls_options(address, earlier)))
        except ValueError as error:
            problems.append(f"--backend {address.text}: {error}")
    if problems:
        raise ConfigError(*problems)
    return found


class _Made(NamedTuple):
    """What is made of the options of front mode.

    Attributes:
        backends: those of ``--backend``.
        tls: what has the options of TLS for those of them that need it.
        source: that of ``--user-map``, or None.
        tls_of_map: what has the options of TLS for it.
    """

    backends: list[Backend]
    tls: dict[BackendAddress, BackendTls | None]
    source: MapSource | None
    tls_of_map: list[BackendTls]


def _still_named(before: Iterable[BackendAddress], after: Sequence[BackendAddress]) -> list[str]:
    """Return the names of nodes that are still there, and whose hosts are no other nodes now.

    What is remembered of a user is a name; but the service may have said a host.
    """
    found, places = [], {each.node: (each.host, each.port) for each in after}
    for each in before:
        place, now = (each.host, each.port), places.get(each.node)
        if now is not None and (place == now or place not in places.values()):
            found.append(each.node)
    return found


class Front:
    """The parts of front mode.

    Args:
        settings: the configuration, with a backend.
        reactor: the reactor.
        limits: returns the limits that apply now.
        earlier: `authorities` of the process that has started this one. With it, a file that is wrong now is no error:
            of ``ca=`` what that process has read is used, and of a map nobody can log in until it is correct.

    Raises:
        ConfigError: the backends or the user map cannot be used.
    """

    RELOADABLE = ("backend", "user_map", "user_map_password")
    """The settings that `prepare` applies together: the map names the backends."""

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        limits: Callable[[], Limits],
        *,
        earlier: Mapping[str, bytes] | None = None,
    ) -> None:
        self._settings, self._reactor, self._limits = settings, reactor, limits
        made = self._made = self._make(settings, {}, earlier)
        self.realm = BackendRealm()
        self.portal = Portal(self.realm, [BackendChecker()])
        self.nodes = Nodes(made.backends, reactor, limits, made.source)
        self.commands = NodeCommands(self.nodes)

    def _make(
        self,
        settings: Settings,
        known: Mapping[BackendAddress, Backend],
        earlier: Mapping[str, bytes] | None = None,
    ) -> _Made:
        """Make the backends, except for those that are `known`, and the source."""
        backends, tls = [], {}
        for address, options in tls_options_of(settings, earlier or {}):
            backend = known.get(address)
            tls[address] = options if backend is None else self._made.tls[address]
            backends.append(
                backend
                or Backend(
                    address,
                    options,
                    self._reactor,
                    self._limits,
                    sends_proxy_header=settings.backend_proxy,
                    sends_id=settings.backend_id,
                    workers=settings.workers,
                )
            )
        of_map: list[BackendTls] = []
        source = make_source(
            *(settings, [*tls], self._reactor, self._limits, of_map, earlier),
        )
        return _Made(backends, tls, source, of_map)

    def authorities(self) -> dict[str, bytes]:
        """Return the certificates of all files of ``ca=`` that are in use, as PEM by path, for another process."""
        found = self._all_tls()
        return {each.path: each.authorities for each in found if each.authorities}

    def problems(self) -> list[str]:
        """Return what is wrong with files of ``ca=``, for which another process has given what it has read."""
        return [
            f"{each.problem}; what was read before is used"
            for each in self._all_tls()
            if each.problem
        ]

    def _all_tls(self) -> list[BackendTls]:
        made = [*self._made.tls.values(), *self._made.tls_of_map]
        return [each for each in made if each is not None]

    async def prepare(self, new: Settings) -> Callable[[], object] | None:
        """Return what uses the backends and the map of new settings; None if these need a restart.

        Sessions stay where they are: on backends that are removed, until their users leave.

        Raises:
            ConfigError: they cannot be used.
        """
        if not new.backend:
            return None
        # All others need a restart, also for backends that are new.
        old = self._settings
        settings = replace(old, **{name: getattr(new, name) for name in self.RELOADABLE})
        known = {each.address: each for each in self.nodes.by_name.values()}
        made = await deferToThread(self._make, settings, known)  # it reads files

        def apply() -> None:
            before = self.nodes.source
            if isinstance(made.source, UserMap) and isinstance(before, UserMap):
                names = ("user_map", "user_map_password")
                if all(getattr(old, name) == getattr(settings, name) for name in names):
                    made.source.take(before, _still_named(known, [*made.tls]))
            elif isinstance(made.source, MapFile) and isinstance(before, MapFile):
                made.source.take_over(before)
            self._settings, self._made = settings, made
            self.nodes.replace(made.backends, made.source)

        return apply

    async def reload(self) -> Sequence[str]:
        """Read the files of ``ca=`` and of the map again, and return one line for each that cannot be used."""
        problems = await reload_tls("--backend", self._made.tls.values())
        problems += await reload_tls("--user-map", self._made.tls_of_map)
        source = self.nodes.source
        return problems + (await source.reread() if isinstance(source, MapFile) else [])

    @property
    def make_session(self) -> SessionFactory:
        """Makes the session of each connection."""
        return lambda io: FrontSession(io, self.nodes)
