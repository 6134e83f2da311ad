"""The honest users of a flood: one who connects again for each visit, and one who stays logged in.

Each is a process of its own, so that none waits for the interpreter of another.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.client import Client, ServerError

TIMEOUT = 10.0
"""Seconds after which a visit has failed."""
PERIOD = 0.02
"""Seconds from the begin of a visit to the begin of the next one, if it takes no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where and how a victim logs in: its server, its own address and its password."""

    host: str
    port: int
    source: str
    user: str
    password: str


@dataclass(slots=True)
class Visits:
    """The seconds of each visit, failed ones included, and why visits failed."""

    times: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Latency:
    """The durations of visits, in seconds. Failed visits are included."""

    samples: int
    failures: int
    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, times: Sequence[float], failures: int) -> Latency:
        """Summarize the durations of visits; without any, the latency is infinite."""
        ordered = sorted(times) or [float("inf")]
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return cls(len(times), failures, statistics.median(ordered), p99, ordered[-1])


def fetch_last(client: Client, count: int) -> None:
    """Fetch the last ten messages of a mailbox of `count`, and send NOOP.

    Raises:
        ServerError: a message is missing.
    """
    if count:
        response = client.command(f"FETCH {max(1, count - 9)}:* (FLAGS ENVELOPE)")
        if len(response.fetched(b"ENVELOPE (")) != min(10, count):
            raise ServerError("envelopes are missing")
    client.command("NOOP")


class Newcomer:
    """Connects, logs in, selects, fetches, sends NOOP and logs out at each visit."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def visit(self) -> None:
        """Make one visit."""
        account = self._account
        with Client(account.host, account.port, source=account.source, timeout=TIMEOUT) as client:
            client.login(account.user, account.password)
            fetch_last(client, client.select())
            client.logout()


class Resident:
    """Stays logged in, and fetches at each visit; connects again after a failure."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._client: Client | None = None
        self._count = 0

    def visit(self) -> None:
        """Make one visit."""
        try:
            if self._client is None:
                account = self._account
                self._client = Client(
                    account.host, account.port, source=account.source, timeout=TIMEOUT
                )
                self._client.login(account.user, account.password)
                self._count = self._client.select()
            fetch_last(self._client, self._count)
        except (ServerError, OSError):
            if self._client is not None:
                self._client.close()
                self._client = None
            raise


KINDS: dict[str, Callable[[Account], Newcomer | Resident]] = {
    "newcomer": Newcomer,
    "resident": Resident,
}


def visit_for(visit: Callable[[], None], seconds: float) -> Visits:
    """Make a visit every `PERIOD` seconds, one after another."""
    visits = Visits()
    end = time.monotonic() + seconds
    while (started := time.monotonic()) < end:
        try:
            visit()
        except (ServerError, OSError) as error:
            visits.failures[f"{type(error).__name__}: {error}"] += 1
        took = time.monotonic() - started
        visits.times.append(took)
        time.sleep(max(0.0, PERIOD - took))
    return visits


class Victim:
    """The process of one honest user.

    Args:
        kind: a key of `KINDS`.
        account: its account.
        processor: where to run; None means anywhere.
    """

    def __init__(self, kind: str, account: Account, processor: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        arguments = (child_pipe, kind, account, processor)
        self._process = context.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        child_pipe.close()

    def begin(self, seconds: float) -> None:
        """Begin to make visits."""
        self._pipe.send(seconds)

    def result(self, seconds: float) -> Visits:
        """Wait until the visits have ended, which were begun for `seconds`."""
        if not self._pipe.poll(seconds + TIMEOUT * 6 + 10):
            raise ServerError("a victim does not respond")
        visits = self._pipe.recv()
        assert isinstance(visits, Visits)
        return visits

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run(pipe: Connection, kind: str, account: Account, processor: int | None) -> None:
    """Run in a victim's process: make visits for as many seconds as each message says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if processor is not None:
        os.sched_setaffinity(0, {processor})
    victim = KINDS[kind](account)
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(visit_for(victim.visit, pipe.recv()))
