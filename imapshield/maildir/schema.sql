-- The index of one account. The messages themselves are files of the Maildir. If the index is lost, it is built again
-- from them and no message is lost. UIDVALIDITY, UIDs, MODSEQs, MAILBOXID, EMAILID and SAVEDATE are then assigned
-- again. Metadata, special uses, and keywords that have no letter are lost.
--
-- PRAGMA user_version holds the version of this schema (VERSION in index_schema.py, which also changes a database of
-- an earlier version to this one). A database with a newer version is not opened. This file is executed statement by statement,
-- and in each line everything after two hyphens is dropped.

CREATE TABLE account (                      -- Exactly one row.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    uidvalidity INTEGER NOT NULL,           -- The last UIDVALIDITY that any mailbox got. It never decreases. It is also
                                            -- in the file imapshield-uidvalidity, which outlives the index.
    octets INTEGER NOT NULL DEFAULT 0,      -- The bytes of all message files (message.physical) and of all metadata,
                                            -- for the quota. Code that inserts or deletes messages, or updates
                                            -- message.physical, updates it. The triggers below do that for metadata.
    messages INTEGER NOT NULL DEFAULT 0,    -- The number of messages in all mailboxes.
    inode INTEGER NOT NULL DEFAULT 0,       -- The inode of this file: a copy has another one. 0 if it is not known.
    generation INTEGER NOT NULL DEFAULT 0,  -- The generation of that inode, because file systems use inodes again. 0 if
                                            -- the file system has none.
    epoch INTEGER NOT NULL DEFAULT 0,       -- Counts how often the file was opened for writing, and closed
                                            -- (index_files.py).
    retired INTEGER NOT NULL DEFAULT 0      -- All UIDVALIDITYs up to this one are like those of table retired: they
                                            -- were in use before a backup of this file was restored.
);

CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- The key by which sessions refer to the mailbox. It is never used again.
                                            -- The first one is random, so that a session cannot hold a valid key of a
                                            -- lost index.
    name TEXT NOT NULL UNIQUE,              -- The name as Unicode, with "/" between levels; "INBOX" for the Maildir
                                            -- itself.
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    highestmodseq INTEGER NOT NULL DEFAULT 1,
    recentuid INTEGER NOT NULL DEFAULT 0,   -- Messages up to this UID have been claimed as \Recent by a session.
    mailbox_id BLOB NOT NULL,               -- MAILBOXID (RFC 8474).
    special_use BLOB NOT NULL DEFAULT x'',  -- Special-use attributes (RFC 6154), separated by spaces.
    keywords BLOB NOT NULL DEFAULT x'',     -- Keywords that have no letter in dovecot-keywords, separated by spaces.
    floor INTEGER NOT NULL DEFAULT 0,       -- Table expunged has every message that was expunged at a later MODSEQ than
                                            -- this.
    logged INTEGER NOT NULL DEFAULT 0,      -- The number of this mailbox's rows in table expunged.
    cur_mtime INTEGER NOT NULL DEFAULT 0,   -- The mtime of cur/ in nanoseconds, when it was last read, or after
                                            -- imapshield changed a directory that nobody else had changed since then.
    cur_ino INTEGER NOT NULL DEFAULT 0,     -- The inode of cur/ at the same time.
    new_mtime INTEGER NOT NULL DEFAULT 0,   -- The same for new/.
    new_ino INTEGER NOT NULL DEFAULT 0,
    hot INTEGER NOT NULL DEFAULT 0,         -- Bits: 1 if cur_mtime is too recent to be trusted, 2 if new_mtime is, 4 if
                                            -- messages of the mailbox are staged (message.place is 2).
    scanned REAL NOT NULL DEFAULT 0,        -- When both directories were last read, in seconds since the epoch; 0
                                            -- forces the next sync to read them.
    synced_modseq INTEGER NOT NULL DEFAULT 0,  -- The names of messages with a MODSEQ up to this one are on stable
                                            -- storage in the directories too (recovery.py).
    changed_at INTEGER NOT NULL DEFAULT 0,  -- The mtime of cur/ in nanoseconds after the last change by imapshield.
    cur_files INTEGER NOT NULL DEFAULT 0    -- The number of files in cur/ when it was last read.
);

-- Recognizes a folder that was renamed. An UPDATE that sets cur_ino writes the index too, so it is set only if it changed.
CREATE INDEX mailbox_inode ON mailbox (cur_ino);

CREATE TABLE message (                      -- Code inserts rows by position: do not change the order of the columns.
    mailbox INTEGER NOT NULL,               -- mailbox.id
    uid INTEGER NOT NULL,
    name BLOB NOT NULL,                     -- The name of the file, without its directory.
    place INTEGER NOT NULL,                 -- The directory of the file: 0 is cur/, 1 is new/, 2 is tmp/ (a staged
                                            -- message).
    flags BLOB NOT NULL,                    -- The flags as they are sent: \Answered \Flagged \Deleted \Seen \Draft in
                                            -- this order, then keywords, separated by spaces. \Recent is not stored.
    modseq INTEGER NOT NULL,
    size INTEGER,                           -- The size with CRLF line ends, RFC822.SIZE; NULL if it was not measured
                                            -- yet.
    physical INTEGER NOT NULL,              -- The size of the file in bytes.
    internaldate INTEGER NOT NULL,          -- INTERNALDATE, in seconds since the epoch: the mtime that the file had when
                                            -- the row was inserted.
    saved INTEGER NOT NULL,                 -- SAVEDATE (RFC 8514), in seconds since the epoch.
    email_id BLOB NOT NULL,                 -- EMAILID (RFC 8474); copies of a message have the same one.
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;

CREATE INDEX message_modseq ON message (mailbox, modseq) WHERE modseq > 2;      -- What changed after a MODSEQ. Most
                                            -- messages never change, and have the first MODSEQ of their mailbox.
CREATE INDEX message_new ON message (mailbox) WHERE place = 1;                  -- The messages in new/.
CREATE INDEX message_unmeasured ON message (mailbox) WHERE size IS NULL;        -- What STATUS SIZE has to measure.

CREATE TABLE expunged (                     -- The log of expunged messages, for VANISHED (RFC 7162).
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,                -- The HIGHESTMODSEQ that the expunge gave to the mailbox.
    uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) WITHOUT ROWID;

CREATE TABLE removed (                      -- Files that EXPUNGE removed, while the directory is not on stable storage
                                            -- (recovery.py).
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,                -- The HIGHESTMODSEQ that the expunge gave to the mailbox.
    removed_at INTEGER NOT NULL,            -- The mtime of the directory in nanoseconds, after the files were removed.
    names BLOB NOT NULL,                    -- The names of the files, separated by slashes.
    pending INTEGER NOT NULL,               -- 1 if MOVE or REPLACE has yet to remove the files, after the commit.
    PRIMARY KEY (mailbox, modseq)
) WITHOUT ROWID;

CREATE TABLE moving (                       -- MOVEs that were announced and have not ended (move_log.py), and CREATEs
                                            -- and RENAMEs of folders (folder_log.py).
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,                -- mailbox.id; 0 for folders.
    target INTEGER NOT NULL,                -- mailbox.id; 0 for folders.
    names BLOB NOT NULL                     -- The new and the old base name of each message, separated by slashes. Of
                                            -- folders: the old name, nothing for one that is made; the new name; the
                                            -- inode of the folder.
);

CREATE TABLE retired (                      -- UIDVALIDITYs of mailboxes that were removed, or got another one. A
                                            -- restored list of another server may bring one back (uid_exchange.py).
    uidvalidity INTEGER PRIMARY KEY
);

CREATE TABLE item (                         -- What table answer has values for.
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- Never used again, because another process may hold it.
    text BLOB NOT NULL UNIQUE,              -- A FETCH item such as "ENVELOPE" or "HEADER.FIELDS date from", or for
                                            -- SEARCH one that begins with "?": "?ENVELOPE FROM", "?HEADER SUBJECT",
                                            -- "?SENT".
    used INTEGER NOT NULL DEFAULT 0         -- When the item was last used, in seconds since the epoch. It is updated at
                                            -- most once an hour.
);

CREATE TABLE answer (                       -- A row here implies a row in table message.
    mailbox INTEGER NOT NULL,
    item INTEGER NOT NULL,                  -- item.id
    uid INTEGER NOT NULL,
    value BLOB NOT NULL,                    -- For FETCH, the value as it is sent. For SEARCH, the values of up to 128
                                            -- messages (search_values.py), of which uid is the first: of each, the
                                            -- normalized text of the field, each occurrence after a NUL; for "?SENT",
                                            -- the proleptic Gregorian ordinal of the day in the Date field.
    PRIMARY KEY (mailbox, item, uid)
) WITHOUT ROWID;

CREATE TABLE metadata (                     -- RFC 5464.
    mailbox INTEGER NOT NULL,               -- mailbox.id, or 0 for entries of the account itself.
    entry BLOB NOT NULL,                    -- In lower case.
    value BLOB NOT NULL,
    PRIMARY KEY (mailbox, entry)
) WITHOUT ROWID;

CREATE TRIGGER metadata_inserted AFTER INSERT ON metadata BEGIN
    UPDATE account SET octets = octets + length(new.entry) + length(new.value);
END;

CREATE TRIGGER metadata_deleted AFTER DELETE ON metadata BEGIN
    UPDATE account SET octets = octets - length(old.entry) - length(old.value);
END;
