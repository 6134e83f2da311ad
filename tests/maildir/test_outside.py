"""Other programs use the Maildir at the same time, and nothing they do is missed or misunderstood."""

from __future__ import annotations

import os
import shutil

from imapshield.errors import MessageExpunged, NoSuchMailbox, StoreLimitExceeded
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import files
from imapshield.maildir.files import STALE_SECONDS
from imapshield.testing.store_contract import BUDGET, DELETED, MAIL, SEEN, WHOLE
from imapshield.wire import encode
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import Attribute, BodySection, Section
from tests.maildir.disk import DiskTestCase, counted

LF_MAIL = MAIL.replace(b"\r\n", b"\n")


class DeliveryTests(DiskTestCase):
    def test_order_of_delivery(self) -> None:
        """Messages found together get UIDs in the order of their delivery, not of the directory."""
        names = [
            "1700000001.M999P1.mx",
            "1700000001.M1000P1.mx",
            "1700000001.M1000P1Q10.mx",
            "1700000002.nonsense",
            "1700000010.mx",
        ]
        for name in reversed(names):
            self.deliver(name=name, place="cur" if "nonsense" in name else "new")
        self.deliver(name="no time at all")
        os.utime(self.path("new", "no time at all"), (1, 1))
        self.store.open("INBOX", True)
        listed = {n.partition(":")[0] for n in self.cur()}
        self.assertEqual(listed, {*names, "no time at all"})
        bodies = self.store.fetch(
            self.store.key("INBOX"), range(1, 7), [Attribute(b"EMAILID")], BUDGET
        )
        self.assertEqual(list(bodies.uids), [1, 2, 3, 4, 5, 6])
        rows = self.store._index.db.execute("SELECT name FROM message ORDER BY uid")
        self.assertEqual(
            [n.decode().partition(":")[0] for (n,) in rows], ["no time at all", *names]
        )

    def test_looking_moves_nothing(self) -> None:
        """STATUS and EXAMINE give UIDs and leave the mail in new/; a session that takes it as \\Recent moves it."""
        name = self.deliver()
        self.assertEqual(self.store.status("INBOX").recent, 1)
        self.store.open("INBOX", False)
        self.assertEqual((self.new(), self.cur()), ([name], []))
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [1])
        self.assertEqual((self.new(), self.cur()), ([], [name + ":2,"]))
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])

    def test_noticed_at_once(self) -> None:
        """Mail is noticed at the next look, even in the clock tick of the last one."""
        key, since = self.store.key("INBOX"), 0
        for i in range(1, 40):
            self.deliver()
            delta = self.store.changes(key, since, False)
            self.assertEqual([row.uid for row in delta.rows], [i])
            since = delta.highestmodseq

    def test_lf_on_disk(self) -> None:
        """A file with LF goes out with CRLF, its size is that, and `W=` in its name saves measuring."""
        self.deliver(LF_MAIL)
        self.deliver(LF_MAIL, name=f"1800000000.mx,S={len(LF_MAIL)},W={len(MAIL)}")
        rows = self.store.open("INBOX", False).delta.rows
        self.assertEqual([row.size for row in rows], [None, len(MAIL)])
        key = self.store.key("INBOX")
        for uid in (1, 2):
            wire = b"{%d}\r\n%b" % (len(MAIL), MAIL)
            self.assertEqual(self.store.fetch(key, [uid], [WHOLE], BUDGET).columns, [[wire]])
            part = self.store.fetch(key, [uid], [BodySection(Section(), partial=(4, 6))], BUDGET)
            self.assertEqual(part.columns, [[b"{6}\r\n" + MAIL[4:10]]])
        self.assertEqual(self.store.sizes(key, [1, 2]), [(1, len(MAIL)), (2, len(MAIL))])
        self.assertEqual(self.store.status("INBOX").size, 2 * len(MAIL))

    def test_a_size_that_lies(self) -> None:
        """A name that promises another size than the file has is corrected when the message is read."""
        self.deliver(LF_MAIL, name="1700000000.mx,S=5,W=5")
        key = self.store.open("INBOX", False).key
        self.store.fetch(key, [1], [WHOLE], BUDGET)
        self.assertEqual(self.store.sizes(key, [1]), [(1, len(MAIL))])

    def test_large_header(self) -> None:
        """A header that goes beyond the first piece read of a large file is found whole."""
        for eol in (b"\r\n", b"\n"):
            for pad in range(65510, 65540, 3):
                header = b"X: " + b"x" * pad + eol + b"Subject: end" + eol + eol
                self.deliver(header + b"body" * 50_000)
        key = self.store.open("INBOX", True).key
        item = BodySection(Section((), b"HEADER.FIELDS", (b"Subject",)))
        got = self.store.fetch(key, range(1, 21), [item], BUDGET).columns[0]
        self.assertEqual(set(got), {b"{16}\r\nSubject: end\r\n\r\n"})

    def test_large(self) -> None:
        """A file far larger than mail is no message, one that grew so is cut, and none such is stored."""
        self.put()
        self.patch(files, "LARGEST", 100)
        for name, size in (("1700000000.large:2,S", 101), ("1700000001.grows:2,S", 100)):
            with open(self.path("cur", name), "wb") as file:
                file.truncate(size)
        self.assertEqual(self.store.status("INBOX").messages, 2)
        key = self.store.key("INBOX")
        with open(self.path("cur", name), "ab") as file:
            file.truncate(1000)
        self.assertEqual(self.store.sizes(key, [2]), [(2, 100)])
        fetched = self.store.fetch(key, [2], [WHOLE], BUDGET)
        self.assertEqual(fetched.columns, [[encode.literal(bytes(100))]])
        large = NewMessage((), None, MemoryLiteral(bytes(101)))
        self.assertRaises(StoreLimitExceeded, self.store.append, "INBOX", [large])

    def test_only_files_are_mail(self) -> None:
        """Directories, symbolic links, FIFOs and dot files in cur/ and new/ are no messages."""
        secret = self.mktemp()
        with open(secret, "wb") as file:
            file.write(b"secret")
        os.mkdir(self.path("cur", "folder"))
        os.symlink(os.path.abspath(secret), self.path("new", "1700000000.link"))
        os.mkfifo(self.path("new", "1700000001.fifo"))
        with open(self.path("new", ".hidden"), "wb"):
            pass
        name = self.deliver()
        self.assertEqual(self.flags(), {1: b""})
        os.unlink(self.path("new", name))
        os.symlink(os.path.abspath(secret), self.path("new", name))
        from imapshield.errors import StoreIOError

        key = self.store.key("INBOX")
        self.assertRaises(StoreIOError, self.store.fetch, key, [1], [WHOLE], BUDGET)
        self.assertTrue(any(name in note for note in self.notes), self.notes)


class RenameTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.put(SEEN)
        self.put()
        self.opened = self.store.open("INBOX", True)
        self.key, self.since = self.opened.key, self.opened.delta.highestmodseq
        self.first, self.second = self.cur()

    def rename(self, old: str, new: str) -> None:
        os.rename(self.path("cur", old), self.path("cur", new))

    def test_flags_change(self) -> None:
        """Flags that another program sets or removes are told, and nothing else."""
        self.rename(self.first, self.first.replace(":2,S", ":2,FRT"))
        self.cool()
        delta = self.store.changes(self.key, self.since, True)
        self.assertEqual([row[:2] for row in delta.rows], [(1, b"\\Answered \\Flagged \\Deleted")])
        self.assertGreater(delta.rows[0].modseq, self.since)
        self.assertEqual([*delta.vanished], [])

    def test_unknown_letters_stay(self) -> None:
        """A letter that means nothing to us is kept in the name and told to nobody."""
        self.rename(self.second, self.second + "Xz")
        self.cool()
        self.assertEqual(self.flags(), {1: b"\\Seen", 2: b""})
        self.store.store_flags(self.key, [2], b"+", [SEEN], None, 0)
        self.assertTrue(self.cur()[1].endswith(":2,SXz"))

    def test_keywords_of_dovecot(self) -> None:
        """Letters mean what dovecot-keywords says; ours are added to that file."""
        with open(self.path("dovecot-keywords"), "wb") as file:
            file.write(b"0 $Junk\n2 Work\nnonsense\n77 far\n")
        self.rename(self.second, self.second + "abc")
        self.cool()
        self.assertEqual(self.flags()[2], b"$Junk Work")
        self.store.store_flags(self.key, [1], b"+", [b"work", b"mine"], None, 0)
        self.assertEqual(self.flags()[1], b"\\Seen mine Work")
        with open(self.path("dovecot-keywords"), "rb") as file:
            self.assertEqual(file.read(), b"0 $Junk\n1 mine\n2 Work\n")
        self.assertTrue(self.cur()[0].endswith(":2,Sbc"))

    def test_renamed_under_us(self) -> None:
        """What another program renames a moment ago is found by its base, by every command."""
        other = self.first.replace(":2,S", ":2,FS")
        self.rename(self.first, other)
        wire = b"{%d}\r\n%b" % (len(MAIL), MAIL)
        self.assertEqual(self.store.fetch(self.key, [1], [WHOLE], BUDGET).columns, [[wire]])
        delta, _ = self.store.store_flags(self.key, [1], b"+", [DELETED], None, self.since)
        self.assertEqual([row.uid for row in delta.rows], [1])
        self.rename(self.cur()[0], other)
        self.store.create("A", [])
        self.assertEqual(self.store.copy(self.key, [1], "A", False, 0).target_uids, [1])
        self.assertEqual(self.store.copy(self.key, [1], "A", True, 0).target_uids, [2])
        self.assertEqual(len(self.cur(".A")), 2)

    def test_undeleted_under_us(self) -> None:
        """EXPUNGE spares a message from which another program has just taken \\Deleted."""
        self.store.store_flags(self.key, [1, 2], b"+", [DELETED], None, 0)
        self.rename(self.cur()[0], self.first)
        self.assertEqual([*self.store.expunge(self.key, None, self.since).vanished], [2])
        self.cool()
        self.assertEqual(self.flags(), {1: b"\\Seen"})

    def test_deleted(self) -> None:
        """A file that is gone is a message that vanished; until that is noticed it is answered as gone."""
        os.unlink(self.path("cur", self.first))
        fetched = self.store.fetch(self.key, [1, 2], [WHOLE], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([2], [1]))
        self.assertRaises(MessageExpunged, self.store.read, self.key, 1, WHOLE, 0, 5)
        self.store.create("A", [])
        self.assertRaises(MessageExpunged, self.store.copy, self.key, [2, 1], "A", False, 0)
        self.assertEqual(self.cur(".A"), [])
        self.cool()
        delta = self.store.changes(self.key, self.since, True)
        self.assertEqual((delta.rows, [*delta.vanished]), ([], [1]))

    def test_back_to_new(self) -> None:
        """A file that mutt moves back to new/ is the same message."""
        base = self.second.partition(":")[0]
        os.rename(self.path("cur", self.second), self.path("new", base))
        self.assertEqual(self.flags(), {1: b"\\Seen", 2: b""})
        self.assertEqual(self.store.status("INBOX").uidnext, 3)

    def test_missed_by_a_listing(self) -> None:
        """A file that one directory listing misses, as readdir() may while it is renamed, is not expunged."""
        real, missed = os.listdir, []

        def listdir(path):
            names = real(path)
            if path.endswith(b"cur") and not missed:
                missed.append(names.remove(self.first.encode()))
            return names

        self.deliver(place="cur", name="1700000000.more:2,")
        self.cool()
        self.patch(os, "listdir", listdir)
        delta = self.store.changes(self.key, self.since, True)
        self.assertTrue(missed)
        self.assertEqual(([row.uid for row in delta.rows], [*delta.vanished]), ([3], []))

    def test_two_files_of_one_base(self) -> None:
        """A backup restored over a live folder shows each message once, and the other file when that is gone."""
        shutil.copy(self.path("cur", self.first), self.path("cur", self.first + "T"))
        self.cool()
        self.assertEqual(self.flags(), {1: b"\\Seen", 2: b""})
        os.unlink(self.path("cur", self.first))
        self.cool()
        self.assertEqual(self.flags(), {1: b"\\Deleted \\Seen", 2: b""})


class MtimeTests(DiskTestCase):
    def test_unchanged_is_not_read(self) -> None:
        """A mailbox in which nothing happened is not listed again."""
        self.put()
        self.cool()
        key = self.store.open("INBOX", True).key
        with counted("listdir") as calls:
            self.store.open("INBOX", True)
            self.store.changes(key, 0, True)
            self.store.status("INBOX")
        self.assertEqual(calls, [])

    def test_our_own_changes_are_not_read(self) -> None:
        """A loop of APPEND, STORE and looks lists cur/ never, and once when it is over."""
        self.clock.stand_at = lambda: os.stat(self.path("cur")).st_mtime + 0.1
        self.store.open("INBOX", True)
        key = self.store.key("INBOX")
        with counted("listdir") as calls:
            for _ in range(20):
                uid = self.put()
                self.store.store_flags(key, [uid], b"+", [SEEN], None, 0)
                self.store.changes(key, 0, True)
        self.assertEqual([path for (path,) in calls if path.endswith(b"cur")], [])
        self.clock.stand_at = lambda: os.stat(self.path("cur")).st_mtime + 1.1
        with counted("listdir") as calls:
            self.store.open("INBOX", True)
            self.store.open("INBOX", True)
        self.assertEqual(len([path for (path,) in calls if path.endswith(b"cur")]), 1)

    def test_same_tick(self) -> None:
        """A change that left the mtime as it was is found when the directory has cooled."""
        self.put()
        self.store.open("INBOX", True)
        (name,) = self.cur()
        status = os.stat(self.path("cur"))
        os.rename(self.path("cur", name), self.path("cur", name + "S"))
        os.utime(self.path("cur"), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.cool()
        self.assertEqual(self.flags(), {1: b"\\Seen"})

    def test_forced(self) -> None:
        """Once an hour even a directory whose mtime was set back is read."""
        self.put()
        self.cool()
        self.store.open("INBOX", True)
        (name,) = self.cur()
        status = os.stat(self.path("cur"))
        os.rename(self.path("cur", name), self.path("cur", name + "S"))
        os.utime(self.path("cur"), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertEqual(self.flags(), {1: b""})
        self.clock.later += 3601
        self.assertEqual(self.flags(), {1: b"\\Seen"})

    def test_clock_behind(self) -> None:
        """With a clock behind the file system's nothing is trusted, and nothing missed."""
        self.clock.later = -1e6
        key = self.store.open("INBOX", True).key
        for i in range(1, 6):
            self.deliver(place="cur", name=f"{i}.x:2,S")
            self.assertEqual(len(self.store.changes(key, 0, True).rows), i)


class FolderTests(DiskTestCase):
    def test_folder_removed_under_a_session(self) -> None:
        """A folder that another program removed is a mailbox that is gone, whatever is asked of it."""
        self.store.create("a", ())
        self.put(name="a")
        key = self.store.key("a")
        shutil.rmtree(self.path(".a"))
        self.assertRaises(NoSuchMailbox, self.store.fetch, key, [1], [WHOLE], BUDGET)
        self.assertRaises(NoSuchMailbox, self.store.changes, key, 0, False)
        self.assertRaises(NoSuchMailbox, self.store.store_flags, key, [1], b"+", [SEEN], None, 0)

    def test_folders_of_others(self) -> None:
        """Folders that others make are mailboxes; what is no Maildir++ folder is passed over."""
        for name in (
            ".A",
            ".A.B&AC4-c",
            ".Entw&APw-rfe",
            "plain",
            ".",
            ".INBOX",
            ".inbox.x",
            ".A..B",
            ".b&d",
            ".Entwürfe",
        ):
            if name != ".":
                for part in ("cur", "new", "tmp"):
                    os.makedirs(self.path(name, part))
        with open(self.path(".file"), "wb"):
            pass
        names = [info.name for info in self.store.mailboxes()]
        self.assertEqual(names, ["A", "A/B.c", "Entwürfe", "INBOX"])
        self.deliver(folder=".A.B&AC4-c")
        self.assertEqual(self.flags("A/B.c"), {1: b""})

    def test_repair(self) -> None:
        """A folder that lacks its directories gets them."""
        os.mkdir(self.path(".A"))
        self.assertEqual(self.flags("A"), {})
        shutil.rmtree(self.path("tmp"))
        self.assertEqual(self.put(), 1)
        shutil.rmtree(self.path("cur"))
        self.cool()
        self.assertEqual(self.flags(), {})
        self.assertEqual(self.put(), 2)

    def test_removed_by_others(self) -> None:
        """A folder that others remove is gone; made again it is a mailbox with UIDs of its own."""
        self.store.create("A", [])
        self.put(name="A")
        key, before = self.store.key("A"), self.store.status("A")
        shutil.rmtree(self.path(".A"))
        for call in (
            lambda: self.store.key("A"),
            lambda: self.store.open("A", True),
            lambda: self.store.changes(key, 0, True),
            lambda: self.put(name="A"),
            lambda: self.store.delete("A"),
            lambda: self.store.rename("A", "B"),
        ):
            self.assertRaises(NoSuchMailbox, call)
        self.store.create("A", [])
        after = self.store.status("A")
        self.assertGreater(after.uidvalidity, before.uidvalidity)
        self.assertEqual(after.messages, 0)

    def test_linked_folder(self) -> None:
        """A folder that is a symbolic link is served, and deleting it removes the link alone."""
        elsewhere = os.path.abspath(self.mktemp())
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(elsewhere, part))
        os.symlink(elsewhere, self.path(".Shared"))
        self.put(name="Shared")
        self.store.delete("Shared")
        self.assertEqual(len(os.listdir(os.path.join(elsewhere, "cur"))), 1)
        self.assertFalse(os.path.lexists(self.path(".Shared")))

    def test_modes(self) -> None:
        """Nobody else may read what we make."""
        self.store.create("A", [])
        self.put(b"$Work", name="A")
        self.store.set_subscribed("A", True)
        for folder, _, names in os.walk(self.root):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700, folder)
            for name in names:
                mode = os.stat(os.path.join(folder, name)).st_mode & 0o077
                self.assertEqual(mode, 0, name)

    def test_subscriptions_of_dovecot(self) -> None:
        """Both versions of Dovecot's file are read and written, lines we cannot read included."""
        for content, after in (
            (b"INBOX\nA.B&AC4-c\n\xff\n", b"INBOX\n\xff\nX.Y\n"),
            (b"V\t2\n\nINBOX\nA\tB&AC4-c\n\xff\n", b"V\t2\n\nINBOX\n\xff\nX\tY\n"),
        ):
            with open(self.path("subscriptions"), "wb") as file:
                file.write(content)
            self.assertEqual(self.store.subscriptions(), {"INBOX", "A/B.c"})
            self.store.set_subscribed("A/B.c", False)
            self.store.set_subscribed("X/Y", True)
            with open(self.path("subscriptions"), "rb") as file:
                self.assertEqual(file.read(), after)

    def test_sweep(self) -> None:
        """What a crash left in tmp/ is removed when it is old enough to be nobody's."""
        with open(self.path("tmp", "old"), "wb"):
            pass
        os.utime(self.path("tmp", "old"), (1, 1))  # the age of the message says nothing
        os.makedirs(self.path("tmp", "deleted", "cur"))
        for later, left in ((60, ["deleted", "old"]), (STALE_SECONDS, [])):
            self.clock.later += later
            self.open_store().mailboxes()
            self.assertEqual(sorted(os.listdir(self.path("tmp"))), left)


class TwoStoresTests(DiskTestCase):
    def test_both_see_all(self) -> None:
        """Two processes that serve one account give different UIDs and tell each other's changes."""
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

    def test_recent_to_one(self) -> None:
        """A message is \\Recent in one of two processes."""
        other = self.open_store()
        self.deliver()
        self.assertEqual(other.open("INBOX", True).delta.recent, [1])
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])
