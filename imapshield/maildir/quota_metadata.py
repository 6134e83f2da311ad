"""What belongs to the account as a whole: how much mail there is and may be, and what clients say of its mailboxes."""

from __future__ import annotations

from collections.abc import Mapping

from imapshield.errors import QuotaExceeded, TooMuchMetadata
from imapshield.mailbox.values import MAX_METADATA_ENTRIES, Quota
from imapshield.maildir.index import Index

SERVER = 0
"""The mailbox of entries that are the account's own (RFC 5464 section 3)."""


class Quotas:
    """Counts the octets and messages of the files, of which there may be `most`; None is no limit."""

    def __init__(self, index: Index, most: tuple[int | None, int | None]) -> None:
        self._index = index
        self._most = most

    def used(self) -> Quota:
        """Return what is used; the index counts as messages come and go."""
        octets, messages = self._index.db.execute("SELECT octets, messages FROM account").fetchone()
        return Quota(octets, messages, *self._most)

    def need(self, messages: int, octets: int) -> None:
        """NoSpace if that many more would be too many; a delivery agent asks nobody, so it may be so already."""
        if self._most == (None, None):
            return
        used = self.used()
        for more, now, most in (
            (octets, used.octets, used.max_octets),
            (messages, used.messages, used.max_messages),
        ):
            if more > 0 and most is not None and now + more > most:
                raise QuotaExceeded


class Metadata:
    """Entries and values (RFC 5464) of a mailbox's key, or of `SERVER`."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, key: int) -> dict[bytes, bytes]:
        """Return all entries."""
        rows = self._index.db.execute(
            "SELECT entry, value FROM metadata WHERE mailbox = ? ORDER BY entry", (key,)
        )
        return dict(rows.fetchall())

    def set(self, key: int, values: Mapping[bytes, bytes | None]) -> None:
        """Set or, where the value is None, remove; all or none. TooMuchMetadata.

        What changes gets the mailbox a new MODSEQ (RFC 7162 section 3.2).
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
            if after != before and key != SERVER:
                self._index.set(key, highestmodseq=self._index.box(key).highestmodseq + 1)
