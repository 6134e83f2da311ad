"""The rows about connections and NOOP."""

from __future__ import annotations

from benchmarks.bench import Bench, Stopwatch, check_count
from benchmarks.report import Goal
from benchmarks.rows import measure


@measure("NOOP, round trips", "command", goal=Goal(cpu=1.5), warm=True, reference=True)
def _noop(bench: Bench, stopwatch: Stopwatch) -> float:
    with stopwatch:
        for _ in range(bench.scale.round_trips):
            bench.client.command("NOOP")
    return bench.scale.round_trips


@measure("NOOP, 50 in flight", "command", goal=Goal(cpu=2.5), warm=True, reference=True)
def _noop_pipelined(bench: Bench, stopwatch: Stopwatch) -> float:
    batches = max(1, bench.scale.round_trips // 20)
    with stopwatch:
        for _ in range(batches):
            bench.client.pipeline(["NOOP"] * 50)
    return batches * 50


@measure("NOOP, 50 in flight before login", "command", reference=True)
def _noop_before_login(bench: Bench, stopwatch: Stopwatch) -> float:
    for _ in range(10):
        with bench.connect() as client, stopwatch:
            client.pipeline(["NOOP"] * 50)
    return 10 * 50


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


@measure("connect, LOGIN", "session", goal=Goal(cpu=0.08), warm=True)
def _logins(bench: Bench, stopwatch: Stopwatch) -> float:
    with stopwatch:
        for _ in range(bench.scale.sessions):
            with bench.connect() as client:
                client.login(bench.target.user, bench.target.password)
    return bench.scale.sessions
