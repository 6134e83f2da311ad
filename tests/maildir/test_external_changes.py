"""The store finds every message file that other programs rename, move or remove."""

from __future__ import annotations

import os
import shutil

from imapshield.errors import MessageExpunged
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.export_uids import export
from imapshield.maildir.other_servers import DOVECOT
from imapshield.testing.store_contract import BUDGET, DELETED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase, path_of


class RenamedFileTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.append(SEEN)
        self.append()
        self.opened = self.store.open("INBOX", True)
        self.key, self.since = self.opened.key, self.opened.delta.highestmodseq
        self.first, self.second = self.cur()

    def rename(self, old: str, new: str) -> None:
        os.rename(self.path("cur", old), self.path("cur", new))

    def test_changed_flags_are_reported(self) -> None:
        """Flags that another program sets or removes are reported, and nothing else."""
        self.rename(self.first, self.first.replace(":2,S", ":2,FRT"))
        self.let_mtimes_age()
        delta = self.store.changes(self.key, self.since, True)
        self.assertEqual([row[:2] for row in delta.rows], [(1, b"\\Answered \\Flagged \\Deleted")])
        self.assertGreater(delta.rows[0].modseq, self.since)
        self.assertEqual([*delta.vanished], [])

    def test_unknown_letters_stay(self) -> None:
        """A letter without a meaning stays in the file name and is not sent to clients."""
        self.rename(self.second, self.second + "Xz")
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {1: b"\\Seen", 2: b""})
        self.store.store_flags(self.key, [2], b"+", [SEEN], None, 0)
        self.assertTrue(self.cur()[1].endswith(":2,SXz"))

    def test_dovecot_keywords_name_the_letters(self) -> None:
        """The file dovecot-keywords defines the letters, and new keywords are added to it."""
        with open(self.path("dovecot-keywords"), "wb") as file:
            file.write(b"0 $Junk\n2 Work\nnonsense\n77 far\n")
        self.rename(self.second, self.second + "abc")
        self.let_mtimes_age()
        self.assertEqual(self.flags()[2], b"$Junk Work")
        self.store.store_flags(self.key, [1], b"+", [b"work", b"mine"], None, 0)
        self.assertEqual(self.flags()[1], b"\\Seen mine Work")
        with open(self.path("dovecot-keywords"), "rb") as file:
            self.assertEqual(file.read(), b"0 $Junk\n1 mine\n2 Work\n")
        self.assertTrue(self.cur()[0].endswith(":2,Sbc"))

    def test_directory_in_place_of_dovecot_keywords_keeps_keywords_in_the_index(self) -> None:
        """If dovecot-keywords is a directory, of any mode, keywords get no letters; one line is logged, not each time."""
        os.mkdir(self.path("dovecot-keywords"), 0)
        for keyword in (b"mine", b"Work"):
            self.store.store_flags(self.key, [1], b"+", [keyword], None, 0)
        self.append(b"other", b"$Forwarded")
        self.assertEqual(self.flags()[1], b"\\Seen mine Work")
        self.assertEqual(self.flags(store=self.open_store())[3], b"$Forwarded other")
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("dovecot-keywords' is a directory", self.warnings[0])
        export(self.store._account, DOVECOT, lambda *_: None)
        os.rmdir(self.path("dovecot-keywords"))
        self.store.store_flags(self.key, [1], b"+", [b"late"], None, 0)
        self.assertTrue(self.cur()[0].endswith(":2,Sa"))
        self.assertEqual(self.flags()[1], b"\\Seen late mine Work")

    def test_renamed_file_is_found_by_its_base_name(self) -> None:
        """Every command finds a file that another program has just renamed, by its base name."""
        flagged = self.first.replace(":2,S", ":2,FS")
        self.rename(self.first, flagged)
        self.assertEqual(self.store.fetch(self.key, [1], [WHOLE], BUDGET).columns, [[MAIL_LITERAL]])
        delta, *_ = self.store.store_flags(self.key, [1], b"+", [DELETED], None, self.since)
        self.assertEqual([row.uid for row in delta.rows], [1])
        self.rename(self.cur()[0], flagged)
        self.store.create("A", [])
        self.assertEqual(self.store.copy(self.key, [1], "A", False, 0).target_uids, [1])
        self.assertEqual(self.store.copy(self.key, [1], "A", True, 0).target_uids, [2])
        self.assertEqual(len(self.cur(".A")), 2)

    def test_expunge_keeps_an_undeleted_message(self) -> None:
        r"""EXPUNGE keeps a message from which another program has just removed \Deleted."""
        self.store.store_flags(self.key, [1, 2], b"+", [DELETED], None, 0)
        self.rename(self.cur()[0], self.first)
        self.assertEqual([*self.store.expunge(self.key, None, self.since).delta.vanished], [2])
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {1: b"\\Seen"})

    def test_removed_file_is_expunged_by_the_next_sync(self) -> None:
        """A message without a file is reported as missing, and the next sync expunges it."""
        os.unlink(self.path("cur", self.first))
        fetched = self.store.fetch(self.key, [1, 2], [WHOLE], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([2], [1]))
        self.assertRaises(MessageExpunged, self.store.read, self.key, 1, WHOLE, 0, 5)
        self.store.create("A", [])
        self.assertRaises(MessageExpunged, self.store.copy, self.key, [1, 2], "A", False, 0)
        self.assertEqual(self.cur(".A"), [])
        self.let_mtimes_age()
        delta = self.store.changes(self.key, self.since, True)
        self.assertEqual((delta.rows, [*delta.vanished]), ([], [1]))

    def test_file_moved_back_to_new_is_the_same_message(self) -> None:
        """A file that mutt moves back to new/ is still the same message."""
        base = self.second.partition(":")[0]
        os.rename(self.path("cur", self.second), self.path("new", base))
        self.assertEqual(self.flags(), {1: b"\\Seen", 2: b""})
        self.assertEqual(self.store.status("INBOX").uidnext, 3)

    def test_file_missed_by_one_listing_is_not_expunged(self) -> None:
        """A file that one listing misses, as readdir() may while the file is renamed, is not expunged."""
        real = os.listdir
        missed: list[str] = []

        def listdir(directory: int) -> list[str]:
            names = real(directory)
            if path_of(directory) == self.path("cur") and not missed:
                missed.append(self.first)
                names.remove(missed[0])
            return names

        self.deliver(directory="cur", name="1700000000.more:2,")
        self.let_mtimes_age()
        self.patch(os, "listdir", listdir)
        delta = self.store.changes(self.key, self.since, True)
        self.assertTrue(missed)
        self.assertEqual(([row.uid for row in delta.rows], [*delta.vanished]), ([3], []))

    def test_cur_changes_before_the_lock(self) -> None:
        """If cur/ changes after new/ alone was listed, one listing that misses a file does not expunge it either."""
        real = os.listdir
        listed: list[str] = []

        def listdir(directory: int) -> list[str]:
            names = real(directory)
            listed.append(os.path.basename(path_of(directory)))
            if listed == ["new"]:
                self.deliver(directory="cur", name="1700000000.more:2,")
            if listed.count("cur") == 1 and listed[-1] == "cur":
                names.remove(self.first)
            return names

        self.let_mtimes_age()
        self.store.changes(self.key, self.since, True)
        self.deliver()
        self.patch(os, "listdir", listdir)
        delta = self.store.changes(self.key, self.since, True)
        self.assertEqual(listed[0], "new")
        self.assertGreater(listed.count("cur"), 0)
        self.assertEqual(([row.uid for row in delta.rows], [*delta.vanished]), ([3, 4], []))

    def test_one_of_two_files_with_one_base_name_is_a_message(self) -> None:
        """Of two files with one base name, as after restoring a backup, only one at a time is a message."""
        shutil.copy(self.path("cur", self.first), self.path("cur", self.first + "T"))
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {1: b"\\Seen", 2: b""})
        os.unlink(self.path("cur", self.first))
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {1: b"\\Deleted \\Seen", 2: b""})


class TwoStoresTests(DiskTestCase):
    """Two processes that serve the same account."""

    def test_processes_see_each_others_changes(self) -> None:
        """Both processes assign different UIDs, and see each other's changes."""
        other = self.open_store()
        self.deliver()
        for store in (self.store, other, self.store):
            store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
            self.deliver()
            store.open("INBOX", True)
        first, second = self.store.open("INBOX", True), other.open("INBOX", True)
        self.assertEqual(first.delta.rows, second.delta.rows)
        self.assertEqual([row.uid for row in first.delta.rows], [1, 2, 3, 4, 5, 6, 7])
        since, key = second.delta.highestmodseq, second.key
        self.store.store_flags(key, [2, 3], b"+", [DELETED], None, 0)
        self.store.expunge(key, [3], 0)
        delta = other.changes(key, since, True)
        self.assertEqual(([row.uid for row in delta.rows], [*delta.vanished]), ([2], [3]))
        other.rename("INBOX", "Old")
        self.assertEqual(len(self.store.changes(key, 0, True).rows), 0)

    def test_message_is_recent_in_one_process_only(self) -> None:
        r"""A message is \Recent in only one of the processes."""
        other = self.open_store()
        self.deliver()
        self.assertEqual(other.open("INBOX", True).delta.recent, [1])
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])
