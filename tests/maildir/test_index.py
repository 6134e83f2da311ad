"""What the index remembers when the machine stops."""

import contextlib
import os

from imapshield.maildir import index_database
from tests.maildir.disk import DiskTestCase


class Restarts(DiskTestCase):
    def test_process(self) -> None:
        """A process that ends loses nothing: the next one goes on where it was."""
        first = self.put()
        self.store.close()
        self.store = self.open_store()
        self.assertEqual(self.put(), first + 1)

    def test_machine(self) -> None:
        """After the machine was started anew, UIDs and MODSEQs that may have been told and lost are passed over."""
        first = self.put()
        before = self.store.status("INBOX")
        self.store.close()
        self.patch(index_database, "boot_id", lambda: "another start")
        self.store = self.open_store()
        after = self.store.status("INBOX")
        self.assertEqual(after.uidnext, before.uidnext + index_database.RESTART_GAP)
        self.assertEqual(after.highestmodseq, before.highestmodseq + index_database.RESTART_GAP)
        self.assertEqual(after.uidvalidity, before.uidvalidity)
        opened = self.store.open("INBOX", False)
        self.assertEqual([row.uid for row in opened.delta.rows], [first])

    def test_once(self) -> None:
        """The gap is left once for each start, however often the index is opened."""
        self.put()
        self.store.close()
        self.patch(index_database, "boot_id", lambda: "another start")
        for _ in range(3):
            self.store = self.open_store()
            uidnext = self.store.status("INBOX").uidnext
            self.store.close()
        self.assertEqual(uidnext, 2 + index_database.RESTART_GAP)

    def test_lost_within_the_second(self) -> None:
        """An index that is lost is followed by one with other UIDVALIDITYs, however soon and whatever the clock says."""
        self.clock.stand_at = lambda: 1_800_000_000.0
        given = set()
        for harm in (os.unlink, lambda path: os.truncate(path, 0), os.unlink):
            self.put()
            given.add(self.store.status("INBOX").uidvalidity)
            self.store.close()
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path("imapshield.sqlite" + suffix))
            harm(self.path("imapshield.sqlite"))
            self.store = self.open_store()
        given.add(self.store.status("INBOX").uidvalidity)
        self.assertEqual(len(given), 4)
