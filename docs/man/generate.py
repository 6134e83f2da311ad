"""Writes the manual pages of this directory: ``python docs/man/generate.py``. A test fails if they are out of date.

All options and limits come from their definitions in the package; only the text around them is here.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from imapshield import __version__
from imapshield.cli import CHECK, command_definitions, make_parser
from imapshield.command_definitions import Command, Option, parser_options, usage_options
from imapshield.control.socket_file import client_path
from imapshield.first_run import FirstRunFolder
from imapshield.limits import Limits
from imapshield.state_file import default_path
from imapshield.tap import Options

HERE = os.path.dirname(os.path.abspath(__file__))
HELP = {("-h", "--help"), ("--help",)}
"""The option that all commands have."""
HOME = "~/.local/share/imapshield"


def pages() -> dict[str, str]:
    """Return the names of the pages and their texts."""
    return {
        "imapshield.1": "\n".join(_console_page()) + "\n",
        "twistd-imapshield.8": "\n".join(_server_page()) + "\n",
    }


def _console_page() -> Iterator[str]:
    yield from _head(
        "IMAPSHIELD", 1, "imapshield", "manage the users, mail and server of imapshield"
    )
    yield ".SH SYNOPSIS"
    yield r".B imapshield"
    yield r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]..."
    yield ".SH DESCRIPTION"
    yield from _paragraph(
        "imapshield manages the password file of the IMAP server imapshield, checks its configuration and Maildirs, and"
        " asks a running server. twistd-imapshield(8) is the server."
    )
    yield from _options(parser_options(make_parser()))
    yield from _paragraph("Each command has the option --help.")
    yield ".SH COMMANDS"
    for command in command_definitions():
        yield from _command(command)
    yield ".SH EXIT STATUS"
    yield from _terms(
        (
            ("0", "The command has succeeded."),
            ("1", _FAILED),
            ("2", "The command line is wrong. check-config: there are errors. check-mail, export-uids: not possible."),
        )
    )  # fmt: skip
    yield ".SH ENVIRONMENT"
    yield from _terms(
        (
            ("XDG_DATA_HOME", f"The directory in which imapshield/ is, instead of {HOME}."),
            (
                "STATE_DIRECTORY",
                "The directory of the file of bans, as systemd sets it for the server.",
            ),
        )
    )
    yield ".SH FILES"
    yield from _terms(_FILES)
    yield ".SH SEE ALSO"
    yield from _paragraph("twistd-imapshield(8), twistd(1)")


def _server_page() -> Iterator[str]:
    yield from _head("TWISTD-IMAPSHIELD", 8, "twistd-imapshield", "an IMAP server for Maildir")
    yield ".SH SYNOPSIS"
    yield r".B twistd"
    yield r"[\fIOPTION OF TWISTD\fR]..."
    yield r".B imapshield"
    yield r"[\fIOPTION\fR]..."
    yield ".SH DESCRIPTION"
    yield from _paragraph(Options.longdesc)
    yield from _paragraph(
        "Options of twistd(1) come before the word imapshield: --nodaemon keeps the server in the foreground, --uid and"
        " --gid name the user that it becomes after it has opened its ports, and --logfile names its log."
    )
    yield ".SH OPTIONS"
    make_options: Any = Options  # Twisted's class has no annotations
    yield from _options(usage_options(make_options()))
    yield ".SH CONFIGURATION FILE"
    yield from _paragraph(
        "The file of --config is TOML. Its keys are the long options without the dashes. Flags are true or false,"
        " options that can be repeated are lists, all others are strings, and limits are the keys of the table [limit]."
        " The command line takes precedence. For example:"
    )
    yield from (
        ".nf", ".RS", 'listen = ["tcp:143", "imaps:993"]', 'mail\\-root = "/srv/mail"',
        'auth = ["file:/etc/imapshield/users"]', 'certificate = "/etc/ssl/mail.pem"', "", "[limit]",
        "max_connections = 2000", ".RE", ".fi",
    )  # fmt: skip
    yield ".SH LIMITS"
    yield from _paragraph(
        "Each is changed with --limit NAME=VALUE. The values here are the defaults."
    )
    for group, limits in Limits().by_group().items():
        yield f'.SS "{_escape(group)}"'
        yield from _terms((f"{name}={value}", reason) for name, (value, reason) in limits.items())
    yield ".SH SIGNALS"
    yield from _terms(
        (
            (
                "SIGHUP",
                "Read the configuration, users and certificates again, and open the log again.",
            ),
            ("SIGUSR1", "Write a line about the state into the log."),
            (
                "SIGTERM, SIGINT",
                "Stop: clients get BYE, calls of the mail store that have begun complete.",
            ),
        )
    )
    yield ".SH EXIT STATUS"
    yield from _terms(
        (
            ("0", "The server has stopped after a signal."),
            (
                "1",
                "It cannot start; the last line says why and what to do. --check: there are warnings.",
            ),
            ("2", "--check: there are errors."),
        )
    )
    yield ".SH FILES"
    yield from _terms(_FILES)
    yield ".SH SEE ALSO"
    yield from _paragraph("imapshield(1), twistd(1), systemd.service(5)")


_FAILED = (
    "It has failed, and one line on standard error says why and what to do. check-config: there are warnings."
    " check-mail: there is damage. import: some users were refused. reload: the configuration has an error, and nothing"
    " was changed."
)
_FILES = (
    (HOME, "mail, users, bans and the control socket of a server that is started without options."),
    ("/run/imapshield/control", "the control socket, if systemd starts the server."),
    ("/etc/imapshield", "the configuration and the password file, by convention."),
)


def _head(title: str, section: int, name: str, text: str) -> Iterator[str]:
    yield r".\" Made by docs/man/generate.py. Do not edit."
    yield f'.TH {title} {section} "" "imapshield {__version__}"'
    yield ".SH NAME"
    yield f"{_escape(name)} \\- {_escape(text)}"


def _command(command: Command) -> Iterator[str]:
    words = [
        f"[\\fI{_escape(each.name)}\\fR]" if each.is_optional else f"\\fI{_escape(each.name)}\\fR"
        for each in command.arguments
    ]
    yield f'.SS "{" ".join(["imapshield", _escape(command.name), *words])}"'
    yield from _paragraph(_sentence(command.text))
    yield from _terms((each.name, _sentence(each.text)) for each in command.arguments if each.text)
    if command.name == CHECK:
        yield from _paragraph("The other options are those of twistd-imapshield(8).")
    make_options: Any = Options
    server = (
        {option.flags for option in usage_options(make_options())}
        if command.name == CHECK
        else set()
    )
    yield from _options([each for each in command.options if each.flags not in server | HELP])


def _options(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        flags = ", ".join(f"\\fB{_escape(flag)}\\fR" for flag in option.flags)
        value = f" \\fI{_escape(option.value)}\\fR" if option.value else ""
        yield ".TP"
        yield flags + value
        yield _escape(_sentence(option.text)) or "See the description."


def _terms(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in terms:
        yield ".TP"
        yield f"\\fB{_escape(term)}\\fR"
        yield _escape(text)


def _paragraph(text: str) -> Iterator[str]:
    yield ".PP"
    yield _escape(text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." * (not text.endswith("."))


def _escape(text: str) -> str:
    """Return text for roff, without the directories of the user who runs this program."""
    folder = FirstRunFolder.from_environ(os.environ).folder
    for path, name in (
        (client_path(folder), f"{HOME}/control"),
        (default_path(os.environ, folder), f"{HOME}/guard.sqlite"),
        (folder, HOME),
    ):
        text = text.replace(path, name)
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"^([.'])", r"\\&\1", text)


if __name__ == "__main__":
    for page_name, page_text in pages().items():
        with open(os.path.join(HERE, page_name), "w", encoding="utf-8") as file:
            file.write(page_text)
