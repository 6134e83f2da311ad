"""imapshield: an IMAP server for Maildir that withstands floods of commands.

The public names are imported on first use. ``import imapshield`` does not import Twisted, so a tool can read
`__version__` without installing a reactor.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imapshield.cred.realm import MaildirRealm
    from imapshield.edge.factory import ShieldedIMAP4Factory
    from imapshield.edge.protocol import ShieldedIMAP4Server
    from imapshield.limits import Limits

__version__ = "0.1.0"

__all__ = ["Limits", "MaildirRealm", "ShieldedIMAP4Factory", "ShieldedIMAP4Server", "__version__"]

_MODULES = {
    "Limits": "imapshield.limits",
    "MaildirRealm": "imapshield.cred.realm",
    "ShieldedIMAP4Factory": "imapshield.edge.factory",
    "ShieldedIMAP4Server": "imapshield.edge.protocol",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
