"""A start without options creates a directory with a user and mail, and prints commands to try."""

import os
import re
import stat
import sys
from datetime import UTC, datetime
from email import message_from_binary_file, policy
from email.message import EmailMessage
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield import first_run
from imapshield.cred import passwords, users
from imapshield.first_run import FirstRunFolder

LISTENING = [("tcp:1143:interface=127.0.0.1", "127.0.0.1:1143")]


class FirstRunFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first_run = FirstRunFolder(os.path.abspath(self.mktemp()))
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))

    def start(self) -> str:
        """Start once, and return the password that is printed, which is empty at later starts."""
        self.first_run.create_mail_root(samples=True)
        match = re.search(r"password  (\S+) ", self.first_run.add_demo_user(LISTENING))
        return match[1] if match else ""

    def test_folder_is_in_xdg_data_home(self) -> None:
        """The directory is in $XDG_DATA_HOME if that is absolute, else in ~/.local/share."""
        folder = FirstRunFolder.from_environ({"XDG_DATA_HOME": "/x"}).folder
        self.assertEqual(folder, "/x/imapshield")
        environments: list[dict[str, str]] = [{}, {"XDG_DATA_HOME": "x"}, {"XDG_DATA_HOME": ""}]
        for environ in environments:
            self.assertEqual(
                FirstRunFolder.from_environ(environ).folder,
                os.path.expanduser("~/.local/share/imapshield"),
            )

    def test_first_start_creates_mail_and_a_user(self) -> None:
        """The first start creates mail that nobody else can read, and a user with a unique password."""
        self.addCleanup(os.umask, os.umask(0o022))
        password = self.start()
        with open(self.first_run.users, "rb") as file:
            hashes, problems = users.parse(file.read())
        self.assertTrue(passwords.verify(hashes["demo"].stored, password.encode()))
        self.assertEqual((problems, list(hashes)), ([], ["demo"]))
        self.assertEqual(len(os.listdir(os.path.join(self.first_run.mail, "demo", "new"))), 3)
        for folder, _, names in os.walk(self.first_run.folder):
            self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700, folder)
            for name in names:
                mode = stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
                self.assertEqual(mode, 0o600, name)
        self.assertEqual(self.start(), "")
        self.first_run = FirstRunFolder(os.path.abspath(self.mktemp()))
        self.assertNotIn(self.start(), ("", password))

    def test_interrupted_first_start_is_repeated(self) -> None:
        """After a first start that ended before the password was set, the next is a first start; mail comes once."""
        self.start()
        os.unlink(self.first_run.users)
        self.assertNotEqual(self.start(), "")
        self.assertEqual(len(os.listdir(os.path.join(self.first_run.mail, "demo", "new"))), 3)

    def test_no_samples(self) -> None:
        """Without the demo user, only the mail root is created."""
        self.first_run.create_mail_root(samples=False)
        self.assertEqual(os.listdir(self.first_run.folder), ["mail"])
        self.assertEqual(os.listdir(self.first_run.mail), [])

    def test_first_start_prints_all_commands_for_a_new_user(self) -> None:
        """The first start prints all that a new user must type; later starts show no password."""
        os.mkdir(self.first_run.folder)
        text = self.first_run.add_demo_user(LISTENING)
        for expected in (
            "The mail server is at 127.0.0.1:1143, ",
            'curl "imap://127.0.0.1:1143/" -u demo:',
            f"imapshield passwd {self.first_run.users} demo",
            "--help",
            "Thunderbird",
            'mutt -e "set ssl_force_tls=no folder=imap://demo@127.0.0.1:1143/" -f +INBOX',
        ):
            self.assertIn(expected, text)
        again = self.first_run.add_demo_user(LISTENING)
        self.assertIn("shown at the first start", again)
        command = f"{os.path.dirname(os.path.abspath(sys.argv[0]))}/imapshield passwd {self.first_run.users} demo"
        self.assertIn(command, text)
        self.assertIn(command, again)

    def test_later_start_with_hashes_that_need_a_package(self) -> None:
        """A start says that nobody can log in, if another installation has written the password file."""
        self.first_run.create_mail_root(samples=False)
        users.set_hash(
            self.first_run.users, "demo", "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAA$AAAA"
        )
        self.addCleanup(setattr, passwords, "_next_attempt", 0.0)
        with mock.patch.multiple(passwords, _argon2=None, _import_argon2=lambda: None):
            text = self.first_run.add_demo_user(LISTENING)
        self.assertIn("nobody can log in; demo cannot log in: argon2-cffi is not installed", text)
        self.assertNotIn("was shown", text)

    def test_addresses(self) -> None:
        """The commands to try use the first TCP port without TLS, and its loopback address if it has all addresses."""
        for listening, url in (
            ([("ssl:993:x", "0.0.0.0:993"), ("tcp:143", "0.0.0.0:143")], "imap://127.0.0.1:143/"),
            ([("tcp6:143", "[::]:143")], "imap://[::1]:143/"),
            ([("tcp6:143:interface=fe80\\:\\:1", "[fe80::1]:143")], "imap://[fe80::1]:143/"),
        ):
            self.first_run = FirstRunFolder(os.path.abspath(self.mktemp()))
            os.mkdir(self.first_run.folder)
            text = self.first_run.add_demo_user(listening)
            self.assertIn(f"at {', '.join(address for _, address in listening)}, with", text)
            self.assertIn(f'curl "{url}"', text)
        self.assertIn("server fe80::1, port 143", text)

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
