"""The rows that change mail: APPEND, STORE, COPY, MOVE and EXPUNGE."""

from __future__ import annotations

from benchmarks.bench import Bench, Stopwatch, check_count
from benchmarks.report import Goal
from benchmarks.rows import measure


@measure("APPEND 5 KB, small mailbox", "message", goal=Goal(cpu=0.25))
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


@measure("STORE flags of all", "message", goal=Goal(cpu=1.2), warm=True)
def _store_all(bench: Bench, stopwatch: Stopwatch) -> float:
    client, count = bench.client, bench.scale.messages
    client.command(r"STORE 1:* -FLAGS.SILENT (\Flagged)")
    with stopwatch:
        responses = [client.command(rf"STORE 1:* {sign}FLAGS (\Flagged)") for sign in "+-"]
    for response in responses:
        check_count("responses", len(response.fetched(b"FLAGS (")), count)
    return 2 * count


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


@measure("COPY 1000", "message", goal=Goal(cpu=1.1))
def _copy(bench: Bench, stopwatch: Stopwatch) -> float:
    bulk = bench.scale.bulk
    with bench.session() as client, bench.scratch(client, "bench-copy"):
        with stopwatch:
            client.command(f"COPY 1:{bulk} bench-copy")
        check_count("copied", client.select("bench-copy"), bulk)
    return bulk


@measure("MOVE 1000", "message", goal=Goal(cpu=1.1))
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


@measure("EXPUNGE 1000", "message", goal=Goal(cpu=1.2))
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
