"""Reads the options of front mode, and refuses those that have no meaning in it."""

from collections.abc import Mapping
from typing import Any

from imapshield.front.backend_address import BackendAddress

_OF_MAIL = (
    *("mail-root", "index-root", "separator", "prefix", "follow-symlinks", "no-text-index"),
    "no-special-folders",
)
_OF_USERS = (*("auth", "master-users", "default-domain", "exact-user-names", "no-rehash"),)


def front_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``--backend``, ``--backend-proxy`` and ``--backend-id``.

    Args:
        options: the options by their long names.

    Raises:
        ValueError: they are wrong. The text is one line for the operator.
    """
    companions = [name for name in ("backend-proxy", "backend-id") if options.get(name)]
    text = options.get("backend")
    if text is None:
        if companions:
            raise ValueError(f"--{companions[0]} needs --backend: add --backend tls:HOST:993")
        return {}
    for names, what in ((_OF_MAIL, "has the mail"), (_OF_USERS, "checks the passwords")):
        for name in names:
            if options.get(name):
                raise ValueError(
                    f"--{name} and --backend exclude each other, because the backend {what}: remove one of them"
                )
    try:
        BackendAddress.parse(text)
    except ValueError as error:
        raise ValueError(f"--backend {text}: {error}") from None
    return {"backend": text, **{name.replace("-", "_"): True for name in companions}}
