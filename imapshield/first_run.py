"""The start without options: creates a data directory, a demo user and sample messages, and prints what to try."""

import os
import secrets
import sys
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from mailbox import Maildir
from typing import Self

from imapshield.cred import passwords, users

USER = "demo"
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # of passwords, without characters that look alike, such as l and 1
_RED_PIXEL = b64decode(  # a PNG image
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


@dataclass(frozen=True, slots=True)
class FirstRunFolder:
    """The directory with the mail and the password file that are used without ``--mail-root`` or ``--auth``."""

    folder: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Return ``$XDG_DATA_HOME/imapshield``. The XDG specification says to ignore a relative ``$XDG_DATA_HOME``."""
        data_home = environ.get("XDG_DATA_HOME", "")
        if not os.path.isabs(data_home):
            data_home = os.path.expanduser("~/.local/share")
        return cls(os.path.join(data_home, "imapshield"))

    @property
    def mail(self) -> str:
        """The path of the mail root."""
        return os.path.join(self.folder, "mail")

    @property
    def users(self) -> str:
        """The path of the password file."""
        return os.path.join(self.folder, "users")

    def prepare(self) -> str | None:
        """Create the directory, the sample messages and the demo user, as far as they do not exist.

        Returns:
            The password of the demo user if the user was created, else None.

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
        # The password file is written last, so that a start after an interrupted first start is a first start too.
        users.set_hash(self.users, USER, passwords.hash_password(password.encode()))
        return password

    def welcome_message(self, host: str, port: str, password: str) -> str:
        """Return what the first start prints: how to log in, what to try, and what to do next."""
        address = f"{host}:{port}"
        programs = os.path.dirname(sys.argv[0])
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
    {os.path.join(programs, "imapshield")} passwd {self.users} {USER}
        changes the password. Another name instead of {USER} adds a user with the Maildir {self.mail}/NAME
    {os.path.join(programs, "twistd")} imapshield --help
        lists all options, such as --mail-root to serve existing mail
"""

    def restart_message(self, host: str, port: str) -> str:
        """Return what later starts print: the places of the mail and the users."""
        return f"""\
imapshield: listening on {host}:{port}, mail in {self.mail}, users in {self.users}
imapshield: the password of {USER} was shown at the first start; to change it: imapshield passwd {self.users} {USER}
"""


def deliver_samples(maildir: str, now: datetime) -> None:
    """Create the Maildir `maildir` with its folder Archive, and deliver the sample messages into them."""
    inbox = Maildir(maildir)
    for folder, message in sample_messages(now):
        (inbox.add_folder(folder) if folder else inbox).add(message.as_bytes())


def sample_messages(now: datetime) -> list[tuple[str, EmailMessage]]:
    """Return the sample messages, each with the name of its folder; "" is INBOX."""
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
    attachments.add_attachment(_RED_PIXEL, "image", "png", filename="rød prikk.png")
    archived = _message(now, "Re: Welcome to imapshield")
    archived["In-Reply-To"] = plain["Message-ID"]
    archived.set_content("This message is in another mailbox: Archive.\n")
    return [("", plain), ("", international), ("", attachments), ("Archive", archived)]


def _message(now: datetime, subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "imapshield <postmaster@localhost>"
    message["To"] = f"{USER}@localhost"
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain="imapshield.invalid")
    return message
