"""The subcommands of ``imapshield`` that manage the users of a password file.

A password is typed, or read from standard input. It is never an argument, because every process of the machine can
read the arguments of other processes.
"""

import argparse
import errno
import getpass
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

from imapshield.cred import passwords, users
from imapshield.cred.password_rules import weakness
from imapshield.cred.user_import import read_import
from imapshield.regular_file import open_regular

MAX_MISTAKES = 3
"""How often ``passwd`` asks for a password on a terminal."""


class CommandError(Exception):
    """The command cannot be run. The text says why, and what to do."""


def add_commands(commands: Any) -> None:
    """Add the subcommands to those of the console script."""
    table: tuple[tuple[str, Callable[[argparse.Namespace], object], str], ...] = (
        ("passwd", _passwd, "add a user or change a password, which is typed or read from a pipe"),
        ("users", _users, "list the users with their quotas, and what is wrong with the file"),
        ("remove", _remove, "remove a user, which ends the user's connections; the mail is kept"),
        ("disable", _disable, "let a user not log in, until `enable`; ends the user's connections"),
        ("enable", _enable, "let a disabled user log in again, with the same password"),
        (
            "import",
            _import,
            "add the users of Dovecot's passwd-file, or of a file like /etc/shadow",
        ),
    )
    for name, run, text in table:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", metavar="FILE", help="the password file")
        if run is _import:
            command.add_argument("source", metavar="SOURCE", help="the file with the users")
            replace = "replace users who are in FILE already"
            command.add_argument("--replace", action="store_true", help=replace)
        elif run is not _users:
            command.add_argument("user", metavar="USER", help="the name of the user")
        if run is _passwd:
            scram = "store a SCRAM-SHA-256 secret; SCRAM is offered if all users of FILE have one"
            command.add_argument("--scram", action="store_true", help=scram)
            weak = "accept a password that is easy to guess"
            command.add_argument("--weak", action="store_true", help=weak)
        command.set_defaults(run=run)


def _passwd(options: argparse.Namespace) -> None:
    users.name_in_file(options.user)
    _check_folder(options.file)
    password = _read_password(lambda typed: "" if options.weak else weakness(typed, options.user))
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
        _note(f"only root can read {options.file}; {advice}")
    if added and options.user != options.user.lower():
        _note(
            f"{options.user} logs in with exactly this name; any letter case is accepted of a user with a name in"
            " lower case"
        )
    entry = _read(options.file)[0][options.user]
    if entry.is_disabled:
        command = f"imapshield enable {shlex.quote(options.file)} {shlex.quote(options.user)}"
        _note(f"{options.user} is disabled; `{command}` changes that")
    elif had_scram and not _offers_scram(options.file):
        _note(
            f"SCRAM is no longer offered, because {options.user} has no SCRAM secret; --scram stores one"
        )


def _users(options: argparse.Namespace) -> None:
    entries, problems = _read(options.file)
    for user, entry in entries.items():
        if entry.stored or entry.is_disabled:
            names = ("quota", "quota_messages")
            quotas = [f"{n}={value}" for n, value in zip(names, entry.quota, strict=True) if value]
            print("  ".join([user, *["disabled"] * entry.is_disabled, *quotas]))
    for problem in problems:
        _note(f"{options.file}: {problem}")
    hashes = users.usable(entries)
    without = [user for user in hashes if passwords.parse_scram(hashes[user]) is None]
    without = without if len(without) < len(hashes) else []
    if without:
        advice = f"`imapshield passwd --scram {options.file} {without[0]}` stores one"
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        _note(f"SCRAM is not offered, because {without[0]}{more} has no SCRAM secret; {advice}")


def _remove(options: argparse.Namespace) -> None:
    if not users.remove(options.file, options.user):
        raise _no_user(options)
    print(f"removed {options.user}")


def _disable(options: argparse.Namespace) -> None:
    before = _read(options.file)[0].get(options.user)
    if not users.set_disabled(options.file, options.user, is_disabled=True):
        raise _no_user(options)
    if before is not None and before.is_disabled:
        print(f"{options.user} was disabled already")
    else:
        print(f"disabled {options.user}")


def _enable(options: argparse.Namespace) -> None:
    before = _read(options.file)[0].get(options.user)
    if not users.set_disabled(options.file, options.user, is_disabled=False):
        raise _no_user(options)
    entries, _ = _read(options.file)
    entry = entries.get(options.user)
    if entry is None or not entry.stored:
        file, user = shlex.quote(options.file), shlex.quote(options.user)
        reason = (entry.lacks if entry else "") or (
            "the line has nologin; remove that" if entry and entry.is_disabled else "no password"
        )
        raise CommandError(
            f"{options.user} cannot log in: {reason}; `imapshield passwd {file} {user}` sets a password"
        )
    if before is not None and not before.is_disabled:
        print(f"{options.user} was enabled already")
    else:
        print(f"enabled {options.user}")


def _import(options: argparse.Namespace) -> int:
    _check_folder(options.file)
    try:
        with open(options.source, "rb") as file:
            source = file.read()
    except OSError as error:
        raise CommandError(
            f"{options.source}: {error.strerror}; give a readable passwd-file of Dovecot"
        ) from None
    known = set(_read(options.file)[0]) if os.path.exists(options.file) else set()
    new: dict[str, bytes] = {}
    refused = 0
    for number, user, rest, reason in read_import(source):
        text = f"line {number}: "
        if rest is None:
            refused += not reason.startswith("skipped")
            print(f"{text}{user + ': ' if user else ''}{reason}")
        elif user in known and not options.replace:
            print(f"{text}kept {user}, who is in {options.file} already; --replace replaces")
        elif user in new:
            print(f"{text}{user}: skipped: an earlier line is used")
        else:
            new[user] = rest
            print(f"{text}{'replaced' if user in known else 'added'} {user}{reason}")
    if new:
        users.add_lines(options.file, new)
    print(f"{len(new)} imported, {refused} refused")
    return 1 if refused else 0


def _no_user(options: argparse.Namespace) -> CommandError:
    return CommandError(
        f"{options.file}: no user {options.user}; list the users with `imapshield users "
        f"{options.file}`"
    )


def _note(text: str) -> None:
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


def _read(path: str) -> tuple[dict[str, users.UserEntry], list[str]]:
    with open_regular(path) as file:
        return users.parse(file.read())


def _offers_scram(path: str) -> bool:
    hashes = users.usable(_read(path)[0])
    return bool(hashes) and all(passwords.parse_scram(each) for each in hashes.values())


def _read_password(weakness_of: Callable[[bytes], str]) -> bytes:
    """Return a password from a pipe or the terminal, where a mistake is asked again.

    Raises:
        CommandError: it is empty or weak, or the mistakes were too many.
    """
    if not sys.stdin.isatty():
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
        problem = _problem(password, weakness_of)
    for left in reversed(range(MAX_MISTAKES if sys.stdin.isatty() else 0)):
        typed = getpass.getpass("New password: ")
        password = typed.encode("utf-8", "surrogateescape")
        problem = _problem(password, weakness_of)
        if not problem and getpass.getpass("Retype new password: ") != typed:
            problem = "passwords do not match"
        if not problem or not password:
            break
        if left:
            _note(f"{problem}; try again")
    if problem:
        raise CommandError(f"{problem}; nothing was changed")
    return password


def _problem(password: bytes, weakness_of: Callable[[bytes], str]) -> str:
    if not password:
        return "the password is empty"
    reason = weakness_of(password)
    return reason and f"{reason}, or use --weak"
