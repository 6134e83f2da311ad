"""One connection's guard: counts what arrives, keeps the backlog, and says what is too much.

Rules
-----
* A command is pending from the moment its first line arrives until `answered`.
* Before login everything has an allowance for the life of the connection. After login a client may send without
  end, and is held (`holding`) instead of reset while the backlog is full; `strict_backlog` resets it all the same.
* Once it has said `Reset` the guard is dead and says nothing else.
* No clock, no socket: tests need neither.
"""

from __future__ import annotations

import re
from collections import deque

from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.verdicts import (
    Accepted,
    AcceptLiteral,
    Disconnect,
    RejectLiteral,
    Reset,
    Verdict,
)
from imapshield.limits import Limits
from imapshield.wire.framing import LiteralAnnounced, RawCommand

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_PARENTHESIS = re.compile(rb"[()]")

# After these the next line is not a command, or not to be read as we read this one: nothing behind them is
# taken up until they are answered or ask for a line.
EXCLUSIVE = frozenset({b"IDLE", b"AUTHENTICATE", b"STARTTLS", b"COMPRESS", b"UNAUTHENTICATE"})


class ConnectionGuard:
    """Judges one connection."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.authenticated = False
        self._backlog: deque[RawCommand] = deque()
        self._backlog_octets = 0
        self._running: RawCommand | None = None
        self._unfinished = self._full = False
        self._exclusive: RawCommand | None = None
        self._asked = False
        self._octets = self._commands = self._bad = self._failures = 0
        self._dead: Reset | None = None

    @property
    def pending(self) -> int:
        """Commands pending now, the one that is still arriving among them."""
        return len(self._backlog) + (self._running is not None) + self._unfinished

    @property
    def input_paused(self) -> bool:
        """Whether the edge must not take up another line."""
        if self._dead is not None:
            return True
        if self._exclusive is not None:
            return not self._asked
        controlled = self.authenticated and not self.limits.strict_backlog
        if controlled or self.limits.report_only:
            # to report the excess there has to be one; and a command that is half here must be let in
            # whole, or it could never leave
            most = self.limits.backlog + (not controlled)
            octets = self.limits.max_backlog_bytes
            if self._full and controlled:
                # until half of it is done: to go on and stop again costs as much as a command
                most, octets = most // 2 + 1, octets // 2 + 1
            self._full = self.pending >= most or self._backlog_octets >= octets
            return self._full and not self._unfinished
        return False

    @property
    def busy(self) -> bool:
        """Whether a command before the one that is arriving is still unanswered."""
        return bool(self._backlog) or self._running is not None

    def bytes_received(self, count: int) -> Verdict:
        """Octets have arrived, of whatever kind."""
        if self.authenticated:
            return Accepted()
        self._octets += count
        if self._octets > self.limits.preauth_bytes:
            return self._abort("preauth_bytes", self._octets)
        return Accepted()

    def check(self, event: RawCommand | LiteralAnnounced) -> Verdict:
        """A command has begun (`LiteralAnnounced`) or is complete (`RawCommand`): is it taken up?"""
        if self._dead is not None:
            return self._dead
        excess = self._count()
        if excess is not None and not self.limits.report_only:
            self._dead = excess
            return excess
        if isinstance(event, LiteralAnnounced):
            return excess or self._literal(event)
        self._unfinished = False
        refusal = event.rejection or self._depth(
            tuple(p for p in event.parts if isinstance(p, bytes))
        )
        if refusal is not event.rejection:
            event = RawCommand(event.tag, event.name, (), event.octets, refusal)
        self._backlog.append(event)
        self._backlog_octets += _octets(event)
        if event.name in EXCLUSIVE and refusal is None:
            self._exclusive = event
        return excess or Accepted()

    def _count(self) -> Reset | None:
        """Count a command that begins, and say if it is one too many."""
        if self._unfinished:
            return None
        self._unfinished = True
        self._commands += not self.authenticated
        limits = self.limits
        if self.pending > limits.backlog:
            return Reset("backlog", limits.backlog, self.pending)
        if not self.authenticated and self._commands > limits.preauth_commands:
            return Reset("preauth_commands", limits.preauth_commands, self._commands)
        return None

    def _literal(self, event: LiteralAnnounced) -> Verdict:
        limits = self.limits
        if event.tag is None:
            return RejectLiteral(BadCommand("A command begins with a tag and a space"))
        refusal = self._depth(event.texts)
        if refusal is not None:
            return RejectLiteral(refusal)
        if not self.authenticated:
            if event.size > limits.preauth_literal_size:
                return self._too_big(event, "preauth_literal_size", limits.preauth_literal_size)
            return AcceptLiteral()
        if event.literals >= limits.max_command_literals:
            return RejectLiteral(CommandRefused(b"LIMIT", "Too many literals in one command"))
        if event.octets > limits.max_command_size:  # what stands between the literals
            return self._too_long()
        if event.name in (b"APPEND", b"REPLACE"):
            if event.size > limits.max_message_size:
                return RejectLiteral(
                    CommandRefused(
                        b"TOOBIG", f"A message may have {limits.max_message_size} octets"
                    )
                )
            if event.literal_octets + event.size > limits.max_append_size:
                return RejectLiteral(
                    CommandRefused(
                        b"TOOBIG", f"Messages together may have {limits.max_append_size} octets"
                    )
                )
            return AcceptLiteral()
        if event.name == b"SETMETADATA" and event.size > limits.max_metadata_size:
            code = b"METADATA MAXSIZE %d" % limits.max_metadata_size  # RFC 5464 section 4.3
            return RejectLiteral(CommandRefused(code, "That value is too long"))
        if event.size > limits.max_literal_size:
            return RejectLiteral(
                CommandRefused(
                    b"TOOBIG", f"A literal here may have {limits.max_literal_size} octets"
                )
            )
        if event.literal_octets + event.octets + event.size > limits.max_command_size:
            return self._too_long()
        return AcceptLiteral()

    def _too_long(self) -> Verdict:
        most = self.limits.max_command_size
        return RejectLiteral(CommandRefused(b"TOOBIG", f"A command may have {most} octets"))

    def _too_big(self, event: LiteralAnnounced, limit: str, value: int) -> Verdict:
        if event.synchronizing:
            return RejectLiteral(BadCommand(f"A literal may have {value} octets before login"))
        # it has been sent already: to skip what a stranger chose the size of is to work for them
        return self._abort(limit, event.size)

    def _depth(self, texts: tuple[bytes, ...]) -> BadCommand | None:
        """Parentheses before login, told from the text so far: CVE-2026-27857 sent them without an end."""
        if self.authenticated:
            return None
        depth = 0
        for text in texts:
            for found in _PARENTHESIS.finditer(_QUOTED.sub(b"", text)):
                depth += 1 if found[0] == b"(" else -1
                if depth > self.limits.preauth_nesting:
                    return BadCommand("Too many levels of parentheses before login")
        return None

    def next_command(self) -> RawCommand | None:
        """Take the next command off the backlog, to be executed; None when there is none or one is running."""
        if self._running is not None or not self._backlog:
            return None
        self._running = self._backlog.popleft()
        self._backlog_octets -= _octets(self._running)
        return self._running

    def command_finished(self) -> None:
        """The running command's tagged response has gone to the transport."""
        if self._running is self._exclusive:
            self._exclusive = None
            self._asked = False
        self._running = None

    def expect_line(self) -> None:
        """The running command wants the next line for itself."""
        self._asked = True

    def consume_expected_line(self) -> bool:
        """Whether the line that has come is for the running command; if so it was asked for only once."""
        asked, self._asked = self._asked, False
        return asked

    def backlog_full(self) -> bool:
        """Whether the backlog is full, so that a peer which does not read either is up to no good."""
        return self._full or self.pending >= self.limits.backlog

    def command_parsed(self) -> None:
        """A command was well-formed."""
        if self.authenticated:
            self._bad = 0

    def bad_command(self) -> Verdict:
        """A command was malformed, and that was said."""
        self._bad += 1
        name = "max_bad_commands" if self.authenticated else "preauth_bad_commands"
        value = (
            self.limits.max_bad_commands if self.authenticated else self.limits.preauth_bad_commands
        )
        if self._bad >= value:
            return Disconnect(name, value, self._bad, "Too many malformed commands")
        return Accepted()

    def login_failed(self) -> Verdict:
        """A login was refused."""
        self._failures += 1
        if self._failures >= self.limits.max_login_failures:
            return Disconnect(
                "max_login_failures",
                self.limits.max_login_failures,
                self._failures,
                "Too many failed logins",
            )
        return Accepted()

    def login(self) -> None:
        """The client is a user now."""
        self.authenticated = True
        self._bad = 0

    def logout(self) -> None:
        """The client is a stranger again (UNAUTHENTICATE), with what is left of a stranger's allowance."""
        self.authenticated = False

    def discard(self) -> None:
        """The connection ends: nothing more is executed."""
        for frame in self._backlog:
            for part in frame.parts:
                if not isinstance(part, bytes):
                    part.close()
        self._backlog.clear()
        self._backlog_octets = 0
        self._dead = self._dead or Reset("closed", 0, 0)

    def _abort(self, limit: str, seen: float) -> Reset:
        verdict = Reset(limit, getattr(self.limits, limit), seen)
        if not self.limits.report_only:
            self._dead = verdict
        return verdict


def _octets(frame: RawCommand) -> int:
    return frame.octets + sum(part.size for part in frame.parts if not isinstance(part, bytes))
