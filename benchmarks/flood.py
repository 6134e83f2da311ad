"""Floods servers with every kind of attack, and measures what it does to them and to two honest users.

    python -m benchmarks.flood --servers dovecot,imapshield --save results
    python -m benchmarks.flood --servers imapshield --attacks idle,password --connections 50 --seconds 3
    python -m benchmarks.flood --port 143 --user alice --password secret --pid PID

`benchmarks.flood_attacks` has the attacks, and `flood_measure.measure` is the interface for tests.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.client import ServerError
from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_chart import chart
from benchmarks.flood_measure import (
    Flood,
    Scale,
    Target,
    calm_down,
    measure,
    missing_capability,
)
from benchmarks.flood_report import (
    MARKER,
    Run,
    document,
    failed_visits,
    missed_goals,
    progress,
    tables,
)
from benchmarks.flood_servers import NAMES, Files, prepared, serve
from benchmarks.flood_swarm import SOURCES


def processors() -> tuple[int, int] | None:
    """Return the processor for servers, and the one for attackers and victims; None if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


@contextmanager
def pinned(processor: int | None) -> Iterator[None]:
    """Start processes on one processor during the `with` statement."""
    before = os.sched_getaffinity(0)
    if processor is not None:
        os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def attack_external(
    target: Target, attacks: Sequence[str], scales: Sequence[Scale], run: Run
) -> None:
    """Flood a server that somebody else has started, with one attack after another."""
    for attack in attacks:
        for scale in scales:
            if reason := missing_capability(target, attack):
                run.add(Flood(target.name, attack, scale.connections, skipped=reason))
            else:
                run.add(measure(target, attack, scale).finish())
            print(progress(run.floods[-1]), flush=True)


def attack_in_turn(
    servers: Sequence[str],
    attacks: Sequence[str],
    scales: Sequence[Scale],
    files: Files,
    options: Sequence[str],
    run: Run,
    server_processor: int | None,
) -> None:
    """Flood the servers in turn, one row of the table after another.

    A server waits for its last reading of memory while the next one is under attack, unless it is busy.
    """
    for attack in attacks:
        for scale in scales:
            with ThreadPoolExecutor(len(servers)) as pool:
                waiting = [
                    _attack_new(server, attack, scale, files, options, run, server_processor, pool)
                    for server in servers
                ]
                for future in waiting:
                    run.add(future.result())
                    print(progress(run.floods[-1]), flush=True)


def _attack_new(
    server: str,
    attack: str,
    scale: Scale,
    files: Files,
    options: Sequence[str],
    run: Run,
    processor: int | None,
    pool: ThreadPoolExecutor,
) -> Future[Flood]:
    """Start a server and flood it; the future waits until its memory is released, and stops it."""
    with ExitStack() as stack:
        extra = options if server.startswith("imapshield") else ()
        try:
            with pinned(processor):
                target = stack.enter_context(
                    serve(server, files, hashes=ATTACKS[attack].hashes, options=extra)
                )
            run.versions[server] = target.version
            if reason := missing_capability(target, attack):
                raise ServerError(reason)
            measurement = measure(target, attack, scale)
        except (ServerError, OSError, RuntimeError) as error:
            skipped = Flood(server, attack, scale.connections, skipped=str(error))
            return pool.submit(lambda: skipped)
        first, last = scale.released_after[0], scale.released_after[-1]
        measurement.wait_and_read(first)
        assert target.pid is not None
        calm_down(target.pid, last - first)
        rest = stack.pop_all()

    def finish() -> Flood:
        with rest:
            return measurement.finish()

    return pool.submit(finish)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="flood", description="Flood servers with attacks.")
    parser.add_argument("--servers", help=f"start these, and stop them: {', '.join(NAMES)}")
    parser.add_argument("--host", default="127.0.0.1", help="of a server that is running")
    parser.add_argument("--port", type=int, help="of a server that is running")
    parser.add_argument("--user", default="", help="a victim's name")
    parser.add_argument("--password", default="", help="of the victim and of the attackers")
    parser.add_argument("--attackers", default="", help="names of the attackers' accounts")
    parser.add_argument("--pid", type=int, help="process id of the server")
    parser.add_argument("--attacks", help=f"only these: {', '.join(ATTACKS)}")
    parser.add_argument("--connections", default="50,1000", help="default 50,1000")
    parser.add_argument("--seconds", type=float, default=8, help="duration of each attack")
    parser.add_argument("--quiet-seconds", type=float, default=3)
    parser.add_argument(
        "--released-after", default="5,30", help="seconds after which memory is read; default 5,30"
    )
    parser.add_argument("--sources", default=",".join(SOURCES), help="addresses of the attackers")
    parser.add_argument("--imapshield-options", default="", help="more options for imapshield")
    parser.add_argument("--save", type=Path, metavar="DIR", help="for JSON, tables and charts")
    parser.add_argument("--show", type=Path, metavar="FILE", help="JSON of a run to report again")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="with --show: update floods.rst")
    options = parser.parse_args()
    if bool(options.servers) + bool(options.port) + bool(options.show) != 1:
        parser.error("give one of --servers, --port and --show")
    unknown = set(_words(options.servers)) - set(NAMES) | set(_words(options.attacks)) - set(
        ATTACKS
    )
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def _words(text: str | None) -> list[str]:
    return text.split(",") if text else []


def main() -> int:
    """Flood the servers of the command line, and report."""
    options = _options()
    if options.show:
        run = Run.load(options.show)
        report(run, options.save)
        if options.docs:
            write_document(run, options.docs)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = processors()
    scales = [
        Scale(
            seconds=options.seconds,
            quiet_seconds=options.quiet_seconds,
            connections=int(count),
            sources=_words(options.sources),
            processor=chosen[1] if chosen else None,
            released_after=[int(seconds) for seconds in _words(options.released_after)],
        )
        for count in _words(options.connections)
    ]
    attacks = _words(options.attacks) or list(ATTACKS)
    run = Run.begin(shlex.join(["python", "-m", "benchmarks.flood", *sys.argv[1:]]), chosen)
    try:
        if options.servers:
            servers = _words(options.servers)
            with prepared(servers) as files:
                extra = shlex.split(options.imapshield_options)
                attack_in_turn(
                    servers, attacks, scales, files, extra, run, chosen[0] if chosen else None
                )
        else:
            target = Target(
                name=f"{options.host}:{options.port}",
                host=options.host,
                port=options.port,
                pid=options.pid,
                victims={"newcomer": options.user, "resident": options.user},
                attackers=_words(options.attackers),
                password=options.password,
            )
            attack_external(target, attacks, scales, run)
    finally:
        report(run, options.save)
    return 0


def report(run: Run, folder: Path | None) -> None:
    """Print the tables, and save them with the charts."""
    text = "\n".join([*tables(run), "", failed_visits(run), *missed_goals(run)])
    print(text)
    if folder and run.floods:
        folder.mkdir(parents=True, exist_ok=True)
        run.save(folder / "floods.json")
        (folder / "floods.txt").write_text(text + "\n")
        for count in run.sizes():
            (folder / f"floods-{count}.svg").write_text(chart(run, count))


def write_document(run: Run, folder: Path) -> None:
    """Replace the figures in ``floods.rst``, and the charts beside it."""
    path = folder / "floods.rst"
    before, marker, _ = path.read_text().partition(MARKER)
    if not marker:
        raise RuntimeError(f"{path} has no line {MARKER}")
    path.write_text("\n".join([before + marker, "", *document(run)]) + "\n")
    for count in run.sizes():
        (folder / f"floods-{count}.svg").write_text(chart(run, count))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:  # a server did not start; the text is its output
        sys.exit(str(error))
