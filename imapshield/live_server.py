"""What a running server says about itself, for commands that work beside it."""

import os
import sys
from typing import Any

from imapshield.control.client import ask
from imapshield.control.request_lines import ControlError, Request
from imapshield.control.socket_file import client_path
from imapshield.first_run import FirstRunFolder


def live_server(path: str | None = None) -> dict[str, Any]:
    """Return the ``endpoints`` and the ``mail_root`` of the running server; empty if there is none.

    Args:
        path: its control socket; by default the one that the commands of an operator ask.
    """
    path = path or client_path(FirstRunFolder.from_environ(os.environ).folder)
    try:
        return dict(ask(path, Request("options")))
    except (ControlError, TypeError, ValueError):
        return {}


def warn_if_served(maildir: str) -> None:
    """Print a warning if the running server has a Maildir among its mail."""
    mail_root = live_server().get("mail_root", "")
    before, field, _ = mail_root.partition("{")
    folder = os.path.realpath(os.path.dirname(before) if field else before)
    if mail_root and os.path.commonpath((folder, os.path.realpath(maildir))) == folder:
        print(
            f"imapshield: warning: the server is running, and has the mail of {mail_root}; clients must not get UIDs"
            " that the other server does not know: stop it, and run this command again",
            file=sys.stderr,
        )
