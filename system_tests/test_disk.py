"""Disk failures: a full disk, unreadable and read-only folders, and invalid files."""

from __future__ import annotations

import imaplib
import os
import shutil
from collections.abc import Callable
from typing import Any

from system_tests.disk_case import DiskCase
from system_tests.maildirs import (
    deliver,
    message_files,
    paths_by_subject,
    small_message,
    stored_messages,
    with_lf,
)
from system_tests.server import wait_until
from system_tests.server_case import find_program, literals


class FullTests(DiskCase):
    """The mail root is a tmpfs of 4 MB in the server's own mount namespace, and disappears with the server."""

    def prepare(self) -> None:
        shell = f'mount -t tmpfs -o size=4m tmpfs {self.root} && exec "$@"'
        namespace = (find_program("unshare", "util-linux"), "--user", "--map-root-user", "--mount")
        self.wrapper = (*namespace, "sh", "-c", shell, "sh")

    def start(self) -> None:
        super().start()
        self.root = f"/proc/{self.server.process.pid}/root{self.root}"

    def fill_disk(self) -> None:
        with open(f"{self.root}/ballast", "wb", buffering=0) as file:
            size = 1 << 16
            while size:
                try:
                    if file.write(b"x" * size) < size:
                        size //= 2
                except OSError:
                    size //= 2

    def test_message_larger_than_free_space_is_refused(self) -> None:
        """A message larger than the free space is refused and leaves no file; a smaller one is stored."""
        client = self.login()
        self.append(client, "before")
        self.ok(client.select())
        for _ in range(5):
            large = small_message("large", "0123456789\r\n" * 500_000)
            self.assertIn(b"OVERQUOTA", self.text_of(client.append("INBOX", "", "", large)))
        self.assertEqual(self.staged_files(), [])
        self.append(client, "after")
        self.assertEqual(
            stored_messages(self.maildir()),
            {with_lf(small_message(subject)): 1 for subject in ("before", "after")},
        )

    def test_full_disk_leaves_mail_readable(self) -> None:
        """With no byte free every command gets a response and mail is readable; all works once space is free."""
        body = "x" * 20_000
        client = self.login()
        self.ok(client.create("Other"))
        self.append(client, *"abcdef", body=body)
        expected = {with_lf(small_message(subject, body)): 1 for subject in "abcdef"}
        self.ok(client.select())
        self.fill_disk()
        self.text_of(client.append("INBOX", "", "", small_message("late", body)))
        self.assertEqual(self.fetch_all(client), expected)
        client.select()
        self.ok(client.fetch("1", "(BODY[])"))  # without PEEK
        responses: list[tuple[str, Any]] = [
            client.store("1:2", "+FLAGS", "(\\Flagged)"),
            client.copy("1:2", "Other"),
            client.create("New"),
            client.subscribe("Other"),
            client.uid("MOVE", "3", "Other"),
            client.rename("Other", "Renamed"),
            client.status("INBOX", "(MESSAGES)"),
            client.list(),
            client.search(None, "ALL"),
        ]
        for response in responses:
            self.text_of(response, "OK", "NO")
        os.unlink(f"{self.root}/ballast")
        second = self.login()
        self.append(second, "late")
        found: dict[bytes, list[str]] = {}
        for line in self.ok(second.list()):
            name = line.rpartition(b" ")[2].decode()
            for message in self.fetch_all(second, name):
                found.setdefault(message, []).append(name)
        self.assertEqual(set(found), {*expected, with_lf(small_message("late"))})
        self.assertEqual(self.staged_files(), [])
        client.noop()
        self.ok(client.select())
        self.ok(client.store("1:*", "+FLAGS", "(\\Answered)"))


class ForbiddenTests(DiskCase):
    """The server's user may not read or write some files and folders; root runs without its capability to do so."""

    def prepare(self) -> None:
        if os.getuid() == 0:
            self.wrapper = (
                find_program("setpriv", "util-linux"),
                "--bounding-set=-dac_override,-dac_read_search",
            )

    def change_mode(self, path: str, mode: int) -> Callable[[], None]:
        """Change the mode of a path, until the returned function is called or the test ends."""
        old = os.stat(path).st_mode & 0o777
        os.chmod(path, mode)

        def restore() -> None:
            if os.path.exists(path):
                os.chmod(path, old)

        self.addCleanup(restore)
        return restore

    def test_unreadable_folder_is_refused_and_others_work(self) -> None:
        """An unreadable folder is refused with NO, other folders work, and it is unchanged once readable again."""
        client = self.login()
        self.ok(client.create("Work"))
        self.append(client, "a", "b", folder="Work")
        self.append(client, "c")
        self.ok(client.select("Work"))
        uidvalidity = client.response("UIDVALIDITY")
        self.ok(client.unselect())
        restores = [self.change_mode(self.maildir(f".Work/{part}"), 0) for part in ("cur", "new")]
        other = self.login()
        self.text_of(other.select("Work"))
        self.text_of(other.status("Work", "(MESSAGES)"), "OK", "NO")
        self.text_of(other.append("Work", "", "", small_message("d")))
        self.ok(other.list())
        self.assertEqual(self.ok(other.select()), [b"1"])
        self.text_of(other.copy("1", "Work"))
        self.text_of(other.uid("MOVE", "1", "Work"))
        for restore in restores:
            restore()
        self.assertEqual(self.ok(other.select("Work")), [b"2"])
        self.assertEqual(other.response("UIDVALIDITY"), uidvalidity)
        self.assertEqual(self.ok(other.uid("SEARCH", "ALL")), [b"1 2"])
        self.assertEqual(self.ok(other.select()), [b"1"])
        self.assertEqual(self.staged_files(), [])

    def test_read_only_folder_can_be_read_but_not_changed(self) -> None:
        """A read-only folder can be read, and commands that would change it are refused."""
        client = self.login()
        self.append(client, "a", "b")
        self.ok(client.select())
        for part in ("cur", "new", "tmp"):
            self.change_mode(self.maildir(part), 0o500)
        self.assertEqual(len(self.fetch_all(client)), 2)
        self.ok(client.select())
        self.text_of(client.append("INBOX", "", "", small_message("c")))
        self.text_of(client.store("1", "+FLAGS", "(\\Flagged)"))
        self.ok(client.store("2", "+FLAGS", "()"))
        for part in ("cur", "new", "tmp"):
            os.chmod(self.maildir(part), 0o700)
        self.ok(client.store("1", "+FLAGS", "(\\Flagged)"))
        self.append(client, "c")
        self.assertEqual(sum(stored_messages(self.maildir()).values()), 3)

    def test_unreadable_maildir_does_not_affect_other_users(self) -> None:
        """A user with an unreadable Maildir does not affect other users."""
        self.append(self.login(), "a")
        restore = self.change_mode(self.maildir(), 0)
        try:
            client = self.login()
            self.text_of(client.select())
        except imaplib.IMAP4.error as error:
            self.assertNotIn("rrno", str(error))
        bob = self.login("bob")
        self.append(bob, "b")
        self.assertEqual(self.ok(bob.select()), [b"1"])
        restore()
        self.assertEqual(self.ok(self.login().select()), [b"1"])

    def test_unreadable_file_does_not_prevent_fetch_of_others(self) -> None:
        """One unreadable file does not prevent FETCH of the others, and is fetched once it is readable."""
        client = self.login()
        self.append(client, "a", "b", "c")
        restore = self.change_mode(paths_by_subject(self.maildir())[b"b"], 0)
        self.stop()
        os.unlink(self.maildir("imapshield.sqlite"))  # so that the server has nothing cached
        self.start()
        client = self.login()
        self.ok(client.select())
        kind, data = client.fetch("1:*", "(UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[])")
        self.assertIn(kind, ("OK", "NO"))
        bodies = set(literals(data))
        if kind == "NO":
            bodies = set()
            for number in range(1, int(self.ok(client.select())[0]) + 1):
                kind, data = client.fetch(str(number), "(BODY.PEEK[])")
                bodies.update(literals(data))
        self.assertLessEqual({small_message("a"), small_message("c")}, bodies)
        self.text_of(client.search(None, "TEXT", "hello"), "OK", "NO")
        restore()
        self.assertEqual(len(self.fetch_all(client)), 3)


class InvalidFileTests(DiskCase):
    def write_invalid_files(self) -> None:
        """Fill cur/ with directories, links, pipes, odd names and contents that are hardly messages."""
        cur = self.maildir("cur")
        os.mkdir(f"{cur}/1700000001.directory.host:2,S")
        os.symlink("/nowhere/at/all", f"{cur}/1700000002.dangling.host:2,S")
        os.symlink(f"{cur}/1700000003.loop.host:2,S", f"{cur}/1700000003.loop.host:2,S")
        os.symlink("/", f"{cur}/1700000004.root.host:2,S")
        os.symlink("/dev/zero", f"{cur}/1700000005.zero.host:2,S")
        os.mkfifo(f"{cur}/1700000006.fifo.host:2,S")
        deep = b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" * 3000
        for name, data in (
            ("1700000010.empty.host:2,S", b""),
            ("1700000011.nuls.host:2,S", b"\0" * 50_000),
            ("1700000012.no-info.host", small_message("no info")),
            ("1700000013.odd-info.host:1,x", small_message("odd info")),
            (
                "1700000014.many-flags.host:2,DFPRSTabcdefghijklmnopqrstuvwxyzZ",
                small_message("flags"),
            ),
            ("1700000015.new\nline.host:2,", small_message("new line")),
            ("1700000016.\udcff\udcfe.host:2,", small_message("not UTF-8")),
            ("1700000017.one-line.host:2,", b"x" * 2_000_000),
            ("1700000018.no-body.host:2,", b"Subject: no body"),
            ("1700000019.crs.host:2,", b"Subject: crs\r\rtext\r\r"),
            ("1700000020.deep.host:2,", deep),
        ):
            with open(f"{cur}/{name}", "wb") as file:
                file.write(data)

    def test_good_messages_among_invalid_files_are_fetched(self) -> None:
        """Among invalid files all good messages are fetched, no command hangs, and no file is removed."""
        self.ok(self.login().select())
        for subject in ("a", "b", "c"):
            deliver(self.maildir(), small_message(subject))
        self.write_invalid_files()
        before = set(os.listdir(self.maildir("cur")))
        client = self.login()
        count = int(self.ok(client.select())[0])
        self.assertGreaterEqual(count, 14)
        for items in (
            "(UID FLAGS INTERNALDATE RFC822.SIZE)",
            "(ENVELOPE BODYSTRUCTURE)",
            "(BODY.PEEK[])",
        ):
            good = 0
            for number in range(1, count + 1):
                kind, data = client.fetch(str(number), items)
                self.assertIn(kind, ("OK", "NO"))
                good += kind == "OK" and data != [None]
            self.assertGreaterEqual(good, 14, items)
        bodies: set[bytes] = set()
        for number in range(1, count + 1):
            bodies.update(self.fetch_literals(client, str(number), "(BODY.PEEK[])"))
        for subject in ("a", "b", "c", "no info", "odd info", "flags", "new line", "not UTF-8"):
            self.assertIn(small_message(subject), bodies)
        self.assertIn(b"\0" * 50_000, {body.replace(b"\x80", b"\0") for body in bodies})
        for search in (("TEXT", "hello"), ("SUBJECT", "a"), ("LARGER", "10"), ("BODY", "zzz")):
            self.text_of(client.search(None, *search), "OK", "NO")
        after = {os.path.basename(path).partition(":")[0] for path in message_files(self.maildir())}
        self.assertLessEqual({name.partition(":")[0] for name in before}, after)

    def test_removed_file_is_reported_as_one_message_less(self) -> None:
        """A file that another program removes is reported as one message less."""
        client = self.login()
        self.append(client, "a", "b", "c")
        self.ok(client.select())
        os.unlink(message_files(self.maildir())[0])
        self.assertGreaterEqual(len(self.fetch_literals(client, "1:3", "(BODY.PEEK[])")), 2)
        wait_until(lambda: client.noop() and client.search(None, "ALL")[1] == [b"1 2"], 5)

    def test_client_of_a_removed_folder_gets_bye(self) -> None:
        """A client whose selected folder was removed gets BYE, and the name can be used again."""
        client = self.login()
        self.ok(client.create("Work"))
        self.append(client, "a", folder="Work")
        self.ok(client.select("Work"))
        shutil.rmtree(self.maildir(".Work"))
        bye = "Selected mailbox was deleted or restored"
        with self.assertRaisesRegex(imaplib.IMAP4.abort, bye):
            client.fetch("1", "(BODY.PEEK[])")
        other = self.login()
        self.text_of(other.select("Work"))
        self.ok(other.create("Work"))
        self.append(other, "b", folder="Work")
        self.assertEqual(self.ok(other.select("Work")), [b"1"])
