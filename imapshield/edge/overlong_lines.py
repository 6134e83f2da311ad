"""`OverlongLines`: handles lines above the length limit, so that the session stays in step with the client."""

from typing import Protocol

from imapshield.edge.event_reporter import EventReporter
from imapshield.errors import BadCommand
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import Disconnect, RejectLiteral, Reset, Verdict
from imapshield.limits import Limits
from imapshield.wire import traits
from imapshield.wire.framing import Framer, LiteralAnnounced, OverlongLine, RawCommand


class OverlongLineHost(Protocol):
    """What `OverlongLines` needs of the protocol that owns the connection."""

    MAX_LENGTH: int
    reporter: EventReporter

    def apply_verdict(self, verdict: Verdict, event: LiteralAnnounced | RawCommand) -> None:
        """Do what the guard has decided about `event`."""

    def bye(self, text: str) -> None:
        """Send BYE and close."""

    def receive_again(self, data: bytes) -> None:
        """Process `data` in a later reactor turn."""


class OverlongLines:
    """The overlong lines of one connection.

    Before login an overlong line ends the connection; only ID has a limit of its own. After login the line is skipped,
    and its command is answered as invalid once the line has ended. A literal that the line announces is skipped with
    it: "the server MUST treat the specified number of following octets and the following line as part of the same
    command" (RFC 7888 section 3).
    """

    def __init__(
        self, host: OverlongLineHost, framer: Framer, guard: ConnectionGuard, limits: Limits
    ) -> None:
        self._host = host
        self._framer = framer
        self._guard = guard
        self._limits = limits
        self._overlong: OverlongLine | None = None  # the line that is being skipped

    def begin(self, line: bytes) -> None:
        """Handle a line longer than `MAX_LENGTH`.

        Args:
            line: everything received so far from the beginning of the line, perhaps more than the line.
        """
        host, limits = self._host, self._limits
        begins_command = not self._framer.inside
        if self._guard.authenticated:
            limit, action = "max_line_length", "refused"
        elif (
            begins_command
            and host.MAX_LENGTH < limits.preauth_id_length
            and traits.may_be_long_before_login(line)
        ):
            host.MAX_LENGTH = limits.preauth_id_length
            host.receive_again(line)
            return
        else:
            limit, action = "preauth_line_length", "bye"
        may_log = begins_command and not self._guard.line_expected and traits.may_be_logged(line)
        reset = Reset(limit, host.MAX_LENGTH, len(line))
        host.reporter.limit_triggered(reset, action, sample=line if may_log else b"")
        if self._guard.authenticated:
            rejection = BadCommand(f"Line too long: the limit is {host.MAX_LENGTH} bytes")
            self._overlong = OverlongLine(self._framer, line[: host.MAX_LENGTH], rejection)
            host.receive_again(self.skip(line))
        else:
            host.bye("Line too long")

    def skip(self, data: bytes) -> bytes:
        """Remove from `data` what belongs to the line that is being skipped, if any."""
        overlong = self._overlong
        if overlong is None:
            return data
        rest, event = overlong.feed(data)
        if event is not None:
            self._overlong = None
            verdict = self._guard.check(event)
            if isinstance(event, LiteralAnnounced) and not isinstance(verdict, (Reset, Disconnect)):
                verdict = RejectLiteral(overlong.rejection)
            self._host.apply_verdict(verdict, event)
        return rest
