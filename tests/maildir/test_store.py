"""The Maildir store fulfils the contract of all stores."""

from __future__ import annotations

import os
import time

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import StoreContract


class ContractTests(StoreContract, SynchronousTestCase):
    def make_store(self) -> MaildirStore:
        self.root = self.mktemp()
        store = self.reopen()
        store.mailboxes()
        return store

    def reopen(self) -> MaildirStore:
        self.warnings: list[str] = []
        store = MaildirStore(self.root, now=time.time, log_warning=self.warnings.append)
        self.addCleanup(store.close)
        return store

    def damage(self, uid: int) -> None:
        name = sorted(os.listdir(self.root + "/cur"))[uid - 1]
        os.rename(f"{self.root}/cur/{name}", f"{self.root}/{uid}")
        os.symlink(f"../{uid}", f"{self.root}/cur/{name}")

    def deliver(self, mailbox: str, content: bytes) -> None:
        folder = self.root + ("" if mailbox == "INBOX" else "/." + mailbox.replace("/", "."))
        name = f"{time.time():.6f}.{len(os.listdir(folder + '/new'))}.mx"
        with open(f"{folder}/tmp/{name}", "wb") as file:
            file.write(content)
        os.rename(f"{folder}/tmp/{name}", f"{folder}/new/{name}")
