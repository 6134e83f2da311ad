"""`SharedParts`: what all connections of a server share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from imapshield import events
from imapshield.edge.admission import Admission
from imapshield.edge.fair_queue import FairQueue
from imapshield.edge.input_turns import InputTurns
from imapshield.edge.login_checks import LoginChecks
from imapshield.edge.user_turns import UserTurns
from imapshield.guard.busy_users import BusyUsers
from imapshield.guard.memory_budget import MemoryBudget
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.unread_work import UnreadWork
from imapshield.limits import Limits


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The parts of a server that its connections share.

    Attributes:
        admission: counts the connections, and admits them and their logins.
        busy_users: counts for how long the server computes for each user.
        fair_queue: the queue in which the connections take turns.
        input_turns: bounds the input that is processed in one turn of the reactor.
        login_checks: the queue of password checks.
        memory_budget: what the server holds for the connections.
        unread_work: bounds the work for clients that are not known to read.
        user_turns: bounds the commands of each user that compute at the same time.
        working: the connections whose commands have been executed lately, for those who count their work; they take
            connections out again.
    """

    admission: Admission
    busy_users: BusyUsers
    fair_queue: FairQueue
    input_turns: InputTurns
    login_checks: LoginChecks
    memory_budget: MemoryBudget
    unread_work: UnreadWork
    user_turns: UserTurns
    working: set[Any] = field(default_factory=set)

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits from now on."""
        self.admission.guard.set_limits(limits)
        self.fair_queue.max_seconds = limits.turn_seconds
        self.login_checks.set_limits(limits)
        self.memory_budget.limits = limits

    @classmethod
    def make(
        cls,
        limits: Limits,
        observers: Iterable[events.EventObserver],
        call_later: Callable[[float, Callable[[], object]], Any],
        now: Callable[[], float],
        guard: ProcessGuard | None = None,
    ) -> Self:
        """Return new parts.

        Args:
            limits: the limits of the server.
            observers: called with each event.
            call_later: the reactor's `callLater`.
            now: the reactor's `seconds`.
            guard: applies the limits of all connections together; by default one that trusts no network.
        """
        guard = guard or ProcessGuard(limits)
        return cls(
            Admission(guard, observers, now),
            BusyUsers(now()),
            FairQueue(call_later, now, limits.turn_seconds),
            InputTurns(call_later, now),
            LoginChecks(limits, call_later, now, guard.failures.is_known),
            MemoryBudget(limits),
            UnreadWork(),
            UserTurns(),
        )
