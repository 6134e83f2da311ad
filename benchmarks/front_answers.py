"""Sends the same random commands to Dovecot alone and behind imapshield, and compares what clients get, byte by byte.

    python -m benchmarks.front_answers --sessions 300
    python -m benchmarks.front_answers --seed 17 --sessions 1    # one of them again

Valid and invalid commands: literals of all kinds and sizes, 8-bit text, APPEND with CATENATE, IDLE, pipelined commands,
bare LF, NUL, long lines. Each session has an account of its own, and ends when a server does not answer. Differences
that docs/front.rst explains are counted by their kind; all others are printed. Exit status 1: there are some.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import filterfalse
from random import Random

from benchmarks.front_commands import COMMANDS, Exchange, exchanges
from benchmarks.front_imaptest import behind, served
from benchmarks.peers import Peer

SHOWN = 200
"""Bytes of a response that are printed."""
SILENCE = b"no answer; received: "
SECONDS = 6.0
"""How long a server may take for one answer, on a busy machine."""

_AS_COMMAND = re.compile(rb"\S+ BAD Error in IMAP (?:tag|command)")
_REFUSED = re.compile(
    rb"(\S+) BAD (Not permitted after the login|IDLE has no arguments|Expected a .*|Invalid literal"
    rb"|CR, LF and NUL are permitted in literals only|Unterminated quoted string|NUL .*)\r\n"
)
_UPDATE = re.compile(rb"\* (?:STATUS|OK Highest|\d+ (?:EXISTS|RECENT))")
_RESULT = re.compile(_UPDATE.pattern + rb"|\* (?:E?SEARCH|SORT|THREAD)")
_VOLATILE = (
    (re.compile(rb"\[HIGHESTMODSEQ \d+\] "), b""),
    (re.compile(rb"\* CAPABILITY .*"), b"* CAPABILITY"),
    (re.compile(rb" \(\d+\.\d+ \+ [^)]*secs\)"), b""),
    (re.compile(rb"(UIDVALIDITY|APPENDUID|COPYUID) \d+"), rb"\1 N"),
    (re.compile(rb'(INTERNALDATE|SAVEDATE) "[^"]*"'), rb"\1 D"),
    (re.compile(rb"boundary_[\w.]+|\w{32}"), b"GUID"),
)


class Closed(Exception):
    """The server has closed the connection."""


@dataclass(slots=True)
class Connection:
    """A client of one server that records the responses."""

    peer: Peer
    socket: socket.socket = field(init=False)
    buffer: bytes = b""

    def __post_init__(self) -> None:
        self.socket = socket.create_connection((self.peer.host, self.peer.port), SECONDS)

    def _more(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed
        self.buffer += data

    def send(self, data: bytes) -> None:
        """Send `data`; a connection that has ended is found when it is read."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def response(self) -> bytes:
        """Return the next response with its literals.

        Raises:
            Closed: there is none.
            TimeoutError: it does not arrive.
        """
        end = 0
        while True:
            while (found := self.buffer.find(b"\r\n", end)) < 0:
                self._more()
            end = found + 2
            literal = re.search(rb"\{(\d+)\}\r\n\Z", self.buffer[max(0, end - 30) : end])
            if literal is None:
                line, self.buffer = self.buffer[:end], self.buffer[end:]
                return line
            end += int(literal[1])
            while len(self.buffer) < end:
                self._more()

    def run(self, exchange: Exchange) -> list[bytes]:
        """Send an exchange, and return what the server answers; the last item may be "closed" or `SILENCE`."""
        got: list[bytes] = []
        tags = [tag for tag, _ in exchange.commands if tag]
        waiting = b""
        try:
            for tag, parts in exchange.commands:
                for part in parts:
                    if part is not None:
                        waiting += part
                        continue
                    self.send(waiting)
                    waiting = b""
                    while tag in tags and not (got and got[-1].startswith(b"+")):
                        got.append(self.response())
                        _end(got[-1], tags)
                    if tag not in tags:
                        break  # the literal is refused
                    got.pop()  # the text of the request is the shield's
            self.send(waiting)
            while tags:
                got.append(self.response())
                _end(got[-1], tags)
        except Closed:
            got.append(b"closed")
        except TimeoutError:
            got.append(SILENCE + self.buffer[:100])
        return got


def _end(line: bytes, tags: list[bytes]) -> None:
    word = line.split(b" ", 1)[0]
    if word in tags:
        tags.remove(word)


def normal(responses: Sequence[bytes]) -> list[bytes]:
    """Return the responses without what differs in each run."""
    found = []
    for line in responses:
        text = line
        for pattern, value in _VOLATILE:
            text = pattern.sub(value, text)
        found.append(text)
    return found


def login(peer: Peer, user: str) -> Connection:
    """Return a new connection of `user`."""
    connection = Connection(peer)
    connection.response()
    connection.send(b"l0 LOGIN %b %b\r\n" % (user.encode(), peer.password.encode()))
    while not connection.response().startswith(b"l0 OK"):
        pass
    return connection


def session(
    peers: Sequence[Peer], seed: int
) -> Iterator[tuple[Exchange, list[bytes], list[bytes]]]:
    """Run one session with both servers; yield each exchange whose answers differ, with both answers."""
    connections = [login(peer, f"s{seed}") for peer in peers]
    try:
        for exchange in exchanges(Random(seed)):
            answers = [connection.run(exchange) for connection in connections]
            alone, shielded = map(normal, answers)
            if alone != shielded:
                yield exchange, alone, shielded
            ended = [each[-1:] for each in (alone, shielded)]
            if any(end and not end[0].endswith(b"\n") for end in ended):
                return
    finally:
        for connection in connections:
            connection.socket.close()


def kind(exchange: Exchange, alone: Sequence[bytes], shielded: Sequence[bytes]) -> str:
    """Return the name of a difference that docs/front.rst explains; "" of any other."""
    if exchange.has_bare_line_feed:
        return "bare LF"
    tags = exchange.tags
    as_commands = [line for line in alone if _AS_COMMAND.match(line)]
    if len(as_commands) > len(tags) or any(
        o.split(b" ")[0] not in (b"*", *tags) for o in as_commands
    ):
        return "literal as commands"
    if alone[-1].startswith(SILENCE):
        return "not answered alone"
    if sorted(alone) == sorted(shielded):
        return "order"
    # Dovecot runs pipelined commands side by side. It sends updates when one of them happens to end, and a SEARCH may
    # run before the APPEND before it.
    timing = _RESULT if len(exchange.commands) > 2 else _UPDATE
    if sorted(filterfalse(timing.match, alone)) == sorted(filterfalse(timing.match, shielded)):
        return "order of updates"
    only_alone, only_shielded = Counter(alone), Counter(shielded)
    only_alone, only_shielded = only_alone - only_shielded, only_shielded - only_alone
    names = set()
    for line in only_shielded:
        found = _REFUSED.match(line)
        if found is None:
            return ""
        bad = any(o.startswith(found[1] + b" BAD ") for o in only_alone)
        names.add("text of BAD" if bad else found[2].decode())
    tags = {line.split(b" ")[0] for line in only_shielded}
    rest = [o for o in only_alone if o.split(b" ")[0] not in tags]
    if not all(_AS_COMMAND.match(line) for line in rest):
        return ""
    return ", ".join(sorted(names)) or "literal as commands"


def main() -> int:
    """Run the sessions that the command line asks for, and report."""
    parser = argparse.ArgumentParser(prog="front_answers", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first session")
    parser.add_argument("--sessions", type=int, default=100)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        peers = [stack.enter_context(run("dovecot")) for run in (served, behind)]
        for seed in range(options.seed, options.seed + options.sessions):
            for exchange, alone, shielded in session(peers, seed):
                name = kind(exchange, alone, shielded)
                counts[name] += 1
                if name:
                    continue
                print(f"seed {seed} sent {exchange}")
                for title, lines in ("alone", alone), ("behind", shielded):
                    print(f"  {title}: {[line[:SHOWN] for line in lines]}", flush=True)
    unexplained = counts.pop("", 0)
    exchanges = COMMANDS * options.sessions
    print(f"up to {exchanges} exchanges; {unexplained} unexplained differences; {dict(counts)}")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
