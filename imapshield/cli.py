"""The console script ``imapshield``: users of a password file are set, listed and removed.

A password is typed, or comes on standard input; it is never an argument, which every process of the machine can read.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence
from typing import NoReturn

from imapshield import __version__
from imapshield.cred import passwords, users


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. What goes wrong is one line on standard error."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except users.BadUserName as error:
        return _fail(f"the user name cannot be used: {error}")
    except OSError as error:
        return _fail(f"{error.filename or options.file}: {error.strerror}")
    except (KeyboardInterrupt, EOFError):
        return _fail("nothing was changed")
    except _Refused as error:
        return _fail(str(error))
    return 0


class _Refused(Exception):
    """The command cannot be done as asked; the text says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imapshield",
        description="Users of imapshield's password file. The server itself is `twistd imapshield`.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        (
            "passwd",
            _passwd,
            "set a user's password, asked for or read from a pipe; makes FILE if need be",
        ),
        ("users", _users, "list the users"),
        ("remove", _remove, "remove a user; the mail stays"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", metavar="FILE", help="the password file")
        if run is not _users:
            command.add_argument("user", metavar="USER")
        if run is _passwd:
            command.add_argument(
                "--scram",
                action="store_true",
                help="so that clients need not send it (SCRAM-SHA-256), if all users of FILE have it so",
            )
        command.set_defaults(run=run)
    return parser


def _passwd(options: argparse.Namespace) -> None:
    password = _ask()
    if not password:
        raise _Refused("an empty password is none; nothing was changed")
    try:
        made = (
            passwords.hash_scram(password) if options.scram else passwords.hash_password(password)
        )
    except passwords.NotAscii:
        raise _Refused("for SCRAM a password may have only ASCII characters") from None
    new = users.put(options.file, options.user, made)
    _say(f"{'added' if new else 'changed'} {options.user}")


def _users(options: argparse.Namespace) -> None:
    with open(options.file, "rb") as file:
        found, problems = users.parse(file.read())
    for user in found:
        _say(user)
    for problem in problems:
        print(f"imapshield: {options.file}: {problem}", file=sys.stderr)


def _remove(options: argparse.Namespace) -> None:
    if not users.drop(options.file, options.user):
        raise _Refused(f"{options.file}: there is no user {options.user}")
    _say(f"removed {options.user}")


def _ask() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise _Refused("the two are not the same; nothing was changed")
    return password.encode("utf-8", "surrogateescape")


def _say(text: str) -> None:
    print(text)


def _fail(text: str) -> int:
    print(f"imapshield: {text}", file=sys.stderr)
    return 1


def run() -> NoReturn:
    """The entry point of the console script."""
    sys.exit(main())
