import os
import stat
from datetime import UTC, datetime
from email import message_from_binary_file, policy

from twisted.trial.unittest import SynchronousTestCase

from imapshield import first_run
from imapshield.cred import passwords, users
from imapshield.first_run import FirstRunFolder


class HomeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = FirstRunFolder(os.path.abspath(self.mktemp()))
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))

    def test_place(self) -> None:
        """The XDG data directory counts when it is absolute."""
        self.assertEqual(FirstRunFolder.of({"XDG_DATA_HOME": "/x"}).folder, "/x/imapshield")
        for environ in ({}, {"XDG_DATA_HOME": "x"}, {"XDG_DATA_HOME": ""}):
            self.assertEqual(
                FirstRunFolder.of(environ).folder, os.path.expanduser("~/.local/share/imapshield")
            )

    def test_first_start(self) -> None:
        """The first start makes a user with a password that nobody else has, and mail; the second changes nothing."""
        password = self.home.prepare()
        with open(self.home.users, "rb") as file:
            found, problems = users.parse(file.read())
        self.assertTrue(passwords.verify(found["demo"], password.encode()))
        self.assertEqual((problems, list(found)), ([], ["demo"]))
        self.assertEqual(len(os.listdir(os.path.join(self.home.mail, "demo", "new"))), 3)
        self.assertEqual(stat.S_IMODE(os.stat(self.home.mail).st_mode), 0o700)
        self.assertIsNone(self.home.prepare())
        self.assertNotEqual(FirstRunFolder(os.path.abspath(self.mktemp())).prepare(), password)

    def test_cut_short(self) -> None:
        """After a first start that died before the password was set, the next is the first, and mail comes once."""
        self.home.prepare()
        os.unlink(self.home.users)
        self.assertIsNotNone(self.home.prepare())
        self.assertEqual(len(os.listdir(os.path.join(self.home.mail, "demo", "new"))), 3)

    def test_words(self) -> None:
        """The first words have all that a newcomer must type; the next do not show a password."""
        words = self.home.first_words("127.0.0.1", "1143", "pass")
        for text in (
            "curl imap://127.0.0.1:1143/INBOX -u demo:pass",
            f"imapshield passwd {self.home.users} demo",
            "--help",
            "Thunderbird",
            "mutt",
        ):
            self.assertIn(text, words)
        self.assertIn("shown at the first start", self.home.next_words("127.0.0.1", "1143"))

    def test_samples(self) -> None:
        """The samples are whole messages: plain, alternative, attachments; subjects beyond ASCII; one in a folder."""
        folder = self.mktemp()
        first_run.fill(folder, datetime(2026, 1, 2, tzinfo=UTC))
        messages = {}
        for place in ("new", ".Archive/new"):
            for name in os.listdir(os.path.join(folder, place)):
                self.assertNotIn(":", name)
                with open(os.path.join(folder, place, name), "rb") as file:
                    message = message_from_binary_file(file, policy=policy.default)
                self.assertEqual(message.defects, [])
                messages[message["subject"]] = message
        self.assertEqual(len(messages), 4)
        self.assertTrue(any(not subject.isascii() for subject in messages))
        attached = messages["With two attachments"]
        self.assertEqual(
            [p.get_filename() for p in attached.iter_attachments()], ["limits.csv", "rød prikk.png"]
        )
        self.assertTrue(os.path.exists(os.path.join(folder, ".Archive", "maildirfolder")))
