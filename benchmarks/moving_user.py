"""Moves a user between two mail nodes behind a shield while five clients work, and measures the pause that they notice.

    python -m benchmarks.moving_user --moves 6 --messages 2000
    python -m benchmarks.moving_user --ssh

With ``--ssh``, the node ``two`` is reached over ssh, as if it were another machine; that needs openssh-server.
The clients append, flag, move and fetch messages, and wait in IDLE. ``system_tests/test_move.py`` uses the same ones,
and compares what each was told with what is there at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.loopback_ssh import HOST, LoopbackSsh

PASSWORD = "secret"  # noqa: S105
MAILBOXES = ("INBOX", "Work", "Done")
_FAILURES = (OSError, imaplib.IMAP4.error, AssertionError, ValueError)
"""What a client gets when its connection ends: then it logs in again."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that no program uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Site:
    """Two nodes and a shield in processes of their own. Alice has mail on the node ``one``.

    Args:
        base: a directory for everything.
        over_ssh: whether ``two`` is reached over ssh.

    Attributes:
        port: that of the shield.
        ports: those of the nodes.
    """

    def __init__(self, base: str, over_ssh: bool = False) -> None:
        self.base = base
        self._ssh = LoopbackSsh(Path(base, "ssh"), free_port()) if over_ssh else None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = open(f"{base}/log", "wb")  # noqa: SIM115
        ports = self.ports = {name: free_port() for name in ("one", "two")}
        self.port = free_port()
        auth = f"memory:alice:{PASSWORD}"
        for name, port in ports.items():
            os.mkdir(f"{base}/{name}")
            options = ("--mail-root", f"{base}/{name}", "--auth", auth)
            self._start(name, port, *options)
        Path(f"{base}/users.map").write_text("alice one\n")
        backends = [f"--backend={name}=tcp:127.0.0.1:{port}" for name, port in ports.items()]
        self._start("shield", self.port, *backends, "--user-map", f"file:{base}/users.map")
        nodes = [
            f'[nodes.{name}]\nmail-root = "{base}/{name}"\ncontrol = "{base}/{name}.control"\n'
            for name in ports
        ]
        if over_ssh:
            program = os.path.join(os.path.dirname(sys.executable), "imapshield")
            nodes[1] += f'ssh = "{HOST}"\ncommand = "{program}"\n'
        shield = f'[shields]\nedge = {{ control = "{base}/shield.control" }}\n'
        Path(f"{base}/nodes.toml").write_text(
            "\n".join([f'map = "{base}/users.map"', shield, *nodes])
        )
        self._wait()

    def _start(self, name: str, port: int, *options: str) -> None:
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        listen = f"tcp:{port}:interface=127.0.0.1"
        control = f"{self.base}/{name}.control"
        command = [twistd, "-n", "--pidfile=", "imapshield", "--listen", listen, "--state", "none"]
        process = subprocess.Popen(
            [*command, "--control", control, *options], stdout=self._log, stderr=self._log
        )
        self._processes.append(process)

    def _wait(self) -> None:
        """Wait until a login works."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect().logout()
                return
            except _FAILURES:
                if time.monotonic() > deadline:
                    raise AssertionError(self.log()) from None
                time.sleep(0.1)

    def log(self) -> str:
        """Return what all servers have printed."""
        return Path(f"{self.base}/log").read_text(errors="replace")

    def connect(self, node: str = "") -> imaplib.IMAP4:
        """Return a connection of the user, through the shield or directly to a node."""
        port = self.ports[node] if node else self.port
        client = imaplib.IMAP4("127.0.0.1", port, timeout=30)
        client.login("alice", PASSWORD)
        return client

    def start_move(self, node: str, *options: str) -> subprocess.Popen[str]:
        """Start the command that moves the user to a node."""
        files = ("--nodes", f"{self.base}/nodes.toml", "--journal", f"{self.base}/journal")
        return subprocess.Popen(
            [sys.executable, "-m", "imapshield", "move", "alice", node, *files, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._ssh.environment if self._ssh else None,
        )

    def move(self, node: str, *options: str) -> str:
        """Move the user, and return what the command prints."""
        process = self.start_move(node, *options)
        printed = process.communicate(timeout=120)[0]
        if process.returncode:
            raise AssertionError(printed + self.log())
        return printed

    def close(self) -> None:
        """Stop all processes."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)
        if self._ssh:
            self._ssh.close()
        self._log.close()


@contextlib.contextmanager
def running_site(over_ssh: bool = False) -> Iterator[Site]:
    """Yield a `Site` in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="imapshield-") as base:
        site = Site(base, over_ssh)
        try:
            yield site
        finally:
            site.close()


class WorkingClient(threading.Thread):
    """A client that does one thing again and again, and logs in again when its connection ends.

    Args:
        site: the servers.
        work: does the thing once.
        seed: of the random numbers.

    Attributes:
        done: the times at which the thing was done.
        failure: what went wrong, and is no end of a connection.
    """

    def __init__(self, site: Site, work: Callable[[WorkingClient], None], seed: int) -> None:
        super().__init__(daemon=True)
        self.site, self.random, self._work = site, random.Random(seed), work
        self.stopping = threading.Event()
        self.done: list[float] = []
        self.logins = 0
        self.number = 0
        self.stored: dict[str, tuple[str, str]] = {}
        self.client: imaplib.IMAP4 | None = None

    @property
    def imap(self) -> imaplib.IMAP4:
        """The connection."""
        assert self.client is not None
        return self.client

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.client = self.site.connect()
                self.logins += 1
                while not self.stopping.is_set():
                    self._work(self)
                    self.done.append(time.monotonic())
            except _FAILURES:
                self.stopping.wait(0.02)
        with contextlib.suppress(*_FAILURES):
            self.imap.logout()

    def select(self, mailbox: str) -> int:
        """Select a mailbox, and return how many messages it has."""
        kind, data = self.imap.select(mailbox)
        if kind != "OK":
            raise ValueError(data)
        return int(data[0] or b"0")

    def longest_gap(self, begin: float, end: float) -> float:
        """Return the longest time between two successes in an interval."""
        times = [begin, *(t for t in self.done if begin <= t <= end), end]
        return max(later - earlier for earlier, later in pairwise(times))


def append(client: WorkingClient) -> None:
    """Append a message, and remember its UID."""
    client.number += 1
    name = f"{client.ident}.{client.number}"
    message = f"Message-ID: <{name}@example.org>\r\nSubject: {name}\r\n\r\ntext\r\n".encode()
    mailbox = client.random.choice(MAILBOXES)
    kind, data = client.imap.append(mailbox, "($Work)", "", message)
    found = re.search(rb"APPENDUID (\d+) (\d+)", data[0])
    if kind == "OK" and found:
        client.stored[name] = (mailbox, b":".join(found.groups()).decode())
    time.sleep(0.02)


def store(client: WorkingClient) -> None:
    """Flag a message."""
    count = client.select("INBOX")
    if count:
        flag = client.random.choice(("\\Seen", "\\Flagged", "$Important"))
        op = client.random.choice(("+FLAGS", "-FLAGS"))
        client.imap.store(str(client.random.randint(1, count)), op, f"({flag})")
    time.sleep(0.02)


def move(client: WorkingClient) -> None:
    """Move a message between two mailboxes."""
    source, target = client.random.sample(("Work", "Done"), 2)
    count = client.select(source)
    if count:
        client.imap._simple_command("MOVE", str(client.random.randint(1, count)), target)
    time.sleep(0.02)


def fetch(client: WorkingClient) -> None:
    """Fetch a message."""
    count = client.select("INBOX")
    if count:
        client.imap.fetch(str(client.random.randint(1, count)), "(UID FLAGS BODY.PEEK[])")
    time.sleep(0.02)


def idle(client: WorkingClient) -> None:
    """Wait in IDLE for a moment."""
    client.select("INBOX")
    client.imap.send(b"i IDLE\r\n")
    line = client.imap.readline()
    while line.startswith(b"* ") and not line.startswith(b"* BYE"):
        line = client.imap.readline()
    if not line.startswith(b"+"):
        raise ValueError(line)
    time.sleep(0.2)
    client.imap.send(b"DONE\r\n")
    while not (line := client.imap.readline()).startswith(b"i OK"):
        if not line or line.startswith(b"* BYE"):
            raise ValueError(line)


WORK = (append, store, move, fetch, idle)


@contextlib.contextmanager
def working_clients(site: Site) -> Iterator[list[WorkingClient]]:
    """Yield five clients that work until the end of the block."""
    clients = [WorkingClient(site, work, seed) for seed, work in enumerate(WORK)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(40)


def fill(site: Site, messages: int) -> None:
    """Give the user mailboxes and messages."""
    client = site.connect()
    for name in MAILBOXES[1:]:
        client.create(name)
        client.subscribe(name)
    for number in range(messages):
        text = (
            f"Message-ID: <first.{number}@example.org>\r\nSubject: {number}\r\n\r\n"
            + "line\r\n" * 300
        )
        client.append("INBOX", "(\\Seen)" if number % 2 else "", "", text.encode())
    client.logout()


def dump(site: Site) -> dict[str, list[bytes]]:
    """Return all that the user can see: LIST, LSUB, STATUS, GETMETADATA and FETCH of everything."""
    client = site.connect()

    def responses(command: str) -> list[bytes]:
        client.send(b"d " + command.encode() + b"\r\n")
        lines: list[bytes] = []
        while not (line := client.readline()).startswith(b"d "):
            if not line:
                raise ValueError(command)
            lines.append(line)
            while found := re.search(rb"\{(\d+)\}\r\n$", line):
                lines.append(client.read(int(found[1])))
                line = client.readline()
                lines.append(line)
        if not line.startswith(b"d OK"):
            raise ValueError(line)
        return sorted(lines)

    found = {}
    for command in ('LIST "" *', 'LSUB "" *', "GETMETADATA INBOX (/private/comment)"):
        found[command] = responses(command)
    for mailbox in MAILBOXES:
        items = "MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ MAILBOXID SIZE"
        found[f"STATUS {mailbox}"] = responses(f"STATUS {mailbox} ({items})")
        found[f"EXAMINE {mailbox}"] = responses(f"EXAMINE {mailbox} (CONDSTORE)")
        items = "UID FLAGS MODSEQ INTERNALDATE RFC822.SIZE EMAILID BODY.PEEK[]"
        found[f"FETCH {mailbox}"] = responses(f"UID FETCH 1:* ({items})")
    client.logout()
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--moves", type=int, default=6)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--ssh", action="store_true", help="reach one node over ssh")
    options = parser.parse_args()
    with running_site(options.ssh) as site:
        fill(site, options.messages)
        gaps: list[float] = []
        for number in range(options.moves):
            node = ("two", "one")[number % 2]
            with working_clients(site) as clients:
                time.sleep(1.5)
                began = time.monotonic()
                text = site.move(node)
                time.sleep(0.5)
                ended = time.monotonic()
                gap = {c._work.__name__: c.longest_gap(began, ended) for c in clients}
            gaps.append(max(gap.values()))
            print(text.strip())
            print("  longest wait: " + ", ".join(f"{k} {v:.2f} s" for k, v in gap.items()))
        print(f"longest wait of any client in {options.moves} moves: {max(gaps):.2f} s")


if __name__ == "__main__":
    main()
