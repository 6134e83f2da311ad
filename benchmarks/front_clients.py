"""Runs the tests of all real clients against other servers, alone and behind the shield, and compares.

    python -m benchmarks.front_clients
    python -m benchmarks.front_clients --peers dovecot,courier --only "curl|mbsync"

`system_tests/install` installs the clients, Dovecot and Courier; Courier needs root. pymap is found on PATH. What a
server passes alone, it must pass behind the shield. Many tests expect what imapshield has and other servers do not:
they must fail in the same place, or pass. Exit status 1 if not.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
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

_SHOWN = 1000
"""Characters of a traceback, from its end."""


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
    values = {"peer": peer, "shielded": shielded}
    combined = type(case.__name__, (case, FrontCase), values)
    assert issubclass(combined, TestCase)
    result = TestResult()
    TestSuite([combined(name)]).run(result)
    return next((trace for _, trace in [*result.errors, *result.failures]), "")[-_SHOWN:]


def compare(client: str, peer: str) -> tuple[int, int, int, list[str]]:
    """Run the tests of a client; return how many there are, pass alone, pass behind, and which end in another way."""
    total = alone = behind = 0
    other = []
    for case, name in tests_of(client):
        total += 1
        expected = failure(case, name, peer, shielded=False)
        alone += not expected
        reason = ""
        for _ in range(ATTEMPTS):
            reason = failure(case, name, peer, shielded=True)
            if not reason or place(reason) == place(expected):
                break
        behind += not reason
        if reason and place(reason) != place(expected):
            what = "ends elsewhere" if expected else "fails"
            other.append(f"{case.__name__}.{name} {what} behind the shield: {reason}")
    return total, alone, behind, other


def place(reason: str) -> str:
    """Return where and why a test fails, without what differs each time. Scripts end at their first failure."""
    return re.sub(r"/\w+/\S+|\d+|'.*?'|b\".*?\"|CAPABILITY.*|\s+", "", reason)[-200:]


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for, and print a line for each client and server."""
    parser = argparse.ArgumentParser(prog="front_clients", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"default {','.join(PEERS)}")
    parser.add_argument("--only", default="", metavar="REGEX", help="clients")
    options = parser.parse_args(arguments)
    differences = []
    print("client       server   tests  pass alone  pass behind", flush=True)
    for client in CLIENTS:
        if not re.search(options.only, client):
            continue
        for peer in options.peers.split(","):
            total, alone, behind, other = compare(client, peer)
            print(f"{client:12} {peer:8} {total:5} {alone:11} {behind:12}", flush=True)
            differences += [f"{peer}: {line}" for line in other]
    print("\n".join(["", *(differences or ["Behind the shield all tests end as alone, or pass."])]))
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
