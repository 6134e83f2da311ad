"""An account has no more files open than the shares of the server assume."""

import os
import time

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.shares import FILES_PER_ACCOUNT
from imapshield.maildir.store import MaildirStore


class OpenFilesTests(SynchronousTestCase):
    def test_idle_account(self) -> None:
        """An account with a text index, whose index is in another directory, has `FILES_PER_ACCOUNT` files open."""
        root = os.path.abspath(self.mktemp())
        os.mkdir(root)
        before = set(os.listdir("/dev/fd"))
        store = MaildirStore(
            root, now=time.time, log_warning=self.fail, index_directory=f"{root}-index"
        )
        self.addCleanup(store.close)
        store.mailboxes()
        self.assertTrue(store._account.text_index.ensure_open(create=True))
        self.assertEqual(len(set(os.listdir("/dev/fd")) - before), FILES_PER_ACCOUNT)
