"""A server under measurement: its address, the scale of the run, a stopwatch for time and CPU, and sessions."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType

from benchmarks import corpus
from benchmarks.client import Client, ServerError
from benchmarks.processes import cpu, settled_cpu

IDLE_CHECK = 0.2
"""Seconds in which an idle server uses less than a fiftieth of a processor."""


def check_count(what: str, found: int, expected: int) -> None:
    """Raise `ServerError` if a count is not the expected one."""
    if found != expected:
        raise ServerError(f"{what}: {found} instead of {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    messages: int = 10_000
    seed: int = corpus.SEED
    rounds: int = 5
    row_seconds: float = 30  # for the rounds of one row, on one server; at least one round is done
    sessions: int = 100  # one after another
    round_trips: int = 1000
    appends: int = 50
    idle: int = 1000  # connections
    load: int = 6000  # commands of all clients of the mixed load together
    flood_seconds: float = 10
    imaptest_seconds: float = 60
    selected: int = 20  # mailboxes with all messages, with --scale

    @property
    def bulk(self) -> int:
        """How many messages one STORE, COPY, MOVE or EXPUNGE changes."""
        return min(1000, self.messages)

    @classmethod
    def quick(cls, messages: int) -> Scale:
        """Return a scale for a first impression, which takes a minute or two for each server."""
        return cls(
            messages=messages,
            rounds=3,
            row_seconds=8,
            sessions=50,
            round_trips=300,
            appends=20,
            idle=250,
            load=3000,
            flood_seconds=4,
            imaptest_seconds=10,
            selected=5,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure: its address, the user to log in, and its first process."""

    host: str
    port: int
    user: str
    password: str
    pid: int


@dataclass(slots=True)
class Stopwatch:
    """Adds up the wall time, and the server's CPU time, of `with` blocks, in seconds.

    CPU time that the server spends after its last response is included; the wait for it is not.
    """

    pid: int
    wall: float = 0
    cpu: float = 0
    _started: tuple[float, float] = (0, 0)

    def __enter__(self) -> None:
        before = settled_cpu(self.pid)
        self._started = time.perf_counter(), before

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.wall += time.perf_counter() - self._started[0]
            self.cpu += settled_cpu(self.pid) - self._started[1]


@dataclass
class Bench:
    """A server under measurement, with a session that most rows share, in which INBOX is selected.

    Attributes:
        folders: the mailbox has the folders of `mail.fill`.
        users: users with a small mailbox each.
        reference: the server is `noop_server.py`, which has no mail.
    """

    target: Target
    scale: Scale
    folders: bool = False
    users: Sequence[str] = ()
    reference: bool = False
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def connect(self) -> Client:
        """Open a connection and read its greeting."""
        return Client(self.target.host, self.target.port)

    @contextmanager
    def session(self, mailbox: str | None = "INBOX") -> Iterator[Client]:
        """Open a separate session with `mailbox` selected."""
        with self.connect() as client:
            client.login(self.target.user, self.target.password)
            if mailbox:
                client.select(mailbox)
            yield client

    @cached_property
    def client(self) -> Client:
        """The session that rows share."""
        client = self.connect()
        client.login(self.target.user, self.target.password)
        count = client.select()
        if not self.reference:
            check_count("messages in INBOX", count, self.scale.messages)
        return client

    def wait_idle(self, timeout: float = 300) -> None:
        """Wait until the server does nothing any more, such as indexing new mail in the background."""
        deadline = time.monotonic() + timeout
        before = cpu(self.target.pid)
        while time.monotonic() < deadline:
            time.sleep(IDLE_CHECK)
            now = cpu(self.target.pid)
            if now - before < IDLE_CHECK / 50:
                return
            before = now

    def drop_client(self) -> None:
        """Close the shared session; the next row opens a new one."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()

    @contextmanager
    def scratch(self, client: Client, *names: str) -> Iterator[None]:
        """Create empty mailboxes and delete them afterwards; those of an interrupted run are deleted first."""
        for name in names:
            with suppress(ServerError):
                client.command(f'DELETE "{name}"')
            client.command(f'CREATE "{name}"')
        yield
        client.select("INBOX")
        for name in names:
            client.command(f'DELETE "{name}"')

    @cached_property
    def sizes(self) -> dict[int, int]:
        """The RFC822.SIZE of every message by its number, to check complete bodies."""
        response = self.client.command("FETCH 1:* (RFC822.SIZE)")
        found = response.fetched(b"RFC822.SIZE ")
        check_count("sizes", len(found), self.scale.messages)
        sizes = {}
        for number, parts in found.items():
            digits = parts[0].partition(b"RFC822.SIZE ")[2]
            sizes[number] = int(digits.split()[0].strip(b")"))
        return sizes

    @cached_property
    def mid_size_messages(self) -> list[bytes]:
        """Messages of about 5 KB to append."""
        candidates = corpus.messages(self.scale.appends * 200, self.scale.seed + 1)
        fitting = (data for data in candidates if 4500 < len(data) < 5500)
        return [data for data, _ in zip(fitting, range(self.scale.appends), strict=False)]
