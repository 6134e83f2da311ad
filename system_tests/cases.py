"""What the tests with real clients share: a server of their own, the tools, and a look at the disk."""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import imaplib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.corpus import messages, write_maildir
from system_tests.server import PATIENCE, Server

USER, PASSWORD = "alice", "correct horse"
USERS = ("alice", "bob")
FAULTS = ("Traceback", "Unhandled", "internal error")
"""What a server must never say, whatever a test does to it."""
SUSPICIONS = (*FAULTS, "limit ", "bad command")
"""What it must not say of an honest client: no limit fires, nothing that it sends is malformed."""

Counter = collections.Counter[bytes]


def tool(name: str, package: str) -> str:
    """Where the program `name` is; AssertionError, never a skip, where it is not."""
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"no {name}: run system_tests/install, or install {package}")
    return path


def plain(octets: bytes) -> bytes:
    """A message as every client may keep it: LF line ends."""
    return octets.replace(b"\r\n", b"\n")


def simple(subject: str, body: str = "hello") -> bytes:
    """A small message, with CRLF."""
    lines = (
        f"Subject: {subject}", "From: Bob <bob@example.org>", "To: alice@example.org",
        "Date: Wed, 01 Jan 2025 10:00:00 +0000", f"Message-ID: <{subject}@example.org>", "", body, "",
    )  # fmt: skip
    return "\r\n".join(lines).encode()


def corpus(count: int, seed: int = 1999) -> Counter:
    """The first messages of benchmarks.corpus as a client may have them, each with how often it is there."""
    return collections.Counter(map(plain, messages(count, seed)))


@functools.cache
def large(count: int) -> str:
    """A Maildir with so many messages, made once for all tests of a process; to be linked, not touched."""
    folder = tempfile.mkdtemp(prefix="imapshield-mail-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_maildir(f"{folder}/mail", count)
    return f"{folder}/mail"


def files(maildir: str) -> list[str]:
    """Every message file of one Maildir folder."""
    return [
        os.path.join(maildir, part, name)
        for part in ("cur", "new")
        for name in sorted(os.listdir(os.path.join(maildir, part)))
    ]


def stored(maildir: str, clean: Callable[[bytes], bytes] = plain) -> Counter:
    """What lies in one Maildir folder, each message with how often it is there."""
    found: Counter = collections.Counter()
    for path in files(maildir):
        with open(path, "rb") as file:
            found[clean(file.read())] += 1
    return found


def by_subject(maildir: str) -> dict[bytes, str]:
    """Subject to path; for folders where subjects differ."""
    found = {}
    for path in files(maildir):
        with open(path, "rb") as file:
            subject = re.search(rb"^Subject: (.*?)\r?$", file.read(), re.MULTILINE)
        found[subject[1] if subject else b""] = path
    return found


def letters(maildir: str) -> dict[bytes, str]:
    """Subject to the flags in its file's name."""
    return {s: p.partition(":2,")[2] for s, p in by_subject(maildir).items()}


def deliver(maildir: str, octets: bytes, name: str = "") -> str:
    """Deliver as a delivery agent does: written in tmp/, renamed into new/."""
    for part in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(maildir, part), exist_ok=True)
    name = name or f"{time.time():.9f}.host"
    with open(os.path.join(maildir, "tmp", name), "wb") as file:
        file.write(octets)
    path = os.path.join(maildir, "new", name)
    os.rename(os.path.join(maildir, "tmp", name), path)
    return path


def eventually(what: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until `what` is true; its last value is told if it never is."""
    until = time.monotonic() + patience
    while not (value := what()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {patience:g} s: {value!r}")
        time.sleep(0.02)


def hang_up(client: imaplib.IMAP4) -> None:
    """Close a connection, whatever has become of it."""
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        client.shutdown()


class ServerCase(SynchronousTestCase):
    """Each test has a server in a process of its own over an empty mail root, and a home for its client.

    When it ends, the server is stopped by its pid, and none of `complaints` may be in its log.
    """

    options: Sequence[str] = ()
    complaints: Iterable[str] = SUSPICIONS

    def setUp(self) -> None:
        # Not under _trial_temp: paths that are long or not ASCII trouble several clients.
        self.base = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.root, self.home = f"{self.base}/mail", f"{self.base}/home"
        os.mkdir(self.root)
        os.mkdir(self.home)
        self.server = None
        self.addCleanup(self.end)
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """What has to lie on disk before the server starts."""

    def start(self, port=None, before=(), options=()) -> None:
        """Start the server, again on the same port if there was one."""
        port = port or (self.server.port if self.server else None)
        auth = ":".join(f"{user}:{PASSWORD}" for user in USERS)
        self.server = Server(
            "--mail-root", self.root, "--auth", f"memory:{auth}", *self.options, *options,
            port=port, before=before,
        )  # fmt: skip
        self.port = self.server.port
        self.server.ready()

    def stop(self, how=signal.SIGTERM):
        """Stop it, and read its log."""
        said = self.server.stop(how)
        for word in self.complaints:
            self.assertNotIn(word, said)
        return said

    def end(self) -> None:
        if self.server and self.server.process.returncode is None:
            ended = self.server.process.poll()
            said = self.stop()
            self.assertIsNone(ended, f"the server ended by itself: {said}")

    def maildir(self, folder="", user=USER):
        """The path of a folder: "" is INBOX, others begin with a dot."""
        return os.path.join(self.root, user, folder) if folder else os.path.join(self.root, user)

    def fill(self, count, folder="", user=USER, seed=1999) -> None:
        write_maildir(self.maildir(folder, user), count, seed)

    def link(self, count, folder="", user=USER) -> None:
        """As `fill`, from a corpus made once."""
        shutil.copytree(
            large(count), self.maildir(folder, user), copy_function=os.link, dirs_exist_ok=True
        )

    def login(self, user=USER, port=None):
        client = imaplib.IMAP4("127.0.0.1", port or self.port, timeout=PATIENCE)
        self.addCleanup(hang_up, client)
        client.login(user, PASSWORD)
        return client

    def ok(self, answer):
        """The data of an answer of imaplib's that has to be OK."""
        self.assertEqual(answer[0], "OK", answer)
        return answer[1]

    def fetched(self, client, folder="INBOX", step=200):
        """Every message of a folder as the server tells it."""
        count = int(self.ok(client.select(folder, readonly=True))[0])
        found: Counter = collections.Counter()
        for start in range(1, count + 1, step):
            data = self.ok(client.fetch(f"{start}:{min(start + step - 1, count)}", "(BODY.PEEK[])"))
            found.update(plain(one[1]) for one in data if isinstance(one, tuple))
        self.assertEqual(sum(found.values()), count)
        return found

    def same(self, found, expected) -> None:
        """These are the same messages, each as often: told in a line, for a diff of 10,000 messages takes hours."""
        missing, surplus = expected - found, found - expected
        if missing or surplus:
            lost, extra = (min(side, default=None) for side in (missing, surplus))
            self.fail(
                f"{missing.total()} of {expected.total()} missing, such as {lost!r:.3000}\n"
                f"{surplus.total()} too many, such as {extra!r:.3000}"
            )

    def write(self, name, text, mode=0o600):
        """A file in the client's home; 0600, as clients want it for what has a password in it."""
        path = os.path.join(self.home, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def run_it(self, *command, status=0, timeout=300, **options):
        """Run a client to its end; returns what it wrote on standard output."""
        env = {**os.environ, "HOME": self.home, "LC_ALL": "C.UTF-8", **options.pop("env", {})}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
            env=env, cwd=self.home, **options,
        )  # fmt: skip
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        if status is not None:
            self.assertEqual(done.returncode, status, f"{command}: {said[-3000:]}")
        self.log = said
        return done.stdout

    def in_terminal(self, *command, answers=(), patience=PATIENCE):
        """Run a program that wants a terminal, and keep its screen read; returns the screen.

        Of `answers` each is a text to wait for on the screen, one after the other, and the keys to type then.
        """
        waiting, seen = list(answers), 0
        pid, terminal = pty.fork()
        if not pid:
            os.environ.update(
                HOME=self.home, TERM="xterm", LINES="24", COLUMNS="80", LC_ALL="C.UTF-8"
            )
            os.chdir(self.home)
            os.execvp(command[0], command)
        killer = threading.Timer(patience, os.kill, (pid, signal.SIGKILL))
        killer.start()
        screen = b""
        try:
            while select.select([terminal], [], [], patience)[0]:
                data = os.read(terminal, 65536)
                if not data:
                    break
                screen += data
                while waiting and (found := screen.find(waiting[0][0], seen)) >= 0:
                    text, keys = waiting.pop(0)
                    seen = found + len(text)
                    time.sleep(
                        0.3
                    )  # alpine throws away what is typed before it has asked to the end
                    os.write(terminal, keys)
        except OSError:
            pass  # how Linux says that the other end of a terminal has gone
        finally:
            _, status = os.waitpid(pid, 0)
            killer.cancel()
            os.close(terminal)
        self.assertEqual((status, waiting), (0, []), screen[-3000:])
        return screen
