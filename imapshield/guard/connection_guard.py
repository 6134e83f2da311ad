"""`ConnectionGuard`: counts what one client sends, holds its backlog, and decides when a limit is exceeded.

Rules
-----
* A command is pending from the arrival of its first line until `command_finished`, which is called when its tagged
  response is in the write buffer. The buffer is flushed at the end of the turn.
* A client that has not logged in cannot reset a count of the limits before login. After login a client may send any
  amount: a full backlog pauses its input (`input_paused`) instead of resetting the connection, unless
  `strict_backlog` is set.
* After a `Reset` the guard returns that `Reset` for every event.
* The guard reads no clock and owns no socket, so its tests need neither.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.verdicts import (
    Accepted,
    AcceptLiteral,
    Admission,
    CommandEvent,
    Disconnect,
    LimitReached,
    RejectLiteral,
    Reset,
    Verdict,
)
from imapshield.limits import Limits
from imapshield.wire.framing import LiteralAnnounced, RawCommand
from imapshield.wire.traits import traits_of

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_PARENTHESIS = re.compile(rb"[()]")

_ACCEPTED = Accepted()


class ConnectionGuard:
    """Applies `limits` to one connection.

    Attributes:
        unpacked_commands: waiting commands that are not packed, so that a client with few of them costs no more time.
        authenticated: whether a user is logged in.
        memory: about how many bytes of memory the backlog and the running command take (see `RawCommand.memory`).
        line_expected: whether the running command waits for the next line. The connection sets it.
    """

    unpacked_commands = 4

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.authenticated = False
        self.line_expected = False
        self._backlog: list[RawCommand | bytes] = []  # a deque takes 700 bytes even if it is empty
        self._backlog_bytes = self.memory = 0
        self._running: RawCommand | None = None
        self._discarded = 0
        self._incomplete = False  # a command has begun to arrive and is not complete
        self._full = False
        self._suspending: RawCommand | None = None  # the command that suspends input, if any
        self._preauth_bytes = self._preauth_commands = 0
        self._bad_commands = self._login_failures = 0
        self._after_command: Verdict = _ACCEPTED
        self._final: Reset | None = None

    @property
    def pending(self) -> int:
        """The number of pending commands, including one that has not completely arrived."""
        return len(self._backlog) + (self._running is not None) + self._incomplete

    @property
    def not_started(self) -> int:
        """The number of commands that have arrived, completely or not, and were not started; also those discarded."""
        return len(self._backlog) + self._incomplete + self._discarded

    @property
    def input_paused(self) -> bool:
        """Whether the edge must not read another line now."""
        if self._final is not None:
            return True
        if self._suspending is not None:
            return not self.line_expected
        # An incomplete command must be received to its end, or it could never be answered.
        return self._full and not self._incomplete

    def _update_full(self) -> None:
        limits = self.limits
        if not self.authenticated and not limits.reports_only("backlog"):
            self._full = False
            return
        is_far = len(self._backlog) + 2 < limits.backlog
        if is_far and self._backlog_bytes < limits.max_backlog_bytes and not self._full:
            return
        flow_control = self.authenticated and not limits.strict_backlog
        # Without flow control the excess resets the connection, or is reported. So reading pauses one command later,
        # which only report-only mode reaches. Large commands pause reading in every mode: they are no flood.
        max_pending, max_bytes = limits.backlog + (not flow_control), limits.max_backlog_bytes
        if self._full and (flow_control or not limits.reports_only("backlog")):
            # Reading resumes when half of the backlog is done: pausing and resuming costs as much as one command.
            max_pending, max_bytes = max_pending // 2 + 1, max_bytes // 2 + 1
        self._full = self.pending >= max_pending or self._backlog_bytes >= max_bytes

    @property
    def busy(self) -> bool:
        """Whether a completely received command is still unanswered."""
        return bool(self._backlog) or self._running is not None

    def bytes_received(self, count: int) -> Verdict:
        """Count `count` bytes of any kind that have arrived."""
        if self._final is not None:
            return self._final
        if not self.authenticated:
            self._preauth_bytes += count
            if self._preauth_bytes > self.limits.preauth_bytes:
                return self._reset("preauth_bytes", self._preauth_bytes)
        return _ACCEPTED

    def admit(self, event: CommandEvent) -> Admission:
        """Count a command that has begun (`LiteralAnnounced`) or is complete (`RawCommand`), and decide about it.

        A complete command that is not reset goes to the backlog; before login its parentheses are checked first, and
        a command nested too deeply is replaced by its rejection.

        Returns:
            `Reset`; for a literal also `AcceptLiteral` or `RejectLiteral`; for a command `Accepted`.
        """
        if self._final is not None:
            return self._final
        excess = self._count_command()
        if self._final is not None:
            return self._final
        result = (
            self._enqueue(event) if isinstance(event, RawCommand) else self._check_literal(event)
        )
        self._update_full()
        if excess is None or isinstance(result, Reset):
            return result
        return replace(excess, instead=result)

    def _count_command(self) -> Reset | None:
        """Count the command when its first line arrives, and return a `Reset` if it is one too many."""
        if self._incomplete:
            return None
        self._incomplete = True
        self._preauth_commands += not self.authenticated
        limits, reached = self.limits, None
        if self.pending > limits.backlog:
            both = self._preauth_commands > limits.preauth_commands
            both = both and not limits.reports_only("preauth_commands")
            binding = "backlog,preauth_commands" if both else ""
            reached = self._reset("backlog", self.pending, binding)
        if self._final is None and self._preauth_commands > limits.preauth_commands:
            second = self._reset("preauth_commands", self._preauth_commands)
            reached = reached or second
        return reached

    def _enqueue(self, command: RawCommand) -> Admission:
        self._incomplete = False
        rejection = command.rejection
        if rejection is None and not self.authenticated:
            rejection = self._check_nesting(part for part in command.parts if type(part) is bytes)
            if rejection is not None:
                command = command.rejected(rejection)
        if rejection is None and traits_of(command.name).suspends_input:
            self._suspending = command  # it is recognized by its identity when it runs
        is_kept = command is self._suspending or len(self._backlog) < self.unpacked_commands
        self._backlog.append(command if is_kept else command.packed())
        self._backlog_bytes += _size(command)
        self.memory += command.memory
        return _ACCEPTED

    def _check_literal(self, event: LiteralAnnounced) -> Admission:
        if event.tag is None:
            return RejectLiteral(BadCommand(""))  # the framer answers with the reason
        if not self.authenticated:
            return self._check_preauth_literal(event)
        limits = self.limits
        if event.literals >= limits.max_command_literals:
            values = limits.max_command_literals, event.literals + 1
            reached = LimitReached("max_command_literals", *values)
            text = "Too many literals in one command"
            return RejectLiteral(CommandRefused(b"LIMIT", text, reached))
        # the text between the literals
        rejected = self._check_size("Command", event.octets, "max_command_size")
        if rejected is not None:
            return rejected
        traits = traits_of(event.name)
        if traits.carries_messages:
            return self._check_message(event)
        if traits.carries_metadata:
            code = b"METADATA MAXSIZE %d" % limits.max_metadata_size  # RFC 5464 section 4.3
            rejected = self._check_size("Metadata value", event.size, "max_metadata_size", code)
        else:
            rejected = self._check_size("Literal", event.size, "max_literal_size")
        size = event.literal_octets + event.octets + event.size
        rejected = rejected or self._check_size("Command", size, "max_command_size")
        return rejected or AcceptLiteral()

    def _check_message(self, event: LiteralAnnounced) -> Admission:
        size = event.literal_octets + event.size
        return (
            self._check_size("Message", event.size, "max_message_size")
            or self._check_size("Total size of the messages", size, "max_append_size")
            or AcceptLiteral()
        )

    def _check_size(
        self, subject: str, size: int, limit: str, code: bytes = b"TOOBIG"
    ) -> RejectLiteral | None:
        max_size: int = getattr(self.limits, limit)
        if size <= max_size:
            return None
        text = f"{subject} too large: the limit is {max_size} bytes"
        return RejectLiteral(CommandRefused(code, text, LimitReached(limit, max_size, size)))

    def _check_preauth_literal(self, event: LiteralAnnounced) -> Admission:
        rejection = self._check_nesting(event.texts)
        if rejection is not None:
            return RejectLiteral(rejection)
        if event.literals >= self.limits.preauth_literals:
            return RejectLiteral(BadCommand("Too many literals in one command"))
        max_size = self.limits.preauth_literal_size
        if event.size <= max_size:
            # In report-only mode the number of bytes before login is not limited, but the size of a command is.
            size = event.literal_octets + event.octets + event.size
            return self._check_size("Command", size, "preauth_bytes") or AcceptLiteral()
        text = f"Literal too large: the limit before login is {max_size} bytes"
        too_large = RejectLiteral(BadCommand(text))
        if event.synchronizing:
            return too_large
        # A client that does not wait has sent the literal already. Skipping it would cost work whose amount an
        # unauthenticated client chooses.
        return replace(self._reset("preauth_literal_size", event.size), instead=too_large)

    def _check_nesting(self, texts: Iterable[bytes]) -> BadCommand | None:
        """Check the parentheses of a command before login, even if the command is not complete yet.

        CVE-2026-27857 was an endless line of opening parentheses.
        """
        depth = 0
        for text in texts:
            for found in _PARENTHESIS.finditer(_QUOTED.sub(b"", text)):
                depth += 1 if found[0] == b"(" else -1
                if depth > self.limits.preauth_nesting:
                    return BadCommand("Too many nested parentheses before login")
        return None

    def next_command(self) -> RawCommand | None:
        """Take the next command off the backlog; None if the backlog is empty or a command is running."""
        if self._running is not None or not self._backlog or self._final is not None:
            return None
        self._running = RawCommand.unpacked(self._backlog.pop(0))
        self._backlog_bytes -= _size(self._running)
        if self._full:
            self._update_full()
        return self._running

    def waiting(self, first: int, count: int) -> list[RawCommand]:
        """Return `count` of the commands on the backlog, from number `first` on. They stay there, and pending."""
        return [RawCommand.unpacked(each) for each in self._backlog[first : first + count]]

    def command_finished(self) -> Verdict:
        """Note that the running command's tagged response is in the write buffer.

        Returns:
            The `Disconnect` that `bad_command` or `login_failed` has caused, so that the BYE follows the response;
            otherwise `Accepted`.
        """
        if self._running is self._suspending:
            self._suspending = None
            self.line_expected = False
        if self._running is not None:
            self.memory -= self._running.memory
        self._running = None
        if self._full:
            self._update_full()
        verdict, self._after_command = self._after_command, _ACCEPTED
        return self._final or verdict

    def consume_expected_line(self) -> bool:
        """Return whether the line that has arrived is for the running command, and expect no further one."""
        expected, self.line_expected = self.line_expected, False
        return expected

    def backlog_full(self) -> bool:
        """Return whether the backlog is full. A peer with a full backlog that reads no responses is stalled."""
        return self._full or self.pending >= self.limits.backlog

    def command_parsed(self) -> None:
        """Note that a command was well-formed. After login this starts the count of invalid commands again."""
        if self.authenticated:
            self._bad_commands = 0

    def bad_command(self) -> None:
        """Count an invalid command, which has been answered with BAD."""
        self._bad_commands += 1
        limit = "max_bad_commands" if self.authenticated else "preauth_bad_commands"
        self._disconnect_at(limit, self._bad_commands, "Disconnected: Too many invalid commands")

    def login_failed(self) -> None:
        """Count a failed login. No login resets this count: a user could else try the passwords of other users."""
        self._login_failures += 1
        text = "Disconnected: Too many failed logins"
        self._disconnect_at("max_login_failures", self._login_failures, text)

    def timed_out(self, waited: float, *, in_literal: bool) -> Disconnect:
        """Return the verdict for a client that has not logged in in time, or has sent nothing for too long.

        Args:
            waited: how long the server has waited, in seconds.
            in_literal: whether bytes of a literal are due.
        """
        if not self.authenticated:
            limit, text = "preauth_seconds", "Disconnected: Login timeout"
        else:
            limit = "literal_seconds" if in_literal else "idle_seconds"
            text = "Disconnected: Inactivity timeout"
        return Disconnect(limit, getattr(self.limits, limit), waited, text)

    def preauth_counts(self) -> dict[str, float]:
        """Return what was counted before login, by the names of the limits. `login` forgets it."""
        return {
            "preauth_commands": self._preauth_commands,
            "preauth_bytes": self._preauth_bytes,
            "preauth_bad_commands": self._bad_commands,
            "max_login_failures": self._login_failures,
        }

    @property
    def bad_commands(self) -> int:
        """The number of invalid commands in a row, or before login of all."""
        return self._bad_commands

    def login(self) -> None:
        """Apply the limits of a logged-in user from now on.

        The counts from before the login begin again after UNAUTHENTICATE, because a client may reuse a connection for
        any number of users, one after the other (RFC 8437).
        """
        self.authenticated = True
        self._bad_commands = self._preauth_bytes = self._preauth_commands = 0
        self._update_full()

    def logout(self) -> None:
        """Apply the limits before login again (UNAUTHENTICATE)."""
        self.authenticated = False
        self._update_full()

    def discard(self) -> None:
        """Drop the backlog, because the connection has ended."""
        self._discarded += len(self._backlog)
        for command in self._backlog:
            if isinstance(command, RawCommand):
                command.close()
        self._backlog.clear()
        self._backlog_bytes = 0
        self.memory = self._running.memory if self._running is not None else 0
        self._final = self._final or Reset("closed", 0, 0)

    def _reset(self, limit: str, observed: float, binding: str = "") -> Reset:
        verdict = Reset(limit, getattr(self.limits, limit), observed, binding=binding)
        if not self.limits.reports_only(limit):
            self._final = verdict
        return verdict

    def _disconnect_at(self, limit: str, count: int, text: str) -> None:
        max_count = getattr(self.limits, limit)
        if count >= max_count:
            self._after_command = Disconnect(limit, max_count, count, text)


def _size(command: RawCommand) -> int:
    size = command.octets
    for literal in command.literals:
        size += literal.size
    return size
