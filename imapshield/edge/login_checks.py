"""`LoginChecks`: runs the password checks of all connections, few at once and fairly shared between addresses.

Every client can have passwords checked, which is the most expensive work that a client without a login can
cause. The checkers do not know the address of the client, so the fair order is made here, in front of the portal.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imapshield.edge.write_buffer import Disconnected
from imapshield.guard.login_queue import LoginQueue
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

Check = Callable[[], Deferred[Any]]
"""Checks a password; the result is that of `Authentication.check_credentials`."""

LEFT = "the client has left during a login"
"""Why a connection has ended that is found closed when its login would go on."""


class LoginNotChecked(Exception):
    """The password was not checked, because of a limit.

    Attributes:
        reached: the limit.
        holder: the address of the clients that most checks and waiting attempts belong to.
    """

    def __init__(self, reached: LimitReached, holder: str) -> None:
        super().__init__(reached, holder)
        self.reached = reached
        self.holder = holder


@dataclass(slots=True, eq=False)
class LoginAttempt:
    """A client that wants its password to be checked.

    Args:
        address: the address of the client.
        known: whether the user has logged in from this address before.
        has_left: returns whether the client has closed the connection. While a command runs nothing is read from the
            client, so the reactor does not notice that.
        report: reports a limit that is not enforced, with the holder as in `LoginNotChecked`.
        note: called with the name of a limit and the seconds that are compared with it.
        abandon: called instead of the check if the client has left; it ends the connection.
    """

    address: str
    known: bool
    has_left: Callable[[], bool] = lambda: False
    abandon: Callable[[], object] = lambda: None
    note: Callable[[str, float], object] = lambda _limit, _seconds: None
    report: Callable[[LimitReached, str], object] = lambda _reached, _holder: None
    turn: Deferred[None] | None = field(default=None, init=False)  # while it waits
    # Forgets it, while it waits.
    drop: Callable[[], object] = field(default=lambda: None, init=False)


class RunsChecks(Protocol):
    """Runs the check of an attempt in its turn, as `LoginChecks` does."""

    async def run(self, attempt: LoginAttempt, check: Check) -> Any:
        """Wait for the turn, and return the result of `check`; as `LoginChecks.run`."""


class LoginChecks:
    """The checks of one server. `LoginQueue` decides whose check is next.

    Args:
        limits: the limits.
        call_later: the reactor's `callLater`.
        now: the reactor's `seconds`.
        is_known: returns whether a user has logged in from an address before.
    """

    def __init__(
        self,
        limits: Limits,
        call_later: Callable[[float, Callable[[], object]], Any],
        now: Callable[[], float],
        is_known: Callable[[str, bytes], bool] = lambda _address, _user: False,
    ) -> None:
        self._limits = limits
        self._call_later = call_later
        self._now = now
        self.is_known = is_known
        self._queue = LoginQueue(limits.max_login_checks)
        self._serving = False

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits to the logins that come."""
        self._limits = limits
        self._queue.set_max_checks(limits.max_login_checks)
        self._serve_later()

    async def run(self, attempt: LoginAttempt, check: Check) -> Any:
        """Wait for the turn of `attempt`, call `check`, and return the result of its Deferred.

        Raises:
            LoginNotChecked: the turn did not come in `login_queue_seconds`, or the result in `login_check_seconds`.
            Disconnected: `drop` was called while the attempt waited for its turn.
        """
        added_at = self._now()
        self._queue.add(attempt, attempt.address, attempt.known)
        if len(self._queue) > 1 or self._queue.next() is None:
            await self._wait(attempt)
        begun_at = self._now()
        attempt.note("login_queue_seconds", begun_at - added_at)
        try:
            return await self._result(attempt, check)
        finally:
            attempt.note("login_check_seconds", self._now() - begun_at)

    async def _wait(self, attempt: LoginAttempt) -> None:
        started = self._now()
        turn: Deferred[None] = Deferred()
        attempt.turn, attempt.drop = turn, lambda: self.drop(attempt)

        def give_up() -> None:
            error = self._not_checked(attempt, "login_queue_seconds", started)
            if error is not None:
                self._queue.remove(attempt)
                turn.errback(error)

        timer = self._call_later(self._limits.login_queue_seconds, give_up)
        self._serve_later()
        try:
            await turn
        finally:
            attempt.turn = None
            if timer.active():
                timer.cancel()

    def _result(self, attempt: LoginAttempt, check: Check) -> Deferred[Any]:
        """Call `check`, and return a Deferred that fires with its result, at the latest in `login_check_seconds`."""
        started = self._now()
        result: Deferred[Any] = Deferred()

        def give_up() -> None:
            # The checker works on. It is not cancelled, because a realm could lose an account that is half open.
            error = self._not_checked(attempt, "login_check_seconds", started)
            if error is not None:
                self._finished(attempt)
                result.errback(error)

        def finished(outcome: Any) -> None:
            if timer.active():
                timer.cancel()
            if not result.called:
                self._finished(attempt)
                result.callback(outcome)
            elif not isinstance(outcome, Failure):  # nobody waits for it any more
                _, _, logout = outcome
                logout()

        timer = self._call_later(self._limits.login_check_seconds, give_up)
        try:
            checked = check()
        except BaseException:
            timer.cancel()
            self._finished(attempt)
            raise
        checked.addBoth(finished)
        return result

    def _not_checked(
        self, attempt: LoginAttempt, limit: str, started: float
    ) -> LoginNotChecked | None:
        """Return the error for an attempt that has reached `limit`; None if the limit is only reported."""
        waited, holder = self._now() - started, self._queue.holder()
        reached = LimitReached(limit, getattr(self._limits, limit), waited)
        if limit in self._limits.report_only_limits:
            attempt.report(reached, holder)
            return None
        return LoginNotChecked(reached, holder)

    def _finished(self, attempt: LoginAttempt) -> None:
        self._queue.remove(attempt)
        self._serve_later()

    def _serve_later(self) -> None:
        if self._queue and not self._serving:
            self._serving = True
            self._call_later(0, self._serve)

    def _serve(self) -> None:
        """Begin the checks that may run now. A checker that answers at once gets only a few of them in one turn."""
        self._serving = False
        for _ in range(self._limits.max_login_checks):
            attempt: Any = self._queue.next()
            if attempt is None:
                return
            if attempt.has_left():
                attempt.abandon()
                self.drop(attempt)
            else:
                attempt.turn.callback(None)
        self._serve_later()

    def drop(self, attempt: LoginAttempt) -> None:
        """Forget an attempt that waits, because the connection has ended. A check that runs keeps its place."""
        if attempt.turn is not None:
            self._queue.remove(attempt)
            attempt.turn.errback(Disconnected())
            self._serve_later()
