"""Measures several servers in one run, on the same mail, in alternation, and prints one table.

python -m benchmarks.run --servers dovecot,imapshield --messages 10000 --quick
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import mail, peers
from benchmarks.bench import Bench, Scale, Target
from benchmarks.imap_bench import (
    PER_USER,
    chosen,
    measure_memory,
    measure_selected,
    progress,
    raise_descriptors,
    run,
    scale_from,
    scale_options,
)
from benchmarks.report import ConnectionMemory, Report, table
from benchmarks.rows import Measure


def prepare(
    root: Path,
    corpus: Path,
    names: list[str],
    scale: Scale,
    measures: Sequence[Measure],
    users: int,
    selected: int,
) -> dict[str, Path]:
    """Write the corpus, and hard-link it into a mail root for each server; return the mail roots by name."""
    with progress(f"writing {scale.messages} messages"):
        mail.write_corpus(corpus, scale.messages, scale.seed)
    roots = {name: root / name for name in names}
    for name, folder in roots.items():
        if name == peers.NOOP:
            continue
        with progress(f"linking the mail of {name}"):
            mail.link(corpus, folder / peers.USER)
            mail.link_folders(corpus, folder / peers.USER, measures)
            mail.link_users(corpus, folder, mail.user_names(users))
            mail.link_selected(corpus, folder, mail.user_names(selected))
    with progress("changing the owner of the mail"):
        peers.change_owner(root)
    return roots


def bench_of(peer: peers.Peer, scale: Scale, users: int) -> Bench:
    """Return the `Bench` of a running server."""
    target = Target(peer.host, peer.port, peer.user, peer.password, peer.pid)
    reference = peer.name == peers.NOOP
    return Bench(target, scale, folders=True, users=mail.user_names(users), reference=reference)


def memory_of(
    name: str, root: Path, settings: peers.Settings, scale: Scale, users: int, selected: bool
) -> list[ConnectionMemory]:
    """Measure memory in new processes with an existing index, as an operator has them."""
    with peers.start_with(name, root, settings) as peer, ExitStack() as stack:
        bench = bench_of(peer, scale, users)
        for (
            user
        ) in bench.users:  # all at once: imapshield indexes mail while its user has a session
            client = stack.enter_context(bench.connect())
            client.login(user, bench.target.password)
            client.select()
        bench.wait_idle()
    with peers.start_with(name, root, settings) as peer:
        entries = measure_memory(bench_of(peer, scale, users))
    for when in ("first SELECT", "with an index") if selected else ():
        with peers.start_with(name, root, settings) as peer:
            entries.append(measure_selected(bench_of(peer, scale, users), when))
    return entries


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="run", description="Measure IMAP servers in one run.")
    parser.add_argument("--servers", default="dovecot,imapshield,noop", help=", ".join(peers.NAMES))
    parser.add_argument(
        "--imapshield-options", default="", help="more options for its command line"
    )
    parser.add_argument(
        "--other", type=Path, metavar="TWISTD", help="twistd of another imapshield to measure too"
    )
    parser.add_argument("--directory", type=Path, help="where to store the mail (default: TMPDIR)")
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help="where to write a JSON file for each server"
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="FOLDER", help="where to keep the messages for the next run"
    )
    scale_options(parser)
    return parser


def main() -> int:
    """Measure the servers of the command line; return 1 if a row failed."""
    parser = arguments()
    options = parser.parse_args()
    names = options.servers.split(",")
    if options.other is not None:
        peers.add_imapshield("other", options.other)
        names.append("other")
    if unknown := set(names) - {*peers.NAMES, "other"}:
        parser.error(f"unknown server: {', '.join(unknown)}; choose from {', '.join(peers.NAMES)}")
    extra = shlex.split(options.imapshield_options)
    scale, (measures, left_out) = scale_from(options), chosen(options)
    selected = 0 if options.no_memory or not options.scale else scale.selected + 1
    users = max(measure.users for measure in measures) if measures else 0
    if not options.no_memory:
        users = max(users, selected, scale.idle * 3 // 2 // PER_USER)
    raise_descriptors()
    # On SIGTERM the servers are stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Path(tempfile.mkdtemp(prefix="imap-bench-", dir=options.directory))
    root.chmod(0o755)
    try:
        corpus = options.corpus or root / "corpus"
        roots = prepare(root, corpus, names, scale, measures, users, selected)
        settings = peers.Settings(extra, users=(peers.USER, *mail.user_names(users)))
        benches: list[tuple[Bench, Report]] = []
        with ExitStack() as stack:
            for name in names:
                peer = stack.enter_context(peers.start_with(name, roots[name], settings))
                report = Report(name, peer.version, scale.messages)
                benches.append((bench_of(peer, scale, users), report))
            run(benches, measures)
        if not options.no_memory:
            for bench, report in benches:
                if not bench.reference:
                    root_of_mail = roots[report.server]
                    report.memory = memory_of(
                        report.server, root_of_mail, settings, scale, users, bool(selected)
                    )
    finally:
        with progress("removing the mail"):
            shutil.rmtree(root, ignore_errors=True)
    reports = [report for _, report in benches]
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        for report in reports:
            report.save(options.save / f"{report.server}.json")
    print("\n".join([table(reports), *left_out]))
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:  # a server did not start; the text is its output
        sys.exit(str(error))
