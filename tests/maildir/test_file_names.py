"""File names of other programs: with a doubled colon, or too long to take flags."""

from __future__ import annotations

import os
from dataclasses import replace

from imapshield.testing.store_contract import BUDGET, DELETED, FLAGGED, SEEN, WHOLE
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase

LONG = "1700000000." + "x" * 244
"""A name of 255 bytes, the longest that a file can have."""


class DoubledFlagsTests(DiskTestCase):
    def test_flags_are_behind_the_last_colon(self) -> None:
        """The flags of a name with two lists of flags are the last ones, and STORE leaves one list."""
        for name, flags in (
            ("1700000000.a:2,:2,S", SEEN),
            ("1700000001.b:2,F:2,ST", b"\\Deleted \\Seen"),
            ("1700000002.c:2,S:2,", b""),
        ):
            self.deliver(name=name, directory="cur")
            uid = self.store.open("INBOX", True).delta.uidnext - 1
            self.assertEqual(self.flags()[uid], flags)
        key = self.store.mailbox_key("INBOX")
        self.store.store_flags(key, [1, 2, 3], b"", [FLAGGED], None, 0)
        self.assertEqual(self.cur(), [f"170000000{i}.{c}:2,F" for i, c in enumerate("abc")])
        self.let_mtimes_age()
        self.assertEqual(self.flags(), dict.fromkeys((1, 2, 3), FLAGGED))


class ReportedChangeTests(DiskTestCase):
    def test_store_reports_what_the_index_has(self) -> None:
        """STORE reports its own change as the next sync would, whatever follows the base name of a file."""
        endings = ("", ":", ":2,", ":2,S", ":1,x", ":2,Sqz")
        for number, ending in enumerate(endings):
            self.deliver(name=f"170000000{number}.x{ending}", directory="cur")
        self.deliver()
        self.deliver(directory="cur")
        opened = self.store.open("INBOX", False)
        self.store.store_flags(opened.key, [8], b"+", [FLAGGED], None, 0)
        known = self.store.changes(opened.key, 0, False).highestmodseq
        uids = range(1, 9)
        reported = self.store.store_flags(opened.key, uids, b"+", [FLAGGED], None, known).delta
        self.assertEqual([row.uid for row in reported.rows], [1, 2, 3, 4, 5, 6, 7])
        for _ in range(2):
            changes = self.store.changes(opened.key, known, False)
            self.assertEqual(replace(changes, recent=[]), reported)
            self.let_mtimes_age()
        names = self.store._account.index.db.execute("SELECT name FROM message ORDER BY name")
        self.assertEqual([os.fsdecode(name) for (name,) in names], self.cur())
        self.assertIn("1700000005.x:2,FSqz", self.cur())

    def test_store_reports_what_the_caller_lacks(self) -> None:
        """A caller that lacks another change gets both, and one for which nothing changes gets no row."""
        first = self.append()
        opened = self.store.open("INBOX", True)
        second = self.append()
        since = opened.delta.highestmodseq
        delta = self.store.store_flags(opened.key, [first], b"+", [SEEN], None, since).delta
        self.assertEqual([(r.uid, r.flags) for r in delta.rows], [(first, SEEN), (second, b"")])
        again = self.store.store_flags(
            opened.key, [first], b"+", [SEEN], None, delta.highestmodseq
        ).delta
        self.assertEqual(again, replace(delta, rows=[]))


class LongNameTests(DiskTestCase):
    """A message in new/ whose name has no room for letters."""

    def setUp(self) -> None:
        super().setUp()
        self.deliver(name=LONG)
        self.append()
        self.key = self.store.open("INBOX", True).key

    def restart(self) -> None:
        self.let_mtimes_age()
        self.store.close()
        self.store = self.open_store()
        self.key = self.store.mailbox_key("INBOX")

    def test_message_is_claimed_and_read(self) -> None:
        """It is moved to cur/ under its own name, and can be read."""
        self.assertEqual(self.new(), [])
        self.assertIn(LONG, self.cur())
        fetched = self.store.fetch(self.key, [1, 2], [WHOLE], BUDGET)
        self.assertEqual(fetched.columns, [[MAIL_LITERAL] * 2])
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])

    def test_flags_are_kept_in_the_index(self) -> None:
        """Its flags are kept in the index, also after a restart, and the log says so once."""
        for flags in ([SEEN], [SEEN, b"$Work"]):
            self.store.store_flags(self.key, [1, 2], b"", flags, None, 0)
            self.assertEqual(self.flags(), dict.fromkeys((1, 2), b" ".join(flags)))
        self.assertIn(LONG, self.cur())
        self.assertEqual(len(self.warnings), 1)
        self.restart()
        self.assertEqual(self.flags(), dict.fromkeys((1, 2), b"\\Seen $Work"))

    def test_message_can_be_expunged(self) -> None:
        """It can be marked as deleted, copied, moved and expunged."""
        self.store.create("A", [])
        self.store.copy(self.key, [1], "A", False, 0)
        self.store.store_flags(self.key, [1], b"+", [DELETED], None, 0)
        self.restart()
        since = self.store.status("INBOX").highestmodseq
        result = self.store.expunge(self.key, None, since)
        self.assertEqual([*result.delta.vanished], [1])
        self.assertNotIn(LONG, self.cur())
        self.assertEqual(self.flags("A"), {1: b""})
        self.deliver(name=LONG)
        self.store.open("INBOX", True)
        self.assertEqual(self.store.copy(self.key, [3], "A", True, 0).target_uids, [2])
        self.assertEqual(self.flags(), {2: b""})

    def test_name_that_another_program_shortens(self) -> None:
        """If another program makes the name shorter, it is the name of another message."""
        os.rename(self.path("cur", LONG), self.path("cur", LONG[:-10] + ":2,F"))
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {2: b"", 3: FLAGGED})
