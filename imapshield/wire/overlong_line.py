"""Skips a command line that is longer than the limit, together with the literal that it announces."""

from __future__ import annotations

from dataclasses import replace

from imapshield.errors import BadCommand
from imapshield.wire.framing import ANNOUNCEMENT, LITERAL, Framer, LiteralAnnounced, RawCommand

_CRLF = b"\r\n"


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
        self._start = start.partition(b"{")[0]  # an announcement inside the line is none
        self._tail = b""

    def feed(self, data: bytes) -> tuple[bytes, RawCommand | LiteralAnnounced | None]:
        """Skip `data` up to the end of the line.

        Args:
            data: the next bytes from the client, beginning with those of the line itself (including its beginning).

        Returns:
            What follows the line in `data`, and what the framer returned for the line: the rejected command, or the
            announcement of a literal. None means that the line has not ended.
        """
        line, end, rest = (self._tail + data).partition(_CRLF)
        self._tail = line[-ANNOUNCEMENT:]  # long enough for half of a CRLF too
        if not end:
            return b"", None
        announcement = LITERAL.search(self._tail)
        event = self._framer.receive_line(self._start + (announcement[0] if announcement else b""))
        if isinstance(event, RawCommand):
            event = replace(event, parts=(), rejection=self.rejection)
        return rest, event
