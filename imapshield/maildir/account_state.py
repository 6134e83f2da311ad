"""The state of one account's store: paths, index, keywords, caches and quota."""

import os
from collections.abc import Callable

from imapshield.errors import QuotaExceeded
from imapshield.mailbox.values import Quota
from imapshield.maildir import files
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.index import Index
from imapshield.maildir.index_database import INDEX_FILE
from imapshield.maildir.keywords import MailboxKeywords
from imapshield.maildir.message_file import OpenBlob
from imapshield.maildir.other_servers import SeenLists
from imapshield.maildir.paths import AccountPaths
from imapshield.maildir.staging import Staging


class AccountState:
    """What the operations on one account's Maildir share; `MaildirStore` describes the arguments.

    Attributes:
        paths: the folders of the Maildir.
        index: the SQLite index.
        keywords: the keywords of each mailbox.
        staging: inserts new messages.
        cache: cached answers to FETCH and SEARCH.
        open_blob: the large string of which a part was read last, or None. A string in a temporary file is closed when
            its end was read.
        logged_files: the paths of ignored files that the operator has been warned about.
        seen_lists: the lists of Dovecot and Courier as they were seen last, by mailbox (`uid_exchange`).
    """

    def __init__(
        self,
        root: str,
        now: Callable[[], float],
        log_warning: Callable[[str], None],
        quota: tuple[int | None, int | None],
    ) -> None:
        self.now = now
        self.log_warning = log_warning
        self.paths = AccountPaths(root, now)
        self.index = Index(self.paths.root + b"/" + INDEX_FILE, now, log_warning)
        self.keywords = MailboxKeywords(self.index, self.paths)
        self.staging = Staging(self.index, self.paths, log_warning)
        self.cache = FetchCache(self.index, now)
        self.open_blob: OpenBlob | None = None
        self.logged_files: set[bytes] = set()
        self.seen_lists: dict[int, SeenLists] = {}
        self._quota = quota
        self._prepared = False

    def prepare(self) -> None:
        """Create the Maildir if there is none, finish what a crash interrupted, and open the index."""
        if not self._prepared:
            root = self.paths.root
            os.makedirs(root, 0o700, exist_ok=True)
            files.make_folder(root)
            self.index.ensure_open()
            self.staging.publish_all()
            files.remove_stale(root, self.now(), self.staging.staged_names())
            self._prepared = True
        self.index.ensure_open()

    def reset(self) -> None:
        """Forget, after an error, what was read from the disk; the next operation prepares the Maildir again."""
        self.keywords.clear_cache()
        self.seen_lists.clear()
        self._prepared = False

    def folder(self, key: int) -> bytes:
        """Return the path of a mailbox's folder.

        Raises:
            NoSuchMailbox: the mailbox was deleted.
        """
        return self.paths.folder(self.index.mailbox(key).name)

    def watch_paths(self, key: int) -> tuple[str, str]:
        """Return the directories that change when another program changes the mailbox."""
        folder = os.fsdecode(self.folder(key))
        return folder + "/new", folder + "/cur"

    def usage(self) -> Quota:
        """Return usage and limits, as the index has them: its triggers count messages and the bytes of their files."""
        octets, messages = self.index.db.execute("SELECT octets, messages FROM account").fetchone()
        return Quota(octets, messages, *self._quota)

    def check_quota(self, messages: int, octets: int) -> None:
        """Check that there is room for more messages and bytes.

        A delivery agent does not check the quota, so the account may already be over it. Then only changes that do not
        make it larger are allowed.

        Raises:
            QuotaExceeded: the account would be over its quota.
        """
        if self._quota == (None, None):
            return
        usage = self.usage()
        for added, used, limit in (
            (octets, usage.octets, usage.max_octets),
            (messages, usage.messages, usage.max_messages),
        ):
            if added > 0 and limit is not None and used + added > limit:
                raise QuotaExceeded
