"""`IdleTimeout`: starts the timeout of a user again with each command, at almost no cost."""

from collections.abc import Callable
from typing import Any

from imapshield.edge.event_reporter import EventReporter
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.limits import Limits


class IdleTimeout:
    """Mixin for a protocol with Twisted's `TimeoutMixin`.

    To move a delayed call of Twisted costs as much as to parse a command, and each command does it twice. So only the
    time is noted, and a delayed call that comes too early waits for the rest.
    """

    active_at: float
    limits: Limits
    guard: ConnectionGuard
    reporter: EventReporter
    now: Callable[[], float]
    closed: bool
    line_mode: Any
    timeOut: Any
    setTimeout: Callable[[Any], Any]

    def restart_timeout(self, *, ends_idle: bool = False) -> None:
        """Start the timeout of a user again: `literal_seconds` while bytes of a literal are due, else `idle_seconds`.

        The timeout before login covers the whole time until the login, so it is not started again.

        Args:
            ends_idle: whether the user has sent a line. Then the longest time without one is noted.
        """
        if self.guard.authenticated and not self.closed:
            before, self.active_at = self.active_at, self.now()
            # In here, because another call for each command would cost more.
            if ends_idle and self.active_at - before > self.reporter.longest_idle:
                self.reporter.longest_idle = self.active_at - before
            limits = self.limits
            seconds = limits.idle_seconds if self.line_mode else limits.literal_seconds
            if seconds != self.timeOut:
                self.setTimeout(seconds)

    def timeout_is_early(self) -> bool:
        """Return whether the delayed call has come before the end of a user's timeout; then it waits for the rest."""
        period = self.timeOut
        left = self.active_at + period - self.now()
        if not self.guard.authenticated or left <= 0:
            return False
        self.setTimeout(left)
        self.timeOut = period
        return True
