"""Measures the figures of `benchmarks.plan`: what a login, a command and an idle connection cost each kind of node.

python -m benchmarks.plan_prices

A mail node with a shield node in front of it, TLS on both sides, and a server without a shield take turns. Passwords
are plain, so the price of a hash is not in these figures. Attacks are from addresses of this machine, which are not
trusted.
"""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flood_report import simple_table
from benchmarks.peers import free_port
from benchmarks.processes import memory, settled_cpu

MESSAGES = 50
USERS = 100
COMMANDS = (
    *("NOOP", "NOOP", "FETCH 1:20 (FLAGS)", "FETCH 1:20 (FLAGS)", "FETCH 1:10 (ENVELOPE)"),
    *("FETCH 5 (BODY.PEEK[])", "FETCH 9 (BODY.PEEK[])", "SEARCH UNSEEN", "STORE 3 FLAGS (\\Seen)"),
    "STATUS INBOX (UNSEEN)",
)
"""A mix as in the mixed load of `benchmarks.run`, without APPEND."""


@dataclass(frozen=True, slots=True)
class Node:
    """A running server: its name, its process and its port with TLS."""

    name: str
    process: subprocess.Popen[bytes]
    port: int


class Layout:
    """A mail node, a shield node and a server alone, in a temporary directory."""

    def __init__(self, base: Path) -> None:
        self.pem = base / "node.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", str(self.pem), "-out", str(self.pem)),
            ],
            check=True,
            capture_output=True,
        )
        users = [f"user{n}:secret" for n in range(USERS)]
        mail = ["--auth", "memory:" + ":".join(users)]
        for name in ("mail", "alone"):
            for n in range(USERS):
                _fill(base / name / f"user{n}")
        self.mail = self._start("mail", *mail, "--mail-root", f"{base}/mail/{{user}}")
        backend = f"tls:localhost:{self.mail.port}:ca={self.pem}"
        self.shield = self._start("shield", "--backend", backend)
        self.alone = self._start("alone", *mail, "--mail-root", f"{base}/alone/{{user}}")

    def _start(self, name: str, *options: str) -> Node:
        port = free_port()
        listen = ["--listen", f"imaps:{port}:interface=127.0.0.1", "--certificate", str(self.pem)]
        command = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile="]
        rest = ["imapshield", *listen, "--state", "none", "--control", "none", "--trust", "none"]
        process = subprocess.Popen([*command, *rest, *options], stdout=subprocess.DEVNULL)
        node = Node(name, process, port)
        for _ in range(600):
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                self.login(node, 0).logout()
                return node
            time.sleep(0.1)
        raise RuntimeError(f"{name} does not serve")

    def login(self, node: Node, user: int) -> imaplib.IMAP4_SSL:
        """Return a client that has logged in."""
        context = ssl.create_default_context(cafile=str(self.pem))
        client = imaplib.IMAP4_SSL("localhost", node.port, ssl_context=context, timeout=60)
        client.login(f"user{user}", "secret")
        return client

    def stop(self) -> None:
        """End all servers."""
        for node in (self.shield, self.mail, self.alone):
            node.process.terminate()
            node.process.wait()


def _fill(maildir: Path) -> None:
    """Make a Maildir with some messages of 4 KB."""
    for part in ("cur", "new", "tmp"):
        (maildir / part).mkdir(parents=True)
    text = "Subject: A message\n\n" + ("x" * 70 + "\n") * 56
    for n in range(MESSAGES):
        (maildir / "cur" / f"{n}.M1P1.host:2,").write_text(text)


Spent = dict[str, float]
"""CPU seconds, or bytes, by the name of a node."""


class Stopwatch:
    """Measures the CPU time that all nodes need, until `stop`."""

    def __init__(self, layout: Layout) -> None:
        self._nodes = (layout.shield, layout.mail, layout.alone)
        self._begin = self._now()

    def _now(self) -> Spent:
        return {node.name: settled_cpu(node.process.pid) for node in self._nodes}

    def stop(self, number: int) -> Spent:
        """Return the seconds for each of `number`."""
        return {name: (now - self._begin[name]) / number for name, now in self._now().items()}


def login(layout: Layout, node: Node) -> Spent:
    """Log in and out: TCP, TLS, LOGIN, LOGOUT."""
    stopwatch = Stopwatch(layout)
    for user in range(USERS):
        layout.login(node, user).logout()
    return stopwatch.stop(USERS)


def command(layout: Layout, node: Node) -> Spent:
    """Do the mix of commands with twenty users."""
    clients = [layout.login(node, user) for user in range(20)]
    for client in clients:
        client.select()
    stopwatch = Stopwatch(layout)
    for text in COMMANDS * 5:
        for client in clients:
            client._simple_command(*text.split(" ", 1))
    spent = stopwatch.stop(len(COMMANDS) * 5 * len(clients))
    for client in clients:
        client.logout()
    return spent


def connection(layout: Layout, node: Node) -> Spent:
    """Return the bytes of a connection in IDLE: of the second three hundred, because the first fill free memory."""
    nodes = (layout.shield, layout.mail, layout.alone)
    before: Spent = {}
    clients = []
    for part in range(2):
        for n in range(3 * USERS):
            client = layout.login(node, n % USERS)
            client.select()
            client.send(b"i IDLE\r\n")
            client.readline()
            clients.append(client)
        time.sleep(3)
        held = {each.name: float(memory(each.process.pid).private) for each in nodes}
        if part == 0:
            before = held
    for client in clients:
        client.shutdown()
    return {name: (held[name] - before[name]) / (3 * USERS) for name in held}


def _connected(node: Node, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), 10, (address, 0))


def attack(layout: Layout, node: Node) -> Spent:
    """Connect from 200 addresses, one time each, and send more NOOPs over TLS than are permitted."""
    context = ssl.create_default_context(cafile=str(layout.pem))
    flood = b"".join(b"%d NOOP\r\n" % n for n in range(200))
    stopwatch = Stopwatch(layout)
    for n in range(200):
        with (
            contextlib.suppress(OSError),
            _connected(node, f"127.{n}.3.1") as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(flood)
            while client.recv(4096):
                pass
    return stopwatch.stop(200)


def refused(layout: Layout, node: Node) -> Spent:
    """Connect from an address that is above its rate."""
    while not _is_refused(node):
        pass
    stopwatch = Stopwatch(layout)
    for _ in range(3000):
        _connected(node, BUSY).close()
    return stopwatch.stop(3000)


BUSY = "127.0.200.1"


def _is_refused(node: Node) -> bool:
    """Connect; return whether the connection ends at once, because there were too many before."""
    with contextlib.suppress(OSError), _connected(node, BUSY) as client:
        client.settimeout(0.05)
        return client.recv(1) == b""
    return False


ROWS: dict[str, tuple[Callable[[Layout, Node], Spent], int, float, str]] = {
    "login": (login, 5, 1e3, "ms"),
    "command": (command, 5, 1e3, "ms"),
    "connection in IDLE": (connection, 1, 1e-3, "kB"),
    "200 NOOPs before the login": (attack, 1, 1e3, "ms"),
    "refused connection": (refused, 1, 1e3, "ms"),
}
"""The rows: what does the work, how often, and the unit."""


def cells(layout: Layout) -> Iterator[list[str]]:
    """Yield the rows of the table."""
    for name, (work, rounds, factor, unit) in ROWS.items():
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for node in (layout.shield, layout.alone):
                for other, value in work(layout, node).items():
                    if other == node.name or (other == "mail" and node is layout.shield):
                        found.setdefault(other, []).append(value)
        medians = {other: statistics.median(values) for other, values in found.items()}
        yield [name, *(f"{medians[n] * factor:.3g} {unit}" for n in ("shield", "mail", "alone"))]
        print(f"{name} is measured", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, and print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    base = Path(tempfile.mkdtemp(prefix="plan-"))
    layout = Layout(base)
    try:
        print("\n".join(simple_table(["price", "shield", "mail", "alone"], list(cells(layout)))))
    finally:
        layout.stop()
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
