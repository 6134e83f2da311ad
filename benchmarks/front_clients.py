"""Runs the tests of all real clients against other servers, alone and behind the shield, and compares test by test.

    python -m benchmarks.front_clients
    python -m benchmarks.front_clients --peers dovecot,courier --only "curl|mbsync"

`system_tests/install` installs the clients, Dovecot and Courier; Courier needs root. pymap is found on PATH. What a
server passes alone, it must pass behind the shield; the tests that do not are printed first. Many tests expect what
imapshield has and other servers do not: these fail alone, and are printed with the reason. Behind the shield they must
pass, or fail in the same place. Exit status 1 if not.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


def failure(case: type[ServerCase], name: str, peer: str, shielded: bool) -> str:
    """Run one test; return why it fails, or ""."""
    # The shield logs what the other server answers with BAD. A limit that an honest client reaches is a failure.
    forbidden = tuple(text for text in case.forbidden_log_texts if text != "bad command")
    values = {"peer": peer, "shielded": shielded, "forbidden_log_texts": forbidden}
    combined = type(case.__name__, (case, FrontCase), values)
    assert issubclass(combined, TestCase)
    result = TestResult()
    TestSuite([combined(name)]).run(result)
    return next((trace for _, trace in [*result.errors, *result.failures]), "")[-_SHOWN:]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one test ends: `alone` and `behind` are tracebacks, or ""."""

    test: str
    alone: str
    behind: str

    @property
    def lost(self) -> bool:
        """Whether the shield makes the test fail."""
        return bool(self.behind) and not self.alone

    @property
    def elsewhere(self) -> bool:
        """Whether the test fails alone, and in another place behind the shield."""
        return bool(self.behind and self.alone) and place(self.behind) != place(self.alone)


def compare(case: type[ServerCase], name: str, peer: str) -> Comparison:
    """Run one test alone, and behind the shield until it ends in the same way: up to `ATTEMPTS` times.

    Raises:
        RuntimeError: a program is not installed.
    """
    alone, behind = failure(case, name, peer, shielded=False), ""
    if re.search(r" not found: (pip|run|apt-get) ", alone):
        raise RuntimeError(in_few_words(alone))
    for _ in range(ATTEMPTS):
        behind = failure(case, name, peer, shielded=True)
        if not behind or place(behind) == place(alone):
            break
    return Comparison(f"{peer}: {case.__module__[18:]}.{case.__name__}.{name}", alone, behind)


def place(reason: str) -> str:
    """Return where and why a test fails, without what differs each time. Scripts end at their first failure."""
    return re.sub(r"/\w+/\S+|\d+|'.*?'|b\".*?\"|CAPABILITY.*|\s+", "", reason)[-200:]


def in_few_words(reason: str) -> str:
    """Return what a traceback says at last, without the command of the client; Ruby says it in parentheses."""
    lines = [line.strip() for line in reason.splitlines() if re.search(r"\w", line)] or [""]
    said = [line for line in lines if _SAID.search(line)] or lines
    return re.sub(r"^.*\): (?=\S)|^\S*FailTest: ", "", said[-1])[-_WORDS:]


def show(title: str, lines: Sequence[str]) -> None:
    """Print a list under its title, or that it is empty."""
    print("\n".join(["", f"{title}: {len(lines) or 'none'}", *lines]), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for, and print a line for each client and server, and each test that fails."""
    parser = argparse.ArgumentParser(prog="front_clients", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"default {','.join(PEERS)}")
    parser.add_argument("--only", default="", metavar="REGEX", help="clients")
    options = parser.parse_args(arguments)
    found: list[Comparison] = []
    print("client       server   tests  pass alone  pass behind", flush=True)
    for client in CLIENTS:
        if not re.search(options.only, client):
            continue
        for peer in options.peers.split(","):
            ended = [compare(case, name, peer) for case, name in tests_of(client)]
            alone, behind = (
                sum(not way for way in ways)
                for ways in zip(*((c.alone, c.behind) for c in ended), strict=True)
            )
            print(f"{client:12} {peer:8} {len(ended):5} {alone:11} {behind:12}", flush=True)
            found += ended
    show("Pass alone, fail behind the shield", [f"{c.test}: {c.behind}" for c in found if c.lost])
    show(
        "Fail alone, and in another place behind the shield",
        [f"{c.test}\nalone: {c.alone}\nbehind: {c.behind}" for c in found if c.elsewhere],
    )
    show(
        "Fail alone",
        [
            f"{c.test}{'' if c.behind else ' (passes behind)'}: {in_few_words(c.alone)}"
            for c in found
            if c.alone
        ],
    )
    return any(c.lost or c.elsewhere for c in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
