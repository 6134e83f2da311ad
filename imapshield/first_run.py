"""The start without options: creates a data directory, a demo user and sample messages, and prints what to try."""

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
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # of passwords; no characters that look alike, such as l and 1


@dataclass(frozen=True, slots=True)
class FirstRunFolder:
    """The directory that is served if ``--mail-root`` and ``--auth`` are not given: ``mail/`` and ``users`` in it."""

    folder: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> FirstRunFolder:
        """Return ``$XDG_DATA_HOME/imapshield``. The XDG specification says to ignore a relative ``$XDG_DATA_HOME``."""
        data_home = environ.get("XDG_DATA_HOME", "")
        if not os.path.isabs(data_home):
            data_home = os.path.expanduser("~/.local/share")
        return cls(os.path.join(data_home, "imapshield"))

    @property
    def mail(self) -> str:
        """The mail root."""
        return os.path.join(self.folder, "mail")

    @property
    def users(self) -> str:
        """The password file."""
        return os.path.join(self.folder, "users")

    def prepare(self) -> str | None:
        """Create what is missing.

        Returns:
            The password of the demo user if this created the user, else None.

        Raises:
            OSError: the directory cannot be written.
        """
        os.makedirs(self.mail, mode=0o700, exist_ok=True)
        if os.path.exists(self.users):
            return None
        maildir = os.path.join(self.mail, USER)
        if not os.path.exists(maildir):
            deliver_samples(maildir, datetime.now(UTC))
        password = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))
        # The password file comes last: if a first start is interrupted, the next one is a first start again.
        users.set_hash(self.users, USER, passwords.hash_password(password.encode()))
        return password

    def welcome_message(self, host: str, port: str, password: str) -> str:
        """Return what the first start prints: how to log in, what to try, and what to do next."""
        address = f"{host}:{port}"
        return f"""\
imapshield: first start. The mail server is at {address}, with a few sample messages.

    user      {USER}
    password  {password}    (shown only this once)

Try it:
    curl imap://{address}/INBOX -u {USER}:{password}
    curl "imap://{address}/INBOX;MAILINDEX=1" -u {USER}:{password}
    mutt -f imap://{USER}@{address}/INBOX
    Thunderbird: server {host}, port {port}, connection security "None", normal password

Next steps:
    imapshield passwd {self.users} {USER}
        changes the password, or adds another user; the Maildir of USER is {self.mail}/USER
    twistd imapshield --help
        lists all options, such as --mail-root to serve the mail you already have
"""

    def restart_message(self, host: str, port: str) -> str:
        """Return what later starts print: where the mail and the users are."""
        return f"""\
imapshield: listening on {host}:{port}, mail in {self.mail}, users in {self.users}
imapshield: the password of {USER} was shown at the first start; to change it: imapshield passwd {self.users} {USER}
"""


def deliver_samples(maildir: str, now: datetime) -> None:
    """Create the Maildir `maildir` with its folder Archive, and deliver the sample messages into them."""
    for subfolder, message in sample_messages(now):
        folder = os.path.join(maildir, subfolder)
        for directory in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(folder, directory), mode=0o700, exist_ok=True)
        if subfolder:
            open(os.path.join(folder, "maildirfolder"), "wb").close()
        _deliver(folder, message.as_bytes())


def sample_messages(now: datetime) -> list[tuple[str, EmailMessage]]:
    """Return the sample messages, each with its Maildir++ folder ("" is INBOX)."""
    plain = _message(now, "Welcome to imapshield")
    plain.set_content(
        "This message is a file in your Maildir, stored byte for byte as you read it.\n\n"
        "Put another file into new/, as any mail delivery program does, and your client\n"
        "shows it within a second.\n"
    )
    international = _message(now, "Grüße aus Zürich – привет – こんにちは ✉")
    international.set_content("Schöne Grüße!\nВсего хорошего!\nそれでは、また。\n")
    international.add_alternative("<p>Schöne <b>Grüße</b>!</p>\n", subtype="html")
    attachments = _message(now, "With two attachments")
    attachments.set_content("A table and a very small picture.\n")
    attachments.add_attachment("limit,value\nbacklog,100\n", subtype="csv", filename="limits.csv")
    attachments.add_attachment(_red_pixel(), "image", "png", filename="rød prikk.png")
    archived = _message(now, "Re: Welcome to imapshield")
    archived["In-Reply-To"] = plain["Message-ID"]
    archived.set_content("This message is in another mailbox: Archive.\n")
    return [("", plain), ("", international), ("", attachments), (".Archive", archived)]


def _message(now: datetime, subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "imapshield <postmaster@localhost>"
    message["To"] = f"{USER}@localhost"
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain="imapshield.invalid")
    return message


def _red_pixel() -> bytes:
    """Return a PNG image of one red pixel."""

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
