"""`install_command`: what to type to install the packages of an optional feature."""

import shlex
import sys


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra of ``pyproject.toml`` where this program finds them.

    It has the path of Python, because a ``pip`` of the PATH installs into another environment than that of the server.
    """
    return f"{shlex.quote(sys.executable or 'python3')} -m pip install 'imapshield[{extra}]'"
