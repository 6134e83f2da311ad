"""The mail that servers are measured with, written once and hard-linked for each server.

INBOX of the first user has the corpus. Rows that must be the first to read a mailbox have a folder each, with the
same files. The other users have a small INBOX each.
"""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks import corpus
from benchmarks.rows import Measure

SMALL = 50
"""Messages of each of the other users."""
BIG = "big"
"""A folder with one message of 24 MB: a short text, and an attachment in base64."""
BIG_ATTACHMENT = 24 << 20
"""The octets of its second part, as it is transferred."""


SCALED_FROM = 100
"""How many different messages the folders of `scaled_folder` consist of: the smallest, so that background work ends."""
SELECTED = "selected"
"""A folder of the first users with all messages, for the memory of selected mailboxes."""


def scaled_folder(size: int) -> str:
    """Return the name of the folder with `size` messages."""
    return f"scaled-{size}"


def link(source: Path, target: Path, count: int | None = None) -> None:
    """Hard-link the first messages of the Maildir `source`, or all, into the Maildir `target`, without folders."""
    for part in ("tmp", "new", "cur"):
        (target / part).mkdir(parents=True, exist_ok=True)
    files = [entry for part in ("new", "cur") for entry in os.scandir(source / part)]
    files.sort(key=lambda entry: entry.name)
    for entry in files[:count]:
        part = Path(entry.path).parent.name
        os.link(entry.path, target / part / entry.name)


def write_corpus(folder: Path, count: int, seed: int) -> None:
    """Write the corpus into a Maildir, unless an earlier run has done so."""
    done = folder / f"{count}-{seed}"
    if not done.exists():
        corpus.write_maildir(folder, count, seed)
        done.touch()


def link_folders(source: Path, home: Path, measures: Sequence[Measure]) -> None:
    """Make the folders that the rows need in the Maildir `home`."""
    for measure in measures:
        if measure.folder:
            link(source, home / f".{measure.folder}")
            (home / f".{measure.folder}" / "maildirfolder").touch()
    for size in sorted({measure.scaled for measure in measures if measure.scaled}):
        _link_again(source, home / f".{scaled_folder(size)}", size)
    if any(measure.big for measure in measures):
        _write_big(home / f".{BIG}")


def _link_again(source: Path, target: Path, count: int) -> None:
    """Make a Maildir with `count` messages, which are links to the smallest `SCALED_FROM` of `source`.

    They are all in ``cur``: a server moves the files of ``new`` at the first SELECT, and those are few in INBOX.
    """
    for part in ("tmp", "new", "cur"):
        (target / part).mkdir(parents=True)
    (target / "maildirfolder").touch()
    files = [entry for part in ("new", "cur") for entry in os.scandir(source / part)]
    files = sorted(files, key=lambda entry: (entry.stat().st_size, entry.name))[:SCALED_FROM]
    for number in range(count):
        entry = files[number % len(files)]
        date, _, rest = entry.name.partition(".")
        name = f"{int(date) + number // len(files)}.R{number}{rest}"
        os.link(entry.path, target / "cur" / (name if ":2," in name else name + ":2,"))


def link_selected(source: Path, root: Path, users: Sequence[str]) -> None:
    """Make a folder with all messages for each of `users`."""
    for user in users:
        folder = root / user / f".{SELECTED}"
        link(source, folder)
        (folder / "maildirfolder").touch()


def link_users(source: Path, root: Path, users: Sequence[str]) -> None:
    """Make a small mailbox for each user."""
    for user in users:
        link(source, root / user, SMALL)


def user_names(count: int) -> tuple[str, ...]:
    """Return the names of users with a small mailbox."""
    return tuple(f"user{number:04d}" for number in range(count))


def _write_big(folder: Path) -> None:
    for part in ("tmp", "new", "cur"):
        (folder / part).mkdir(parents=True)
    (folder / "maildirfolder").touch()
    attachment = base64.encodebytes(random.Random(1).randbytes(BIG_ATTACHMENT * 57 // 77))
    header = (
        "From: alice@shield.example\nSubject: big\nMIME-Version: 1.0\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nhello\n"
        "--b\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n"
    )
    (folder / "cur" / f"{corpus.FIRST_DATE}.M1P1.mx.example:2,S").write_bytes(
        header.encode() + attachment + b"--b--\n"
    )
