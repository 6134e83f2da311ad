"""`Dialogue`: the dialogue of a connection as lines for an operator, without secrets and without mail. Pure.

Rules
-----
* What a literal contains is never shown, in neither direction, only its size.
* Of LOGIN only the user is shown, and nothing that follows a literal of it. Of AUTHENTICATE only the mechanism.
* Quoted strings are shown: search keys, names of mailboxes, and the header fields of ENVELOPE.
"""

import re

MAX_SHOWN = 300
"""Characters of a line that are shown."""

_LITERAL = re.compile(rb"~?\{(\d{1,20})\+?\}\Z")
_HIDDEN = "(hidden)"


class Dialogue:
    """Turns what both sides send into lines: ``C:`` for the client, ``S:`` for the server."""

    def __init__(self) -> None:
        self._secret: bytes | None = None  # the tag of a command whose further lines are secret
        self._literal = 0  # bytes of a literal of the client that are still to come
        self._continues = False  # the next line of the client continues a command
        self._output = b""
        self._skip = 0  # bytes of a literal of the server

    def line(self, line: bytes) -> str:
        """Return what is shown of a line of the client."""
        shown, self._literal = self._shown(line), 0
        match = _LITERAL.search(line)
        self._continues = match is not None
        return f"C: {shown}"

    def _shown(self, line: bytes) -> str:
        if self._continues or (self._secret is not None and line != b"*"):
            if self._secret is not None:
                return f"{_HIDDEN} {len(line)} octets"
            return printable(line)
        tag, _, rest = line.partition(b" ")
        name, _, arguments = rest.partition(b" ")
        upper = name.upper()
        if upper not in (b"LOGIN", b"AUTHENTICATE"):
            return printable(line)
        self._secret = tag
        first, space, more = _first_argument(arguments)
        return printable(b" ".join((tag, name, first))) + (f" {_HIDDEN}" if space or more else "")

    def literal(self, size: int) -> str:
        """Return what is shown of `size` bytes of a literal of the client."""
        return f"C: ({size} octets of a literal)"

    def output(self, data: bytes) -> list[str]:
        """Return what is shown of bytes that the server has written: the lines that are complete now."""
        lines = []
        data = self._output + data
        while data:
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
                continue
            line, end, rest = data.partition(b"\r\n")
            if not end:
                break
            data = rest
            match = _LITERAL.search(line)
            if match is not None:
                self._skip = int(match[1])
            if self._secret is not None and line.startswith(self._secret + b" "):
                self._secret = None
            lines.append(f"S: {printable(line)}")
        self._output = data[: MAX_SHOWN * 4]
        return lines


def _first_argument(arguments: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the first argument, and what separates it from the rest, and the rest."""
    if arguments.startswith(b'"'):
        match = re.match(rb'"(?:[^"\\]|\\.)*"', arguments)
        if match is None:
            return b"", b" ", b""
        return match[0], arguments[match.end() : match.end() + 1], arguments[match.end() + 1 :]
    return arguments.partition(b" ")


def printable(line: bytes) -> str:
    """Return a line as text that cannot control a terminal, at most `MAX_SHOWN` characters."""
    text = line[: MAX_SHOWN + 1].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(line) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(line)} octets)"
