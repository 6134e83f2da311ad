"""The rows that read mail: SELECT, FETCH and SEARCH."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks import corpus, mail
from benchmarks.bench import Bench, Stopwatch, check_count
from benchmarks.client import Client
from benchmarks.report import NO_GOAL, Goal
from benchmarks.rows import measure

HEADER = "BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES CONTENT-TYPE)]"
WINDOW = 1000
PIECE = 16_384
"""Octets of one piece of a large attachment, as JavaMail fetches it."""


@measure("first SELECT", "message", goal=Goal(cpu=3), folder="cold-select")
def _first_select(bench: Bench, stopwatch: Stopwatch) -> float:
    with bench.session(None) as client:
        with stopwatch:
            found = client.select("cold-select")
        check_count("messages in the folder", found, bench.scale.messages)
    return found


@measure("first SELECT, and all background work", "message", folder="cold-background")
def _background(bench: Bench, stopwatch: Stopwatch) -> float:
    with bench.session(None) as client:
        with stopwatch:
            found = client.select("cold-background")
            bench.wait_idle()
        check_count("messages in the folder", found, bench.scale.messages)
    return found


@measure("SELECT again", "command")
def _select(bench: Bench, stopwatch: Stopwatch) -> float:
    with stopwatch:
        for _ in range(10):
            bench.client.select()
    return 10


def _fetch(
    name: str,
    items: str,
    text: bytes,
    *,
    first: Goal | None = None,
    cached: Goal = NO_GOAL,
    command: str = "FETCH",
) -> None:
    """Add a row for FETCH 1:*, and with `first` one for a folder that nobody has read before.

    Every response must contain `text`.
    """

    def fetch(client: Client, bench: Bench, stopwatch: Stopwatch) -> float:
        with stopwatch:
            response = client.command(f"{command} 1:* ({items})")
        found = response.fetched(text)
        check_count("responses", len(found), bench.scale.messages)
        check_count("last number", max(found), bench.scale.messages)
        return len(found)

    if first is not None:
        folder = "cold-" + "-".join(re.findall(r"\w+", name.lower()))

        @measure(f"first {command} {name}", "message", goal=first, folder=folder)
        def _first(bench: Bench, stopwatch: Stopwatch) -> float:
            with bench.session(folder) as client:
                return fetch(client, bench, stopwatch)

    @measure(f"{command} {name}", "message", goal=cached, warm=True)
    def _cached(bench: Bench, stopwatch: Stopwatch) -> float:
        return fetch(bench.client, bench, stopwatch)


_fetch("FLAGS", "FLAGS", b"FLAGS (", cached=Goal(cpu=1.8))
_fetch("FLAGS", "FLAGS", b"UID ", command="UID FETCH")
_fetch("ENVELOPE", "ENVELOPE", b"ENVELOPE (", first=Goal(cpu=1.0), cached=Goal(cpu=0.3))
_fetch(
    "BODYSTRUCTURE",
    "BODYSTRUCTURE",
    b"BODYSTRUCTURE (",
    first=Goal(cpu=1.5),
    cached=Goal(cpu=1.1),
)
_fetch("header fields", HEADER, b"BODY[HEADER.FIELDS ", first=Goal(cpu=1.0), cached=Goal(cpu=0.7))
_fetch("ENVELOPE BODYSTRUCTURE", "ENVELOPE BODYSTRUCTURE", b"BODYSTRUCTURE (", first=NO_GOAL)
_fetch("RFC822.SIZE INTERNALDATE", "RFC822.SIZE INTERNALDATE", b"INTERNALDATE ", first=NO_GOAL)


@measure("FETCH one random body", "command", goal=Goal(cpu=1.2), warm=True)
def _random_bodies(bench: Bench, stopwatch: Stopwatch) -> float:
    count, sizes = bench.scale.round_trips, bench.sizes
    numbers = bench.rng.choices(range(1, bench.scale.messages + 1), k=count)
    with stopwatch:
        responses = [bench.client.command(f"FETCH {n} (BODY.PEEK[])") for n in numbers]
    for number, response in zip(numbers, responses, strict=True):
        body = response.fetched(b"BODY[] {")[number]
        check_count(f"bytes of message {number}", len(body[1]), sizes[number])
    return count


@measure("FETCH 16 KiB of 24 MB", "command", goal=Goal(cpu=1.5), warm=True, big=True)
def _pieces(bench: Bench, stopwatch: Stopwatch) -> float:
    pieces = max(20, bench.scale.round_trips // 10)
    starts = range(0, mail.BIG_ATTACHMENT - PIECE, mail.BIG_ATTACHMENT // pieces)
    with bench.session(mail.BIG) as client:
        with stopwatch:
            responses = [
                client.command(f"FETCH 1 (BODY.PEEK[2]<{start}.{PIECE}>)") for start in starts
            ]
        for start, response in zip(starts, responses, strict=True):
            piece = response.fetched(b"BODY[2]<%d> {" % start)[1]
            check_count(f"bytes of the piece at {start}", len(piece[1]), PIECE)
    return len(starts)


@measure("FETCH all bodies", "MB", goal=Goal(cpu=1.0), warm=True)
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


def _search(
    name: str,
    key: str,
    matches: Callable[[int, int], bool],
    goal: Goal = NO_GOAL,
    folder: str = "",
    cache: str = "",
) -> None:
    """Add a row for a SEARCH, which must find the messages for whose index and seed `matches` is true.

    With `folder` it is the first command in that folder, or the second, after FETCH of the item `cache`.
    """

    def search(client: Client, bench: Bench, stopwatch: Stopwatch) -> float:
        if cache:
            client.command(f"FETCH 1:* ({cache})")
        with stopwatch:
            found = client.command(f"SEARCH {key}").searched()
        count, seed = bench.scale.messages, bench.scale.seed
        check_count("found", len(found), sum(matches(index, seed) for index in range(count)))
        return count

    @measure(f"SEARCH {name}", "message", goal=goal, warm=not folder, folder=folder)
    def _searched(bench: Bench, stopwatch: Stopwatch) -> float:
        if not folder:
            return search(bench.client, bench, stopwatch)
        with bench.session(folder) as client:
            return search(client, bench, stopwatch)


def _is_unseen(index: int, seed: int) -> bool:
    return "S" not in corpus.flags(index, seed)


def _has_sender(index: int, _: int) -> bool:
    return corpus.planted(index).sender


def _has_body(index: int, _: int) -> bool:
    return corpus.planted(index).body


_FROM = f"FROM {corpus.PLANTED_FROM[0]}"
_BODY = corpus.PLANTED_BODY[0]
_search("UNSEEN", "UNSEEN", _is_unseen, Goal(cpu=1.5))
# 60 us for each of 10,000 messages are 600 ms.
_search("FROM, nothing cached", _FROM, _has_sender, Goal(cpu=3, limit=60e-6), folder="cold-search")
_search(
    "FROM, ENVELOPE cached",
    _FROM,
    _has_sender,
    Goal(cpu=3),
    folder="cold-search-cached",
    cache="ENVELOPE",
)
_search("FROM again", _FROM, _has_sender, Goal(cpu=0.3))
_search(
    "SUBJECT",
    f"SUBJECT {corpus.PLANTED_SUBJECT[0]}",
    lambda index, _: corpus.planted(index).subject,
)
_search("BODY", f"BODY {_BODY}", _has_body)
# 30 ms for 10,000 messages; for 100,000 half as much each.
_search("TEXT", f"TEXT {_BODY}", _has_body, Goal(cpu=0.02, limit=3e-6))
