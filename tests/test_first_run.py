"""A start without options creates a directory with a user and mail, and prints commands to try."""

import os
import stat
from datetime import UTC, datetime
from email import message_from_binary_file, policy
from email.message import EmailMessage

from twisted.trial.unittest import SynchronousTestCase

from imapshield import first_run
from imapshield.cred import passwords, users
from imapshield.first_run import FirstRunFolder


class FirstRunFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first_run = FirstRunFolder(os.path.abspath(self.mktemp()))
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))

    def test_folder_is_in_xdg_data_home(self) -> None:
        """The directory is in $XDG_DATA_HOME if that path is absolute, otherwise in ~/.local/share."""
        folder = FirstRunFolder.from_environ({"XDG_DATA_HOME": "/x"}).folder
        self.assertEqual(folder, "/x/imapshield")
        environments: list[dict[str, str]] = [{}, {"XDG_DATA_HOME": "x"}, {"XDG_DATA_HOME": ""}]
        for environ in environments:
            self.assertEqual(
                FirstRunFolder.from_environ(environ).folder,
                os.path.expanduser("~/.local/share/imapshield"),
            )

    def test_first_start_creates_mail_and_a_user(self) -> None:
        """The first start creates mail and a user with a unique password; the second start changes nothing."""
        password = self.first_run.prepare()
        assert password is not None
        with open(self.first_run.users, "rb") as file:
            hashes, problems = users.parse(file.read())
        self.assertTrue(passwords.verify(hashes["demo"], password.encode()))
        self.assertEqual((problems, list(hashes)), ([], ["demo"]))
        self.assertEqual(len(os.listdir(os.path.join(self.first_run.mail, "demo", "new"))), 3)
        self.assertEqual(stat.S_IMODE(os.stat(self.first_run.mail).st_mode), 0o700)
        self.assertIsNone(self.first_run.prepare())
        self.assertNotEqual(FirstRunFolder(os.path.abspath(self.mktemp())).prepare(), password)

    def test_interrupted_first_start_is_repeated(self) -> None:
        """A first start that ended before it set the password is repeated, without delivering the mail again."""
        self.first_run.prepare()
        os.unlink(self.first_run.users)
        self.assertIsNotNone(self.first_run.prepare())
        self.assertEqual(len(os.listdir(os.path.join(self.first_run.mail, "demo", "new"))), 3)

    def test_first_start_prints_all_commands_for_a_new_user(self) -> None:
        """The first start prints all commands that a new user needs; later starts show no password."""
        text = self.first_run.welcome_message("127.0.0.1", "1143", "pass")
        for expected in (
            "curl imap://127.0.0.1:1143/INBOX -u demo:pass",
            f"imapshield passwd {self.first_run.users} demo",
            "--help",
            "Thunderbird",
            "mutt",
        ):
            self.assertIn(expected, text)
        self.assertIn(
            "shown at the first start", self.first_run.restart_message("127.0.0.1", "1143")
        )

    def test_sample_messages_are_valid(self) -> None:
        """The samples are valid messages in two mailboxes: plain, alternative, with attachments, non-ASCII subjects."""
        folder = self.mktemp()
        first_run.deliver_samples(folder, datetime(2026, 1, 2, tzinfo=UTC))
        messages = {}
        for directory in ("new", ".Archive/new"):
            for name in os.listdir(os.path.join(folder, directory)):
                self.assertNotIn(":", name)
                with open(os.path.join(folder, directory, name), "rb") as file:
                    message = message_from_binary_file(file, EmailMessage, policy=policy.default)
                self.assertEqual(message.defects, [])
                messages[message["subject"]] = message
        self.assertEqual(len(messages), 4)
        self.assertTrue(any(not subject.isascii() for subject in messages))
        attachments = messages["With two attachments"].iter_attachments()
        self.assertEqual([p.get_filename() for p in attachments], ["limits.csv", "rød prikk.png"])
        self.assertTrue(os.path.exists(os.path.join(folder, ".Archive", "maildirfolder")))
