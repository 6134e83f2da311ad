"""Lines and literals → whole commands. Never loses its place, whatever it is sent (RFC 9051 section 2.2.1).

The edge hands over lines (without CRLF) and, while a literal is due, raw data. Out come `LiteralAnnounced` (a literal is
promised: say `accept` or `refuse`) and `RawCommand` (a command is complete, or was refused and has been skipped).

Rules
-----
* Size and number of what is kept are judged by the guard before a byte of it is: this file obeys.
* A refused command is skipped to its end, literals and all, so that nothing inside it is taken for a command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.base import LiteralData, MemoryLiteral

_WORD = re.compile(rb"(?:UID )?[A-Z0-9\-]{1,32}(?![^ ])", re.IGNORECASE)
ANNOUNCEMENT = len("~{1234567890123456789+}")
LITERAL = re.compile(rb"(~?)\{([0-9]{1,19})(\+?)\}\Z")


@dataclass(frozen=True, slots=True)
class RawCommand:
    """One whole command. `tag` is None where none could be read; `name` is upper case, without UID, or empty.

    `parts` alternate text and literals, from behind the tag. `octets` is what it took to send, literals left
    out. A `refused` frame holds no parts: it is to be answered with that refusal, in its turn.
    """

    tag: bytes | None
    name: bytes
    parts: tuple[bytes | LiteralData, ...]
    octets: int
    rejection: BadCommand | CommandRefused | None = None


@dataclass(frozen=True, slots=True)
class LiteralAnnounced:
    """A literal of `size` octets is promised in command `name`; `waits` if the client waits for ``+`` (not LITERAL+).

    `texts` is what the command holds so far, in `octets`; `literals` and `literal_octets` count those before this one.
    """

    tag: bytes | None
    name: bytes
    size: int
    synchronizing: bool
    texts: tuple[bytes, ...]
    literals: int
    literal_octets: int
    octets: int = 0


class LiteralSink(Protocol):
    """Where a literal's octets go while they arrive."""

    def write(self, data: bytes) -> None:
        """Take the next octets; raises `CommandRefused` when it cannot (and is then not written to again)."""

    def finish(self) -> LiteralData:
        """All octets have arrived."""

    def discard(self) -> None:
        """The literal is not wanted any more: release what was kept."""


class MemorySink:
    """Keeps a literal in memory."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep `data`."""
        self._chunks.append(data)

    def finish(self) -> LiteralData:
        """Return the literal whole."""
        return MemoryLiteral(b"".join(self._chunks))

    def discard(self) -> None:
        """Drop what was kept."""
        self._chunks.clear()


class Framer:
    """Puts the commands of one connection together."""

    def __init__(self) -> None:
        self._parts: list[bytes | LiteralData] = []
        self._sink: LiteralSink | None = None
        self._begin()

    def _begin(self) -> None:
        self._tag: bytes | None = None
        self._name = b""
        for part in self._parts:
            if not isinstance(part, bytes):
                part.close()
        self._parts = []
        self._octets = self._literal_octets = self._due = 0
        self._binary = False
        self._refused: BadCommand | CommandRefused | None = None
        self.inside = False

    @property
    def literal_bytes_due(self) -> int:
        """Octets of a literal still to come."""
        return self._due

    def receive_line(self, line: bytes) -> RawCommand | LiteralAnnounced:
        """Take a line, which begins a command or goes on with one after a literal."""
        self._octets += len(line) + 2
        if not self.inside:
            self.inside = True
            tag, space, rest = line.partition(b" ")
            if abnf.TAG.fullmatch(tag) is not None:
                self._tag = tag
            if self._tag is None or not space:
                self._refused = BadCommand("A command begins with a tag and a space")
            else:
                line = rest
                word = _WORD.match(line)
                self._name = word[0].upper().removeprefix(b"UID ") if word else b""
        # searching all of a long line, to match at its end, took most of the time that long lines cost
        literal = LITERAL.search(line, max(0, len(line) - ANNOUNCEMENT))
        if literal is None:
            return self._complete(line)
        text = line[: literal.start()]
        if self._refused is None:
            self._parts.append(text)
        self._binary = bool(literal[1])
        self._due = int(literal[2])
        return LiteralAnnounced(
            self._tag,
            self._name,
            self._due,
            not literal[3],
            tuple(p for p in self._parts if isinstance(p, bytes)),
            len(self._parts) // 2,
            self._literal_octets,
            self._octets,
        )

    def accept_literal(self, sink: LiteralSink) -> bool:
        """Let the announced literal go into `sink`; False when it is empty, and the next line is due already."""
        if self._refused is not None:
            sink = _Nowhere()
        self._sink = sink
        if self._due:
            return True
        self._finish_literal()
        return False

    def reject_literal(
        self, refusal: BadCommand | CommandRefused, waits: bool
    ) -> RawCommand | None:
        """Refuse the command whose literal was announced.

        A client that waits is told at once, so this is the command's end and its frame is returned. One that does
        not wait has sent the literal already: it is skipped, and the frame comes with the last line.
        """
        self._refused = self._refused or refusal
        if waits:
            return self._complete(b"")
        self._sink = _Nowhere()
        if not self._due:
            self._finish_literal()
        return None

    def receive_literal(self, data: bytes) -> bytes | None:
        """Take octets of the literal that is due; None, or what follows its last octet."""
        mine, rest = data[: self._due], data[self._due :]
        self._due -= len(mine)
        sink = self._sink
        assert sink is not None
        try:
            if b"\0" in mine and not self._binary:
                # where it can stand, `*CHAR8`, is told back as another octet: better no message than a changed one
                raise BadCommand("A NUL can be in a literal8 only")
            sink.write(mine)
        except (BadCommand, CommandRefused) as refusal:
            sink.discard()
            self._refused = self._refused or refusal
            self._sink = _Nowhere()
        self._literal_octets += len(mine)
        if self._due:
            return None
        self._finish_literal()
        return rest

    def discard(self) -> None:
        """The connection has ended: release what an unfinished command held."""
        if self._sink is not None:
            self._sink.discard()
            self._sink = None
        self._begin()

    def _finish_literal(self) -> None:
        assert self._sink is not None
        octets = self._sink.finish()
        octets.binary = self._binary
        self._sink = None
        if self._refused is None:
            self._parts.append(octets)

    def _complete(self, line: bytes) -> RawCommand:
        if self._refused is None:
            self._parts.append(line)
            frame = RawCommand(self._tag, self._name, tuple(self._parts), self._octets)
            self._parts = []
        else:
            frame = RawCommand(self._tag, self._name, (), self._octets, self._refused)
        self._begin()
        return frame


class _Nowhere:
    """Skips a literal."""

    def write(self, data: bytes) -> None:
        pass

    def finish(self) -> LiteralData:
        return MemoryLiteral(b"")

    def discard(self) -> None:
        pass
