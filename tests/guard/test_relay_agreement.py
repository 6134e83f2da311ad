"""The workers of two servers agree with one guard about what is remembered for long, through hours without Redis.

Random events within two days, clocks of Redis that are set, and workers that are replaced. A long run::

    python -m tests.guard.test_relay_agreement 100000
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.networks import networks_of
from imapshield.guard.process_guard import ProcessGuard
from imapshield.limits import Limits
from tests.guard.shared_guard_case import Member
from tests.guard.test_guard_relay import Server

LIMITS = Limits(max_failed_pairs=60, max_limit_violations=60, max_preauth_per_address=500)
HOSTS = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
BANNED = ("203.0.113.1", "203.0.113.2")


class History:
    """Random events at the workers, of which one guard sees all at once."""

    def __init__(self, seed: int) -> None:
        self.chance, self.now = random.Random(seed), 50_000.0
        self.servers = [Server(name, LIMITS) for name in ("a", "b")]
        self.single = ProcessGuard(LIMITS, key=b"key")
        self.replaced = 0

    def play(self, steps: int) -> None:
        chance = self.chance
        for _ in range(steps):
            self.now += chance.choice((0.1, 1.0, 60.0, 7200.0)) * chance.random()
            self.happen()
            for server in self.servers:
                if chance.random() < 0.7:
                    server.share(self.now)
            if chance.random() < 0.1:
                self.set_clock(chance.choice((-3600.0, 0.0, 1e6)))
            if chance.random() < 0.1:  # Redis is there now and then
                self.exchange()
        self.exchange()

    def set_clock(self, offset: float) -> None:
        for server in self.servers:
            server.outer.clock_offset = offset

    def exchange(self) -> None:
        """Everybody reports everything."""
        for server in self.servers:
            server.outer.tell_all(self.now)
        for _ in range(20):
            is_news = self.servers[0].share(self.now) | self.servers[1].share(self.now)
            for teller, listener in (self.servers, self.servers[::-1]):
                report = teller.outer.take_report(self.now, always=False)
                if report is not None:
                    is_news = True
                    report = report._replace(rates=())
                    listener.outer.merge_report(teller.name, report, self.now)
            if not is_news:
                return
        raise AssertionError("they never end to tell each other what they know")

    def happen(self) -> None:
        chance, now = self.chance, self.now
        server, host = chance.choice(self.servers), chance.choice(HOSTS)
        guards = (chance.choice(server.workers).guard, self.single)
        event, number = chance.choice(("fail",) * 4 + ("violation", "ban", "unban", "replace")), 0
        if event == "fail":
            number = chance.randrange(30)
        for guard in guards:
            connection = guard.shares.connect(host)[0]
            assert connection is not None
            if event == "fail":
                guard.login_failed(connection, b"bob", b"%d" % number, now)
            elif event == "violation":
                guard.violation(connection, "backlog", now)
            guard.close(connection)
        if event == "ban":
            guards[0].bans.ban(chance.choice(BANNED), "operator", now, seconds=20_000.0)
        elif event == "unban":
            guards[0].bans.unban(chance.choice(BANNED), now)
        elif event == "replace":
            self.replace(server)

    def replace(self, server: Server) -> None:
        """Have another process in the place of a worker, after the worker has said all."""
        server.share(self.now)
        self.replaced += 1
        old, new = server.workers[0], Member(f"worker, the {self.replaced}. again", LIMITS)
        for shared in (server.inner, server.workers[1].shared):
            shared.forget_member(old.name)
        new.guard.merge_counted(server.guard.counted())
        saved = [server.guard.bans.saved(network, self.now) for network in server.guard.bans]
        restored = [each for each in saved if each is not None]
        new.guard.bans.restore(restored, self.now, are_known=True)
        server.workers[0] = new

    def check(self) -> None:
        """Compare each process with the one guard, at some times from now on."""
        guards = [server.guard for server in self.servers]
        guards += [worker.guard for server in self.servers for worker in server.workers]
        for later in (0.0, 1800.0, 20_000.0, 80_000.0, 90_000.0):
            now = self.now + later
            for host in HOSTS:
                self.compare(guards, now, lambda g, t: g.failures.pairs_of(host, t))  # noqa: B023
                self.compare(guards, now, lambda g, t: g.bans.violations(host, t))  # noqa: B023
                for wide in networks_of(host)[1:]:
                    self.compare(
                        guards,
                        now,
                        lambda g, t: g.failures.pair_tables()["networks"].count(wide, t),  # noqa: B023
                    )
        for banned in BANNED:
            bans = [guard.bans.get(networks_of(banned)[0]) for guard in guards]
            ends = [ban.until for ban in bans if ban is not None]
            assert len(ends) in (0, len(guards)), (banned, ends)
            assert not ends or max(ends) - min(ends) <= 1.1, (banned, ends)

    def compare(
        self, guards: list[ProcessGuard], now: float, count: Callable[[ProcessGuard, float], int]
    ) -> None:
        # Times are kept in whole seconds.
        least, most = count(self.single, now + 2), count(self.single, now - 2)
        for guard in guards:
            assert least <= count(guard, now) <= most, (least, count(guard, now), most)


def run(seed: int) -> None:
    history = History(seed)
    history.play(60)
    history.check()


class RelayAgreementTests(SynchronousTestCase):
    def test_random_histories(self) -> None:
        """Failed logins and violations count in each process exactly as long as for one guard, and bans agree."""
        for seed in range(8):
            try:
                run(seed)
            except AssertionError as error:
                self.fail(f"seed {seed}: {error}")


if __name__ == "__main__":
    for seed in range(int(sys.argv[1])):
        try:
            run(seed)
        except AssertionError as error:
            sys.stdout.write(f"seed {seed}: {error}\n")
