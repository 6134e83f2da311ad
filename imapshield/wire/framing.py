"""Puts whole commands together from lines and literals (RFC 9051 section 2.2.1).

The edge passes in lines (without CRLF) and, while a literal is expected, raw data. The framer returns
`LiteralAnnounced` when the client announces a literal, which the caller then accepts or rejects, and `RawCommand`
when a command is complete. Whatever the client sends, the framer knows where the next command begins.

Rules
-----
* The guard decides how much is kept, before any of it is kept: this module sets no limits.
* A rejected command is skipped to its end with its literals, so that nothing inside it is taken for a command. So is
  an overlong line (`OverlongLine`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.base import LiteralData, MemoryLiteral

_NAME = re.compile(rb"(?:UID )?[A-Z0-9\-]{1,32}(?![^ ])", re.IGNORECASE)
COMMAND_COST = 300
"""About how many bytes of memory a command takes in addition to its octets, for the objects that describe it."""

LITERAL_COST = 200
"""About how many bytes of memory a literal takes in addition to its octets, with the text after it."""

_ANNOUNCEMENT_SIZE = len("~{1234567890123456789+}")  # the longest
_BRACE = ord("}")  # every announcement ends with it
_LITERAL = re.compile(rb"(~?)\{([0-9]{1,19})(\+?)\}\Z")


class RawCommand(NamedTuple):
    """One whole command, not yet parsed.

    Args:
        tag: the tag; None if the client sent no valid tag.
        name: the name of the command in upper case, without UID; empty if there is none.
        parts: texts and literals alternately, after the tag and its space; empty for a rejected command.
        octets: the bytes of its lines, including CRLF, without literals.
        rejection: the error to respond with, if the command was rejected while it was received. The dispatcher raises
            it when the command's turn comes, because responses have the order of their commands.
    """

    tag: bytes | None
    name: bytes
    parts: tuple[bytes | LiteralData, ...]
    octets: int
    rejection: BadCommand | CommandRefused | None = None

    def rejected(self, rejection: BadCommand | CommandRefused) -> "RawCommand":
        """Close the literals of this command, and return the command with `rejection` in place of its parts."""
        self.close()
        return self._replace(parts=(), rejection=rejection)

    @property
    def literals(self) -> tuple[LiteralData, ...]:
        """The literals among its parts."""
        return self.parts[1::2]  # type: ignore[return-value]

    def close(self) -> None:
        """Close the literals of this command."""
        if len(self.parts) > 1:
            _close_literals(self.parts[1::2])

    def packed(self) -> "RawCommand | bytes":
        """Return the line of a command without literals, which takes a fifth of the memory; see `unpacked`.

        Other commands are returned as they are.
        """
        if self.rejection is None and self.tag is not None and len(self.parts) == 1:
            (text,) = self.parts
            if isinstance(text, bytes) and len(self.tag) + len(text) + 3 == self.octets:
                return b"%b %b" % (self.tag, text)
        return self

    @classmethod
    def unpacked(cls, packed: "RawCommand | bytes") -> "RawCommand":
        """Return the command of which `packed` returned this."""
        if isinstance(packed, RawCommand):
            return packed
        tag, _, text = packed.partition(b" ")
        return cls(tag, _name_of(text), (text,), len(packed) + 2)

    @property
    def memory(self) -> int:
        """About how many bytes of memory the command takes, without literals in a `Spool`, which counts them itself."""
        if len(self.parts) == 1:
            return COMMAND_COST + self.octets
        held = COMMAND_COST + (self.octets if self.parts else len(self.tag or b""))
        for part in self.parts[1::2]:
            if type(part) is MemoryLiteral:
                held += LITERAL_COST + part.size
        return held

    @property
    def has_uid_prefix(self) -> bool:
        """Whether the name of the command follows the word UID."""
        first = self.parts[0] if self.parts else b""
        return isinstance(first, bytes) and first[:4].upper() == b"UID "


def _name_of(text: bytes) -> bytes:
    """Return the name of the command whose text begins with `text`, as in `RawCommand`."""
    name = _NAME.match(text)
    return name[0].upper().removeprefix(b"UID ") if name else b""


def _close_literals(parts: Iterable[bytes | LiteralData]) -> None:
    for part in parts:
        if not isinstance(part, bytes):
            part.close()


@dataclass(frozen=True, slots=True)
class LiteralAnnounced:
    """The client announces a literal.

    Args:
        tag: the tag of its command; None if the client sent no valid tag.
        name: the name of its command, as in `RawCommand`.
        size: the size of the literal in bytes.
        synchronizing: whether the client waits for a continuation request before it sends the literal (no LITERAL+).
        texts: the texts of the command so far.
        literals: the number of literals before this one.
        literal_octets: the bytes of the literals before this one.
        octets: the bytes of the command's lines so far, including CRLF.
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
    """Stores the content of a literal while it arrives."""

    def write(self, data: bytes) -> None:
        """Store the next bytes.

        Raises:
            CommandRefused: they cannot be stored. The sink is discarded, and nothing more is written to it.
        """

    def finish(self) -> LiteralData:
        """Return the literal, which is complete."""

    def discard(self) -> None:
        """Release what was stored: the literal is not needed."""


class MemorySink:
    """Stores a literal in memory."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Store `data`."""
        self._chunks.append(data)

    def finish(self) -> LiteralData:
        """Return the literal."""
        return MemoryLiteral(b"".join(self._chunks))

    def discard(self) -> None:
        """Release what was stored."""
        self._chunks.clear()


class Framer:
    """Puts the commands of one connection together.

    Attributes:
        inside: whether a command has begun and is not complete.
        memory: as `RawCommand.memory`, of the command that has begun. An accepted literal counts with its whole size.
        nul_in_messages: whether messages may have NUL, because another server decides about it.
    """

    def __init__(self) -> None:
        self.nul_in_messages = False
        self._parts: list[bytes | LiteralData] = []
        self._sink: LiteralSink | None = None
        self._begin()

    def _begin(self) -> None:
        self._tag: bytes | None = None
        self._name = b""
        if self._parts:
            _close_literals(self._parts)
            self._parts = []
        self._octets = self._literal_octets = self._literal_remaining = 0
        self._binary = False
        self._rejection: BadCommand | CommandRefused | None = None
        self.inside = False
        self.memory = 0

    @property
    def rejected(self) -> bool:
        """Whether the command that has begun is rejected, so that the rest of it is skipped."""
        return self._rejection is not None

    @property
    def literal_bytes_due(self) -> int:
        """Bytes of the current literal that have not arrived yet."""
        return self._literal_remaining

    @property
    def literal_bytes_counted(self) -> int:
        """Bytes of the current literal that have not arrived yet and are counted in `memory`."""
        return self._literal_remaining if type(self._sink) is MemorySink else 0

    def receive_line(self, line: bytes) -> RawCommand | LiteralAnnounced:
        """Take a line without CRLF, which begins a command or continues one after a literal."""
        octets = len(line) + 2
        if not self.inside:
            tag, space, rest = line.partition(b" ")
            is_valid = abnf.TAG.fullmatch(tag) is not None
            if is_valid and space and line[-1] != _BRACE:  # a whole command, which needs no state
                return RawCommand(tag, _name_of(rest), (rest,), octets)
            self.inside = True
            self.memory = COMMAND_COST
            if is_valid:
                self._tag = tag
            if self._tag is None or not space:
                self._rejection = BadCommand("Expected a tag and a space before the command name")
            else:
                line = rest
                self._name = _name_of(line)
        self._octets += octets
        # Only the end is searched: searching all of it took most of the time that a long line costs.
        literal = _LITERAL.search(line, max(0, len(line) - _ANNOUNCEMENT_SIZE))
        if literal is None:
            return self._complete(line)
        text = line[: literal.start()]
        if self._rejection is None:
            self._parts.append(text)
            self.memory += len(text) + LITERAL_COST
        self._binary = bool(literal[1])
        self._literal_remaining = int(literal[2])
        return LiteralAnnounced(
            self._tag,
            self._name,
            self._literal_remaining,
            not literal[3],
            tuple(part for part in self._parts if isinstance(part, bytes)),
            len(self._parts) // 2,
            self._literal_octets,
            self._octets,
        )

    def accept_literal(self, sink: LiteralSink) -> bool:
        """Accept the announced literal and store it in `sink`.

        Returns:
            True if the literal comes next; False if it is empty, so that the next line comes next.
        """
        self._sink = sink if self._rejection is None else _NullSink()
        if type(self._sink) is MemorySink:
            self.memory += self._literal_remaining
        if self._literal_remaining:
            return True
        self._finish_literal()
        return False

    def reject_literal(
        self, rejection: BadCommand | CommandRefused, synchronizing: bool
    ) -> RawCommand | None:
        """Reject the announced literal and its command.

        Returns:
            The rejected command if the literal was `synchronizing`: the client waits, so the command ends here. A
            client that does not wait has sent the literal already. It is skipped, None is returned, and the rejected
            command follows with the command's last line.
        """
        self._reject(rejection)
        if synchronizing:
            return self._complete(b"")
        self._sink = _NullSink()
        if not self._literal_remaining:
            self._finish_literal()
        return None

    def receive_literal(self, data: bytes) -> bytes | None:
        """Take bytes of the expected literal.

        Returns:
            None if more of the literal is to come, else what follows it in `data`.
        """
        content, rest = data[: self._literal_remaining], data[self._literal_remaining :]
        self._literal_remaining -= len(content)
        sink = self._sink
        assert sink is not None
        try:
            is_message = type(sink) is not MemorySink
            if b"\0" in content and not (self._binary or (self.nul_in_messages and is_message)):
                # A literal consists of CHAR8, which excludes NUL (RFC 9051 section 9). FETCH would have to replace the
                # NUL, so it is better to refuse the message than to change it.
                raise BadCommand("NUL is permitted in binary literals (literal8) only")
            sink.write(content)
        except (BadCommand, CommandRefused) as rejection:
            sink.discard()
            self._reject(rejection)
            self._sink = _NullSink()
        self._literal_octets += len(content)
        if self._literal_remaining:
            return None
        self._finish_literal()
        return rest

    def _reject(self, rejection: BadCommand | CommandRefused) -> None:
        """Reject the command that has begun, and release what it holds: only its tag is needed."""
        self._rejection = self._rejection or rejection
        _close_literals(self._parts)
        self._parts = []
        self.memory = COMMAND_COST

    def discard(self) -> None:
        """Release what an unfinished command holds; for the end of the connection."""
        if self._sink is not None:
            self._sink.discard()
            self._sink = None
        self._begin()

    def _finish_literal(self) -> None:
        assert self._sink is not None
        literal = self._sink.finish()
        literal.binary = self._binary
        self._sink = None
        if self._rejection is None:
            self._parts.append(literal)

    def _complete(self, line: bytes) -> RawCommand:
        if self._rejection is None:
            self._parts.append(line)
            command = RawCommand(self._tag, self._name, tuple(self._parts), self._octets)
            self._parts = []
        else:
            command = RawCommand(self._tag, self._name, (), self._octets, self._rejection)
        self._begin()
        return command


class OverlongLine:
    """Skips one overlong line, of which only the beginning is kept, for its tag and command name.

    A literal that the line announces at its end belongs to the same command: "the server MUST treat the specified
    number of following octets and the following line as part of the same command" (RFC 7888 section 3). The caller
    rejects it like any other announced literal, and the framer skips it.

    Args:
        framer: the framer of the connection; it receives the beginning and the literal announcement of the line.
        start: the beginning of the line, at most as long as the limit.
        rejection: the response to the command.
    """

    def __init__(self, framer: Framer, start: bytes, rejection: BadCommand) -> None:
        self.rejection = rejection
        self._framer = framer
        self._start = start.partition(b"{")[0]  # only an announcement at the end of the line counts
        self._tail = b""

    def feed(self, data: bytes) -> tuple[bytes, RawCommand | LiteralAnnounced | None]:
        """Skip `data` up to the end of the line.

        Args:
            data: the next bytes from the client, beginning with those of the line itself (including its beginning).

        Returns:
            What follows the line in `data`, and what the framer returned for the line: the rejected command, or the
            announcement of a literal. None means that the line has not ended.
        """
        line, end, rest = (self._tail + data).partition(b"\r\n")
        self._tail = line[-_ANNOUNCEMENT_SIZE:]  # long enough for half of a CRLF too
        if not end:
            return b"", None
        announcement = _LITERAL.search(self._tail)
        event = self._framer.receive_line(self._start + (announcement[0] if announcement else b""))
        if isinstance(event, RawCommand):
            event = event.rejected(self.rejection)
        return rest, event


class _NullSink(MemorySink):
    """Stores nothing: skips the literal of a rejected command."""

    def write(self, data: bytes) -> None:
        pass
