"""The state that all parts of one account's store share."""

from __future__ import annotations

import os
from collections.abc import Callable

from imapshield.maildir import files
from imapshield.maildir.index import Index
from imapshield.maildir.index_database import INDEX_FILE
from imapshield.maildir.keywords import MailboxKeywords
from imapshield.maildir.paths import AccountPaths
from imapshield.maildir.staging import Staging


class AccountState:
    """One account's paths, index, keywords and staged messages; `MaildirStore` describes the arguments."""

    def __init__(
        self, root: str, now: Callable[[], float], log_warning: Callable[[str], None]
    ) -> None:
        self.now = now
        self.log_warning = log_warning
        self.paths = AccountPaths(root, now)
        self.index = Index(self.paths.root + b"/" + INDEX_FILE, now, log_warning)
        self.keywords = MailboxKeywords(self.index, self.paths)
        self.staging = Staging(self.index, self.paths, log_warning)
        self._prepared = False

    def prepare(self) -> None:
        """Create the Maildir if there is none, finish what a crash interrupted, and open the index."""
        if not self._prepared:
            root = self.paths.root
            os.makedirs(root, 0o700, exist_ok=True)
            files.make_folder(root)
            files.remove_stale(root, self.now())
            self.index.ensure_open()
            self.staging.publish_all()
            self._prepared = True
        self.index.ensure_open()

    def reset(self) -> None:
        """After an error: read everything again that was remembered, and prepare the Maildir again."""
        self.keywords.clear_cache()
        self._prepared = False
