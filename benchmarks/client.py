"""A thin IMAP client for measuring: it must never be what is measured.

An answer is a list of pieces: the line, and for each literal in it the literal and the line that
goes on after it. So the odd pieces are literals, whatever they hold, and nobody mistakes a message
that says "a1 OK" for the end of an answer.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from types import TracebackType

Pieces = list[bytes]

_LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
_FETCHED = re.compile(rb"\* (\d+) FETCH \(")


class Wrong(Exception):
    """The server refused, hung up, or answered what cannot be right. The text is for the table."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came before the tagged line, and the tagged line."""

    untagged: list[Pieces]
    tagged: bytes

    def fetched(self, having: bytes) -> dict[int, Pieces]:
        """FETCH answers that hold `having`, by sequence number; flags told unasked fall out."""
        found = {}
        for pieces in self.untagged:
            match = _FETCHED.match(pieces[0])
            if match and any(having in piece for piece in pieces[::2]):
                found[int(match[1])] = pieces
        return found

    def searched(self) -> list[int]:
        """List the numbers of a SEARCH answer."""
        for line, *_ in self.untagged:
            if line.startswith(b"* SEARCH"):
                return [int(word) for word in line.split()[2:]]
        raise Wrong("no SEARCH answer")

    def count(self, word: bytes) -> int:
        """Count answers such as `* 3 EXPUNGE`."""
        return sum(
            word in line.split(b" ", 3)[2:3] or line.endswith(word + b"\r\n")
            for (line, *_) in self.untagged
        )


class Client:
    """One connection to a server; a context manager. Raises `Wrong` and `OSError`."""

    def __init__(
        self, host: str, port: int, *, source: str | None = None, timeout: float = 300
    ) -> None:
        address = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout, address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # One buffer of a size that makes a system call rare and 1,000 idle clients affordable.
        self._reader = self.socket.makefile("rb", buffering=1 << 16)
        self._tags = 0
        self.greeting = self._line()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; call it as often as you like."""
        self._reader.close()
        self.socket.close()

    def reset(self) -> None:
        """Hang up with a RST, which leaves nothing in TIME_WAIT."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def login(self, user: str, password: str) -> None:
        """LOGIN, with strings that need no escapes."""
        self.command(f'LOGIN "{user}" "{password}"')

    def select(self, mailbox: str = "INBOX") -> int:
        """SELECT; out comes the number of messages."""
        for line, *_ in self.command(f'SELECT "{mailbox}"').untagged:
            if line.endswith(b" EXISTS\r\n"):
                return int(line.split()[1])
        raise Wrong("SELECT said no EXISTS")

    def logout(self) -> None:
        """LOGOUT, and wait until the server has hung up."""
        self.command("LOGOUT")
        self._reader.read()
        self.close()

    def command(self, text: str) -> Answer:
        """Send one command, wait for its OK."""
        tag = self._tag()
        self.socket.sendall(b"%b %b\r\n" % (tag, text.encode()))
        return self._answer(tag)

    def ask(self, *pieces: bytes) -> Answer:
        """Send one command, in which every second piece is a literal; wait for OK, NO or BAD."""
        tag = self._tag()
        literals = [b"{%d+}\r\n%b" % (len(piece), piece) for piece in pieces[1::2]]
        sent = [
            piece for pair in zip_longest(pieces[::2], literals, fillvalue=b"") for piece in pair
        ]
        self.socket.sendall(b"%b %b\r\n" % (tag, b"".join(sent)))
        return self._answer(tag, refused=True)

    def pipeline(self, texts: Iterable[str]) -> list[Answer]:
        """Send all commands at once, then wait for all their answers, in order."""
        tagged = [(self._tag(), text.encode()) for text in texts]
        self.socket.sendall(b"".join(b"%b %b\r\n" % pair for pair in tagged))
        return [self._answer(tag) for tag, _ in tagged]

    def append(self, mailbox: str, data: bytes, flags: str = "") -> Answer:
        """APPEND with a synchronising literal, which every server knows."""
        tag = self._tag()
        command = f'APPEND "{mailbox}" ({flags}) {{{len(data)}}}\r\n'
        self.socket.sendall(tag + b" " + command.encode())
        self._continued()
        self.socket.sendall(data + b"\r\n")
        return self._answer(tag)

    def idle(self) -> None:
        """Enter IDLE and stay there."""
        self.socket.sendall(self._tag() + b" IDLE\r\n")
        self._continued()

    def _tag(self) -> bytes:
        self._tags += 1
        return b"%d" % self._tags

    def _line(self) -> bytes:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise Wrong("the server hung up" + (" within a line" if line else ""))
        return line

    def _continued(self) -> None:
        while not (line := self._line()).startswith(b"+"):
            if not line.startswith(b"*"):
                raise Wrong(line.decode(errors="replace").strip())

    def _pieces(self, line: bytes) -> Pieces:
        pieces = [line]
        while line.endswith(b"}\r\n") and (match := _LITERAL.search(line)):
            literal = self._reader.read(int(match[1]))
            if len(literal) != int(match[1]):
                raise Wrong("the server hung up within a literal")
            line = self._line()
            pieces += [literal, line]
        return pieces

    def _answer(self, tag: bytes, refused: bool = False) -> Answer:
        start = tag + b" "
        untagged: list[Pieces] = []
        readline = self._reader.readline
        while True:
            line = readline()
            if line.startswith(start):
                break
            if not line.endswith(b"\r\n"):
                raise Wrong("the server hung up")
            untagged.append(self._pieces(line) if line.endswith(b"}\r\n") else [line])
        if not refused and not line.startswith(start + b"OK"):
            raise Wrong(line.decode(errors="replace").strip())
        return Answer(untagged, line)
