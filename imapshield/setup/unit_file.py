"""The unit with which systemd starts the server: that of contrib/ with the paths and the user of one installation."""

import os
import re
from collections.abc import Sequence

from imapshield.cred.realm import MailRoot
from imapshield.setup.answers import Answers
from imapshield.setup.installation import (
    SYSTEM_STATE,
    Installation,
    group_of,
    program,
    program_files,
)

_HOMES = "/home", "/root", "/run/user"
_TEMPORARY = "/tmp", "/var/tmp"  # noqa: S108  directories that PrivateTmp= hides
_PLAIN = re.compile(r"[\w/.=%$@+,:~-]+")
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


def unit_file(answers: Answers, installation: Installation, certificates: Sequence[str]) -> str:
    """Return the unit for these answers. `certificates`: the files of certificate and key that the server reads."""
    command = [
        program("twistd"),
        "--nodaemon",
        "--pidfile=",
        "imapshield",
        "--config",
        installation.config,
    ]
    start = f"ExecStart={_command_line(*command)}"
    if not installation.is_system:
        return _OWN.format(start=start)
    base = MailRoot(answers.mail_root).base
    hidden = _hidden(answers, installation, certificates)
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
        elif name in hidden:
            lines.append(f"{name}={hidden[name]}")
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


def _hidden(
    answers: Answers, installation: Installation, certificates: Sequence[str]
) -> dict[str, str]:
    """Return the settings that hide directories, with the values that leave the server what it needs."""
    written = [MailRoot(answers.mail_root).base, installation.state]
    written += [os.path.realpath(path) for path in written]  # of links, both ends
    read = [*program_files(), installation.config, *certificates]
    read += [os.path.realpath(path) for path in read]
    home = "read-only" if _is_any_below(read, _HOMES) else "yes"
    return {
        "ProtectHome": "no" if _is_any_below(written, _HOMES) else home,
        "PrivateTmp": "no" if _is_any_below([*written, *read], _TEMPORARY) else "yes",
    }


def _is_any_below(paths: Sequence[str], folders: Sequence[str]) -> bool:
    return any(_is_below(path, folder) for path in paths for folder in folders)


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _command_line(program_path: str, *arguments: str) -> str:
    """Return the value of ExecStart=. systemd replaces variables in arguments, but not in the path of the program."""
    words = [_quoted(each).replace("$", "$$") for each in arguments]
    return " ".join([_quoted(program_path), *words])


def _quoted(text: str) -> str:
    """Return a word of a line of a unit (systemd.syntax(7)), with no specifier in it (systemd.unit(5))."""
    text = text.replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
