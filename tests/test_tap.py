"""``twistd imapshield``: its options, its error messages, and its clock."""

import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield import __version__
from imapshield.config import Settings
from imapshield.cred import checkers, passwords
from imapshield.limits import Limits
from imapshield.tap import Options, use_monotonic_clock
from tests.command_line import CommandLineTestCase


class OptionsTests(CommandLineTestCase):
    def test_no_options_give_the_defaults(self) -> None:
        """Without options, the settings are the defaults."""
        self.assertEqual(self.parse().settings, Settings())

    def test_every_option_becomes_a_setting(self) -> None:
        """Every option of the command line becomes a setting."""
        config = self.file("c.toml", b"[limit]\nidle_seconds = 7\n")
        options = self.parse(
            "--listen", "tcp:1", "--listen", "tcp:2", "--mail-root", "/m", "--auth", "memory:a:b", "--certificate", "/c",
            "--separator", ".", "--prefix", "INBOX.", "--key", "/k", "--backlog", "5", "--strict-backlog", "--report-only", "--verbose", "--config", config,
            "--limit", "preauth_commands=9",
        )  # fmt: skip
        limits = Limits(
            backlog=5, strict_backlog=True, report_only=True, idle_seconds=7, preauth_commands=9
        )
        self.assertEqual(
            options.settings,
            Settings(
                listen=("tcp:1", "tcp:2"),
                mail_root="/m",
                separator=".",
                prefix="INBOX.",
                auth=("memory:a:b",),
                certificate="/c",
                key="/k",
                verbose=True,
                limits=limits,
            ),
        )

    def test_help_names_every_option(self) -> None:
        """The help names every option of the command line."""
        with self.assertRaises(SystemExit) as caught:
            self.parse("--help")
        self.assertIn(caught.exception.code, (0, None))
        for name in (
            "listen",
            "mail-root",
            "separator",
            "prefix",
            "auth",
            "certificate",
            "key",
            "backlog",
            "strict-backlog",
            "report-only",
            "limit",
            "config",
            "verbose",
        ):
            self.assertIn(f"--{name}", self.out.getvalue())

    def test_limit_help_prints_each_limit(self) -> None:
        """--limit help prints each limit with its value and its reason."""
        with self.assertRaises(SystemExit) as caught:
            self.parse("--limit", "help")
        self.assertEqual(caught.exception.code, 0)
        text = " ".join(self.out.getvalue().split())
        for group, limits in Limits().by_group().items():
            self.assertIn(f"{group}:", text)
            for name, (value, reason) in limits.items():
                self.assertIn(f"{name}={value} {reason}", text)
        self.assertIn("Memory of 5000 such clients (max_preauth_connections): 468 MiB", text)
        scrypt = 128 * passwords.SCRYPT_R << passwords.SCRYPT_LN >> 20
        argon2 = passwords.ARGON2["memory_cost"] >> 10
        self.assertIn(f"{scrypt} MiB for a scrypt hash, {argon2} MiB for argon2id", text)
        self.assertIn(f"a password file checks {checkers.THREADS} at once", text)

    def test_unknown_option_is_an_error_of_one_line(self) -> None:
        """An unknown option, an unexpected argument and a missing value are errors of one line."""
        self.refuses("--nonsense", message=["nonsense", "--help"])
        self.refuses("surplus", message=["surplus", "--help"])
        self.refuses("--listen", message="--help")

    def test_wrong_option_is_explained(self) -> None:
        """An option of twistd belongs before the name of the plugin, and a misspelt one is recognized."""
        self.refuses(
            "--nodaemon", message="belongs before `imapshield`: twistd --nodaemon imapshield"
        )
        self.refuses("-n", message="twistd -n imapshield")
        self.refuses("--logfile=x", message="twistd --logfile imapshield")
        self.refuses("--mailroot=x", message="did you mean --mail-root?")

    def test_version(self) -> None:
        """``twistd imapshield --version`` prints the version of imapshield."""
        output = StringIO()
        with redirect_stdout(output), self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--version"])
        self.assertEqual(caught.exception.code, 0)
        self.assertIn(f"imapshield {__version__}, ", output.getvalue())

    def test_configuration_error_is_one_line(self) -> None:
        """An error of the configuration is one line, from the command line and from the file."""
        self.refuses("--limit", "bakclog=1", message=["unknown limit", "backlog", "--limit help"])
        self.refuses("--backlog", "many", message="--backlog many: must be a whole number")
        self.refuses("--mail-root", self.mail, message=["--auth", "file:PATH", "imapshield passwd"])
        self.refuses("--config", self.path("none"), message=self.path("none"))
        self.refuses("--config", self.file("c.toml", b"="), message=self.path("c.toml"))

    def test_empty_values(self) -> None:
        """An option with an empty value is an error, and is not ignored."""
        for option in ("--mail-root", "--certificate", "--key", "--backlog", "--config"):
            self.refuses(option, "", message=f"{option} needs a value")


class ClockTests(SynchronousTestCase):
    def test_clock(self) -> None:
        """The reactor measures time with a monotonic clock, unless calls wait for a time of the old clock."""

        class Reactor:
            seconds = staticmethod(time.time)
            calls: Sequence[object] = ()

            def getDelayedCalls(self) -> Sequence[object]:
                return self.calls

        fresh, used, clock = Reactor(), Reactor(), Clock()
        used.calls = [object()]
        seconds = clock.seconds
        for each in (fresh, used, clock):
            use_monotonic_clock(each)
        self.assertIs(fresh.seconds, time.monotonic)
        self.assertIs(used.seconds, time.time)
        self.assertEqual(clock.seconds, seconds)
