"""mbsync (isync), which pipelines without limit: 10,000 messages down, 500 new ones from each side, all changes."""

from __future__ import annotations

import os
import re

from benchmarks.corpus import messages
from imapshield.cred import passwords, users
from system_tests.maildirs import (
    MessageCounts,
    corpus_messages,
    deliver,
    flags_by_subject,
    message_files,
    paths_by_subject,
    small_message,
    stored_messages,
    with_lf,
)
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program

COUNT, NEW = 10_000, 500

# PipelineDepth keeps its default, unlimited. FSync is off for the client's side only.
CONFIG = """\
FSync no

IMAPStore far
Host 127.0.0.1
Port {port}
User {user}
Pass "{password}"
SSLType None
AuthMechs {mechanism}

MaildirStore near
Path {home}/Mail/
Inbox {home}/Mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
CopyArrivalDate yes
"""


def without_tuid(message: bytes) -> bytes:
    """Remove X-TUID, which mbsync adds to each message that it copies, to find it again on the other side."""
    return re.sub(rb"^X-TUID: .*\n", b"", with_lf(message), count=1, flags=re.MULTILINE)


class MbsyncCase(ServerCase):
    def sync(self, mechanism: str = "LOGIN") -> None:
        if not os.path.exists(f"{self.home}/mbsyncrc"):
            os.makedirs(f"{self.home}/Mail", exist_ok=True)
            text = CONFIG.format(
                port=self.port, user=USER, password=PASSWORD, home=self.home, mechanism=mechanism
            )
            self.write_home_file("mbsyncrc", text)
        self.run_client(find_program("mbsync", "isync"), "-c", f"{self.home}/mbsyncrc", "all")

    def near(self, folder: str = "INBOX") -> str:
        """Return the path of a folder on mbsync's side."""
        return f"{self.home}/Mail/{folder}"


class MbsyncTests(MbsyncCase):
    def assert_on_both_sides(self, expected: MessageCounts) -> None:
        self.assert_same_messages(stored_messages(self.maildir(), without_tuid), expected)
        self.assert_same_messages(stored_messages(self.near(), without_tuid), expected)

    def test_ten_thousand_messages_are_synchronized(self) -> None:
        """10,000 messages come down; 500 new ones on each side cross; a third run changes nothing."""
        self.fill_with_links(COUNT)
        self.sync()
        expected = corpus_messages(COUNT)
        self.assert_on_both_sides(expected)
        for number, message in enumerate(messages(NEW, seed=2)):
            deliver(self.maildir(), message, f"2000000000.{number}.host")
        for number, message in enumerate(messages(NEW, seed=3)):
            deliver(self.near(), with_lf(message), f"2000000000.{number}.home")
        self.sync()
        expected += corpus_messages(NEW, 2) + corpus_messages(NEW, 3)
        self.assert_on_both_sides(expected)
        before = message_files(self.maildir()), message_files(self.near())
        self.sync()
        self.assertEqual((message_files(self.maildir()), message_files(self.near())), before)

    def sync_small_messages(self, count: int = 60) -> None:
        """Put messages m000, m001, … on both sides."""
        for number in range(count):
            deliver(self.maildir(), small_message(f"m{number:03}"), f"1700000000.{number:03}.host")
        self.sync()

    def test_flags_cross_in_both_directions(self) -> None:
        """Flags are added and removed in both directions; flags set on both sides at once are merged."""
        self.sync_small_messages()
        client = self.login()
        client.select()
        self.ok(client.store("1:20", "+FLAGS", "(\\Seen \\Flagged)"))
        near = paths_by_subject(self.near())
        for number in range(10, 30):
            path = near[b"m%03d" % number]
            name = os.path.basename(path).partition(":2,")[0]
            os.rename(path, f"{self.near()}/cur/{name}:2,RS")
        self.sync()
        client.noop()
        self.ok(client.store("1:5", "-FLAGS", "(\\Flagged)"))
        self.sync()
        self.assertEqual(flags_by_subject(self.maildir()), flags_by_subject(self.near()))
        self.assertEqual(
            sorted(flags_by_subject(self.maildir()).values()),
            sorted(["S"] * 5 + ["FS"] * 5 + ["FRS"] * 10 + ["RS"] * 10 + [""] * 30),
        )

    def test_scram_login_sends_no_password(self) -> None:
        """With a SCRAM password file, mbsync (Cyrus SASL) logs in without sending its password."""
        self.stop()
        path = f"{self.base}/users"
        users.set_hash(path, USER, passwords.hash_scram(PASSWORD.encode()))
        self.auth = f"file:{path}"
        self.start()
        deliver(self.maildir(), small_message("m"), "1700000000.1.host")
        self.sync("SCRAM-SHA-256")
        self.assertEqual(list(paths_by_subject(self.near())), [b"m"])
        self.assertIn("mechanism=SCRAM-SHA-256", self.stop())

    def test_deleted_messages_are_removed_on_the_other_side(self) -> None:
        """Messages deleted on one side are removed on the other, and no others are."""
        self.sync_small_messages()
        client = self.login()
        client.select()
        self.ok(client.store("1:20", "+FLAGS", "(\\Deleted)"))
        self.assertEqual(len(self.ok(client.expunge())), 20)
        near = paths_by_subject(self.near())
        for number in range(40, 60):
            os.unlink(near[b"m%03d" % number])
        self.sync()
        self.sync()
        expected = [b"m%03d" % number for number in range(20, 40)]
        self.assertEqual(sorted(flags_by_subject(self.maildir())), expected)
        self.assertEqual(sorted(flags_by_subject(self.near())), expected)
        self.ok(client.noop())
        self.assertEqual(self.ok(client.select()), [b"20"])

    def test_new_folders_cross_in_both_directions(self) -> None:
        """New folders cross in both directions, with their messages and with names that are not ASCII."""
        client = self.login()
        for name in ("Work", "Work/2025", "K&APY-ln"):
            self.ok(client.create(f'"{name}"'))
            self.ok(client.append(f'"{name}"', "", "", small_message(name)))
        # mbsync stores names that are not ASCII as modified UTF-7 on both sides.
        for name in ("Home", "Gr&APwA3w-e"):
            deliver(self.near(name), with_lf(small_message(name)))
        self.sync()
        self.sync()
        for name in ("Work", "Work/2025", "K&APY-ln", "Home", "Gr&APwA3w-e"):
            expected = {with_lf(small_message(name)): 1}
            self.assertEqual(stored_messages(self.near(name), without_tuid), expected)
            far = self.fetch_all(client, f'"{name}"')
            self.assertEqual({without_tuid(message): n for message, n in far.items()}, expected)

    def test_folder_deleted_on_the_server_is_deleted_locally(self) -> None:
        """An empty folder that is deleted on the server is deleted on mbsync's side."""
        client = self.login()
        self.ok(client.create("Passing"))
        self.sync()
        self.assertTrue(os.path.isdir(self.near("Passing")))
        self.ok(client.delete("Passing"))
        self.sync()
        self.assertFalse(os.path.isdir(self.near("Passing")))


class CourierNamesTests(MbsyncCase):
    """mbsync reads the prefix from NAMESPACE and the separator from LIST."""

    options = ("--separator", ".", "--prefix", "INBOX.")

    def test_folders_cross_without_the_prefix(self) -> None:
        """Folders of both sides, and folders in them, are created on the other side without the prefix."""
        deliver(self.maildir(".Lists.work"), small_message("far"), "1700000000.1.host")
        deliver(self.maildir(), small_message("inbox"), "1700000000.1.host")
        os.makedirs(self.near("Drafts"))
        deliver(self.near("Drafts"), small_message("near"), "1700000000.2.home")
        self.sync()
        self.assertEqual(list(paths_by_subject(self.near("Lists/work"))), [b"far"])
        self.assertEqual(list(paths_by_subject(self.near("INBOX"))), [b"inbox"])
        self.assertEqual(list(paths_by_subject(self.maildir(".Drafts"))), [b"near"])
