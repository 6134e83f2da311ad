"""A test case that runs ``imapshield setup`` in a directory of its own."""

from __future__ import annotations

import io
import os
import pwd
import sys
from collections.abc import Sequence
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield import cli
from imapshield.cred import passwords
from imapshield.setup import setup_command
from imapshield.setup.installation import Installation
from tests.certificates import self_signed

PASSWORD = "correct horse"  # noqa: S105, of a test
ME = pwd.getpwuid(os.geteuid()).pw_name

Answer = str | type[BaseException]


class SetupCase(SynchronousTestCase):
    """Everything is written below `folder`, as a user's own server; `is_system` makes it one of the machine."""

    is_system = False

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.config, self.users = self.path("etc/config.toml"), self.path("etc/users")
        self.unit = self.path("units/imapshield.service")
        self.installation = Installation(
            self.is_system, self.config, self.path("state"), self.path("units")
        )
        replacement = mock.Mock(from_environ=lambda *_: self.installation)
        self.patch(setup_command, "Installation", replacement)
        self.patch(setup_command, "unusable_program", lambda _: "")
        self.patch(setup_command, "_own_host", lambda: "localhost")
        self.patch(setup_command, "_own_user", lambda: "alice")
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def certificate(self, host: str = "mail.example.org") -> str:
        path = self.path(f"{host}.pem")
        with open(path, "wb") as file:
            file.write(b"".join(self_signed(host)))
        return path

    def run_setup(
        self,
        *arguments: str,
        stdin: str = PASSWORD,
        typed: Sequence[Answer] = (),
        secrets: Sequence[Answer] = (PASSWORD, PASSWORD),
    ) -> tuple[int, str, str]:
        """Run the command with `stdin` from a pipe, or with answers that are `typed` at a terminal.

        Returns:
            The exit status, standard output and standard error.
        """
        out, err, pipe = io.StringIO(), io.StringIO(), io.TextIOWrapper(io.BytesIO(stdin.encode()))
        self.questions: list[str] = []

        def answer(prompt: str) -> str:
            self.questions.append(prompt)
            given = self.answers.pop(0)
            if isinstance(given, str):
                return given
            raise given

        self.answers = list(typed)
        with (
            mock.patch.multiple(sys, stdin=pipe, stdout=out, stderr=err),
            mock.patch.object(pipe, "isatty", return_value=bool(typed)),
            mock.patch("builtins.input", answer),
            mock.patch("getpass.getpass", side_effect=list(secrets)),
        ):
            status = cli.main(["setup", *arguments])
        return status, out.getvalue(), err.getvalue()

    def tree(self) -> list[str]:
        """Return all directories and files that exist."""
        found = [
            os.path.join(path, name)
            for path, _, names in os.walk(self.folder)
            for name in (*names, "")
        ]
        return sorted(os.path.relpath(path, self.folder) for path in found)

    def read(self, path: str) -> str:
        with open(path) as file:
            return file.read()

    def mode(self, path: str) -> int:
        return os.stat(path).st_mode & 0o777
