"""offlineimap (Debian's offlineimap3): keeps the server and a local Maildir identical."""

from __future__ import annotations

import os
import re

from system_tests.maildirs import (
    corpus_messages,
    deliver,
    flags_by_subject,
    paths_by_subject,
    small_message,
    stored_messages,
    with_lf,
)
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program

COUNT = 300

CONFIG = """\
[general]
accounts = one
metadata = {home}/state
ui = basic
fsync = False

[Account one]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {home}/Mail
sync_deletes = yes

[Repository far]
type = IMAP
remotehost = 127.0.0.1
remoteport = {port}
remoteuser = {user}
remotepass = {password}
ssl = no
starttls = no
auth_mechanisms = PLAIN
maxconnections = 2
"""


def without_marker(message: bytes) -> bytes:
    """Remove X-OfflineIMAP, which offlineimap adds to uploads, to find them again if there is no APPENDUID."""
    return re.sub(rb"^X-OfflineIMAP: .*\n", b"", with_lf(message), flags=re.MULTILINE)


class OfflineimapTests(ServerCase):
    def sync(self) -> None:
        text = CONFIG.format(home=self.home, port=self.port, user=USER, password=PASSWORD)
        config = self.write_home_file("offlineimaprc", text)
        self.run_client(find_program("offlineimap", "offlineimap3"), "-o", "-c", config)
        self.assertNotIn("ERROR", self.log)

    def near(self, folder: str = "INBOX") -> str:
        """Return the path of a folder on offlineimap's side."""
        return f"{self.home}/Mail/{folder}"

    def test_changes_cross_in_both_directions(self) -> None:
        """Mail, folders, flags and deletions cross in both directions; a last run changes nothing."""
        self.fill(COUNT)
        client = self.login()
        self.ok(client.create("Work"))
        self.ok(client.append("Work", "(\\Flagged)", "", small_message("at work")))
        self.sync()
        self.assert_same_messages(stored_messages(self.near()), corpus_messages(COUNT))
        near, far = self.near("Work"), self.maildir(".Work")
        self.assertEqual(flags_by_subject(near), {b"at work": "F"})

        # New messages on both sides.
        self.assertEqual(self.ok(client.select("Work")), [b"1"])
        for number in range(20):
            message = with_lf(small_message(f"near{number}"))
            deliver(near, message, f"1700000000.{number}.home")
            self.ok(client.append("Work", "", "", small_message(f"far{number}")))
        self.sync()
        expected = {
            b"at work",
            *(b"near%d" % n for n in range(20)),
            *(b"far%d" % n for n in range(20)),
        }
        self.assertEqual(set(flags_by_subject(near)), expected)
        self.assertEqual(set(flags_by_subject(far)), expected)
        self.assertEqual(stored_messages(far).total(), 41)
        self.assertEqual(
            stored_messages(far, without_marker), stored_messages(near, without_marker)
        )

        # Changes of flags, and deletions on both sides. A message may be deleted on both.
        self.ok(client.noop())
        self.ok(client.store("1", "-FLAGS", "(\\Flagged)"))
        self.ok(client.store("2:6", "+FLAGS", "(\\Answered)"))
        self.ok(client.store("7:11", "+FLAGS", "(\\Deleted)"))
        self.ok(client.expunge())
        paths = paths_by_subject(near)
        for number in range(15, 20):
            os.unlink(paths[b"near%d" % number])
        self.sync()
        self.sync()
        self.assertEqual(flags_by_subject(near), flags_by_subject(far))
        self.assertNotIn(b"near17", flags_by_subject(far))

        before = stored_messages(far), stored_messages(self.maildir()), flags_by_subject(near)
        self.sync()
        after = stored_messages(far), stored_messages(self.maildir()), flags_by_subject(near)
        self.assertEqual(after, before)

    def test_new_local_folder_is_created_on_the_server(self) -> None:
        """A folder that is created locally is created on the server, with its messages."""
        self.sync()
        deliver(self.near("Fresh"), with_lf(small_message("one")), "1700000000.1.home")
        self.sync()
        self.assertEqual(list(flags_by_subject(self.maildir(".Fresh"))), [b"one"])
