"""Makes what says which node a user has, from the option ``--user-map``."""

from collections.abc import Callable, Sequence
from typing import Any

from imapshield.config import ConfigError, Settings
from imapshield.front.backend_address import BackendAddress
from imapshield.front.map_file import MapFile
from imapshield.front.map_http import MapHttp
from imapshield.front.map_ldap import MapLdap
from imapshield.front.map_option import MapOption
from imapshield.front.user_map import MapSource, Service, UserMap
from imapshield.limits import Limits


def make_source(
    settings: Settings,
    nodes: Sequence[BackendAddress],
    reactor: Any,
    limits: Callable[[], Limits],
) -> MapSource | None:
    """Return the source of a configuration; None if there is no ``--user-map``.

    Raises:
        ConfigError: it cannot be used.
    """
    if settings.user_map is None:
        return None
    option = MapOption.parse(settings.user_map)  # `config` has checked it
    try:
        if option.kind == "file":
            return MapFile(option.target, [node.node for node in nodes], reactor)
        return UserMap(_service(option, settings, nodes, reactor), reactor, limits)
    except ValueError as error:
        raise ConfigError(f"--user-map {option.kind}:{error}") from None


def _service(
    option: MapOption,
    settings: Settings,
    nodes: Sequence[BackendAddress],
    reactor: Any,
) -> Service:
    if option.kind == "ldap":
        return MapLdap(option.target, nodes, reactor)
    return MapHttp(
        option.target,
        option.text,
        nodes,
        sends_password=settings.user_map_password,
        reactor=reactor,
    )
