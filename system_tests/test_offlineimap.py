"""offlineimap (Debian's offlineimap3): an IMAP account and a Maildir kept the same."""

from __future__ import annotations

import os
import re

from system_tests.cases import (
    PASSWORD,
    USER,
    ServerCase,
    by_subject,
    corpus,
    deliver,
    letters,
    plain,
    simple,
    stored,
    tool,
)

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


def without_marker(octets: bytes) -> bytes:
    """offlineimap adds X-OfflineIMAP to what it uploads, to find it again where there is no APPENDUID."""
    return re.sub(rb"^X-OfflineIMAP: .*\n", b"", plain(octets), flags=re.MULTILINE)


class OfflineimapTests(ServerCase):
    def sync(self) -> None:
        text = CONFIG.format(home=self.home, port=self.port, user=USER, password=PASSWORD)
        config = self.write("offlineimaprc", text)
        self.run_it(tool("offlineimap", "offlineimap3"), "-o", "-c", config)
        self.assertNotIn("ERROR", self.log)

    def near(self, folder="INBOX") -> str:
        return f"{self.home}/Mail/{folder}"

    def test_both_ways(self) -> None:
        """Mail, folders, flags and deletions cross in both directions; a last run changes nothing."""
        self.fill(COUNT)
        client = self.login()
        self.ok(client.create("Work"))
        self.ok(client.append("Work", "(\\Flagged)", None, simple("at work")))
        self.sync()
        self.same(stored(self.near()), corpus(COUNT))
        self.assertEqual(letters(self.near("Work")), {b"at work": "F"})

        # from here
        self.assertEqual(self.ok(client.select("Work")), [b"1"])
        for number in range(20):
            deliver(self.near("Work"), plain(simple(f"near{number}")), f"1700000000.{number}.home")
            self.ok(client.append("Work", "", None, simple(f"far{number}")))
        self.sync()
        everything = {
            b"at work",
            *(b"near%d" % n for n in range(20)),
            *(b"far%d" % n for n in range(20)),
        }
        self.assertEqual(set(letters(self.near("Work"))), everything)
        self.assertEqual(set(letters(self.maildir(".Work"))), everything)
        self.assertEqual(sum(stored(self.maildir(".Work")).values()), 41)
        self.assertEqual(
            stored(self.maildir(".Work"), without_marker), stored(self.near("Work"), without_marker)
        )

        # flags and deletions
        self.ok(client.noop())
        self.ok(client.store("1", "-FLAGS", "(\\Flagged)"))
        self.ok(client.store("2:6", "+FLAGS", "(\\Answered)"))
        self.ok(client.store("7:11", "+FLAGS", "(\\Deleted)"))
        self.ok(client.expunge())
        # A message that left the server meanwhile may be among those: what stays is what neither side deleted.
        here = by_subject(self.near("Work"))
        for number in range(15, 20):
            os.unlink(here[b"near%d" % number])
        self.sync()
        self.sync()
        self.assertEqual(letters(self.near("Work")), letters(self.maildir(".Work")))
        self.assertNotIn(b"near17", letters(self.maildir(".Work")))
        before = stored(self.maildir(".Work")), stored(self.maildir()), letters(self.near("Work"))
        self.sync()
        self.assertEqual(
            (stored(self.maildir(".Work")), stored(self.maildir()), letters(self.near("Work"))),
            before,
        )

    def test_new_folder_up(self) -> None:
        """A folder made here is made there, with what is in it."""
        self.sync()
        deliver(self.near("Fresh"), plain(simple("one")), "1700000000.1.home")
        self.sync()
        self.assertEqual(list(letters(self.maildir(".Fresh"))), [b"one"])
