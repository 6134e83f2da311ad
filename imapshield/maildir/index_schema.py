"""The tables of the index: schema.sql, and the change of an older database to it."""

import sqlite3
from importlib import resources

VERSION = 2
"""The version of schema.sql, stored as ``user_version``."""

_TO_VERSION_2 = """
ALTER TABLE account DROP COLUMN boot;
ALTER TABLE account ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN synced_modseq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN changed_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN cur_files INTEGER NOT NULL DEFAULT 0;
CREATE INDEX mailbox_inode ON mailbox (cur_ino);
UPDATE mailbox SET uidnext = min(uidnext + 1000, 4294967295), highestmodseq = highestmodseq + 1000;
UPDATE mailbox SET floor = highestmodseq, synced_modseq = highestmodseq;
UPDATE account SET octets = octets + (SELECT total(length(entry) + length(value)) FROM metadata);
CREATE TABLE removed (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    removed_at INTEGER NOT NULL,
    names BLOB NOT NULL,
    pending INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq)
) WITHOUT ROWID;
CREATE TRIGGER metadata_inserted AFTER INSERT ON metadata BEGIN
    UPDATE account SET octets = octets + length(new.entry) + length(new.value);
END;
CREATE TRIGGER metadata_deleted AFTER DELETE ON metadata BEGIN
    UPDATE account SET octets = octets - length(old.entry) - length(old.value);
END;
"""
"""Version 1 did not sync its commits. The last ones may be lost, so 1,000 UIDs and MODSEQs are skipped."""


def create_tables(db: sqlite3.Connection) -> None:
    """Create the tables of an empty database, in a transaction."""
    schema = resources.files("imapshield.maildir").joinpath("schema.sql").read_text("utf-8")
    _execute_all(db, schema)


def migrate(db: sqlite3.Connection) -> None:
    """Change a database of version 1 to the current schema."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone() == (1,):
            _execute_all(db, _TO_VERSION_2)
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
