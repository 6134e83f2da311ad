"""Makes what says which node a user has, from the option ``--user-map``."""

from collections.abc import Callable, Sequence
from typing import Any

from imapshield.config import ConfigError, Settings
from imapshield.front.backend_address import BackendAddress
from imapshield.front.map_file import MapFile
from imapshield.front.map_option import MapOption
from imapshield.front.user_map import MapSource
from imapshield.limits import Limits


def make_source(
    settings: Settings,
    nodes: Sequence[BackendAddress],
    reactor: Any,
    limits: Callable[[], Limits],  # noqa: ARG001
) -> MapSource | None:
    """Return the source of a configuration; None if there is no ``--user-map``.

    Raises:
        ConfigError: it cannot be used.
    """
    if settings.user_map is None:
        return None
    option = MapOption.parse(settings.user_map)  # `config` has checked it
    if option.kind == "file":
        try:
            return MapFile(option.target, [node.node for node in nodes], reactor)
        except ValueError as error:
            raise ConfigError(f"--user-map file:{error}") from None
    raise ConfigError(f"--user-map {option.text}: cannot be used")
