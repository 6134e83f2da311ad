"""Remembers that a directory was read once more, and has what the index has.

Such a reading follows each change by imapshield, when its second is over (`sync`). To write it into the index takes a
transaction, and so a thread, for each mailbox in use, up to once in a second. So it is written with the next change of
the mailbox, or when the index is closed. If the server is killed before, the directory is read again.
"""

from collections.abc import Iterator
from typing import NamedTuple

from imapshield.maildir.mailbox_row import MailboxRow

MAX_READINGS = 64
"""Mailboxes of one account whose readings are remembered: most clients use a few. Those of others are written."""


class Reading(NamedTuple):
    """The fields of a mailbox's row that say what the last reading of its directories has found."""

    cur_mtime: int
    cur_ino: int
    new_mtime: int
    new_ino: int
    directory_flags: int
    listed_at: float
    cur_files: int

    @classmethod
    def of(cls, mailbox: MailboxRow) -> "Reading":
        """Return what a row has of the last reading."""
        return cls(*[getattr(mailbox, field) for field in cls._fields])

    def changes_since(self, before: "Reading") -> dict[str, object]:
        """Return the fields that differ from those of an earlier reading."""
        fields = zip(self._fields, self, before, strict=True)
        return {field: value for field, value, old in fields if value != old}


class LastReadings:
    """The readings of an account's mailboxes that are not in the index yet.

    The row of a mailbox in the index tells whether another reading, or a change, was written after the remembered one.
    """

    def __init__(self) -> None:
        # By mailbox: what the index had at the reading, and what was found.
        self._readings: dict[int, tuple[Reading, Reading]] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._readings

    def __iter__(self) -> Iterator[int]:
        return iter(self._readings)

    def applied(self, indexed: MailboxRow) -> MailboxRow:
        """Return the row of a mailbox with its last reading."""
        before, found = self._readings.get(indexed.key, (None, None))
        if found is None or Reading.of(indexed) != before:
            return indexed
        return indexed._replace(**found._asdict())

    def remember(self, indexed: MailboxRow, mailbox: MailboxRow) -> bool:
        """Remember a reading that found the directories with the times and inodes that the index has.

        Other times must be written: a change by imapshield records the new times only if the index has those before it.

        Args:
            indexed: the row in the index.
            mailbox: the row with what was found.

        Returns:
            whether it is remembered. Otherwise it is to be written.
        """
        before, found = Reading.of(indexed), Reading.of(mailbox)
        if before[:4] != found[:4]:
            return False
        self._readings.pop(indexed.key, None)
        if len(self._readings) >= MAX_READINGS:
            # The directory whose reading is forgotten is read again, and that is then written.
            del self._readings[next(iter(self._readings))]
            return False
        self._readings[indexed.key] = before, found
        return True

    def unwritten(self, indexed: MailboxRow) -> dict[str, object]:
        """Return the fields of a mailbox's reading to write into its row; none if that has a later one.

        The reading stays until another one is written: the transaction may be rolled back.
        """
        before, found = self._readings[indexed.key]
        if Reading.of(indexed) == before:
            return found.changes_since(before)
        del self._readings[indexed.key]
        return {}
