"""Mail that delivery agents and other programs put into the Maildir becomes messages."""

from __future__ import annotations

import os

from imapshield.errors import StoreLimitExceeded
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import files
from imapshield.testing.store_contract import BUDGET, MAIL, WHOLE
from imapshield.wire import strings
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import Attribute, BodySection, Section
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase

LF_MAIL = MAIL.replace(b"\r\n", b"\n")


class DeliveryTests(DiskTestCase):
    def test_uids_follow_the_order_of_delivery(self) -> None:
        """Messages that one sync finds get UIDs in the order of their delivery, not of the directory."""
        names = [
            "1700000001.M999P1.mx",
            "1700000001.M1000P1.mx",
            "1700000001.M1000P1Q10.mx",
            "1700000002.nonsense",
            "1700000010.mx",
        ]
        for name in reversed(names):
            self.deliver(name=name, directory="cur" if "nonsense" in name else "new")
        self.deliver(name="no time")
        os.utime(self.path("new", "no time"), (1, 1))
        self.store.open("INBOX", True)
        listed = {n.partition(":")[0] for n in self.cur()}
        self.assertEqual(listed, {*names, "no time"})
        bodies = self.store.fetch(
            self.store.mailbox_key("INBOX"), range(1, 7), [Attribute(b"EMAILID")], BUDGET
        )
        self.assertEqual(list(bodies.uids), [1, 2, 3, 4, 5, 6])
        rows = self.store._account.index.db.execute("SELECT name FROM message ORDER BY uid")
        self.assertEqual([n.decode().partition(":")[0] for (n,) in rows], ["no time", *names])

    def test_only_claiming_moves_files(self) -> None:
        r"""STATUS and EXAMINE assign UIDs and leave files in new/; claiming \Recent messages moves them."""
        name = self.deliver()
        self.assertEqual(self.store.status("INBOX").recent, 1)
        self.store.open("INBOX", False)
        self.assertEqual((self.new(), self.cur()), ([name], []))
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [1])
        self.assertEqual((self.new(), self.cur()), ([], [name + ":2,"]))
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])

    def test_mail_of_the_same_clock_tick_is_found(self) -> None:
        """New mail is found by the next sync, even if it was delivered in the clock tick of the last one."""
        key, since = self.store.mailbox_key("INBOX"), 0
        for i in range(1, 40):
            self.deliver()
            delta = self.store.changes(key, since, False)
            self.assertEqual([row.uid for row in delta.rows], [i])
            since = delta.highestmodseq

    def test_lf_on_disk_is_crlf_on_the_wire(self) -> None:
        """A file with LF is sent with CRLF and has that size; with `W=` in its name it need not be measured."""
        self.deliver(LF_MAIL)
        self.deliver(LF_MAIL, name=f"1800000000.mx,S={len(LF_MAIL)},W={len(MAIL)}")
        rows = self.store.open("INBOX", False).delta.rows
        self.assertEqual([row.size for row in rows], [None, len(MAIL)])
        key = self.store.mailbox_key("INBOX")
        for uid in (1, 2):
            self.assertEqual(
                self.store.fetch(key, [uid], [WHOLE], BUDGET).columns, [[MAIL_LITERAL]]
            )
            part = self.store.fetch(key, [uid], [BodySection(Section(), partial=(4, 6))], BUDGET)
            self.assertEqual(part.columns, [[b"{6}\r\n" + MAIL[4:10]]])
        self.assertEqual(self.store.sizes(key, [1, 2]).sizes, [(1, len(MAIL)), (2, len(MAIL))])
        self.assertEqual(self.store.status("INBOX").size, 2 * len(MAIL))

    def test_wrong_size_in_a_name_is_corrected(self) -> None:
        """A wrong size in a file name is corrected when the message is read."""
        self.deliver(LF_MAIL, name="1700000000.mx,S=5,W=5")
        key = self.store.open("INBOX", False).key
        self.store.fetch(key, [1], [WHOLE], BUDGET)
        self.assertEqual(self.store.sizes(key, [1]).sizes, [(1, len(MAIL))])

    def test_header_larger_than_a_chunk_is_found_completely(self) -> None:
        """A header that is larger than the first chunk of a large file is found completely."""
        for eol in (b"\r\n", b"\n"):
            for pad in range(65510, 65540, 3):
                header = b"X: " + b"x" * pad + eol + b"Subject: end" + eol + eol
                self.deliver(header + b"body" * 50_000)
        key = self.store.open("INBOX", True).key
        item = BodySection(Section((), b"HEADER.FIELDS", (b"Subject",)))
        found = self.store.fetch(key, range(1, 21), [item], BUDGET).columns[0]
        self.assertEqual(set(found), {b"{16}\r\nSubject: end\r\n\r\n"})

    def test_file_over_the_size_limit_is_no_message(self) -> None:
        """A file over the size limit is no message, a file that grows over it is cut, and APPEND refuses it."""
        self.append()
        self.patch(files, "MAX_MESSAGE_SIZE", 100)
        for name, size in (("1700000000.large:2,S", 101), ("1700000001.grows:2,S", 100)):
            with open(self.path("cur", name), "wb") as file:
                file.truncate(size)
        self.assertEqual(self.store.status("INBOX").messages, 2)
        key = self.store.mailbox_key("INBOX")
        with open(self.path("cur", name), "ab") as file:
            file.truncate(1000)
        self.assertEqual(self.store.sizes(key, [2]).sizes, [(2, 100)])
        fetched = self.store.fetch(key, [2], [WHOLE], BUDGET)
        self.assertEqual(fetched.columns, [[strings.literal(bytes(100))]])
        large = NewMessage((), None, MemoryLiteral(bytes(101)))
        self.assertRaises(StoreLimitExceeded, self.store.append, "INBOX", [large])

    def test_only_regular_files_are_messages(self) -> None:
        """Directories, symbolic links, FIFOs and dot files in cur/ and new/ are not messages."""
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
        key = self.store.mailbox_key("INBOX")
        fetched = self.store.fetch(key, [1], [WHOLE], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.unreadable)), ([], [1]))
        self.assertTrue(any(name in warning for warning in self.warnings), self.warnings)
