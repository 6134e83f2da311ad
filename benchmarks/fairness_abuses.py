"""What one user can do to the others: mailboxes that are large or hostile, and commands that use them.

Each abuse is a function that a client calls again and again until the time is up. Errors of the server do not end it:
a refusal is a good answer to abuse.
"""

from __future__ import annotations

import base64
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Client, ServerError

PASSWORD = "secret"  # noqa: S105 - of a server that serves no real mail
LARGE, MANY, FOLDERS, BIG, HOSTILE, LOCKED = "large", "many", "folders", "big", "hostile", "locked"
HOSTILE_USERS = [HOSTILE + str(i) for i in range(4)]
LOCKED_USERS = [LOCKED + str(i) for i in range(4)]
USERS = [LARGE, MANY, FOLDERS, BIG, *HOSTILE_USERS, *LOCKED_USERS]

Run = Callable[[Client, int, Path], None]


@dataclass(frozen=True, slots=True)
class Abuse:
    """One abuse: its name, who does it on how many connections, and what each connection does repeatedly."""

    name: str
    users: tuple[str, ...]
    clients: int
    run: Run
    idle: int = 0
    before: Run | None = None


def message(number: int) -> bytes:
    """Return one of many small messages: some are replies to others, with text to search."""
    return (
        b"From: user%d <u%d@example.org>\r\nTo: list%d@example.com\r\nSubject: %bsubject %d\r\n"
        b"Date: Mon, 7 Feb 2022 21:%02d:25 +0000\r\nMessage-ID: <%d@example.org>\r\n"
        b"References: <%d@example.org> <%d@example.org>\r\n\r\n"
        % (
            *(number % 97, number, number % 7, b"Re: " * (number % 2), number % 1000),
            *(number % 60, number, number // 3, number // 2),
        )
        + b"Some text with words, as people write them.\r\n" * 40
    )


def _hostile_messages() -> list[bytes]:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/%b; boundary=b\r\n\r\n"
    part = b"--b\r\nContent-Language: " + b"a," * 260_000 + b"\r\n\r\n\r\n"
    phrase = b"--b\r\n\r\nFrom: " + b'"" ' * 170_000 + b"\r\n\r\n\r\n"
    return [
        head % b"mixed" + part * 14,
        head % b"digest" + phrase * 14,
        head % b"mixed" + b"--b\r\nContent-Type: a/b; c=d\r\n\r\n\r\n" * 12_000,
        b"From: " + b'"\\a' * 170_000 + b"\r\n\r\n",
    ]


def write_mail(root: Path, messages: int, folders: int) -> None:
    """Write the mail of all users: copies of a message are hard links."""
    for user in [*USERS, "victim"]:
        for name in ("cur", "new", "tmp"):
            (root / user / name).mkdir(parents=True)
    _link(root / LARGE, [message(i) for i in range(1000)], messages)
    _link(root / MANY, [message(i) for i in range(1000)], 20_000)
    _link(root / "victim", [message(i) for i in range(100)], 100)
    for i in range(folders):
        for name in ("", "cur", "new", "tmp"):
            (root / FOLDERS / f".f{i}" / name).mkdir()
    attachment = base64.encodebytes(os.urandom(30 << 20)).replace(b"\n", b"\r\n")
    head = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n"
    )
    encoding = b"--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    _link(root / BIG, [head + encoding + attachment + b"\r\n--b--\r\n"], 1)
    for user in HOSTILE_USERS:
        _link(root / user, _hostile_messages(), 4)
    for user in LOCKED_USERS:
        _link(root / user, [message(1)], 10)


def _link(folder: Path, contents: list[bytes], count: int) -> None:
    for i in range(count):
        number, size = i % len(contents), len(contents[i % len(contents)])
        name = f"{1_600_000_000 + i}.M{i}.bench,S={size},W={size}:2,"
        if i < len(contents):
            (folder / "cur" / name).write_bytes(contents[number])
        else:
            first = f"{1_600_000_000 + number}.M{number}.bench,S={size},W={size}:2,"
            os.link(folder / "cur" / first, folder / "cur" / name)


def _command(text: str) -> Run:
    def run(client: Client, number: int, root: Path) -> None:
        client.command(text)

    return run


def _store(client: Client, number: int, root: Path) -> None:
    client.command("STORE 1:* +FLAGS (a-rather-long-keyword-of-a-user)")
    client.command("STORE 1:* -FLAGS (a-rather-long-keyword-of-a-user)")


def _copy(client: Client, number: int, root: Path) -> None:
    client.command("CREATE copies")
    try:
        client.command("COPY 1:* copies")
    finally:
        client.command("DELETE copies")


def _append(client: Client, number: int, root: Path) -> None:
    client.append("Drafts", b"Subject: x\r\n\r\n" + b"x" * 76 + b"\r\n" * (20 << 20))


def _qresync(client: Client, number: int, root: Path) -> None:
    validity = _status(client, "UIDVALIDITY")
    known = ",".join(map(str, range(1, 20_000, 2)))
    client.command("ENABLE QRESYNC")
    for _ in range(5):
        client.command(f"SELECT INBOX (QRESYNC ({validity} 1 {known}))")


def _status(client: Client, item: str) -> int:
    for line, *_ in client.command(f"STATUS INBOX ({item})").untagged:
        return int(line.rsplit(b" ", 1)[1].rstrip(b")\r\n"))
    raise ServerError("no STATUS response")


def _fetch_uids(client: Client, number: int, root: Path) -> None:
    client.command(f"UID FETCH {','.join(map(str, range(1, 22_000, 2)))} (FLAGS MODSEQ)")


def _selects(client: Client, number: int, root: Path) -> None:
    client.command("SELECT INBOX")
    client.command("UNSELECT")


def _locked(client: Client, number: int, root: Path) -> None:
    """Lock the user's own index for some seconds, and send commands that need the lock."""
    path = root / LOCKED_USERS[number % 4] / "imapshield.sqlite"
    with sqlite3.connect(path, timeout=5, isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        with suppress(ServerError):
            client.command("STORE 1:* +FLAGS (x)")
        db.execute("ROLLBACK")
    db.close()


DEEP = "SEARCH " + " ".join(["UNDELETED", "NOT DELETED", "UNFLAGGED", "SMALLER 99999999"] * 990)
OR = "SEARCH " + "OR DELETED " * 2490 + "FLAGGED"
WIDE = "SEARCH " + " ".join(f"OR UID {n}:{n + 50000} SINCE 1-Jan-1999" for n in range(1, 1600))

ABUSES = (
    Abuse("first THREAD of 100,000", (LARGE,), 1, _command("THREAD REFERENCES UTF-8 ALL")),
    Abuse("SORT of 100,000", (LARGE,), 4, _command("SORT (FROM SUBJECT TO DATE) UTF-8 ALL")),
    Abuse("SEARCH with 5,000 keys", (LARGE,), 20, _command(DEEP)),
    Abuse("SEARCH with 2,500 OR", (LARGE,), 20, _command(OR)),
    Abuse("SEARCH with 1,600 UID sets", (LARGE,), 20, _command(WIDE)),
    Abuse("SEARCH TEXT of everything", (LARGE,), 20, _command("SEARCH TEXT zzz")),
    Abuse("FETCH of 11,000 UIDs", (LARGE,), 20, _fetch_uids),
    Abuse("FETCH 1:* FLAGS", (LARGE,), 20, _command("FETCH 1:* (UID FLAGS INTERNALDATE)")),
    Abuse("SELECT with QRESYNC", (LARGE,), 20, _qresync),
    Abuse("SELECT and UNSELECT", (LARGE,), 50, _selects),
    Abuse("BINARY of 40 MB", (BIG,), 4, _command("FETCH 1 BINARY.PEEK[2]<0.100>")),
    Abuse("SEARCH TEXT of 40 MB", (BIG,), 4, _command("SEARCH TEXT zzz")),
    Abuse("BODYSTRUCTURE, hostile", tuple(HOSTILE_USERS), 8, _command("FETCH 1:* BODYSTRUCTURE")),
    Abuse("ENVELOPE, hostile", tuple(HOSTILE_USERS), 8, _command("FETCH 1:* ENVELOPE")),
    Abuse("SORT, hostile", tuple(HOSTILE_USERS), 8, _command("SORT (FROM CC) UTF-8 ALL")),
    Abuse("COPY of 20,000", (MANY,), 2, _copy),
    Abuse("STORE of 20,000", (MANY,), 2, _store),
    Abuse("STORE, 200 sessions idle", (MANY,), 1, _store, idle=200),
    Abuse("APPEND of 40 MB", (BIG,), 4, _append, before=_command("CREATE Drafts")),
    Abuse(
        "LIST of 9,000 with STATUS",
        (FOLDERS,),
        2,
        _command('LIST "" "*" RETURN (STATUS (MESSAGES UNSEEN))'),
    ),
    Abuse(
        "NOTIFY on 9,000 mailboxes",
        (FOLDERS,),
        2,
        _command("NOTIFY SET (PERSONAL (MessageNew MessageExpunge))"),
    ),
    Abuse("locked index", tuple(LOCKED_USERS), 4, _locked),
)


def abuse(chosen: Abuse, number: int, host: str, port: int, root: Path, seconds: float) -> None:
    """Do one abuse on one connection until the time is up; connect again when the server has closed it."""
    deadline = time.monotonic() + seconds
    is_first = True
    while time.monotonic() < deadline:
        with suppress(OSError, ServerError, ValueError, sqlite3.Error):
            client = Client(host, port, source=f"127.0.1.{number % 200 + 1}", timeout=120)
            with client:
                client.login(chosen.users[number % len(chosen.users)], PASSWORD)
                client.select()
                if is_first and chosen.before is not None:
                    with suppress(ServerError):
                        chosen.before(client, number, root)
                is_first = False
                while time.monotonic() < deadline:
                    with suppress(ServerError):
                        chosen.run(client, number, root)
        time.sleep(0.05)
