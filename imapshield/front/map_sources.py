"""Makes what says which node a user has, from the option ``--user-map``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imapshield.config import ConfigError, Settings
from imapshield.extras import install_command
from imapshield.front.backend_address import BackendAddress
from imapshield.front.backend_tls import BackendTls
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
    tls: list[BackendTls] | None = None,
    earlier: Mapping[str, bytes] | None = None,
) -> MapSource | None:
    """Return the source of a configuration; None if there is no ``--user-map``.

    What has a file of ``ca=`` is appended to `tls`, so that it can be read again. `earlier` is as for `Front`.

    Raises:
        ConfigError: it cannot be used.
    """
    if settings.user_map is None:
        return None
    option = MapOption.parse(settings.user_map)  # `config` has checked it
    try:
        if option.kind == "file":
            names = [node.node for node in nodes]
            return MapFile(option.target, names, reactor, waits_for_file=earlier is not None)
        service = _service(option, settings, nodes, reactor, tls, earlier)
        return UserMap(service, reactor, limits)
    except ValueError as error:
        raise ConfigError(f"--user-map {option.kind}:{error}") from None


def _service(
    option: MapOption,
    settings: Settings,
    nodes: Sequence[BackendAddress],
    reactor: Any,
    tls: list[BackendTls] | None,
    earlier: Mapping[str, bytes] | None,
) -> Service:
    if option.kind == "ldap":
        return MapLdap(option.target, nodes, reactor, waits_for_file=earlier is not None)
    if option.kind.startswith("redis"):
        return _redis(option, settings, nodes, reactor, tls, earlier or {})
    return MapHttp(
        option.target,
        option.text,
        nodes,
        sends_password=settings.user_map_password,
        reactor=reactor,
    )


def _redis(
    option: MapOption,
    settings: Settings,
    nodes: Sequence[BackendAddress],
    reactor: Any,
    tls: list[BackendTls] | None,
    earlier: Mapping[str, bytes],
) -> Service:
    try:
        from imapshield.front.map_redis import MapRedis
    except ImportError:
        raise ValueError(f" txredisapi is not installed: {install_command('redis')}") from None
    from imapshield.shared.guard_sharing import read_password, redis_tls
    from imapshield.shared.redis_address import RedisAddress

    try:
        address = RedisAddress.parse(option.target)
    except ValueError as error:
        raise ValueError(f" {error}") from None
    if settings.guard_redis_password and not (address.uses_tls or address.is_local):
        raise ValueError(" the password would cross a network in the clear; use rediss://")
    options = redis_tls(address, earlier)
    if tls is not None and options is not None:
        tls.append(options)
    return MapRedis(address, nodes, lambda: read_password(settings), options, reactor)
