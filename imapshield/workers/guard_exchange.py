"""`GuardExchange`: lets the guards of all processes decide as one, for one of the processes (`SharedGuard`).

Each process tells the others what it has counted within `SHARE_SECONDS`, and bans at once. What a worker tells reaches
the other workers through the supervising process. A process that counts nothing is not woken for it.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

from imapshield.edge.admission import Admission
from imapshield.guard.guard_report import GuardReport, MalformedReport, RateTaken
from imapshield.guard.shared_guard import SharedGuard
from imapshield.workers.link_messages import BadMessage, Counted, Shared

SHARE_SECONDS = 0.05
"""Seconds between two reports to the other processes."""

LOOK_SECONDS = 1.0
"""Seconds between two looks for what nobody has said that there is something to tell."""

MAX_REPORTS = 4
"""Reports at once. One server has little to tell; a flood of all others is 40,000 entries of each kind in a second."""

MAX_RATES = 4096
"""Rates of each table that are sent to a process when it starts: those of which most was taken."""


class GuardExchange:
    """Tells other processes what the guard of this one has counted, and counts what they tell.

    Args:
        admission: has the guard.
        name: the name of this process.
        send: sends a report to all other processes.
        is_full: whether reports must wait, because the other side does not read. What happens meanwhile is collected in
            tables with a maximum size.
        reactor: an `IReactorTime`.
        is_worker: whether this is a worker; the supervising process reports the bans.

    Attributes:
        shared: the guard.
    """

    def __init__(
        self,
        admission: Admission,
        name: str,
        send: Callable[[Shared], object],
        reactor: Any,
        *,
        is_worker: bool,
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.shared = SharedGuard(admission.guard, name)
        self._admission, self._name, self._send = admission, name, send
        self._is_worker, self._is_full = is_worker, is_full
        self._now: Callable[[], float] = reactor.seconds
        self._call_later, self._call = reactor.callLater, None
        self._loop = LoopingCall(self.share)
        self._loop.clock = reactor
        self.shared.call_on_news(self._soon)

    def start(self) -> None:
        """Tell the others from now on."""
        # A relay does not say when there is something to tell.
        seconds = LOOK_SECONDS if self.shared.other is None else SHARE_SECONDS
        self._loop.start(seconds, now=False)
        self._soon()

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._loop.running:
            self._loop.stop()
        self._cancel()

    def _cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _soon(self) -> None:
        if self._call is None and self._loop.running:
            self._call = self._call_later(SHARE_SECONDS, self.share)

    def tell_all(self) -> None:
        """Tell all bans and counts again, in the next reports."""
        self.shared.tell_all()
        self._soon()

    def share(self) -> None:
        """Tell the others what has happened since the last time, if they read."""
        self._cancel()
        for _ in range(MAX_REPORTS):
            if self._is_full():
                break
            report = self.shared.take_report(self._now(), always=False)
            if report is None:
                return
            self._send(Shared(self._name, report.encode()))
            if not report.is_full:
                return
        self._soon()

    def counted(self) -> Counted:
        """Return what a process that starts must know."""
        now = self._now()
        rates = [(*taken,) for taken in self.shared.rates_taken(MAX_RATES, now)]
        return Counted(now, rates, self.shared.guard.counted())

    def count(self, message: Counted) -> None:
        """Count what all processes have counted."""
        if message.tables:
            self.shared.guard.merge_counted(message.tables)
        for each in message.rates:
            self.shared.set_taken(RateTaken(*each), message.time)

    def merge(self, message: Shared) -> None:
        """Count what another process tells, and reset the connections that must end because of it.

        Raises:
            BadMessage: it is malformed.
        """
        try:
            report = GuardReport.decode(message.report)
        except MalformedReport as error:
            raise BadMessage(str(error)) from None
        self._admission.merge_report(self.shared, message.member, report, is_worker=self._is_worker)
        self._soon()  # there may be bans now

    def forget(self, member: str) -> None:
        """Count the connections of a process that has ended no more."""
        self.shared.forget_member(member)
