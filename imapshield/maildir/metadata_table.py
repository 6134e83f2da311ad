"""Metadata (RFC 5464): entries and values of mailboxes, stored in the index."""

from __future__ import annotations

from collections.abc import Mapping

from imapshield.errors import TooMuchMetadata
from imapshield.mailbox.values import MAX_METADATA_ENTRIES
from imapshield.maildir.index import Index

SERVER_KEY = 0
"""Stands in place of a mailbox's key for the account's own entries (RFC 5464 section 3)."""


class MetadataTable:
    """The table ``metadata``; a `key` is that of a mailbox, or `SERVER_KEY`."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, key: int) -> dict[bytes, bytes]:
        """Return all entries and their values."""
        rows = self._index.db.execute(
            "SELECT entry, value FROM metadata WHERE mailbox = ? ORDER BY entry", (key,)
        )
        return dict(rows.fetchall())

    def set(self, key: int, values: Mapping[bytes, bytes | None]) -> None:
        """Set entries, or remove those whose value is None; all of them or none.

        If anything changes, the mailbox gets a new HIGHESTMODSEQ (RFC 7162 section 3.2).

        Raises:
            TooMuchMetadata: there would be more than `MAX_METADATA_ENTRIES`.
        """
        with self._index.write() as db:
            before = self.get(key)
            for entry, value in values.items():
                if value is None:
                    db.execute("DELETE FROM metadata WHERE mailbox = ? AND entry = ?", (key, entry))
                else:
                    db.execute(
                        "INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", (key, entry, value)
                    )
            after = self.get(key)
            if len(after) > MAX_METADATA_ENTRIES:
                raise TooMuchMetadata
            if after != before and key != SERVER_KEY:
                modseq = self._index.mailbox(key).highestmodseq + 1
                self._index.update_mailbox(key, highestmodseq=modseq)

    def copy(self, key: int, target_key: int) -> None:
        """Copy all entries of one mailbox to another, in a write transaction."""
        self._index.db.execute(
            "INSERT INTO metadata SELECT ?, entry, value FROM metadata WHERE mailbox = ?",
            (target_key, key),
        )
