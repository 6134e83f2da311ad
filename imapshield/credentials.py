"""Finds files that systemd passes to the service as credentials (``LoadCredential=``, systemd.exec(5))."""

import os
from collections.abc import Mapping

from imapshield.config import ConfigError

CREDENTIAL = "credential:"
"""How a path begins that is the name of a credential."""


def credential_path(text: str, option: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of a file that may be named as ``credential:NAME``.

    Raises:
        ConfigError: systemd has not passed this credential.
    """
    if not text.startswith(CREDENTIAL):
        return text
    name = text.removeprefix(CREDENTIAL)
    path = os.path.join(environ.get("CREDENTIALS_DIRECTORY", ""), name)
    if "/" in name or not environ.get("CREDENTIALS_DIRECTORY") or not os.path.exists(path):
        advice = f"add LoadCredential={name}:/path/of/the/file to the unit"
        raise ConfigError(f"{option} {text}: systemd has passed no such credential; {advice}")
    return path
