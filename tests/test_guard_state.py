"""The state of the guard over a restart: bans, known users and secrets; and what other processes change."""

from imapshield.guard import bans, login_failures
from imapshield.guard.networks import describe
from imapshield.state_file import Changes, StateFile
from tests.state_case import HERE, Run, StateCase


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

    def test_what_does_not_fit_leaves_the_file(self) -> None:
        """Bans and known users that do not fit into memory any more are removed from the file."""
        old = self.run_server()
        for n in range(3):
            old.bans.ban(f"10.0.0.{n}", "x", float(n))
            old.failures.succeeded(HERE, b"u%d" % n, 0.0)
        old.stop()
        self.patch(bans, "MAX_BANS", 2)
        self.patch(login_failures, "MAX_KNOWN_USERS", 2)
        self.run_server().advance(1)
        file = StateFile(self.path)
        self.assertEqual([ban.network for ban in file.bans()], ["10.0.0.1/32", "10.0.0.2/32"])
        self.assertEqual(len(file.known()), 2)
        file.close()

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
