"""Reads the options of front mode, and refuses those that have no meaning in it."""

from collections.abc import Mapping
from typing import Any

from imapshield.front.backend_address import parse_nodes
from imapshield.front.map_option import MapOption

_OF_MAIL = (
    *("mail-root", "index-root", "separator", "prefix", "follow-symlinks", "no-text-index"),
    "no-special-folders",
)
_OF_USERS = (*("auth", "master-users", "default-domain", "exact-user-names", "no-rehash"),)
_FLAGS = ("backend-proxy", "backend-id", "user-map-password")


def front_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``--backend`` and its companions.

    Args:
        options: the options by their long names.

    Raises:
        ValueError: they are wrong. The text is one line for the operator.
    """
    flags = [name for name in _FLAGS if options.get(name)]
    user_map = options.get("user-map")
    companions = flags + ["user-map"] * (user_map is not None)
    texts = tuple(options.get("backend") or ())
    if not texts:
        if companions:
            raise ValueError(f"--{companions[0]} needs --backend: add --backend tls:HOST:993")
        return {}
    for names, what in ((_OF_MAIL, "has the mail"), (_OF_USERS, "checks the passwords")):
        for name in names:
            if options.get(name):
                raise ValueError(
                    f"--{name} and --backend exclude each other, because the backend {what}: remove one of them"
                )
    parse_nodes(texts)
    if len(texts) > 1 and user_map is None:
        raise ValueError(
            "several --backend need --user-map, which says who is on which: add --user-map file:PATH"
        )
    _check_map(user_map, sends_password="user-map-password" in flags)
    settings = {"backend": texts, "user_map": user_map}
    return settings | {name.replace("-", "_"): True for name in flags}


def _check_map(text: str | None, *, sends_password: bool) -> None:
    """Refuse a value of ``--user-map`` that is wrong."""
    if text is None:
        if sends_password:
            raise ValueError("--user-map-password needs --user-map https://HOST/PATH")
        return
    try:
        option = MapOption.parse(text, sends_password=sends_password)
    except ValueError as error:
        raise ValueError(f"--user-map {text}: {error}") from None
    if sends_password and not option.kind.startswith("http"):
        raise ValueError("--user-map-password is for --user-map https://HOST/PATH alone")
