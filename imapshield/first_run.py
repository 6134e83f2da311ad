"""The first start with no option at all: a folder of our own, a user, a few messages, and what to type next."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from struct import pack
from zlib import compress, crc32

from imapshield.cred import passwords, users

USER = "demo"


@dataclass(frozen=True, slots=True)
class FirstRunFolder:
    """The folder that serves when no other is named: ``mail/`` and ``users`` in it."""

    folder: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> FirstRunFolder:
        """``$XDG_DATA_HOME/imapshield``; relative values do not count (XDG Base Directory Specification)."""
        data = environ.get("XDG_DATA_HOME", "")
        if not os.path.isabs(data):
            data = os.path.expanduser("~/.local/share")
        return cls(os.path.join(data, "imapshield"))

    @property
    def mail(self) -> str:
        """The mail root."""
        return os.path.join(self.folder, "mail")

    @property
    def users(self) -> str:
        """The password file."""
        return os.path.join(self.folder, "users")

    def prepare(self) -> str | None:
        """Make what is missing; returns the demo user's password on the first start, else None. OSError."""
        os.makedirs(self.mail, mode=0o700, exist_ok=True)
        if os.path.exists(self.users):
            return None
        maildir = os.path.join(self.mail, USER)
        if not os.path.exists(maildir):
            fill(maildir, datetime.now(UTC))
        password = "-".join(
            "".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(4))
            for _ in range(3)
        )
        # Last, so that a first start which was cut short is the first again.
        users.put(self.users, USER, passwords.hash_password(password.encode()))
        return password

    def first_words(self, host: str, port: str, password: str) -> str:
        """What to type next."""
        at = f"{host}:{port}"
        return f"""\
imapshield: first start. Your mail server is at {at}, with a few messages to try it:

    user      {USER}
    password  {password}    (shown this once)

See it work:
    curl imap://{at}/INBOX -u {USER}:{password}
    curl "imap://{at}/INBOX;MAILINDEX=1" -u {USER}:{password}
    mutt -f imap://{USER}@{at}/INBOX
    Thunderbird: server {host}, port {port}, connection security "None", normal password

Make it yours:
    imapshield passwd {self.users} {USER}
        sets another password, or another user's; a user's Maildir is {self.mail}/USER
    twistd imapshield --help
        lists all options, such as --mail-root for the mail you have
"""

    def next_words(self, host: str, port: str) -> str:
        """Where things are, at later starts."""
        return f"""\
imapshield: mail in {self.mail}, users in {self.users}, clients at {host}:{port}
imapshield: the password of {USER} was shown at the first start; a new one: imapshield passwd {self.users} {USER}
"""


def fill(maildir: str, now: datetime) -> None:
    """Deliver the sample messages into a new Maildir and its folder Archive."""
    for subfolder, message in samples(now):
        folder = os.path.join(maildir, subfolder)
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(folder, part), mode=0o700, exist_ok=True)
        if subfolder:
            open(os.path.join(folder, "maildirfolder"), "wb").close()
        _deliver(folder, message.as_bytes())


def samples(now: datetime) -> list[tuple[str, EmailMessage]]:
    """The messages, each with its Maildir++ folder ("" is INBOX)."""
    plain = _message(now, "Welcome to imapshield")
    plain.set_content(
        "This message lies as a file in your Maildir, byte for byte as you read it.\n\n"
        "Drop a file into new/, as every mail program of the last 30 years does, and your\n"
        "client hears of it within a second.\n"
    )
    foreign = _message(now, "Grüße aus Zürich – привет – こんにちは ✉")
    foreign.set_content("Schöne Grüße!\nВсего хорошего!\nそれでは、また。\n")
    foreign.add_alternative("<p>Schöne <b>Grüße</b>!</p>\n", subtype="html")
    attached = _message(now, "With two attachments")
    attached.set_content("A table and a very small picture.\n")
    attached.add_attachment("limit,value\nbacklog,100\n", subtype="csv", filename="limits.csv")
    attached.add_attachment(_dot(), "image", "png", filename="rød prikk.png")
    kept = _message(now, "Re: Welcome to imapshield")
    kept["In-Reply-To"] = plain["Message-ID"]
    kept.set_content("This one lies in a folder of its own.\n")
    return [("", plain), ("", foreign), ("", attached), (".Archive", kept)]


def _message(now: datetime, subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "imapshield <postmaster@localhost>"
    message["To"] = f"{USER}@localhost"
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain="imapshield.invalid")
    return message


def _dot() -> bytes:
    """One red pixel as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", crc32(kind + data))

    header = pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = compress(b"\0\xff\0\0")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    )


def _deliver(folder: str, content: bytes) -> None:
    host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
    name = (
        f"{time.time():.6f}".replace(".", f".R{secrets.token_hex(4)}P{os.getpid()}M") + f".{host}"
    )
    path = os.path.join(folder, "tmp", name)
    with open(path, "xb") as file:
        file.write(content)
    os.rename(path, os.path.join(folder, "new", name))
