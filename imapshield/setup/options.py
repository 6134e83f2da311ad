"""The options of ``imapshield setup``. What they do is imported only when it runs, because it needs Twisted."""

import argparse
from typing import Any

_DESCRIPTION = (
    "Set up a server: ask five questions, or none with --yes, and write configuration, users, directories and a unit of"
    " systemd. Nothing is written before all questions are answered. No file is replaced without a question or --force."
)


def add_command(commands: Any) -> None:
    """Add the subcommand to those of the console script."""
    text = "set up a server: configuration, first user, directories and a unit of systemd"
    command = commands.add_parser("setup", help=text, description=_DESCRIPTION)
    for option, metavar, text in (
        (
            "--mail-root",
            "DIR",
            "1: Maildirs are DIR/USER, or DIR with {user}, {local}, {domain} in it",
        ),
        ("--host", "NAME", "2: the name to which mail clients connect"),
        ("--certificate", "PEM", "3: certificate with chain, or none to serve this machine only"),
        ("--key", "PEM", "3: its key, if it is in another file"),
        ("--user", "NAME", "4: the first user"),
        (
            "--password-file",
            "FILE",
            "4: the password is its first line [default: ask, or read standard input]",
        ),
        ("--start", "HOW", "5: how the server is started: systemd or hand"),
        ("--config", "FILE", "where the configuration is written; the users are beside it"),
        (
            "--data",
            "DIR",
            "where bans and, by default, the mail are kept",
        ),
        (
            "--server-user",
            "NAME",
            "the user that runs the server, if root sets it up [default: the owner of the mail]",
        ),
    ):
        command.add_argument(option, metavar=metavar, help=text)
    listen = "an endpoint instead of the usual ports, such as tcp:143; repeatable"
    command.add_argument("--listen", metavar="ENDPOINT", action="append", default=[], help=listen)
    yes = "ask nothing: use the defaults for what no option says; the password is read from standard input"
    command.add_argument("--yes", action="store_true", help=yes)
    command.add_argument(
        "--force", action="store_true", help="replace existing files without a question"
    )
    dry_run = "show what would be written, and write nothing"
    command.add_argument("--dry-run", action="store_true", help=dry_run)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from imapshield.setup.setup_command import run

    return run(options)
