"""A second, independent statement of the rules of `ConnectionGuard`, for the search of `benchmarks.guard_states`.

It is written from docs/limits.rst and README.rst, and derives everything that the guard counts from one list of
commands. A verdict is a value that compares by itself: ``"accepted"``, ``("reset", limit, value, observed, instead)``.
"""

from typing import NamedTuple

from imapshield.errors import BadCommand
from imapshield.limits import Limits
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import LiteralAnnounced, RawCommand

Outcome = str | tuple[object, ...] | None

ACCEPTED, ACCEPT_LITERAL, REJECT_LITERAL, TAKEN = "accepted", "accept", "reject", "taken"


class Literal(MemoryLiteral):
    """The content of a literal. `closed` counts how many were closed."""

    closed = 0

    def close(self) -> None:
        """Count."""
        Literal.closed += 1


class Kind(RawCommand):
    """A command as an event of the search. Two commands of one kind are the same object, so it compares by identity."""

    __slots__ = ()
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def packed(self) -> "Kind":
        """Return what runs in place of a command that is kept as its line: an equal one, but another object."""
        return UNPACKED.get(self, self)


LITERAL = Literal(b"ab")
PLAIN = Kind(b"a", b"NOOP", (b"NOOP",), 1)
LARGE = Kind(b"a", b"LOGIN", (b"LOGIN ", LITERAL, b" x"), 1)
SUSPENDING = Kind(b"a", b"IDLE", (b"IDLE",), 1)
NESTED = Kind(b"a", b"LOGIN", (b"LOGIN (", LITERAL, b" ("), 1)
NESTED_SUSPENDING = Kind(b"a", b"IDLE", (b"IDLE ((",), 1)
REJECTED = Kind(b"a", b"NOOP", (), 1, BadCommand("rejected by the framer"))
REJECTED_SUSPENDING = Kind(b"a", b"IDLE", (), 1, BadCommand("rejected by the framer"))

COMMANDS = {
    "plain": PLAIN,
    "large": LARGE,
    "suspending": SUSPENDING,
    "nested": NESTED,
    "nested-suspending": NESTED_SUSPENDING,
    "rejected": REJECTED,
    "rejected-suspending": REJECTED_SUSPENDING,
}
ALIKE = {
    NESTED: LARGE,
    NESTED_SUSPENDING: SUSPENDING,
    REJECTED_SUSPENDING: REJECTED,
}
UNPACKED = {kind: Kind(*kind) for kind in (PLAIN, SUSPENDING)}
ALIKE |= {unpacked: kind for kind, unpacked in UNPACKED.items()}
"""Commands that differ only in what matters when they arrive. A waiting one is replaced by the one that it equals."""
SIZES = {PLAIN: 1, LARGE: 3, SUSPENDING: 1, REJECTED: 1}


class Settings(NamedTuple):
    """A configuration of the search.

    Args:
        size: the number that all limits are scaled down to, or one more or less where two limits must be told apart.
        strict: the limit `strict_backlog`.
        report_only: the limit `report_only`.
        reported: a limit of `report_only_limits`; "" for none.
    """

    size: int
    strict: bool = False
    report_only: bool = False
    reported: str = ""

    def reports(self, limit: str) -> bool:
        """Return whether a limit is reported and not enforced."""
        return self.report_only or limit == self.reported

    def limits(self) -> Limits:
        """Return the limits of the guard."""
        size = self.size
        return Limits(
            backlog=size,
            strict_backlog=self.strict,
            report_only=self.report_only,
            report_only_limits=frozenset({self.reported} - {""}),
            preauth_commands=size - 1 if self.reports("preauth_commands") else size + 1,
            preauth_bytes=size,
            preauth_literal_size=1,
            preauth_nesting=1,
            preauth_bad_commands=size - 1,
            max_bad_commands=size,
            max_login_failures=size,
            max_backlog_bytes=size + 1,
            max_literal_size=2,
            max_command_size=size + 1,
            max_command_literals=size,
            preauth_seconds=11,
            literal_seconds=12,
            idle_seconds=13,
        )


def _announced(size: int = 1, *, tag: bytes | None = b"a", **fields: object) -> LiteralAnnounced:
    values: dict[str, object] = {
        "synchronizing": True,
        "texts": (b"LOGIN ",),
        "literals": 0,
        "literal_octets": 0,
        "octets": 1,
    }
    return LiteralAnnounced(tag, b"LOGIN", size, **{**values, **fields})  # type: ignore[arg-type]


def announcements(size: int) -> dict[str, LiteralAnnounced]:
    """Return the literals that a client announces under limits of `size`."""
    return {
        "literal": _announced(),
        "literal too large before login": _announced(2),
        "pushed literal too large": _announced(2, synchronizing=False),
        "literal too large": _announced(3, synchronizing=False),
        "literal after parentheses": _announced(texts=(b"LOGIN ((",)),
        "literal of no command": _announced(tag=None, texts=()),
        "literal above the total": _announced(literal_octets=size),
    }


class GuardModel:
    """What docs/limits.rst demands of a connection.

    Attributes:
        waiting: the complete commands that have not begun to run, oldest first.
        running: the command that runs.
        incomplete: whether a command has begun to arrive.
        counts: bytes and commands before login, invalid commands, failed logins.
        bye: the disconnection that follows the response of the running command.
        end: the verdict that has ended the connection.
        closed: how many literals were closed.
        full: whether the backlog holds the input up.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = settings.limits()
        self.authenticated = self.line_expected = self.incomplete = self.full = False
        self.waiting: tuple[Kind, ...] = ()
        self.running: Kind | None = None
        self.octets = self.commands = self.bad = self.failures = 0
        self.bye: Outcome = ACCEPTED
        self.end: Outcome = None
        self.closed = 0

    # What can be observed

    @property
    def pending(self) -> int:
        """How many commands have begun to arrive and are not answered."""
        return len(self.waiting) + (1 if self.running else 0) + (1 if self.incomplete else 0)

    @property
    def busy(self) -> bool:
        """Whether a complete command is not answered."""
        return self.running is not None or self.waiting != ()

    @property
    def input_paused(self) -> bool:
        """Whether no line may be read."""
        if self.end is not None:
            return True
        unanswered = (self.running, *self.waiting)
        if SUSPENDING in unanswered:
            return not self.line_expected
        return self.full and not self.incomplete

    def backlog_full(self) -> bool:
        """Whether a client that reads nothing is stalled."""
        return self.full or self.pending >= self.limits.backlog

    def bytes_held(self) -> int:
        """Return the size of all waiting commands."""
        return sum(SIZES[kind] for kind in self.waiting)

    def timed_out(self, in_literal: bool) -> Outcome:
        """Return what ends a silent connection."""
        limit = "preauth_seconds"
        if self.authenticated:
            limit = "literal_seconds" if in_literal else "idle_seconds"
        return "bye", limit, getattr(self.limits, limit), 99

    # Events

    def bytes_received(self, count: int) -> Outcome:
        """Bytes arrive."""
        if self.end is None and not self.authenticated:
            self.octets += count
            if self.octets > self.limits.preauth_bytes:
                return self._exceeded("preauth_bytes", self.octets)
        return self.end or ACCEPTED

    def line(self, kind: Kind) -> Outcome:
        """A line arrives that completes a command, unless the running command waits for it."""
        if self.line_expected:
            self.line_expected = False
            return TAKEN
        return self.complete(kind)

    def complete(self, kind: Kind) -> Outcome:
        """A command is complete."""
        excess = self._begin()
        if self.end is not None:
            return self.end
        self.incomplete = False
        if kind in (NESTED, NESTED_SUSPENDING) and not self.authenticated:
            self.closed += kind is NESTED
            kind = REJECTED
        self.waiting += (ALIKE.get(kind, kind),)
        return self._settle(excess, ACCEPTED)

    def announce(self, literal: LiteralAnnounced) -> Outcome:
        """A literal is announced."""
        if self.line_expected:
            self.line_expected = False
            return TAKEN
        excess = self._begin()
        if self.end is not None:
            return self.end
        return self._settle(excess, self._literal(literal))

    def next_command(self) -> Kind | None:
        """The oldest waiting command begins to run."""
        if self.end is not None or self.running is not None or not self.waiting:
            return None
        self.running, self.waiting = self.waiting[0], self.waiting[1:]
        self._settle()
        return self.running

    def command_finished(self) -> Outcome:
        """The running command is answered."""
        if self.running is SUSPENDING:
            self.line_expected = False
        self.running = None
        verdict, self.bye = self.bye, ACCEPTED
        self._settle()
        return self.end or verdict

    def bad_command(self) -> None:
        """The running command is invalid."""
        self.bad += 1
        limit = "max_bad_commands" if self.authenticated else "preauth_bad_commands"
        self._count(limit, self.bad)

    def command_parsed(self) -> None:
        """The running command is well-formed."""
        if self.authenticated:
            self.bad = 0

    def login_failed(self) -> None:
        """The running command gave a wrong password."""
        self.failures += 1
        self._count("max_login_failures", self.failures)

    def login(self) -> None:
        """The running command has logged a user in."""
        self.authenticated = True
        self.octets = self.commands = self.bad = 0
        self._settle()

    def logout(self) -> None:
        """The running command is UNAUTHENTICATE."""
        self.authenticated = False
        self._settle()

    def discard(self) -> None:
        """The connection has ended."""
        self.closed += self.waiting.count(LARGE)
        self.waiting = ()
        self.end = self.end or ("reset", "closed", 0, 0, ACCEPTED)

    # The rules

    def _begin(self) -> Outcome:
        """Count a command at its first line, and return the verdict if that is one too many."""
        if self.end is not None or self.incomplete:
            return None
        self.incomplete = True
        excess: Outcome = None
        if self.pending > self.limits.backlog:
            excess = self._exceeded("backlog", self.pending)
        if not self.authenticated:
            self.commands += 1
            if self.end is None and self.commands > self.limits.preauth_commands:
                second = self._exceeded("preauth_commands", self.commands)
                excess = excess or second
        return excess

    def _literal(self, literal: LiteralAnnounced) -> Outcome:
        nested = b"((" in b"".join(literal.texts)
        if literal.tag is None or (nested and not self.authenticated):
            return REJECT_LITERAL
        limits = self.limits
        if self.authenticated:
            max_size, max_total = limits.max_literal_size, limits.max_command_size
        else:
            max_size, max_total = limits.preauth_literal_size, limits.preauth_bytes
            if literal.size > max_size and not literal.synchronizing:
                return self._exceeded("preauth_literal_size", literal.size, REJECT_LITERAL)
        total = literal.literal_octets + literal.octets + literal.size
        fits = literal.size <= max_size and total <= max_total
        return ACCEPT_LITERAL if fits else REJECT_LITERAL

    def _exceeded(self, limit: str, observed: int, instead: Outcome = ACCEPTED) -> Outcome:
        value = getattr(self.limits, limit)
        if self.settings.reports(limit):
            return "reset", limit, value, observed, instead
        self.end = "reset", limit, value, observed, ACCEPTED
        return "reset", limit, value, observed, instead

    def _count(self, limit: str, observed: int) -> None:
        value = getattr(self.limits, limit)
        if observed >= value:
            self.bye = "bye", limit, value, observed

    def _settle(self, excess: Outcome = None, result: Outcome = None) -> Outcome:
        """Apply the rule about holding input up; return `result`, or the reported `excess` with it."""
        count, octets = self.pending, self.bytes_held()
        most, most_bytes = self.limits.backlog, self.limits.max_backlog_bytes
        flow_control = self.authenticated and not self.settings.strict
        reported = self.settings.reports("backlog")
        if not flow_control:
            most += 1  # the excess command is reset, or reported and accepted
        if not self.authenticated and not reported:
            self.full = False  # the limits before login are all that a stranger needs
        elif count >= most or octets >= most_bytes:
            self.full = True
        elif self.full and (flow_control or not reported):
            self.full = count > most // 2 or octets > most_bytes // 2
        else:
            self.full = False
        if excess is None or (result and result[0] == "reset"):
            return result
        assert isinstance(excess, tuple)
        return (*excess[:4], result)
