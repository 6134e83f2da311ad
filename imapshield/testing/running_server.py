"""`running_server`: a real IMAP server for the tests of a mail client, in a process of its own.

The tests need no reactor and no event loop: they use any client, such as `imaplib`. The server listens on a free port
of this machine, so tests may run in parallel.
"""

from __future__ import annotations

import imaplib
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from imapshield.cred.users import user_name
from imapshield.testing.throwaway_certificate import write_certificate
from imapshield.wire.names import encode_name
from imapshield.wire.strings import quoted

TIMEOUT = 30.0
"""Seconds that the server may take for an answer or for its end. Only a machine that is overloaded needs so many."""


@dataclass(frozen=True)
class ServerTls:
    """What a client needs for a server with TLS. The certificate was made for this server, and is valid for a day.

    Attributes:
        port: the port that uses TLS from the first byte; the other one has STARTTLS.
        certificate: the PEM file of the certificate, for clients that read it themselves, such as ``curl --cacert``.
        context: trusts that certificate and no other, for ``127.0.0.1`` and ``localhost``.
    """

    port: int
    certificate: Path
    context: ssl.SSLContext


class RunningServer:
    """A server that `running_server` has started.

    Attributes:
        host: the address on which it listens, ``127.0.0.1``.
        port: its port.
        tls: how to use TLS; None if the server has none.
        mail_root: the directory with the Maildir of each user; None if the mail is in memory.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        users: Mapping[str, str],
        port: int,
        log: IO[bytes],
        mail_root: Path | None,
        tls: ServerTls | None = None,
    ) -> None:
        self.port = port
        self.tls = tls
        self.mail_root = mail_root
        self._users = dict(users)
        self._log = log

    def login(self, user: str) -> imaplib.IMAP4:
        """Return a client that has logged in as `user`, over TLS if the server has it.

        It is a context manager that logs out.

        Raises:
            KeyError: the server was started without this user.
        """
        password = self._users[user]
        client: imaplib.IMAP4
        if self.tls is None:
            client = imaplib.IMAP4(self.host, self.port, timeout=TIMEOUT)
        else:
            client = imaplib.IMAP4_SSL(
                self.host, self.tls.port, ssl_context=self.tls.context, timeout=TIMEOUT
            )
        # imaplib's `login` takes ASCII only, and quotes no user names.
        client.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
        return client

    def append(
        self, user: str, content: bytes, *, mailbox: str = "INBOX", flags: Iterable[str] = ()
    ) -> None:
        r"""Put a message into a mailbox, which is created if it does not exist.

        Args:
            user: whose mailbox.
            content: the message, such as ``message.as_bytes()`` of `email.message.EmailMessage`. LF becomes CRLF.
            mailbox: the name of the mailbox.
            flags: flags and keywords, such as ``\Seen``.

        Raises:
            imaplib.IMAP4.error: the server has refused it.
        """
        name = _encoded(mailbox)
        with self.login(user) as client:
            if mailbox.upper() != "INBOX" and client.status(name, "(UIDNEXT)")[0] != "OK":
                _expect_ok(*client.create(name))
            _expect_ok(*client.append(name, f"({' '.join(flags)})", "", content))

    def messages(self, user: str, mailbox: str = "INBOX") -> list[bytes]:
        """Return the messages of a mailbox, oldest first, as the server sends them. Their flags do not change.

        Raises:
            imaplib.IMAP4.error: the mailbox does not exist.
        """
        with self.login(user) as client:
            _expect_ok(*client.select(_encoded(mailbox), readonly=True))
            data = _expect_ok(*client.uid("FETCH", "1:*", "(BODY.PEEK[])"))
            return [item[1] for item in data if isinstance(item, tuple)]

    def log(self) -> str:
        """Return what the server has logged until now. It names the limit if it has ended a connection."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


@contextmanager
def running_server(
    users: Mapping[str, str], *, maildir: bool = False, tls: bool = False, **limits: Any
) -> Iterator[RunningServer]:
    """Run a server as long as the context lasts. It also ends if the process of the tests is killed.

    Args:
        users: the password of each user.
        maildir: keep the mail in a temporary directory, in one Maildir for each user; otherwise it is in memory.
        tls: also offer TLS, with a certificate that is made for this server: see `ServerTls`.
        limits: fields of `imapshield.limits.Limits`, such as ``backlog=3``.

    Raises:
        RuntimeError: the server has not started; the text says why, such as a limit that does not exist.
        BadUserName: a Maildir cannot have the name of a user, such as ``..`` (`cred.users.user_name`).
    """
    __tracebackhide__ = True  # pytest shows the line of the test instead
    with ExitStack() as stack:
        # A client that is still connected may leave files while the directory is removed.
        folder = tempfile.TemporaryDirectory(prefix="imapshield-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(folder))
        certificate = directory / "certificate.pem" if tls else None
        mail_root = directory / "mail" if maildir else None
        if certificate is not None:
            write_certificate(certificate)
        if mail_root is not None:
            for user in users:
                for part in ("cur", "new", "tmp"):
                    (mail_root / user_name(user.encode()) / part).mkdir(parents=True)
        log = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(
            [sys.executable, "-m", "imapshield.testing.server_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        stack.callback(_stop, process)
        assert process.stdin is not None and process.stdout is not None
        settings = {
            "users": dict(users),
            "mail_root": mail_root and str(mail_root),
            "certificate": certificate and str(certificate),
            "limits": limits,
        }
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(settings, default=list).encode() + b"\n")
            process.stdin.flush()
        answer = json.loads(process.stdout.readline() or b"{}")
        if "port" not in answer:
            process.wait(TIMEOUT)
            raise RuntimeError(f"the server has not started: {answer.get('error') or _end_of(log)}")
        server_tls = None
        if certificate is not None:
            context = ssl.create_default_context(cafile=str(certificate))
            server_tls = ServerTls(answer["tls_port"], certificate, context)
        yield RunningServer(users, answer["port"], log, mail_root, server_tls)


def _end_of(log: IO[bytes]) -> str:
    """Return the last line of a log, which is the error if Python itself has failed."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it has ended without a word")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, which closes all connections, and wait until it has ended."""
    process.terminate()
    try:
        process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _encoded(mailbox: str) -> str:
    return quoted(encode_name(mailbox)).decode()


def _expect_ok(status: str, data: list[Any]) -> list[Any]:
    if status != "OK":
        raise imaplib.IMAP4.error(data[-1].decode(errors="replace"))
    return data
