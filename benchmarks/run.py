"""Measure several servers in one run, on the same mail, taking turns: the table to publish.

python -m benchmarks.run --servers dovecot,imapshield --messages 10000 --quick
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import peers
from benchmarks.imap_bench import (
    fill,
    link,
    measure_memory,
    progress,
    raise_descriptors,
    run,
    scale_from,
    scale_options,
)
from benchmarks.measures import COLD, Bench, Scale, Target
from benchmarks.report import Report, table


def prepare(root: Path, names: list[str], scale: Scale) -> dict[str, Path]:
    """Write the corpus once, and link a mail root of it for every server; out come the roots."""
    corpus = root / "corpus"
    fill(corpus, scale)
    roots = {}
    for name in names:
        roots[name] = root / name
        home = roots[name] / peers.USER
        with progress(f"linking the mail of {name}"):
            link(corpus, home)
            for cold in COLD:
                link(corpus / f".cold-{cold}", home / f".cold-{cold}")
                (home / f".cold-{cold}" / "maildirfolder").touch()
    with progress("handing the mail to its owner"):
        peers.own(root)
    return roots


def bench_of(peer: peers.Peer, scale: Scale) -> Bench:
    """Point a bench at a peer."""
    target = Target(peer.host, peer.port, peer.user, peer.password, peer.pid)
    return Bench(target, scale, cold_folders=True)


def main() -> int:
    """Run them all; 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="run", description="Measure IMAP servers in one run.")
    parser.add_argument("--servers", default="dovecot,imapshield", help=", ".join(peers.NAMES))
    parser.add_argument("--imapshield-options", default="", help="more of its command line")
    parser.add_argument("--directory", type=Path, help="where the mail goes (default: of TMPDIR)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="a JSON file for each server")
    scale_options(parser)
    options = parser.parse_args()
    names = options.servers.split(",")
    if unknown := set(names) - set(peers.NAMES):
        parser.error(f"no such server: {', '.join(unknown)}; there are {', '.join(peers.NAMES)}")
    extra = shlex.split(options.imapshield_options)
    scale = scale_from(options)
    raise_descriptors()
    # So that a TERM ends the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Path(tempfile.mkdtemp(prefix="imap-bench-", dir=options.directory))
    root.chmod(0o755)
    try:
        roots = prepare(root, names, scale)
        benches: list[tuple[Bench, Report]] = []
        with ExitStack() as stack:
            for name in names:
                peer = stack.enter_context(peers.start(name, roots[name], extra))
                report = Report(name, peer.version, scale.messages)
                benches.append((bench_of(peer, scale), report))
            run(benches, options.only)
        if not options.no_memory:
            for name, (_, report) in zip(names, benches, strict=True):
                # A new process over an index that is there already: what an operator sees.
                with peers.start(name, roots[name], extra) as peer:
                    report.memory = measure_memory(bench_of(peer, scale))
    finally:
        with progress("removing the mail"):
            shutil.rmtree(root, ignore_errors=True)
    reports = [report for _, report in benches]
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        for report in reports:
            report.save(options.save / f"{report.server}.json")
    print(table(reports))
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as complaint:  # a server that does not start, in its own words
        sys.exit(str(complaint))
