"""The rows of the table: one function for each, which also checks that the responses are complete.

A function does one round. It puts what is measured into `with stopwatch:`, and returns the number of units
(messages, commands, megabytes) in there. Code outside of the `with` is preparation. A `ServerError` becomes a
line of the report, and the run continues with the next row.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import corpus
from benchmarks.bench import Bench, Stopwatch, check_count
from benchmarks.client import Client, ServerError

HEADER = "BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES CONTENT-TYPE)]"
COLD = ("select", "envelope", "structure", "both", "header", "size")
WINDOW = 1000


Round = Callable[[Bench, Stopwatch], float]


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table.

    Attributes:
        name: the name of the row; reports are compared by it.
        unit: what one figure is for, such as a message.
        round: does one round.
        warm: a first round is discarded.
        cold: only one round is possible, in a folder that has not been read before.
    """

    name: str
    unit: str
    round: Round
    warm: bool = False
    cold: bool = False


MEASURES: list[Measure] = []


def measure(
    name: str, unit: str, *, warm: bool = False, cold: bool = False
) -> Callable[[Round], Round]:
    """Add a function that does one round to `MEASURES`."""

    def add(function: Round) -> Round:
        MEASURES.append(Measure(name, unit, function, warm, cold))
        return function

    return add


@measure("connect, LOGIN, SELECT, LOGOUT", "session", warm=True)
def _sessions(bench: Bench, stopwatch: Stopwatch) -> float:
    with stopwatch:
        for _ in range(bench.scale.sessions):
            with bench.connect() as client:
                client.login(bench.target.user, bench.target.password)
                found = client.select()
                client.logout()
    check_count("messages in INBOX", found, bench.scale.messages)
    return bench.scale.sessions


@measure("SELECT, mailbox never seen before", "message", cold=True)
def _first_select(bench: Bench, stopwatch: Stopwatch) -> float:
    with bench.session(None) as client:
        with stopwatch:
            found = client.select("cold-select")
        check_count("messages in the folder", found, bench.scale.messages)
    return found


@measure("SELECT again", "command")
def _select(bench: Bench, stopwatch: Stopwatch) -> float:
    with stopwatch:
        for _ in range(10):
            bench.client.select()
    return 10


def _fetch(name: str, items: str, text: bytes, folder: str = "", command: str = "FETCH") -> None:
    """Add a row for FETCH 1:*, and one for the cold folder if `folder` names one.

    Every response must contain `text`.
    """

    def fetch(client: Client, bench: Bench, stopwatch: Stopwatch) -> float:
        with stopwatch:
            response = client.command(f"{command} 1:* ({items})")
        found = response.fetched(text)
        check_count("responses", len(found), bench.scale.messages)
        check_count("last number", max(found), bench.scale.messages)
        return len(found)

    if folder:

        @measure(f"{command} {name}, cold", "message", cold=True)
        def _cold(bench: Bench, stopwatch: Stopwatch) -> float:
            with bench.session(f"cold-{folder}") as client:
                return fetch(client, bench, stopwatch)

    @measure(f"{command} {name}", "message", warm=True)
    def _warm(bench: Bench, stopwatch: Stopwatch) -> float:
        return fetch(bench.client, bench, stopwatch)


_fetch("FLAGS", "FLAGS", b"FLAGS (")
_fetch("FLAGS", "FLAGS", b"UID ", command="UID FETCH")
_fetch("ENVELOPE", "ENVELOPE", b"ENVELOPE (", "envelope")
_fetch("BODYSTRUCTURE", "BODYSTRUCTURE", b"BODYSTRUCTURE (", "structure")
_fetch("ENVELOPE BODYSTRUCTURE", "ENVELOPE BODYSTRUCTURE", b"BODYSTRUCTURE (", "both")
_fetch("header fields", HEADER, b"BODY[HEADER.FIELDS ", "header")
_fetch("RFC822.SIZE INTERNALDATE", "RFC822.SIZE INTERNALDATE", b"INTERNALDATE ", "size")


@measure("FETCH whole bodies", "MB")
def _bodies(bench: Bench, stopwatch: Stopwatch) -> float:
    total, sizes = 0, bench.sizes
    for first in range(1, bench.scale.messages + 1, WINDOW):
        last = min(first + WINDOW - 1, bench.scale.messages)
        with stopwatch:
            response = bench.client.command(f"FETCH {first}:{last} (BODY.PEEK[])")
        bodies = response.fetched(b"BODY[] {")
        check_count("bodies", len(bodies), last + 1 - first)
        for number, parts in bodies.items():
            check_count(f"bytes of message {number}", len(parts[1]), sizes[number])
            total += len(parts[1])
    return total / 1e6


def _search(name: str, key: str, matches: Callable[[int, int], bool]) -> None:
    """Add a row for a SEARCH, which must find the messages for whose index and seed `matches` is true."""

    @measure(f"SEARCH {name}", "message", warm=True)
    def _searched(bench: Bench, stopwatch: Stopwatch) -> float:
        with stopwatch:
            found = bench.client.command(f"SEARCH {key}").searched()
        count, seed = bench.scale.messages, bench.scale.seed
        check_count("found", len(found), sum(matches(index, seed) for index in range(count)))
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
def _append(bench: Bench, stopwatch: Stopwatch) -> float:
    with bench.session() as client, bench.scratch(client, "bench-append"):
        with stopwatch:
            for data in bench.mid_size_messages:
                client.append("bench-append", data, r"\Seen")
        check_count("appended", client.select("bench-append"), len(bench.mid_size_messages))
    return len(bench.mid_size_messages)


@measure("APPEND 5 KB, into the full INBOX", "message")
def _append_inbox(bench: Bench, stopwatch: Stopwatch) -> float:
    client, messages = bench.client, bench.scale.messages
    try:
        with stopwatch:
            for data in bench.mid_size_messages:
                client.append("INBOX", data, r"\Seen")
    finally:
        count = client.select()
        if count > messages:
            client.command(rf"STORE {messages + 1}:* +FLAGS.SILENT (\Deleted)")
            client.command("EXPUNGE")
    check_count("appended", count - messages, len(bench.mid_size_messages))
    return len(bench.mid_size_messages)


@measure("STORE flags, 1:1000", "message")
def _store_many(bench: Bench, stopwatch: Stopwatch) -> float:
    client, bulk = bench.client, bench.scale.bulk
    client.command(rf"STORE 1:{bulk} -FLAGS.SILENT (\Flagged)")
    with stopwatch:
        responses = [client.command(rf"STORE 1:{bulk} {sign}FLAGS (\Flagged)") for sign in "+-"]
    for response in responses:
        check_count("responses", len(response.fetched(b"FLAGS (")), bulk)
    return 2 * bulk


@measure("STORE flags, one message", "command")
def _store_one(bench: Bench, stopwatch: Stopwatch) -> float:
    count = min(bench.scale.round_trips // 5, bench.scale.messages)
    numbers = bench.rng.sample(range(1, bench.scale.messages + 1), count)
    # Setting a flag that is set already is no work, and Dovecot sends no FETCH response for it.
    bench.client.command(r"STORE 1:* -FLAGS.SILENT (\Flagged)")
    with stopwatch:
        for number in numbers:
            response = bench.client.command(rf"STORE {number} +FLAGS (\Flagged)")
            check_count("responses", len(response.fetched(b"FLAGS (")), 1)
    return len(numbers)


@measure("COPY 1000", "message")
def _copy(bench: Bench, stopwatch: Stopwatch) -> float:
    bulk = bench.scale.bulk
    with bench.session() as client, bench.scratch(client, "bench-copy"):
        with stopwatch:
            client.command(f"COPY 1:{bulk} bench-copy")
        check_count("copied", client.select("bench-copy"), bulk)
    return bulk


@measure("MOVE 1000", "message")
def _move(bench: Bench, stopwatch: Stopwatch) -> float:
    bulk = bench.scale.bulk
    with bench.session() as client, bench.scratch(client, "bench-copy", "bench-moved"):
        client.command(f"COPY 1:{bulk} bench-copy")
        check_count("copied", client.select("bench-copy"), bulk)
        with stopwatch:
            response = client.command("MOVE 1:* bench-moved")
        check_count("expunged", response.count(b"EXPUNGE"), bulk)
        check_count("moved", client.select("bench-moved"), bulk)
    return bulk


@measure("EXPUNGE 1000", "message")
def _expunge(bench: Bench, stopwatch: Stopwatch) -> float:
    bulk = bench.scale.bulk
    with bench.session() as client, bench.scratch(client, "bench-copy"):
        client.command(f"COPY 1:{bulk} bench-copy")
        check_count("copied", client.select("bench-copy"), bulk)
        client.command(r"STORE 1:* +FLAGS.SILENT (\Deleted)")
        with stopwatch:
            response = client.command("EXPUNGE")
        check_count("expunged", response.count(b"EXPUNGE"), bulk)
    return bulk


@measure("NOOP, round trips", "command")
def _noop(bench: Bench, stopwatch: Stopwatch) -> float:
    with stopwatch:
        for _ in range(bench.scale.round_trips):
            bench.client.command("NOOP")
    return bench.scale.round_trips


@measure("NOOP, 90 in flight", "command")
def _noop_pipelined(bench: Bench, stopwatch: Stopwatch) -> float:
    batches = max(1, bench.scale.round_trips // 20)
    with stopwatch:
        for _ in range(batches):
            bench.client.pipeline(["NOOP"] * 90)
    return batches * 90


@measure("NOOP, 90 in flight before login", "command")
def _noop_before_login(bench: Bench, stopwatch: Stopwatch) -> float:
    for _ in range(10):
        with bench.connect() as client, stopwatch:
            client.pipeline(["NOOP"] * 90)
    return 10 * 90


def _mix(bench: Bench, client: Client, rng: random.Random, storing: bool) -> int:
    """Do what a client does whose user looks for mail ten times; return the number of commands."""
    count = client.select()
    check_count("messages in INBOX", count, bench.scale.messages)
    for _ in range(10):
        first = rng.randint(1, max(1, count - 49))
        last = min(first + 49, count)
        response = client.command(f"FETCH {first}:{last} (UID FLAGS ENVELOPE)")
        check_count("envelopes", len(response.fetched(b"ENVELOPE (")), last + 1 - first)
        response = client.command(f"FETCH {rng.randint(first, last)} (BODY.PEEK[])")
        check_count("bodies", len(response.fetched(b"BODY[] {")), 1)
        if storing:
            client.command(rf"STORE {first} {rng.choice('+-')}FLAGS (\Flagged)")
        client.command("SEARCH UNSEEN").searched()
        client.command("NOOP")
    return 51 if storing else 41


def _mixed(name: str, storing: bool) -> None:
    """Add a row for many clients at once, all of one user and in one mailbox."""

    @measure(name, "command")
    def _load(bench: Bench, stopwatch: Stopwatch) -> float:
        scale = bench.scale
        done: list[int] = []
        failures: list[Exception] = []

        def work(client: Client, rng: random.Random) -> None:
            try:
                done.extend(_mix(bench, client, rng, storing) for _ in range(scale.repetitions))
            except (ServerError, OSError) as error:
                failures.append(error)

        with ExitStack() as stack:
            clients = [stack.enter_context(bench.session(None)) for _ in range(scale.clients)]
            threads = [
                threading.Thread(target=work, args=(client, random.Random(number)))
                for number, client in enumerate(clients)
            ]
            with stopwatch:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        if failures:
            raise failures[0]
        return sum(done)


_mixed("mixed load of 20 clients, no STORE", storing=False)
_mixed("mixed load of 20 clients", storing=True)
