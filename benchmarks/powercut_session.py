"""A client connection that one thread reads together with others, and what its responses announce."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.client import Parts, Response

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_FETCH = re.compile(rb"\* \d+ FETCH \(")
_UID = re.compile(rb"[ (]UID (\d+)")
_MODSEQ = re.compile(rb"[ (]MODSEQ \((\d+)\)")
_FLAGS = re.compile(rb"[ (]FLAGS \(([^)]*)\)")
_CODE = re.compile(rb"\[([A-Z]+)(?: ([0-9:, ]+))?\]")
_VANISHED = re.compile(rb"\* VANISHED (?:\(EARLIER\) )?([0-9:,]+)")
_BUFFER = 1 << 18


class Closed(Exception):
    """The server closed the connection."""


class Session:
    """A connection: commands are sent with `send`, responses are returned by `receive` as they arrive."""

    def __init__(self, host: str, port: int, timeout: float = 60) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._last_tag = 0
        self.untagged: list[Parts] = []
        """The responses since the last tagged one."""

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, command: bytes) -> None:
        """Send a command, whose literals are non-synchronizing."""
        self._last_tag += 1
        self.socket.sendall(b"%d %b\r\n" % (self._last_tag, command))

    def receive(self) -> list[Response]:
        """Wait for data, and return the commands that it completes.

        Raises:
            Closed: the server closed the connection, and there is no more data.
            OSError: the connection failed.
        """
        data = self.socket.recv(_BUFFER)
        if not data:
            raise Closed
        self._buffer += data
        completed = []
        for parts in self._complete_parts():
            if parts[0][:2] in (b"* ", b"+ "):
                self.untagged.append(parts)
            else:
                completed.append(Response(self.untagged, parts[0]))
                self.untagged = []
        return completed

    def run(self, *commands: bytes) -> list[Response]:
        """Send commands at once, and wait for the response of each."""
        for command in commands:
            self.send(command)
        responses: list[Response] = []
        while len(responses) < len(commands):
            responses += self.receive()
        return responses

    def drain(self) -> list[Response]:
        """Return all that has arrived from a server that was killed."""
        responses = []
        try:
            while True:
                responses += self.receive()
        except (Closed, OSError):
            return responses

    def _complete_parts(self) -> Iterator[Parts]:
        start = 0
        while (found := self._parse(start)) is not None:
            parts, start = found
            yield parts
        del self._buffer[:start]

    def _parse(self, start: int) -> tuple[Parts, int] | None:
        """Return the response that begins at `start` and the offset of its end, or None if it is incomplete."""
        parts: Parts = []
        while True:
            end = self._buffer.find(b"\r\n", start) + 2
            if end < 2:
                return None
            line = bytes(self._buffer[start:end])
            parts.append(line)
            literal = _LITERAL.search(line)
            if literal is None:
                return parts, end
            start = end + int(literal[1])
            if len(self._buffer) < start:
                return None
            parts.append(bytes(self._buffer[end:start]))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A FETCH response; None for what it does not contain."""

    uid: int
    flags: frozenset[str] | None
    modseq: int | None
    literal: bytes | None


def fetched(untagged: Iterable[Parts]) -> Iterator[Fetched]:
    """Yield the FETCH responses that have a UID."""
    for parts in untagged:
        if not _FETCH.match(parts[0]):
            continue
        text = b"".join(parts[::2])
        uid, flags, modseq = (pattern.search(text) for pattern in (_UID, _FLAGS, _MODSEQ))
        if uid:
            yield Fetched(
                int(uid[1]),
                flag_set(flags[1].decode()) if flags else None,
                int(modseq[1]) if modseq else None,
                parts[1] if len(parts) > 1 else None,
            )


def flag_set(text: str) -> frozenset[str]:
    r"""Return the flags of a list, without \Recent."""
    return frozenset(text.split()) - {"\\Recent"}


def codes(lines: Iterable[bytes]) -> dict[str, list[str]]:
    """Return the arguments of the response codes that have numbers, such as UIDNEXT and COPYUID; the last of each."""
    return {
        match[1].decode(): (match[2] or b"").decode().split()
        for line in lines
        if (match := _CODE.search(line))
    }


def vanished(untagged: Iterable[Parts]) -> set[int]:
    """Return the UIDs of VANISHED responses."""
    return {
        uid
        for parts in untagged
        if (match := _VANISHED.match(parts[0]))
        for uid in uid_list(match[1].decode())
    }


def uid_list(text: str) -> list[int]:
    """Return the numbers of a UID set, in its order."""
    numbers: list[int] = []
    for item in text.split(","):
        first, _, last = item.partition(":")
        low, high = int(first), int(last or first)
        numbers += range(low, high + 1) if low <= high else range(low, high - 1, -1)
    return numbers


def uid_set(uids: Iterable[int]) -> str:
    """Return a UID set, with ranges for consecutive UIDs."""
    ranges: list[list[int]] = []
    for uid in sorted(uids):
        if ranges and ranges[-1][1] == uid - 1:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    return ",".join(f"{low}:{high}" if low < high else f"{low}" for low, high in ranges)
