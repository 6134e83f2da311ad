"""A state file that cannot be used, at the start or later: the server goes on, and uses it when it can."""

import os

from imapshield import guard_state
from imapshield.guard.networks import describe
from imapshield.state_file import StateFile
from tests.state_case import HERE, Run, StateCase


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
        with open(self.path, "wb") as file:
            file.write(b"damaged " * 100)
        self.assert_in_memory(self.run_server())
        self.assertIn("move it away", self.warnings[0])
        self.assertIn("is tried every 60 seconds", self.warnings[0])
        self.assertEqual(os.path.getsize(self.path), 800)

    def test_missing_directory(self) -> None:
        """A directory that does not exist is one line in the log."""
        self.path = "/dev/null/guard.sqlite"
        self.assert_in_memory(self.run_server())

    def start_without_file(self) -> Run:
        """Start a server that cannot load its file, which has a ban and a known user, and make the file usable."""
        old = self.run_server()
        old.bans.ban(HERE, "x", 0.0)
        old.failures.succeeded(HERE, b"alice", 0.0)
        self.secret = old.state.secret("a")
        old.stop()
        os.rename(self.path, self.path + ".away")
        os.mkdir(self.path)
        run = self.run_server(now=1e6)
        os.rmdir(self.path)
        os.rename(self.path + ".away", self.path)
        return run

    def test_file_that_cannot_be_loaded_at_the_start(self) -> None:
        """A file that cannot be loaded at the start is loaded a minute later, and adds to what is in memory."""
        run = self.start_without_file()
        run.bans.ban("198.51.100.1", "x", run.now())
        run.failures.succeeded(HERE, b"bob", run.now())
        run.advance(59)
        self.assertEqual((run.banned, run.state.kept_secret("a")), ([], None))
        loaded: list[bytes | None] = []
        run.state.on_load = lambda: loaded.append(run.state.kept_secret("a"))
        run.advance(2)
        self.assertEqual([describe(ban.network) for ban in run.banned], ["192.0.2.7/32"])
        self.assertEqual(loaded, [self.secret])
        self.assertEqual(run.state.kept_secret("a"), self.secret)
        self.assertEqual((run.remaining(), run.remaining("198.51.100.1")), (599.0, 539.0))
        known = [run.failures.is_known(HERE, user) for user in (b"alice", b"bob")]
        self.assertEqual(known, [True, False])
        run.failures.succeeded(HERE, b"carol", run.now())
        run.stop()
        new = self.run_server()
        self.assertEqual(len(new.bans), 2)
        self.assertTrue(new.failures.is_known(HERE, b"carol"))
        self.assertEqual((len(self.warnings), run.unbanned), (1, []))

    def test_ban_of_the_meantime(self) -> None:
        """A ban that began before the file was loaded goes on as it is, and is then in the file."""
        run = self.start_without_file()
        run.bans.ban(HERE, "newer", run.now())
        run.advance(61)
        self.assertEqual((run.banned, run.remaining()), ([], 539.0))
        run.advance(1)
        (saved,) = StateFile(self.path).bans()
        self.assertEqual(saved.reason, "newer")

    def test_stop_while_the_file_is_loaded(self) -> None:
        """A server that stops while it loads its file waits for that, and saves what has changed."""
        run = self.start_without_file()
        run.bans.ban("198.51.100.1", "x", run.now())
        run.pool.paused = True
        run.advance(60)
        stopping = run.state.stop()
        self.assertFalse(stopping.called)
        run.pool.paused = False
        run.pool.run_pending()
        self.successResultOf(stopping)
        self.assertEqual(run.pool.state, "stopped")
        self.assertEqual(len(StateFile(self.path).bans()), 2)

    def test_stop_without_a_file(self) -> None:
        """A server that cannot load its file stops, too."""
        self.path = "/dev/null/guard.sqlite"
        run = self.run_server()
        self.assertTrue(run.stop())
        self.assertEqual(run.pool.state, "stopped")

    def test_file_that_fails_later(self) -> None:
        """A file that cannot be written later is one line in the log, is tried again, and then has everything."""
        run = self.run_server()
        set_writable(run, False)
        self.assert_in_memory(run)
        self.assertIn("is tried every 60 seconds", self.warnings[0])
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
