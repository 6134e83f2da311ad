"""The console script ``imapshield``: its subcommands, and those about bans. The others are in the ``*_commands.py``."""

import argparse
import errno
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NoReturn

from imapshield import (
    __version__,
    mail_commands,
    operator_commands,
    shell_completion,
    user_commands,
)
from imapshield.command_definitions import Command, parser_commands, usage_options
from imapshield.command_output import note_if_slow, plain
from imapshield.control.client import ask
from imapshield.control.request_lines import ControlError, NoServer, Request
from imapshield.control.socket_file import client_path
from imapshield.cred import users
from imapshield.first_run import FirstRunFolder
from imapshield.guard.bans import ban_target
from imapshield.move import move_options
from imapshield.move.places import MoveError
from imapshield.setup import options as setup_options
from imapshield.state_file import (
    COMMAND_ADVICE,
    DEFAULT_NAME,
    StateFile,
    StateFileError,
    default_path,
)
from imapshield.user_commands import CommandError

CHECK = "check-config"
_INTERRUPTED = "interrupted; nothing was changed"


_WRONG_CHOICE = re.compile(
    r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL
)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of the commands."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        # argparse lists all choices; a few letters further on they would hide the one that was meant.
        if wrong := _WRONG_CHOICE.fullmatch(message):
            meant = get_close_matches(wrong[2], re.findall(r"[\w-]+", wrong[3]), 1)
            if meant:
                what = "command" if wrong[1] == "COMMAND" else f"value of {wrong[1]}:"
                text = f"unknown {what} {wrong[2]!r}; did you mean {meant[0]!r}?"
                self.exit(2, f"{self.prog}: {text} see {self.prog} --help\n")
        self.exit(2, f"{self.prog}: {message}; {usage}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status. An error is one line on standard error."""
    arguments = _control_last(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == [CHECK]:  # its options are those of twistd, which argparse does not know
        from imapshield import check_command

        return check_command.run(arguments[1:])
    parser = make_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        # argparse itself would print the usage of `imapshield`, which does not list the options of a command.
        text = f"unrecognized arguments: {' '.join(unknown)}; see imapshield {arguments[0]} --help"
        parser.exit(2, f"imapshield: {text}\n")
    try:
        return int(options.run(options) or 0)
    except users.BadUserName as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of the output has enough, such as `head`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  so that nothing is written at exit
        return 0
    except OSError as error:  # of the password file; other commands raise none
        return _fail(_advice(error, options.file) if hasattr(options, "file") else str(error))
    except (KeyboardInterrupt, EOFError):
        return 0 if options.run in operator_commands.ENDLESS else _fail(_INTERRUPTED)
    except (CommandError, ControlError, MoveError, StateFileError) as error:
        return _fail(str(error))
    except mail_commands.MailCommandError as error:
        _fail(str(error))
        return 2


def _control_last(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--control PATH`` after the subcommand, whose option it is, if it is before it."""
    arguments = [*arguments]
    length = 2 if arguments[:1] == ["--control"] else 1
    is_before = "".join(arguments[:1]).partition("=")[0] == "--control"
    if not is_before:
        return arguments
    if len(arguments) <= length:
        return []  # no command
    return [arguments[length], *arguments[:length], *arguments[length + 1 :]]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the console script, with all subcommands."""
    description = (
        "Manage a password file and Maildirs of imapshield. `twistd imapshield` starts the server."
    )
    epilog = (
        "Exit status: 0 if the command has succeeded; 1 if it has failed, with one line that says why; 2 if the command"
        " line is wrong. check-config and check-mail: 1 for warnings or damage, 2 for errors."
        " --control PATH may be before or after the command."
    )
    parser = _Parser(prog="imapshield", description=description, epilog=epilog)
    parser.add_argument("--version", action="version", version=__version__)
    commands: Any = parser.add_subparsers(required=True, metavar="COMMAND")
    user_commands.add_commands(commands)
    setup_options.add_command(commands)
    folder = _folder()
    state = default_path(os.environ, folder)
    for name, run, text in (
        ("bans", _bans, "list the addresses that the server has banned"),
        ("unban", _unban, "end the bans of an address or network"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if run is _unban:
            command.add_argument("network", metavar="ADDRESS|NETWORK", help="such as 192.0.2.0/26")
        state_help = (
            "do not ask the server, but use the file of its option --state"
            f" [default if no server is running: {state}]"
        )
        command.add_argument("--state", metavar="FILE", help=state_help)
        operator_commands.add_control_option(command, client_path(folder), default=None)
        json_help = "print the answer as JSON"
        if run is _bans:
            command.add_argument("--json", action="store_true", help=json_help)
        command.set_defaults(run=run)
    text = "check the options of twistd imapshield, the certificate, users and Maildirs, and start nothing"
    commands.add_parser(CHECK, help=text, add_help=False)
    mail_commands.add_commands(commands)
    operator_commands.add_commands(commands, folder)
    text = "move the mail of a user to another mail node, while clients work"
    command = commands.add_parser("move", help=text, description=text)
    move_options.add_options(command)
    text = "print a script that lets a shell complete the commands and options of imapshield"
    command = commands.add_parser("completion", help=text, description=text)
    command.add_argument("shell", choices=("bash", "fish", "zsh"), help="the shell")
    command.set_defaults(run=_completion)
    return parser


def command_definitions() -> list[Command]:
    """Return all subcommands with their options, which for ``check-config`` are those of the server."""
    from imapshield.check_command import CheckOptions

    make_options: Any = CheckOptions  # Twisted's class has no annotations
    options = usage_options(make_options())
    return [
        replace(command, options=options) if command.name == CHECK else command
        for command in parser_commands(make_parser())
    ]


def _completion(options: argparse.Namespace) -> None:
    print(shell_completion.script(options.shell, command_definitions()), end="")


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


def _ask(options: argparse.Namespace, request: Request) -> Any:
    """Return the answer of the running server; None if the state file is to be used, because none is running."""
    if options.state is not None:
        return None
    try:
        with note_if_slow("waiting for the server"):
            return ask(options.control or client_path(_folder()), request)
    except NoServer:
        if options.control is not None:
            raise
        options.state = default_path(os.environ, _folder())
        return None


def _folder() -> str:
    return FirstRunFolder.from_environ(os.environ).folder


def _bans(options: argparse.Namespace) -> None:
    answer = _ask(options, Request("bans"))
    if options.json:
        bans = _state_file(options).bans() if answer is None else []
        found = [ban._asdict() for ban in bans if ban.remaining > 0] if answer is None else answer
        print(json.dumps(found, indent=2))
        return
    if answer is not None:
        for line in operator_commands.show_bans(answer):
            print(line)
        if not answer:
            print("no bans")
        return
    bans = [ban for ban in _state_file(options).bans() if ban.remaining > 0]
    for line in operator_commands.show_bans([ban._asdict() for ban in bans]):
        print(line)
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
    removed = _ask(options, Request("unban", {"network": options.network}))
    if removed == []:
        raise CommandError(f"{options.network} is not banned; `imapshield bans` lists the bans")
    removed = removed or _state_file(options).unban(options.network)
    if not removed:
        bans = f"imapshield bans --state {shlex.quote(options.state)}"
        text = f"no ban of {options.network} in {options.state}; `{bans}` lists the bans"
        raise CommandError(text)
    for network in removed:
        print(f"unbanned {plain(network)}")


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
