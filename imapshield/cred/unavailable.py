"""`CheckerUnavailable`: a checker cannot decide about a login. `Outages` logs why, once for each reason."""

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.cred.error import LoginFailed
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

MAX_REASONS = 10
"""Different reasons that are logged in one outage. The texts may come from another server."""


class CheckerUnavailable(LoginFailed):
    """The checker cannot decide now whether a login is correct.

    The client gets ``NO [UNAVAILABLE]``, so that it tries again later and does not ask its user for another password.

    Attributes:
        text: the text for the client. The argument of the constructor is not sent.
        may_be_wrong: whether the checker has got the password, so that it may be one of a guesser.
        node: the node that cannot be used, for the operator; "" if there is none.
    """

    text = "Cannot check passwords now; try again later"
    may_be_wrong = False
    node = ""


class EntryUnusable(CheckerUnavailable):
    """The checker cannot decide about one user, because of the entry that it has found; about others it can.

    The argument of the constructor says what is wrong and what to do, without the name, so that it is logged once for
    all such users. The log line of the failed login has the name.
    """


class TooManyLogins(CheckerUnavailable):
    """More logins at once than the checker permits."""

    text = "Too many simultaneous logins; try again later"


class Outages:
    """Reports that a checker cannot decide, with one log line for each reason until it can decide again.

    What is wrong with single entries is logged once, because logins of other users decide nothing about them.

    Args:
        option: the ``--auth`` of the checker, without secrets.
        advice: what the operator can do.
    """

    _log = Logger(namespace="imapshield")

    def __init__(self, option: str, advice: str) -> None:
        self._option, self._advice = option, advice
        self._logged: set[str] = set()
        self._logged_of_entries: set[str] = set()

    def over(self) -> None:
        """Note that the checker has decided about a login."""
        self._logged.clear()

    def fail(self, reason: str) -> NoReturn:
        """Raise `CheckerUnavailable`, and `report` the reason."""
        self.report(reason)
        raise CheckerUnavailable(reason)

    def failed(self, failure: Failure, describe: Callable[[BaseException], str] = str) -> NoReturn:
        """Raise `CheckerUnavailable` for an unexpected error. `describe` returns the reason for the log."""
        error = failure.value
        assert error is not None
        if isinstance(error, EntryUnusable):
            self._report_entry(str(error))
        if isinstance(error, (CheckerUnavailable, CancelledError)):
            raise error
        self.fail(describe(error))

    def report(self, reason: str) -> None:
        """Log the reason if it is a new one."""
        if reason not in self._logged and len(self._logged) < MAX_REASONS:
            self._logged.add(reason)
            self._log.warn(
                "--auth {option}: {reason}; nobody can log in with it; {advice}",
                option=self._option,
                reason=reason.rstrip("."),
                advice=self._advice,
            )

    def _report_entry(self, reason: str) -> None:
        logged = self._logged_of_entries
        if reason not in logged and len(logged) < MAX_REASONS:
            logged.add(reason)
            self._log.warn(
                "--auth {option}: some users cannot log in with it: {reason}",
                option=self._option,
                reason=reason,
            )

    def limit(self, checking: Deferred[Any], seconds: float, reactor: Any) -> Deferred[Any]:
        """Let a check fail if it has no result after some seconds."""
        return checking.addTimeout(
            seconds, reactor, lambda _result, _seconds: self.fail("no answer")
        )
