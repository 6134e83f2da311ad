"""A test case that parses command lines and makes services, in a directory with mail and users."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import TestCase

from imapshield.cred import passwords, users
from imapshield.tap import Options, makeService


class CommandLineTestCase(TestCase):
    """Has a directory with the mail root `mail` and the password file `users`, in which alice has the password secret."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        self.mail = self.path("mail")
        os.makedirs(self.mail)
        self.users = self.path("users")
        users.set_hash(self.users, "alice", passwords.hash_scrypt(b"secret", ln=2))
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))
        self.patch(os, "environ", {**os.environ, "XDG_DATA_HOME": self.path("xdg")})
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)
        stdout = open(self.path("stdout"), "w")  # noqa: SIM115, closed by the cleanup
        self.addCleanup(stdout.close)
        self.patch(sys, "__stdout__", stdout)
        self.printed_length = 0

    def printed(self) -> str:
        """Return what services have printed since the last call."""
        with open(self.path("stdout")) as file:
            text = file.read()[self.printed_length :]
        self.printed_length += len(text)
        return text

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def file(self, name: str, content: bytes) -> str:
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(arguments)
        return options

    def make(self, *arguments: str) -> Any:
        return makeService(self.parse(*arguments))

    def refuses(self, *arguments: str, message: str | Sequence[str]) -> None:
        """Check that the start fails with one line that contains `message`, status 1 and no traceback."""
        with self.assertRaises(SystemExit) as caught:
            self.make(*arguments)
        text = caught.exception.code
        assert isinstance(text, str), text
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertTrue(text.startswith("imapshield: "), text)
        for words in [message] if isinstance(message, str) else message:
            self.assertIn(words, text)
