import io
import os
import subprocess
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield import __version__, cli
from imapshield.cred import passwords, users


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))

    def run_it(self, *arguments, typed=b"", tty=()):
        """Returns the status, standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        stdin = io.TextIOWrapper(io.BytesIO(typed))
        stdin.isatty = lambda: bool(tty)
        with (
            mock.patch.multiple(sys, stdin=stdin, stdout=out, stderr=err),
            mock.patch.object(cli.getpass, "getpass", side_effect=list(tty)),
        ):
            status = cli.main(arguments)
        return status, out.getvalue(), err.getvalue()

    def verifies(self, user, password):
        with open(self.path, "rb") as file:
            return passwords.verify(users.parse(file.read())[0][user], password)

    def test_passwd_from_a_pipe(self) -> None:
        """One line of a pipe is the password, whatever octets it has, and nothing shows it."""
        status, out, err = self.run_it(
            "passwd", self.path, "alice", typed=b"s\xc3\xa9 cret\r\nmore\n"
        )
        self.assertEqual((status, out, err), (0, "added alice\n", ""))
        self.assertTrue(self.verifies("alice", b"s\xc3\xa9 cret"))
        self.assertEqual(
            self.run_it("passwd", self.path, "alice", typed=b"new")[1], "changed alice\n"
        )
        self.assertTrue(self.verifies("alice", b"new"))

    def test_passwd_typed(self) -> None:
        """At a terminal it is asked for twice, unseen."""
        self.assertEqual(self.run_it("passwd", self.path, "alice", tty=["sé", "sé"])[0], 0)
        self.assertTrue(self.verifies("alice", "sé".encode()))

    def test_passwd_scram(self) -> None:
        """--scram keeps what SCRAM needs; a password that it cannot have is refused."""
        self.patch(passwords, "STORED_ITERATIONS", 4096)
        self.run_it("passwd", "--scram", self.path, "alice", typed=b"secret")
        self.assertTrue(self.verifies("alice", b"secret"))
        with open(self.path, "rb") as file:
            self.assertIn(b"alice:$scram-sha-256$", file.read())
        answer = self.run_it("passwd", "--scram", self.path, "alice", typed="sé".encode())
        self.assertEqual(answer[0], 1)
        self.assertIn("ASCII", answer[2])
        self.assertTrue(self.verifies("alice", b"secret"))

    def test_passwd_mistyped(self) -> None:
        """If the two differ, or there is none, nothing changes."""
        status, _, err = self.run_it("passwd", self.path, "alice", tty=["a", "b"])
        self.assertEqual(
            (status, err), (1, "imapshield: the two are not the same; nothing was changed\n")
        )
        for options in (
            {"typed": b""},
            {"typed": b"\n"},
            {"tty": ["", ""]},
            {"tty": [EOFError]},
            {"tty": [KeyboardInterrupt]},
        ):
            status, _, err = self.run_it("passwd", self.path, "alice", **options)
            self.assertEqual((status, len(err.splitlines())), (1, 1))
        self.assertFalse(os.path.exists(self.path))

    def test_users(self) -> None:
        """Users are listed, and lines which nobody can use are named without their text."""
        for name in ("bob", "alice"):
            self.run_it("passwd", self.path, name, typed=b"x")
        with open(self.path, "ab") as file:
            file.write(b"eve:hunter2\n")
        status, out, err = self.run_it("users", self.path)
        self.assertEqual((status, out), (0, "bob\nalice\n"))
        self.assertIn("line 3", err)
        self.assertNotIn("hunter2", err)

    def test_remove(self) -> None:
        """A user is removed once; the second time it is said that there is none."""
        self.run_it("passwd", self.path, "alice", typed=b"x")
        self.assertEqual(self.run_it("remove", self.path, "alice"), (0, "removed alice\n", ""))
        status, _, err = self.run_it("remove", self.path, "alice")
        self.assertEqual((status, len(err.splitlines())), (1, 1))

    def test_errors_are_one_line(self) -> None:
        """A bad name, a missing file and a folder in its place are one line each."""
        for arguments in (
            ("passwd", self.path, ".."), ("passwd", self.path, "a:b"), ("users", self.path), ("remove", self.path, "x"),
            ("passwd", "/no/such/folder/users", "alice"), ("users", "/"),
        ):  # fmt: skip
            with self.subTest(arguments=arguments):
                status, out, err = self.run_it(*arguments, typed=b"x")
                self.assertEqual((status, out, len(err.splitlines())), (1, "", 1))

    def test_no_password_argument(self) -> None:
        """A password on the command line, where every process could read it, is refused."""
        with self.assertRaises(SystemExit):
            self.run_it("passwd", self.path, "alice", "secret")

    def test_module(self) -> None:
        """``python -m imapshield`` is the same command."""
        done = subprocess.run(
            [sys.executable, "-m", "imapshield", "--version"], capture_output=True, text=True, check=True,
            cwd=os.path.dirname(os.path.dirname(cli.__file__)),
        )  # fmt: skip
        self.assertEqual(done.stdout.strip(), __version__)
