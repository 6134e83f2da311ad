"""A reload applies what has changed, all or nothing, and says what it has done."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, Settings
from imapshield.limits import Limits
from imapshield.process.reload import Apply, Reloaded, Reloader


class ReloadTests(SynchronousTestCase):
    """`new` are the settings that the next reload finds, and `applied` those that were applied."""

    def setUp(self) -> None:
        self.new = self.old = Settings(auth=("file:/users",))
        self.error: str | None = None
        self.applied: list[str] = []
        self.calls: list[str] = []
        self.problems: list[str] = []
        self.reloader = self.make(maybeDeferred)

    def make(self, run_in_thread: Any) -> Reloader:
        names = (("limits",), ("auth",), ("verbose",), ("certificate", "key"))
        reloader = Reloader(
            self.old,
            self.load,
            {each: self.part(*each) for each in names},
            [self.renew],
            self.reopen,
            run_in_thread,
        )
        reloader.before = lambda: self.calls.append("before")
        reloader.after = lambda: self.calls.append("after")
        return reloader

    def load(self) -> Settings:
        if self.error is not None:
            raise ConfigError(self.error)
        return self.new

    def part(self, *names: str) -> Callable[[Settings], Any]:
        async def prepare(new: Settings) -> Apply | None:
            if new.certificate == "damaged":
                raise ConfigError("--certificate damaged: name another file")
            if not new.auth:
                return None
            return lambda: self.applied.extend(names)

        return prepare

    async def renew(self) -> list[str]:
        self.calls.append("renew")
        return self.problems

    def reopen(self) -> list[str]:
        self.calls.append("reopen")
        return []

    def reload(self, **changes: Any) -> tuple[Reloaded, list[str]]:
        """Reload with changed settings, and return what is answered and logged."""
        self.new = replace(self.new, **changes)
        with capturedLogs() as logged:
            done = self.successResultOf(self.reloader.reload())
        return done, [formatEvent(event) for event in logged]

    def test_nothing_has_changed(self) -> None:
        """A reload without a change renews files and opens the log again, and says so in one line."""
        done, lines = self.reload()
        self.assertEqual(done, Reloaded([], [], []))
        self.assertEqual(lines, ["reloaded: changes=0 problems=0"])
        self.assertEqual(self.calls, ["before", "reopen", "renew", "after"])

    def test_problem_of_several_workers(self) -> None:
        """A problem that several parts have is in the answer and in the log once."""
        self.problems = ["the map is wrong", "the map is wrong", "worker 1: busy"]
        done, lines = self.reload()
        self.assertEqual(done.problems, ["the map is wrong", "worker 1: busy"])
        logged = ["reload: the map is wrong", "reload: worker 1: busy"]
        self.assertEqual(lines, [*logged, "reloaded: changes=0 problems=2"])

    def test_changes_have_old_and_new_values(self) -> None:
        """Each change is a line with the old and the new value; it is none at the next reload."""
        limits = Limits(
            backlog=50,
            idle_seconds=2000.5,
            literal_seconds=90.0,
            report_only_limits=frozenset({"backlog"}),
        )
        expected = [
            "certificate: none -> /c.pem",
            "backlog: 100 -> 50",
            "idle_seconds: 1800 -> 2000.5",
            "literal_seconds: 60 -> 90",
            "report_only_limits: none -> backlog",
            "verbose: false -> true",
        ]
        done, lines = self.reload(limits=limits, verbose=True, certificate="/c.pem")
        self.assertEqual(done.changed, expected)
        self.assertEqual(lines[:-1], [f"reload: {line}" for line in expected])
        self.assertEqual(lines[-1], "reloaded: changes=6 problems=0")
        self.assertEqual(sorted(self.applied), ["certificate", "key", "limits", "verbose"])
        self.assertEqual(self.reload()[0].changed, [])

    def test_wrong_configuration_changes_nothing(self) -> None:
        """A wrong configuration is one line and changes nothing, but the log file is opened again."""
        self.error = "--config /c.toml: invalid TOML"
        done, lines = self.reload(verbose=True)
        problem = "--config /c.toml: invalid TOML; nothing is changed"
        self.assertEqual((done, lines), (Reloaded(problems=[problem]), [f"reload: {problem}"]))
        self.assertEqual((self.applied, self.reloader.settings), ([], self.old))
        self.assertEqual(self.calls, ["before", "reopen", "after"])

    def test_part_that_is_wrong_changes_nothing(self) -> None:
        """A setting that only its part can check changes nothing either, also no other setting."""
        done, lines = self.reload(limits=Limits(backlog=5), certificate="damaged")
        self.assertEqual([*done.problems], [line.removeprefix("reload: ") for line in lines])
        self.assertIn("--certificate damaged", lines[0])
        self.assertEqual((self.applied, self.reloader.settings), ([], self.old))
        self.assertEqual(len(self.reload(certificate="/c.pem")[0].changed), 2)

    def test_what_needs_a_restart_is_named_until_then(self) -> None:
        """What cannot be applied keeps its running value, and is named in one line at each reload."""
        for _ in range(2):
            done, lines = self.reload(listen=("tcp:2",), mail_root="/m")
            self.assertEqual(done.needs_restart, ["listen", "mail-root"])
            self.assertEqual(lines[0], "reload: listen, mail-root changed; restart the server")
        self.assertEqual(self.reloader.settings, self.old)
        self.assertEqual(self.reload(listen=self.old.listen)[0].needs_restart, ["mail-root"])

    def test_restart_that_would_fail(self) -> None:
        """The reload says why a restart would fail, and applies all else."""
        asked: list[Any] = []

        def check(new: Settings, names: Any) -> list[str]:
            asked.append((new.mail_root, names))
            return ["--mail-root /m: no"]

        self.reloader._check_restart = check
        done, lines = self.reload(mail_root="/m", verbose=True)
        self.assertEqual((len(done.changed), done.needs_restart), (1, ["mail-root"]))
        self.assertEqual(done.problems, ["a restart would fail: --mail-root /m: no"])
        self.assertIn("reload: a restart would fail: --mail-root /m: no", lines)
        self.assertEqual(asked, [("/m", {"mail_root"})])
        self.reload(mail_root=self.old.mail_root)
        self.assertEqual(len(asked), 1)

    def test_error_in_the_check_of_a_restart(self) -> None:
        """An error of this program there costs nothing else of the reload."""

        def check(*_: object) -> list[str]:
            raise AssertionError

        self.reloader._check_restart, self.problems = check, ["/users: no users"]
        done, _ = self.reload(mail_root="/m")
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assertEqual((done.needs_restart, done.problems), (["mail-root"], self.problems))

    def test_part_that_needs_a_restart(self) -> None:
        """A part may say that this change of its setting needs a restart."""
        done, _ = self.reload(auth=())
        self.assertEqual((done.changed, done.needs_restart), ([], ["auth"]))
        self.assertEqual(self.reloader.settings.auth, self.old.auth)

    def test_passwords_are_not_logged(self) -> None:
        """Of ``--auth`` the log names files. The arguments of other checkers may be passwords."""
        done, lines = self.reload(auth=("file:/other", "memory:alice:secret"))
        self.assertEqual(done.changed, ["auth: file:/users -> file:/other,memory:..."])
        self.assertNotIn("secret", "".join(lines))

    def test_problems_of_files(self) -> None:
        """Problems of files that are read again are in the answer, beside what has changed."""
        self.problems = ["/users: no users"]
        done, lines = self.reload(verbose=True)
        self.assertEqual((len(done.changed), done.problems), (1, ["/users: no users"]))
        self.assertEqual(lines[-1], "reloaded: changes=1 problems=1")

    def test_reloads_at_the_same_time(self) -> None:
        """Reloads that are wanted while one runs are one more reload, which finds the newest settings."""
        threads: list[tuple[Any, Deferred[Any]]] = []

        def run(function: Any) -> Deferred[Any]:
            threads.append((function, Deferred()))
            return threads[-1][1]

        self.reloader = self.make(run)
        first, *later = (self.reloader.reload() for _ in range(4))
        self.new = replace(self.new, verbose=True)
        threads[0][1].callback(self.old)
        self.assertEqual(self.successResultOf(first).changed, [])
        self.assertEqual(len(threads), 2)
        function, thread = threads[1]
        thread.callback(function())
        for each in later:
            self.assertEqual(len(self.successResultOf(each).changed), 1)
        self.assertEqual(self.calls.count("after"), 2)

    def test_error_does_not_block_later_reloads(self) -> None:
        """A bug in a part fails one reload. systemd gets its answer, and the next reload works."""
        self.patch(self, "load", lambda: 1 / 0)
        self.reloader = self.make(maybeDeferred)
        self.failureResultOf(self.reloader.reload(), ZeroDivisionError)
        self.assertEqual(self.calls[-1], "after")
        self.failureResultOf(self.reloader.reload(), ZeroDivisionError)
