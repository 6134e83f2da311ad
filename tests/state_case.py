"""Runs of a server with one state file, whose clocks begin at any time."""

import os

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from imapshield.guard.bans import Ban, Bans
from imapshield.guard.login_failures import LoginFailures
from imapshield.guard_state import GuardState
from imapshield.limits import Limits
from tests.cred.fakes import FakePool, FakeReactor

HERE = "192.0.2.7"


class Run:
    """One run of a server with a state file, which may be killed. Its clock begins at `now`."""

    def __init__(self, path: str | None, now: float) -> None:
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.reactor.advance(now)
        self.bans, self.failures = Bans(Limits()), LoginFailures(Limits(), b"")
        self.state = GuardState(
            path, self.bans, self.failures, reactor=self.reactor, now=self.now, pool=self.pool
        )
        self.banned: list[Ban] = []
        self.unbanned: list[str] = []
        self.state.on_ban = self.banned.append
        self.state.on_unban = self.unbanned.append
        self.state.start()

    def now(self) -> float:
        return self.reactor.seconds()

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.reactor.advance(1)

    def stop(self) -> bool:
        return bool(self.state.stop().called)

    def remaining(self, address: str = HERE) -> float | None:
        ban = self.bans.banned(address, self.now())
        return None if ban is None else ban.until - self.now()


class StateCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = self.mktemp()
        os.makedirs(folder)
        self.path = os.path.join(folder, "guard.sqlite")
        self.warnings: list[str] = []

        @provider(ILogObserver)
        def observe(event: dict[str, object]) -> None:
            if "error" in event:
                self.warnings.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def run_server(self, now: float = 0.0) -> Run:
        run = Run(self.path, now)
        self.addCleanup(run.stop)
        return run
