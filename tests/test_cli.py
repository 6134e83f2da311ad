"""The console script sets, lists and removes users; its errors are one line each."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield import __version__, cli, user_commands
from imapshield.cred import passwords, users

Answer = str | type[BaseException]


class CommandCase(SynchronousTestCase):
    """Runs commands on the password file `path`."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))
        self.patch(
            user_commands, "_status", lambda _: os.stat_result([0o600, 0, 0, 0, 1000] + [0] * 5)
        )

    def command(
        self, *arguments: str, stdin: bytes = b"", typed: Sequence[Answer] = ()
    ) -> tuple[int, str, str]:
        """Run a command, with `stdin` from a pipe or with `typed` at a terminal.

        Returns:
            The exit status, standard output and standard error.
        """
        out, err = io.StringIO(), io.StringIO()
        pipe = io.TextIOWrapper(io.BytesIO(stdin))
        with (
            mock.patch.multiple(sys, stdin=pipe, stdout=out, stderr=err),
            mock.patch.object(pipe, "isatty", return_value=bool(typed)),
            mock.patch("getpass.getpass", side_effect=list(typed)),
        ):
            status = cli.main(arguments)
        return status, out.getvalue(), err.getvalue()


class CommandTests(CommandCase):
    def verifies(self, user: str, password: bytes) -> bool:
        with open(self.path, "rb") as file:
            return passwords.verify(users.parse(file.read())[0][user].stored, password)

    def test_passwd_reads_the_first_line_of_a_pipe(self) -> None:
        """The first line of a pipe is the password, whatever its bytes; the password is never printed."""
        status, out, err = self.command(
            "passwd", self.path, "alice", stdin=b"s\xc3\xa9 cret\r\nmore\n"
        )
        self.assertEqual((status, out, err), (0, "added alice\n", ""))
        self.assertTrue(self.verifies("alice", b"s\xc3\xa9 cret"))
        self.assertEqual(
            self.command("passwd", self.path, "alice", stdin=b"new one")[1], "changed alice\n"
        )
        self.assertTrue(self.verifies("alice", b"new one"))

    def test_wrong_command_lines_are_one_line(self) -> None:
        """A wrong command, or a missing or superfluous argument, is one line, with the arguments that are expected."""
        for arguments, message in (
            ((), "imapshield: the following arguments are required: COMMAND; usage: imapshield"),
            (("pass", "x"), "imapshield: unknown command 'pass'; did you mean 'passwd'? see "),
            (("zzz", "x"), "imapshield: argument COMMAND: invalid choice: 'zzz' (choose from "),
            (
                ("completion", "bsh"),
                "imapshield completion: unknown value of shell: 'bsh'; did you mean 'bash'?",
            ),
            (("--control", "/x"), "imapshield: the following arguments are required: COMMAND; "),
            (
                ("passwd", "x"),
                "imapshield passwd: the following arguments are required: USER; usage: imapshield passwd [-h]",
            ),
            (
                ("bans", "192.0.2.1"),
                "imapshield: unrecognized arguments: 192.0.2.1; see imapshield bans --help\n",
            ),
        ):
            err = io.StringIO()
            with mock.patch.object(sys, "stderr", err):
                status = self.assertRaises(SystemExit, cli.main, arguments).code
            text = err.getvalue()
            self.assertEqual((status, text.count("\n"), text[: len(message)]), (2, 1, message))

    def test_directory_in_place_of_the_file(self) -> None:
        """A directory is refused with a file in it as advice, before a password is typed."""
        os.mkdir(self.path)
        advice = f"imapshield: {self.path}: is a directory; name a file in it, such as {self.path}/users\n"
        for arguments in (
            ("users", self.path),
            ("passwd", self.path, "a"),
            ("remove", self.path, "a"),
        ):
            self.assertEqual(self.command(*arguments), (1, "", advice))

    def test_what_cannot_work_is_said_before_a_password_is_typed(self) -> None:
        """A wrong user name and a directory that does not exist are errors before the prompt."""
        for arguments in (("a:b",), ("a", "/nosuch")):
            path = self.path if len(arguments) == 1 else "/nosuch/users"
            status, _, err = self.command("passwd", path, arguments[0])
            self.assertEqual(status, 1)
            self.assertNotIn("the password is empty", err)

    def test_passwd_says_that_only_root_can_read_the_file(self) -> None:
        """If root creates a file that only root can read, `imapshield passwd` says what to do, but only then."""
        for uid, mode, lines in ((0, 0o600, 1), (0, 0o640, 0), (8, 0o600, 0)):
            status = os.stat_result((mode, 0, 0, 0, uid, 7, 0, 0, 0, 0))
            with mock.patch.object(user_commands, "_status", return_value=status):
                path = self.mktemp()
                err = self.command("passwd", path, "alice", stdin=b"secret")[2]
                self.assertEqual(self.command("passwd", path, "bob", stdin=b"secret")[2], "")
            self.assertEqual(err.count(f"only root can read {path}; `chown USER {path}`"), lines)

    def test_passwd_prompts_twice_without_echo(self) -> None:
        """At a terminal, `imapshield passwd` prompts for the password twice, without echo."""
        self.assertEqual(
            self.command("passwd", self.path, "alice", typed=["sésame", "sésame"])[0], 0
        )
        self.assertTrue(self.verifies("alice", "sésame".encode()))

    def test_passwd_scram_stores_a_scram_secret(self) -> None:
        """--scram stores a SCRAM secret; a password that is not ASCII is refused and changes nothing."""
        self.command("passwd", "--scram", self.path, "alice", stdin=b"secret")
        self.assertTrue(self.verifies("alice", b"secret"))
        with open(self.path, "rb") as file:
            self.assertIn(b"alice:$scram-sha-256$", file.read())
        status, _, err = self.command(
            "passwd", "--scram", self.path, "alice", stdin="sésame".encode()
        )
        self.assertEqual(status, 1)
        self.assertIn("ASCII", err)
        self.assertTrue(self.verifies("alice", b"secret"))

    def test_passwords_that_differ_change_nothing(self) -> None:
        """If the two typed passwords differ, they are asked again, at most three times, and then nothing changes."""
        typed = ["sesame2", "b"] * 3
        status, _, err = self.command("passwd", self.path, "alice", typed=typed)
        text = "imapshield: passwords do not match"
        self.assertEqual(
            (status, err.splitlines()),
            (1, [f"{text}; try again"] * 2 + [f"{text}; nothing was changed"]),
        )
        self.assertFalse(os.path.exists(self.path))

    def test_mistakes_at_a_terminal_are_asked_again(self) -> None:
        """A weak password is refused before it is typed twice, and a mistake does not end the command."""
        typed = ["abc", "sesame2", "sesame3", "sesame2", "sesame2"]
        status, out, err = self.command("passwd", self.path, "alice", typed=typed)
        self.assertEqual((status, out), (0, "added alice\n"))
        first, second = err.splitlines()
        self.assertRegex(first, "fewer than 6 characters.*; try again")
        self.assertRegex(second, "passwords do not match; try again")
        self.assertTrue(self.verifies("alice", b"sesame2"))

    def test_missing_password_is_an_error_of_one_line(self) -> None:
        """An empty password, end of input and an interrupt are errors of one line, and nothing changes."""
        cases: list[tuple[bytes, list[Answer]]] = [
            (b"", []),
            (b"\n", []),
            (b"", ["", ""]),
            (b"", [EOFError]),
            (b"", [KeyboardInterrupt]),
        ]
        for stdin, typed in cases:
            status, _, err = self.command("passwd", self.path, "alice", stdin=stdin, typed=typed)
            self.assertEqual((status, len(err.splitlines())), (1, 1))
        self.assertFalse(os.path.exists(self.path))

    def test_users_are_listed_and_invalid_lines_reported(self) -> None:
        """Users are listed; an invalid line is reported by its number, without its text."""
        for name in ("bob", "alice"):
            self.command("passwd", self.path, name, stdin=b"secret")
        with open(self.path, "ab") as file:
            file.write(b"eve:hunter2\n")
        status, out, err = self.command("users", self.path)
        self.assertEqual((status, out), (0, "bob\nalice\n"))
        self.assertIn("line 3", err)
        self.assertNotIn("hunter2", err)

    def test_remove_succeeds_once(self) -> None:
        """Removing a user succeeds once; a second removal is an error of one line."""
        self.command("passwd", self.path, "alice", stdin=b"secret")
        self.assertEqual(self.command("remove", self.path, "alice"), (0, "removed alice\n", ""))
        status, _, err = self.command("remove", self.path, "alice")
        self.assertEqual((status, len(err.splitlines())), (1, 1))

    def test_errors_are_one_line_each(self) -> None:
        """An invalid name, a missing file and a directory instead of a file are errors of one line each."""
        for arguments in (
            ("passwd", self.path, ".."), ("passwd", self.path, "a:b"), ("users", self.path), ("remove", self.path, "x"),
            ("passwd", "/no/such/folder/users", "alice"), ("users", "/"),
        ):  # fmt: skip
            with self.subTest(arguments=arguments):
                status, out, err = self.command(*arguments, stdin=b"secret")
                self.assertEqual((status, out, len(err.splitlines())), (1, "", 1))

    def test_advice(self) -> None:
        """A missing directory, a missing file and a lack of permission each have their own advice."""
        folder: str = os.path.abspath(self.mktemp())
        missing = f"the directory {folder} does not exist; create it first"
        self.assertIn(
            missing, self.command("passwd", f"{folder}/users", "alice", stdin=b"secret")[2]
        )
        self.assertIn(missing, self.command("users", f"{folder}/users")[2])
        self.assertIn(f"`imapshield passwd {self.path} USER`", self.command("users", self.path)[2])
        denied = PermissionError(errno.EACCES, "Permission denied", self.path)
        for error, advice in ((denied, "Permission denied; run"), (OSError(28, "Full"), "Full\n")):
            with mock.patch.object(users, "set_hash", side_effect=error):
                err = self.command("passwd", self.path, "alice", stdin=b"secret")[2]
            self.assertIn(f"{self.path}: {advice}", err)

    def test_end_of_scram(self) -> None:
        """A hash of another kind in a file of SCRAM secrets says that SCRAM is no longer offered."""
        self.command("passwd", "--scram", self.path, "alice", stdin=b"secret")
        self.assertEqual(
            self.command("passwd", "--scram", self.path, "bob", stdin=b"secret")[2], ""
        )
        status, _, err = self.command("passwd", self.path, "bob", stdin=b"secret")
        self.assertEqual(status, 0)
        self.assertIn("SCRAM is no longer offered, because bob", err)
        self.assertEqual(self.command("passwd", self.path, "alice", stdin=b"secret")[2], "")

    def test_password_argument_is_refused(self) -> None:
        """A password on the command line, where every process could read it, is refused."""
        with self.assertRaises(SystemExit):
            self.command("passwd", self.path, "alice", "secret")

    def test_module_is_the_same_command(self) -> None:
        """``python -m imapshield`` is the same command."""
        process = subprocess.run(
            [sys.executable, "-m", "imapshield", "--version"], capture_output=True, text=True, check=True,
            cwd=os.path.dirname(os.path.dirname(cli.__file__)),
        )  # fmt: skip
        self.assertEqual(process.stdout.strip(), __version__)
