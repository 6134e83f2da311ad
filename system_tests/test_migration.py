"""Changes between imapshield, Dovecot and Courier: mbsync finds nothing to do.

If an export was forgotten, mbsync downloads a few messages again and loses nothing.
"""

from __future__ import annotations

import imaplib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.peers import PASSWORD, USER, Peer, change_owner, start
from system_tests.courier import courier_command, courier_session
from system_tests.maildirs import deliver, paths_by_subject, small_message
from system_tests.server import REPOSITORY
from system_tests.server_case import find_program

CONFIG = """\
FSync no
Sync All
Create Near
Remove None
Expunge Both
SyncState *
CopyArrivalDate yes

IMAPStore far
{connection}
SSLType None

MaildirStore near
Path {home}/Mail/
Inbox {home}/Mail/INBOX
SubFolders Verbatim

Channel inbox
Far :far:
Near :near:
Patterns INBOX

Channel others
Far :far:
Near :near:
Patterns * !INBOX
"""


class MigrationCase(SynchronousTestCase):
    """One Maildir that different servers serve, and mbsync, which keeps a copy of it."""

    def setUp(self) -> None:
        self.base = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        os.chmod(self.base, 0o755)  # noqa: S103 for Dovecot's processes of other users
        self.root, self.home = Path(self.base, "mail"), f"{self.base}/home"
        self.maildir = self.root / USER
        os.makedirs(f"{self.home}/Mail")
        for number in range(4):
            self.deliver(f"m{number}")
            self.deliver(f"w{number}", ".Work")

    def deliver(self, subject: str, folder: str = "") -> None:
        """Deliver a message whose file name sorts by `subject`."""
        deliver(str(self.maildir / folder), small_message(subject), f"1700000000.{subject}.host")

    def serve(self, name: str) -> AbstractContextManager[Peer]:
        """Start imapshield or Dovecot on the Maildir."""
        change_owner(self.root)
        return start(name, self.root)

    def sync(self, connection: str | Peer) -> None:
        """Run mbsync. It must not report an error."""
        if isinstance(connection, Peer):
            connection = "\n".join(
                [
                    f"Host {connection.host}",
                    f"Port {connection.port}",
                    f"User {USER}",
                    f'Pass "{PASSWORD}"',
                    "AuthMechs LOGIN",
                ]
            )
        config = Path(self.home, "mbsyncrc")
        config.write_text(CONFIG.format(connection=connection, home=self.home))
        done = subprocess.run(
            [find_program("mbsync", "isync"), "-c", str(config), "-a"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
            env={**os.environ, "HOME": self.home},
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)

    def visit(self, name: str) -> None:
        """Synchronize once with imapshield or Dovecot."""
        with self.serve(name) as peer:
            self.sync(peer)

    def near(self, folder: str = "INBOX") -> dict[str, str]:
        """Return mbsync's copy of a folder: subject → flags."""
        found = paths_by_subject(f"{self.home}/Mail/{folder}")
        return {subject.decode(): path.partition(":2,")[2] for subject, path in found.items()}

    def set_near_flags(self, subject: str, flags: str) -> None:
        path = paths_by_subject(f"{self.home}/Mail/INBOX")[subject.encode()]
        target = os.path.basename(path).partition(":2,")[0] + ":2," + flags
        os.rename(path, f"{self.home}/Mail/INBOX/cur/{target}")

    def state(self) -> list[tuple[str, bytes]]:
        """Return the names and the state of mbsync's copy; they stay if there was nothing to do."""
        return sorted(
            (
                os.path.join(folder, name),
                Path(folder, name).read_bytes() if name == ".mbsyncstate" else b"",
            )
            for folder, _, names in os.walk(f"{self.home}/Mail")
            for name in names
        )

    def assert_nothing_to_do(self, connection: str | Peer) -> None:
        before = self.state()
        self.sync(connection)
        self.assertEqual(self.state(), before)

    def command(self, *arguments: str) -> str:
        """Run the command ``imapshield`` and return its output. As root it acts as the owner of the Maildir."""
        change_owner(self.root)
        done = subprocess.run(
            [sys.executable, "-m", "imapshield", *arguments],
            capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def uidvalidities(self) -> dict[str, bytes]:
        """Return what mbsync knows as UIDVALIDITY of each mailbox."""
        return {
            path: re.findall(rb"^FarUidValidity.*", content, re.MULTILINE)[0]
            for path, content in self.state()
            if content
        }

    def subjects(self, folder: str) -> set[str]:
        return {subject.decode() for subject in paths_by_subject(str(self.maildir / folder))}

    def assert_no_duplicates(self) -> None:
        for folder in ("", ".Work"):
            files = [n for part in ("cur", "new") for n in os.listdir(self.maildir / folder / part)]
            self.assertEqual(len(files), len(self.subjects(folder)))


def keywords(peer: Peer, subject: str) -> set[bytes]:
    """Return the keywords of a message in INBOX."""
    client = imaplib.IMAP4(peer.host, peer.port)
    client.login(USER, PASSWORD)
    client.select(readonly=True)
    (number,) = client.search(None, "SUBJECT", subject)[1][0].split()
    (flags_data,) = client.fetch(number.decode(), "(FLAGS)")[1]
    assert isinstance(flags_data, bytes)
    flags = imaplib.ParseFlags(flags_data)
    client.logout()
    return {flag for flag in flags if not flag.startswith(b"\\")}


def set_keywords(peer: Peer, subject: str, *words: str) -> None:
    """Add keywords to a message in INBOX, and subscribe to Work."""
    client = imaplib.IMAP4(peer.host, peer.port)
    client.login(USER, PASSWORD)
    client.select()
    (number,) = client.search(None, "SUBJECT", subject)[1][0].split()
    client.store(number.decode(), "+FLAGS", f"({' '.join(words)})")
    client.subscribe("Work")
    client.logout()


def subscribed(peer: Peer) -> list[bytes]:
    """Return the answers of LSUB."""
    client = imaplib.IMAP4(peer.host, peer.port)
    client.login(USER, PASSWORD)
    names = client.lsub()[1]
    client.logout()
    return [name.rpartition(b" ")[2].strip(b'"') for name in names if name]


class DovecotTests(MigrationCase):
    def test_from_imapshield_to_dovecot(self) -> None:
        """After `imapshield export-uids --to dovecot` there is nothing to do, and keywords and subscriptions stay."""
        with self.serve("imapshield") as peer:
            set_keywords(peer, "m2", "$Junk", "$Forwarded", "blue")
            self.sync(peer)
        self.set_near_flags("m1", "FS")
        self.visit("imapshield")
        self.command("export-uids", "--to", "dovecot", str(self.maildir))
        with self.serve("dovecot") as peer:
            self.assert_nothing_to_do(peer)
            self.assertEqual(keywords(peer, "m2"), {b"$Junk", b"$Forwarded", b"blue"})
            self.assertEqual(subscribed(peer), [b"Work"])
        self.deliver("later")
        with self.serve("imapshield") as peer:
            self.sync(peer)
            self.assert_nothing_to_do(peer)
            self.assertEqual(keywords(peer, "m2"), {b"$Junk", b"$Forwarded", b"blue"})
        self.assertEqual(self.near().keys(), self.subjects(""))

    def test_contradiction_is_recovered(self) -> None:
        """If Dovecot's list is restored from a backup, UIDs contradict each other; mbsync loses nothing."""
        self.visit("dovecot")
        path = self.maildir / "dovecot-uidlist"
        content = path.read_bytes()
        self.deliver("ours")
        self.visit("imapshield")
        path.write_bytes(content)
        os.unlink(paths_by_subject(str(self.maildir))[b"ours"])
        self.deliver("theirs")
        with self.serve("dovecot") as peer:
            subscribed(peer)
            client = imaplib.IMAP4(peer.host, peer.port)
            client.login(USER, PASSWORD)
            client.select()
            client.logout()
        self.deliver("later")
        before = self.uidvalidities()
        self.visit("imapshield")
        self.assertEqual(self.near().keys(), self.subjects(""))
        self.assertNotEqual(self.uidvalidities(), before)

    def test_export_after_dovecot_served_the_maildir(self) -> None:
        """From Dovecot to imapshield and back, with an export, there is nothing to do, although UIDs were assigned."""
        self.visit("dovecot")
        self.deliver("later")
        self.visit("imapshield")
        self.command("export-uids", "--to", "dovecot", str(self.maildir))
        with self.serve("dovecot") as peer:
            self.assert_nothing_to_do(peer)

    def test_from_dovecot_to_imapshield(self) -> None:
        """After a change from Dovecot to imapshield there is nothing to do."""
        self.visit("dovecot")
        self.set_near_flags("m1", "FS")
        self.visit("dovecot")
        with self.serve("imapshield") as peer:
            self.assert_nothing_to_do(peer)
        self.command("check-mail", str(self.root))  # status 0: no findings
        self.assertEqual(self.near(), {"m0": "", "m1": "FS", "m2": "", "m3": ""})

    def test_back_to_dovecot_without_an_export_loses_nothing(self) -> None:
        """If imapshield and Dovecot take turns, each message is in the copy exactly once, with its flags."""
        self.visit("dovecot")
        before = self.uidvalidities()
        for turn, name in enumerate(
            ["imapshield", "dovecot", "imapshield", "dovecot", "imapshield"]
        ):
            for folder in ("", ".Work"):
                self.deliver(f"t{turn}", folder)
            self.visit(name)
            self.assertEqual(set(self.near()), self.subjects(""))
            self.set_near_flags(f"t{turn}", "S")
            self.visit(name)
            self.deliver(f"u{turn}")  # the next server is the first one that sees it
        self.visit("imapshield")
        self.assertEqual(set(self.near()), self.subjects(""))
        self.assertEqual(
            {s for s, flags in self.near().items() if "S" in flags}, {f"t{n}" for n in range(5)}
        )
        self.assertEqual(self.near("Work").keys(), self.subjects(".Work"))
        self.assert_no_duplicates()
        self.assertEqual(self.uidvalidities(), before)


class CourierTests(MigrationCase):
    """Courier's imapd runs without its login server: mbsync starts it as a child process."""

    def courier(self) -> str:
        """Return the connection to Courier as mbsync's configuration has it."""
        change_owner(self.root)
        return f'Tunnel "{courier_command(self.maildir)}"\nPath INBOX.'

    def test_from_courier_to_imapshield_and_back(self) -> None:
        """Courier, imapshield, an export, Courier: there is nothing to do after each change."""
        self.sync(self.courier())
        self.set_near_flags("m1", "FS")
        self.sync(self.courier())
        courier_session(
            self.maildir, b"SELECT INBOX", b"STORE 3 +FLAGS (blue Red)", b"SUBSCRIBE INBOX.Work"
        )
        with self.serve("imapshield") as peer:
            self.assert_nothing_to_do(peer)
            self.assertEqual(keywords(peer, "m2"), {b"blue", b"Red"})
            self.assertEqual(subscribed(peer), [b"Work"])
            self.deliver("later")
            set_keywords(peer, "m3", "green", "blue")
            self.sync(peer)
        self.command("export-uids", "--to", "courier", str(self.maildir))
        self.assert_nothing_to_do(self.courier())
        output = courier_session(self.maildir, b"SELECT INBOX", b"FETCH 1:* FLAGS", b'LSUB "" "*"')
        self.assertIn(b'"INBOX.Work"', output)
        self.assertRegex(output, rb"(?i)\* 3 FETCH \(FLAGS \((\\Recent )?(blue red|red blue)\)\)")
        self.assertRegex(
            output, rb"(?i)\* 4 FETCH \(FLAGS \((\\Recent )?(blue green|green blue)\)\)"
        )

    def test_back_to_courier_without_an_export_loses_nothing(self) -> None:
        """If imapshield and Courier take turns, each message is in the copy exactly once."""
        self.sync(self.courier())
        before = self.uidvalidities()
        for turn in range(3):
            self.deliver(f"s{turn}")
            self.visit("imapshield")
            self.deliver(f"t{turn}")
            self.sync(self.courier())
            self.assertEqual(self.near().keys(), self.subjects(""))
        self.visit("imapshield")
        self.assertEqual(self.near().keys(), self.subjects(""))
        self.assert_no_duplicates()
        self.assertEqual(self.uidvalidities(), before)
