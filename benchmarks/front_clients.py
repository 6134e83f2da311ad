"""Runs the tests of all real clients against other servers, alone and behind the shield, and compares test by test.

    python -m benchmarks.front_clients --results results.jsonl
    python -m benchmarks.front_clients --peers dovecot,courier --only "curl|mbsync"

`system_tests/install` installs the clients, Dovecot and Courier; Courier needs root. pymap is found on PATH. What a
server passes alone, it must pass behind the shield; the tests that do not are printed first. Many tests expect what
imapshield has and other servers do not: these fail alone, and are printed with the reason. Behind the shield they must
pass, or fail in the same place or a later line. Exit status 1 if not.

All tests with three servers take an hour or more. How each ends is written into the file of ``--results``. A later run
with this file does the others only, and those that took too long. Several runs at once may have the same file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import TestCase, TestResult, TestSuite

from system_tests.front_case import FrontCase
from system_tests.server_case import ServerCase

CLIENTS = (
    *("mbsync", "offlineimap", "neomutt", "alpine", "curl", "fetchmail", "getmail", "imapfilter"),
    *("imaplib", "imapclient", "aioimaplib", "imap_tools", "javamail", "netimap", "nodeimap"),
    "imapflow",
)
PEERS = ("dovecot", "courier", "pymap")
ATTEMPTS = 3
"""A test that a server passes alone may fail once or twice behind the shield: some depend on time."""
SECONDS = 300.0
"""How long one test may take. Tests of other servers wait for what never comes, some of them several times."""

_SHOWN = 1500
"""Characters of a traceback, from its end."""
_WORDS = 150
"""Characters of a reason in few words."""
_SAID = re.compile(r"^[\w.]*(?:Error|FailTest|Expired)\b.*: |^\w+: \(\d+\)|\(\S*Error\)$")
"""A line that says why a Python, Node, Java or Ruby program, or curl, has failed."""


def tests_of(client: str) -> Iterator[tuple[type[ServerCase], str]]:
    """Yield the classes and names of the tests of a client, without those that need an option of imapshield."""
    module = importlib.import_module(f"system_tests.test_{client}")
    own = [
        case for case in vars(module).values() if getattr(case, "__module__", "") == module.__name__
    ]
    for case in own:
        if isinstance(case, type) and issubclass(case, ServerCase) and not case.options:
            yield from ((case, name) for name in dir(case) if name.startswith("test_"))


class TooSlow(Exception):
    """A test has taken longer than it may."""


def failure(
    case: type[ServerCase], name: str, peer: str, shielded: bool, seconds: float = SECONDS
) -> str:
    """Run one test for at most `seconds`, and its clean-up; return why it fails, or ""."""
    # The shield logs what the other server answers with BAD. A limit that an honest client reaches is a failure.
    forbidden = tuple(text for text in case.forbidden_log_texts if text != "bad command")
    values = {"peer": peer, "shielded": shielded, "forbidden_log_texts": forbidden}
    combined = type(case.__name__, (case, FrontCase), values)
    assert issubclass(combined, TestCase)
    result = TestResult()
    with interrupted_after(seconds):
        TestSuite([combined(name)]).run(result)
    traces = [trace for _, trace in [*result.errors, *result.failures]]
    slow = f"{TooSlow.__name__}: {seconds:g} s"
    if any(TooSlow.__name__ in trace for trace in traces):
        return slow  # wherever it was
    return next(iter(traces), "")[-_SHOWN:]


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in the `with` statement after `seconds`."""

    def interrupt(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one test of a client ends with one server: `alone` and `behind` are tracebacks, or ""."""

    client: str
    peer: str
    test: str
    alone: str
    behind: str

    @property
    def too_slow(self) -> bool:
        """Whether the test was interrupted, so that it says little."""
        return TooSlow.__name__ in self.alone + self.behind

    @property
    def lost(self) -> bool:
        """Whether the shield makes the test fail."""
        return bool(self.behind) and not self.alone

    @property
    def elsewhere(self) -> bool:
        """Whether the test fails alone, and behind the shield in another place that is not a later line."""
        if not (self.alone and self.behind) or place(self.behind) == place(self.alone):
            return False
        return line_number(self.behind) <= line_number(self.alone)

    def __str__(self) -> str:
        return f"{self.peer}: {self.client}.{self.test}"


def compared(run: Callable[[bool], str]) -> tuple[str, str]:
    """Return how a test ends alone and behind the shield.

    A test that ends in two ways is repeated, because some depend on time: behind the shield if it passes alone, and
    once alone if it passes behind the shield only.

    Args:
        run: runs the test, behind the shield or not, and returns why it fails.

    Raises:
        RuntimeError: a program is not installed.
    """
    alone = run(False)
    if re.search(r" not found: (pip|run|apt-get) ", alone):
        raise RuntimeError(in_few_words(alone))
    behind = ""
    for _ in range(2 if alone else ATTEMPTS):
        behind = run(True)
        if not behind or place(behind) == place(alone):
            break
    if alone and not behind:
        alone = run(False)
    return alone, behind


def place(reason: str) -> str:
    """Return where and why a test fails, without what differs each time. Scripts end at their first failure."""
    return re.sub(r"/\w+/\S+|\d+|'.*?'|b\".*?\"|CAPABILITY.*|\s+", "", reason)[-200:]


def line_number(reason: str) -> int:
    """Return in which line of its file a test fails; 0 if a traceback does not say."""
    found = re.search(r"line (\d+), in test_", reason)
    return int(found[1]) if found else 0


def in_few_words(reason: str) -> str:
    """Return what a traceback says at last, without the command of the client; Ruby says it in parentheses."""
    lines = [line.strip() for line in reason.splitlines() if re.search(r"\w", line)] or [""]
    said = [line for line in lines if _SAID.search(line)] or lines
    return re.sub(r"^.*\): (?=\S)|^\S*FailTest: ", "", said[-1])[-_WORDS:]


class Results:
    """The comparisons of this run, and of the runs before it with the same file.

    Args:
        path: the file, a line of JSON for each comparison. None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, Comparison] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                comparison = Comparison(**json.loads(line))
                self._found[str(comparison)] = comparison

    def __contains__(self, test: str) -> bool:
        return test in self._found and not self._found[test].too_slow

    def add(self, comparison: Comparison) -> None:
        """Add a comparison, and write it into the file. Another process may write into it, too."""
        self._found[str(comparison)] = comparison
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(comparison)) + "\n")

    def of(self, client: str, peer: str) -> list[Comparison]:
        """Return the comparisons of a client with a server."""
        return [c for c in self._found.values() if (c.client, c.peer) == (client, peer)]


def complete(
    results: Results, client: str, peer: str, case: type[ServerCase], name: str, seconds: float
) -> None:
    """Run a test alone and behind the shield, unless the results have it, and add how it ends."""
    test = f"{case.__name__}.{name}"
    if str(Comparison(client, peer, test, "", "")) in results:
        return
    begin = time.monotonic()
    ways = compared(lambda shielded: failure(case, name, peer, shielded, seconds))
    comparison = Comparison(client, peer, test, *ways)
    results.add(comparison)
    ended = " / ".join("fails" if way else "passes" for way in ways)
    print(f"{comparison} {ended}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def line(client: str, peer: str, found: Sequence[Comparison]) -> str:
    """Return a line of the table: how many tests there are, and how many pass alone and behind the shield."""
    alone, behind = (sum(not getattr(c, way) for c in found) for way in ("alone", "behind"))
    return f"{client:12} {peer:8} {len(found):5} {alone:11} {behind:12}"


def show(title: str, lines: Sequence[str]) -> None:
    """Print a list under its title, or that it is empty."""
    print("\n".join(["", f"{title}: {len(lines) or 'none'}", *lines]), flush=True)


def report(found: Sequence[Comparison]) -> bool:
    """Print the tests that fail; return whether the shield makes a difference to one."""
    show("Pass alone, fail behind the shield", [f"{c}: {c.behind}" for c in found if c.lost])
    show(
        "Fail alone, and earlier or for another reason behind the shield",
        [f"{c}\nalone: {c.alone}\nbehind: {c.behind}" for c in found if c.elsewhere],
    )
    show(
        "Fail alone",
        [
            f"{c}{'' if c.behind else ' (passes behind)'}: {in_few_words(c.alone)}"
            for c in found
            if c.alone
        ],
    )
    return any(c.lost or c.elsewhere for c in found)


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for, and print a line for each client and server, and each test that fails."""
    parser = argparse.ArgumentParser(prog="front_clients", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"default {','.join(PEERS)}")
    parser.add_argument("--only", default="", metavar="REGEX", help="clients")
    parser.add_argument("--results", type=Path, metavar="FILE", help="of this run and earlier ones")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"that a test may take; default {SECONDS:g}"
    )
    options = parser.parse_args(arguments)
    results = Results(options.results)
    found: list[Comparison] = []
    print("client       server   tests  pass alone  pass behind", flush=True)
    for client in CLIENTS:
        if not re.search(options.only, client):
            continue
        for peer in options.peers.split(","):
            for case, name in tests_of(client):
                complete(results, client, peer, case, name, options.seconds)
            ended = results.of(client, peer)
            print(line(client, peer, ended), flush=True)
            found += ended
    for peer in options.peers.split(","):
        print(line("all", peer, [c for c in found if c.peer == peer]))
    return int(report(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
