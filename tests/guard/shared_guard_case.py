"""Several guards that exchange reports, without anything between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from imapshield.guard.guard_report import GuardReport
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shared_guard import Merged, SharedGuard
from imapshield.guard.shares import Connection
from imapshield.limits import Limits

ADDRESS, NEIGHBOUR, OTHER = "192.0.2.1", "192.0.2.2", "198.51.100.1"


@dataclass
class Member:
    """One process: its guard, and what it is told."""

    name: str
    limits: Limits = field(default_factory=Limits)
    trusted: NetworkSet = field(default_factory=NetworkSet)

    def __post_init__(self) -> None:
        self.guard = ProcessGuard(self.limits, self.trusted, b"key")
        self.shared = SharedGuard(self.guard, self.name)

    def connect(self, address: str = ADDRESS, now: float = 0.0) -> Connection:
        connection = self.guard.connect(address, now).connection
        assert connection is not None
        return connection

    def login(self, user: str, address: str = ADDRESS, now: float = 0.0) -> Connection:
        connection = self.connect(address, now)
        assert self.guard.login(connection, user, user.encode(), now)[1] is None
        return connection

    def report(self, now: float = 0.0) -> GuardReport:
        report = self.shared.take_report(now)
        assert report is not None
        return GuardReport.decode(report.encode())

    def merge(self, other: Member, now: float = 0.0) -> Merged:
        return self.shared.merge_report(other.name, other.report(now), now)


def members(number: int = 2, **limits: float) -> list[Member]:
    return [Member(f"m{i}", Limits(**limits)) for i in range(number)]  # type: ignore[arg-type]


def exchange(*all_members: Member, now: float = 0.0) -> None:
    """Every member tells every other all that it has not told yet."""
    while True:
        reports = [(m, m.shared.take_report(now, always=False)) for m in all_members]
        if not any(report for _, report in reports):
            return
        for teller, report in reports:
            for listener in all_members:
                if report is not None and listener is not teller:
                    listener.shared.merge_report(teller.name, report, now)
