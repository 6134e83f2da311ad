"""The console script ``imapshield``: its subcommands, and those about bans. The others are in the ``*_commands.py``."""

import argparse
import errno
import math
import os
import shlex
import stat
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from imapshield import __version__, mail_commands, operator_commands, user_commands
from imapshield.control.request_lines import ControlError
from imapshield.cred import users
from imapshield.first_run import FirstRunFolder
from imapshield.guard.bans import ban_target
from imapshield.state_file import (
    COMMAND_ADVICE,
    DEFAULT_NAME,
    StateFile,
    StateFileError,
    default_path,
)
from imapshield.user_commands import CommandError

CHECK = "check-config"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of the commands."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"{self.prog}: {message}; {usage}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status. An error is one line on standard error."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == [CHECK]:  # its options are those of twistd, which argparse does not know
        from imapshield import check_command

        return check_command.run(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except users.BadUserName as error:
        return _fail(str(error))
    except OSError as error:  # of the password file; the commands for Maildirs raise none
        return _fail(_advice(error, options.file))
    except (KeyboardInterrupt, EOFError):
        return _fail("interrupted; nothing was changed")
    except (CommandError, ControlError, StateFileError) as error:
        return _fail(str(error))
    except mail_commands.MailCommandError as error:
        _fail(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    description = (
        "Manage a password file and Maildirs of imapshield. `twistd imapshield` starts the server."
    )
    parser = _Parser(prog="imapshield", description=description)
    parser.add_argument("--version", action="version", version=__version__)
    commands: Any = parser.add_subparsers(required=True, metavar="COMMAND")
    user_commands.add_commands(commands)
    folder = FirstRunFolder.from_environ(os.environ).folder
    state = default_path(os.environ, folder)
    for name, run, text in (
        ("bans", _bans, "list the addresses that the server has banned"),
        (
            "unban",
            _unban,
            "end the bans of an address or network; the server notices in two seconds",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if run is _unban:
            command.add_argument("network", metavar="ADDRESS|NETWORK", help="such as 192.0.2.0/26")
        state_help = f"the file of the server's option --state [default: {state}]"
        command.add_argument("--state", metavar="FILE", default=state, help=state_help)
        command.set_defaults(run=run)
    text = "check the options of twistd imapshield, the certificate, users and Maildirs, and start nothing"
    commands.add_parser(CHECK, help=text, add_help=False)
    mail_commands.add_commands(commands)
    operator_commands.add_commands(commands, folder)
    return parser


def _advice(error: OSError, path: str) -> str:
    """Return what is wrong with the password file, and what to do."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        return f"the directory {folder} does not exist; create it first"
    if error.errno == errno.ENOENT:
        return f"{path}: {error.strerror}; `imapshield passwd {path} USER` creates it"
    if error.errno == errno.EISDIR:
        return f"{path}: is a directory; name a file in it, such as {os.path.join(path, 'users')}"
    text = f"{error.filename or path}: {error.strerror}"
    return f"{text}; run this command as its owner" if error.errno == errno.EACCES else text


def _bans(options: argparse.Namespace) -> None:
    bans = [ban for ban in _state_file(options).bans() if ban.remaining > 0]
    for ban in bans:
        scope = ", strangers only" if ban.strangers_only else ""
        minutes = math.ceil(ban.remaining / 60)
        print(f"{ban.network}  {minutes} min left, {ban.reason}, ban {ban.number}{scope}")
    if not bans:
        text = (
            f"no bans in {options.state}; if that is the file of another server, {COMMAND_ADVICE}"
        )
        print(f"imapshield: {text}", file=sys.stderr)


def _unban(options: argparse.Namespace) -> None:
    try:
        ban_target(options.network)
    except ValueError as error:
        raise CommandError(str(error)) from None
    removed = _state_file(options).unban(options.network)
    if not removed:
        bans = f"imapshield bans --state {shlex.quote(options.state)}"
        raise CommandError(f"{options.network} is not banned; `{bans}` lists the bans")
    for network in removed:
        print(f"unbanned {network}")


def _state_file(options: argparse.Namespace) -> StateFile:
    path = options.state
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CommandError(_state_advice(path, error.errno or errno.ENOENT)) from None
    if stat.S_ISDIR(mode):
        raise CommandError(_state_advice(path, errno.EISDIR))
    if not os.access(path, os.R_OK | os.W_OK):
        raise CommandError(_state_advice(path, errno.EACCES))
    return StateFile(path)


def _state_advice(path: str, error: int) -> str:
    """Return what is wrong with the file of ``--state``, and what to do."""
    advice = "run it as root" if error == errno.EACCES else COMMAND_ADVICE
    if error == errno.EISDIR:
        advice = f"name the file in it: --state {os.path.join(path, DEFAULT_NAME)}"
    texts = {
        errno.EACCES: "permission denied",
        errno.ENOENT: "no such file",
        errno.EISDIR: "is a directory",
    }
    return f"{path}: {texts.get(error, os.strerror(error))}; {advice}"


def _fail(text: str) -> int:
    print(f"imapshield: {text}", file=sys.stderr)
    return 1
