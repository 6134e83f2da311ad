"""A thin IMAP client for measurements: its own cost must stay small compared to the server's.

A response is a list of parts: the line, and for each literal in it the literal and the rest of the line
after it. So the parts at odd positions are literals, whatever they contain, and a message that contains
"a1 OK" is not mistaken for a tagged response.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from types import TracebackType

Parts = list[bytes]

_LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
_FETCH = re.compile(rb"\* (\d+) FETCH \(")


class ServerError(Exception):
    """The server refused a command, closed the connection, or sent a wrong response.

    Reports print the text.
    """


@dataclass(frozen=True, slots=True)
class Response:
    """The untagged responses to one command, and its tagged response."""

    untagged: list[Parts]
    tagged: bytes

    def fetched(self, text: bytes) -> dict[int, Parts]:
        """Return the FETCH responses that contain `text`, by sequence number.

        The text excludes unsolicited FETCH responses with flags.
        """
        found = {}
        for parts in self.untagged:
            match = _FETCH.match(parts[0])
            if match and any(text in part for part in parts[::2]):
                found[int(match[1])] = parts
        return found

    def searched(self) -> list[int]:
        """Return the numbers of the SEARCH response."""
        for line, *_ in self.untagged:
            if line.startswith(b"* SEARCH"):
                return [int(word) for word in line.split()[2:]]
        raise ServerError("no SEARCH response")

    def count(self, name: bytes) -> int:
        """Count responses such as `* 3 EXPUNGE`."""
        return sum(
            name in line.split(b" ", 3)[2:3] or line.endswith(name + b"\r\n")
            for (line, *_) in self.untagged
        )


class Client:
    """One connection to a server; a context manager that closes it.

    Args:
        host: the server's address.
        port: the server's port.
        source: the local address to connect from.
        timeout: seconds without data after which a method fails.

    Raises:
        ServerError: from every method that sends a command, if the response is not OK.
        OSError: if the connection fails.
    """

    def __init__(
        self, host: str, port: int, *, source: str | None = None, timeout: float = 300
    ) -> None:
        source_address = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout, source_address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The buffer is large enough to make system calls rare, and small enough for 1,000 idle clients.
        self._reader = self.socket.makefile("rb", buffering=1 << 16)
        self._last_tag = 0
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
        """Close the connection; may be called more than once."""
        self._reader.close()
        self.socket.close()

    def reset(self) -> None:
        """Close the connection with a RST, which leaves nothing in TIME_WAIT."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def login(self, user: str, password: str) -> None:
        """LOGIN, with strings that need no escapes."""
        self.command(f'LOGIN "{user}" "{password}"')

    def select(self, mailbox: str = "INBOX") -> int:
        """SELECT a mailbox and return its number of messages."""
        for line, *_ in self.command(f'SELECT "{mailbox}"').untagged:
            if line.endswith(b" EXISTS\r\n"):
                return int(line.split()[1])
        raise ServerError("no EXISTS response to SELECT")

    def logout(self) -> None:
        """LOGOUT, and wait until the server has closed the connection."""
        self.command("LOGOUT")
        self._reader.read()
        self.close()

    def command(self, text: str) -> Response:
        """Send one command and wait for its OK."""
        tag = self._tag()
        self.socket.sendall(b"%b %b\r\n" % (tag, text.encode()))
        return self._response(tag)

    def command_parts(self, *parts: bytes) -> Response:
        """Send one command, in which every second part is a literal; wait for OK, NO or BAD."""
        tag = self._tag()
        literals = [b"{%d+}\r\n%b" % (len(part), part) for part in parts[1::2]]
        chunks = [
            chunk for pair in zip_longest(parts[::2], literals, fillvalue=b"") for chunk in pair
        ]
        self.socket.sendall(b"%b %b\r\n" % (tag, b"".join(chunks)))
        return self._response(tag, require_ok=False)

    def pipeline(self, texts: Iterable[str]) -> list[Response]:
        """Send all commands at once, then wait for the OK of each, in order."""
        tagged = [(self._tag(), text.encode()) for text in texts]
        self.socket.sendall(b"".join(b"%b %b\r\n" % pair for pair in tagged))
        return [self._response(tag) for tag, _ in tagged]

    def append(self, mailbox: str, message: bytes, flags: str = "") -> Response:
        """APPEND with a synchronizing literal, which every server supports."""
        tag = self._tag()
        command = f'APPEND "{mailbox}" ({flags}) {{{len(message)}}}\r\n'
        self.socket.sendall(tag + b" " + command.encode())
        self._wait_for_continuation()
        self.socket.sendall(message + b"\r\n")
        return self._response(tag)

    def idle(self) -> None:
        """Enter IDLE and stay in it."""
        self.socket.sendall(self._tag() + b" IDLE\r\n")
        self._wait_for_continuation()

    def _tag(self) -> bytes:
        self._last_tag += 1
        return b"%d" % self._last_tag

    def _line(self) -> bytes:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ServerError(
                "the server closed the connection" + (" within a line" if line else "")
            )
        return line

    def _wait_for_continuation(self) -> None:
        while not (line := self._line()).startswith(b"+"):
            if not line.startswith(b"*"):
                raise ServerError(line.decode(errors="replace").strip())

    def _parts(self, line: bytes) -> Parts:
        parts = [line]
        while line.endswith(b"}\r\n") and (match := _LITERAL.search(line)):
            literal = self._reader.read(int(match[1]))
            if len(literal) != int(match[1]):
                raise ServerError("the server closed the connection within a literal")
            line = self._line()
            parts += [literal, line]
        return parts

    def _response(self, tag: bytes, require_ok: bool = True) -> Response:
        start = tag + b" "
        untagged: list[Parts] = []
        readline = self._reader.readline
        while True:
            line = readline()
            if line.startswith(start):
                break
            if not line.endswith(b"\r\n"):
                raise ServerError("the server closed the connection")
            untagged.append(self._parts(line) if line.endswith(b"}\r\n") else [line])
        if require_ok and not line.startswith(start + b"OK"):
            raise ServerError(line.decode(errors="replace").strip())
        return Response(untagged, line)
