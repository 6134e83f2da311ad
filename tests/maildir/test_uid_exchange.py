"""UIDs are exchanged with Dovecot and Courier; a contradiction gives a new UIDVALIDITY, and no message is lost."""

from __future__ import annotations

import os
import shutil

from imapshield.errors import NoSuchMailbox, StoreBusy
from imapshield.maildir import index, list_files
from imapshield.maildir.other_servers import RESERVED_UIDS
from imapshield.testing.store_contract import SEEN
from tests.maildir.disk import DiskTestCase, counting_calls, failing


class ExchangeTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        for directory in ("cur", "new", "tmp"):
            os.makedirs(self.path(".A", directory))
        for name in ("one:2,S", "two:2,"):
            self.deliver(folder=".A", name=name, directory="cur")

    def write(self, content: bytes, name: str = "dovecot-uidlist") -> None:
        with open(self.path(".A", name), "wb") as file:
            file.write(content)

    def read(self, name: str = "dovecot-uidlist") -> bytes:
        with open(self.path(".A", name), "rb") as file:
            return file.read()

    def import_list(self) -> None:
        self.write(b"3 V1500000000 N31 G0123456789abcdef\n7 :one\n9 P1 :two\n")
        self.assertEqual(self.store.open("A", True).uidvalidity, 1_500_000_000)

    def dovecot_adds(self, line: bytes) -> None:
        self.write(self.read() + line)

    def test_list_reserves_uids(self) -> None:
        """The list has what the index has, the extra fields of Dovecot, and a UIDNEXT that is ahead of the index."""
        self.deliver(folder=".A", name="three")
        self.import_list()
        uidnext = b"%d" % (32 + RESERVED_UIDS)
        self.assertEqual(
            self.read(),
            b"3 V1500000000 N%b G0123456789abcdef\n7 :one\n9 P1 :two\n31 :three\n" % uidnext,
        )

    def test_more_uids_are_reserved_when_half_are_used(self) -> None:
        """When half of the reserved UIDs are used, the next SELECT reserves more."""
        self.import_list()
        database = self.store._account.index
        used = 31 + RESERVED_UIDS // 2 + 1
        with database.write():
            database.db.execute("UPDATE mailbox SET uidnext = ? WHERE name = 'A'", (used,))
        self.store.open("A", True)
        self.assertIn(b" N%d " % (used + RESERVED_UIDS), self.read())

    def test_new_messages_of_the_other_server_are_taken_over(self) -> None:
        """A message that Dovecot received has Dovecot's UID, without a new UIDVALIDITY; sessions continue."""
        self.import_list()
        key = self.store.mailbox_key("A")
        theirs = 31 + RESERVED_UIDS
        self.deliver(folder=".A", name="three:2,", directory="cur")
        self.dovecot_adds(b"%d :three\n" % theirs)
        opened = self.store.open("A", True)
        self.assertEqual((opened.key, opened.uidvalidity), (key, 1_500_000_000))
        self.assertEqual([row.uid for row in opened.delta.rows], [7, 9, theirs])
        self.assertEqual(self.append(name="A"), theirs + 1)
        self.assertEqual(self.warnings, [])

    def test_message_that_both_received_moves_to_the_higher_uid(self) -> None:
        """A message that got a UID here, and a reserved one from Dovecot, has Dovecot's; its old UID has vanished."""
        self.import_list()
        uid = self.append(SEEN, name="A")
        before = self.store.open("A", True).delta.highestmodseq
        (name,) = set(self.cur(".A")) - {"one:2,S", "two:2,"}
        theirs = 31 + RESERVED_UIDS
        self.dovecot_adds(b"%d :%b\n" % (theirs, name.partition(":")[0].encode()))
        opened = self.store.open("A", True)
        self.assertEqual([row[:2] for row in opened.delta.rows][2:], [(theirs, SEEN)])
        delta = self.store.changes(opened.key, before, False)
        self.assertIn(uid, delta.vanished)
        self.assertEqual([row.uid for row in delta.rows], [theirs])

    def test_contradiction_gives_a_new_uidvalidity(self) -> None:
        """If Dovecot gives a used UID to another message, UIDVALIDITY changes, sessions end, and one line is logged."""
        self.import_list()
        key = self.store.mailbox_key("A")
        self.store.set_metadata("A", {b"/private/comment": b"kept"})
        self.append(SEEN, name="A")
        self.deliver(folder=".A", name="three:2,", directory="cur")
        self.write(b"3 V1500000000 N32 G0123456789abcdef\n7 :one\n9 :two\n31 :three\n")
        opened = self.store.open("A", True)
        self.assertGreater(opened.uidvalidity, 1_500_000_000)
        self.assertEqual([row.uid for row in opened.delta.rows], [7, 9, 32, 33])
        self.assertIn(b" V%d " % opened.uidvalidity, self.read())
        self.assertRaises(NoSuchMailbox, self.store.changes, key, 0, False)
        self.assertEqual(self.store.metadata("A"), {b"/private/comment": b"kept"})
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("new UIDVALIDITY", self.warnings[0])
        self.store.open("A", True)
        self.assertEqual(self.open_store().open("A", True).uidvalidity, opened.uidvalidity)
        self.assertEqual(len(self.warnings), 1)

    def test_list_with_an_older_uidvalidity_is_replaced(self) -> None:
        """A list that was restored from a backup does not bring an older UIDVALIDITY back; it gets ours."""
        before = self.store.open("A", True)
        uids = [row.uid for row in before.delta.rows]
        self.write(b"3 V1600000000 N31 G0123456789abcdef\n20 :one\n10 :two\n")
        opened = self.store.open("A", True)
        self.assertEqual(opened.uidvalidity, before.uidvalidity)
        self.assertEqual([row.uid for row in opened.delta.rows], uids)
        self.assertIn(b" V%d " % opened.uidvalidity, self.read())

    def restored(self) -> tuple[int, bytes]:
        """Return the UID of a message in a mailbox that was removed and restored, and the list that is written."""
        self.import_list()
        backup = os.path.abspath(self.mktemp())
        shutil.copytree(self.path(".A"), backup)
        with open(os.path.join(backup, "dovecot-uidlist"), "wb") as file:
            file.write(b"3 V1500000000 N31 G0123456789abcdef\n7 :one\n9 :two\n")
        self.assertEqual(self.append(SEEN, name="A"), 31)
        self.store.delete("A")
        shutil.copytree(backup, self.path(".A"))
        return self.append(SEEN, name="A"), self.read()

    def test_folder_that_is_restored_after_its_removal_has_a_new_uidvalidity(self) -> None:
        """A deleted folder that comes back from a backup does not assign its UIDs again; one true line is logged."""
        uid, content = self.restored()
        opened = self.store.open("A", True)
        self.assertGreater(opened.uidvalidity, 1_500_000_000)
        self.assertEqual([row.uid for row in opened.delta.rows], [1, 2, uid])
        self.assertIn(b" V%d " % opened.uidvalidity, content)
        (line,) = self.warnings
        self.assertIn("a mailbox that was removed", line)
        self.assertEqual(self.open_store().open("A", True).uidvalidity, opened.uidvalidity)

    def test_list_of_a_restored_account_does_not_bring_its_uidvalidity_back(self) -> None:
        """After a restore of the index, a list with the UIDVALIDITY of before is not followed, whatever it is."""
        for uidvalidity in (b"1500000000", b"3600000000"):
            self.write(b"3 V%b N31 G0123456789abcdef\n7 :one\n9 :two\n" % uidvalidity)
            self.assertEqual(self.store.open("A", True).uidvalidity, int(uidvalidity))
            del self.warnings[:]
            self.store.close()
            path = self.path("imapshield.sqlite")
            shutil.copy(path, path + "~")
            os.rename(path + "~", path)
            self.store = self.open_store()
            opened = self.store.open("A", True)
            self.assertNotIn(opened.uidvalidity, (1_500_000_000, 3_600_000_000))
            self.assertEqual(len(self.warnings), 1)
            self.assertIn("restored or copied", self.warnings[0])
            self.write(b"3 V%b N31 G0123456789abcdef\n7 :one\n9 :two\n" % uidvalidity)
            self.assertEqual(self.store.open("A", True).uidvalidity, opened.uidvalidity)
            self.assertEqual(len(self.warnings), 1)

    def test_list_does_not_bring_its_uidvalidity_back_if_the_index_lacks_the_mailbox(self) -> None:
        """If the index is removed in use, or the restored one lacks a mailbox, the list is not followed either."""
        self.import_list()
        for name in os.listdir(self.root):
            if name.startswith("imapshield.sqlite"):
                os.unlink(self.path(name))
        self.write(b"3 V1500000000 N31 G0123456789abcdef\n7 :one\n9 :two\n")
        self.assertGreater(self.store.open("A", True).uidvalidity, 1_500_000_000)
        first, second = self.warnings
        self.assertIn("all mailboxes get a new UIDVALIDITY", first)
        self.assertIn(
            "the list of Dovecot is that of a mailbox that was removed or restored", second
        )

    def test_retired_uidvalidities_are_limited(self) -> None:
        """A client that creates and deletes mailboxes does not make the index ever larger; the latest are remembered."""
        self.patch(index, "MAX_RETIRED", 3)
        for _ in range(9):
            self.store.create("B", ())
            last = self.store.status("B").uidvalidity
            self.store.delete("B")
        rows = self.store._account.index.db.execute("SELECT uidvalidity FROM retired").fetchall()
        self.assertEqual(rows, [(last - 2,), (last - 1,), (last,)])

    def test_other_uidvalidity_of_the_other_server_is_taken_over(self) -> None:
        """If Dovecot has made a list of its own, with a later UIDVALIDITY, that and its UIDs are taken over."""
        self.store.open("A", True)
        uid = self.append(SEEN, name="A")
        self.assertEqual(uid, 3)
        self.write(b"3 V3600000000 N31 G0123456789abcdef\n20 :one\n10 :two\n")
        opened = self.store.open("A", True)
        self.assertEqual(opened.uidvalidity, 3_600_000_000)
        self.assertEqual(
            [row[:2] for row in opened.delta.rows], [(10, b""), (20, SEEN), (31, SEEN)]
        )

    def test_list_that_exhausts_uids_is_not_followed(self) -> None:
        """If a list leaves too few UIDs, the mailbox gets a new UIDVALIDITY and one line is logged."""
        self.write(b"3 V1 N4294967293 Gabc\n")
        opened = self.store.open("A", True)
        self.assertGreater(opened.uidvalidity, 1)
        self.assertEqual([row.uid for row in opened.delta.rows], [1, 2])
        self.assertIn("nearly used up", "".join(self.warnings))
        self.assertEqual(len(self.warnings), 1)

    def test_list_is_not_written_while_dovecot_holds_its_lock(self) -> None:
        """While Dovecot holds the lock, its list stays; a later SELECT writes it. A stale lock is removed."""
        self.write(b"", "dovecot-uidlist.lock")
        self.import_list()
        self.assertIn(b" N31 ", self.read())
        os.utime(self.path(".A", "dovecot-uidlist.lock"), (1, 1))
        self.store.open("A", True)
        self.assertIn(b" N%d " % (31 + RESERVED_UIDS), self.read())
        self.assertFalse(os.path.exists(self.path(".A", "dovecot-uidlist.lock")))

    def test_exchange_can_be_repeated(self) -> None:
        """If a crash came before the lists were remembered, the exchange is repeated, with the same result."""
        self.import_list()
        self.append(SEEN, name="A")
        for _ in range(2):
            os.unlink(self.path(".A", "imapshield.imported"))
            self.store.close()
            self.store = self.open_store()
            opened = self.store.open("A", True)
            self.assertEqual(opened.uidvalidity, 1_500_000_000)
            self.assertEqual([row.uid for row in opened.delta.rows], [7, 9, 31])
        self.assertEqual(self.warnings, [])

    def test_contradiction_waits_for_dovecots_lock(self) -> None:
        """While Dovecot holds the lock, a contradiction is not resolved: the old list would come back."""
        self.import_list()
        self.append(SEEN, name="A")
        self.deliver(folder=".A", name="three:2,", directory="cur")
        self.write(b"3 V1500000000 N32 G0123456789abcdef\n7 :one\n9 :two\n31 :three\n")
        self.write(b"", "dovecot-uidlist.lock")
        self.assertRaises(StoreBusy, self.store.open, "A", True)
        os.unlink(self.path(".A", "dovecot-uidlist.lock"))
        self.assertGreater(self.store.open("A", True).uidvalidity, 1_500_000_000)

    def test_symbolic_link_is_not_a_list(self) -> None:
        """A symbolic link in place of a list is ignored."""
        os.symlink("/etc/passwd", self.path(".A", "dovecot-uidlist"))
        self.write(b"1 795000000 10\n7 one\n9 two\n", "courierimapuiddb")
        self.assertEqual(self.store.open("A", True).uidvalidity, 795_000_000)
        self.assertEqual(self.warnings, [])

    def test_modseqs_continue_above_those_of_dovecot(self) -> None:
        """MODSEQs are above those that Dovecot can have sent, and messages that it has expunged have vanished."""
        header = bytes([1, 3]) + bytes(22) + (500).to_bytes(8, "little")
        self.write(header.ljust(80, b"\0"), "dovecot.index.log")
        self.import_list()
        highest = self.store.status("A").highestmodseq
        self.assertGreater(highest, 500 + 10)
        vanished = self.store.changes(self.store.mailbox_key("A"), 500, False).vanished
        self.assertEqual([uid for uid in range(1, 31) if uid not in vanished], [7, 9])
        with open(self.path(".A", "dovecot.index.log"), "ab") as file:
            file.write(bytes(800))
        self.assertGreater(self.store.status("A").highestmodseq, highest + 100)

    def test_keywords_of_courier_are_imported(self) -> None:
        """Keywords of Courier get letters in dovecot-keywords and in the names of the files."""
        self.write(b"1 795000000 10\n7 one\n9 two\n", "courierimapuiddb")
        os.mkdir(self.path(".A", "courierimapkeywords"))
        self.write(b"blue\nRed\n\none:0 1\ntwo:1\n", "courierimapkeywords/:list")
        self.write(b"green\n", "courierimapkeywords/.5.two")
        self.assertEqual(self.flags("A"), {7: b"\\Seen blue Red", 9: b"green"})
        self.assertEqual(self.cur(".A"), ["one:2,Sab", "two:2,c"])

    def test_keywords_of_courier_are_limited(self) -> None:
        """The first keywords of a mailbox and of a message, up to the limits, are imported; the mailbox can be opened."""
        self.write(b"1 795000000 10\n7 one\n9 two\n", "courierimapuiddb")
        os.mkdir(self.path(".A", "courierimapkeywords"))
        words = [b"keyword%04d" % i for i in range(1100)]
        self.write(b"\n".join(words), "courierimapkeywords/one")
        self.write(b"keyword0999\nkeyword1000\n", "courierimapkeywords/two")
        flags = self.flags("A")
        self.assertEqual(flags[9], b"keyword0999")
        self.assertEqual(flags[7], b" ".join([b"\\Seen", *words[: (4096 - 5) // 12]]))

    def test_keywords_without_room_in_the_name_are_in_the_index(self) -> None:
        """If a file name has no room for the letters of Courier's keywords, they are in the index, and one line is logged."""
        name = "1" * 252
        self.deliver(folder=".A", name=name + ":2,", directory="cur")
        self.write(b"1 795000000 10\n7 one\n9 %b\n" % name.encode(), "courierimapuiddb")
        os.mkdir(self.path(".A", "courierimapkeywords"))
        self.write(b"blue\n", f"courierimapkeywords/{name}")
        self.assertEqual(self.flags("A")[9], b"blue")
        self.assertEqual(self.flags("A")[9], b"blue")
        self.assertIn(name + ":2,", self.cur(".A"))
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("no room in its name", self.warnings[0])

    def test_failing_renames_for_keywords_are_logged(self) -> None:
        """If a file cannot be renamed, the mailbox can be opened without its keywords, and one line is logged."""
        self.write(b"1 795000000 10\n7 one\n9 two\n", "courierimapuiddb")
        os.mkdir(self.path(".A", "courierimapkeywords"))
        for name in ("one", "two"):
            self.write(b"blue\n", f"courierimapkeywords/{name}")
        # The first renames are those of imapshield-uidvalidity and dovecot-keywords.
        with failing("rename", PermissionError(13, "Permission denied"), after=2):
            self.assertEqual(self.flags("A"), {7: b"\\Seen", 9: b"blue"})
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("Permission denied", self.warnings[0])

    def test_keyword_files_are_read_up_to_a_limit(self) -> None:
        """Large or many files of Courier's keywords are read up to limits, the list first; the mailbox can be opened."""
        self.write(b"1 795000000 10\n7 one\n9 two\n", "courierimapuiddb")
        os.mkdir(self.path(".A", "courierimapkeywords"))
        self.write(b"blue\n\none:0\n", "courierimapkeywords/:list")
        for i in range(20):
            self.write(b"x" * 1000, f"courierimapkeywords/.{i}.two")
        self.patch(list_files, "MAX_DIRECTORY_SIZE", 5000)
        folder = self.store._account.folders.folder("A")
        content = list_files.read_directory(folder.file(b"courierimapkeywords"))
        self.assertEqual(sum(map(len, content.values())), 5000)
        self.assertEqual(content[b":list"], b"blue\n\none:0\n")
        self.patch(list_files, "MAX_DIRECTORY_FILES", 3)
        self.assertEqual(len(list_files.read_directory(folder.file(b"courierimapkeywords"))), 3)
        self.assertEqual(self.flags("A"), {7: b"\\Seen blue", 9: b""})

    def test_unchanged_list_is_not_read(self) -> None:
        """A SELECT of an unchanged mailbox reads neither the list nor the marker file."""
        self.import_list()
        self.let_mtimes_age()
        self.store.open("A", True)
        with counting_calls("open") as calls:
            self.store.open("A", True)
        names = [os.path.basename(path) for path in calls]
        self.assertEqual([name for name in names if "uidlist" in name or "imported" in name], [])
