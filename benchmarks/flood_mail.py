"""The mail of a flood: ordinary mail for everybody, and mail made to be expensive for the attackers' accounts.

The hostile messages are of the classes that have hurt servers: many parts, deep nesting, many addresses
(CVE-2024-23184), many parameters (CVE-2026-27859), long lists of languages, long References, encoded text.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

from benchmarks import corpus
from benchmarks.flood_attacks import HOSTILE, THREADS
from benchmarks.peers import USER

MESSAGES = 200
ATTACKERS = tuple(f"mallory{number}" for number in range(10))
VICTIMS = {"newcomer": USER, "resident": "bob"}
USERS = (*VICTIMS.values(), *ATTACKERS)
_FOLDERS = 100
_THREAD_MESSAGES = 1000
_DATE = "Date: Mon, 06 Jan 2020 12:00:00 +0000\r\n"


def hostile_messages() -> list[bytes]:
    """Return messages that are expensive to parse; together about 12 MB."""
    part = "--b\r\nContent-Type: text/plain; charset=utf-8; name=x\r\n\r\nx\r\n"
    multipart = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    nested = "".join(
        f"Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"
        for level in range(3000)
    )
    addresses = ",\r\n ".join(f"u{number}@example.com" for number in range(60_000))
    parameters = "".join(f";\r\n p*{number}*=utf-8''%41" for number in range(40_000))
    words = " ".join(["=?utf-8?b?w6TDtsO8?="] * 40_000)
    text = base64.encodebytes("Grüße aus dem Nichts. ".encode() * 100_000).replace(b"\n", b"\r\n")
    encoded = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    encoded += "Content-Transfer-Encoding: base64\r\n\r\n"
    return [
        (_DATE + multipart + part * 9000 + "--b--\r\n").encode(),
        (_DATE + "MIME-Version: 1.0\r\n" + nested).encode(),
        (_DATE + "To: " + addresses + "\r\n\r\nx\r\n").encode(),
        (_DATE + "Content-Type: text/plain" + parameters + "\r\n\r\nx\r\n").encode(),
        (_DATE + "Content-Language: " + "a," * 500_000 + "\r\n\r\nx\r\n").encode(),
        (_DATE + "Subject: " + words + "\r\n\r\nx\r\n").encode(),
        (_DATE + encoded).encode() + text,
    ]


def thread_messages(count: int = _THREAD_MESSAGES) -> Iterable[bytes]:
    """Yield messages that refer to a hundred others each."""
    rng = random.Random(1)
    for number in range(count):
        references = "\r\n ".join(f"<{rng.randrange(count)}@example.com>" for _ in range(100))
        header = f"Message-ID: <{number}@example.com>\r\nReferences: {references}\r\n"
        yield (_DATE + header + "Subject: Re: [x] Re: Fwd: x\r\n\r\nx\r\n").encode()


def write_mail(root: Path) -> None:
    """Write a Maildir for each of `USERS` below `root`; the attackers' are hard links to one."""
    first, *others = ATTACKERS
    for user in (*VICTIMS.values(), first):
        corpus.write_maildir(root / user, MESSAGES)
    own = root / first
    _write_folder(own / f".{HOSTILE}", hostile_messages())
    _write_folder(own / f".{THREADS}", thread_messages())
    for number in range(_FOLDERS):
        _write_folder(own / f".Folder number {number}", ())
    for user in others:
        link_mail(own, root / user)


def link_mail(source: Path, target: Path) -> None:
    """Make a copy of a folder, with hard links to its files."""
    shutil.copytree(source, target, copy_function=os.link)


def _write_folder(folder: Path, messages: Iterable[bytes]) -> None:
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "maildirfolder").touch()
    for number, message in enumerate(messages):
        (folder / "cur" / f"16000000{number:02}.M{number}.host:2,S").write_bytes(message)
