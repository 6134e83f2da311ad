"""The tables of the index: schema.sql, and the change of an older database to it."""

import sqlite3
from importlib import resources

VERSION = 3
"""The version of schema.sql, stored as ``user_version``."""

# Read at import: an upgrade replaces the files of the package while the server runs.
_SCHEMA = resources.files("imapshield.maildir").joinpath("schema.sql").read_text("utf-8")

_TO_VERSION_2 = """
ALTER TABLE account DROP COLUMN boot;
ALTER TABLE account ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN synced_modseq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN changed_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN cur_files INTEGER NOT NULL DEFAULT 0;
CREATE INDEX mailbox_inode ON mailbox (cur_ino);
UPDATE mailbox SET uidnext = min(uidnext + 1000, 4294967295), highestmodseq = highestmodseq + 1000;
UPDATE mailbox SET floor = highestmodseq, synced_modseq = highestmodseq, cur_ino = 0, new_ino = 0;
UPDATE account SET octets = octets + (SELECT total(length(entry) + length(value)) FROM metadata);
CREATE TABLE removed (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    removed_at INTEGER NOT NULL,
    names BLOB NOT NULL,
    pending INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq)
) WITHOUT ROWID;
CREATE TABLE moving (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,
    names BLOB NOT NULL
);
CREATE TABLE retired (uidvalidity INTEGER PRIMARY KEY);
CREATE TRIGGER metadata_inserted AFTER INSERT ON metadata BEGIN
    UPDATE account SET octets = octets + length(new.entry) + length(new.value);
END;
CREATE TRIGGER metadata_deleted AFTER DELETE ON metadata BEGIN
    UPDATE account SET octets = octets - length(old.entry) - length(old.value);
END;
"""
"""Version 1 did not sync its commits. The last ones may be lost, so 1,000 UIDs and MODSEQs are skipped, and the folders
are not compared with their recorded inodes."""

_TO_VERSION_3 = """
DROP TRIGGER message_inserted;
DROP TRIGGER message_deleted;
DROP INDEX message_modseq;
CREATE INDEX message_modseq ON message (mailbox, modseq) WHERE modseq > 2;
"""
"""In version 2, SQLite counted each message when it was inserted, in the quota and in the index of MODSEQs."""

_NAMES = frozenset(
    {
        *(
            (b"table", name)
            for name in (b"account", b"mailbox", b"message", b"expunged", b"removed")
        ),
        *((b"table", name) for name in (b"item", b"answer", b"metadata", b"retired")),
        (b"table", b"sqlite_sequence"),
        *((b"index", b"message_" + name) for name in (b"modseq", b"new", b"unmeasured")),
        (b"table", b"moving"),
        (b"index", b"mailbox_inode"),
        *((b"trigger", b"metadata_" + name) for name in (b"inserted", b"deleted")),
    }
)
_NAMES_UNTIL_VERSION_2 = _NAMES | {
    (b"trigger", b"message_inserted"),
    (b"trigger", b"message_deleted"),
}


def check_schema(db: sqlite3.Connection, version: int) -> None:
    """Check that a database has only the tables, indexes and triggers of this module, or of its version.

    A user who may write into a Maildir could put a view that never ends in place of a table.

    Raises:
        sqlite3.DatabaseError: it has something else; with the code of a corrupt database.
    """
    rows = db.execute(
        "SELECT CAST(type AS BLOB), CAST(name AS BLOB) FROM sqlite_schema"
        " WHERE name NOT LIKE 'sqlite_autoindex_%' AND name NOT LIKE 'sqlite_stat%'"
    )
    names = _NAMES if version >= VERSION else _NAMES_UNTIL_VERSION_2
    if not names.issuperset(rows.fetchall()):
        error = sqlite3.DatabaseError("the database has tables that are not those of an index")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def create_tables(db: sqlite3.Connection) -> None:
    """Create the tables of an empty database, in a transaction."""
    _execute_all(db, _SCHEMA)


def migrate(db: sqlite3.Connection) -> None:
    """Change a database of an earlier version to the current schema."""
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version < VERSION:  # no other process was faster
            for script in (_TO_VERSION_2, _TO_VERSION_3)[version - 1 :]:
                _execute_all(db, script)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _execute_all(db: sqlite3.Connection, script: str) -> None:
    """Execute statements; executescript() would commit first."""
    statement = ""
    for line in script.splitlines():
        statement += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""
