"""What is measured: one function a row, each of which also checks what it was answered.

A function does one round. It wraps what counts in `with watch:` and returns how many units
(messages, commands, megabytes) were dealt with in there. Whatever stands outside the `with` is
preparation. `Wrong` becomes a line of the report, and the next row is tried.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType

from benchmarks import corpus
from benchmarks.client import Client, Wrong
from benchmarks.processes import settled_cpu

HEADER = "BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES CONTENT-TYPE)]"
COLD = ("select", "envelope", "structure", "both", "header", "size")
WINDOW = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    messages: int = 10_000
    seed: int = corpus.SEED
    rounds: int = 5
    patience: float = (
        30  # seconds for the rounds of one row, on one server; one round is always done
    )
    sessions: int = 100  # logins in a row
    round_trips: int = 1000
    appends: int = 50
    idle: int = 1000
    clients: int = 20
    turns: int = 3  # of fifty commands, for each of the clients

    @property
    def many(self) -> int:
        """How many messages STORE, COPY, MOVE and EXPUNGE take at once."""
        return min(1000, self.messages)

    @classmethod
    def quick(cls, messages: int) -> Scale:
        """Make a scale for a first look."""
        return cls(
            messages=messages,
            rounds=3,
            patience=8,
            sessions=50,
            round_trips=300,
            appends=20,
            idle=250,
            turns=1,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure: where it listens, who logs in, the process that all others come from."""

    host: str
    port: int
    user: str
    password: str
    pid: int


@dataclass(slots=True)
class Watch:
    """Adds up wall time and the server's CPU time between `with` and its end, in seconds.

    The CPU that a server spends after its last answer is counted; the wait for it is not.
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
    """One server under measurement, and the session that most rows share: INBOX is selected."""

    target: Target
    scale: Scale
    cold_folders: bool
    lot: random.Random = field(default_factory=lambda: random.Random(1))

    def connect(self) -> Client:
        """Open a connection that has its greeting and no more."""
        return Client(self.target.host, self.target.port)

    @contextmanager
    def session(self, mailbox: str | None = "INBOX") -> Iterator[Client]:
        """Give a session of one's own: logged in, `mailbox` selected."""
        with self.connect() as client:
            client.login(self.target.user, self.target.password)
            if mailbox:
                client.select(mailbox)
            yield client

    @cached_property
    def client(self) -> Client:
        """The shared session."""
        client = self.connect()
        client.login(self.target.user, self.target.password)
        expect("messages in INBOX", client.select(), self.scale.messages)
        return client

    def forget(self) -> None:
        """Drop the shared session; the next row gets a new one."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()

    @contextmanager
    def scratch(self, client: Client, *names: str) -> Iterator[None]:
        """Make empty mailboxes, delete them afterwards, also those of a run that died."""
        for name in names:
            with suppress(Wrong):
                client.command(f'DELETE "{name}"')
            client.command(f'CREATE "{name}"')
        yield
        client.select("INBOX")
        for name in names:
            client.command(f'DELETE "{name}"')

    @cached_property
    def sizes(self) -> dict[int, int]:
        """RFC822.SIZE of every message: what whole bodies must agree with."""
        answer = self.client.command("FETCH 1:* (RFC822.SIZE)")
        found = answer.fetched(b"RFC822.SIZE ")
        expect("sizes", len(found), self.scale.messages)
        sizes = {}
        for number, pieces in found.items():
            digits = pieces[0].partition(b"RFC822.SIZE ")[2]
            sizes[number] = int(digits.split()[0].strip(b")"))
        return sizes

    @cached_property
    def letters(self) -> list[bytes]:
        """Messages of about 5 KB."""
        candidates = corpus.messages(self.scale.appends * 200, self.scale.seed + 1)
        fitting = (data for data in candidates if 4500 < len(data) < 5500)
        return [data for data, _ in zip(fitting, range(self.scale.appends), strict=False)]


Round = Callable[[Bench, Watch], float]


@dataclass(frozen=True, slots=True)
class Measure:
    """One row: a round of it, the unit of its figures, and whether a first round is discarded."""

    name: str
    unit: str
    round: Round
    warm: bool = False
    cold: bool = False  # only possible once, in a folder that nobody has looked into


MEASURES: list[Measure] = []


def measure(
    name: str, unit: str, *, warm: bool = False, cold: bool = False
) -> Callable[[Round], Round]:
    """Put a function that does one round into the table."""

    def add(function: Round) -> Round:
        MEASURES.append(Measure(name, unit, function, warm, cold))
        return function

    return add


def expect(what: str, found: int, right: int) -> None:
    """Compare a count; raise `Wrong` if it differs."""
    if found != right:
        raise Wrong(f"{what}: {found}, not {right}")


@measure("connect, LOGIN, SELECT, LOGOUT", "session", warm=True)
def _sessions(bench: Bench, watch: Watch) -> float:
    with watch:
        for _ in range(bench.scale.sessions):
            with bench.connect() as client:
                client.login(bench.target.user, bench.target.password)
                found = client.select()
                client.logout()
    expect("messages in INBOX", found, bench.scale.messages)
    return bench.scale.sessions


@measure("SELECT, mailbox never seen before", "message", cold=True)
def _first_select(bench: Bench, watch: Watch) -> float:
    with bench.session(None) as client:
        with watch:
            found = client.select("cold-select")
        expect("messages in the folder", found, bench.scale.messages)
    return found


@measure("SELECT again", "command")
def _select(bench: Bench, watch: Watch) -> float:
    with watch:
        for _ in range(10):
            bench.client.select()
    return 10


def _fetch(name: str, items: str, having: bytes, folder: str = "", command: str = "FETCH") -> None:
    """Add the row of a FETCH 1:*: warm, and where there is a folder for it, cold."""

    def fetch(client: Client, bench: Bench, watch: Watch) -> float:
        with watch:
            answer = client.command(f"{command} 1:* ({items})")
        found = answer.fetched(having)
        expect("answers", len(found), bench.scale.messages)
        expect("last number", max(found), bench.scale.messages)
        return len(found)

    if folder:

        @measure(f"{command} {name}, cold", "message", cold=True)
        def _cold(bench: Bench, watch: Watch) -> float:
            with bench.session(f"cold-{folder}") as client:
                return fetch(client, bench, watch)

    @measure(f"{command} {name}", "message", warm=True)
    def _warm(bench: Bench, watch: Watch) -> float:
        return fetch(bench.client, bench, watch)


_fetch("FLAGS", "FLAGS", b"FLAGS (")
_fetch("FLAGS", "FLAGS", b"UID ", command="UID FETCH")
_fetch("ENVELOPE", "ENVELOPE", b"ENVELOPE (", "envelope")
_fetch("BODYSTRUCTURE", "BODYSTRUCTURE", b"BODYSTRUCTURE (", "structure")
_fetch("ENVELOPE BODYSTRUCTURE", "ENVELOPE BODYSTRUCTURE", b"BODYSTRUCTURE (", "both")
_fetch("header fields", HEADER, b"BODY[HEADER.FIELDS ", "header")
_fetch("RFC822.SIZE INTERNALDATE", "RFC822.SIZE INTERNALDATE", b"INTERNALDATE ", "size")


@measure("FETCH whole bodies", "MB")
def _bodies(bench: Bench, watch: Watch) -> float:
    octets, sizes = 0, bench.sizes
    for first in range(1, bench.scale.messages + 1, WINDOW):
        last = min(first + WINDOW - 1, bench.scale.messages)
        with watch:
            answer = bench.client.command(f"FETCH {first}:{last} (BODY.PEEK[])")
        bodies = answer.fetched(b"BODY[] {")
        expect("bodies", len(bodies), last + 1 - first)
        for number, pieces in bodies.items():
            expect(f"octets of message {number}", len(pieces[1]), sizes[number])
            octets += len(pieces[1])
    return octets / 1e6


def _search(name: str, key: str, belongs: Callable[[int, int], bool]) -> None:
    """Add the row of a SEARCH that must find the messages whose index and seed `belongs` likes."""

    @measure(f"SEARCH {name}", "message", warm=True)
    def _searched(bench: Bench, watch: Watch) -> float:
        with watch:
            found = bench.client.command(f"SEARCH {key}").searched()
        count, seed = bench.scale.messages, bench.scale.seed
        expect("found", len(found), sum(belongs(index, seed) for index in range(count)))
        return count


_search("UNSEEN", "UNSEEN", lambda index, seed: "S" not in corpus.flags(index, seed))
_search("FROM", f"FROM {corpus.PLANTED_FROM[0]}", lambda index, _: corpus.planted(index).sender)
_search(
    "SUBJECT",
    f"SUBJECT {corpus.PLANTED_SUBJECT[0]}",
    lambda index, _: corpus.planted(index).subject,
)
_search("BODY", f"BODY {corpus.PLANTED_BODY[0]}", lambda index, _: corpus.planted(index).body)
_search("TEXT", f"TEXT {corpus.PLANTED_BODY[0]}", lambda index, _: corpus.planted(index).body)


@measure("APPEND 5 KB, small mailbox", "message")
def _append(bench: Bench, watch: Watch) -> float:
    with bench.session() as client, bench.scratch(client, "bench-append"):
        with watch:
            for data in bench.letters:
                client.append("bench-append", data, r"\Seen")
        expect("appended", client.select("bench-append"), len(bench.letters))
    return len(bench.letters)


@measure("APPEND 5 KB, into the full INBOX", "message")
def _append_inbox(bench: Bench, watch: Watch) -> float:
    client, messages = bench.client, bench.scale.messages
    try:
        with watch:
            for data in bench.letters:
                client.append("INBOX", data, r"\Seen")
    finally:
        count = client.select()
        if count > messages:
            client.command(rf"STORE {messages + 1}:* +FLAGS.SILENT (\Deleted)")
            client.command("EXPUNGE")
    expect("appended", count - messages, len(bench.letters))
    return len(bench.letters)


@measure("STORE flags, 1:1000", "message")
def _store_many(bench: Bench, watch: Watch) -> float:
    client, many = bench.client, bench.scale.many
    client.command(rf"STORE 1:{many} -FLAGS.SILENT (\Flagged)")
    with watch:
        answers = [client.command(rf"STORE 1:{many} {sign}FLAGS (\Flagged)") for sign in "+-"]
    for answer in answers:
        expect("answers", len(answer.fetched(b"FLAGS (")), many)
    return 2 * many


@measure("STORE flags, one message", "command")
def _store_one(bench: Bench, watch: Watch) -> float:
    count = min(bench.scale.round_trips // 5, bench.scale.messages)
    numbers = bench.lot.sample(range(1, bench.scale.messages + 1), count)
    # A flag that is set already would be no work, and Dovecot does not answer for it.
    bench.client.command(r"STORE 1:* -FLAGS.SILENT (\Flagged)")
    with watch:
        for number in numbers:
            answer = bench.client.command(rf"STORE {number} +FLAGS (\Flagged)")
            expect("answers", len(answer.fetched(b"FLAGS (")), 1)
    return len(numbers)


@measure("COPY 1000", "message")
def _copy(bench: Bench, watch: Watch) -> float:
    many = bench.scale.many
    with bench.session() as client, bench.scratch(client, "bench-copy"):
        with watch:
            client.command(f"COPY 1:{many} bench-copy")
        expect("copied", client.select("bench-copy"), many)
    return many


@measure("MOVE 1000", "message")
def _move(bench: Bench, watch: Watch) -> float:
    many = bench.scale.many
    with bench.session() as client, bench.scratch(client, "bench-copy", "bench-moved"):
        client.command(f"COPY 1:{many} bench-copy")
        expect("copied", client.select("bench-copy"), many)
        with watch:
            answer = client.command("MOVE 1:* bench-moved")
        expect("expunged", answer.count(b"EXPUNGE"), many)
        expect("moved", client.select("bench-moved"), many)
    return many


@measure("EXPUNGE 1000", "message")
def _expunge(bench: Bench, watch: Watch) -> float:
    many = bench.scale.many
    with bench.session() as client, bench.scratch(client, "bench-copy"):
        client.command(f"COPY 1:{many} bench-copy")
        expect("copied", client.select("bench-copy"), many)
        client.command(r"STORE 1:* +FLAGS.SILENT (\Deleted)")
        with watch:
            answer = client.command("EXPUNGE")
        expect("expunged", answer.count(b"EXPUNGE"), many)
    return many


@measure("NOOP, round trips", "command")
def _noop(bench: Bench, watch: Watch) -> float:
    with watch:
        for _ in range(bench.scale.round_trips):
            bench.client.command("NOOP")
    return bench.scale.round_trips


@measure("NOOP, 90 in flight", "command")
def _noop_pipelined(bench: Bench, watch: Watch) -> float:
    turns = max(1, bench.scale.round_trips // 20)
    with watch:
        for _ in range(turns):
            bench.client.pipeline(["NOOP"] * 90)
    return turns * 90


@measure("NOOP, 90 in flight before login", "command")
def _noop_stranger(bench: Bench, watch: Watch) -> float:
    for _ in range(10):
        with bench.connect() as client, watch:
            client.pipeline(["NOOP"] * 90)
    return 10 * 90


def _mix(bench: Bench, client: Client, lot: random.Random, storing: bool) -> int:
    """Do what a client does when its user looks for mail ten times; say in how many commands."""
    count = client.select()
    expect("messages in INBOX", count, bench.scale.messages)
    for _ in range(10):
        first = lot.randint(1, max(1, count - 49))
        last = min(first + 49, count)
        answer = client.command(f"FETCH {first}:{last} (UID FLAGS ENVELOPE)")
        expect("envelopes", len(answer.fetched(b"ENVELOPE (")), last + 1 - first)
        answer = client.command(f"FETCH {lot.randint(first, last)} (BODY.PEEK[])")
        expect("bodies", len(answer.fetched(b"BODY[] {")), 1)
        if storing:
            client.command(rf"STORE {first} {lot.choice('+-')}FLAGS (\Flagged)")
        client.command("SEARCH UNSEEN").searched()
        client.command("NOOP")
    return 51 if storing else 41


def _mixed(name: str, storing: bool) -> None:
    """Add the row of many clients at once, all of one user and in one mailbox."""

    @measure(name, "command")
    def _load(bench: Bench, watch: Watch) -> float:
        scale = bench.scale
        done: list[int] = []
        failures: list[Exception] = []

        def one(client: Client, lot: random.Random) -> None:
            try:
                done.extend(_mix(bench, client, lot, storing) for _ in range(scale.turns))
            except (Wrong, OSError) as error:
                failures.append(error)

        with ExitStack() as stack:
            clients = [stack.enter_context(bench.session(None)) for _ in range(scale.clients)]
            threads = [
                threading.Thread(target=one, args=(client, random.Random(number)))
                for number, client in enumerate(clients)
            ]
            with watch:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        if failures:
            raise failures[0]
        return sum(done)


_mixed("mixed load of 20 clients, no STORE", storing=False)
_mixed("mixed load of 20 clients", storing=True)
