"""The console script ``imapshield``: manages the users of a password file and the bans, and inspects Maildirs.

A password is typed, or read from standard input. It is never an argument, because every process of the machine can
read the arguments of other processes.
"""

import argparse
import errno
import getpass
import math
import os
import shlex
import stat
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from imapshield import __version__, mail_commands, operator_commands
from imapshield.control.request_lines import ControlError
from imapshield.cred import passwords, users
from imapshield.first_run import FirstRunFolder
from imapshield.guard.bans import ban_target
from imapshield.state_file import (
    COMMAND_ADVICE,
    DEFAULT_NAME,
    StateFile,
    StateFileError,
    default_path,
)


class CommandError(Exception):
    """The command cannot be run. The text says why, and what to do."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of the commands."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"{self.prog}: {message}; {usage}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status. An error is one line on standard error."""
    options = _parser().parse_args(argv)
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
    for name, run, text in (
        ("passwd", _passwd, "add a user or change a password, which is typed or read from a pipe"),
        ("users", _users, "list the users"),
        ("remove", _remove, "remove a user; the mail is kept"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", metavar="FILE", help="the password file")
        if run is not _users:
            command.add_argument("user", metavar="USER", help="the name of the user")
        if run is _passwd:
            scram = "store a SCRAM-SHA-256 secret; SCRAM is offered if all users of FILE have one"
            command.add_argument("--scram", action="store_true", help=scram)
        command.set_defaults(run=run)
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


def _passwd(options: argparse.Namespace) -> None:
    users.name_in_file(options.user)
    _check_folder(options.file)
    password = _read_password()
    if not password:
        raise CommandError("the password is empty; nothing was changed")
    hash_password = passwords.hash_scram if options.scram else passwords.hash_password
    try:
        stored = hash_password(password)
    except passwords.NotAscii:
        raise CommandError(
            "with --scram a password has only printable ASCII characters; omit --scram, or "
            "choose another password"
        ) from None
    had_file = os.path.exists(options.file)
    had_scram = had_file and _offers_scram(options.file)
    added = users.set_hash(options.file, options.user, stored)
    print(f"{'added' if added else 'changed'} {options.user}")
    if not had_file and _only_root_reads(options.file):
        advice = f"`chown USER {shlex.quote(options.file)}`, if the server runs as another user"
        print(f"imapshield: only root can read {options.file}; {advice}", file=sys.stderr)
    if had_scram and not _offers_scram(options.file):
        text = f"SCRAM is no longer offered, because {options.user} has no SCRAM secret; --scram stores one"
        print(f"imapshield: {text}", file=sys.stderr)


def _only_root_reads(path: str) -> bool:
    status = _status(path)
    return status.st_uid == 0 and not status.st_mode & 0o044


def _status(path: str) -> os.stat_result:
    return os.stat(path)


def _check_folder(path: str) -> None:
    """Check, before a password is typed, that the file can exist."""
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    os.stat(os.path.dirname(os.path.realpath(path)))


def _read(path: str) -> tuple[dict[str, str], list[str]]:
    with open(path, "rb") as file:
        return users.parse(file.read())


def _offers_scram(path: str) -> bool:
    hashes = _read(path)[0].values()
    return bool(hashes) and all(passwords.parse_scram(stored) for stored in hashes)


def _users(options: argparse.Namespace) -> None:
    hashes, problems = _read(options.file)
    for user in hashes:
        print(user)
    for problem in problems:
        print(f"imapshield: {options.file}: {problem}", file=sys.stderr)


def _remove(options: argparse.Namespace) -> None:
    if not users.remove(options.file, options.user):
        raise CommandError(
            f"{options.file}: no user {options.user}; list the users with `imapshield users "
            f"{options.file}`"
        )
    print(f"removed {options.user}")


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


def _read_password() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Retype new password: ") != password:
        raise CommandError("passwords do not match; nothing was changed")
    return password.encode("utf-8", "surrogateescape")


def _fail(text: str) -> int:
    print(f"imapshield: {text}", file=sys.stderr)
    return 1
