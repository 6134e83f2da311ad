"""`MemoryShare`: records in the `MemoryBudget` of the server what one connection holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.write_buffer import WriteBuffer
from imapshield.errors import CommandRefused
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.memory_budget import MemoryBudget
from imapshield.guard.verdicts import CommandEvent, LimitReached, Reset, Verdict
from imapshield.wire.framing import Framer
from imapshield.wire.pieces import PIECE_SIZE


class Holding(Protocol):
    """What `MemoryShare` needs of the protocol that owns the connection; see `connection_owner.ConnectionOwner`."""

    guard: ConnectionGuard
    framer: Framer
    reporter: EventReporter
    write_buffer: WriteBuffer
    closed: bool
    _buffer: bytes

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """Call `func` in `period` seconds."""

    def apply_verdict(self, verdict: Verdict, event: CommandEvent | None = None) -> None:
        """Do what the guard has decided."""

    def abort(self) -> None:
        """Reset the connection, whose other parts have ended already."""


class MemoryShare:
    """What one connection holds: input that is not processed yet, commands, results, unsent output, temporary files.

    Args:
        owner: the protocol that owns the connection.
        budget: the budget that the connections of the server share.

    Attributes:
        results: bytes of results that commands hold until the client has read enough.
        spooled: bytes that a `Spool` holds in memory.
        skipped: bytes that are kept of an overlong line.
        inflating: bytes that compression holds.
    """

    __slots__ = (
        "_budget",
        "_enforcing",
        "_holder",
        "_owner",
        "inflating",
        "results",
        "skipped",
        "spooled",
    )

    def __init__(self, owner: Holding, budget: MemoryBudget) -> None:
        self.spooled = self.skipped = self.inflating = self.results = 0
        self._owner = owner
        self._budget = budget
        self._holder = budget.open(self._reset)
        self._enforcing = False

    def update(self) -> None:
        """Record what the connection holds now, and reset connections while a limit is exceeded.

        Call this when the input of one read is processed. The connection itself may be reset.
        """
        if self._record():
            self._enforce()

    def output_changed(self, all_sent: bool = False) -> None:
        """Record what the connection holds now. If a limit is exceeded, connections are reset in a later turn.

        A command may be in the middle of writing its response, so its connection cannot be reset at once.

        Args:
            all_sent: whether it holds no output any more. Then there is nothing to do if nothing is recorded.
        """
        if all_sent and not self._holder.memory:
            return
        if self._record() and not self._enforcing:
            self._enforcing = True
            self._owner.callLater(0, self._enforce)

    @contextmanager
    def hold_result(self, size: int) -> Iterator[None]:
        """Count `size` bytes, in the block, which a command holds while it sends its response.

        To record them takes as long as to encode several messages. So a small result is recorded when its command has
        to wait (`CommandRunner`), which most never do.
        """
        self.results += size
        if size > PIECE_SIZE:
            self.output_changed()
        try:
            yield
        finally:
            self.results -= size
            if self._holder.memory:
                self.output_changed()

    def _record(self) -> bool:
        owner = self._owner
        held = owner.write_buffer.unsent_bytes
        if not owner.closed:
            framer = owner.framer
            # The framer counts a literal when it is announced, also the part that waits here.
            if waiting := len(owner._buffer):
                held += max(0, waiting - framer.literal_bytes_counted)
            held += framer.memory + owner.guard.memory
            held += self.spooled + self.skipped + self.inflating + self.results
        return self._budget.hold(self._holder, held)

    def _enforce(self) -> None:
        self._enforcing = False
        while (excess := self._budget.excess(self._holder)) is not None:
            reached, victim = excess
            held = victim.memory
            victim.reset(reached)
            if victim.memory == held:  # in report-only mode
                break

    def _reset(self, reached: LimitReached) -> None:
        if self._owner.closed:  # It was closed with BYE, and the client has not read that yet.
            self._owner.abort()
            self.close()
        else:
            self._owner.apply_verdict(Reset(reached.limit, reached.value, reached.observed))

    def set_user(self, user: str | None) -> None:
        """Note that `user` has logged in, or that the user has logged out (None)."""
        self._budget.set_user(self._holder, user)

    def close(self) -> None:
        """Release what the connection has recorded, because nothing is sent any more. Files follow when closed."""
        self._budget.close(self._holder)

    def refuse_memory(self, size: int, event: CommandEvent | None = None) -> CommandRefused | None:
        """Return the refusal of `size` bytes more in memory, and report it; None if they are permitted."""
        return self._refusal(self._budget.refusal(self._holder, size), event)

    def refuse_file(self, size: int, event: CommandEvent | None = None) -> CommandRefused | None:
        """Return the refusal of `size` bytes more in temporary files, and report it; None if they are permitted."""
        return self._refusal(self._budget.file_refusal(self._holder, size), event)

    def _refusal(
        self, reached: LimitReached | None, event: CommandEvent | None
    ) -> CommandRefused | None:
        if reached is None:
            return None
        self._owner.reporter.limit_triggered("refused", reached, event)
        text = "Too much data is being received at the same time; try again later"
        return CommandRefused(b"LIMIT", text)

    def hold_file_bytes(self, change: int) -> None:
        """Record that the connection has `change` bytes more (or, below 0, fewer) in temporary files."""
        self._budget.hold_file_bytes(self._holder, change)
