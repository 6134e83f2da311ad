"""Queries of the index: mailboxes, messages, and what changed after a MODSEQ. schema.sql describes the tables."""

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from types import MappingProxyType
from typing import Any, cast

from imapshield.errors import NoSuchMailbox, StoreError
from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.maildir.filename import base
from imapshield.maildir.index_database import REBUILT_MARGIN
from imapshield.maildir.known_rows import MAILBOXES, MOVES
from imapshield.maildir.last_readings import LastReadings, Reading
from imapshield.maildir.mailbox_row import COLUMNS, MailboxRow
from imapshield.maildir.message_table import (
    FIRST_MODSEQ,
    MAX_UID,
    MessageTable,
    as_json,
    changed_after,
    uid_condition,
)
from imapshield.wire.sequence import SequenceSet

MAX_LOGGED_EXPUNGES = 100_000
"""The maximum of expunged messages in the log of one mailbox. The older half is removed when it is exceeded."""

MAX_RETIRED = 100_000
"""Removed mailboxes of an account whose UIDVALIDITY is remembered: ten times as many as an account may have mailboxes.
The lowest are forgotten. A client that creates and deletes mailboxes could otherwise make the index ever larger."""

STAGED = 4
"""The bit of `MailboxRow.directory_flags` that says that messages have their files in ``tmp/`` (`staging`)."""

_KEPT_BY_RENEW = (("metadata", "mailbox"), ("moving", "source"), ("moving", "target"))


_SELECT_MAILBOX = f"SELECT {', '.join(COLUMNS.values())} FROM mailbox WHERE "  # noqa: S608

_MESSAGE_ROW = "SELECT uid, flags, modseq, size, internaldate"


class Index(MessageTable):
    """One account's index. A mailbox's `key` is its id in the database."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last_readings = LastReadings()

    def mailbox(self, key: int) -> MailboxRow:
        """Return a mailbox by its key.

        Raises:
            NoSuchMailbox: it was deleted.
        """
        if (mailbox := self._known_mailbox("id = ?", key)) is None:
            raise NoSuchMailbox
        return mailbox

    def mailbox_named(self, name: str) -> MailboxRow | None:
        """Return a mailbox by its name, None if the index does not have it."""
        return self._known_mailbox("name = ?", name)

    def _known_mailbox(self, condition: str, value: object) -> MailboxRow | None:
        known, name = self.known(), (MAILBOXES, value)
        if name not in known:
            row = self.db.execute(_SELECT_MAILBOX + condition, (value,)).fetchone()
            known[name] = None if row is None else self._last_readings.applied(MailboxRow(*row))
        return cast("MailboxRow | None", known[name])

    def mailboxes_in(self, cur_ino: int, new_ino: int) -> list[MailboxRow]:
        """Return the mailboxes whose ``cur/`` and ``new/`` have these inodes."""
        query = _SELECT_MAILBOX + "cur_ino = ? AND new_ino = ?"
        return [MailboxRow(*row) for row in self.db.execute(query, (cur_ino, new_ino)).fetchall()]

    def add_mailbox(
        self, name: str, special_use: bytes = b"", uidvalidity: int = 0, uidnext: int = 1
    ) -> MailboxRow:
        """Add a mailbox, in a write transaction.

        Args:
            name: its name.
            special_use: its special-use attributes, separated by spaces.
            uidvalidity: the UIDVALIDITY that another server used for it; 0 allocates a new one.
            uidnext: the first UID to allocate.
        """
        uidvalidity = uidvalidity or self.next_uidvalidity()
        self.use_uidvalidity(uidvalidity)
        mailbox_id = b"F" + secrets.token_hex(8).encode()
        row = self.db.execute(
            # A mailbox without messages has nothing for `recovery`.
            "INSERT INTO mailbox (name, uidvalidity, uidnext, mailbox_id, special_use, synced_modseq)"
            " VALUES (?, ?, ?, ?, ?, 1)",
            (name, uidvalidity, uidnext, mailbox_id, special_use),
        )
        assert row.lastrowid is not None
        return self.mailbox(row.lastrowid)

    def next_uidvalidity(self) -> int:
        """Return a UIDVALIDITY that no mailbox of the account has had."""
        (last,) = self.db.execute("SELECT uidvalidity FROM account").fetchone()
        return min(max(int(last) + 1, int(self._now())), MAX_UID)

    def use_uidvalidity(self, uidvalidity: int) -> None:
        """Record, in a write transaction, that a mailbox gets this UIDVALIDITY."""
        self.db.execute("UPDATE account SET uidvalidity = max(uidvalidity, ?)", (uidvalidity,))
        self.reserve_uidvalidity(uidvalidity)

    def renew(
        self,
        mailbox: MailboxRow,
        uidvalidity: int = 0,
        uidnext: int = 1,
        uids: Mapping[bytes, int] = MappingProxyType({}),
        modseq: int = FIRST_MODSEQ,
    ) -> MailboxRow:
        """Give a mailbox another UIDVALIDITY and other UIDs, in a write transaction, and return its new row.

        The key changes too, so a session that has the mailbox selected finds that it no longer exists. Cached answers
        are dropped.

        Args:
            mailbox: the mailbox's row.
            uidvalidity: the UIDVALIDITY; 0 allocates a new one.
            uidnext: where the UIDs of messages begin that `uids` does not have.
            uids: UIDs by base name.
            modseq: the MODSEQ of all messages.
        """
        db, old = self.db, mailbox.key
        self.update_mailbox(old, name="/" + mailbox.name)  # no mailbox has such a name
        key = self.add_mailbox(mailbox.name, mailbox.special_use, uidvalidity).key
        moved: list[tuple[int, int, int, int, int]] = []
        rows = db.execute("SELECT uid, name FROM message WHERE mailbox = ? ORDER BY uid", (old,))
        for old_uid, name in rows:
            uid = uids.get(base(name), 0)
            if not uid:
                uid, uidnext = uidnext, uidnext + 1
            moved.append((key, uid, modseq, old, old_uid))
        db.executemany(
            "UPDATE message SET mailbox = ?, uid = ?, modseq = ? WHERE mailbox = ? AND uid = ?",
            moved,
        )
        for table, column in _KEPT_BY_RENEW:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (key, old))  # noqa: S608
        db.execute(  # with MODSEQs that the mailbox does not use
            "INSERT INTO removed SELECT ?, -row_number() OVER (), removed_at, names, pending"
            " FROM removed WHERE mailbox = ?",
            (key, old),
        )
        self.remove_mailbox(old)
        self.update_mailbox(
            key,
            uidnext=uidnext,
            highestmodseq=modseq,
            last_claimed_uid=uidnext - 1,
            mailbox_id=mailbox.mailbox_id,
            keywords=mailbox.keywords,
            directory_flags=mailbox.directory_flags & STAGED,
            synced_modseq=modseq if mailbox.synced_modseq >= mailbox.highestmodseq else 0,
        )
        return self.mailbox(key)

    def renew_all(self) -> None:
        """Give every mailbox a new UIDVALIDITY, after a backup of the index was restored."""
        with self.write() as db:
            first = self.first_uidvalidity(REBUILT_MARGIN)
            db.execute(
                "UPDATE account SET uidvalidity = max(uidvalidity, ?), retired = ?", (first, first)
            )
            for (key,) in db.execute("SELECT id FROM mailbox").fetchall():
                self.renew(self.mailbox(key))
            self.renewed()

    def update_mailbox(self, key: int, **fields: object) -> None:
        """Change some of a mailbox's fields, named as in `MailboxRow`, in a write transaction."""
        before: MailboxRow | None = self.known().get((MAILBOXES, key))
        if key in self._last_readings:
            fields = self._last_readings.unwritten(self._read_mailbox(key)) | fields
        if not fields:
            return
        columns = ", ".join([f"{COLUMNS[field]} = ?" for field in fields])
        with self.keeping(MOVES):
            self.db.execute(f"UPDATE mailbox SET {columns} WHERE id = ?", (*fields.values(), key))  # noqa: S608
        if before is not None:
            known, after = self.known(), before._replace(**cast("Any", fields))
            known[MAILBOXES, key] = known[MAILBOXES, after.name] = after

    def _read_mailbox(self, key: int) -> MailboxRow:
        row = self.db.execute(_SELECT_MAILBOX + "id = ?", (key,)).fetchone()
        if row is None:
            raise NoSuchMailbox
        return MailboxRow(*row)

    def record_reading(self, before: MailboxRow, found: MailboxRow) -> None:
        """Record when the directories of a mailbox were read, and what was found.

        It is written now if this is a write transaction, or if their times differ from those in the index; otherwise
        with the next change of the mailbox (`last_readings`). If another process has recorded anything since the
        reading began, nothing is recorded: it may have staged messages, and the directories are read again.

        Args:
            before: the mailbox's row when the reading began.
            found: the row with the result of the reading.
        """
        key, in_transaction, old = before.key, self.db.in_transaction, Reading.of(before)
        if not in_transaction:
            for name in (key, before.name):
                self.known().pop((MAILBOXES, name), None)
            indexed, readings = self._read_mailbox(key), self._last_readings
            if Reading.of(readings.applied(indexed)) != old or readings.remember(indexed, found):
                return
        with nullcontext() if in_transaction else self.write_unless_full():
            if Reading.of(self.mailbox(key)) == old:
                self.update_mailbox(key, **Reading.of(found).changes_since(old))

    def forget_readings(self) -> None:
        """Forget the readings that are not written. The directories are then read again."""
        self._last_readings = LastReadings()
        self._known.clear()  # rows with these readings

    def close(self) -> None:
        """Write what is known of directories, and close the database."""
        keys = list(self._last_readings)
        # If that is not possible, the directories are read again. A write would first undo a command that was killed.
        with suppress(sqlite3.Error, OSError, StoreError):
            self._known.expire()
            if keys and self.is_open_in(self._files.directory) and not self.has_moves():
                with self.write_unless_full():
                    for key in keys:
                        with suppress(NoSuchMailbox):
                            self.update_mailbox(key)
        self.forget_readings()
        super().close()

    def remove_mailbox(self, key: int) -> None:
        """Remove a mailbox and everything that belongs to it, but remember its UIDVALIDITY, in a write transaction."""
        query = "INSERT OR IGNORE INTO retired SELECT uidvalidity FROM mailbox WHERE id = ?"
        self.db.execute(query, (key,))
        self.db.execute(
            "DELETE FROM retired WHERE uidvalidity <="
            " (SELECT uidvalidity FROM retired ORDER BY uidvalidity DESC LIMIT 1 OFFSET ?)",
            (MAX_RETIRED,),
        )
        self.remove_messages(key)
        for table in ("answer", "expunged", "metadata", "removed"):
            self.db.execute(f"DELETE FROM {table} WHERE mailbox = ?", (key,))  # noqa: S608
        self.db.execute("DELETE FROM mailbox WHERE id = ?", (key,))

    def is_retired(self, uidvalidity: int) -> bool:
        """Whether a mailbox that was removed, or got another UIDVALIDITY, may have had this one."""
        query = (
            "SELECT 1 FROM account WHERE retired >= ?1 OR ?1 IN (SELECT uidvalidity FROM retired)"
        )
        return self.db.execute(query, (uidvalidity,)).fetchone() is not None

    def expunge(self, mailbox: MailboxRow, uids: Sequence[int], modseq: int) -> dict[str, int]:
        """Remove messages and log their UIDs, in a write transaction; return fields for `update_mailbox`.

        Args:
            mailbox: the mailbox's current row.
            uids: the messages to remove.
            modseq: the new HIGHESTMODSEQ, at which they were expunged.
        """
        db, key = self.db, mailbox.key
        in_uids, parameters = uid_condition(uids)
        for item, _ in self.cached_items(key):
            db.execute(
                f"DELETE FROM answer WHERE mailbox = ? AND item = ? AND {in_uids}",  # noqa: S608
                (key, item, *parameters),
            )
        self.remove_messages(key, f"AND {in_uids}", parameters)
        db.execute(
            "INSERT INTO expunged SELECT ?, ?, value FROM json_each(?)",
            (key, modseq, as_json(uids)),
        )
        complete_after = mailbox.expunges_complete_after
        logged = mailbox.expunges_logged + len(uids)
        if logged > MAX_LOGGED_EXPUNGES:
            (complete_after,) = db.execute(
                "SELECT modseq FROM expunged WHERE mailbox = ? ORDER BY modseq DESC"
                " LIMIT 1 OFFSET ?",
                (key, MAX_LOGGED_EXPUNGES // 2),
            ).fetchone()
            db.execute(
                "DELETE FROM expunged WHERE mailbox = ? AND modseq <= ?", (key, complete_after)
            )
            (logged,) = db.execute(
                "SELECT count(*) FROM expunged WHERE mailbox = ?", (key,)
            ).fetchone()
        counts = {"expunges_complete_after": complete_after, "expunges_logged": logged}
        return counts | {"highestmodseq": modseq}

    def note_removed(
        self,
        key: int,
        modseq: int,
        removed_at: int,
        names: Sequence[bytes],
        *,
        pending: bool = False,
    ) -> None:
        """Record, in a write transaction, that files were removed and that the directory is not synced.

        Args:
            key: the mailbox.
            modseq: its HIGHESTMODSEQ.
            removed_at: the time of the file system, in nanoseconds.
            names: the names of the files.
            pending: whether the files are to be removed after the commit.
        """
        row = key, modseq, removed_at, b"/".join(names), pending
        self.db.execute("INSERT INTO removed VALUES (?, ?, ?, ?, ?)", row)

    def note_removal(self, key: int) -> None:
        """Record, in a write transaction, that no file of the mailbox is to be removed any more."""
        self.db.execute("UPDATE removed SET pending = 0 WHERE mailbox = ? AND pending", (key,))

    def files_to_remove(self, key: int) -> dict[bytes, int]:
        """Return the base names of files that MOVE or REPLACE is about to remove, and when that was decided."""
        rows = self.db.execute(
            "SELECT removed_at, names FROM removed WHERE mailbox = ? AND pending", (key,)
        )
        return {base(name): time for time, names in rows.fetchall() for name in names.split(b"/")}

    def note_synced(self, mailbox: MailboxRow) -> None:
        """Record, in a write transaction, that the directories of a mailbox are on stable storage."""
        modseq = mailbox.highestmodseq
        query = "DELETE FROM removed WHERE mailbox = ? AND modseq <= ?"
        self.db.execute(query, (mailbox.key, modseq))
        self.update_mailbox(mailbox.key, synced_modseq=modseq)

    def delta_since(self, key: int, since: int, recent: list[int] | None = None) -> Delta:
        r"""Return everything that changed in a mailbox after MODSEQ `since`.

        Args:
            key: the mailbox.
            since: the MODSEQ; 0 for all messages.
            recent: the UIDs of \Recent messages, to be part of the delta.
        """
        with self.snapshot() as db:
            mailbox = self.mailbox(key)
            rows: list[MessageRow] = []
            vanished = SequenceSet()
            if since < mailbox.highestmodseq:
                # Equal flag lists are one object: thousands of messages may have the same four KiB of flags.
                flag_lists: dict[bytes, bytes] = {}
                one, new = flag_lists.setdefault, tuple.__new__  # a fourth faster than MessageRow()
                rows = [
                    new(MessageRow, (uid, one(flags, flags), modseq, size, date))
                    for uid, flags, modseq, size, date in db.execute(
                        f"{_MESSAGE_ROW} {changed_after(since)} ORDER BY uid", (key, since)
                    )
                ]
                if since:
                    vanished = self._vanished_since(mailbox, since)
            return Delta(rows, vanished, mailbox.highestmodseq, mailbox.uidnext, recent or [])

    def _vanished_since(self, mailbox: MailboxRow, since: int) -> SequenceSet:
        if since >= mailbox.expunges_complete_after:
            query = "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid"
            uids = self.db.execute(query, (mailbox.key, since))
            return SequenceSet.from_numbers(uid for (uid,) in uids)
        # The log does not reach back that far, so all UIDs without a message are returned, no matter when they were
        # expunged.
        query = "SELECT uid FROM message WHERE mailbox = ? ORDER BY uid"
        uids = self.db.execute(query, (mailbox.key,))
        return SequenceSet.complement((uid for (uid,) in uids), mailbox.uidnext)

    def cached_items(self, key: int) -> list[tuple[int, bytes]]:
        """Return (id, text) of the FETCH items and SEARCH keys for which the mailbox has cached answers."""
        return self.db.execute(
            "SELECT id, text FROM item WHERE EXISTS"
            " (SELECT 1 FROM answer WHERE mailbox = ? AND item = item.id)",
            (key,),
        ).fetchall()
