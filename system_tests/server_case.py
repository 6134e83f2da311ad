"""The base classes of the tests with real clients: each test has a server process of its own."""

from __future__ import annotations

import contextlib
import imaplib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.corpus import write_maildir
from system_tests.certificate import write_certificate
from system_tests.maildirs import MessageCounts, shared_maildir, with_lf
from system_tests.server import TIMEOUT, Server
from system_tests.terminal import run_in_terminal

USER, PASSWORD = "alice", "correct horse"
USERS = ("alice", "bob")
SPECIAL_FOLDERS = {"Archive", "Drafts", "Junk", "Sent", "Trash"}
"""The mailboxes of a new account besides INBOX. An account has them if a test begins without mail."""
FAULTS = ("Traceback", "Unhandled", "internal error")
"""Log texts that no test may cause, whatever it does to the server."""
FAULTS_AND_LIMITS = (*FAULTS, "limit ", "bad command")
"""Log texts that a correct client must not cause: no limit fires, and the server rejects none of its commands."""


def find_program(name: str, package: str) -> str:
    """Return the path of a program; fail (never skip) if it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"{name} not found: run system_tests/install, or install {package}")
    return path


def close_quietly(client: imaplib.IMAP4) -> None:
    """Close a connection in any state."""
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        client.shutdown()


def literals(data: Iterable[Any]) -> list[bytes]:
    """Return the literals in the data of imaplib's fetch(): one per message, if one literal per message was fetched."""
    return [entry[1] for entry in data if isinstance(entry, tuple)]


class ServerCase(SynchronousTestCase):
    """Each test has a server process over an empty mail root, and a home directory for its client.

    When the test ends, the server is stopped, and its log must contain none of `forbidden_log_texts`.

    Attributes:
        options: options of ``twistd imapshield``, in addition to the mail root and the users.
        wrapper: as in `Server`.
        auth: the value of ``--auth``.
        client_environment: variables of all clients.
        port: where the server listens; a restarted server has the same port.
        log: the output of the last client, standard error included.
    """

    options: Sequence[str] = ()
    wrapper: Sequence[str] = ()
    auth = "memory:" + ":".join(f"{user}:{PASSWORD}" for user in USERS)
    forbidden_log_texts: Iterable[str] = FAULTS_AND_LIMITS
    client_environment: Mapping[str, str] = {}
    port = 0
    server: Server
    log = ""

    def setUp(self) -> None:
        # Not below _trial_temp: several clients cannot handle paths that are long or not ASCII.
        self.base = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.root, self.home = f"{self.base}/mail", f"{self.base}/home"
        os.mkdir(self.root)
        os.mkdir(self.home)
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Create what must exist on disk before the server starts."""

    def start(self) -> None:
        """Start the server, on the port of the previous server if there was one."""
        self.server = Server(
            "--mail-root", self.root, "--auth", self.auth, *self.options,
            port=self.port, wrapper=self.wrapper,
        )  # fmt: skip
        self.port = self.server.port
        self.addCleanup(self._stop_if_running)
        self.server.wait_ready()

    def stop(self, signum: int = signal.SIGTERM) -> str:
        """Stop the server, check its log and return it."""
        output = self.server.stop(signum)
        for text in self.forbidden_log_texts:
            self.assertNotIn(text, output)
        return output

    def _stop_if_running(self) -> None:
        if self.server.process.returncode is None:
            status = self.server.process.poll()
            output = self.stop()
            self.assertIsNone(status, f"the server ended by itself: {output}")

    def maildir(self, folder: str = "", user: str = USER) -> str:
        """Return the path of a folder: "" is INBOX; the names of other folders begin with a dot."""
        return os.path.join(self.root, user, folder) if folder else os.path.join(self.root, user)

    def fill(self, count: int, folder: str = "", user: str = USER) -> None:
        """Write the first `count` messages of the corpus into a folder."""
        write_maildir(self.maildir(folder, user), count)

    def fill_with_links(self, count: int, folder: str = "", user: str = USER) -> None:
        """Hard-link the first `count` messages of the corpus into a folder; faster than `fill` if repeated."""
        shutil.copytree(
            shared_maildir(count),
            self.maildir(folder, user),
            copy_function=os.link,
            dirs_exist_ok=True,
        )

    def login(self, user: str = USER) -> imaplib.IMAP4:
        """Return a logged-in client, which is closed when the test ends."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
        self.addCleanup(close_quietly, client)
        client.login(user, PASSWORD)
        return client

    def ok(self, response: tuple[str, Any]) -> Any:
        """Return the data of a response of imaplib, which must be OK."""
        self.assertEqual(response[0], "OK", response)
        return response[1]

    def fetch_all(
        self, client: imaplib.IMAP4, folder: str = "INBOX", step: int = 200
    ) -> MessageCounts:
        """Fetch every message of a folder, `step` messages a command, with LF line ends."""
        count = int(self.ok(client.select(folder, readonly=True))[0])
        found = MessageCounts()
        for start in range(1, count + 1, step):
            data = self.ok(client.fetch(f"{start}:{min(start + step - 1, count)}", "(BODY.PEEK[])"))
            found.update(map(with_lf, literals(data)))
        self.assertEqual(sum(found.values()), count)
        return found

    def assert_same_messages(self, found: MessageCounts, expected: MessageCounts) -> None:
        """Fail with one missing and one surplus message if the counts differ; a full diff of 10,000 takes hours."""
        missing, surplus = expected - found, found - expected
        if missing or surplus:
            example, extra = (min(side, default=None) for side in (missing, surplus))
            self.fail(
                f"{missing.total()} of {expected.total()} messages are missing, such as {example!r:.3000}\n"
                f"{surplus.total()} messages are surplus, such as {extra!r:.3000}"
            )

    def write_home_file(self, name: str, text: str, mode: int = 0o600) -> str:
        """Write a file into the client's home. Clients require mode 0600 if it contains a password."""
        path = os.path.join(self.home, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def run_client(
        self,
        *command: str,
        status: int | None = 0,
        timeout: float = 300,
        env: Mapping[str, str] | None = None,
    ) -> bytes:
        """Run a client until it ends and return its standard output; `status` None accepts any exit status."""
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
            env={**os.environ, "HOME": self.home, "LC_ALL": "C.UTF-8", **self.client_environment, **(env or {})},
            cwd=self.home,
        )  # fmt: skip
        self.log = (done.stdout + done.stderr).decode("utf-8", "replace")
        if status is not None:
            self.assertEqual(done.returncode, status, f"{command}: {self.log[-3000:]}")
        return done.stdout

    def run_in_terminal(self, *command: str, replies: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """Run a client in a terminal and return what it drew; `replies` are those of `terminal.run_in_terminal`."""
        done = run_in_terminal(
            command, replies, folder=self.home, environment={"HOME": self.home}, timeout=TIMEOUT
        )
        self.assertEqual((done.status, done.unmet), (0, []), done.screen[-3000:])
        return done.screen


class TlsServerCase(ServerCase):
    """The server offers STARTTLS with a certificate in `pem`, which is its own authority."""

    def prepare(self) -> None:
        self.pem = write_certificate(self.home)
        self.options = ("--certificate", self.pem)
