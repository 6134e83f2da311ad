"""The state file: what it keeps, who can read it, and what happens if it is damaged or its writer is killed."""

import os
import signal
import sqlite3
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bans import SavedBan
from imapshield.state_file import Changes, StateFile, StateFileError, default_path

BAN = SavedBan("192.0.2.7/32", "max_failed_pairs", 600.0, 600.0, 1, False)
USER, ADDRESSES = b"a user..", b"an addr.another."

WRITER = """
import sys
from imapshield.guard.bans import SavedBan
from imapshield.state_file import Changes, StateFile
file = StateFile(sys.argv[1], create=True)
for n in range(1000):
    ban = SavedBan(f"10.0.{n >> 8}.{n & 255}/32", "x", 600.0, 600.0, 1, False)
    file.save(float(n), Changes({ban.network: ban}, {b"%8d" % n: b"12345678" * 30}))
    print(n, flush=True)
"""


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = self.mktemp()
        os.makedirs(folder)
        self.path = os.path.join(folder, "guard.sqlite")

    def open(self, *, create: bool = True, timeout: float = 2.0) -> StateFile:
        file = StateFile(self.path, create=create, timeout=timeout)
        self.addCleanup(file.close)
        return file

    def assert_refused(self, text: str) -> None:
        error = self.assertRaises(StateFileError, self.open)
        self.assertIn(text, str(error))
        self.assertNotIn("\n", str(error))


class StateFileTests(FileCase):
    def test_keeps_bans_and_known_users(self) -> None:
        """What is saved is found by the next server, with the seconds that remain by the clock of the file."""
        file = self.open()
        file.save(50.0, Changes({BAN.network: BAN}, {USER: ADDRESSES}))
        file.save(150.0, Changes())
        file.close()
        again = self.open(create=False)
        self.assertEqual(again.clock(), 150.0)
        self.assertEqual(again.bans(), [BAN._replace(remaining=500.0)])
        self.assertEqual(again.known(), [(USER, ADDRESSES)])

    def test_changes_replace_and_remove(self) -> None:
        """A change replaces the entry, or removes it. The user who changed last is last."""
        file = self.open()
        file.save(0.0, Changes({BAN.network: BAN}, {USER: ADDRESSES, b"b": b"c", b"d": b"e"}))
        second = BAN._replace(number=2, strangers_only=True)
        file.save(0.0, Changes({BAN.network: second}, {USER: b"new", b"b": b""}))
        self.assertEqual(file.bans(), [second])
        self.assertEqual(file.known(), [(b"d", b"e"), (USER, b"new")])
        file.save(0.0, Changes({BAN.network: None}))
        self.assertEqual(file.bans(), [])

    def test_secret_is_created_once(self) -> None:
        """The secret has 32 random bytes and never changes."""
        secret = self.open().secret()
        self.assertEqual(len(secret), 32)
        self.assertEqual(self.open().secret(), secret)
        self.path += "2"
        self.assertNotEqual(self.open().secret(), secret)

    def test_only_the_owner_can_read_it(self) -> None:
        """The file has mode 0600, also if it was readable by others."""
        self.addCleanup(os.umask, os.umask(0))
        self.open()
        os.chmod(self.path, 0o644)
        self.open()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_unban(self) -> None:
        """`unban` removes the bans of an address or inside a network; a running server sees that in `exchange`."""
        server, command = self.open(), self.open(create=False)
        texts = ("192.0.2.7/32", "192.0.2.8/32", "2001:db8::/64", "198.51.100.0/24")
        server.save(0.0, Changes({text: BAN._replace(network=text) for text in texts}))
        server.exchange(0.0, None)
        self.assertIsNone(server.exchange(1.0, Changes()))
        self.assertEqual(command.unban("192.0.2.9"), [])
        self.assertEqual(command.unban("2001:db8::1"), ["2001:db8::/64"])
        self.assertEqual(sorted(command.unban("192.0.2.0/24")), ["192.0.2.7/32", "192.0.2.8/32"])
        self.assertRaises(ValueError, command.unban, "x")
        found = server.exchange(1.0, None)
        assert found is not None
        self.assertEqual([ban.network for ban in found], ["198.51.100.0/24"])
        self.assertIsNone(server.exchange(1.0, None))

    def test_unban_names_no_ban_that_has_ended(self) -> None:
        """`unban` forgets a ban that has ended, and does not say that it has ended it."""
        server, command = self.open(), self.open(create=False)
        server.save(0.0, Changes({"192.0.2.7/32": BAN._replace(network="192.0.2.7/32")}))
        server.save(BAN.remaining + 1, Changes())
        self.assertEqual(command.unban("192.0.2.0/24"), [])
        self.assertEqual(command.bans(), [])

    def test_failed_save_changes_nothing(self) -> None:
        """A save that fails changes nothing, and `exchange` tells the changes of others the next time."""
        file, other = self.open(timeout=0.0), self.open(create=False)
        file.exchange(0.0, None)
        other.save(0.0, Changes({BAN.network: BAN}))
        other._database.execute("BEGIN IMMEDIATE")
        self.assertRaises(StateFileError, file.exchange, 5.0, Changes({}, {USER: ADDRESSES}))
        other._database.execute("ROLLBACK")
        self.assertEqual((file.clock(), file.known()), (0.0, []))
        self.assertEqual(file.exchange(5.0, None), [BAN])

    def test_killed_writer_leaves_a_complete_file(self) -> None:
        """After kill -9 in the middle of its work, the file has every change that a server had saved."""
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, self.path], stdout=subprocess.PIPE, env=environ
        ) as writer:
            assert writer.stdout is not None
            for _ in range(40):
                saved = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
        file = self.open()
        bans = file.bans()
        self.assertGreaterEqual(len(bans), saved + 1)
        self.assertEqual((len(file.known()), file.clock()), (len(bans), len(bans) - 1.0))
        self.assertEqual(file._value("PRAGMA integrity_check"), "ok")


class BadFileTests(FileCase):
    def test_damaged_file(self) -> None:
        """A file that is no database is refused, with advice, and not changed."""
        with open(self.path, "wb") as file:
            file.write(b"damaged " * 1000)
        self.assert_refused("file is not a database; move it away")
        self.assertEqual(os.path.getsize(self.path), 8000)

    def test_directory(self) -> None:
        """A directory is refused, with advice."""
        os.mkdir(self.path)
        self.assert_refused("is a directory; name a file in it")

    def test_damaged_page(self) -> None:
        """A file with a damaged page is a `StateFileError` when it is read."""
        self.open().save(0.0, Changes({BAN.network: BAN}))
        size = os.path.getsize(self.path)
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        damaged = self.open()
        for read in (damaged.bans, damaged.known, damaged.clock, damaged.secret):
            self.assertIn("move it away", str(self.assertRaises(StateFileError, read)))

    def test_wrong_values_are_left_out(self) -> None:
        """Values of a wrong type are left out."""
        file = self.open()
        file.save(0.0, Changes({BAN.network: BAN}))
        execute = file._database.execute
        execute(
            "INSERT INTO bans VALUES (NULL, 'x', 1.0, 1.0, 1, 0), ('::/64', 'x', 'y', 1.0, 1, 0)"
        )
        execute("INSERT INTO known (user, addresses) VALUES ('x', x'00'), (x'00', 1)")
        self.assertEqual(file.bans(), [BAN])
        self.assertEqual(file.known(), [])
        file.secret()
        for wrong in (b"short", "text", None):
            execute("UPDATE secret SET value = ?", [wrong])
            self.assertIn("move it away", str(self.assertRaises(StateFileError, file.secret)))

    def test_another_database(self) -> None:
        """Another program's database, and a file of a later version, are refused."""
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE mail (x)")
        self.assert_refused("not a state file of imapshield; name another file")
        self.path += "2"
        self.open()._database.execute("PRAGMA user_version = 2")
        self.assert_refused("written by another version")

    def test_missing_file(self) -> None:
        """A command does not create a missing file."""
        self.assertRaises(StateFileError, self.open, create=False)
        self.assertFalse(os.path.exists(self.path))

    def test_missing_directory(self) -> None:
        """A directory that does not exist is not created: it is probably misspelt, and the bans are in another."""
        folder = os.path.dirname(self.path)
        self.path = os.path.join(folder, "gurad", "guard.sqlite")
        self.assert_refused(
            f"the directory {os.path.abspath(folder)}/gurad does not exist; create it"
        )
        self.assertEqual(os.listdir(folder), [])

    def test_new_file(self) -> None:
        """It is known whether the file is new."""
        self.assertEqual([self.open().is_new, self.open().is_new], [True, False])

    def test_readonly_file(self) -> None:
        """A file that cannot be written is a `StateFileError` when it is written."""
        file = self.open()
        file._database.execute("PRAGMA query_only = 1")
        error = self.assertRaises(StateFileError, file.save, 0.0, Changes({BAN.network: BAN}))
        self.assertIn("readonly database; make the file and its directory writable", str(error))


class DefaultPathTests(SynchronousTestCase):
    def test_default_path(self) -> None:
        """The default is in systemd's $STATE_DIRECTORY, or in the given folder."""
        for environ, expected in (
            ({}, "/home/x/guard.sqlite"),
            ({"STATE_DIRECTORY": ""}, "/home/x/guard.sqlite"),
            ({"STATE_DIRECTORY": "/var/lib/a"}, "/var/lib/a/guard.sqlite"),
            ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a/guard.sqlite"),
        ):
            self.assertEqual(default_path(environ, "/home/x"), expected)
        self.assertEqual(default_path({}, "/home/x", "acme"), "/home/x/acme")
