"""A damaged or lost index loses no mail: the index is a cache of what is on disk."""

from __future__ import annotations

import imaplib
import os
import re
from collections.abc import Callable

from system_tests.disk_case import DiskCase
from system_tests.maildirs import small_message, stored_messages

Seen = tuple[bytes, dict[int, bytes]]
"""UIDVALIDITY, and the messages by UID."""


class IndexTests(DiskCase):
    def seen(self, client: imaplib.IMAP4) -> Seen:
        """Select INBOX and fetch all of it.

        The first SELECT may fail: the server then reports that the index is broken, and sets it aside.
        """
        if client.select()[0] == "NO":
            self.ok(client.select())
        uidvalidity = client.response("UIDVALIDITY")[1][0]
        found = {}
        for entry in self.ok(client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")):
            if isinstance(entry, tuple) and (uid := re.search(rb"UID (\d+)", entry[0])):
                found[int(uid[1])] = entry[1]
        return uidvalidity, found

    def restart_with(self, damage: Callable[[str], None]) -> tuple[bytes, bytes]:
        """Restart the server after `damage` to its index; return UIDVALIDITY before and after.

        All messages and flags must be present afterwards, with the same UIDs unless UIDVALIDITY has changed.
        """
        client = self.login()
        self.append(client, *"abcdefgh")
        self.ok(client.select())
        self.ok(client.store("1", "+FLAGS", "(\\Deleted)"))
        self.ok(client.expunge())
        self.ok(client.store("2", "+FLAGS", "(\\Flagged)"))
        uidvalidity, before = self.seen(client)
        self.stop()
        damage(self.maildir("imapshield.sqlite"))
        self.start()
        client = self.login()
        new_uidvalidity, after = self.seen(client)
        self.assertEqual(sorted(after.values()), sorted(before.values()))
        if new_uidvalidity == uidvalidity:
            self.assertEqual(after, before, "UIDs have changed, and UIDVALIDITY has not")
        self.assertEqual(len(self.ok(client.search(None, "FLAGGED"))[0].split()), 1)
        self.append(client, "new")
        self.assertEqual(len(self.seen(client)[1]), 8)
        return uidvalidity, new_uidvalidity

    def remove_index(self) -> None:
        for name in os.listdir(self.maildir()):
            if name.startswith("imapshield"):
                os.unlink(self.maildir(name))

    def test_uids_survive_a_restart_with_an_intact_index(self) -> None:
        """With an intact index UIDs and UIDVALIDITY survive a restart."""
        before, after = self.restart_with(lambda _: None)
        self.assertEqual(before, after)

    def test_mail_survives_a_removed_index(self) -> None:
        """Mail survives the removal of the index."""
        self.restart_with(lambda _: self.remove_index())

    def test_mail_survives_an_index_of_random_bytes(self) -> None:
        """Mail survives an index that was overwritten with random bytes."""

        def overwrite(path: str) -> None:
            size = os.path.getsize(path)
            with open(path, "wb") as file:
                file.write(os.urandom(size))

        self.restart_with(overwrite)

    def test_mail_survives_a_truncated_index(self) -> None:
        """Mail survives an index that was cut off in the middle."""
        self.restart_with(lambda path: os.truncate(path, os.path.getsize(path) // 2))

    def test_mail_survives_an_empty_index(self) -> None:
        """Mail survives an index that was truncated to no bytes."""
        self.restart_with(lambda path: os.truncate(path, 0))

    def test_mail_survives_damaged_pages_of_the_index(self) -> None:
        """Mail survives an index in which pages beyond the first were overwritten."""

        def overwrite_pages(path: str) -> None:
            with open(path, "r+b") as file:
                for page in range(2, os.path.getsize(path) // 4096, 3):
                    file.seek(page * 4096)
                    file.write(b"\xa5" * 4096)

        self.restart_with(overwrite_pages)

    def test_directory_in_place_of_the_index_is_refused(self) -> None:
        """A directory in place of the index is refused with NO; nothing is changed until it is removed."""
        self.append(self.login(), "a")
        self.stop()
        path = self.maildir("imapshield.sqlite")
        os.unlink(path)
        os.mkdir(path)
        self.start()
        self.text_of(self.login().select())
        os.rmdir(path)
        self.assertEqual(list(self.seen(self.login())[1].values()), [small_message("a")])

    def test_sessions_work_after_the_index_is_removed(self) -> None:
        """If the index is removed while the server runs, open sessions get BYE and new sessions work."""
        client = self.login()
        self.append(client, *"abc")
        self.ok(client.select())
        self.remove_index()
        with self.assertRaisesRegex(imaplib.IMAP4.abort, "log in again"):
            client.noop()
        client = self.login()
        self.append(client, "d")
        other = self.login()
        expected = sum(stored_messages(self.maildir()).values())
        self.assertEqual(expected, 4)
        self.assertEqual(sum(self.fetch_all(other).values()), expected)
        self.append(other, "e")
        self.assertEqual(sum(self.fetch_all(self.login()).values()), expected + 1)
