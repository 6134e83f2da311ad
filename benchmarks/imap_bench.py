"""Measure one IMAP server on loopback: time, CPU and memory a message, a command, a connection.

    python -m benchmarks.imap_bench --port 1143 --user alice --password secret \\
        --pid PID --maildir /srv/mail/alice --json shield.json

`--maildir` fills that Maildir before anybody logs in, and is needed for the cold rows. Without it
the mailbox is filled by APPEND.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import corpus
from benchmarks.client import Client, Wrong
from benchmarks.measures import COLD, MEASURES, Bench, Measure, Scale, Target, Watch
from benchmarks.processes import memory
from benchmarks.report import Holding, MessageRow, Report, table


@contextmanager
def progress(text: str, quiet_seconds: float = 2) -> Iterator[None]:
    """Say on stderr what is going on, if it goes on for longer than `quiet_seconds`."""

    def say() -> None:
        print(f"… {text}", file=sys.stderr, flush=True)

    timer = threading.Timer(quiet_seconds, say)
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
    """Lift the limit of open files to what the system allows; servers started later inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fill(maildir: Path, scale: Scale) -> None:
    """Write the corpus into an empty Maildir, and into one folder for each of the cold rows.

    The folders share the files by hard links. A server that runs may be up already: this is how
    delivery agents work.
    """
    with progress(f"writing {scale.messages} messages"):
        corpus.write_maildir(maildir, scale.messages, scale.seed)
    with progress("linking the folders for the cold rows"):
        for name in COLD:
            folder = maildir / f".cold-{name}"
            link(maildir, folder)
            (folder / "maildirfolder").touch()


def link(source: Path, target: Path) -> None:
    """Make `target` a Maildir of the same messages as `source`, without its folders."""
    for part in ("tmp", "new", "cur"):
        (target / part).mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(source / part):
            os.link(entry.path, target / part / entry.name)


def fill_by_append(bench: Bench) -> None:
    """APPEND what INBOX lacks of the corpus."""
    scale = bench.scale
    letters = {"S": r"\Seen", "R": r"\Answered", "F": r"\Flagged"}
    with bench.session() as client, progress("appending the corpus"):
        for index in range(client.select(), scale.messages):
            flags = " ".join(letters[letter] for letter in corpus.flags(index, scale.seed))
            client.append("INBOX", corpus.message(index, scale.seed), flags)


def run(benches: Sequence[tuple[Bench, Report]], only: str = "") -> None:
    """Measure every row on every server, taking turns round by round; fills the reports."""
    for measure in MEASURES:
        if not re.search(only, measure.name, re.IGNORECASE):
            continue
        rows = [(bench, MessageRow(measure.name, measure.unit)) for bench, _ in benches]
        for (_, report), (bench, row) in zip(benches, rows, strict=True):
            if bench.cold_folders or not measure.cold:
                report.rows.append(row)
        with progress(measure.name):
            _take_turns(
                measure, [(b, row) for b, row in rows if b.cold_folders or not measure.cold]
            )


def _take_turns(measure: Measure, rows: Sequence[tuple[Bench, MessageRow]]) -> None:
    spent = dict.fromkeys(range(len(rows)), 0.0)
    rounds = 1 if measure.cold else max(bench.scale.rounds for bench, _ in rows) if rows else 0
    for number in range(-1 if measure.warm else 0, rounds):
        for place, (bench, row) in enumerate(rows):
            if row.failed or (row.cpu and spent[place] > bench.scale.patience):
                continue
            watch = Watch(bench.target.pid)
            started = time.monotonic()
            try:
                units = measure.round(bench, watch)
            except (Wrong, OSError) as error:
                row.failed = str(error) or type(error).__name__
                bench.forget()
                continue
            spent[place] += time.monotonic() - started
            if number >= 0 and units:
                row.cpu.append(watch.cpu / units)
                row.wall.append(watch.wall / units)


def measure_memory(bench: Bench) -> list[Holding]:
    """Measure what idle connections hold: INBOX selected, then the same ones in IDLE.

    Half as many are opened before, uncounted: a heap that has loaded the mailbox once has room for
    hundreds of sessions, and without them a server of one process would look half as big as it is.
    """
    count, target = bench.scale.idle, bench.target
    names = (f"one of {count} idle, INBOX selected", f"one of {count} in IDLE")
    clients: list[Client] = []
    holdings: list[Holding] = []

    def open_until(total: int) -> None:
        while len(clients) < total:
            clients.append(client := bench.connect())
            client.login(target.user, target.password)
            client.select()

    def note(name: str) -> None:
        time.sleep(1)
        now = memory(target.pid)
        private = (now.private - before.private) / count
        holdings.append(Holding(name, private, (now.pss - before.pss) / count))

    try:
        with progress(f"{count} idle connections"):
            open_until(count // 2)
            time.sleep(1)
            before = memory(target.pid)
            open_until(count // 2 + count)
            note(names[0])
            for client in clients[count // 2 :]:
                client.idle()
            note(names[1])
    except (Wrong, OSError) as error:
        failed = f"after {len(clients)} connections: {error or type(error).__name__}"
        holdings += [Holding(name, 0, 0, failed) for name in names[len(holdings) :]]
    finally:
        for client in clients:
            client.close()
    return holdings


def scale_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `scale_from` reads."""
    parser.add_argument("--messages", type=int, default=10_000, help="in the mailbox")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer connections")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose names match")
    parser.add_argument("--no-memory", action="store_true", help="leave out the idle connections")


def scale_from(options: argparse.Namespace) -> Scale:
    """Make the scale that the command line asks for."""
    return Scale.quick(options.messages) if options.quick else Scale(messages=options.messages)


def main() -> int:
    """Measure the server that the command line tells; 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="imap_bench", description="Measure one IMAP server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--pid", type=int, required=True, help="the server's first process")
    parser.add_argument("--maildir", type=Path, help="the user's, empty: it is filled")
    parser.add_argument("--name", default="server", help="for the table")
    parser.add_argument("--json", type=Path, metavar="FILE")
    scale_options(parser)
    options = parser.parse_args()
    raise_descriptors()
    scale = scale_from(options)
    target = Target(options.host, options.port, options.user, options.password, options.pid)
    bench = Bench(target, scale, cold_folders=bool(options.maildir))
    report = Report(options.name, "", scale.messages)
    if options.maildir:
        if any((options.maildir / "cur").glob("*")):
            parser.error(f"{options.maildir} is not empty")
        fill(options.maildir, scale)
    else:
        fill_by_append(bench)
    if not options.no_memory:
        report.memory = measure_memory(bench)
    run([(bench, report)], options.only)
    if options.json:
        report.save(options.json)
    print(table([report]))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
