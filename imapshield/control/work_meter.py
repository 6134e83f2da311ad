"""`WorkMeter`: counts the work of all connections for `Talkers`, and answers who has most of it.

Rules
-----
* A command costs nothing here. Once per second the connections that have computed lately are looked at, and each
  connection when it ends, so that those that live for less than a second count, too.
* A second in which many connections have computed is looked at in several turns of the reactor.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from imapshield import events
from imapshield.control.arguments import MAX_ROWS
from imapshield.control.commands import activity
from imapshield.control.request_lines import Request
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.guard.networks import describe, networks_of
from imapshield.observe.talkers import (
    MEASURES,
    PERIODS,
    SUBJECTS,
    Source,
    Talkers,
    Work,
    headline,
)

CONNECTIONS_PER_TURN = 200
"""Connections that are looked at in one turn of the reactor, which takes about 2 ms."""


class WorkMeter(events.EventHandlers):
    """Counts the work of the connections of one server. It is an observer of events, too.

    Args:
        reactor: an `IReactorTime`.
        talkers: sums up the work; by default a new `Talkers`, which answers `talkers`.

    Attributes:
        total: what all connections have done since the start.
        history: who had most in the last minutes.
        talker_table: sums up the work.
    """

    def __init__(self, reactor: Any, talkers: Talkers | None = None) -> None:
        self.total = Work()
        self._reactor = reactor
        self._now: Callable[[], float] = reactor.seconds
        self.talker_table = talkers or Talkers(self._now())
        self.history = self.talker_table.history
        self._counted: dict[int, Work] = {}  # by the number of an open connection
        self._working: set[Any] = set()
        self._loop = LoopingCall(self._collect)
        self._loop.clock = reactor
        self.handlers = {
            events.ConnectionClosed: self._closed,
            events.LimitTriggered: self._limit,
        }

    def start(self, factory: ShieldedIMAP4Factory) -> None:
        """Look at the connections of `factory` once per second."""
        self._working = factory.shared.working
        self._loop.start(1.0, now=False)

    def stop(self) -> None:
        """Stop looking."""
        if self._loop.running:
            self._loop.stop()

    def _closed(self, event: events.ConnectionClosed) -> None:
        work = Work(event.commands, event.octets_in + event.octets_out, event.busy)
        before = self._counted.pop(event.connection, None)
        self._add(event, event.user, work if before is None else work.since(before))

    def _limit(self, event: events.LimitTriggered) -> None:
        if event.action == "reset":
            self._add(event, event.user, Work(resets=1))

    def _add(self, event: events.Event, user: str, work: Work) -> None:
        networks = networks_of(event.peer)
        network = describe(networks[1]) if networks else ""
        number = str(event.connection) if event.connection else ""
        self.add(Source(number, event.peer, network, user), work)

    def add(self, source: Source, work: Work) -> None:
        """Count work that a connection has done, here or in another process."""
        self.total = self.total.plus(work)
        self.talker_table.add(source, work, self._now())

    def _collect(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._collect_in_turns())

    async def _collect_in_turns(self) -> None:
        """Count what connections have done since the last time."""
        for number in range(1, len(self._working) + 1):
            if not self._working:
                break
            connection = self._working.pop()
            reporter = connection.reporter
            if number % CONNECTIONS_PER_TURN == 0:
                await deferLater(self._reactor, 0)
            if connection.closed:
                continue  # its end counts the rest
            measured = activity(reporter)
            octets = measured.octets_in + measured.octets_out
            work = Work(measured.commands, octets, measured.busy)
            before = self._counted.get(reporter.number, Work())
            self._counted[reporter.number] = work
            self._add(measured, reporter.user, work.since(before))
        self.talker_table.end_second(self._now())

    async def talkers(self, request: Request) -> dict[str, Any]:
        """Return who has most of the server's work in a period.

        The arguments are `period`, a key of `PERIODS`; `by`, one of `MEASURES`, which orders the rows; and `number`,
        how many rows each table has. The answer has a table for each of `SUBJECTS`. A row has for each measure the
        share of the total. `headlines` says in words how few have most of it.
        """
        period = request.get("period", next(iter(PERIODS)))
        by, number = request.get("by", MEASURES[0]), request.get("number", 10)
        now, report = self._now(), self.talker_table.report
        everyone = {m: report(period, "address", m, now) for m in MEASURES}
        totals = {measure: each.total for measure, each in everyone.items()}
        tables, headlines = {}, []
        for subject in SUBJECTS:
            await deferLater(self._reactor, 0)  # a subject takes some milliseconds
            shares = {m: report(period, subject, m, now, MAX_ROWS).shares for m in MEASURES}
            amounts = {m: {share.key: share.amount for share in shares[m]} for m in MEASURES}
            tables[subject] = [
                {"key": share.key}
                | {m: amounts[m].get(share.key, 0.0) / (totals[m] or 1) for m in MEASURES}
                for share in shares[by][:number]
            ]
            if subject in ("address", "user"):
                headlines += [headline(shares[m], totals[m], subject, m) for m in MEASURES]
        return {
            "period": period,
            "seconds": round(everyone[by].seconds, 1),
            "headlines": [line for line in headlines if line],
            "totals": totals,
            "tables": tables,
        }
