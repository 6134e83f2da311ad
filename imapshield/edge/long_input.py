"""`LongInput`: receives literals, and skips lines that are longer than the limit."""

from dataclasses import replace

from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.edge.spool import Spool
from imapshield.errors import BadCommand, CommandRefused
from imapshield.events import Action
from imapshield.guard.verdicts import Disconnect, LimitReached, RejectLiteral, Reset, Verdict
from imapshield.wire import framing
from imapshield.wire.framing import LiteralAnnounced
from imapshield.wire.traits import may_be_long_before_login, traits_of


class LongInput:
    """The literals and the overlong lines of one connection.

    One class has both, because an overlong line may announce a literal, which is then skipped like any other.

    Messages go to a `Spool`, because together they may be as large as `max_append_size`. Other literals are arguments,
    which the guard limits to sizes that fit in memory.

    Before login an overlong line ends the connection; only ID has a limit of its own. After login the line is skipped,
    and its command is answered with BAD once the line has ended. A literal that the line announces is skipped with it
    (see `wire.framing.OverlongLine`).
    """

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._spool: Spool | None = None
        self._overlong_line: framing.OverlongLine | None = None  # the line that is being skipped

    def begin_literal(self, verdict: Verdict, event: LiteralAnnounced) -> bool:
        """Accept or reject the announced literal; returns whether the client waits for a continuation request."""
        owner = self._owner
        rejection = self._rejection(verdict, event)
        if rejection is not None:
            command = owner.framer.reject_literal(rejection, event.synchronizing)
            if command is not None:
                owner.apply_verdict(owner.guard.admit(command), command)
            elif owner.framer.literal_bytes_due:
                owner.setRawMode()
            return False
        if owner.framer.accept_literal(self._new_sink(event)):
            owner.write_buffer.set_buffer_size(large=True)
            owner.setRawMode()
        return event.synchronizing

    def _rejection(
        self, verdict: Verdict, event: LiteralAnnounced
    ) -> BadCommand | CommandRefused | None:
        """Return why the literal is rejected: by the guard, or because the server holds too much for the user."""
        owner = self._owner
        if isinstance(verdict, RejectLiteral):
            return verdict.rejection
        if owner.framer.rejected:  # It is skipped, and takes no memory.
            return None
        in_memory = owner.limits.append_memory_bytes
        if event.size > in_memory and traits_of(event.name).carries_messages:
            refusal = owner.memory.refuse_file(event.size, event)
            return refusal or owner.memory.refuse_memory(in_memory, event)
        return owner.memory.refuse_memory(event.size, event)

    def _new_sink(self, event: LiteralAnnounced) -> framing.LiteralSink:
        owner = self._owner
        if not (owner.guard.authenticated and traits_of(event.name).carries_messages):
            return framing.MemorySink()
        if event.literals == 0 or self._spool is None:
            self._spool = Spool(owner.limits.append_memory_bytes, owner.memory)
        return self._spool.new_literal()

    def receive_literal(self, data: bytes) -> bytes | None:
        """Receive bytes of a literal; returns the bytes after its end, or None if more of the literal is to come."""
        owner = self._owner
        rest = owner.framer.receive_literal(data)
        if owner.reporter.tap is not None:
            owner.reporter.tap.literal(len(data) - len(rest or b""))
        if rest is not None:
            owner.write_buffer.set_buffer_size()
        if rest == b"":
            owner.write_buffer.send_tcp_ack()
        return rest

    def begin_overlong_line(self, line: bytes) -> None:
        """Handle a line longer than the owner's `MAX_LENGTH`.

        Args:
            line: everything received so far from the beginning of the line. It may contain more than the line.
        """
        owner, guard, max_length = self._owner, self._owner.guard, self._owner.MAX_LENGTH
        id_length = owner.limits.preauth_id_length
        begins_command = not owner.framer.inside
        may_be_long = begins_command and may_be_long_before_login(line)
        if may_be_long and not guard.authenticated and max_length < id_length:
            owner.MAX_LENGTH = id_length
            owner.receive_again(line)
            return
        event = None
        if begins_command and not guard.line_expected:
            event = framing.Framer().receive_line(line)  # for its tag and name, which may be logged
        limit = "max_line_length" if guard.authenticated else "preauth_line_length"
        only_report = limit in owner.limits.report_only_limits
        if guard.authenticated or only_report:
            action: Action = "none" if only_report else "refused"
            reached = LimitReached(limit, max_length, len(line))
            owner.reporter.limit_triggered(action, reached, event)
            rejection = BadCommand(f"Line too long: the limit is {max_length} bytes")
            self._overlong_line = framing.OverlongLine(owner.framer, line[:max_length], rejection)
            owner.memory.skipped = max_length
            owner.receive_again(self.skip_overlong_line(line))
        else:
            text = "Disconnected: Line too long"
            verdict = Disconnect(limit, max_length, len(line), text)
            owner.apply_verdict(verdict, event)

    def skip_overlong_line(self, data: bytes) -> bytes:
        """Return `data` without the bytes that belong to the line that is being skipped, if any."""
        overlong = self._overlong_line
        if overlong is None:
            return data
        rest, event = overlong.feed(data)
        if event is not None:
            self._overlong_line = None
            self._owner.memory.skipped = 0
            verdict = self._owner.guard.admit(event)
            if isinstance(event, LiteralAnnounced):
                reject = RejectLiteral(overlong.rejection)
                verdict = replace(verdict, instead=reject) if isinstance(verdict, Reset) else reject
            self._owner.apply_verdict(verdict, event)
            self._owner.restart_timeout()
        return rest
