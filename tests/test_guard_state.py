"""The state of the guard over a restart: bans, known users and secrets; and a file that cannot be used."""

import os

from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from imapshield import guard_state
from imapshield.guard.bans import Ban, Bans
from imapshield.guard.login_failures import LoginFailures
from imapshield.guard.networks import describe
from imapshield.guard_state import GuardState
from imapshield.limits import Limits
from imapshield.state_file import Changes, StateFile
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
        self.path = os.path.join(self.mktemp(), "guard.sqlite")
        self.warnings: list[str] = []

        @provider(ILogObserver)
        def observe(event: dict[str, object]) -> None:
            if "error" in event:
                self.warnings.append(str(event["error"]))
                self.then = str(event["then"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def run_server(self, now: float = 0.0) -> Run:
        run = Run(self.path, now)
        self.addCleanup(run.stop)
        return run


class RestartTests(StateCase):
    def test_bans_survive_a_restart(self) -> None:
        """A ban goes on after a restart for the seconds that remain, although the clock of the new run is another."""
        old = self.run_server(now=1e6)
        ban = old.bans.ban(HERE, "max_failed_pairs", old.now())
        old.advance(100)
        self.assertTrue(old.stop())
        new = self.run_server(now=5.0)
        self.assertEqual(new.remaining(), 500.0)
        self.assertEqual([b.network for b in new.banned], [ban.network])
        self.assertEqual(self.warnings, [])

    def test_bans_survive_kill_9(self) -> None:
        """A ban is in the file after a second. A killed server may extend it by ten seconds at most."""
        old = self.run_server()
        old.bans.ban(HERE, "x", old.now())
        old.advance(1)
        self.assertEqual(self.run_server().remaining(), 599.0)
        old.advance(58)
        remaining = self.run_server().remaining()
        assert remaining is not None
        self.assertTrue(541 <= remaining <= 551, remaining)

    def test_repeated_bans_are_remembered(self) -> None:
        """After a restart the next ban is twice as long. A ban that is forgotten leaves the file."""
        old = self.run_server()
        old.bans.ban(HERE, "x", old.now())
        old.advance(1)
        old.reactor.advance(700)
        old.stop()
        new = self.run_server()
        self.assertIsNone(new.remaining())
        self.assertEqual(new.bans.ban(HERE, "x", new.now()).seconds, 1200)
        new.advance(1)
        new.reactor.advance(200_000)
        new.stop()
        last = self.run_server()
        self.assertEqual(len(last.bans), 0)
        last.stop()
        self.assertEqual(StateFile(self.path).bans(), [])

    def test_known_users_survive_a_restart(self) -> None:
        """A user is known after a restart. The file has neither the name nor the address."""
        old = self.run_server()
        old.failures.succeeded(HERE, b"alice", 0.0)
        old.stop()
        self.assertTrue(self.run_server().failures.is_known(HERE, b"alice"))
        with open(self.path, "rb") as file:
            content = file.read()
        self.assertNotIn(b"alice", content)
        self.assertNotIn(HERE.encode(), content)

    def test_secrets(self) -> None:
        """A secret depends on its name and is the same after a restart; without a file it is another in each run."""
        secrets = [self.run_server().state.secret(name) for name in ("a", "a", "b")]
        self.assertEqual([len(secret) for secret in secrets], [32] * 3)
        self.assertEqual([secrets[0] == secrets[1], secrets[0] == secrets[2]], [True, False])
        self.assertNotEqual(*(Run(None, 0.0).state.secret("a") for _ in range(2)))
        self.assertEqual(self.run_server().state.kept_secret("a"), secrets[0])
        self.assertIsNone(Run(None, 0.0).state.kept_secret("a"))

    def test_no_file(self) -> None:
        """Without a file nothing is written, and nothing is logged."""
        run = Run(None, 0.0)
        run.bans.ban(HERE, "x", 0.0)
        run.advance(5)
        self.assertTrue(run.stop())
        self.assertEqual((self.warnings, run.pool.jobs_run, run.pool.state), ([], 0, "new"))


class SavingTests(StateCase):
    def test_nothing_is_written_without_a_change(self) -> None:
        """Without bans and logins the file is not written."""
        run = self.run_server()
        run.failures.succeeded(HERE, b"alice", 0.0)
        run.advance(2)
        with StateFileWatch(self.path) as watch:
            run.failures.succeeded(HERE, b"alice", 2.0)
            run.advance(100)
            self.assertFalse(watch.has_changed())

    def test_nothing_is_written_when_no_ban_counts_any_more(self) -> None:
        """A ban leaves memory and file when it no longer makes the next one longer. Then the clock is not saved."""
        run = self.run_server()
        run.bans.ban(HERE, "x", 0.0)
        run.advance(1)
        run.reactor.advance(86400 + 600)
        run.advance(11)
        self.assertEqual(len(run.bans), 0)
        with StateFileWatch(self.path) as watch:
            self.assertEqual(watch.file.bans(), [])
            run.advance(30)
            self.assertFalse(watch.has_changed())

    def test_one_write_at_a_time(self) -> None:
        """While the file is slow, nothing more is queued. The next write has all changes, and `stop` waits for both."""
        run = self.run_server()
        run.pool.paused = True
        for n in range(50):
            run.bans.ban(f"10.0.0.{n}", "x", run.now())
            run.advance(1)
        self.assertEqual(len(run.pool.jobs), 1)
        stopping = run.state.stop()
        self.assertFalse(stopping.called)
        run.pool.paused = False
        run.pool.run_pending()
        self.successResultOf(stopping)
        self.assertEqual(len(StateFile(self.path).bans()), 50)


class StateFileWatch:
    """Tells whether another connection has changed a state file."""

    def __init__(self, path: str) -> None:
        self.file = StateFile(path)
        self.file.exchange(0.0, None)

    def __enter__(self) -> "StateFileWatch":
        return self

    def has_changed(self) -> bool:
        return self.file.exchange(0.0, None) is not None

    def __exit__(self, *_: object) -> None:
        self.file.close()


class OtherProcessTests(StateCase):
    def test_unban(self) -> None:
        """`imapshield unban` takes effect within two seconds, and does not end a ban that begins later."""
        run = self.run_server()
        for address in (HERE, "198.51.100.1"):
            run.bans.ban(address, "x", 0.0)
        run.advance(1)
        command = StateFile(self.path)
        command.unban(HERE)
        run.bans.ban("203.0.113.1", "x", 1.0)
        run.advance(2)
        self.assertIsNone(run.remaining())
        self.assertEqual(run.unbanned, ["192.0.2.7/32"])
        self.assertIsNotNone(run.remaining("198.51.100.1"))
        self.assertIsNotNone(run.remaining("203.0.113.1"))
        self.assertEqual(run.bans.ban(HERE, "x", 3.0).number, 1)
        run.advance(1)
        networks = {ban.network for ban in command.bans()}
        self.assertEqual(networks, {describe(network) for network in run.bans})
        command.close()

    def test_end_of_a_wide_ban(self) -> None:
        """When the ban of a network leaves the file, the bans of addresses inside it stay."""
        run = self.run_server()
        for network in (HERE, "192.0.2.0/24"):
            run.bans.ban(network, "x", 0.0)
        run.advance(1)
        other = StateFile(self.path)
        other.save(1.0, Changes({"192.0.2.0/24": None}))
        run.advance(2)
        self.assertEqual(run.unbanned, ["192.0.2.0/24"])
        self.assertIsNotNone(run.remaining())
        self.assertEqual([ban.network for ban in other.bans()], ["192.0.2.7/32"])
        other.close()

    def test_ended_ban_that_leaves_the_file(self) -> None:
        """A ban that has ended is not reported as ended by an operator when another server drops it."""
        run = self.run_server()
        run.bans.ban(HERE, "x", 0.0)
        run.advance(1)
        run.reactor.advance(700)
        other = StateFile(self.path)
        other.unban(HERE)
        run.advance(2)
        self.assertEqual((len(run.bans), run.unbanned), (0, []))
        other.close()

    def test_two_servers(self) -> None:
        """Two servers with the same file share their bans, and stop writing when both know them."""
        one, two = self.run_server(now=100.0), self.run_server(now=77.0)
        one.bans.ban(HERE, "x", one.now())
        one.advance(1)
        two.advance(1)
        self.assertEqual(two.remaining(), 599.0)
        for run in (one, two):  # each stores its clock
            run.advance(2)
        with StateFileWatch(self.path) as watch:
            for run in (one, two):
                run.advance(5)
            self.assertFalse(watch.has_changed())
        self.assertEqual((one.unbanned, two.unbanned), ([], []))

    def test_what_was_taken_over_is_not_written(self) -> None:
        """A server does not write a ban that it has found in the file: the file may not have it any more."""
        one, two, command = self.run_server(), self.run_server(), StateFile(self.path)
        one.bans.ban(HERE, "x", 0.0)
        one.advance(1)
        two.advance(1)
        command.unban(HERE)
        for run in (two, one):
            run.advance(2)
            self.assertIsNone(run.remaining())
            self.assertEqual(run.unbanned, ["192.0.2.7/32"])
        self.assertEqual(command.bans(), [])
        command.close()


class BadFileTests(StateCase):
    def assert_in_memory(self, run: Run) -> None:
        """The server works without the file, and has logged one line about it."""
        run.bans.ban("198.51.100.1", "x", run.now())
        run.failures.succeeded(HERE, b"alice", 0.0)
        run.advance(200)
        self.assertIsNotNone(run.remaining("198.51.100.1"))
        self.assertEqual(len(run.state.secret("a")), 32)
        self.assertEqual(len(self.warnings), 1)
        self.assertNotIn("\n", self.warnings[0])

    def test_damaged_file(self) -> None:
        """A damaged file is one line in the log. The file is left as it is."""
        os.makedirs(os.path.dirname(self.path))
        with open(self.path, "wb") as file:
            file.write(b"damaged " * 100)
        self.assert_in_memory(self.run_server())
        self.assertIn("move it away", self.warnings[0])
        self.assertEqual(self.then, "until the next start")
        self.assertEqual(os.path.getsize(self.path), 800)

    def test_missing_directory(self) -> None:
        """A directory that cannot be made is one line in the log."""
        self.path = "/dev/null/guard.sqlite"
        self.assert_in_memory(self.run_server())

    def test_file_that_fails_later(self) -> None:
        """A file that cannot be written later is one line in the log, is tried again, and then has everything."""
        run = self.run_server()
        set_writable(run, False)
        self.assert_in_memory(run)
        self.assertIn("tried again every 60 seconds", self.then)
        set_writable(run, True)
        run.advance(61)
        found = StateFile(self.path)
        self.assertEqual((len(found.bans()), len(found.known())), (1, 1))
        set_writable(run, False)
        run.bans.ban(HERE, "x", run.now())
        run.advance(2)
        self.assertEqual(len(self.warnings), 2)
        self.assertTrue(run.stop())

    def test_changes_are_not_collected_without_a_file(self) -> None:
        """Changes that will never be saved take no memory."""
        run = Run(None, 0.0)
        for n in range(2):
            run.bans.ban(f"10.0.0.{n}", "x", 0.0)
            run.failures.succeeded(HERE, b"u%d" % n, 0.0)
            run.advance(2)
        self.assertEqual((run.bans.changed, run.failures.changed_users), (None, None))

    def test_kept_changes_are_bounded(self) -> None:
        """While the file cannot be written for long, only changes of what is still in memory are kept."""
        self.patch(guard_state, "MAX_BANS", 2)
        self.patch(guard_state, "MAX_KNOWN_USERS", 2)
        run = self.run_server()
        set_writable(run, False)
        for n in range(3):
            run.bans.ban(f"10.0.0.{n}", "x", run.now())
            run.failures.succeeded(HERE, b"u%d" % n, 0.0)
        run.bans.unban("10.0.0.0")
        run.failures._known.pop(next(run.failures.known_users()))
        run.advance(1)
        assert run.bans.changed is not None and run.failures.changed_users is not None
        self.assertEqual(run.bans.changed, set(run.bans))
        self.assertEqual(run.failures.changed_users, set(run.failures.known_users()))
        set_writable(run, True)

    def test_bug(self) -> None:
        """A bug in the use of the file is logged with its traceback, and the file is used again after a minute."""
        run = self.run_server()
        self.patch(run.bans, "restore", lambda *_: 1 / 0)
        other = self.run_server()
        other.bans.ban(HERE, "x", other.now())
        other.advance(1)
        run.advance(5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        run.bans.ban("198.51.100.1", "x", run.now())
        run.advance(60)
        self.assertEqual(len(StateFile(self.path).bans()), 2)


class FailureOfOneServerTests(StateCase):
    """Two servers have one file. The first cannot write it for a minute, and then can again."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.other = self.run_server(), self.run_server()
        self.one.bans.ban(HERE, "x", 0.0)
        self.one.failures.succeeded(HERE, b"alice", 0.0)
        self.one.advance(1)
        self.other.advance(1)
        set_writable(self.one, False)
        self.one.bans.ban("198.51.100.1", "x", 1.0)
        self.one.failures.succeeded(HERE, b"bob", 1.0)
        self.one.advance(1)
        self.assertEqual(len(self.warnings), 1)

    def recover(self) -> None:
        set_writable(self.one, True)
        self.one.advance(61)
        self.other.advance(62)

    def test_changes_of_the_other_server_stay(self) -> None:
        """The bans and known users that the other server has saved meanwhile stay, and both have all bans."""
        self.other.bans.ban("203.0.113.1", "x", self.other.now())
        self.other.failures.succeeded("203.0.113.9", b"carol", self.other.now())
        self.other.advance(1)
        self.recover()
        for run in (self.one, self.other):
            self.assertEqual(len(list(run.bans.active(run.now()))), 3)
        new = self.run_server()
        self.assertEqual(len(new.bans), 3)
        known = (HERE, b"alice"), (HERE, b"bob"), ("203.0.113.9", b"carol")
        self.assertEqual([new.failures.is_known(*pair) for pair in known], [True] * 3)

    def test_unban_stays(self) -> None:
        """A ban that the operator ends meanwhile does not come back."""
        command = StateFile(self.path)
        command.unban(HERE)
        self.recover()
        for run in (self.one, self.other):
            self.assertIsNone(run.remaining())
            self.assertEqual(run.unbanned, ["192.0.2.7/32"])
        self.assertEqual([ban.network for ban in command.bans()], ["198.51.100.1/32"])
        command.close()


def set_writable(run: Run, writable: bool) -> None:
    """Have the database accept or refuse the changes of one server."""
    assert run.state._file is not None
    run.state._file._database.execute(f"PRAGMA query_only = {int(not writable)}")
