"""The rows with many clients at once, all run by this process: a mixed load, and clients that never read.

Each client has a user of its own with a small mailbox. In the mixed load a client sends its next command when it
has the whole answer to the last one.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks import mail
from benchmarks.bench import Bench, Stopwatch, check_count
from benchmarks.client import Client, ServerError
from benchmarks.report import NO_GOAL, Goal
from benchmarks.rows import measure

Command = tuple[bytes, bytes, int]
"""A command without its tag, a text of its answer, and how often at least the answer contains the text."""

MIX = {
    "NOOP": 20,
    "FETCH FLAGS": 20,
    "FETCH BODY": 25,
    "FETCH ENVELOPE": 10,
    "SEARCH": 5,
    "STORE": 10,
    "STATUS": 5,
    "APPEND": 5,
}
"""The commands and their share in percent."""
SILENT = 10.0
"""Seconds without any answer after which the load has failed."""
REST = 12.0
"""Seconds for which all clients rest before a load of many, or with few commands. To log a thousand of them in takes so
long that the first of them rest anyway, and a server may free memory of clients that rest."""

_APPENDED = (
    b"From: Alice <alice@shield.example>\r\nTo: bob@shield.example\r\nSubject: notes\r\n"
    b"Date: Wed, 01 Jan 2020 12:00:00 +0000\r\nMessage-ID: <appended@shield.example>\r\n\r\n"
).ljust(4094, b"x") + b"\r\n"


class _LoadClient:
    """One client of the mixed load: what it sends next, and the answer that it waits for."""

    def __init__(self, client: Client, rng: random.Random, messages: int) -> None:
        self.socket = client.socket
        self._rng, self._messages = rng, messages
        self._flagged: set[int] = set()
        self._sent = 0
        self._answer = b""
        self._expected: tuple[bytes, bytes, int] = (b"", b"", 0)

    def send(self) -> None:
        """Send a random command."""
        kind = self._rng.choices(list(MIX), list(MIX.values()))[0]
        self._sent += 1
        text, wanted, count = self._command(kind)
        tag = b"m%d " % self._sent
        self._answer, self._expected = b"", (tag, wanted, count)
        self.socket.sendall(tag + text + b"\r\n")

    def received(self) -> bool:
        """Read what has arrived; return whether the answer is complete.

        Raises:
            ServerError: it is not OK, or incomplete.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise ServerError("the server closed the connection")
        self._answer += data
        if not data.endswith(b"\n"):
            return False
        tag, wanted, count = self._expected
        last = self._answer.rfind(b"\n", 0, -1) + 1
        if not self._answer.startswith(tag, last):
            return False
        if not self._answer.startswith(b"OK", last + len(tag)):
            raise ServerError(self._answer[last:].decode(errors="replace").strip())
        if count and self._answer.count(wanted) < count:
            raise ServerError(f"less than {count} times {wanted.decode()}")
        return True

    def _command(self, kind: str) -> Command:
        if kind == "NOOP":
            return b"NOOP", b"", 0
        if kind == "FETCH FLAGS":
            return b"FETCH %b (FLAGS)" % self._range(20), b"FLAGS (", min(20, self._messages)
        if kind == "FETCH ENVELOPE":
            return b"FETCH %b (ENVELOPE)" % self._range(10), b"ENVELOPE (", min(10, self._messages)
        if kind == "SEARCH":
            return b"SEARCH UNSEEN", b"* SEARCH", 1
        if kind == "STATUS":
            return b"STATUS INBOX (MESSAGES UIDNEXT UNSEEN)", b"* STATUS", 1
        if kind == "APPEND":
            return b"APPEND INBOX (\\Seen) {%d+}\r\n%b" % (len(_APPENDED), _APPENDED), b"", 0
        number = self._rng.randint(1, self._messages)
        if kind == "FETCH BODY":
            return b"FETCH %d (BODY.PEEK[])" % number, b"BODY[] {", 1
        # Setting a flag that is set already would be no work.
        self._flagged ^= {number}
        sign = b"+" if number in self._flagged else b"-"
        return b"STORE %d %bFLAGS (\\Flagged)" % (number, sign), b"FLAGS (", 1

    def _range(self, size: int) -> bytes:
        first = self._rng.randint(1, max(1, self._messages - size + 1))
        return b"%d:%d" % (first, min(first + size - 1, self._messages))


def drive(clients: Sequence[_LoadClient], commands: int) -> int:
    """Let every client send `commands` commands, each after the answer to the one before; return their number."""
    poll = select.epoll()
    by_descriptor = {client.socket.fileno(): client for client in clients}
    left = dict.fromkeys(by_descriptor, commands)
    with poll:
        for descriptor, client in by_descriptor.items():
            poll.register(descriptor, select.EPOLLIN)
            client.send()
        while left:
            ready = poll.poll(SILENT)
            if not ready:
                raise ServerError(f"no answer for {SILENT:.0f} seconds")
            for descriptor, _ in ready:
                client = by_descriptor[descriptor]
                if client.received():
                    left[descriptor] -= 1
                    if left[descriptor]:
                        client.send()
                    else:
                        del left[descriptor]
                        poll.unregister(descriptor)
    return commands * len(clients)


@contextmanager
def sessions(bench: Bench, count: int) -> Iterator[list[Client]]:
    """Open a session for each of `count` users, with INBOX selected."""
    with ExitStack() as stack:
        clients = []
        for user in bench.users[:count]:
            clients.append(stack.enter_context(bench.connect()))
            clients[-1].login(user, bench.target.password)
            clients[-1].select()
        yield clients


def _load(
    clients: int, goal: Goal, *, as_with: int = 0, each: int = 0, seldom: bool = False
) -> None:
    """Add a row for the mixed load of `clients` clients.

    Args:
        clients: how many there are.
        goal: the goal.
        as_with: each client sends as many commands as in the row with this number of clients; by default `clients`.
        each: how many commands each client sends instead.
        seldom: whether the row is measured only if asked for.
    """
    sharing = as_with or clients

    @measure(
        f"mixed load, clients: {clients}" + (f", {each} commands each" if each else ""),
        "command",
        goal=goal,
        warm=True,
        users=clients,
        rounds=(1 if as_with else 3) if seldom else 1000,
        seldom=seldom,
    )
    def _mixed(bench: Bench, stopwatch: Stopwatch) -> float:
        messages = min(mail.SMALL, bench.scale.messages)
        with sessions(bench, clients) as opened:
            for client in opened:
                client.command(r"STORE 1:* -FLAGS.SILENT (\Flagged)")
                client.command("FETCH 1:* (ENVELOPE)")  # in each row, all answers are cached
            load = [
                _LoadClient(client, random.Random(number), messages)
                for number, client in enumerate(opened)
            ]
            bench.wait_idle()  # a server may index the mail of the new users
            if seldom and clients > 1:
                time.sleep(REST)
            with stopwatch:
                done = drive(load, each or max(2, bench.scale.load // sharing))
            for client in opened:
                if client.select() > messages:
                    client.command(rf"STORE {messages + 1}:* +FLAGS.SILENT (\Deleted)")
                client.command("EXPUNGE")
                check_count("messages at the end", client.select(), messages)
        return done


_load(1, NO_GOAL, seldom=True)
_load(20, Goal(cpu=1.0, rate=0.55))
_load(100, Goal(cpu=1.0, rate=0.55))
# The cost of a command must not depend on the number of users. It does depend on how many commands a session sends: the
# first ones find less in memory. So rows are compared in which each client sends as many.
_load(1000, Goal(steady="mixed load, clients: 100"), as_with=100, seldom=True)
_load(100, NO_GOAL, each=6, seldom=True)
_load(1000, Goal(steady="mixed load, clients: 100, 6 commands each"), each=6, seldom=True)


def _never_read(command: str) -> None:
    """Add a row for clients that send one command for ever and never read."""
    number = 50
    chunk = (f"t {command}\r\n" * 500).encode()

    @measure(
        f"{number} clients send {command.split(maxsplit=1)[0]} and never read",
        "core",
        goal=Goal(limit=0.1),
        users=number,
        rounds=1,
    )
    def _sent(bench: Bench, stopwatch: Stopwatch) -> float:
        seconds = bench.scale.flood_seconds
        with sessions(bench, number) as clients, select.epoll() as poll:
            sockets = {client.socket.fileno(): client.socket for client in clients}
            sent = dict.fromkeys(sockets, 0)
            for descriptor, connection in sockets.items():
                connection.setblocking(False)
                poll.register(descriptor, select.EPOLLOUT)
            bench.wait_idle()  # a server may index the mail of the new users
            with stopwatch:
                end = time.monotonic() + seconds
                while (left := end - time.monotonic()) > 0:
                    for descriptor, _ in poll.poll(left):
                        try:
                            count = sockets[descriptor].send(chunk[sent[descriptor] :])
                            sent[descriptor] = (sent[descriptor] + count) % len(chunk)
                        except OSError:  # the server has closed the connection
                            poll.unregister(descriptor)
        return seconds


for _command in ("NOOP", "STATUS INBOX (MESSAGES)", "SEARCH ALL"):
    _never_read(_command)
