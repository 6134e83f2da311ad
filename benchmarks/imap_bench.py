"""Measures one IMAP server on loopback: time, CPU and memory for each message, command and connection.

    python -m benchmarks.imap_bench --port 1143 --user alice --password secret \\
        --pid PID --maildir /srv/mail/alice --json shield.json

`--maildir` fills that Maildir before the first login, and is required for the cold rows. Without it the
mailbox is filled by APPEND.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import corpus, mail
from benchmarks.bench import Bench, Scale, Stopwatch, Target, check_count
from benchmarks.client import Client, ServerError
from benchmarks.measures import MEASURES
from benchmarks.processes import MemoryUse, cpu, machine_cpu, memory
from benchmarks.report import NO_GOAL, ConnectionMemory, Goal, Report, Row, table
from benchmarks.rows import Measure

PER_USER = 10
"""Idle connections of each user."""
REST_SECONDS = 12
"""Seconds after which a server has freed what idle clients do not need: imapshield does so after ten."""
MEMORY_GOAL = Goal(cpu=0.06)


@contextmanager
def progress(text: str, quiet_seconds: float = 2) -> Iterator[None]:
    """Report a step and its duration on stderr if it takes longer than `quiet_seconds`."""

    def report() -> None:
        print(f"… {text}", file=sys.stderr, flush=True)

    timer = threading.Timer(quiet_seconds, report)
    timer.daemon = True
    started = time.monotonic()
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if (spent := time.monotonic() - started) > quiet_seconds:
            print(f"  {text}: {spent:.1f} s", file=sys.stderr, flush=True)


def raise_descriptors() -> None:
    """Raise the limit of open files to the hard limit; servers that are started later inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def chosen(options: argparse.Namespace) -> tuple[list[Measure], list[str]]:
    """Return the rows that the command line selects, and lines about those of them that are left out."""
    measures = [
        measure
        for measure in MEASURES
        if re.search(options.only, measure.name, re.IGNORECASE)
        and (options.scale or not measure.seldom)
    ]
    missing = [each for each in measures if each.program and shutil.which(each.program) is None]
    lines = [f"LEFT OUT {each.name}: {each.program} is not on PATH" for each in missing]
    return [each for each in measures if each not in missing], lines


def fill_by_append(bench: Bench) -> None:
    """APPEND the messages of the corpus that INBOX does not have."""
    scale = bench.scale
    flag_names = {"S": r"\Seen", "R": r"\Answered", "F": r"\Flagged"}
    with bench.session() as client, progress("appending the corpus"):
        for index in range(client.select(), scale.messages):
            flags = " ".join(flag_names[letter] for letter in corpus.flags(index, scale.seed))
            client.append("INBOX", corpus.message(index, scale.seed), flags)


def run(benches: Sequence[tuple[Bench, Report]], measures: Iterable[Measure]) -> None:
    """Measure rows on every server, alternating between servers in each round, and fill the reports."""
    for measure in measures:
        rows = []
        for bench, report in benches:
            if measure.possible(bench):
                report.rows.append(Row(measure.name, measure.unit, goal=measure.goal))
                rows.append((bench, report.rows[-1]))
        busy, own, started = machine_cpu(), cpu(os.getpid()), time.monotonic()
        _run_rounds(measure, rows)
        busy, own = machine_cpu() - busy, cpu(os.getpid()) - own
        others = max(0.0, busy - own) / (time.monotonic() - started)
        for _, row in rows:
            row.others = others
        print(f"{measure.name}: {' / '.join(row.text() for _, row in rows)}", file=sys.stderr)


def _run_rounds(measure: Measure, rows: Sequence[tuple[Bench, Row]]) -> None:
    spent = [0.0] * len(rows)
    rounds = min(measure.rounds, *(bench.scale.rounds for bench, _ in rows)) if rows else 0
    for bench, _ in rows:
        bench.wait_idle()
    for number in range(-1 if measure.warm else 0, rounds):
        for index, (bench, row) in enumerate(rows):
            if row.failed or (row.cpu and spent[index] > bench.scale.row_seconds):
                continue
            stopwatch = Stopwatch(bench.target.pid)
            started = time.monotonic()
            try:
                units = measure.round(bench, stopwatch)
            except (ServerError, OSError) as error:
                row.failed = str(error) or type(error).__name__
                bench.drop_client()
                continue
            spent[index] += time.monotonic() - started
            if number >= 0 and units:
                row.cpu.append(stopwatch.cpu / units)
                row.wall.append(stopwatch.wall / units)


def measure_memory(bench: Bench) -> list[ConnectionMemory]:
    """Measure the memory of idle connections: with INBOX selected, and then in IDLE.

    Half as many are opened before and not counted. A heap that has loaded the mailbox once has free space for
    hundreds of sessions, and without them a server of one process would seem to need half as much.
    """
    count, target = bench.scale.idle, bench.target
    users = bench.users or [target.user]
    whose = "10 of each user" if bench.users else "all of one user"
    names = (f"one of {count} idle, INBOX selected, {whose}", f"one of {count} in IDLE")
    clients: list[Client] = []
    results: list[ConnectionMemory] = []

    def open_until(total: int) -> None:
        while len(clients) < total:
            user = users[len(clients) // PER_USER % len(users)]
            clients.append(client := bench.connect())
            client.login(user, target.password)
            client.select()

    def rested() -> MemoryUse:
        bench.wait_idle()
        time.sleep(REST_SECONDS)
        return memory(target.pid)

    def record(name: str) -> None:
        now = rested()
        private = (now.private - before.private) / count
        goal = MEMORY_GOAL if bench.users else NO_GOAL
        results.append(ConnectionMemory(name, private, (now.pss - before.pss) / count, goal=goal))

    try:
        with progress(f"{count} idle connections"):
            open_until(count // 2)
            before = rested()
            open_until(count // 2 + count)
            record(names[0])
            for client in clients[count // 2 :]:
                client.idle()
            record(names[1])
    except (ServerError, OSError) as error:
        failed = f"after {len(clients)} connections: {error or type(error).__name__}"
        results += [ConnectionMemory(name, 0, 0, failed) for name in names[len(results) :]]
    finally:
        for client in clients:
            client.close()
    return results


def measure_selected(bench: Bench, when: str) -> ConnectionMemory:
    """Measure the memory of a mailbox with all messages that a session has selected; each user has one.

    Args:
        bench: the server.
        when: "first SELECT", or that the server has an index already.
    """
    count, target = bench.scale.selected, bench.target
    name = f"one of {count} selected mailboxes of {bench.scale.messages:,} messages, {when}"
    clients: list[Client] = []

    def select(user: str) -> None:
        clients.append(client := bench.connect())
        client.login(user, target.password)
        check_count("messages", client.select(mail.SELECTED), bench.scale.messages)

    try:
        with progress(name):
            select(bench.users[0])  # The code that it needs is loaded.
            before = memory(target.pid)
            for user in bench.users[1 : count + 1]:
                select(user)
            time.sleep(1)
            now = memory(target.pid)
    except (ServerError, OSError) as error:
        return ConnectionMemory(name, 0, 0, str(error) or type(error).__name__)
    finally:
        for client in clients:
            client.close()
    return ConnectionMemory(
        name, (now.private - before.private) / count, (now.pss - before.pss) / count
    )


def scale_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `scale_from` needs."""
    parser.add_argument("--messages", type=int, default=10_000, help="in the mailbox")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer connections")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="measure only the rows whose names match"
    )
    parser.add_argument(
        "--scale",
        action="store_true",
        help="add rows with 100 and 100,000 messages, 1 and 1,000 clients, and many selected mailboxes",
    )
    parser.add_argument(
        "--selected", type=int, metavar="N", help="how many selected mailboxes, with --scale"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the idle connections")


def scale_from(options: argparse.Namespace) -> Scale:
    """Return the `Scale` that the command line selects."""
    scale = Scale.quick(options.messages) if options.quick else Scale(messages=options.messages)
    return replace(scale, selected=options.selected or scale.selected)


def main() -> int:
    """Measure the server of the command line; return 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="imap_bench", description="Measure one IMAP server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--pid", type=int, required=True, help="process id of the server")
    parser.add_argument("--maildir", type=Path, help="the user's empty Maildir, which is filled")
    parser.add_argument("--name", default="server", help="the name in the table")
    parser.add_argument("--json", type=Path, metavar="FILE")
    scale_options(parser)
    options = parser.parse_args()
    raise_descriptors()
    scale = scale_from(options)
    target = Target(options.host, options.port, options.user, options.password, options.pid)
    measures, left_out = chosen(options)
    bench = Bench(target, scale, folders=bool(options.maildir))
    report = Report(options.name, "", scale.messages)
    if options.maildir:
        if any((options.maildir / "cur").glob("*")):
            parser.error(f"{options.maildir} is not empty")
        # The server may be running: delivery agents write in the same way.
        with progress(f"writing {scale.messages} messages"):
            corpus.write_maildir(options.maildir, scale.messages, scale.seed)
            mail.link_folders(options.maildir, options.maildir, measures)
    else:
        fill_by_append(bench)
    if not options.no_memory:
        report.memory = measure_memory(bench)
    run([(bench, report)], measures)
    if options.json:
        report.save(options.json)
    print("\n".join([table([report]), *left_out]))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
