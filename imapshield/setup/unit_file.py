"""The unit with which systemd starts the server: that of contrib/ with the paths and the user of one installation."""

import os

from imapshield.cred.realm import MailRoot
from imapshield.setup.answers import Answers
from imapshield.setup.installation import SYSTEM_STATE, Installation, group_of, program

_HOMES = "/home", "/root", "/run/user"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_OWN = """\
# The server of one user, written by `imapshield setup`: `systemctl --user enable --now imapshield` starts it.
[Unit]
Description=IMAP server imapshield

[Service]
# systemd before version 253 does not know notify-reload, and uses the line before it.
Type=notify
Type=notify-reload
{start}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
WatchdogSec=60
TimeoutStopSec=60
UMask=0077

[Install]
WantedBy=default.target
"""


def contrib(name: str) -> str:
    """Return a file of contrib/. The wheel has a copy of it inside the package."""
    for folder in (
        os.path.join(_PACKAGE, "contrib"),
        os.path.join(os.path.dirname(_PACKAGE), "contrib"),
    ):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return file.read()
    raise FileNotFoundError(name)


def unit_file(answers: Answers, installation: Installation) -> str:
    """Return the unit for these answers."""
    command = [
        program("twistd"),
        "--nodaemon",
        "--pidfile=",
        "imapshield",
        "--config",
        installation.config,
    ]
    start = f"ExecStart={' '.join(map(_quoted, command))}"
    if not installation.is_system:
        return _OWN.format(start=start)
    base = MailRoot(answers.mail_root).base
    is_root = answers.server_user == "root"
    lines = []
    for line in contrib("systemd/imapshield.service").splitlines():
        name = line.partition("=")[0]
        if name == "ExecStart":
            lines.append(start)
        elif name in ("User", "Group"):
            lines.append(
                f"{name}={answers.server_user if name == 'User' else group_of(answers.server_user)}"
            )
        elif name == "ReadWritePaths":
            paths = [
                path for path in (installation.state, base) if not _is_below(path, SYSTEM_STATE)
            ]
            lines += [f"ReadWritePaths={' '.join(map(_quoted, paths))}"] if paths else []
        elif name == "ProtectHome" and any(_is_below(base, home) for home in _HOMES):
            lines.append("ProtectHome=no")
        elif is_root and name in (
            "AmbientCapabilities",
            "CapabilityBoundingSet",
            "SystemCallFilter",
        ):
            # Mail that belongs to its users: root gives files to their owners, and acts as them.
            lines += ["CapabilityBoundingSet=~"] if name == "CapabilityBoundingSet" else []
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _quoted(text: str) -> str:
    """Return an argument of a line of a unit (systemd.syntax(7))."""
    text = text.replace("%", "%%")
    return f'"{text}"' if " " in text else text
