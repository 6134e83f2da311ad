"""The start without options: creates a data directory, a demo user and sample messages, and prints what to try."""

import os
import secrets
import sys
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from mailbox import Maildir
from typing import Self

from imapshield.cred import passwords, users
from imapshield.regular_file import open_regular

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

    def not_writable(self, error: OSError) -> str:
        """Return what is wrong, and what to do."""
        return (
            f"{error.filename or self.folder}: {error.strerror};"
            " make it writable, or name another directory with --mail-root"
        )

    def create_mail_root(self, *, samples: bool) -> None:
        """Create the mail root, and before the first start the Maildir of the demo user with sample messages.

        Args:
            samples: create the Maildir of the demo user.

        Raises:
            OSError: the directory cannot be written.
        """
        os.makedirs(os.path.dirname(self.folder), exist_ok=True)
        for directory in (self.folder, self.mail):  # the mode does not apply to parents
            os.makedirs(directory, mode=0o700, exist_ok=True)
        maildir = os.path.join(self.mail, USER)
        if samples and not os.path.exists(self.users) and not os.path.exists(maildir):
            deliver_samples(maildir, datetime.now(UTC))

    def add_demo_user(self, listening: Sequence[tuple[str, str]]) -> str:
        """Create the password file with the demo user, unless the file exists, and return the text to print.

        Args:
            listening: the description of each endpoint and its address.

        Raises:
            OSError: the password file cannot be written.
        """
        if os.path.exists(self.users):
            return self._restart_message(listening)
        password = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))
        users.set_hash(self.users, USER, passwords.hash_password(password.encode()))
        return self._welcome_message(listening, password)

    def _welcome_message(self, listening: Sequence[tuple[str, str]], password: str) -> str:
        return f"""\
imapshield: first start. The mail server is at {_addresses(listening)}, with a few sample messages.

    user      {USER}
    password  {password}    (shown only this once)

{_examples(listening, password)}Next steps:
    {_program("imapshield")} passwd {self.users} {USER}
        changes the password. Another name instead of {USER} adds a user with the Maildir {self.mail}/NAME
    {_program("twistd")} imapshield --help
        lists all options, such as --mail-root to serve existing mail
"""

    def _restart_message(self, listening: Sequence[tuple[str, str]]) -> str:
        change = f"{_program('imapshield')} passwd {self.users} {USER}"
        logins = f"the password of {USER} was shown at the first start; to change it: {change}"
        with suppress(OSError), open_regular(self.users) as file:  # the log says what is wrong
            entries, problems = users.parse(file.read())
            if not users.usable(entries):
                logins = "; ".join(["nobody can log in", *problems[:1]])
        return f"""\
imapshield: listening on {_addresses(listening)}, mail in {self.mail}, users in {self.users}
imapshield: {logins}
"""


def _program(name: str) -> str:
    """Return the absolute path of a program in the directory of this one, which need not be on PATH."""
    return os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), name)


def _addresses(listening: Sequence[tuple[str, str]]) -> str:
    return ", ".join(address for _, address in listening)


def _examples(listening: Sequence[tuple[str, str]], password: str) -> str:
    """Return the commands to try, which need an endpoint without TLS; empty if there is none."""
    address = next((address for text, address in listening if text.startswith("tcp")), None)
    if address is None:
        return ""
    host, _, port = address.rpartition(":")
    # A port on all addresses is reachable through the loopback address.
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104, replaced
    url = f"imap://{host}:{port}/"
    return f"""\
Try it:
    curl "{url}" -u {USER}:{password}
        lists the mailboxes
    curl "{url}INBOX;MAILINDEX=1" -u {USER}:{password}
        prints the first message
    mutt -e "set ssl_force_tls=no folder=imap://{USER}@{host}:{port}/" -f +INBOX
    Thunderbird: server {host.strip("[]")}, port {port}, connection security "None", normal password

"""


def deliver_samples(maildir: str, now: datetime) -> None:
    """Create the Maildir `maildir` with its folder Archive, and deliver the sample messages into them."""
    umask = os.umask(0o077)  # nobody else may read mail, whatever the umask of the shell is
    try:
        inbox = Maildir(maildir)
        for folder, message in sample_messages(now):
            (inbox.add_folder(folder) if folder else inbox).add(message.as_bytes())
    finally:
        os.umask(umask)


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
