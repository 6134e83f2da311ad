"""The commands whose cost `benchmarks.counts` counts, and their mail."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import corpus, mail
from benchmarks.client import Client

USER, PASSWORD = "alice", "secret"
MESSAGES = 100
"""Messages of each mailbox."""

Connect = Callable[[], Client]


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a client does.

    Attributes:
        name: its name in the stored file.
        run: does it once, with a session that has INBOX selected, or with a new connection; it gets a number that
            counts up from 0.
        before: prepares a run; its cost is not counted.
        warm: it is done once before it is counted.
    """

    name: str
    run: Callable[[Client, Connect, int], object]
    before: Callable[[Client, int], object] = lambda _, __: None
    warm: bool = True


def write_mail(root: Path, rounds: int) -> None:
    """Make the mailboxes, with as many folders as there are rounds that need a new one."""
    home = root / USER
    corpus.write_maildir(home, MESSAGES)
    folders = [home / f".{name}" for name in ("other", *map(_new_folder, range(rounds)))]
    for folder in folders:
        mail.link(home, folder)
        (folder / "maildirfolder").touch()
    for directory in (path for folder in (home, *folders) for path in folder.glob("[cn]*")):
        # A directory that has changed in the last second would be listed twice.
        os.utime(directory, (corpus.FIRST_DATE, corpus.FIRST_DATE))


def _new_folder(number: int) -> str:
    return f"new{number}"


def _command(text: str) -> Callable[[Client, Connect, int], object]:
    return lambda client, _, number: client.command(text.format(number=number + 1))


def _log_in(_: Client, connect: Connect, __: int) -> None:
    with connect() as client:
        client.login(USER, PASSWORD)
        client.logout()


def _append(client: Client, _: Connect, number: int) -> None:
    client.append("INBOX", b"Subject: %d\r\n\r\n".ljust(4096, b"x") % number + b"\r\n")


def _select_new(client: Client, _: Connect, number: int) -> None:
    client.select(_new_folder(number))


OPERATIONS = [
    Operation("NOOP", _command("NOOP")),
    Operation("50 NOOPs, pipelined", lambda client, _, __: client.pipeline(["NOOP"] * 50)),
    Operation("FETCH FLAGS of 20", _command("FETCH 1:20 (FLAGS)")),
    Operation("FETCH a body", _command("FETCH {number} (BODY.PEEK[])")),
    Operation("FETCH bodies of 100", _command("FETCH 1:100 (BODY.PEEK[])")),
    Operation("FETCH ENVELOPE of 10", _command("FETCH 1:10 (ENVELOPE)")),
    Operation("SEARCH UNSEEN", _command("SEARCH UNSEEN")),
    Operation("SEARCH FROM", _command(f"SEARCH FROM {corpus.PLANTED_FROM[0]}")),
    Operation("STATUS", _command("STATUS other (MESSAGES UNSEEN)")),
    Operation("SELECT", _command("SELECT INBOX")),
    Operation("login, logout", _log_in),
    # A changed directory is looked at again by the next commands, so these are behind the others.
    Operation(
        "STORE",
        _command("STORE {number} +FLAGS (\\Flagged)"),
        lambda client, _: client.command("STORE 1:* -FLAGS.SILENT (\\Flagged)"),
    ),
    Operation("APPEND of 4 KB", _append),
    Operation("COPY", _command("COPY {number} other")),
    Operation("first SELECT of 100", _select_new, warm=False),
    Operation(
        "first ENVELOPE of 10",
        _command("FETCH 1:10 (ENVELOPE)"),
        lambda client, number: client.select(_new_folder(number)),
        warm=False,
    ),
]
